//! Steps that another machine has made: `cache_from` and `cache_to`.

use std::path::Path;
use std::process::Output;

use super::{cached, project};
use crate::registry::serve::Served;
use crate::support::Project;

const DOCKERFILE: &str = "FROM base AS one\nCOPY a /a\nRUN cat /a > /made; echo more >> /made\nFROM base\nWORKDIR /w\n\
    COPY --from=one /made /made\nRUN echo x > /x\n";

/// A project, the root of another machine that has the same base image, and a registry.
fn two_machines(build: &str) -> Option<(Project, tempfile::TempDir, Served)> {
    let served = Served::new();
    let build = build.replace("REGISTRY", &served.address.to_string());
    let compose =
        format!("services:\n  web:\n    image: {}/me/web:1\n    build: {{context: ., {build}}}\n", served.address);
    let project = project(&compose, DOCKERFILE)?;
    project.write("a", "first\n");
    let there = tempfile::tempdir().unwrap();
    project.give(there.path());
    let archive = project.root().with_file_name("base.img");
    let archive = archive.to_str().unwrap();
    project.run(&["image", "save", "base", "-o", archive]).ok();
    let loaded = on(&project, there.path(), &["image", "load", "-i", archive]);
    assert!(loaded.status.success());
    Some((project, there, served))
}

/// A command with another machine's root.
fn on(project: &Project, root: &Path, arguments: &[&str]) -> Output {
    project.command(arguments).env("RCOMPOSE_ROOT", root).output().unwrap()
}

fn build_on(project: &Project, root: &Path) -> String {
    let built = on(project, root, &["build"]);
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    String::from_utf8(built.stdout).unwrap()
}

fn ran(output: &str) -> usize {
    output.matches("/5] ").count() + output.matches("/4] ").count() + output.matches("/3] ").count()
        - output.matches("] FROM").count()
}

#[test]
fn an_image_brings_its_steps_to_another_machine() {
    let build = "cache_from: ['REGISTRY/me/web:1'], cache_to: [type=inline]";
    let Some((project, there, _served)) = two_machines(build) else { return };
    let first = project.run(&["build", "--push"]).ok();
    assert!(first.out.contains("the build goes on without this cache") && cached(&first.out) == 0, "{}", first.out);
    let second = build_on(&project, there.path());
    // What the image does not have, the stage it was copied from, is made again.
    assert_eq!((ran(&second), cached(&second)), (5, 3), "{second}");
    let id = |listed: &str| listed.lines().find(|line| line.contains("me/web")).unwrap().to_owned();
    let ids = ["image", "ls", "--format", "{{.Repository}} {{.ID}}"];
    let listed = String::from_utf8(on(&project, there.path(), &ids).stdout).unwrap();
    assert_eq!(id(&listed), id(&project.run(&ids).ok().out), "the same image");
    project.write("a", "second\n");
    assert_eq!(cached(&build_on(&project, there.path())), 1, "only what is not built on the change");
}

#[test]
fn a_cache_of_its_own_brings_all_steps() {
    for place in ["type=registry,ref=REGISTRY/me/cache", "type=local,src=../cache,dest=../cache,mode=max"] {
        let build = format!("cache_from: ['{place}'], cache_to: ['{place}']");
        let Some((project, there, _served)) = two_machines(&build) else { return };
        project.run(&["build"]).ok();
        let second = build_on(&project, there.path());
        assert_eq!((ran(&second), cached(&second)), (5, 5), "{place}: {second}");
        // They are in the cache of this machine now.
        let third = on(&project, there.path(), &["build", "--no-cache"]);
        assert_eq!(cached(&String::from_utf8(third.stdout).unwrap()), 0);
        let again = project.run(&["build"]).ok().out;
        assert_eq!(cached(&again), 5, "{again}");
    }
}

#[test]
fn a_cache_that_cannot_be_used_is_told_and_nothing_else() {
    let build = "cache_from: [type=gha, 'type=local,src=../cache', 'REGISTRY/me/none']";
    let Some((project, _there, _served)) = two_machines(build) else { return };
    let layout = project.root().with_file_name("cache");
    std::fs::create_dir(&layout).unwrap();
    project.give(&layout);
    let built = project.run(&["build"]).ok();
    assert!(built.err.contains("`type=gha` has no effect"), "{}", built.err);
    assert!(built.out.contains("has no `") && built.out.contains("no cache lies there"), "{}", built.out);
    std::fs::write(layout.join("index.json"), "{\"schemaVersion\": 2, \"manifests\": 5}").unwrap();
    assert!(project.run(&["build"]).ok().out.contains("index.json` of image archive"));
    project.write("compose.yaml", "services: {web: {build: {context: ., cache_to: ['type=local']}}}\n");
    assert!(project.run(&["build"]).fails(1).err.contains("lacks `dest=`"));
}

/// What is brought from elsewhere counts where that was named: otherwise who writes one project's cache would have written the
/// layers of all others that begin with the same steps. Nor does what was made on top of it.
#[test]
fn what_was_brought_is_for_builds_that_name_where_it_came_from() {
    let place = "cache_from: ['type=local,src=../cache'], cache_to: ['type=local,dest=../cache']";
    let Some((project, there, _served)) = two_machines(place) else { return };
    let steps = "FROM base\nRUN od -An -N16 -tx1 /dev/urandom > /made\n";
    let more = format!("{steps}RUN cat /made > /copy\n");
    let with = std::fs::read_to_string(project.folder().join("compose.yaml")).unwrap();
    let without = with.replace(place, "args: {}");
    let made = |root: &Path, file: &str| {
        let read = on(&project, root, &["run", "--rm", "-T", "web", "cat", file]);
        String::from_utf8(read.stdout).unwrap()
    };
    project.write("Dockerfile", steps);
    project.run(&["build"]).ok();
    let theirs = made(&project.root(), "/made");
    // Brought, and built upon.
    project.write("Dockerfile", &more);
    assert_eq!(cached(&build_on(&project, there.path())), 1);
    assert_eq!(made(there.path(), "/copy"), theirs, "the attack would not be seen to succeed");
    project.write("compose.yaml", &without);
    let own = build_on(&project, there.path());
    assert_eq!(cached(&own), 0, "{own}");
    let ours = made(there.path(), "/made");
    assert!(!ours.is_empty() && ours != theirs && made(there.path(), "/copy") == ours);
    assert_eq!(cached(&build_on(&project, there.path())), 2, "what is made here is kept as ever");
    on(&project, there.path(), &["down", "-v", "-t", "0"]);
    project.down();
}

#[test]
fn what_was_brought_is_there_when_its_place_is_gone() {
    let Some((project, there, _served)) =
        two_machines("cache_from: ['type=local,src=../cache'], cache_to: ['type=local,dest=../cache']")
    else {
        return;
    };
    project.write("Dockerfile", "FROM base\nRUN od -An -N16 -tx1 /dev/urandom > /made\nRUN cat /made > /copy\n");
    project.run(&["build"]).ok();
    assert_eq!(cached(&build_on(&project, there.path())), 2);
    let compose = std::fs::read_to_string(project.folder().join("compose.yaml")).unwrap();
    project.write("compose.yaml", &compose.replace(", cache_to: ['type=local,dest=../cache']", ""));
    std::fs::remove_dir_all(project.root().with_file_name("cache")).unwrap();
    let again = build_on(&project, there.path());
    assert_eq!(cached(&again), 2, "{again}");
}

/// What builds have downloaded is kept beside their steps, and told apart.
#[test]
fn room_that_downloads_take_is_told() {
    let project = Project::new("services: {}\n");
    for folder in ["images/build/steps", "images/build/downloads"] {
        let folder = project.root().join("data").join(folder);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("file"), vec![1; 100_000]).unwrap();
        folder.ancestors().take_while(|one| one.starts_with(project.root())).for_each(|one| project.give(one));
    }
    let rows = project.run(&["system", "df", "-v"]).ok().out;
    for name in ["build steps ", "downloads of builds "] {
        assert!(rows.lines().any(|row| row.starts_with(name)), "{rows}");
    }
}
