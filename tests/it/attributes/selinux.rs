//! Labels of SELinux, where the host has it: seen in /proc, on the host's files, and by what the kernel refuses.

use std::fs;
use std::path::Path;

use super::{printed, shell};
use crate::support::{Project, can_run_containers, eventually};

const OWN_LABEL: &str = "tr -d '\\0\\n' < /proc/self/attr/current; echo";

/// Whether there is nothing to see on this host; says so.
fn has_no_labels(test: &str) -> bool {
    if !can_run_containers(test) {
        return true;
    }
    if !Path::new("/sys/fs/selinux/enforce").exists() {
        println!("{test}: skipped: no SELinux");
        return true;
    }
    let findings = Project::new("services: {}").findings();
    let found = findings.iter().find(|finding| finding["what"] == "SELinux").unwrap();
    let unconfined = !found["found"].as_str().unwrap().contains("containers run as");
    if unconfined {
        println!("{test}: skipped: {}", found["found"]);
    }
    unconfined
}

fn is_permissive(test: &str) -> bool {
    let permissive = fs::read("/sys/fs/selinux/enforce").unwrap() == b"0";
    if permissive {
        println!("{test}: skipped: SELinux is permissive, so nothing is refused");
    }
    permissive
}

fn label_of(path: &Path) -> String {
    let mut value = [0; 256];
    let length = rustix::fs::lgetxattr(path, "security.selinux", &mut value[..]).unwrap();
    String::from_utf8_lossy(&value[..length]).trim_end_matches('\0').to_owned()
}

/// What a service has printed, once it is `lines` lines.
#[track_caller]
fn lines(project: &Project, service: &str, count: usize) -> Vec<String> {
    eventually("the output of the service", || {
        let printed = project.run(&["logs", "--no-log-prefix", service]).out;
        let lines: Vec<String> = printed.lines().map(str::to_owned).collect();
        (lines.len() >= count).then_some(lines)
    })
}

#[test]
fn a_container_has_a_label_of_its_own() {
    let test = "a_container_has_a_label_of_its_own";
    if has_no_labels(test) {
        return;
    }
    let say = shell(&format!("{OWN_LABEL}; exec sleep 60"));
    let project = Project::new(&format!(
        "services:
  a: {{{say}}}
  b: {{{say}, init: true}}
  with_b: {{{say}, pid: 'service:b'}}
  chosen: {{{say}, security_opt: ['label:level:s0:c3,c7']}}
  free: {{{say}, security_opt: ['label:disable']}}
  privileged: {{{say}, privileged: true}}
"
    ));
    project.run(&["up", "-d"]).ok();
    let label = |service| lines(&project, service, 1).remove(0);
    let (a, b) = (label("a"), label("b"));
    let (kind, level) = a.split_once(":s0:").unwrap();
    assert_eq!(b.split_once(":s0:").unwrap().0, kind);
    assert_ne!(b, a, "categories of its own");
    assert!(level.starts_with('c') && level.contains(",c"), "{a}");
    assert_eq!(label("with_b"), b);
    assert_eq!(label("chosen"), format!("{kind}:s0:c3,c7"));
    for service in ["free", "privileged"] {
        assert!(!label(service).starts_with(kind), "{service}: {}", label(service));
    }
    let inside = project.run(&["exec", "-T", "a", "sh", "-c", OWN_LABEL]).ok().out;
    assert_eq!(inside.trim(), a);
    let wrong = project.folder().join("wrong.yaml");
    fs::write(&wrong, format!("services:\n  a: {{{say}, security_opt: ['label:type:no_such_t']}}\n")).unwrap();
    let refused = project.run(&["-f", "wrong.yaml", "up", "-d"]).fails(1).err;
    assert!(refused.contains(":no_such_t:") && refused.contains("none of this host's SELinux policy"), "{refused}");
    project.down();
}

#[test]
fn volumes_are_relabelled_as_they_say() {
    let test = "volumes_are_relabelled_as_they_say";
    if has_no_labels(test) {
        return;
    }
    let read =
        shell("cat /z/file; cat /Z/file 2>&1; cat /named/../etc/hostname > /named/file && echo named; exec sleep 60");
    let volumes = "volumes: ['./z:/z:z', 'named:/named'";
    let project = Project::new(&format!(
        "services:
  a: {{{read}, {volumes}, './Z:/Z:Z']}}
  b: {{{read}, {volumes}, './Z:/Z'], depends_on: [a]}}
  heir: {{{read}, volumes_from: [a], depends_on: [a]}}
volumes: {{named: {{}}}}
"
    ));
    for name in ["z", "Z"] {
        fs::create_dir(project.folder().join(name)).unwrap();
        project.write(&format!("{name}/file"), &format!("{name}\n"));
    }
    std::os::unix::fs::symlink("/etc/hostname", project.folder().join("Z/link")).unwrap();
    let before = label_of(Path::new("/etc/hostname"));
    let up = project.run(&["up", "-d"]).ok().err;
    assert_eq!(lines(&project, "a", 3), ["z", "Z", "named"]);
    let (shared, private) = (label_of(&project.folder().join("z/file")), label_of(&project.folder().join("Z/file")));
    assert!(shared.ends_with(":s0"), "{shared}");
    let (start, level) = private.split_once(":s0:").unwrap();
    assert_eq!((format!("{start}:s0"), level.contains(",c")), (shared, true), "{private}");
    assert_eq!(label_of(&project.folder().join("Z/link")), private);
    // Nor did who takes the volumes over take the label away.
    let of_a = project.run(&["exec", "-T", "a", "sh", "-c", OWN_LABEL]).ok().out;
    assert_eq!(of_a.trim().split_once(":s0:").unwrap().1, level);
    assert_eq!(label_of(Path::new("/etc/hostname")), before);
    if !is_permissive(test) {
        let b = lines(&project, "b", 2);
        assert_eq!(b[0], "z");
        assert!(b[1].contains("Permission denied"), "{b:?}");
        assert!(up.contains("/Z` will not let") && up.contains("give the volume `z`"), "{up}");
    }
    let etc = project.folder().join("etc.yaml");
    fs::write(&etc, format!("services:\n  a: {{{read}, volumes: ['/etc:/x:z']}}\n")).unwrap();
    let refused = project.run(&["-f", "etc.yaml", "up", "-d"]).fails(1).err;
    assert!(refused.contains("`/etc` belongs to the whole host"), "{refused}");
    project.down();
}

#[test]
fn the_hosts_files_are_closed_to_root_with_all_capabilities() {
    let test = "the_hosts_files_are_closed_to_root_with_all_capabilities";
    if has_no_labels(test) || is_permissive(test) {
        return;
    }
    let attack = shell("cat /host/etc/shadow 2>&1; touch /host/etc/new 2>&1; echo over");
    let project = Project::new(&format!(
        "services:\n  a: {{{attack}, cap_add: [ALL], security_opt: ['seccomp:unconfined'], volumes: ['/:/host']}}\n"
    ));
    project.run(&["up", "-d"]).ok();
    let said = printed(&project);
    project.down();
    assert!(said.ends_with("over\n") && said.matches("Permission denied").count() == 2, "{said}");
}
