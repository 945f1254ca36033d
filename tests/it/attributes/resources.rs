//! Limits in the kernel's files, and devices.

use std::path::{Path, PathBuf};

use super::shell;
use crate::support::{Project, can_run_containers, cgroups_of, eventually, lacks_controllers, needs_root};

/// Files of the groups of a project's one container, in every hierarchy.
fn group_files(project: &Project, file: &str) -> Vec<String> {
    let below = cgroups_of(&project.name).into_iter().flat_map(|group| std::fs::read_dir(group).unwrap());
    let groups = below.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    groups.filter_map(|group| std::fs::read_to_string(group.join(file)).ok()).collect()
}

/// What the first of these files says that is there; v1's and v2's name.
#[track_caller]
fn limit(project: &Project, files: [&str; 2]) -> String {
    let found = files.iter().flat_map(|file| group_files(project, file)).next();
    found.unwrap_or_else(|| panic!("none of {files:?} is there")).trim().to_owned()
}

#[test]
fn limits_are_in_the_kernels_files() {
    if !can_run_containers("limits_are_in_the_kernels_files") {
        return;
    }
    if lacks_controllers("limits_are_in_the_kernels_files", &["cpu", "cpuset", "memory", "pids"]) {
        return;
    }
    let idle = shell("exec sleep 1000");
    let project = Project::new(&format!(
        "services:
  a: {{{idle}, mem_limit: 64m, mem_reservation: 32m, memswap_limit: 96m, cpus: 0.5, cpu_shares: 512, cpuset: '0',
       pids_limit: 50}}
"
    ));
    project.run(&["up", "-d"]).ok();
    let one_of = |files, values: [&str; 2]| {
        let found = limit(&project, files);
        assert!(values.contains(&&*found), "{files:?}: {found}, not {values:?}");
    };
    one_of(["memory.limit_in_bytes", "memory.max"], ["67108864"; 2]);
    one_of(["memory.soft_limit_in_bytes", "memory.low"], ["33554432"; 2]);
    one_of(["cpu.shares", "cpu.weight"], ["512", "20"]);
    one_of(["cpu.cfs_quota_us", "cpu.max"], ["50000", "50000 100000"]);
    one_of(["cpuset.cpus", "cpuset.cpus"], ["0"; 2]);
    one_of(["pids.max", "pids.max"], ["50"; 2]);
    // A kernel may count no swap.
    let swap = group_files(&project, "memory.memsw.limit_in_bytes");
    assert!(swap.is_empty() || swap == ["100663296\n"], "{swap:?}");
    project.down();
    let deploy = "deploy: {resources: {limits: {cpus: '0.25', memory: 32m, pids: 20}, reservations: {memory: 16m}}}";
    project.write("compose.yaml", &format!("services:\n  a: {{{idle}, {deploy}}}\n"));
    project.run(&["up", "-d"]).ok();
    one_of(["memory.limit_in_bytes", "memory.max"], ["33554432"; 2]);
    one_of(["memory.soft_limit_in_bytes", "memory.low"], ["16777216"; 2]);
    one_of(["cpu.cfs_quota_us", "cpu.max"], ["25000", "25000 100000"]);
    one_of(["pids.max", "pids.max"], ["20"; 2]);
    project.down();
}

/// A block device of this machine, its name and numbers.
fn block_device() -> Option<(PathBuf, String)> {
    std::fs::read_dir("/sys/block").ok()?.find_map(|entry| {
        let entry = entry.ok()?;
        let path = Path::new("/dev").join(entry.file_name());
        let numbers = std::fs::read_to_string(entry.path().join("dev")).ok()?;
        // A drive without a disk in it is one that nothing can open.
        std::fs::File::open(&path).is_ok().then(|| (path, numbers.trim().to_owned()))
    })
}

#[test]
fn devices_are_throttled() {
    let test = "devices_are_throttled";
    if !can_run_containers(test) {
        return;
    }
    if lacks_controllers("devices_are_throttled", &["io"]) {
        return;
    }
    let Some((path, numbers)) = block_device() else { return println!("{test}: skipped: there is no block device") };
    let path = path.display();
    let project = Project::new(&format!(
        "services:
  a:
    {{{}, blkio_config: {{weight: 300,
       device_read_bps: [{{path: {path}, rate: 10m}}], device_write_bps: [{{path: {path}, rate: 5m}}],
       device_read_iops: [{{path: {path}, rate: 100}}], device_write_iops: [{{path: {path}, rate: 50}}]}}}}
",
        shell("exec sleep 1000")
    ));
    project.run(&["up", "-d"]).ok();
    let v2 = group_files(&project, "io.max");
    if let [limits] = v2.as_slice() {
        assert_eq!(limits.trim(), format!("{numbers} rbps=10485760 wbps=5242880 riops=100 wiops=50"));
    } else {
        for (name, value) in
            [("read_bps", 10_485_760), ("write_bps", 5_242_880), ("read_iops", 100), ("write_iops", 50)]
        {
            let found = limit(&project, [&format!("blkio.throttle.{name}_device"), "-"]);
            assert_eq!(found, format!("{numbers} {value}"), "{name}");
        }
    }
    project.down();
    let wrong = shell("true");
    let wrong =
        format!("services:\n  a: {{{wrong}, blkio_config: {{device_read_bps: [{{path: /dev/null, rate: 1m}}]}}}}\n");
    project.write("compose.yaml", &wrong);
    let up = project.run(&["up", "-d"]).fails(1);
    assert!(up.err.contains("is not a block device"), "{}", up.err);
    project.down();
}

#[test]
fn real_time_needs_what_the_kernel_offers() {
    if !can_run_containers("real_time_needs_what_the_kernel_offers") {
        return;
    }
    if needs_root("real_time_needs_what_the_kernel_offers", "limits need control groups that are given to the user") {
        return;
    }
    let project = Project::new(&format!(
        "services:\n  a: {{{}, cpu_rt_period: 1000000, cpu_rt_runtime: 20000, cap_add: [SYS_NICE]}}\n",
        shell("exec sleep 1000")
    ));
    let v1 = Path::new("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists();
    let up = project.run(&["up", "-d"]);
    if v1 {
        up.ok();
        assert_eq!(limit(&project, ["cpu.rt_runtime_us", "-"]), "20000");
        project.run(&["up", "-d", "--force-recreate"]).ok();
    } else {
        assert!(up.fails(1).err.contains("cpu_rt"));
    }
    project.down();
}

/// A CDI file that goes when the test ends.
struct CdiFile(PathBuf);

impl Drop for CdiFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
        // Only when nothing else is there.
        let _ = std::fs::remove_dir("/etc/cdi");
    }
}

#[test]
fn devices_of_cdi_files_are_there() {
    let test = "devices_of_cdi_files_are_there";
    if !can_run_containers(test) {
        return;
    }
    if needs_root("devices_of_cdi_files_are_there", "the files of this test are root's") {
        return;
    }
    let Some((device, _)) = block_device() else { return println!("{test}: skipped: there is no block device") };
    let script = "ls -l /dev/fake /lib/fake.txt; cat /lib/fake.txt; echo $FAKE; id -G; (exec 3< /dev/fake) && echo readable; exec sleep 1000";
    let vendor = format!("t{}.example", std::process::id());
    let project = Project::new(&format!(
        "services:
  a: {{{look}, devices: ['{vendor}/gpu=one']}}
  b: {{{look}, gpus: [{{driver: {vendor}, count: 1}}]}}
  c: {{{look}, deploy: {{resources: {{reservations: {{devices: [{{capabilities: [gpu], driver: cdi, device_ids: ['{vendor}/gpu=one']}}]}}}}}}}}
",
        look = shell(script)
    ));
    project.write("library", "from the host\n");
    std::fs::create_dir_all("/etc/cdi").unwrap();
    let file = CdiFile(format!("/etc/cdi/{vendor}.yaml").into());
    let text = format!(
        "cdiVersion: 0.6.0\nkind: {vendor}/gpu\ncontainerEdits: {{env: [FAKE=yes]}}\ndevices:\n- name: one\n  containerEdits:\n    \
         deviceNodes: [{{path: /dev/fake, hostPath: {}, permissions: r}}]\n    additionalGids: [4711]\n    \
         mounts: [{{hostPath: {}/library, containerPath: /lib/fake.txt, options: [ro, bind]}}]\n",
        device.display(),
        project.folder().display()
    );
    std::fs::write(&file.0, text).unwrap();
    project.run(&["up", "-d"]).ok();
    for service in ["a", "b", "c"] {
        let said = eventually("what it found", || {
            let said = project.run(&["logs", "--no-log-prefix", service]).ok().out;
            (said.lines().count() >= 6).then_some(said)
        });
        assert!(
            said.contains("from the host\nyes\n") && said.contains("4711") && said.ends_with("readable\n"),
            "{said}"
        );
    }
    project.run(&["exec", "-T", "a", "sh", "-c", ": >> /dev/fake"]).fails(2);
    drop(file);
    let up = project.run(&["up", "-d", "--force-recreate"]).fails(1);
    assert!(up.err.contains("no CDI file"), "{}", up.err);
    project.down();
}

/// Each of the six kinds, with what it gets to read, in the order of the specification; one that fails ends the start.
#[test]
fn hooks_of_cdi_files_are_run() {
    let test = "hooks_of_cdi_files_are_run";
    if !can_run_containers(test) || needs_root(test, "the files of this test are root's") {
        return;
    }
    let vendor = format!("h{}.example", std::process::id());
    let project = Project::new(&format!(
        "services:\n  a: {{{}, devices: ['{vendor}/gpu=one'], volumes: ['./hooks:/hooks']}}\n  b: {{{}}}\n",
        shell("echo program >> /hooks/log; exec sleep 1000"),
        shell("exec sleep 1000")
    ));
    let hooks = project.folder().join("hooks");
    std::fs::create_dir(&hooks).unwrap();
    std::fs::create_dir_all("/etc/cdi").unwrap();
    let file = CdiFile(format!("/etc/cdi/{vendor}.yaml").into());
    let hook = |kind: &str, folder: &str, then: &str| {
        let script = format!("read -r state; echo $0 $state >> {folder}/log; {then}");
        format!("{{hookName: {kind}, path: /bin/sh, args: [sh, -c, {script:?}, {kind}]}}")
    };
    let outside = hooks.display().to_string();
    let write = |poststop: &str, create: &str| {
        let of = [
            hook("prestart", &outside, ""),
            hook("createRuntime", &outside, create),
            hook("createContainer", &outside, ""),
            hook("startContainer", "/hooks", ""),
            hook("poststart", &outside, ""),
            hook("poststop", &outside, poststop),
        ];
        let text = format!(
            "cdiVersion: 0.6.0\nkind: {vendor}/gpu\ndevices: [{{name: one, containerEdits: {{hooks: [{}]}}}}]\n",
            of.join(", ")
        );
        std::fs::write(&file.0, text).unwrap();
    };
    // Longer than a container may take to be gone after SIGKILL: neither its own nor another's is said to hang.
    write("sleep 12", "");
    project.run(&["up", "-d"]).ok();
    let log = || std::fs::read_to_string(hooks.join("log")).unwrap_or_default();
    let seen = || log().lines().map(|line| line.split(' ').next().unwrap().to_owned()).collect::<Vec<_>>();
    eventually("all but the last one", || (seen().len() == 6).then_some(()));
    assert_eq!(seen()[..4], ["prestart", "createRuntime", "createContainer", "startContainer"], "{}", log());
    for kind in ["program", "poststart"] {
        assert!(seen().contains(&kind.to_owned()), "{}", log());
    }
    for (kind, status) in [("createRuntime", "creating"), ("startContainer", "created"), ("poststart", "running")] {
        let log = log();
        let line = log.lines().find_map(|line| line.strip_prefix(&format!("{kind} "))).unwrap();
        let state: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(state["status"], status);
        assert!(state["pid"].as_i64().unwrap() > 0 && state["id"].as_str().unwrap().len() == 64, "{line}");
    }
    project.run(&["down", "-t", "0"]).ok();
    assert_eq!(seen().last().unwrap(), "poststop", "{}", log());
    write("", "echo no such device >&2; exit 3");
    let up = project.run(&["up", "-d"]).fails(1);
    assert!(up.err.contains("hook") && up.err.contains("no such device"), "{}", up.err);
    assert_eq!(seen().iter().filter(|kind| *kind == "program").count(), 1, "{}", log());
    drop(file);
    project.down();
}

/// A hook after one container's end that takes its time holds up nobody else's end.
#[test]
fn a_slow_hook_after_an_end_is_its_containers_alone() {
    let test = "a_slow_hook_after_an_end_is_its_containers_alone";
    if !can_run_containers(test) || needs_root(test, "the files of this test are root's") {
        return;
    }
    let vendor = format!("s{}.example", std::process::id());
    let project = Project::new(&format!(
        "services:\n  a: {{{}, devices: ['{vendor}/gpu=one'], volumes: ['.:/out']}}\n  b: {{{}, restart: always, volumes: ['.:/out']}}\n",
        shell("until rm /out/first; do sleep 0.1; done 2>/dev/null"),
        shell("echo >> /out/starts; until rm /out/second; do sleep 0.1; done 2>/dev/null")
    ));
    let folder = project.folder();
    let there = |file: &str| folder.join(file).exists();
    std::fs::create_dir_all("/etc/cdi").unwrap();
    let file = CdiFile(format!("/etc/cdi/{vendor}.yaml").into());
    // It is told to end, and ends by itself should the test not come to that.
    let wait = "for i in $(seq 400); do [ -e go ] && break; sleep 0.1; done; : > after";
    let hook = format!("cd {} && : > begun && {wait}", folder.display());
    let text = format!(
        "cdiVersion: 0.6.0\nkind: {vendor}/gpu\ndevices: [{{name: one, containerEdits: {{hooks: \
         [{{hookName: poststop, path: /bin/sh, args: [sh, -c, {hook:?}]}}]}}}}]\n"
    );
    std::fs::write(&file.0, text).unwrap();
    project.run(&["up", "-d"]).ok();
    std::fs::write(folder.join("first"), "").unwrap();
    eventually("the hook runs", || there("begun").then_some(()));
    let starts = || std::fs::read_to_string(folder.join("starts")).unwrap_or_default().lines().count();
    assert_eq!(starts(), 1);
    std::fs::write(folder.join("second"), "").unwrap();
    eventually("the other one is started again", || (starts() == 2).then_some(()));
    assert!(!there("after"), "the hook was not slow");
    std::fs::write(folder.join("go"), "").unwrap();
    project.down();
    assert!(there("after"));
}
