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
