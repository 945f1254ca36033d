use std::fs;

use super::*;

/// The findings of a project of these files, errors included: code, line, message.
fn lint_files(files: &[(&str, &str)], change: impl FnOnce(&mut LoadOptions)) -> Vec<(String, u32, String)> {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let working_dir = folder.path().canonicalize().unwrap();
    let mut options = LoadOptions { working_dir, project_name: Some("test".into()), ..LoadOptions::default() };
    change(&mut options);
    let process = BTreeMap::from([("SET".to_owned(), "set".to_owned())]);
    let found = lint(&options, &[], &process);
    let line = |finding: &Diagnostic| finding.place.as_ref().map_or(0, |place| place.line);
    found.iter().map(|finding| (finding.code.to_owned(), line(finding), finding.message.clone())).collect()
}

/// The lines of a service's attributes that a warning of this code is about.
fn lines(code: &str, attributes: &str) -> Vec<u32> {
    let indented: String = attributes.lines().map(|line| format!("    {line}\n")).collect();
    let text = format!(
        "services:\n  web:\n{indented}  db:\n    image: db:1\n  ok:\n    image: ok:1\n    healthcheck: {{test: 'true'}}\n\
         volumes: {{data: , d1: }}\nconfigs: {{c: {{content: x}}}}\nsecrets: {{s: {{environment: SET}}}}\n"
    );
    let found = lint_files(&[("compose.yaml", &text), ("vars", "A=1\nB=2\n")], |_| {});
    assert!(CHECKS.iter().any(|check| check.code == code), "{code} is no check");
    for (code, line, message) in &found {
        assert!(CHECKS.iter().any(|check| check.code == code), "error {code} in line {line}: {message}");
    }
    found.into_iter().filter(|(found, ..)| found == code).map(|(_, line, _)| line).collect()
}

/// Line 3 is the first one of the attributes.
#[track_caller]
fn check(code: &str, attributes: &str, expected: &[u32]) {
    assert_eq!(lines(code, attributes), expected, "{attributes}");
}

#[test]
fn dollars_inside_of_words_and_secrets() {
    let code = "swallowed-dollar";
    check(code, "image: a:1\nenvironment:\n  - DB_URL=postgres://u:pa$word@db/x\n  - PASSWORD=$ecret\n", &[5, 6]);
    check(code, "image: a:1\nenvironment:\n  HASH: $2y$10$abcdef\n", &[5]);
    check(code, "image: a:1\nenvironment:\n  - A=pa$$word\n  - B=$unset\n  - C=pa$SET\n  - D=pa${unset}\n", &[]);
    check(code, "image: a:$TAG\ncommand: sh -c 'echo $unset /$unset'\n", &[]);
}

#[test]
fn a_swallowed_dollar_is_reported_once() {
    let text = "services:\n  web:\n    image: a:1\n    environment:\n      PASSWORD: $ecret\n";
    let found = lint_files(&[("compose.yaml", text)], |_| {});
    assert_eq!(found.iter().map(|(code, ..)| code.as_str()).collect::<Vec<_>>(), ["swallowed-dollar"]);
}

#[test]
fn numbers_that_change() {
    let code = "changed-value";
    let bad = "image: a:1\nenvironment:\n  A: 010\n  B: 1.0\n  C: 0x1F\n  D: 1_000\n  E: 1e3\n  F: True\nlabels:\n  l: 1.10\n";
    check(code, bad, &[5, 6, 7, 8, 9, 10, 12]);
    check(code, "image: a:1\nenvironment:\n  A: '010'\n  B: 1.5\n  C: 8080\n  D: true\n  E: yes\n  F:\n", &[]);
    check(code, "image: a:1\nenvironment: [A=010, B=1.0]\n", &[]);
}

#[test]
fn numbers_of_base_60() {
    check("sexagesimal", "image: a:1\nenvironment:\n  A: 12:30\n  B: 1:02:03\n", &[5, 6]);
    check("sexagesimal", "image: a:1\nenvironment:\n  A: '12:30'\n  B: 12:99\n  C: 08:30\n  D: a:b\n", &[]);
}

#[test]
fn modes_in_decimal() {
    let code = "decimal-mode";
    check(
        code,
        "image: a:1\nsecrets:\n  - source: s\n    mode: 444\nconfigs:\n  - source: c\n    mode: 288\n",
        &[6, 9],
    );
    check(code, "image: a:1\nvolumes:\n  - {type: tmpfs, target: /t, tmpfs: {mode: 1777}}\n", &[5]);
    check(code, "image: a:1\nsecrets:\n  - source: s\n    mode: 0444\nconfigs: [{source: c, mode: '0440'}]\n", &[]);
    check(code, "image: a:1\nconfigs: [{source: c, mode: 0o440}]\n", &[]);
}

#[test]
fn volumes_of_one_letter() {
    check("one-letter-volume", "image: a:1\nvolumes:\n  - d:/data\n  - d:/other:ro\n", &[5, 6]);
    check("one-letter-volume", "image: a:1\nvolumes: ['data:/data', '/d:/x', './d:/y', d1:/z]\n", &[]);
}

#[test]
fn options_of_volumes() {
    let code = "unknown-volume-option";
    check(code, "image: a:1\nvolumes:\n  - data:/a:rx\n  - ./x:/b:ro,nocpoy\n", &[5, 6]);
    check(code, "image: a:1\nvolumes: ['data:/a:ro,nocopy', './x:/b:rw,z,rslave', './y:/c:cached']\n", &[]);
}

#[test]
fn restart_policies() {
    check("invalid-restart", "image: a:1\nrestart: foo\n", &[4]);
    check("invalid-restart", "image: a:1\nrestart: on-failure:many\n", &[4]);
    for policy in ["no", "'no'", "always", "unless-stopped", "on-failure", "on-failure:3"] {
        check("invalid-restart", &format!("image: a:1\nrestart: {policy}\n"), &[]);
    }
}

#[test]
fn ports_on_all_addresses() {
    let code = "published-everywhere";
    check(code, "image: a:1\nports:\n  - 8080:80\n  - '90'\n  - {target: 91}\n  - 0.0.0.0:92:92\n", &[5, 6, 7, 8]);
    check(code, "image: a:1\nports: ['127.0.0.1:8080:80', '[::1]:81:81']\nexpose: [90]\n", &[]);
}

#[test]
fn tags_that_move() {
    for image in ["nginx", "nginx:latest", "host:5000/nginx", "a/b/c:latest"] {
        check("floating-tag", &format!("image: {image}\n"), &[3]);
    }
    for image in ["nginx:1.27", "host:5000/nginx:1", "nginx@sha256:00", "nginx:latest@sha256:00"] {
        check("floating-tag", &format!("image: {image}\n"), &[]);
    }
    check("floating-tag", "image: mine\nbuild: .\n", &[]);
}

#[test]
fn bare_names_and_files_of_variables() {
    let code = "masked-variable";
    check(code, "image: a:1\nenv_file: vars\nenvironment:\n  - A\n  - B=3\n", &[6]);
    check(code, "image: a:1\nenv_file: vars\nenvironment: [SET, OTHER]\n", &[]);
    check(code, "image: a:1\nenvironment: [A]\n", &[]);
}

#[test]
fn waiting_for_health_that_nobody_checks() {
    let code = "no-healthcheck";
    check(code, "image: a:1\ndepends_on:\n  db:\n    condition: service_healthy\n", &[6]);
    check(code, "image: a:1\ndepends_on: {ok: {condition: service_healthy}, db: {condition: service_started}}\n", &[]);
}

#[test]
fn what_the_loader_warns_about_is_listed_as_well() {
    check("dropped-size", "image: a:1\nmem_limit: 1.5\n", &[4]);
    check("dropped-size", "image: a:1\nmem_limit: 1.5g\n", &[]);
    check("unset-variable", "image: a:1\ncommand: echo ${unset}\n", &[4]);
    let found = lint_files(&[("compose.yaml", "version: '3'\nservices: {a: {image: a:1}}\n")], |_| {});
    assert_eq!(
        found.iter().map(|(code, line, _)| (code.as_str(), *line)).collect::<Vec<_>>(),
        [("obsolete-version", 1)]
    );
}

const TWO: &str = "services:\n  a: {image: a, restart: foo}\n  b: {image: b, profiles: [p]}\n";

fn codes(found: &[(String, u32, String)]) -> Vec<(&str, u32)> {
    found.iter().map(|(code, line, _)| (code.as_str(), *line)).collect()
}

#[test]
fn services_can_be_named_and_profiles_do_not_hide() {
    let found = lint_files(&[("compose.yaml", TWO)], |_| {});
    assert_eq!(codes(&found), [("floating-tag", 2), ("invalid-restart", 2), ("floating-tag", 3)]);
    let found = lint_files(&[("compose.yaml", TWO)], |options| options.services = vec!["b".to_owned()]);
    assert_eq!(codes(&found), [("floating-tag", 3)]);
    let found = lint_files(&[("compose.yaml", TWO)], |options| options.services = vec!["c".to_owned()]);
    assert_eq!(codes(&found), [("unknown-service", 0)]);
}

#[test]
fn the_file_switches_warnings_off() {
    let text = format!("version: '3'\n{TWO}x-rcompose: {{lint: {{ignore: [floating-tag, obsolete-version]}}}}\n");
    assert_eq!(codes(&lint_files(&[("compose.yaml", &text)], |_| {})), [("invalid-restart", 3)]);
    let text = format!("{TWO}x-rcompose:\n  lint:\n    ignore:\n      - flaoting-tag\n");
    let found = lint_files(&[("compose.yaml", &text)], |_| {});
    assert!(codes(&found).contains(&("unknown-code", 7)), "{found:?}");
}

#[test]
fn overridden_values_are_not_reported_and_errors_are() {
    let change = ("compose.override.yaml", "services: {a: {image: a:1, restart: always}, b: {image: b:2}}\n");
    assert_eq!(codes(&lint_files(&[("compose.yaml", TWO), change], |_| {})), []);
    let wrong = ("compose.override.yaml", "services: {a: {network_mode: host, networks: [x]}}\n");
    let found = lint_files(&[("compose.yaml", TWO), wrong], |_| {});
    assert!(found.iter().any(|(code, ..)| code == "exclusive-keys"), "{found:?}");
}

#[test]
fn the_page_has_the_table() {
    let page = include_str!("../../../docs/lint.md");
    let rows = CHECKS.iter().map(|check| format!("| `{}` | {} |\n", check.code, check.explanation));
    let table = format!("| Code | What is found |\n|---|---|\n{}", rows.collect::<String>());
    assert!(page.contains(&table), "docs/lint.md should have this table:\n{table}");
    assert!(CHECKS.is_sorted_by_key(|check| check.code));
}

/// Every warning of the loader can be switched off.
#[test]
fn warnings_of_the_loader_are_in_the_table() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/compose");
    for entry in fs::read_dir(source).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        for call in text.split("warning(\"").skip(1) {
            let code = call.split('"').next().unwrap();
            assert!(CHECKS.iter().any(|check| check.code == code), "{code} of {}", path.display());
        }
    }
}
