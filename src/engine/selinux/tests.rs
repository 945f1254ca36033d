use super::*;

fn policy() -> Policy {
    let text = "# a comment\nprocess = \"system_u:system_r:container_t:s0\"\nfile=\"system_u:object_r:container_file_t:s0\"\n\
                ro_file = \"system_u:object_r:container_ro_file_t:s0\"\n";
    Policy::parse(text).unwrap()
}

fn id(start: &str) -> ContainerId {
    ContainerId::parse(&format!("{start:0<64}")).unwrap()
}

fn container(options: &[&str]) -> ContainerSpec {
    ContainerSpec {
        security_opt: options.iter().map(|option| (*option).to_owned()).collect(),
        ..ContainerSpec::default()
    }
}

#[test]
fn every_container_has_categories_of_its_own() {
    let labels = policy().decide(&id("00050002"), &container(&[]), &[]).unwrap();
    assert_eq!(labels.process.as_deref(), Some("system_u:system_r:container_t:s0:c5,c8"));
    assert_eq!(labels.mount.as_deref(), Some("system_u:object_r:container_file_t:s0:c5,c8"));
    // Never the same one twice, and the lower one first.
    for (start, expected) in
        [("00000000", "c0,c1"), ("03ff0000", "c0,c1023"), ("ffffffff", "c63,c1023"), ("000103fe", "c0,c1")]
    {
        let categories = categories(&id(start));
        let (low, high) = categories.split_once(',').unwrap();
        let number = |text: &str| text[1..].parse::<u16>().unwrap();
        assert!(number(low) < number(high) && number(high) < 1024, "{start}: {categories}");
        assert_eq!(categories, expected, "{start}");
    }
}

#[test]
fn options_are_dockers() {
    let policy = policy();
    let labels = |options: &[&str]| policy.decide(&id("00050002"), &container(options), &[]);
    assert_eq!(labels(&["label:disable"]).unwrap(), Labels::default());
    assert_eq!(labels(&["label=disable", "label=type:other_t"]).unwrap(), Labels::default());
    let process = |option| labels(&[option]).unwrap().process.unwrap();
    assert_eq!(process("label=type:logger_t"), "system_u:system_r:logger_t:s0:c5,c8");
    assert_eq!(process("label:level:s0:c1,c2"), "system_u:system_r:container_t:s0:c1,c2");
    assert_eq!(process("label=role:staff_r"), "system_u:staff_r:container_t:s0:c5,c8");
    let mount = |option| labels(&[option]).unwrap().mount.unwrap();
    assert_eq!(mount("label=filetype:svirt_t"), "system_u:object_r:svirt_t:s0:c5,c8");
    assert_eq!(mount("label=level:s0"), "system_u:object_r:container_file_t:s0");
    assert_eq!(mount("label=user:staff_u"), "staff_u:object_r:container_file_t:s0:c5,c8");
    for wrong in ["label=confined", "label=type:", "label=colour:red"] {
        let error = labels(&[wrong]).unwrap_err().to_string();
        assert!(error.contains(&format!("`security_opt: label:{}` is not known", &wrong[6..])), "{error}");
    }
}

#[test]
fn who_shares_processes_or_memory_shares_the_label() {
    let policy = policy();
    let labels = |container: &ContainerSpec, joined: &[Option<&str>]| {
        let joined: Vec<_> = joined.iter().map(|label| label.map(str::to_owned)).collect();
        policy.decide(&id("00050002"), container, &joined)
    };
    let other = Some("system_u:system_r:container_t:s0:c7,c9");
    let shared = labels(&container(&[]), &[other, other]).unwrap();
    assert_eq!(shared.process.as_deref(), other);
    assert_eq!(shared.mount.as_deref(), Some("system_u:object_r:container_file_t:s0:c7,c9"));
    assert_eq!(labels(&container(&[]), &[None]).unwrap(), Labels::default());
    assert!(matches!(labels(&container(&[]), &[other, None]), Err(LabelError::Different)));
    // The host's own.
    for container in [
        ContainerSpec { privileged: true, ..container(&[]) },
        ContainerSpec { pid: NamespaceMode::Host, ..container(&[]) },
        ContainerSpec { ipc: NamespaceMode::Host, ..container(&[]) },
    ] {
        assert_eq!(labels(&container, &[]).unwrap(), Labels::default());
    }
}

#[test]
fn volumes_are_for_all_or_for_one() {
    let mount = "system_u:object_r:container_file_t:s0:c5,c8";
    assert_eq!(policy().label_of_volume(Relabel::Private, mount), mount);
    assert_eq!(policy().label_of_volume(Relabel::Shared, mount), "system_u:object_r:container_file_t:s0");
    assert_eq!(policy().label_of_images(), "system_u:object_r:container_ro_file_t:s0");
}

#[test]
fn a_policy_without_containers_is_none() {
    assert_eq!(Policy::parse("process = \"system_u:system_r:container_t:s0\"\n"), None);
    assert_eq!(Policy::parse("process = \"container_t\"\nfile = \"a:b:c:s0\"\n"), None);
    assert_eq!(Policy::parse("process = \"a:b:c:s0\\\"\"\nfile = \"a:b:c:s0\"\n"), None);
}

#[test]
fn dockers_file_turns_labels_off() {
    assert!(is_turned_off(b"{\"selinux-enabled\": false}"));
    for text in [&b"{}"[..], b"{\"selinux-enabled\": true}", b"no JSON", b"[]"] {
        assert!(!is_turned_off(text));
    }
}

#[test]
fn labels_are_where_runtimes_look_for_them() {
    let mut spec = Spec::default();
    Labels { process: Some("p".to_owned()), mount: Some("m".to_owned()) }.apply(&mut spec);
    let spec = serde_json::to_value(spec).unwrap();
    assert_eq!((&spec["process"]["selinuxLabel"], &spec["linux"]["mountLabel"]), (&"p".into(), &"m".into()));
}
