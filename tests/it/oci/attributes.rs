//! What `config.json` asks for, as a process inside sees it.

use std::fs;

use serde_json::json;

use super::bundle::{Bundle, cannot_run};

#[test]
fn identity_limits_and_names() {
    if cannot_run() {
        return;
    }
    let mut bundle = Bundle::new(
        "identity",
        "id -u; id -g; id -G; umask; hostname; ulimit -n; ulimit -Hn; pwd; cat /proc/self/oom_score_adj; \
         grep NoNewPrivs /proc/self/status; cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/domainname",
    );
    bundle.set("/process/user", json!({ "uid": 7, "gid": 8, "additionalGids": [9, 10], "umask": 0o27 }));
    bundle.set("/process/cwd", json!("/new/place"));
    bundle.set("/process/noNewPrivileges", json!(true));
    bundle.set("/process/oomScoreAdj", json!(321));
    bundle.set("/process/rlimits", json!([{ "type": "RLIMIT_NOFILE", "soft": 512, "hard": 600 }]));
    bundle.set("/hostname", json!("box"));
    bundle.set("/domainname", json!("example.org"));
    bundle.set("/linux/sysctl", json!({ "net.ipv4.ip_forward": "1" }));
    let lines = "7\n8\n8 9 10\n0027\nbox\n512\n600\n/new/place\n321\nNoNewPrivs:\t1\n1\nexample.org\n";
    assert_eq!(bundle.run(), lines);
}

#[test]
fn capabilities_are_what_the_sets_say() {
    if cannot_run() {
        return;
    }
    let mut bundle = Bundle::new("capabilities", "grep ^Cap /proc/self/status");
    bundle.set("/process/user/uid", json!(7));
    bundle.set(
        "/process/capabilities",
        json!({
            "bounding": ["CAP_KILL", "CAP_NET_RAW"], "permitted": ["CAP_KILL"], "effective": ["CAP_KILL"],
            "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"],
        }),
    );
    let kill = "0000000000000020";
    assert_eq!(
        bundle.run(),
        format!("CapInh:\t{kill}\nCapPrm:\t{kill}\nCapEff:\t{kill}\nCapBnd:\t0000000000002020\nCapAmb:\t{kill}\n")
    );
}

#[test]
fn a_user_namespace_maps_ids() {
    if cannot_run() {
        return;
    }
    let mut bundle =
        Bundle::new("users", "id -u; cat /proc/self/uid_map; touch /tmp/file; cat /proc/self/oom_score_adj");
    bundle.push("/linux/namespaces", json!({ "type": "user" }));
    let mapping = json!([{ "containerID": 0, "hostID": 200_000, "size": 1000 }]);
    bundle.set("/linux/uidMappings", mapping.clone());
    bundle.set("/linux/gidMappings", mapping);
    bundle.set("/process/oomScoreAdj", json!(300));
    let tmp = bundle.rootfs().join("tmp");
    std::os::unix::fs::chown(&tmp, Some(200_000), Some(200_000)).unwrap();
    // The root must be reachable for the mapped users.
    for folder in [bundle.folder.path().to_owned(), bundle.rootfs()] {
        fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    assert_eq!(bundle.run().split_whitespace().collect::<Vec<_>>(), ["0", "0", "200000", "1000", "300"]);
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(tmp.join("file")).unwrap());
    assert_eq!(owner, 200_000);
}

#[test]
fn clocks_are_shifted_in_a_time_namespace() {
    if cannot_run() {
        return;
    }
    let mut bundle = Bundle::new("time", "cut -d. -f1 /proc/uptime");
    bundle.push("/linux/namespaces", json!({ "type": "time" }));
    bundle.set("/linux/timeOffsets", json!({ "boottime": { "secs": 1_000_000 } }));
    assert!(bundle.run().trim().parse::<u64>().unwrap() >= 1_000_000);
}

#[test]
fn namespaces_are_joined_by_path() {
    if cannot_run() {
        return;
    }
    let mut bundle = Bundle::new("join", "readlink /proc/self/ns/net; readlink /proc/self/ns/ipc");
    let own = |name: &str| fs::read_link(format!("/proc/self/ns/{name}")).unwrap().to_str().unwrap().to_owned();
    let namespaces = json!([
        { "type": "mount" }, { "type": "pid" }, { "type": "network", "path": "/proc/self/ns/net" }, { "type": "ipc" },
    ]);
    bundle.set("/linux/namespaces", namespaces);
    let printed = bundle.run();
    let (net, ipc) = printed.trim().split_once('\n').unwrap();
    assert_eq!(net, own("net"));
    assert_ne!(ipc, own("ipc"));
}

#[test]
fn the_execution_domain_is_set() {
    if cannot_run() {
        return;
    }
    let mut bundle = Bundle::new("personality", "uname -m");
    bundle.set("/linux/personality", json!({ "domain": "LINUX32" }));
    assert!(["i686", "armv8l"].contains(&bundle.run().trim()));
}

#[test]
fn what_cannot_be_honoured_is_an_error_by_name() {
    if cannot_run() {
        return;
    }
    for (pointer, value, name) in [
        ("/linux/intelRdt", json!({ "closID": "x" }), "linux.intelRdt"),
        ("/linux/mountLabel", json!("label"), "SELinux"),
        ("/process/selinuxLabel", json!("label"), "SELinux"),
        ("/process/apparmorProfile", json!("nosuch"), "apparmor"),
        ("/linux/seccomp", json!({ "defaultAction": "SCMP_ACT_NOTIFY" }), "listenerPath"),
        ("/vm", json!({ "kernel": { "path": "/k" } }), "vm"),
        ("/linux/rootfsPropagation", json!("sideways"), "sideways"),
        ("/linux/timeOffsets", json!({ "boottime": { "secs": 1 } }), "timeOffsets"),
        ("/ociVersion", json!("2.0.0"), "2.0.0"),
        ("/process/cwd", json!("relative"), "process.cwd"),
    ] {
        let mut bundle = Bundle::new("refused", "true");
        bundle.set(pointer, value);
        let error = bundle.fails(&["create", &bundle.id]);
        assert!(error.to_lowercase().contains(&name.to_lowercase()), "{pointer}: {error}");
        assert_eq!(bundle.ok(&["list", "-q"]), "", "{pointer}");
    }
}

#[test]
fn a_property_that_is_not_known_is_no_error() {
    if cannot_run() {
        return;
    }
    let mut bundle = Bundle::new("unknown", "echo fine");
    bundle.set("/linux/futureAttribute", json!({ "a": 1 }));
    assert_eq!(bundle.run(), "fine\n");
}

#[test]
fn a_mount_shows_other_owners() {
    if cannot_run() {
        return;
    }
    let mut bundle =
        Bundle::new("idmap", "stat -c '%u %g' /mapped/file /mapped; touch /mapped/new; stat -c %u /mapped/new");
    let source = bundle.outside("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "").unwrap();
    std::os::unix::fs::chown(source.join("file"), Some(1007), Some(1008)).unwrap();
    // What belongs to 0 to 9999 on the disk belongs to 100000 and up in the container's eyes.
    let mapping = json!([{ "containerID": 0, "hostID": 100_000, "size": 10_000 }]);
    bundle.set("/process/user", json!({ "uid": 100_005, "gid": 100_005 }));
    fs::set_permissions(&source, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    bundle.push(
        "/mounts",
        json!({
            "destination": "/mapped", "type": "bind", "source": source, "options": ["rbind", "idmap"],
            "uidMappings": mapping, "gidMappings": mapping,
        }),
    );
    let output = bundle.oci(&["run", &bundle.id]);
    let error = super::bundle::text(&output.stderr);
    if error.contains("id mapping: Invalid argument") {
        println!(
            "skipped: a_mount_shows_other_owners: the file system of {} has no id-mapped mounts",
            source.display()
        );
        return;
    }
    assert_eq!(super::bundle::text(&output.stdout), "101007 101008\n100000 100000\n100005\n", "{error}");
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(source.join("new")).unwrap());
    assert_eq!(owner, 5, "on the disk it is as the mapping has it");
}

#[test]
fn an_id_mapping_needs_a_bind_and_a_mapping() {
    if cannot_run() {
        return;
    }
    let mut bundle = Bundle::new("idmap-wrong", "true");
    bundle.push(
        "/mounts",
        json!({ "destination": "/mapped", "type": "bind", "source": "/tmp", "options": ["bind", "idmap"] }),
    );
    assert!(bundle.fails(&["run", &bundle.id]).contains("uidMappings and gidMappings of an id-mapped mount"));
    let mapping = json!([{ "containerID": 0, "hostID": 100_000, "size": 10_000 }]);
    let last = bundle.config["mounts"].as_array().unwrap().len() - 1;
    bundle.config["mounts"][last] = json!({
        "destination": "/m", "type": "tmpfs", "source": "tmpfs", "uidMappings": mapping, "gidMappings": mapping,
    });
    assert!(bundle.fails(&["run", &bundle.id]).contains("id mapping of a `tmpfs` mount"));
}

#[test]
fn scheduler_and_io_priority_are_the_programs() {
    if cannot_run() {
        return;
    }
    // Fields 19 and 41 of stat: nice value and scheduling policy (3: SCHED_BATCH).
    let mut bundle = Bundle::new("scheduler", "cut -d' ' -f19,41 /proc/self/stat; ionice -p $$");
    bundle.set("/process/scheduler", json!({ "policy": "SCHED_BATCH", "nice": 7 }));
    bundle.set("/process/ioPriority", json!({ "class": "IOPRIO_CLASS_BE", "priority": 3 }));
    assert_eq!(bundle.run(), "7 3\nbest-effort: prio 3\n");
    bundle.set("/process/ioPriority", json!({ "class": "IOPRIO_CLASS_BE", "priority": 9 }));
    assert!(bundle.fails(&["run", &bundle.id]).contains("process.ioPriority.priority: 9"));
}

#[test]
fn a_further_process_has_the_cpus_that_it_asks_for() {
    if cannot_run() {
        return;
    }
    let bundle = Bundle::new("affinity", "sleep 60");
    bundle.create();
    bundle.start();
    let process = bundle.outside("process.json");
    let mut wanted = bundle.config["process"].clone();
    wanted["args"] = json!(["/bin/grep", "Cpus_allowed_list", "/proc/self/status"]);
    wanted["execCPUAffinity"] = json!({ "initial": "0", "final": "0" });
    fs::write(&process, wanted.to_string()).unwrap();
    let run = || bundle.ok(&["exec", "--process", process.to_str().unwrap(), &bundle.id]);
    assert_eq!(run(), "Cpus_allowed_list:\t0\n");
}
