//! What a service asks for, as the processes in its container find it.

use super::{printed, shell};
use crate::support::{Project, can_run_containers, needs_root};

/// Runs one container with these attributes and returns what the script prints.
#[track_caller]
fn says(attributes: &str, script: &str) -> String {
    let project = Project::new(&format!("services:\n  a: {{{}, {attributes}}}\n", shell(script)));
    project.run(&["up", "-d"]).ok();
    let said = printed(&project);
    project.down();
    said
}

#[test]
fn identity_and_rights() {
    if !can_run_containers("identity_and_rights") {
        return;
    }
    if needs_root("identity_and_rights", "/proc/sys is the host's") {
        return;
    }
    let look = "id -u; id -G; pwd; umask; grep -E 'CapBnd|NoNewPrivs|Seccomp:' /proc/self/status; cat /proc/self/oom_score_adj; ulimit -n; ulimit -Hn";
    let said = says(
        "user: '7:8', group_add: ['9', daemon], working_dir: /usr, cap_drop: [ALL], cap_add: [NET_ADMIN], \
         security_opt: ['no-new-privileges:true'], oom_score_adj: 500, ulimits: {nofile: {soft: 100, hard: 200}}",
        look,
    );
    assert_eq!(said, "7\n8 1 9\n/usr\n0022\nCapBnd:\t0000000000001000\nNoNewPrivs:\t1\nSeccomp:\t2\n500\n100\n200\n");
    let said =
        says("privileged: true", "grep Seccomp: /proc/self/status; [ -w /proc/sys/kernel/hostname ] && echo open");
    assert_eq!(said, "Seccomp:\t0\nopen\n");
}

#[test]
fn what_is_hidden_and_what_may_be_written() {
    if !can_run_containers("what_is_hidden_and_what_may_be_written") {
        return;
    }
    if needs_root("what_is_hidden_and_what_may_be_written", "/proc/timer_list is closed in any case") {
        return;
    }
    let look = "cat /proc/timer_list 2>/dev/null | wc -c; ls /opt/hidden | wc -l; touch /x 2>/dev/null || echo fixed; \
                touch /t/x && stat -f -c %T /t; stat -c %a /t; stat -c %u /t; df -k /dev/shm | tail -1 | tr -s ' ' | cut -d' ' -f2; \
                [ -w /proc/sys/net ] && echo sys || echo no sys";
    let project = Project::new("services: {}");
    std::fs::write(project.folder().join("file"), "").unwrap();
    let attributes = format!(
        "read_only: true, tmpfs: '/t:size=1m,mode=750,uid=5', shm_size: 128m, security_opt: ['mask=/opt/hidden'], volumes: ['{}:/opt/hidden']",
        project.folder().display()
    );
    let said = says(&attributes, look);
    assert_eq!(said, "0\n0\nfixed\ntmpfs\n750\n5\n131072\nno sys\n");
    let open = says("security_opt: ['systempaths=unconfined']", "wc -c < /proc/timer_list; mount | grep -c ' /proc/'");
    let lines: Vec<&str> = open.lines().collect();
    assert!(lines[0] != "0" && lines[1] == "0", "{open}");
    let unmask =
        says("security_opt: ['unmask=/proc/timer_list']", "wc -c < /proc/timer_list; wc -c < /proc/interrupts");
    let lines: Vec<&str> = unmask.lines().collect();
    assert!(lines[0] != "0" && lines[1] == "0", "{unmask}");
}

#[test]
fn system_calls_are_filtered_as_the_profile_says() {
    if !can_run_containers("system_calls_are_filtered_as_the_profile_says") {
        return;
    }
    let project = Project::new("services: {}");
    project.write(
        "profile.json",
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}]}"#,
    );
    let profile = project.folder().join("profile.json");
    let try_both = "mkdir /tmp/d; unshare -U true && echo unshared";
    let own = says(&format!("security_opt: ['seccomp={}']", profile.display()), try_both);
    assert!(own.contains("Operation not supported") && own.contains("unshared"), "{own}");
    let default = says("init: false", try_both);
    assert!(!default.contains("not supported") && !default.contains("unshared"), "{default}");
    assert!(says("security_opt: ['seccomp=unconfined']", try_both).contains("unshared"));
}

#[test]
fn namespaces_and_names() {
    if !can_run_containers("namespaces_and_names") {
        return;
    }
    let own = |kind: &str| std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().display().to_string();
    let look = "hostname; cat /proc/sys/kernel/domainname; for n in pid ipc uts net; do readlink /proc/self/ns/$n; done; cat /proc/sys/net/ipv4/ip_forward_use_pmtu";
    let said = says("hostname: box, domainname: example.test, sysctls: {net.ipv4.ip_forward_use_pmtu: 1}", look);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!((lines[0], lines[1], lines[6]), ("box", "example.test", "1"), "{said}");
    for (line, kind) in lines[2..6].iter().zip(["pid", "ipc", "uts", "net"]) {
        assert_ne!(*line, own(kind), "{kind}");
    }
    let said = says(
        "pid: host, ipc: host, uts: host, network_mode: host",
        "for n in pid ipc uts net; do readlink /proc/self/ns/$n; done",
    );
    assert_eq!(said.lines().collect::<Vec<_>>(), ["pid", "ipc", "uts", "net"].map(own));
    assert_ne!(says("cgroup: private", "readlink /proc/self/ns/cgroup").trim_end(), own("cgroup"));
    let idle = shell("exec sleep 1000");
    let project = Project::new(&format!(
        "services:
  a: {{{idle}, ipc: shareable}}
  b: {{{idle}, pid: 'service:a', ipc: 'service:a', network_mode: 'service:a', init: true}}
"
    ));
    project.run(&["up", "-d"]).ok();
    let namespaces = |service: &str| {
        let look = "for n in pid ipc net; do readlink /proc/self/ns/$n; done";
        project.run(&["exec", "-T", service, "sh", "-c", look]).ok().out
    };
    assert_eq!(namespaces("a"), namespaces("b"));
    let inside = |service: &str, look: &str| project.run(&["exec", "-T", service, "sh", "-c", look]).ok().out;
    // Who shares the network shares the names, and who shares System V's memory shares that of /dev/shm.
    let names = "cat /etc/hosts /etc/resolv.conf /etc/hostname /proc/sys/kernel/hostname";
    let seen = inside("b", names);
    assert!(seen.contains("nameserver 127.0.0.11") && seen == inside("a", names), "{seen}");
    inside("a", "echo word > /dev/shm/told");
    assert_eq!(inside("b", "cat /dev/shm/told; rm /dev/shm/told"), "word\n");
    // Whatever became of `a` meanwhile, both are together again afterwards.
    let changes: [&[&str]; 3] = [&["kill", "a"], &["rm", "-sf", "a"], &["up", "-d", "--force-recreate", "a"]];
    for change in changes {
        project.run(change).ok();
        project.run(&["up", "-d"]).ok();
        assert_eq!(namespaces("a"), namespaces("b"), "after {change:?}");
    }
    assert_eq!(project.run(&["plan"]).code, 0);
    project.down();
    assert!(says("init: true", "tr '\\0' ' ' < /proc/1/cmdline").starts_with("rcompose"), "pid 1 is the init");
}

#[test]
fn a_container_on_the_hosts_network_has_the_hosts_names() {
    if !can_run_containers("a_container_on_the_hosts_network_has_the_hosts_names") {
        return;
    }
    let look = "cat /proc/sys/kernel/hostname /etc/hosts /etc/resolv.conf";
    let host = ["/proc/sys/kernel/hostname", "/etc/hosts", "/etc/resolv.conf"];
    let host: String = host.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    assert_eq!(says("network_mode: host", look), host);
    let attributes = "network_mode: host, hostname: box, dns: 192.0.2.53, dns_search: example.test, extra_hosts: ['up=host-gateway']";
    let said = says(attributes, look);
    assert!(said.starts_with("box\n") && said.contains("\n127.0.0.1\tup\n"), "{said}");
    assert!(said.contains("nameserver 192.0.2.53\nsearch example.test\n"), "{said}");
    let said = says("network_mode: none, dns: 192.0.2.53", "cat /etc/resolv.conf");
    assert!(said.starts_with("nameserver 192.0.2.53\n"), "{said}");
    let said = says("sysctls: {net.ipv6.conf.all.disable_ipv6: 1}, hostname: a.b.c", "cat /etc/hosts");
    assert!(!said.contains("::1") && said.ends_with("\ta.b.c a\n"), "{said}");
}

#[test]
fn devices_and_their_rules() {
    if !can_run_containers("devices_and_their_rules") {
        return;
    }
    if needs_root("devices_and_their_rules", "no device node can be made") {
        return;
    }
    let look = "for f in kmsg own; do [ -c /dev/$f ] || continue; (exec 3< /dev/$f) 2>/dev/null && echo $f readable; (exec 3>> /dev/$f) 2>/dev/null && echo $f writable; done; \
                mknod /tmp/n c 1 11 && (exec 3< /tmp/n) 2>/dev/null && echo made";
    assert_eq!(says("devices: ['/dev/kmsg:/dev/own:w']", look), "own writable\n");
    assert_eq!(says("device_cgroup_rules: ['c 1:11 r'], cap_add: [SYSLOG]", look), "made\n");
}

#[test]
fn configs_and_secrets_have_owner_and_mode() {
    if !can_run_containers("configs_and_secrets_have_owner_and_mode") {
        return;
    }
    let look = "for f in /etc/app.conf /run/secrets/token /run/secrets/file /deep/down/plain; do stat -c '%a %u %g' $f; cat $f; done; echo x > /etc/app.conf";
    let project = Project::new(&format!(
        "services:
  a:
    {{{}, read_only: true,
     configs: [{{source: conf, target: /etc/app.conf, uid: '5', gid: '6', mode: 0640}}, {{source: conf, target: /deep/down/plain}}],
     secrets: [{{source: token, mode: 0400}}, file]}}
configs: {{conf: {{content: \"port=1\\n\"}}}}
secrets: {{token: {{environment: TOKEN}}, file: {{file: ./secret}}}}
",
        shell(look)
    ));
    project.write("secret", "from a file\n");
    // Its mode is what is seen inside, and a log-in may give another umask.
    std::fs::set_permissions(project.folder().join("secret"), std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .unwrap();
    project.write(".env", "TOKEN=abc\n");
    project.run(&["up", "-d"]).ok();
    let said = printed(&project);
    assert!(said.starts_with("640 5 6\nport=1\n400 0 0\nabc644 0 0\nfrom a file\n444 0 0\nport=1\n"), "{said}");
    project.down();
}
