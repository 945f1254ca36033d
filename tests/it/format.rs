//! Rules of the Compose format, one line each, as the reference has them.

use std::collections::BTreeMap;
use std::fs;

use rcompose::base::diagnostic::Severity;
use rcompose::compose::{self, LoadOptions, LoadedTree, render};
use serde_json::{Value, json};

/// Loads one file with the variables `N` (5) and `E` (empty).
fn load(text: &str) -> LoadedTree {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("compose.yaml"), text).unwrap();
    fs::write(folder.path().join("l"), "A=1\nB=$A\nC=$N\n").unwrap();
    let options = LoadOptions {
        working_dir: folder.path().canonicalize().unwrap(),
        project_name: Some("test".to_owned()),
        ..LoadOptions::default()
    };
    let environment = BTreeMap::from([("N".to_owned(), "5".to_owned()), ("E".to_owned(), String::new())]);
    compose::load_tree(&options, &environment)
}

fn service(attributes: &str) -> LoadedTree {
    load(&format!("services: {{a: {{image: x, {attributes}}}, b: {{image: y}}}}\nsecrets: {{s: {{file: ./s}}}}\n"))
}

fn errors(loaded: &LoadedTree) -> Vec<String> {
    let errors = loaded.diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Error);
    errors.map(|diagnostic| diagnostic.message.clone()).collect()
}

#[test]
fn values_become_what_the_reference_makes_of_them() {
    let resources = |value: &str| format!("deploy: {{resources: {{reservations: {{generic_resources: [{value}]}}}}}}");
    let kind = resources("{discrete_resource_spec: {kind: k}}");
    let cases: &[(&str, &str, Value)] = &[
        ("mem_limit: 1e3k", "mem_limit", json!("1024000")),
        ("mem_limit: '1_000'", "mem_limit", json!("1000")),
        ("mem_limit: '1.5e2 mb'", "mem_limit", json!("157286400")),
        ("mem_limit: '+5m'", "mem_limit", json!("5242880")),
        ("ports: [80/tcp/udp]", "ports.0.protocol", json!("tcp")),
        ("ports: ['1:80/udp/']", "ports.0.protocol", json!("udp")),
        ("profiles: ['']", "image", json!("x")),
        ("gpus: [{typo: 1, count: 2}]", "gpus.0", json!({"count": 2})),
        ("secrets: [{source: s, mode: -1}]", "secrets.0.mode", json!("0-1")),
        ("scale: 2, deploy: {mode: replicated}", "deploy.replicas", json!(2)),
        ("environment: {A: !!binary aGk=}", "environment.A", json!("hi")),
        ("label_file: l", "labels", json!({"A": "1", "B": "1", "C": ""})),
        (
            &kind,
            "deploy.resources.reservations.generic_resources.0.discrete_resource_spec",
            json!({"kind": "k", "value": 0}),
        ),
    ];
    for (attributes, path, expected) in cases {
        let loaded = service(attributes);
        let tree = loaded.tree.as_ref().unwrap_or_else(|| panic!("{attributes}: {:?}", errors(&loaded)));
        let value = tree.at(&format!("services.a.{path}")).map(|node| node.to_json());
        assert_eq!(value.as_ref(), Some(expected), "{attributes}");
    }
}

#[test]
fn what_the_reference_refuses_is_refused() {
    let cases = [
        ("devices: [{source: /dev/a}]", "missing a target"),
        ("ports: [0]", "may not be 0"),
        ("environment: {A: !!binary '?'}", "not text in base64"),
        ("ports: [{target: -1}]", "not negative"),
        ("ports: [{target: 80, host_ip: ''}]", "not an IP address"),
        ("expose: [1.5]", "not a port"),
        ("healthcheck: {retries: -1}", "not negative"),
        ("secrets: [{target: t}]", "undefined secret"),
        ("secrets: [{source: s, mode: 1.5}]", "octal mode"),
        ("gpus: [{count: 1e9}]", "`all` or a number"),
        ("build: {additional_contexts: [a]}", "`NAME=CONTEXT`"),
        ("build: {additional_contexts: {a: 1}}", "must be text"),
        ("build: {ulimits: {nofile: '5'}}", "must be a whole number"),
        ("extends: {service: b, file: [b]}", "must be text"),
        ("deploy: {placement: {max_replicas_per_node: -1}}", "not negative"),
    ];
    for (attributes, expected) in cases {
        let errors = errors(&service(attributes));
        assert!(errors.iter().any(|error| error.contains(expected)), "{attributes}: {errors:?}");
    }
    for include in
        ["[5]", "[{path: 1.5}]", "[{path: [1]}]", "[{path: x, env_file: {a: b}}]", "[{project_directory: 1}]"]
    {
        assert!(!errors(&load(&format!("include: {include}\nservices: {{}}\n"))).is_empty(), "{include}");
    }
}

#[test]
fn keys_are_printed_in_the_order_of_numbers() {
    let loaded = load("services: {s10: {image: x}, s2: {image: x, labels: {k10: a, k9: b}}}\n");
    let text = render::yaml(&loaded.tree.unwrap());
    let place = |part: &str| text.find(part).unwrap();
    assert!(place("s2:") < place("s10:") && place("k9:") < place("k10:"), "{text}");
}

/// Files in one folder, the first two merged.
fn merged(files: &[(&str, &str)]) -> LoadedTree {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let options = LoadOptions { working_dir: folder.path().canonicalize().unwrap(), ..LoadOptions::default() };
    let options = LoadOptions { project_name: Some("test".to_owned()), ..options };
    compose::load_tree(&options, &BTreeMap::new())
}

#[test]
fn paths_of_homes_and_volumes() {
    let volumes = "volumes: {vv: {driver_opts: {o: bind, device: ./x}}, ww: {driver: local, driver_opts: {o: bind, device: ./x}}}\n";
    let text = format!("services: {{a: {{image: x, volumes: ['~b:/c', 'vv:/v', 'ww:/w']}}}}\n{volumes}");
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("compose.yaml"), text).unwrap();
    let options = LoadOptions { working_dir: folder.path().to_owned(), ..LoadOptions::default() };
    let loaded = compose::load_tree(&options, &BTreeMap::from([("HOME".to_owned(), "/home/me".to_owned())]));
    let tree = loaded.tree.unwrap();
    let at = |path: &str| tree.at(path).and_then(|node| node.as_str()).unwrap_or_default().to_owned();
    assert_eq!(at("services.a.volumes.0.source"), "/home/me/b");
    assert_eq!(at("volumes.vv.driver_opts.device"), "./x");
    assert!(at("volumes.ww.driver_opts.device").starts_with('/'));
}

#[test]
fn an_include_may_have_keys_that_nobody_knows() {
    let loaded =
        merged(&[("compose.yaml", "include: [{path: i.yaml, x: 1}]\n"), ("i.yaml", "services: {a: {image: x}}\n")]);
    assert!(loaded.tree.is_some());
    assert_eq!(loaded.diagnostics.iter().map(|one| one.code).collect::<Vec<_>>(), ["ignored-key"]);
}

#[test]
fn what_a_long_dependency_leaves_out_changes_nothing() {
    let base =
        "services: {a: {image: x, depends_on: {b: {condition: service_healthy, required: false}}}, b: {image: y}}\n";
    let change = "services: {a: {depends_on: {b: {condition: service_started}}}}\n";
    let loaded = merged(&[("compose.yaml", base), ("compose.override.yaml", change)]);
    let dependency = loaded.tree.unwrap().at("services.a.depends_on.b").map(|node| node.to_json());
    assert_eq!(dependency, Some(json!({"condition": "service_started", "required": false})));
}

#[test]
fn what_grows_without_bound_is_refused() {
    let doubling: String = (1..60).map(|n| format!("A{n}=${{A{}}}${{A{0}}}\n", n - 1)).collect();
    let uses = "services: {a: {image: x, env_file: vars}}\n";
    let loaded = merged(&[("compose.yaml", uses), ("vars", &format!("A0=0123456789\n{doubling}"))]);
    assert!(errors(&loaded).iter().any(|error| error.contains("bytes together")), "{:?}", errors(&loaded));

    let labels: String = (0..1000).map(|n| format!("l{n},")).collect();
    let extending: String = (0..1000).map(|n| format!("  s{n}: {{extends: base}}\n")).collect();
    let wide =
        merged(&[("compose.yaml", &format!("services:\n  base: {{image: x, labels: [{labels}]}}\n{extending}"))]);
    assert!(errors(&wide).iter().any(|error| error.contains("take over more than")), "{:?}", errors(&wide));

    let vars: String = (0..1000).map(|n| format!("A{n}=x\n")).collect();
    let many: String = (0..600).map(|n| format!("  s{n}: {{image: x, env_file: vars}}\n")).collect();
    let wide = merged(&[("compose.yaml", &format!("services:\n{many}")), ("vars", &vars)]);
    assert!(errors(&wide).iter().any(|error| error.contains("from files")), "{:?}", errors(&wide));

    let vars: String = (0..100_001).map(|n| format!("A{n}=x\n")).collect();
    let long = merged(&[("compose.yaml", uses), ("vars", &vars)]);
    assert!(errors(&long).iter().any(|error| error.contains("100000 variables")), "{:?}", errors(&long));

    let text =
        format!("x-a: &a {}\nx-b: [{}]\nservices: {{a: {{image: x}}}}\n", "x".repeat(1 << 20), "*a,".repeat(100));
    assert!(errors(&load(&text)).iter().any(|error| error.contains("copies")), "{:?}", errors(&load(&text)));

    let pools = |letter: char| {
        let pools: String = (0..600).map(|n| format!("{{subnet: {letter}{n}}},")).collect();
        format!("services: {{a: {{image: x}}}}\nnetworks: {{n: {{ipam: {{config: [{pools}]}}}}}}\n")
    };
    let pools = merged(&[("compose.yaml", &pools('a')), ("compose.override.yaml", &pools('b'))]);
    assert!(errors(&pools).iter().any(|error| error.contains("too many pools")), "{:?}", errors(&pools));

    let twice = |n: u32| format!("include: [inc{}.yaml, ./inc{0}.yaml]\n", n - 1);
    let names: Vec<String> = (0..25).map(|n| format!("inc{n}.yaml")).collect();
    let texts: Vec<String> = (0..25).map(|n| if n == 0 { "services: {}\n".to_owned() } else { twice(n) }).collect();
    let mut files: Vec<(&str, &str)> = names.iter().map(String::as_str).zip(texts.iter().map(String::as_str)).collect();
    files.push(("compose.yaml", "include: [inc24.yaml]\n"));
    assert!(errors(&merged(&files)).iter().any(|error| error.contains("files are read")));
}

#[test]
fn without_somebody_to_fetch_them_remote_files_are_refused() {
    for text in ["include: ['oci://registry/x']\n", "services: {a: {extends: {service: a, file: 'https://h/x.git'}}}\n"]
    {
        let loaded = load(text);
        let diagnostic = loaded.diagnostics.iter().find(|diagnostic| diagnostic.code == "unsupported").unwrap();
        assert!(diagnostic.place.is_some(), "{text}");
    }
    let options = LoadOptions { files: vec!["oci://registry/x".to_owned()], ..LoadOptions::default() };
    assert_eq!(compose::load_tree(&options, &BTreeMap::new()).diagnostics[0].code, "unsupported");
}

#[test]
fn a_service_is_hashed_as_the_reference_hashes_it() {
    let loaded =
        load("services: {a: {image: x, build: ., scale: 2, depends_on: [b], command: 'a <b'}, b: {image: y}}\n");
    let services = render::hashed_services(&loaded.tree.unwrap());
    let text = r#"{"command":["a"],"entrypoint":null,"image":"x","networks":{"default":null}}"#;
    assert_eq!(services.first(), Some(&("a".to_owned(), text.to_owned())));
}

#[test]
fn errors_of_all_kinds_come_at_once_and_none_that_follows_from_another() {
    let loaded = load(
        "services:
  a: {image: x, mem_limit: 12zz, networks: [nope]}
  b: {image: '${UNSET?need it}', depends_on: [nosuch], container_name: '${UNSET?}', links: ['${UNSET?}']}
  c: {image: x, volumes: ['nov:/x'], ports: ['99999999:1'], extends: {service: nobody}}
  d: {extends: {service: nobody}}
",
    );
    let found = errors(&loaded).join("\n");
    for part in ["12zz", "network `nope`", "need it", "service `nosuch`", "volume `nov`", "99999999", "nobody"] {
        assert!(found.contains(part), "{part}: {found}");
    }
    assert!(!found.contains("neither an image") && !found.contains("service `${"), "{found}");
}
