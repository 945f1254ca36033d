//! The Compose file loader as a whole: files in, canonical project and diagnostics out.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rcompose::base::diagnostic::{Diagnostic, Severity};
use rcompose::compose::{self, LoadOptions, Loaded, render};
use rcompose::model::{Condition, VolumeKind};
use rcompose::ui::diagnostics;

/// Writes files and loads the project in their folder.
fn load_with(files: &[(&str, &str)], change: impl FnOnce(&mut LoadOptions)) -> (tempfile::TempDir, Loaded) {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let mut options = LoadOptions {
        working_dir: folder.path().canonicalize().unwrap(),
        project_name: Some("test".to_owned()),
        ..LoadOptions::default()
    };
    change(&mut options);
    let environment = BTreeMap::from([("SHELL_VAR".to_owned(), "shell".to_owned())]);
    let loaded = compose::load(&options, &environment);
    (folder, loaded)
}

fn load(files: &[(&str, &str)]) -> (tempfile::TempDir, Loaded) {
    load_with(files, |_| {})
}

/// The project as YAML with the folder's path replaced, or the messages of its errors.
fn printed(folder: &Path, loaded: &Loaded) -> String {
    let text = match &loaded.project {
        Some(project) => render::yaml(&project.tree),
        None => diagnostics::render(&loaded.diagnostics, false),
    };
    let folder = folder.canonicalize().unwrap().display().to_string();
    text.replace(&folder, "DIR")
}

fn check(files: &[(&str, &str)], expected: expect_test::Expect) {
    let (folder, loaded) = load(files);
    expected.assert_eq(&printed(folder.path(), &loaded));
}

fn errors(loaded: &Loaded) -> Vec<&Diagnostic> {
    loaded.diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Error).collect()
}

#[test]
fn short_forms_become_long_ones() {
    let text = "\
services:
  web:
    build: ./app
    ports: ['127.0.0.1:8080:80', 9000]
    volumes: ['./data:/data:ro', 'cache:/cache', /anonymous]
    environment: [A=1, SHELL_VAR, MISSING]
    depends_on: [db]
    command: sh -c 'echo \"hi\"'
    mem_limit: 1.5g
    stop_grace_period: 90s
    extra_hosts: {host: 1.2.3.4}
    secrets: [key]
  db: {image: postgres}
volumes: {cache: }
secrets: {key: {file: ./key}}
";
    check(
        &[("compose.yaml", text)],
        expect_test::expect![[r#"
            name: test
            services:
              db:
                image: postgres
                networks:
                  default: null
              web:
                build:
                  context: DIR/app
                  dockerfile: Dockerfile
                command:
                  - sh
                  - -c
                  - echo "hi"
                depends_on:
                  db:
                    condition: service_started
                    required: true
                environment:
                  A: "1"
                  MISSING: null
                  SHELL_VAR: shell
                extra_hosts:
                  - host=1.2.3.4
                mem_limit: "1610612736"
                networks:
                  default: null
                ports:
                  - mode: ingress
                    host_ip: 127.0.0.1
                    target: 80
                    published: "8080"
                    protocol: tcp
                  - mode: ingress
                    target: 9000
                    protocol: tcp
                secrets:
                  - source: key
                    target: /run/secrets/key
                stop_grace_period: 1m30s
                volumes:
                  - type: bind
                    source: DIR/data
                    target: /data
                    read_only: true
                    bind:
                      create_host_path: true
                  - type: volume
                    source: cache
                    target: /cache
                    volume: {}
                  - type: volume
                    target: /anonymous
                    volume: {}
            networks:
              default:
                name: test_default
            volumes:
              cache:
                name: test_cache
            secrets:
              key:
                name: test_key
                file: DIR/key
        "#]],
    );
}

#[test]
fn override_files_merge_by_the_rule_of_each_attribute() {
    let base = "\
services:
  app:
    image: a:1
    command: [one]
    environment: {A: 1, B: 1}
    ports: ['80:80']
    volumes: ['./a:/x', './b:/y']
    logging: {driver: json-file, options: {max-size: 1m}}
    dns: 1.1.1.1
    labels: [a=1]
    hostname: gone
";
    let change = "\
services:
  app:
    image: a:2
    command: [two]
    environment: [B=2, C=3]
    ports: !override ['81:81']
    volumes: ['./c:/x']
    logging: {driver: local}
    dns: [1.1.1.1, 8.8.8.8]
    labels: {b: 2}
    hostname: !reset
";
    check(
        &[("compose.yaml", base), ("compose.override.yaml", change)],
        expect_test::expect![[r#"
            name: test
            services:
              app:
                command:
                  - two
                dns:
                  - 1.1.1.1
                  - 8.8.8.8
                environment:
                  A: "1"
                  B: "2"
                  C: "3"
                image: a:2
                labels:
                  a: "1"
                  b: "2"
                logging:
                  driver: local
                networks:
                  default: null
                ports:
                  - mode: ingress
                    target: 81
                    published: "81"
                    protocol: tcp
                volumes:
                  - type: bind
                    source: DIR/c
                    target: /x
                    bind:
                      create_host_path: true
                  - type: bind
                    source: DIR/b
                    target: /y
                    bind:
                      create_host_path: true
            networks:
              default:
                name: test_default
        "#]],
    );
}

#[test]
fn include_and_extends_resolve_paths_and_variables_where_they_are() {
    check(
        &[
            (
                "compose.yaml",
                "include: [sub/compose.yaml]\nservices:\n  a: {extends: {file: base/b.yaml, service: b}}\n",
            ),
            ("sub/compose.yaml", "services:\n  c: {image: '${TAG}', volumes: ['./d:/d']}\n"),
            ("sub/.env", "TAG=from-sub\n"),
            ("base/b.yaml", "services:\n  b: {image: b, build: ., env_file: b.env}\n"),
            ("base/b.env", "X=$SHELL_VAR # comment\n"),
        ],
        expect_test::expect![[r#"
            name: test
            services:
              a:
                build:
                  context: DIR/base
                  dockerfile: Dockerfile
                environment:
                  X: shell
                image: b
                networks:
                  default: null
              c:
                image: from-sub
                networks:
                  default: null
                volumes:
                  - type: bind
                    source: DIR/sub/d
                    target: /d
                    bind:
                      create_host_path: true
            networks:
              default:
                name: test_default
        "#]],
    );
}

#[test]
fn every_problem_is_reported_with_its_line_and_remedy() {
    let text = "\
services:
  web:
    imagee: x
    healthcheck: {intervall: 5s}
    ports: 80
  api:
    image: 5
";
    check(
        &[("compose.yaml", text)],
        expect_test::expect![[r#"
            error: `services.web` may not have `imagee`: additional properties are not allowed
             --> DIR/compose.yaml:3:5
            3 |     imagee: x
              |     ^^^^^^
              help: did you mean `image`?
            error: `services.web.healthcheck` may not have `intervall`: additional properties are not allowed
             --> DIR/compose.yaml:4:19
            4 |     healthcheck: {intervall: 5s}
              |                   ^^^^^^^^^
              help: did you mean `interval`?
            error: `services.web.ports` must be a list, but it is a number
             --> DIR/compose.yaml:5:12
            5 |     ports: 80
              |            ^^
            error: `services.api.image` must be text, but it is a number
             --> DIR/compose.yaml:7:12
            7 |     image: 5
              |            ^
              help: put it in quotes
        "#]],
    );
}

/// Whatever step finds them, problems come by file and line, and a later step does not hide behind an earlier one.
#[test]
fn problems_of_all_steps_come_by_file_and_line() {
    let text = "\
services:
  web:
    volumes: ['/a:/b:/c:/d']
    command: ${CMD:?say it}
    ports: ['99999:80']
    imagee: x
  api: {extends: {file: base.yaml, service: b}, image: x}
include: [more.yaml]
";
    let base = ("base.yaml", "services: {a: {image: x}}\n");
    let (_folder, loaded) = load(&[("compose.yaml", text), base, ("more.yaml", "services:\n  m: {foo: 1}\n")]);
    let place = |error: &&Diagnostic| {
        let place = error.place.as_ref().unwrap();
        (place.file.file_name().unwrap().to_string_lossy().into_owned(), place.line, error.code)
    };
    let found: Vec<_> = errors(&loaded).iter().map(place).collect();
    let expected = [
        ("compose.yaml", 3, "invalid-volume"),
        ("compose.yaml", 4, "required-variable"),
        ("compose.yaml", 5, "invalid-port"),
        ("compose.yaml", 6, "unknown-key"),
        ("compose.yaml", 7, "unknown-service"),
        ("more.yaml", 2, "unknown-key"),
    ];
    assert_eq!(found, expected.map(|(file, line, code)| (file.to_owned(), line, code)));
}

/// File, line and code of every error.
fn places(loaded: &Loaded) -> Vec<(String, u32, &'static str)> {
    let of = |known: &&Diagnostic| {
        let place = known.place.as_ref();
        let file = place.and_then(|place| place.file.file_name()).map(|name| name.to_string_lossy().into_owned());
        (file.unwrap_or_default(), place.map_or(0, |place| place.line), known.code)
    };
    errors(loaded).iter().map(of).collect()
}

#[test]
fn what_is_wrong_with_one_file_hides_nothing_of_the_others() {
    let load = |files: &[(&str, &str)]| {
        let (_folder, loaded) = load_with(files, |options| {
            options.files =
                files.iter().map(|(name, _)| (*name).to_owned()).filter(|name| !name.contains('/')).collect();
        });
        places(&loaded).iter().map(|(file, line, code)| format!("{file}:{line} {code}")).collect::<Vec<_>>()
    };
    let first = "services:\n  web:\n    image: x\n    imagee: y\n    deploy: []\n    ulimits: {a: {soft: 1}}\n";
    let second = "services:\n  web:\n    prots: []\n    deploy: {replicas: 2}\n    ulimits: {a: {hard: 2}}\n";
    let third = "services:\n  db: {image: y, ports: ['a:b:c:d']}\n";
    assert_eq!(
        load(&[("a.yaml", first), ("b.yaml", second), ("c.yaml", third)]),
        [
            "a.yaml:4 unknown-key",
            "a.yaml:5 wrong-type",
            "a.yaml:6 missing-key",
            "b.yaml:3 unknown-key",
            "c.yaml:2 invalid-port",
        ]
    );
    // One that cannot be read at all: what it says may be what the others refer to.
    assert_eq!(
        load(&[("a.yaml", "services: ]"), ("b.yaml", second), ("c.yaml", "services: {db: {depends_on: [web]}}")]),
        ["a.yaml:1 yaml-syntax", "b.yaml:3 unknown-key"]
    );
    assert_eq!(
        load(&[("a.yaml", "[]"), ("b.yaml", second), ("c.yaml", third)]),
        ["a.yaml:1 wrong-type", "b.yaml:3 unknown-key", "c.yaml:2 invalid-port"]
    );
    // Files of an include, of which one is missing: it may have had the key. And the one that a service extends.
    assert_eq!(
        load(&[
            ("a.yaml", "include: [{path: [i/a.yaml, i/none.yaml, i/b.yaml]}]\nservices: {x: {imagee: y}}\n"),
            ("i/a.yaml", first),
            ("i/b.yaml", second),
        ]),
        [
            "a.yaml:1 missing-file",
            "a.yaml:2 unknown-key",
            "a.yaml:4 unknown-key",
            "a.yaml:5 wrong-type",
            "b.yaml:3 unknown-key",
        ]
    );
    assert_eq!(
        load(&[
            ("a.yaml", "services:\n  web:\n    extends: {file: e/b.yaml, service: base}\n    prots: []\n"),
            ("e/b.yaml", "services:\n  base:\n    imagee: x\n    ports: ['a:b:c:d']\n    image: ${X:?}\n"),
        ]),
        ["a.yaml:4 unknown-key", "b.yaml:3 unknown-key", "b.yaml:4 invalid-port", "b.yaml:5 required-variable"]
    );
}

#[test]
fn errors_of_an_extended_file_name_what_led_there() {
    let (_folder, loaded) = load(&[
        ("compose.yaml", "services:\n  web:\n    extends: {file: base.yaml, service: base}\n"),
        ("base.yaml", "services:\n  base:\n    image: x\n    imagee: x\n    ports: ['a:b:c:d']\n"),
    ]);
    for error in errors(&loaded) {
        let led_by: Vec<_> =
            error.related.iter().map(|(place, _)| (place.file.file_name().unwrap(), place.line)).collect();
        assert_eq!(led_by, [("compose.yaml".as_ref(), 3)], "{error:?}");
    }
    assert_eq!(errors(&loaded).len(), 2);
}

#[test]
fn errors_point_at_the_value_that_is_wrong() {
    let (_folder, loaded) = load(&[
        (
            "compose.yaml",
            "\
services:
  a:
    image: x
    extends:
      service: b
      file: none.yaml
  b:
    image: x
    volumes:
      - type: volume
        target: /t
        source: nowhere
    gpus:
      - count: 1
        capabilities: [gpu]
        device_ids: ['1']
    storage_opt:
      size: true
    configs:
      - target: /c
        source: nothing
configs:
  c:
    content: x
    file: y
",
        ),
        ("y", ""),
    ]);
    let lines: Vec<_> = places(&loaded).into_iter().map(|(_, line, code)| (line, code)).collect();
    assert_eq!(
        lines,
        [
            (6, "missing-file"),
            (12, "undefined-reference"),
            (16, "exclusive-keys"),
            (18, "wrong-type"),
            (21, "undefined-reference"),
            (25, "exclusive-keys"),
        ]
    );
}

#[test]
fn odd_values_become_what_the_reference_makes_of_them() {
    check(
        &[(
            "compose.yaml",
            "\
services:
  a:
    image: x
    configs: [c]
    blkio_config:
      device_read_bps: [{path: /dev/a, rate: 1e3}]
    build: {context: /c, platforms: [a, a]}
    volumes: [{type: tmpfs, target: /t, tmpfs: {mode: 1.5}}]
  p:
    provider: {type: p, options: {none: [], one: a}}
configs:
  c: {file: ''}
",
        )],
        expect_test::expect![[r#"
            name: test
            services:
              a:
                build:
                  context: /c
                  dockerfile: Dockerfile
                  platforms:
                    - a
                    - a
                blkio_config:
                  device_read_bps:
                    - path: /dev/a
                      rate: "0"
                configs:
                  - source: c
                image: x
                networks:
                  default: null
                volumes:
                  - type: tmpfs
                    target: /t
                    tmpfs:
                      mode: 1
              p:
                provider:
                  type: p
                  options:
                    one:
                      - a
            networks:
              default:
                name: test_default
            configs:
              c:
                name: test_c
                file: DIR
        "#]],
    );
}

#[test]
fn with_variables_in_them_files_merge_as_in_the_reference() {
    let folder = tempfile::tempdir().unwrap();
    let first = "services:\n  a:\n    image: x\n    environment: {B: '${B}', A: }\n    labels: [l=1]\n    build: {context: /c, args: [A, B=1], sbom: true}\nvolumes: {v: }\n";
    fs::write(folder.path().join("a.yaml"), first).unwrap();
    fs::write(folder.path().join("b.yaml"), "services:\n  a:\n    environment: ['B=2', 'C=${C}']\n").unwrap();
    let options = LoadOptions {
        working_dir: folder.path().canonicalize().unwrap(),
        files: vec!["a.yaml".to_owned(), "b.yaml".to_owned()],
        project_name: Some("test".to_owned()),
        ..LoadOptions::default()
    };
    let environment = BTreeMap::from([("A".to_owned(), "shell".to_owned())]);
    let loaded = compose::load_uninterpolated(&options, &environment);
    expect_test::expect![[r#"
        name: test
        services:
          a:
            build:
              context: /c
              dockerfile: Dockerfile
              args:
                - B=1
              sbom: "true"
            environment:
              - A
              - B=2
              - C=${C}
            image: x
            labels:
              - l=1
            networks:
              default: null
        networks:
          default:
            name: test_default
        volumes:
          v:
            name: test_v
    "#]]
    .assert_eq(&render::yaml(&loaded.tree.unwrap()));
    let options = LoadOptions { no_normalize: true, all_resources: true, ..options };
    let loaded = compose::load_tree(&options, &environment);
    assert_eq!(loaded.tree.unwrap().at("volumes.v").map(|volume| volume.is_null()), Some(false));
}

#[test]
fn numbers_that_the_reference_cannot_hold_are_refused() {
    let (_folder, loaded) = load(&[(
        "compose.yaml",
        "\
services:
  a:
    image: x
    cpu_shares: 99999999999999999999
    cpu_percent: 1e3
    ulimits:
      nofile: 1e3
      nproc: {soft: 1e3, hard: 2000}
    ports:
      - {target: 80, published: 1e3}
    volumes:
      - {type: tmpfs, target: /t, tmpfs: {mode: -1}}
name: 2020-01-01
secrets:
  s: {environment: E, driver_opts: {a: 1.5}}
",
    )]);
    let lines: Vec<_> = places(&loaded).into_iter().map(|(_, line, _)| line).collect();
    assert_eq!(lines, [4, 5, 7, 8, 10, 12, 13, 15]);
}

#[test]
fn references_to_nothing_say_what_there_is() {
    let text = "\
services:
  web: {image: x, depends_on: [bd, job], volumes: ['dta:/d'], networks: [frnt]}
  db: {image: x}
  job: {image: x, profiles: [batch]}
volumes: {data: }
networks: {front: }
";
    let (_folder, loaded) = load(&[("compose.yaml", text)]);
    let found: Vec<_> =
        errors(&loaded).iter().map(|error| (error.message.as_str(), error.help.as_deref().unwrap_or(""))).collect();
    assert_eq!(
        found,
        [
            ("service `web` depends on undefined service `bd`", "did you mean `db`?"),
            (
                "service `web` depends on undefined service `job`",
                "it is in a profile that is not active: add `--profile batch`, or `required: false`"
            ),
            ("service `web` refers to undefined volume `dta`", "did you mean `data`?"),
            ("service `web` refers to undefined network `frnt`", "did you mean `front`?"),
        ]
    );
}

#[test]
fn cycles_are_printed_whole() {
    let cases = [
        (
            "services:\n  a: {image: x, depends_on: [b]}\n  b: {image: x, links: [c]}\n  c: {image: x, depends_on: [a]}\n",
            "dependency cycle detected: a -> b -> c -> a",
        ),
        ("services:\n  a: {extends: b}\n  b: {extends: a}\n", "circular reference in `extends`: a -> b -> a"),
    ];
    for (text, message) in cases {
        let (_folder, loaded) = load(&[("compose.yaml", text)]);
        assert!(errors(&loaded).iter().any(|error| error.message == message), "{:?}", loaded.diagnostics);
    }
    let (folder, loaded) = load(&[("compose.yaml", "include: [b.yaml]\n"), ("b.yaml", "include: [compose.yaml]\n")]);
    let text = printed(folder.path(), &loaded);
    assert!(text.contains("include cycle detected: DIR/compose.yaml -> DIR/b.yaml -> DIR/compose.yaml"), "{text}");
    assert!(text.contains("included from here"), "{text}");
}

#[test]
fn the_typed_project_knows_its_places() {
    let text = "\
x-common: &common
  restart: always
services:
  web:
    <<: *common
    image: nginx
    ports:
      - 8080:80
    healthcheck: {test: [CMD, \"true\"], interval: 90s}
    volumes: [{type: tmpfs, target: /t, tmpfs: {size: 1m}}]
    depends_on: {db: {condition: service_healthy}}
  db: {image: postgres, profiles: []}
";
    let (_folder, loaded) = load(&[("compose.yaml", text)]);
    let project = loaded.project.unwrap();
    let web = &project.services["web"];
    assert_eq!((web.name.as_str(), web.replicas()), ("web", 1));
    assert_eq!(web.ports[0].published.as_deref(), Some("8080"));
    assert_eq!(web.healthcheck.as_ref().unwrap().interval, Some(Duration::from_secs(90)));
    assert_eq!(web.depends_on["db"].condition, Condition::ServiceHealthy);
    assert_eq!(web.volumes[0].kind, VolumeKind::Tmpfs);
    assert_eq!(web.volumes[0].tmpfs.as_ref().unwrap().size, Some(1 << 20));
    let line = |path: &str| project.place(path).map(|place| (place.line, place.column));
    assert_eq!(line("services.web.ports.0"), Some((8, 9)));
    assert_eq!(line("services.web.restart"), Some((2, 12)));
    assert_eq!(line("services.web.healthcheck.interval"), Some((9, 50)));
    // Nobody wrote the default network: the place is that of the service.
    assert_eq!(line("services.web.networks.default"), Some((5, 5)));
    assert_eq!(project.canonical("db").unwrap()["image"], "postgres");
}

#[test]
fn variables_without_value_are_named_once() {
    let text = "services:\n  a: {image: 'x$NOPE', command: '$NOPE ${OTHER:-x}', hostname: '${SHELL_VAR}'}\n";
    let (_folder, loaded) = load(&[("compose.yaml", text)]);
    let warnings: Vec<_> = loaded.diagnostics.iter().map(|diagnostic| diagnostic.message.as_str()).collect();
    assert_eq!(warnings, ["the `NOPE` variable is not set, so it is replaced by an empty text"]);
}

#[test]
fn services_by_name_bring_their_profile_and_needs() {
    let text = "\
services:
  a: {image: x, profiles: [p], depends_on: [b], volumes: ['used:/v']}
  b: {image: x}
  c: {image: x, volumes: ['unused:/w']}
volumes: {used: , unused: }
";
    let (_folder, loaded) = load_with(&[("compose.yaml", text)], |options| options.services = vec!["a".to_owned()]);
    let project = loaded.project.unwrap();
    assert_eq!(project.services.keys().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(project.volumes.keys().collect::<Vec<_>>(), ["used"]);
    let (_folder, loaded) = load(&[("compose.yaml", text)]);
    assert_eq!(loaded.project.unwrap().disabled_services["a"], ["p"]);
}

/// Files that are no Compose files end in one clear error, at once.
#[test]
fn hostile_files_are_refused_quickly() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::create_dir(path("folder.yaml")).unwrap();
    std::os::unix::fs::symlink("loop.yaml", path("loop.yaml")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        path("fifo.yaml"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    let mut bomb = String::from("x-0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
    for level in 1..12 {
        bomb += &format!("x-{level}: &a{level} [{}]\n", vec![format!("*a{}", level - 1); 10].join(","));
    }
    let services: String = (0..30_000).map(|index| format!("  s{index}: {{image: x}}\n")).collect();
    let texts: [(&str, &[u8], &str); 7] = [
        ("empty.yaml", b"", "empty compose file"),
        ("binary.yaml", b"services: \0\x01", "binary file"),
        ("utf8.yaml", b"a: \xff", "not text in UTF-8"),
        ("broken.yaml", b"services: {a: [}", "not valid YAML"),
        ("deep.yaml", &[b'['; 200], "levels deep"),
        ("bomb.yaml", bomb.as_bytes(), "more than 250000 values"),
        ("many.yaml", &[b"services:\n", services.as_bytes()].concat(), "more than 20000 services are refused"),
    ];
    let others = [
        ("missing.yaml", "no such file"),
        ("folder.yaml", "is a directory"),
        ("loop.yaml", "symbolic links"),
        ("fifo.yaml", "not a regular file"),
    ];
    for (name, bytes, _) in &texts {
        fs::write(path(name), bytes).unwrap();
    }
    for (name, message) in texts.iter().map(|(name, _, message)| (*name, *message)).chain(others) {
        let options = LoadOptions {
            working_dir: folder.path().to_owned(),
            files: vec![name.to_owned()],
            ..LoadOptions::default()
        };
        let started = Instant::now();
        let loaded = compose::load(&options, &BTreeMap::new());
        let found = errors(&loaded);
        assert!(found.iter().any(|error| error.message.contains(message)), "{name}: {:?}", loaded.diagnostics);
        assert!(started.elapsed() < Duration::from_secs(10), "{name} took {:?}", started.elapsed());
    }
}

/// A closing bracket may stand left of what it closes, as libyaml lets it.
#[test]
fn brackets_need_no_indentation() {
    let text = "services:\n  a:\n    image: x\n    command: [\n      one,\n  two\n    ]\n    imagee: y\n";
    let (_folder, loaded) = load(&[("compose.yaml", text)]);
    let place = errors(&loaded)[0].place.clone().unwrap();
    assert_eq!((place.line, place.column), (8, 5));
}
