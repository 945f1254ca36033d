//! What `down`, `stop`, `restart`, `kill` and `rm` do to what exists.

use std::time::Duration;

use expect_test::{Expect, expect};
use rcompose::plan::{Change, ChangeKind, Orphans, plan};

use super::world::{World, down, names, project, text};

const CHAIN: &str = "
services:
  db: {image: db, volumes: ['data:/data'], stop_signal: SIGINT, stop_grace_period: 3s}
  web: {image: app, depends_on: {db: {condition: service_started, restart: true}}}
  far: {image: app, depends_on: [web], scale: 2}
volumes: {data: {}}
";

#[track_caller]
fn check(mut world: World, change: ChangeKind, expected: Expect) {
    expected.assert_eq(&world.text(change.clone()));
    world.make(change);
}

#[test]
fn down_stops_dependents_first_and_keeps_volumes() {
    check(
        World::after_up(CHAIN),
        down(Some(CHAIN), &[], false),
        expect![[r#"
        0 stop container p-far-1: asked for
        1 stop container p-far-2: asked for
        2 stop container p-web-1: asked for after 0,1
        3 stop container p-db-1: asked for after 2
        4 remove container p-db-1 needs 3
        5 remove container p-web-1 needs 2
        6 remove container p-far-1 needs 0
        7 remove container p-far-2 needs 1
        8 remove network p_default: asked for needs 4,5,6,7
    "#]],
    );
}

#[test]
fn down_with_volumes() {
    check(
        World::after_up(CHAIN),
        down(Some(CHAIN), &[], true),
        expect![[r#"
        0 stop container p-far-1: asked for
        1 stop container p-far-2: asked for
        2 stop container p-web-1: asked for after 0,1
        3 stop container p-db-1: asked for after 2
        4 remove container p-db-1 needs 3
        5 remove container p-web-1 needs 2
        6 remove container p-far-1 needs 0
        7 remove container p-far-2 needs 1
        8 remove network p_default: asked for needs 4,5,6,7
        9 remove volume p_data: asked for needs 4,5,6,7
    "#]],
    );
}

#[test]
fn down_without_a_file_goes_by_what_exists() {
    let mut world = World::after_up(CHAIN);
    world.make(ChangeKind::Stop { services: Vec::new(), timeout: None });
    check(
        world.clone(),
        down(None, &[], true),
        expect![[r#"
            0 remove container p-db-1: asked for
            1 remove container p-web-1: asked for
            2 remove container p-far-1: asked for
            3 remove container p-far-2: asked for
            4 remove network p_default: asked for needs 0,1,2,3
            5 remove volume p_data: asked for needs 0,1,2,3
        "#]],
    );
    check(
        world,
        down(None, &[], false),
        expect![[r#"
            0 remove container p-db-1: asked for
            1 remove container p-web-1: asked for
            2 remove container p-far-1: asked for
            3 remove container p-far-2: asked for
            4 remove network p_default: asked for needs 0,1,2,3
        "#]],
    );
}

#[test]
fn down_leaves_what_is_external() {
    let text = "services: {web: {image: app, networks: [shared], volumes: ['data:/d']}}
networks: {shared: {external: true}}
volumes: {data: {external: true}}
";
    check(
        World::after_up(text),
        down(Some(text), &[], true),
        expect![[r#"
        0 stop container p-web-1: asked for
        1 remove container p-web-1 needs 0
    "#]],
    );
}

#[test]
fn down_of_one_service_leaves_its_dependents() {
    check(
        World::after_up(CHAIN),
        down(Some(CHAIN), &["db"], true),
        expect![[r#"
        0 stop container p-db-1: asked for
        1 remove container p-db-1 needs 0
        2 remove volume p_data: asked for needs 1
        warning: network p_default: resource is still in use
    "#]],
    );
    let mut world = World::after_up(CHAIN);
    expect![[r#"
        error: no such service: `dp`; did you mean `db`?
    "#]]
    .assert_eq(&world.text(down(Some(CHAIN), &["dp"], true)));
}

#[test]
fn down_and_orphans() {
    let less = "services: {db: {image: db}}";
    check(
        World::after_up(CHAIN),
        down(Some(less), &[], false),
        expect![[r#"
        0 stop container p-db-1: asked for
        1 remove container p-db-1 needs 0
        warning: Found orphan containers ([p-web-1 p-far-1 p-far-2]) for this project. If you removed or renamed this service in your compose file, you can run this command with the --remove-orphans flag to clean it up.
        warning: network p_default: resource is still in use
    "#]],
    );
    let ChangeKind::Down { services, volumes, timeout, project, .. } = down(Some(less), &[], false) else { return };
    let remove = ChangeKind::Down { services, volumes, orphans: Orphans::Remove, timeout, project };
    check(
        World::after_up(CHAIN),
        remove,
        expect![[r#"
        0 stop container p-far-1: asked for
        1 stop container p-far-2: asked for
        2 stop container p-web-1: asked for after 0,1
        3 stop container p-db-1: asked for after 2
        4 remove container p-db-1 needs 3
        5 remove container p-web-1 needs 2
        6 remove container p-far-1 needs 0
        7 remove container p-far-2 needs 1
        8 remove network p_default: asked for needs 4,5,6,7
    "#]],
    );
}

#[test]
fn down_leaves_what_has_no_active_profile() {
    let inactive = "services: {db: {image: db}, web: {image: app}, far: {image: app, scale: 2, profiles: [more]}}";
    check(
        World::after_up(CHAIN),
        down(Some(inactive), &[], false),
        expect![[r#"
            0 stop container p-web-1: asked for
            1 stop container p-db-1: asked for after 0
            2 remove container p-db-1 needs 1
            3 remove container p-web-1 needs 0
            warning: containers of services whose profile is not active are left ([p-far-1 p-far-2]); `--profile '*'` before `down` removes them, too
            warning: network p_default: resource is still in use
        "#]],
    );
    let named = down(Some(inactive), &["far"], false);
    check(
        World::after_up(CHAIN),
        named,
        expect![[r#"
        0 stop container p-far-1: asked for
        1 stop container p-far-2: asked for
        2 remove container p-far-1 needs 0
        3 remove container p-far-2 needs 1
        warning: network p_default: resource is still in use
    "#]],
    );
}

#[test]
fn orphans_are_not_spoken_of_when_asked_so() {
    let ChangeKind::Down { services, volumes, timeout, project, .. } =
        down(Some("services: {db: {image: db}}"), &["db"], false)
    else {
        return;
    };
    let ignore = ChangeKind::Down { services, volumes, orphans: Orphans::Ignore, timeout, project };
    check(
        World::after_up(CHAIN),
        ignore,
        expect![[r#"
        0 stop container p-db-1: asked for
        1 remove container p-db-1 needs 0
        warning: network p_default: resource is still in use
    "#]],
    );
}

#[test]
fn stop_goes_against_the_dependencies_and_leaves_dependents_of_what_is_named() {
    let stop = |services: &[&str]| ChangeKind::Stop { services: names(services), timeout: None };
    check(
        World::after_up(CHAIN),
        stop(&[]),
        expect![[r#"
        0 stop container p-far-1: asked for
        1 stop container p-far-2: asked for
        2 stop container p-web-1: asked for after 0,1
        3 stop container p-db-1: asked for after 2
    "#]],
    );
    check(
        World::after_up(CHAIN),
        stop(&["db"]),
        expect![[r#"
        0 stop container p-db-1: asked for
    "#]],
    );
    check(
        World::after_up(CHAIN),
        stop(&["none"]),
        expect![[r#"
        warning: service `none` has no containers
    "#]],
    );
    let mut world = World::after_up(CHAIN);
    let stops = world.plan(stop(&["db"])).unwrap();
    let timeout = Some(Duration::from_secs(1));
    let plan = world.plan(ChangeKind::Stop { services: names(&["db"]), timeout }).unwrap();
    let grace = |plan: &rcompose::plan::Plan| match &plan.steps[0].op {
        rcompose::plan::Op::Stop { grace, signal, .. } => (signal.clone(), *grace),
        other => panic!("{other:?}"),
    };
    assert_eq!(grace(&stops), ("SIGINT".to_owned(), Duration::from_secs(3)));
    assert_eq!(grace(&plan), ("SIGINT".to_owned(), Duration::from_secs(1)));
}

#[test]
fn restart_takes_all_at_once_but_those_that_want_to_follow() {
    let restart =
        |services: &[&str], no_deps| ChangeKind::Restart { services: names(services), timeout: None, no_deps };
    check(
        World::after_up(CHAIN),
        restart(&[], false),
        expect![[r#"
            0 restart container p-db-1: asked for
            1 restart container p-far-1: asked for
            2 restart container p-far-2: asked for
            3 restart container p-web-1: asked for after 0
        "#]],
    );
    check(
        World::after_up(CHAIN),
        restart(&["db"], false),
        expect![[r#"
            0 restart container p-db-1: asked for
            1 restart container p-web-1: asked for after 0
        "#]],
    );
    check(
        World::after_up(CHAIN),
        restart(&["db"], true),
        expect![[r#"
            0 restart container p-db-1: asked for
        "#]],
    );
    let mut world = World::after_up(CHAIN);
    world.exit("p-far-1", 1);
    check(
        world,
        restart(&["far"], false),
        expect![[r#"
            0 start container p-far-1: asked for
            1 restart container p-far-2: asked for
        "#]],
    );
}

#[test]
fn restart_after_a_crash_goes_on_where_it_was() {
    let mut world = World::after_up(CHAIN);
    let kind = ChangeKind::Restart { services: Vec::new(), timeout: None, no_deps: false };
    let change = Change { requested_at: world.now(), kind };
    let mut lefts = Vec::new();
    loop {
        let left = plan(&change, &world.seen(&change.kind)).unwrap();
        let Some(first) = left.steps.first() else { break };
        world.apply(&first.op);
        lefts.push(left.steps.len());
    }
    assert_eq!(lefts, [4, 3, 2, 1], "every restart happens once");
    let done = plan(&change, &world.seen(&change.kind)).unwrap();
    assert_eq!(text(&done), "");
}

#[test]
fn kill_is_for_what_runs() {
    let mut world = World::after_up(CHAIN);
    world.exit("p-far-2", 0);
    check(
        world,
        ChangeKind::Kill { services: Vec::new(), signal: "SIGHUP".to_owned() },
        expect![[r#"
        0 send SIGHUP to container p-db-1: asked for
        1 send SIGHUP to container p-web-1: asked for
        2 send SIGHUP to container p-far-1: asked for
    "#]],
    );
}

#[test]
fn rm_takes_what_is_stopped_and_more_when_asked() {
    let remove = |services: &[&str], stop| ChangeKind::Remove { services: names(services), stop, volumes: false };
    let mut world = World::after_up(CHAIN);
    world.exit("p-far-2", 0);
    check(
        world.clone(),
        remove(&[], false),
        expect![[r#"
        0 remove container p-far-2: asked for
    "#]],
    );
    check(
        world.clone(),
        remove(&["far", "web"], true),
        expect![[r#"
        0 stop container p-far-1: asked for
        1 stop container p-web-1: asked for after 0
        2 remove container p-web-1 needs 1
        3 remove container p-far-1 needs 0
        4 remove container p-far-2: asked for
    "#]],
    );
    check(world, remove(&["db"], false), expect![[""]]);
}

#[test]
fn what_waits_for_its_restart_is_stopped_and_killed() {
    let mut world = World::after_up("services: {web: {image: app, restart: always}}");
    world.exit("p-web-1", 1);
    let stop = ChangeKind::Stop { services: Vec::new(), timeout: None };
    check(
        world.clone(),
        ChangeKind::Kill { services: Vec::new(), signal: "SIGKILL".to_owned() },
        expect![[r#"
        0 send SIGKILL to container p-web-1: asked for
    "#]],
    );
    check(
        world.clone(),
        stop.clone(),
        expect![[r#"
        0 stop container p-web-1: asked for
    "#]],
    );
    world.make(stop.clone());
    check(world, stop, expect![[""]]);
}

#[test]
fn what_run_has_made_is_left_by_stop_pause_and_rm() {
    let mut world = World::after_up("services: {web: {image: app}}");
    let project = project("services: {web: {image: app}}");
    world.make(ChangeKind::Run { project, service: "web".into(), name: "p-web-run-1".into(), no_deps: true });
    let stop = ChangeKind::Stop { services: Vec::new(), timeout: None };
    check(
        world.clone(),
        stop,
        expect![[r#"
        0 stop container p-web-1: asked for
    "#]],
    );
    check(
        world.clone(),
        ChangeKind::Pause { services: names(&["web"]), pause: true },
        expect![[r#"
        0 pause container p-web-1: asked for
    "#]],
    );
    world.exit("p-web-run-1", 0);
    check(
        world,
        ChangeKind::Remove { services: Vec::new(), stop: true, volumes: false },
        expect![[r#"
        0 stop container p-web-1: asked for
        1 remove container p-web-1 needs 0
    "#]],
    );
}

#[test]
fn discard_is_of_one_container() {
    let mut world = World::after_up(CHAIN);
    let name = "p-web-run-1".to_owned();
    world.make(ChangeKind::Run { project: project(CHAIN), service: "web".into(), name: name.clone(), no_deps: true });
    check(
        world.clone(),
        ChangeKind::Discard { container: name.clone() },
        expect![[r#"
        0 stop container p-web-run-1: asked for
        1 remove container p-web-run-1: asked for needs 0
    "#]],
    );
    check(World::after_up(CHAIN), ChangeKind::Discard { container: name }, expect![[""]]);
}
