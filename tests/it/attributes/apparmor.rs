//! AppArmor, where the host has it: seen in /proc and by what the kernel refuses.

use std::fs;
use std::process::{Command, Stdio};

use super::{printed, shell};
use crate::support::{Project, can_run_containers};

const CURRENT: &str = "cat /proc/self/attr/apparmor/current";

/// Whether there is nothing to see on this host; says so.
fn has_no_profiles(test: &str) -> bool {
    if !can_run_containers(test) {
        return true;
    }
    let findings = Project::new("services: {}").findings();
    let confined = findings.iter().any(|finding| {
        finding["what"] == "AppArmor" && finding["found"].as_str().unwrap().contains("containers run under")
    });
    if !confined {
        println!("{test}: skipped: no AppArmor, no `apparmor_parser`, or an ordinary user");
    }
    !confined
}

#[test]
fn a_container_runs_under_the_default_profile_or_the_one_that_it_names() {
    let test = "a_container_runs_under_the_default_profile_or_the_one_that_it_names";
    if has_no_profiles(test) {
        return;
    }
    let says = |options: &str, script: &str| {
        let project = Project::new(&format!("services: {{a: {{{}, {options}}}}}", shell(script)));
        project.run(&["up", "-d"]).ok();
        printed(&project)
    };
    let own = Profile::load("rcompose-test", "file, network, capability, deny /etc/passwd r,");
    assert_eq!(says("", CURRENT).trim(), "rcompose-default (enforce)");
    assert_eq!(says("init: true", CURRENT).trim(), "rcompose-default (enforce)");
    assert_eq!(says("privileged: true", CURRENT).trim(), "unconfined");
    assert_eq!(says("security_opt: ['apparmor:unconfined']", CURRENT).trim(), "unconfined");
    let named = format!("security_opt: ['apparmor={}']", own.0);
    let said = says(&named, &format!("{CURRENT}; cat /etc/passwd > /dev/null 2>&1 || echo refused"));
    assert_eq!(said, "rcompose-test (enforce)\nrefused\n");

    // What is left when capabilities and the paths' protection are lifted.
    let all = "cap_add: [ALL], security_opt: ['seccomp=unconfined', 'systempaths=unconfined'";
    let again = |file: &str, said: &str| format!("v=$(cat {file}); echo $v > {file} && echo {said}; ");
    let attack = format!(
        "mount -t tmpfs none /mnt 2> /dev/null && echo mounted; {}{}head -c 1 /proc/kcore > /dev/null && echo read; true",
        again("/proc/sys/vm/overcommit_memory", "written"),
        again("/proc/sys/kernel/shmmax", "set"),
    );
    let (walled, open) = (says(&format!("{all}]"), &attack), says(&format!("{all}, 'apparmor=unconfined']"), &attack));
    assert_eq!(walled.lines().filter(|line| !line.contains("denied")).collect::<Vec<_>>(), ["set"]);
    assert_eq!(open, "mounted\nwritten\nset\nread\n");
}

#[test]
fn processes_in_a_confined_container_signal_each_other_and_end() {
    let test = "processes_in_a_confined_container_signal_each_other_and_end";
    if has_no_profiles(test) {
        return;
    }
    let script = shell("trap 'echo got; exit 7' TERM; sleep 1000 & echo ready; wait").replace("SIGKILL", "SIGTERM");
    let project = Project::new(&format!("services: {{a: {{{script}}}}}"));
    project.run(&["up", "-d"]).ok();
    let exec =
        project.run(&["exec", "-T", "a", "sh", "-c", &format!("{CURRENT}; sleep 50 & kill $!; wait $!; echo $?")]);
    assert_eq!(exec.out, "rcompose-default (enforce)\n143\n");
    project.run(&["stop"]).ok();
    let row = project.run(&["ps", "-a", "--format", "{{.ExitCode}}"]);
    assert_eq!(row.out.trim(), "7");
}

/// A profile of the test's own.
struct Profile(&'static str);

impl Profile {
    fn load(name: &'static str, rules: &str) -> Self {
        Self::parser("--replace", &format!("profile {name} flags=(attach_disconnected) {{ {rules} }}"));
        Self(name)
    }

    fn parser(action: &str, text: &str) {
        let mut command = Command::new("apparmor_parser");
        command.args([action, "--skip-cache"]).stdin(Stdio::piped());
        let mut parser = command.spawn().unwrap();
        std::io::Write::write_all(&mut parser.stdin.take().unwrap(), text.as_bytes()).unwrap();
        assert!(parser.wait().unwrap().success());
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        let _ = fs::write("/sys/kernel/security/apparmor/.remove", self.0);
    }
}
