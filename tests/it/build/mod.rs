//! Images from Dockerfiles, as a person has them built.

mod bases;
mod cache;
mod commit;
pub(crate) mod remote;
mod rootless;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use rcompose::state::Roots;

use crate::support::{Project, can_run_containers};

const BUSYBOX: &str = "/bin/busybox";

/// A project whose store has the image `base`: busybox and its links.
pub(crate) fn project(compose: &str, dockerfile: &str) -> Option<Project> {
    if !can_run_containers("build") {
        return None;
    }
    if !Path::new(BUSYBOX).exists() {
        println!("skipped: no /bin/busybox");
        return None;
    }
    let project = Project::new(compose);
    project.write("Dockerfile", dockerfile);
    let root = project.root().with_file_name("base");
    for folder in ["bin", "etc", "tmp"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    crate::support::copy_program(BUSYBOX, root.join("bin/busybox"));
    for name in ["sh", "cat", "echo", "ls", "rm", "mkdir", "stat", "sleep", "env", "kill", "true", "false"] {
        symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    let archive = project.root().with_file_name("base.tar");
    let made = Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&archive).arg(".").status().unwrap();
    assert!(made.success());
    project.run(&["image", "import", archive.to_str().unwrap(), "base"]).ok();
    Some(project)
}

fn cached(output: &str) -> usize {
    output.matches(" CACHED").count()
}

#[test]
fn up_builds_what_is_missing_and_the_cache_knows_what_changed() {
    let compose = "services:\n  web:\n    build: .\n    command: sleep 100\n    stop_grace_period: 0s\n";
    let dockerfile =
        "FROM base\nRUN echo one > /one; rm /bin/env\nCOPY a /copied/\nRUN cat /copied/a > /two\nENV X=y\n";
    let Some(project) = project(compose, dockerfile) else { return };
    project.write("a", "first");
    let up = project.run(&["up", "-d"]).ok();
    assert!(up.out.contains("RUN echo one") && cached(&up.out) == 0, "{}", up.out);
    let seen = project.run(&["exec", "-T", "web", "sh", "-c", "cat /two; echo $X; ls /bin/env"]);
    assert_eq!(seen.out, "firsty\n", "{}", seen.err);
    // It is there now.
    assert!(!project.run(&["up", "-d"]).ok().out.contains("FROM base"));
    let again = project.run(&["build"]).ok();
    assert_eq!(cached(&again.out), 3, "{}", again.out);
    project.write("a", "second");
    let hint = project.run(&["up", "-d"]).ok().err;
    assert!(hint.contains("web: context changed since the image was built (1 file)"), "{hint}");
    let changed = project.run(&["up", "-d", "--build"]).ok();
    assert_eq!(cached(&changed.out), 1, "{}", changed.out);
    assert_eq!(project.run(&["exec", "-T", "web", "cat", "/two"]).out, "second");
    project.run(&["down", "-t", "0"]).ok();
    project.run(&["image", "rm", &format!("{}-web", project.name)]).ok();
    assert_eq!(cached(&project.run(&["build"]).ok().out), 3, "the cache keeps the layers of images that are gone");
    project.down();
}

#[test]
fn what_an_image_does_on_build_may_need_a_stage_that_nothing_else_needs() {
    let compose = "services:\n  parent: {build: {context: ., dockerfile: parent}, image: 'on/build:1'}\n  \
        child: {build: {context: ., dockerfile: child}, command: cat /out}\n";
    let Some(project) = project(compose, "") else { return };
    project.write("parent", "FROM base\nONBUILD COPY --from=given /s /copied\nONBUILD RUN cat /copied > /out\n");
    project.write("child", "FROM base AS other\nRUN echo s > /s\nFROM other AS given\nFROM on/build:1\n");
    project.run(&["build", "parent"]).ok();
    assert!(project.run(&["run", "--rm", "-T", "child"]).ok().out.ends_with("s\n"));
    project.down();
}

#[test]
fn files_that_changed_are_counted() {
    let compose = "services:\n  web: {build: ., command: sleep 100, stop_grace_period: 0s}\n";
    let Some(project) = project(compose, "FROM base\nCOPY src /src\n") else { return };
    fs::create_dir(project.folder().join("src")).unwrap();
    for name in ["changed", "removed", "kept", "left.log"] {
        project.write(&format!("src/{name}"), "first");
    }
    project.write(".dockerignore", "**/*.log\n");
    project.run(&["up", "-d"]).ok();
    let hint = || project.run(&["up", "-d"]).ok().err;
    assert!(!hint().contains("context changed"), "{}", hint());
    project.write("src/changed", "another");
    project.write("src/added", "");
    fs::remove_file(project.folder().join("src/removed")).unwrap();
    project.write("src/left.log", "not copied");
    project.write("beside", "not copied");
    assert!(hint().contains("web: context changed since the image was built (3 files); use --build"), "{}", hint());
    project.run(&["up", "-d", "--build"]).ok();
    assert!(!hint().contains("context changed"), "{}", hint());
    project.down();
}

#[test]
fn the_cache_keeps_to_its_budget_and_gives_up_what_was_not_used_for_longest() {
    let step = |name: &str| format!("FROM base\nRUN cat /bin/busybox > /{name}; echo {name} >> /{name}\n");
    let Some(project) = project("services:\n  web: {build: .}\n", "") else { return };
    let build = |name: &str| {
        project.write("Dockerfile", &step(name));
        cached(&project.run(&["build"]).ok().out)
    };
    let layer = fs::metadata(BUSYBOX).unwrap().len();
    assert_eq!([build("one"), build("two"), build("three"), build("one")], [0, 0, 0, 1]);
    let store = rcompose::image::Store::open(&project.root().join("data")).unwrap();
    let prune = |budget| store.prune_steps(budget).unwrap();
    // Only what no image has counts: two layers, now that `one` is the image. There is room for one of them.
    project.run(&["image", "prune", "-f"]).ok();
    prune(3 * layer);
    prune(layer * 3 / 2);
    assert_eq!(build("three"), 1);
    assert_eq!(build("one"), 1);
    assert_eq!(build("two"), 0, "it was not used for longest");
    project.run(&["image", "rm", &format!("{}-web", project.name)]).ok();
    project.run(&["image", "prune", "-f"]).ok();
    prune(0);
    assert_eq!([build("one"), build("two"), build("three")], [0, 0, 0]);
}

#[test]
fn a_failed_step_says_where_and_why_and_leaves_nothing_behind() {
    let compose = "services:\n  web:\n    build: .\n";
    let Some(project) = project(compose, "FROM base\nRUN echo good > /x\nRUN echo trouble; false\n") else { return };
    let failed = project.run(&["build"]).fails(1);
    for part in ["exit status 1", "| trouble", "Dockerfile:3", "> 3 | RUN echo trouble; false"] {
        assert!(failed.err.contains(part), "{part}: {}", failed.err);
    }
    let again = project.run(&["build"]).fails(1);
    assert_eq!(cached(&again.out), 1, "what came before it was kept: {}", again.out);
    project.write("Dockerfile", "FROM base\nRUNN x\n");
    let wrong = project.run(&["build"]).fails(1).err;
    assert!(wrong.contains("Dockerfile:2") && wrong.contains("did you mean `RUN`?"), "{wrong}");
    assert!(project.run(&["build", "--check"]).fails(1).err.contains("Dockerfile:2"));
    let left = fs::read_dir(project.root().join("data/images/tmp")).unwrap().count();
    assert_eq!(left, 0, "unfinished work");
}

#[test]
fn the_same_inputs_give_the_same_image() {
    let compose = "services:\n  web:\n    build: .\n";
    let dockerfile = "FROM base\nWORKDIR /w\nRUN echo x > f; mkdir d\nCOPY Dockerfile .\n";
    let Some(project) = project(compose, dockerfile) else { return };
    let build = |epoch: Option<&str>| {
        let mut command = project.command(&["build", "--no-cache"]);
        if let Some(epoch) = epoch {
            command.env("SOURCE_DATE_EPOCH", epoch);
        }
        assert!(command.output().unwrap().status.success());
        let listed = project.run(&["image", "ls", "--format", "json"]).ok().out;
        let images: Vec<serde_json::Value> = listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let name = format!("{}-web", project.name);
        images.iter().find(|image| image["Repository"] == name.as_str()).unwrap()["ID"].as_str().unwrap().to_owned()
    };
    let first = build(Some("1000000000"));
    assert_eq!(build(Some("1000000000")), first);
    assert_ne!(build(Some("1000000001")), first);
    assert_ne!(build(None), build(None), "without it, images tell when they were made");
}

#[test]
fn checks_are_told_in_builds_and_alone_and_can_fail_them() {
    let Some(project) = project("services: {web: {build: .}}", "FROM base AS Base\nWORKDIR x\nUSER $NOBODY\n") else {
        return;
    };
    let rules = ["StageNameCasing", "WorkdirRelativePath", "UndefinedVar"];
    let built = project.run(&["build"]).ok().out;
    let checked = project.run(&["build", "--check"]).fails(1).err;
    assert!(rules.iter().all(|rule| built.contains(rule) && checked.contains(rule)), "{built}{checked}");
    assert!(checked.contains("Dockerfile:2: WorkdirRelativePath: Relative workdir \"x\""), "{checked}");
    project.write("Dockerfile", "# check=error=true;skip=UndefinedVar\nFROM base AS Base\nUSER $NOBODY\n");
    for command in [&["build"][..], &["build", "--check"]] {
        let failed = project.run(command).fails(1);
        assert!(failed.err.contains("breaks the rules StageNameCasing"), "{}", failed.err);
        assert!(format!("{}{}", failed.out, failed.err).contains("Dockerfile:2: StageNameCasing: Stage name"));
    }
    project.write("Dockerfile", "# check=skip=all\nFROM base AS Base\nUSER $NOBODY\n");
    assert_eq!(project.run(&["build", "--check"]).ok().err, "");
    project.write("Dockerfile", "# check=nothing\nFROM base\n");
    assert!(project.run(&["build"]).fails(1).err.contains("none of `skip`, `error`, `experimental`"));
    project.write("Dockerfile", "FROM base AS scratch\nRUN echo x > /x\nFROM scratch\nCOPY --from=scratch /x /y\n");
    assert!(project.run(&["build"]).ok().out.contains("ReservedStageName"));
}

#[test]
fn images_and_their_history_are_shown_as_asked() {
    let Some(project) = project("services: {web: {build: .}}", "FROM base\nRUN echo x > /x\nENV A=b\n") else { return };
    let name = format!("{}-web:latest", project.name);
    project.run(&["build"]).ok();
    let out = |arguments: &[&str]| project.run(arguments).ok().out;
    let id = out(&["image", "inspect", "-f", "{{.Id}}", &name]);
    assert!(id.starts_with("sha256:") && id.len() == 72, "{id}");
    let short = id.get(7..19).unwrap();
    let inspected = out(&["image", "inspect", &name]);
    assert!(inspected.starts_with("[\n    {\n        \"Id\": \"sha256:"), "{inspected}");
    let unset = "{{json .Config.Healthcheck}} {{json .Config.ExposedPorts}} {{.Config.StopSignal}}";
    assert_eq!(out(&["image", "inspect", "-f", unset, &name]), "null null \n");
    let lines = |text: String| text.lines().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(lines(out(&["image", "history", "-q", &name])), [short, "<missing>", "<missing>"]);
    assert_eq!(lines(out(&["image", "history", "-q", "--no-trunc", &name]))[0], id.trim());
    let format = "table {{.ID}}\t{{.CreatedBy}}\t{{.Size}}";
    let history = lines(out(&["image", "history", "-H=false", "--format", format, &name]));
    assert_eq!(history[0], "IMAGE          CREATED BY                              SIZE");
    assert_eq!(history[2], "<missing>      RUN /bin/sh -c echo x > /x # buildkit   2");
    let one: serde_json::Value =
        serde_json::from_str(&lines(out(&["image", "history", "--format", "json", &name]))[0]).unwrap();
    assert_eq!((&one["CreatedBy"], &one["Size"], &one["ID"]), (&"ENV A=b".into(), &"0B".into(), &short.into()));
    let listed = out(&["--dry-run", "image", "ls", "--format", "{{.Repository}}:{{.Tag}} {{.ID}} {{.Digest}}"]);
    assert!(listed.contains(&format!("{name} {short} <none>\n")), "{listed}");
    assert!(out(&["image", "ls", "--no-trunc", "--format", "table {{.ID}}"]).starts_with("IMAGE ID\n"));
    let names = |arguments: &[&str]| {
        let format = ["image", "ls", "--format", "{{.Repository}}:{{.Tag}}"];
        lines(out(&[&format[..], arguments].concat()))
    };
    let repository = format!("{}-web", project.name);
    for found in
        [&[repository.as_str()][..], &[name.as_str()], &["*-web"], &["-f", &format!("reference={repository}:lat*")]]
    {
        assert_eq!(names(found), [name.as_str()], "{found:?}");
    }
    assert_eq!(names(&["*"])[0], name, "the newest stands first");
    for none in [&["nosuch"][..], &["*-web:1"], &["-f", "dangling=true", "*-web"], &["-f", "label=a=b"]] {
        assert!(names(none).is_empty(), "{none:?}");
    }
    project.run(&["image", "ls", "-f", "nonsense=1"]).fails(1);
    assert!(out(&["image", "ls", "--digests"]).lines().next().unwrap().contains("   DIGEST   "));
    let some = project.run(&["image", "inspect", "-f", "{{.Os}}", "nosuch", &name]).fails(1);
    assert!(some.out == "linux\n" && some.err.contains("`nosuch` is not in the store"), "{}", some.err);
    project.run(&["image", "tag", &name, "other:1"]).ok();
    let removed = project.run(&["image", "rm", "nosuch", "other:1"]).fails(1);
    assert_eq!(removed.out, "Untagged: other:1\n");
    project.run(&["image", "rm", "-f", "nosuch"]).ok();
    assert_eq!(project.run(&["build", "-q"]).ok().err, "");
    let serve = out(&["--dry-run", "registry", "serve", "--addr", "127.0.0.1:0"]);
    assert!(serve.starts_with("would be a registry on 127.0.0.1:"), "{serve}");
    let wrong = project.run(&["image", "ls", "--format", "{{.Nothing}}"]).fails(1).err;
    assert!(wrong.contains("there is no field `.Nothing`"), "{wrong}");
}

#[test]
fn services_are_built_from_each_other() {
    let compose = "services:\n  app:\n    build:\n      context: .\n      dockerfile_inline: |\n        FROM lib\n        \
        COPY --from=more f /g\n        RUN --mount=type=secret,id=s cat /f /g /run/secrets/s > /all\n      \
        additional_contexts: {lib: 'service:lib', more: ./more}\n      secrets: [s]\n    command: cat /all\n  \
        lib:\n    build: {context: ., args: {V: given}, target: lib}\nsecrets:\n  s: {file: ./secret}\n";
    let dockerfile = "FROM base AS lib\nARG V\nRUN echo $V > /f\nFROM lib\nRUN false\n";
    let Some(project) = project(compose, dockerfile) else { return };
    fs::create_dir(project.folder().join("more")).unwrap();
    project.write("more/f", "more\n");
    project.write("secret", "hidden\n");
    let seen = project.run(&["run", "--rm", "-T", "app"]).ok();
    assert!(seen.out.ends_with("given\nmore\nhidden\n"), "{}", seen.out);
    project.down();
}

#[test]
fn a_build_that_is_killed_leaves_no_process_and_a_store_that_works() {
    let compose = "services:\n  web:\n    build: .\n";
    let Some(project) = project(compose, "FROM base\nRUN echo started; sleep 4321\n") else { return };
    let mut child = project.spawn(&["build"]);
    let mut output = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("started") || line.contains("RUN") {
        line.clear();
        assert!(std::io::BufRead::read_line(&mut output, &mut line).unwrap() > 0);
    }
    let groups = Roots { data: project.root().join("data"), run: project.root().join("run") }.cgroup_name();
    let no_groups =
        || Command::new("find").args(["/sys/fs/cgroup", "-name", &groups]).output().unwrap().stdout.is_empty();
    assert!(!no_groups() || !project.is_roots(), "root's builds have control groups");
    child.kill().unwrap();
    child.wait().unwrap();
    crate::support::eventually("the step ends", || {
        let running =
            fs::read_dir("/proc").unwrap().filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok());
        let left =
            running.filter(|line| line.windows(10).any(|part| part == b"sleep\x004321" || part == b"sleep 4321"));
        (left.count() == 0).then_some(())
    });
    crate::support::eventually("its control groups and its network go", || {
        // An ordinary user's builds have the machine's network.
        let networks = fs::read_dir(project.root().join("data/networks")).into_iter().flatten();
        let records =
            networks.filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|one| one == "json"));
        (no_groups() && records.count() == 0).then_some(())
    });
    project.write("Dockerfile", "FROM base\nRUN true\n");
    project.run(&["build"]).ok();
    crate::support::eventually("its control groups go, too", || no_groups().then_some(()));
}

#[test]
fn down_removes_images_when_it_is_asked_to() {
    let compose = "services:\n  own: {build: ., command: sleep 100, stop_grace_period: 0s}\n  \
        named: {build: ., image: 'team/named:1', command: sleep 100, stop_grace_period: 0s}\n";
    let Some(project) = project(compose, "FROM base\n") else { return };
    let images = || project.run(&["image", "ls"]).ok().out;
    let own = format!("{}-own", project.name);
    project.run(&["up", "-d"]).ok();
    let dry = project.run(&["--dry-run", "down", "--rmi", "local"]).ok();
    assert!(images().contains(&own), "{}", dry.err);
    let down = project.run(&["down", "--rmi", "local"]).ok().err;
    assert!(down.contains(&format!("Image {own}  Removed")), "{down}");
    assert!(!images().contains(&own) && !images().contains("team/named"), "what was built here: {}", images());
    project.run(&["up", "-d"]).ok();
    let other = project.beside("services:\n  x: {image: 'team/named:1', command: sleep 100, stop_grace_period: 0s}\n");
    other.run(&["up", "-d"]).ok();
    let down = project.run(&["down", "--rmi", "all"]).ok().err;
    assert!(down.contains("Image team/named:1  Resource is still in use"), "{down}");
    other.run(&["down", "--rmi", "all"]).ok();
    assert!(!images().contains("team/named") && images().contains("base"), "{}", images());
    crate::support::eventually("the end of its supervisor", || other.role("supervisor").is_empty().then_some(()));
    drop(other);
    assert!(project.run(&["down", "--rmi", "all"]).ok().err.contains("no resource found"));
    assert!(project.run(&["down", "--rmi", "some"]).fails(1).err.contains("`local` or `all`"));
    project.down();
}
