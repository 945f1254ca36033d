use std::fmt::Write;
use std::os::fd::AsFd;

use oci_spec::runtime::LinuxNamespace;

use super::*;
use crate::engine::spec::EtcFiles;
use crate::engine::spec::ImageConfig;
use crate::engine::spec::Request;
use crate::engine::spec::build;
use crate::engine::users::UserDatabase;
use crate::spec::ContainerSpec;

fn spec(container: &ContainerSpec) -> Spec {
    let image = ImageConfig { command: vec!["/bin/true".into()], ..ImageConfig::default() };
    let etc = EtcFiles { hosts: Some("/proc/self/status".into()), ..EtcFiles::default() };
    let request = Request {
        container,
        image: &image,
        users: &UserDatabase::default(),
        hostname: "box",
        etc: &etc,
        volumes: &[],
        images: &[],
        joined: &[],
        project_dir: Path::new("/"),
        apparmor: None,
        cgroup_path: "rcompose/demo/c",
        unified_cgroups: false,
    };
    build(&request).unwrap()
}

fn extras<'a>() -> Extras<'a> {
    let overlay = Overlay { lower: vec!["/l1".into()], upper: "/u".into(), work: "/w".into(), volatile: true };
    Extras {
        root: Root::Overlay { at: "/at".into(), overlay, trees: Vec::new() },
        joined: Vec::new(),
        cgroup: cgroup::Entry::default(),
        cgroup_v1: Some(&[]),
        shared_memory: None,
        stdin: false,
        terminal: None,
        init: false,
        lifecycle: None,
    }
}

/// One line for each step; filters by their size in instructions, host-dependent links left out.
fn lines(lowered: &Lowered) -> String {
    let mut text = String::new();
    for step in &lowered.launch.steps {
        match step {
            Step::Symlink { target, .. } if target == "/dev/core" => {}
            Step::Seccomp { filters, .. } => writeln!(text, "Seccomp {}", filters.len()).unwrap(),
            Step::Mount { fstype, target, flags, data, .. } => {
                let set = [
                    ("ro", flags.read_only),
                    ("nosuid", flags.no_suid),
                    ("nodev", flags.no_dev),
                    ("noexec", flags.no_exec),
                    ("strictatime", flags.strict_atime),
                ];
                let set: Vec<_> = set.iter().filter(|(_, set)| *set).map(|(name, _)| *name).collect();
                writeln!(text, "Mount {fstype} {target} {} {data}", set.join(",")).unwrap();
            }
            other => writeln!(text, "{other:?}").unwrap(),
        }
    }
    text
}

#[test]
fn steps_of_a_plain_container() {
    let lowered = lower(&spec(&ContainerSpec::default()), extras()).unwrap();
    expect_test::expect![[r#"
        IsolateMounts { slave: false }
        RootOverlay { at: "/at", overlay: Overlay { lower: ["/l1"], upper: "/u", work: "/w", volatile: true } }
        Mount proc /proc nosuid,nodev,noexec 
        Mount tmpfs /dev nosuid,strictatime mode=755,size=65536k
        Mount devpts /dev/pts nosuid,noexec newinstance,ptmxmode=0666,mode=0620,gid=5
        Mount sysfs /sys ro,nosuid,nodev,noexec 
        Mount tmpfs /sys/fs/cgroup nosuid,nodev,noexec mode=755
        ReadonlyMount { target: "/sys/fs/cgroup" }
        Mount mqueue /dev/mqueue nosuid,nodev,noexec 
        Mount tmpfs /dev/shm nosuid,nodev,noexec mode=1777,size=67108864
        Bind { source: Host(0), target: "/etc/hosts", recursive: true, flags: MountFlags { read_only: false, no_suid: false, no_dev: false, no_exec: false, no_atime: false, rel_atime: false, strict_atime: false, no_dir_atime: false, no_sym_follow: false }, clear: Cleared { asked: 0, rest: 0 }, recursive_flags: RecursiveFlags { set: 0, clear: 0 }, propagation: Some(Propagation { kind: Private, recursive: true }), id_map: None }
        Device { target: "/dev/null", kind: Char, major: 1, minor: 3, mode: 438, uid: 0, gid: 0 }
        Device { target: "/dev/random", kind: Char, major: 1, minor: 8, mode: 438, uid: 0, gid: 0 }
        Device { target: "/dev/full", kind: Char, major: 1, minor: 7, mode: 438, uid: 0, gid: 0 }
        Device { target: "/dev/tty", kind: Char, major: 5, minor: 0, mode: 438, uid: 0, gid: 0 }
        Device { target: "/dev/zero", kind: Char, major: 1, minor: 5, mode: 438, uid: 0, gid: 0 }
        Device { target: "/dev/urandom", kind: Char, major: 1, minor: 9, mode: 438, uid: 0, gid: 0 }
        Symlink { target: "/dev/ptmx", to: "pts/ptmx" }
        Symlink { target: "/dev/fd", to: "/proc/self/fd" }
        Symlink { target: "/dev/stdin", to: "/proc/self/fd/0" }
        Symlink { target: "/dev/stdout", to: "/proc/self/fd/1" }
        Symlink { target: "/dev/stderr", to: "/proc/self/fd/2" }
        PivotRoot
        Hostname("box")
        Sysctl { name: "net.ipv4.ip_unprivileged_port_start", value: "0" }
        Sysctl { name: "net.ipv4.ping_group_range", value: "0 2147483647" }
        ReadonlyPath { target: "/proc/bus" }
        ReadonlyPath { target: "/proc/fs" }
        ReadonlyPath { target: "/proc/irq" }
        ReadonlyPath { target: "/proc/sys" }
        ReadonlyPath { target: "/proc/sysrq-trigger" }
        MaskPath { target: "/proc/asound" }
        MaskPath { target: "/proc/acpi" }
        MaskPath { target: "/proc/interrupts" }
        MaskPath { target: "/proc/kcore" }
        MaskPath { target: "/proc/keys" }
        MaskPath { target: "/proc/latency_stats" }
        MaskPath { target: "/proc/timer_list" }
        MaskPath { target: "/proc/timer_stats" }
        MaskPath { target: "/proc/sched_debug" }
        MaskPath { target: "/proc/scsi" }
        MaskPath { target: "/sys/firmware" }
        MaskPath { target: "/sys/devices/virtual/powercap" }
        WorkingDirectory { target: "/", create: true, last: false }
        EveryCpu
        NewSession
        SessionKeyring
        OomScoreAdj(0)
        Umask(18)
        Groups([0])
        Identity { uid: 0, gid: 0 }
        RegainCapabilities
        WorkingDirectory { target: "/", create: false, last: true }
        CloseOnExec
        RegainCapabilities
        Seccomp 1
        Capabilities { bounding: 2818844155, permitted: 2818844155, effective: 2818844155, inheritable: 0, ambient: 0 }
        CloseOnExec
        Exec { argv: ["/bin/true"], env: ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOSTNAME=box", "HOME=/"] }
    "#]].assert_eq(&lines(&lowered));
    assert_eq!(lowered.descriptors.len(), 1);
    let kinds = [NamespaceKind::Mount, NamespaceKind::Net, NamespaceKind::Uts, NamespaceKind::Pid, NamespaceKind::Ipc];
    assert_eq!(lowered.launch.namespaces, kinds.map(Namespace::New));
}

#[test]
fn restrictions_come_in_an_order_that_works() {
    let container = ContainerSpec {
        tty: true,
        init: true,
        read_only: true,
        security_opt: vec!["no-new-privileges:true".into()],
        ..ContainerSpec::default()
    };
    let lowered = lower(&spec(&container), Extras { init: true, ..extras() }).unwrap();
    let text = lines(&lowered);
    let after_pivot = text.split_once("PivotRoot\n").unwrap().1;
    let names: Vec<_> = after_pivot.lines().map(|line| line.split([' ', '(']).next().unwrap()).collect();
    let names: Vec<_> =
        names.into_iter().filter(|name| !["Sysctl", "ReadonlyPath", "MaskPath"].contains(name)).collect();
    assert_eq!(
        names,
        [
            "Console",
            "Hostname",
            "WorkingDirectory",
            "ReadonlyRoot",
            "EveryCpu",
            "TerminalSession",
            "SessionKeyring",
            "OomScoreAdj",
            "Umask",
            "Groups",
            "Identity",
            "Capabilities",
            "NoNewPrivileges",
            "WorkingDirectory",
            "CloseOnExec",
            "Seccomp",
            "Reaper",
            "Exec",
        ]
    );
    assert_eq!(lowered.launch.stdio, Stdio::Terminal { rows: 24, columns: 80 });
}

#[test]
fn joined_namespaces_replace_new_ones() {
    let descriptor = open_namespace(LinuxNamespaceType::Network, Path::new("/proc/self/ns/net")).unwrap();
    let joined = vec![(NamespaceKind::Net, descriptor)];
    let mut spec = spec(&ContainerSpec::default());
    let mut uts = LinuxNamespace::default();
    uts.set_typ(LinuxNamespaceType::Uts);
    uts.set_path(Some("/proc/self/ns/uts".into()));
    let mut mount = LinuxNamespace::default();
    mount.set_typ(LinuxNamespaceType::Mount);
    let namespaces = vec![mount, uts];
    spec.linux_mut().as_mut().unwrap().set_namespaces(Some(namespaces));
    let lowered = lower(&spec, Extras { joined, ..extras() }).unwrap();
    assert_eq!(
        lowered.launch.namespaces,
        [
            Namespace::New(NamespaceKind::Mount),
            Namespace::Join(NamespaceKind::Uts, 0),
            Namespace::Join(NamespaceKind::Net, 1),
        ]
    );
}

#[test]
fn nothing_is_ignored() {
    let refused = |change: &dyn Fn(&mut Spec)| {
        let mut spec = spec(&ContainerSpec::default());
        change(&mut spec);
        lower(&spec, extras()).unwrap_err().to_string()
    };
    assert_eq!(
        refused(&|spec| {
            spec.set_hooks(Some(oci_spec::runtime::Hooks::default()));
        }),
        "`hooks` of the runtime specification is not supported"
    );
    let with_option = |option: &str| {
        let option = option.to_owned();
        refused(&move |spec| {
            let mounts = spec.mounts_mut().as_mut().unwrap();
            mounts[0].options_mut().as_mut().unwrap().push(option.clone());
        })
    };
    assert!(with_option("idmap").contains("id mapping of a `proc` mount"));
    assert!(with_option("rshared").contains("propagation"));
    let missing = refused(&|spec| {
        let mounts = spec.mounts_mut().as_mut().unwrap();
        mounts.last_mut().unwrap().set_source(Some("/no/such/file".into()));
    });
    assert_eq!(missing, "cannot mount `/no/such/file` on `/etc/hosts`");
}

#[test]
fn exec_joins_everything_and_is_as_restricted() {
    let spec = spec(&ContainerSpec::default());
    let pid = rustix::process::getpid();
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
    let seccomp = spec.linux().as_ref().unwrap().seccomp().as_ref();
    let target = Target {
        pid: pid.as_raw_nonzero().get(),
        pidfd: pidfd.as_fd(),
        seccomp,
        described: None,
        personality: None,
        mount_label: None,
    };
    let process = spec.process().as_ref().unwrap();
    let lowered = lower_exec(process, target, cgroup::Entry::default(), true, None).unwrap();
    assert_eq!(lowered.launch.namespaces.len(), 6);
    expect_test::expect![[r#"
        EveryCpu
        WorkingDirectory { target: "/", create: false, last: false }
        SessionKeyring
        OomScoreAdj(0)
        Umask(18)
        Groups([0])
        Identity { uid: 0, gid: 0 }
        RegainCapabilities
        WorkingDirectory { target: "/", create: false, last: true }
        CloseOnExec
        RegainCapabilities
        Seccomp 1
        Capabilities { bounding: 2818844155, permitted: 2818844155, effective: 2818844155, inheritable: 0, ambient: 0 }
        Rebirth
        NewSession
        CloseOnExec
        Exec { argv: ["/bin/true"], env: ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOSTNAME=box", "HOME=/"] }
    "#]].assert_eq(&lines(&lowered));
}

#[test]
fn an_ended_process_is_not_joined() {
    let mut child = std::process::Command::new("true").spawn().unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    let raw = rustix::process::Pid::from_raw(pid).unwrap();
    let pidfd = rustix::process::pidfd_open(raw, rustix::process::PidfdFlags::empty()).unwrap();
    child.wait().unwrap();
    let spec = spec(&ContainerSpec::default());
    let target =
        Target { pid, pidfd: pidfd.as_fd(), seccomp: None, described: None, personality: None, mount_label: None };
    let process = spec.process().as_ref().unwrap();
    assert!(lower_exec(process, target, cgroup::Entry::default(), false, None).is_err());
}

#[test]
fn labels_are_given_before_anything_that_has_them() {
    let mut spec = spec(&ContainerSpec::default());
    crate::engine::selinux::Labels { process: Some("p".to_owned()), mount: Some("m".to_owned()) }.apply(&mut spec);
    let linux = spec.linux().as_ref().unwrap();
    assert!(matches!(mounts::label(linux), Some(Step::MountLabel(label)) if label == "m"));
    let mut process = spec.process().clone().unwrap();
    let mut steps = Vec::new();
    restrict::restrict(&process, None, Vec::new(), &mut steps).unwrap();
    assert!(matches!(&steps[..2], [Step::ProcessLabel(label), Step::SessionKeyring] if label == "p"), "{steps:?}");
    assert_eq!(restrict::pipe_label(&process, Some("m")).as_deref(), Some("m"));
    // Who is not confined may use everybody's pipes.
    process.set_selinux_label(None);
    assert_eq!(restrict::pipe_label(&process, Some("m")), None);
    if !crate::engine::selinux::is_enabled() {
        let error = lower(&spec, extras()).unwrap_err().to_string();
        assert_eq!(
            error,
            "`process.selinuxLabel` of the runtime specification needs SELinux, which this host does not have"
        );
    }
}
