//! Compose projects in git repositories and registries, as the program loads them.

use std::fs;
use std::path::Path;

use rcompose::image::Digest;
use serde_json::{Value, json};

use crate::build::remote::{Daemon, git, no_git};
use crate::registry::serve::Served;
use crate::support::{Project, Ran};

const COMPOSE_FILE: &str = "application/vnd.docker.compose.file+yaml";

/// A repository with a project in its root at `v1`, another one in `sub` on `main`, and links that lead out of it.
fn repository(above: &Path) {
    let path = above.join("repo.git");
    fs::create_dir_all(path.join("sub")).unwrap();
    let root = "services:\n  web:\n    image: busybox\n    env_file: web.env\n    volumes: [./data:/data]\n";
    let sub = "include: [../inc.yaml]\nservices:\n  sub:\n    extends: {file: ../compose.yaml, service: web}\n    \
               environment: {B: '${B:-2}'}\n    build: .\n";
    fs::write(path.join("compose.yaml"), root).unwrap();
    fs::write(path.join("web.env"), "A=1\n").unwrap();
    fs::write(path.join("inc.yaml"), "services: {inc: {image: busybox}}\n").unwrap();
    git(&path, &["init", "--quiet", "-b", "main"]);
    git(&path, &["add", "."]);
    git(&path, &["commit", "--quiet", "-m", "one"]);
    git(&path, &["tag", "-a", "v1", "-m", "annotated"]);
    fs::write(path.join("sub/compose.yml"), sub).unwrap();
    fs::write(path.join("wrong.yaml"), "services:\n  web:\n    imag: x\n").unwrap();
    std::os::unix::fs::symlink("/etc", path.join("out")).unwrap();
    git(&path, &["add", "."]);
    git(&path, &["commit", "--quiet", "-m", "two"]);
}

#[test]
fn a_repository_is_a_project_an_include_and_something_to_extend() {
    if no_git() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    repository(folder.path());
    let daemon = Daemon::new(folder.path());
    let url = format!("git://127.0.0.1:{}/repo.git", daemon.port);
    let project = Project::new("services: {}\n");
    let config = |arguments: &[&str]| {
        let output = project.run(&[arguments, &["config", "--format", "json"]].concat()).ok().out;
        serde_json::from_str::<Value>(&output).unwrap()
    };
    let first = config(&["-f", &format!("{url}#v1")]);
    let web = &first["services"]["web"];
    let source = web["volumes"][0]["source"].as_str().unwrap();
    let kept = project.root().join("data/projects-fetched");
    assert!(source.starts_with(kept.to_str().unwrap()) && source.ends_with("/data"), "{source}");
    assert_eq!(web["environment"]["A"], "1");
    // As the reference does: the name is that of the folder here, and what stands beside starts from the repository.
    project.write("beside.yaml", "services: {sub: {volumes: ['./x:/x']}}\n");
    let both = config(&["-f", "beside.yaml", "-f", &format!("{url}#main:sub")]);
    assert_eq!(both["name"], project.name.as_str());
    let sub = &both["services"]["sub"];
    assert_eq!((&sub["environment"]["A"], &sub["environment"]["B"]), (&json!("1"), &json!("2")));
    assert!(sub["volumes"][0]["source"].as_str().unwrap().ends_with("/sub/x"), "{sub}");
    assert!(both["services"]["inc"].is_object());
    project.write(
        "compose.yaml",
        &format!("include: ['{url}#main:sub']\nservices: {{a: {{extends: {{file: '{url}#v1', service: web}}}}}}\n"),
    );
    let included = config(&[]);
    let names: Vec<_> = included["services"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["a", "inc", "sub"]);
    assert_eq!(fs::read_dir(&kept).unwrap().count(), 2, "one folder per commit");
    for (reference, part) in [
        ("#nothing", "no branch, tag or commit `nothing`"),
        ("#main:gone", "has no `gone`"),
        ("#main:../x", "path traversal"),
        ("#main:out", "has no `out`"),
        ("#main:out/passwd", "has no `out/passwd`"),
        ("#main:wrong.yaml", "wrong.yaml:3:5"),
    ] {
        let error = project.run(&["-f", &format!("{url}{reference}"), "config"]).fails(1).err;
        assert!(error.contains(part), "{part}: {error}");
    }
    project.write("compose.yaml", &format!("include:\n  - '{url}#main:wrong.yaml'\n"));
    let error = project.run(&["config"]).fails(1).err;
    assert!(error.contains("wrong.yaml:3:5") && error.contains("compose.yaml:2:5"), "{error}");
    let off = project.command(&["-f", &url, "config"]).env("COMPOSE_EXPERIMENTAL_GIT_REMOTE", "false").output();
    assert!(Ran::from(off.unwrap()).fails(1).err.contains("disabled by"));
    drop(daemon);
    assert!(project.run(&["-f", &url, "config"]).fails(1).err.contains("git cannot read"));
    // A commit that is here needs nobody.
    let commit = git(&folder.path().join("repo.git"), &["rev-parse", "main"]);
    config(&["-f", &format!("{url}#{commit}:sub")]);
}

#[test]
fn what_lies_elsewhere_is_run_only_after_a_question() {
    if no_git() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    repository(folder.path());
    let daemon = Daemon::new(folder.path());
    let url = format!("git://127.0.0.1:{}/repo.git#main:sub", daemon.port);
    let project = Project::new("services: {}\n");
    // Standard input is empty.
    for command in [&["up", "-d"][..], &["run", "--rm", "-T", "sub"], &["create"]] {
        let refused = project.run(&[&["-f", url.as_str()], command].concat()).fails(1).err;
        for part in ["is stored in", "B          2       compose file   no         2", "cancelled by user"] {
            assert!(refused.contains(part), "{part}: {refused}");
        }
    }
    assert!(!project.root().join("data/projects").join(&project.name).exists());
}

/// Media type, annotations, content.
type File<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);

/// Pushes a Compose project with these files.
fn publish(served: &Served, tag: &str, artifact_type: &str, files: &[File<'_>]) {
    let layers: Vec<_> = files
        .iter()
        .map(|(media_type, annotations, content)| {
            let annotations: serde_json::Map<_, _> =
                annotations.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
            let digest = served.push_blob("team/app", content.as_bytes());
            json!({ "mediaType": media_type, "digest": digest, "size": content.len(), "annotations": annotations })
        })
        .collect();
    served.push_blob("team/app", b"{}");
    let config = json!({ "mediaType": "application/vnd.oci.empty.v1+json", "digest": Digest::of(b"{}"), "size": 2 });
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": artifact_type, "config": config, "layers": layers,
    });
    served.push_manifest("team/app", tag, manifest.to_string().as_bytes());
}

#[test]
fn an_artifact_is_a_project() {
    let served = Served::new();
    let project = Project::new("services: {}\n");
    let name = |tag: &str| format!("oci://{}/team/app:{tag}", served.address);
    let kind = "application/vnd.docker.compose.project";
    let file = "com.docker.compose.file";
    let files: [File<'_>; 4] = [
        (COMPOSE_FILE, &[(file, "compose.yaml")], "services:\n  web: {image: busybox, env_file: abc.env}\n"),
        (COMPOSE_FILE, &[(file, "over.yaml")], "services:\n  web: {extends: {file: d.yaml, service: b}}\n"),
        (COMPOSE_FILE, &[(file, "d.yaml"), ("com.docker.compose.extends", "true")], "services: {b: {hostname: h}}\n"),
        ("application/vnd.docker.compose.envfile", &[("com.docker.compose.envfile", "abc.env")], "A=1\n"),
    ];
    publish(&served, "1", kind, &files);
    let output = project.run(&["-f", &name("1"), "config", "--format", "json"]).ok().out;
    let web = &serde_json::from_str::<Value>(&output).unwrap()["services"]["web"];
    assert_eq!((&web["hostname"], &web["environment"]["A"]), (&json!("h"), &json!("1")));
    publish(&served, "other", "application/x", &files);
    let bad = [("application/vnd.docker.compose.envfile", &[("com.docker.compose.envfile", "../x")][..], "A=1\n")];
    publish(&served, "bad", kind, &bad);
    publish(&served, "none", kind, &[]);
    for (tag, part) in [
        ("other", "no Compose project but `application/x`"),
        ("bad", "a file of the artifact is called `../x`"),
        ("none", "has no Compose file"),
        ("gone", "has no `"),
    ] {
        let error = project.run(&["-f", &name(tag), "config"]).fails(1).err;
        assert!(error.contains(part) && error.contains("cannot load `oci://"), "{tag}: {error}");
    }
    let left = fs::read_dir(project.root().join("data/projects-fetched")).unwrap().count();
    assert_eq!(left, 2, "of what is refused nothing is kept");
}

#[test]
fn what_is_published_is_the_same_project_elsewhere() {
    let served = Served::new();
    let name = format!("{}/team/published:1", served.address);
    let compose = "# a comment\nservices:\n  web:\n    image: busybox\n    command: echo ${WORD:-hi}\n    env_file:\n      \
                   - path: 'web.env'\n      - {path: gone.env, required: false}\n  more:\n    extends:\n      file: \
                   sub/base.yaml\n      service: base\n";
    let project = Project::new(compose);
    fs::create_dir(project.folder().join("sub")).unwrap();
    project.write("web.env", "A=1\n");
    project.write("sub/base.yaml", "services: {base: {extends: {file: deep.yaml, service: deep}, image: busybox}}\n");
    project.write("sub/deep.yaml", "services: {deep: {image: none, command: cat /x, env_file: deep.env}}\n");
    project.write("sub/deep.env", "DEEP=2\n");
    project.write("over.yaml", "services: {web: {labels: {a: b}}}\n");
    let files = ["-f", "compose.yaml", "-f", "over.yaml"];
    let publish = |more: &[&str]| project.run(&[&files[..], &["publish", &name], more].concat());
    let refused = publish(&[]).fails(1).err;
    assert!(refused.contains("service `more`, service `web` has") && refused.contains("--with-env"), "{refused}");
    let dry = project.run(&[&["--dry-run"], &files[..], &["publish", "--with-env", &name]].concat()).ok().out;
    assert_eq!(dry.lines().count(), 6, "{dry}");
    assert!(!served.has_repository("team/published"));
    publish(&["--with-env", "-y"]).ok();
    let address = format!("oci://{name}");
    let config = |files: &[&str]| {
        let output = project.run(&[files, &["config", "--format", "json"]].concat()).ok().out;
        let mut value: Value = serde_json::from_str(&output).unwrap();
        value.as_object_mut().unwrap().remove("name");
        value
    };
    assert_eq!(config(&["-f", &address]), config(&files));
    let text = served.layer("team/published", "1", 0);
    assert!(text.starts_with("# a comment\n") && text.contains("${WORD:-hi}"), "{text}");
    // What cannot be published.
    for (compose, part) in [
        ("include: [sub/deep.yaml]\nservices: {a: {image: x}}\n", "`include`"),
        ("services: {a: {build: .}}\n", "only `build`"),
        ("services: {a: {image: x, env_file: '${X:-web}.env'}}\n", "another one elsewhere"),
        ("services: {a: {image: x, volumes: ['./sub:/x']}}\n", "cancelled"),
    ] {
        project.write("compose.yaml", compose);
        let failed = project.run(&["publish", "--with-env", &name]).fails(1).err;
        assert!(failed.contains(part), "{part}: {failed}");
    }
}
