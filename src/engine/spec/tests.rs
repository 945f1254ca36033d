use std::collections::BTreeMap;

use super::*;
use crate::spec::container::DeviceSpec;
use crate::spec::container::Mount;
use crate::spec::container::MountSource;
use crate::spec::container::Recursion;
use crate::spec::container::Resources;
use crate::spec::container::Ulimit;

fn image() -> ImageConfig {
    ImageConfig {
        entrypoint: vec!["/entry".into()],
        command: vec!["serve".into(), "--all".into()],
        environment: vec!["PATH=/opt/bin:/bin".into(), "LANG=C".into(), "GONE=1".into()],
        user: None,
        working_dir: Some("/srv".into()),
    }
}

/// The specification as JSON, so that tests can point into it.
fn built(container: &ContainerSpec) -> Result<serde_json::Value, SpecError> {
    built_with_apparmor(container, None)
}

fn built_with_apparmor(container: &ContainerSpec, apparmor: Option<&str>) -> Result<serde_json::Value, SpecError> {
    let users = UserDatabase { passwd: b"app:x:7:8::/home/app:/bin/sh\n".to_vec(), group: Vec::new() };
    let etc = EtcFiles { hosts: Some("/run/c/hosts".into()), ..EtcFiles::default() };
    let request = Request {
        container,
        image: &image(),
        users: &users,
        hostname: "0123456789ab",
        etc: &etc,
        volumes: &[],
        images: &[],
        joined: &[],
        project_dir: Path::new("/project"),
        apparmor,
        cgroup_path: "rcompose/demo/c",
        unified_cgroups: false,
    };
    build(&request).map(|spec| serde_json::to_value(spec).unwrap())
}

#[test]
fn the_default_profile_of_apparmor_is_for_who_asks_for_nothing_else() {
    let profile = |container: &ContainerSpec| {
        let spec = built_with_apparmor(container, Some("rcompose-default")).unwrap();
        spec["process"].get("apparmorProfile").map(|profile| profile.as_str().unwrap().to_owned())
    };
    let unconfined = ContainerSpec { security_opt: vec!["apparmor=unconfined".to_owned()], ..ContainerSpec::default() };
    assert_eq!(profile(&ContainerSpec::default()).as_deref(), Some("rcompose-default"));
    assert_eq!(profile(&unconfined), None);
    assert_eq!(profile(&ContainerSpec { privileged: true, ..ContainerSpec::default() }), None);
}

fn texts(value: &serde_json::Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

#[test]
fn defaults_are_dockers() {
    let spec = built(&ContainerSpec::default()).unwrap();
    let mounts = spec["mounts"].as_array().unwrap().iter().map(|mount| {
        let options = texts(&mount["options"]).join(",");
        format!("{} {} {} {options}\n", mount["destination"].as_str().unwrap(), mount["type"], mount["source"])
    });
    expect_test::expect![[r#"
        /proc "proc" "proc" nosuid,noexec,nodev
        /dev "tmpfs" "tmpfs" nosuid,strictatime,mode=755,size=65536k
        /dev/pts "devpts" "devpts" nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5
        /sys "sysfs" "sysfs" nosuid,noexec,nodev,ro
        /sys/fs/cgroup "cgroup" "cgroup" nosuid,noexec,nodev,ro
        /dev/mqueue "mqueue" "mqueue" nosuid,noexec,nodev
        /dev/shm "tmpfs" "shm" nosuid,noexec,nodev,mode=1777,size=67108864
        /etc/hosts "bind" "/run/c/hosts" rbind,rprivate
    "#]]
    .assert_eq(&mounts.collect::<String>());
    let kinds: Vec<_> =
        spec["linux"]["namespaces"].as_array().unwrap().iter().map(|n| n["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["mount", "network", "uts", "pid", "ipc"]);
    assert_eq!(texts(&spec["process"]["args"]), ["/entry", "serve", "--all"]);
    assert_eq!(spec["hostname"], "0123456789ab");
    assert_eq!(spec["process"]["cwd"], "/srv");
    assert_eq!(spec["process"]["oomScoreAdj"], 0);
    assert_eq!(spec["linux"]["sysctl"]["net.ipv4.ip_unprivileged_port_start"], "0");
    assert_eq!(texts(&spec["linux"]["maskedPaths"]).len(), 12);
    assert_eq!(texts(&spec["linux"]["readonlyPaths"]).len(), 5);
    assert_eq!(spec["linux"]["seccomp"]["defaultAction"], "SCMP_ACT_ERRNO");
    assert_eq!(spec["linux"]["resources"]["devices"][0]["allow"], false);
}

#[test]
fn entrypoint_of_the_service_clears_the_images_command() {
    let mut container = ContainerSpec { entrypoint: Some(vec!["sh".into()]), ..ContainerSpec::default() };
    assert_eq!(texts(&built(&container).unwrap()["process"]["args"]), ["sh"]);
    container.entrypoint = None;
    container.command = Some(vec!["once".into()]);
    assert_eq!(texts(&built(&container).unwrap()["process"]["args"]), ["/entry", "once"]);
    container.entrypoint = Some(Vec::new());
    container.command = None;
    assert!(matches!(built(&container), Err(SpecError::NoCommand)));
}

#[test]
fn environment_is_layered() {
    let environment = [("LANG", Some("en")), ("GONE", None), ("NEW", Some("a=b"))];
    let environment: BTreeMap<_, _> =
        environment.map(|(name, value)| (name.to_owned(), value.map(str::to_owned))).into_iter().collect();
    let container = ContainerSpec { environment, tty: true, user: Some("app".into()), ..ContainerSpec::default() };
    let spec = built(&container).unwrap();
    assert_eq!(
        texts(&spec["process"]["env"]),
        ["PATH=/opt/bin:/bin", "HOSTNAME=0123456789ab", "TERM=xterm", "LANG=en", "NEW=a=b", "HOME=/home/app"]
    );
    assert_eq!(spec["process"]["user"], serde_json::json!({"uid": 7, "gid": 8, "additionalGids": [8]}));
}

#[test]
fn limits_become_resources() {
    let resources = Resources {
        memory: Some(64 << 20),
        cpus: Some(1.5),
        pids: Some(-1),
        device_cgroup_rules: vec!["c 42:* rmw".into()],
        ..Resources::default()
    };
    let mut container = ContainerSpec { resources, ..ContainerSpec::default() };
    container.ulimits.insert("nofile".into(), Ulimit { soft: 100, hard: -1 });
    let spec = built(&container).unwrap();
    let resources = &spec["linux"]["resources"];
    assert_eq!(resources["memory"], serde_json::json!({"limit": 67_108_864, "swap": 134_217_728}));
    assert_eq!(resources["cpu"], serde_json::json!({"quota": 150_000, "period": 100_000}));
    assert!(resources["pids"].is_null());
    let rule = serde_json::json!({"allow": true, "type": "c", "major": 42, "minor": -1, "access": "rmw"});
    assert_eq!(resources["devices"][1], rule);
    let limit = serde_json::json!({"type": "RLIMIT_NOFILE", "hard": u64::MAX, "soft": 100});
    assert_eq!(spec["process"]["rlimits"][0], limit);
}

#[test]
fn own_mounts_replace_and_come_parents_first() {
    let tmpfs = |target: &str| Mount {
        target: target.into(),
        read_only: false,
        source: MountSource::Tmpfs {
            size: Some(1024),
            mode: Some(0o700),
            uid: None,
            gid: None,
            options: vec!["exec".into()],
        },
    };
    let bind = MountSource::Bind {
        path: "/src".into(),
        create: false,
        propagation: Some("rslave".into()),
        recursive: Recursion::Enabled,
        relabel: None,
    };
    let bind = Mount { target: "/a".into(), read_only: true, source: bind };
    let container = ContainerSpec {
        mounts: vec![tmpfs("/a/b/c"), bind, tmpfs("/dev/shm")],
        read_only: true,
        ..ContainerSpec::default()
    };
    let spec = built(&container).unwrap();
    let mounts: Vec<_> = spec["mounts"].as_array().unwrap()[6..]
        .iter()
        .map(|mount| format!("{} {}", mount["destination"].as_str().unwrap(), texts(&mount["options"]).join(",")))
        .collect();
    assert_eq!(
        mounts,
        [
            "/a rbind,rro,rslave",
            "/dev/shm noexec,nosuid,nodev,rw,size=1024,mode=700,exec",
            "/etc/hosts rbind,ro,rprivate",
            "/a/b/c noexec,nosuid,nodev,rw,size=1024,mode=700,exec",
        ]
    );
    assert_eq!(spec["root"]["readonly"], true);
}

#[test]
fn privileged_is_unconfined() {
    let container = ContainerSpec { privileged: true, ..ContainerSpec::default() };
    let spec = built(&container).unwrap();
    assert!(spec["linux"]["seccomp"].is_null());
    assert!(texts(&spec["linux"]["maskedPaths"]).is_empty());
    assert_eq!(spec["linux"]["resources"]["devices"][0]["allow"], true);
    assert_eq!(texts(&spec["mounts"][3]["options"]), ["nosuid", "noexec", "nodev"]);
    assert!(!spec["linux"]["devices"].as_array().unwrap().is_empty());
}

#[test]
fn host_modes_take_namespaces_away() {
    let container = ContainerSpec {
        network: NetworkMode::Host,
        uts: NamespaceMode::Host,
        ipc: NamespaceMode::Host,
        ..ContainerSpec::default()
    };
    let spec = built(&container).unwrap();
    let kinds: Vec<_> =
        spec["linux"]["namespaces"].as_array().unwrap().iter().map(|n| n["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["mount", "pid"]);
    assert!(spec["hostname"].is_null());
    assert_eq!(spec["linux"]["sysctl"], serde_json::json!({}));
    let service = ContainerSpec { network: NetworkMode::Service("db".into()), ..ContainerSpec::default() };
    assert!(matches!(built(&service), Err(SpecError::NoNamespace("network_mode", LinuxNamespaceType::Network))));
}

#[test]
fn what_cannot_be_is_said_in_the_services_words() {
    let error = |change: &dyn Fn(&mut ContainerSpec)| {
        let mut container = ContainerSpec::default();
        change(&mut container);
        built(&container).unwrap_err().to_string()
    };
    let missing = DeviceSpec { host: "/dev/no-such".into(), container: "/dev/x".into(), permissions: String::new() };
    let messages = [
        error(&|c| c.devices = vec![missing.clone()]),
        error(&|c| drop(c.sysctls.insert("vm.swappiness".into(), "1".into()))),
        error(&|c| drop(c.sysctls.insert("net/../kernel/core_pattern".into(), "x".into()))),
        error(&|c| {
            c.network = NetworkMode::Host;
            c.sysctls.insert("net.core.somaxconn".into(), "1".into());
        }),
        error(&|c| {
            c.ulimits.insert("files".into(), Ulimit { soft: 1, hard: 1 });
        }),
        error(&|c| c.security_opt = vec!["secomp=unconfined".into()]),
        error(&|c| c.security_opt = vec!["systempaths:unconfined".into()]),
        error(&|c| c.security_opt = vec!["seccomp=none.json".into()]),
        error(&|c| c.resources.device_cgroup_rules = vec!["c 1-3 rw".into()]),
    ];
    expect_test::expect![[r#"
        `devices: /dev/no-such` cannot be used on this host
        `sysctls: vm.swappiness` is a parameter of the whole host; set it there with sysctl(8)
        `sysctls: net/../kernel/core_pattern` is not the name of a kernel parameter
        `sysctls: net.core.somaxconn` would change the host, whose namespace the service shares; take one of the two out
        `ulimits: files` is not a resource limit; names are those of setrlimit(2) in lower case, such as `nofile`
        `security_opt: secomp=unconfined` is not known; known are `seccomp`, `no-new-privileges`, `apparmor`, `label`, `systempaths=unconfined`, `mask`, `unmask` and `writable-cgroups`
        `security_opt: systempaths:unconfined` is not known; known are `seccomp`, `no-new-privileges`, `apparmor`, `label`, `systempaths=unconfined`, `mask`, `unmask` and `writable-cgroups`
        cannot read the seccomp profile `/project/none.json` of `security_opt`
        `device_cgroup_rules: c 1-3 rw` is not a rule such as `c 1:3 rwm`"#]]
    .assert_eq(&messages.join("\n"));
}

#[test]
fn contents_are_written_with_owner_and_mode() {
    use std::os::unix::fs::MetadataExt;
    let directory = tempfile::tempdir().unwrap();
    let owner = std::fs::metadata(directory.path()).unwrap();
    let source = MountSource::Content { bytes: b"secret".to_vec(), mode: 0o440, uid: owner.uid(), gid: owner.gid() };
    let mounts = vec![Mount { target: "/run/secrets/key".into(), read_only: true, source }];
    let container = ContainerSpec { mounts, ..ContainerSpec::default() };
    let written = contents(&directory.path().join("files"), &container).unwrap();
    let [mount] = written.as_slice() else { panic!("{written:?}") };
    assert_eq!((mount.target.as_str(), mount.read_only), ("/run/secrets/key", true));
    assert_eq!(std::fs::read(&mount.source).unwrap(), b"secret");
    assert_eq!(std::fs::metadata(&mount.source).unwrap().mode() & 0o7777, 0o440);
}

#[test]
fn exec_takes_over_what_it_is_not_asked_to_change() {
    let users = UserDatabase { passwd: b"app:x:7:8::/home/app:/bin/sh\n".to_vec(), group: Vec::new() };
    let spec: Spec = serde_json::from_value(built(&ContainerSpec::default()).unwrap()).unwrap();
    let options = ExecOptions {
        command: vec!["id".into()],
        environment: vec![("LANG".into(), None)],
        user: Some("app".into()),
        privileged: true,
        ..ExecOptions::default()
    };
    let process = exec_process(&spec, &users, &options).unwrap();
    assert_eq!(
        process.env().as_deref().unwrap(),
        ["PATH=/opt/bin:/bin", "HOSTNAME=0123456789ab", "GONE=1", "HOME=/home/app"]
    );
    assert_eq!((process.user().uid(), process.cwd().as_path()), (7, Path::new("/srv")));
    let bounding = process.capabilities().as_ref().unwrap().bounding().clone().unwrap();
    assert_eq!(CapabilitySet::from_oci(&bounding), CapabilitySet::all());
}
