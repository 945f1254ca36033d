//! What images begin with: from a registry of our own, pulled once or always; and images that go there.

use rcompose::image::Reference;
use serde_json::Value;

use super::project;
use crate::registry::serve::Served;

#[test]
fn what_is_missing_is_pulled_and_what_is_here_only_when_it_is_asked_for() {
    let served = Served::new();
    let name = format!("{}/team/base:1", served.address);
    let compose = |more: &str| format!("services:\n  web:\n    build: {{context: .{more}}}\n    command: cat /said\n");
    let dockerfile =
        format!("FROM {name} AS one\nRUN cat /etc/who > /said\nFROM {name}\nCOPY --from=one /said /said\n");
    let Some(project) = project(&compose(""), &dockerfile) else { return };
    let push = |who: &str| {
        let made = format!(
            "services:\n  base:\n    image: {name}\n    build:\n      context: .\n      dockerfile_inline: |\n        \
            FROM base\n        RUN mkdir -p /etc; echo {who} > /etc/who\n"
        );
        project.write("base.yaml", &made);
        project.run(&["-f", "base.yaml", "build", "--push"]).ok();
        project.run(&["image", "rm", &name]).ok();
    };
    let said = |args: &[&str]| {
        let built = project.run(args).ok();
        (built.out.matches(&format!("pulling {name}")).count(), project.run(&["run", "--rm", "-T", "web"]).ok().out)
    };
    push("first");
    assert_eq!(said(&["build"]), (1, "first\n".to_owned()), "both stages begin with one pull");
    push("second");
    project.run(&["image", "pull", &name]).ok();
    push("third");
    project.run(&["image", "pull", &name]).ok();
    push("fourth");
    assert_eq!(said(&["build"]), (1, "fourth\n".to_owned()), "it was removed, so it is pulled");
    project.run(&["image", "tag", "base", "other/keep"]).ok();
    let kept = project.run(&["image", "inspect", &name]).ok().out;
    push("fifth");
    let id = serde_json::from_str::<Value>(&kept).unwrap()[0]["Id"].as_str().unwrap().to_owned();
    project.run(&["image", "tag", &id, &name]).ok();
    assert_eq!(said(&["build"]), (0, "fourth\n".to_owned()), "what is here is taken");
    project.write("compose.yaml", &compose(", pull: true"));
    assert_eq!(said(&["build"]), (1, "fifth\n".to_owned()), "`build.pull`");
    project.run(&["image", "tag", &id, &name]).ok();
    project.write("compose.yaml", &compose(""));
    assert_eq!(said(&["build", "--pull"]), (1, "fifth\n".to_owned()));
    project.down();
}

#[test]
fn a_base_that_no_registry_has_is_named_with_its_line_and_the_services() {
    let served = Served::new();
    let name = format!("{}/not/there:1", served.address);
    let Some(project) = project("services:\n  web:\n    build: .\n", &format!("FROM {name}\n")) else { return };
    let error = project.run(&["build"]).fails(1).err;
    for part in ["compose.yaml:3:", "service `web`", &name, "Dockerfile:1", "> 1 | FROM", "has no", "check the name"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    project.write("compose.yaml", "services:\n  web:\n    build: {context: ., pull: true}\n");
    project.write("Dockerfile", "FROM base\n");
    // `base` is here, but a registry has to be asked, and docker.io is not one that tests talk to.
    let refused = project
        .command(&["build"])
        .env("RCOMPOSE_REGISTRY_MIRRORS", "http://127.0.0.1:1")
        .env("HTTPS_PROXY", "http://127.0.0.1:1")
        .output()
        .unwrap();
    assert!(!refused.status.success(), "`pull` was ignored");
}

#[test]
fn pushed_are_images_with_a_name_of_their_own() {
    let served = Served::new();
    let name = format!("{}/team/app:1", served.address);
    let compose = format!(
        "services:\n  web:\n    image: {name}\n    build: {{context: ., tags: ['{}/team/extra:2']}}\n  own:\n    build: .\n",
        served.address
    );
    let Some(project) = project(&compose, "FROM base\nRUN echo x > /x\n") else { return };
    project.run(&["build", "--push"]).ok();
    let there = |name: &str| served.shelf_has(&Reference::parse(name).unwrap());
    assert!(there(&name) && there(&format!("{}/team/extra:2", served.address)));
    assert!(!served.has_repository(&format!("library/{}-own", project.name)));
}

#[test]
fn the_bake_file_says_what_would_be_built() {
    let compose = "services:\n  web:\n    image: team/web:1\n    build:\n      context: .\n      args: {A: '1'}\n      pull: true\n      \
        additional_contexts: {lib: 'service:lib'}\n  lib:\n    build: {context: ., dockerfile_inline: FROM base}\n";
    let Some(project) = project(compose, "FROM base\n") else { return };
    let printed = project.run(&["build", "--print", "--push"]).ok();
    let bake: Value = serde_json::from_str(&printed.out).unwrap();
    assert_eq!(bake["group"]["default"]["targets"], serde_json::json!(["lib", "web"]));
    let web = &bake["target"]["web"];
    let folder = project.folder().to_string_lossy().into_owned();
    assert_eq!(web["context"], folder.as_str());
    assert_eq!(web["dockerfile"], format!("{folder}/Dockerfile"));
    assert_eq!(web["contexts"]["lib"], "target:lib");
    assert_eq!((&web["args"]["A"], &web["pull"]), (&"1".into(), &true.into()));
    assert_eq!(web["tags"], serde_json::json!(["team/web:1"]));
    assert_eq!(web["output"], serde_json::json!(["type=image,push=true"]));
    assert_eq!(bake["target"]["lib"]["dockerfile-inline"], "FROM base");
    assert_eq!(bake["target"]["lib"]["output"], serde_json::json!(["type=docker"]));
    assert!(project.run(&["image", "ls", "-q"]).ok().out.lines().count() == 1, "nothing was built");
    let dry = project.run(&["--dry-run", "build"]).ok().out;
    assert_eq!(dry, "build the image of service lib\nbuild the image of service web\n");
    for flag in ["--sbom=true", "--provenance=mode=max"] {
        assert!(project.run(&["build", flag]).fails(1).err.contains("attestations"));
    }
    assert!(project.run(&["build", "--builder", "far", "--print"]).ok().err.contains("`--builder far` has no effect"));
}
