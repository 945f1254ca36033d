//! What `up`, `run` and `start` do to what exists.

use expect_test::{Expect, expect};
use rcompose::plan::{Change, ChangeKind, Orphans, Recreate, UpOptions, plan};
use rcompose::spec::observed::Published;
use rcompose::spec::{Health, Phase, Protocol};

use super::world::{OPTIONS, World, names, project, text, up, up_with};

/// A program that others wait for, a job that has to end well, and a service that needs both.
const SHOP: &str = "
services:
  db: {image: db, healthcheck: {test: [CMD, check]}, volumes: ['data:/data']}
  migrate: {image: app, command: migrate, depends_on: {db: {condition: service_healthy}}}
  web:
    image: app
    depends_on: {db: {condition: service_healthy, restart: true}, migrate: {condition: service_completed_successfully}}
volumes: {data: {}}
";

const PAIR: &str = "services:\n  db: {image: db}\n  web: {image: app, depends_on: [db]}\n";

/// What a change does to a world. Applied, it must leave nothing to do but to start programs that ended again.
#[track_caller]
fn check(mut world: World, change: ChangeKind, expected: Expect) {
    expected.assert_eq(&world.text(change.clone()));
    if let (ChangeKind::Up { options, .. }, true) = (&change, world.plan(change.clone()).is_ok()) {
        world.healthy = true;
        world.make(change.clone());
        let again = match change.clone() {
            ChangeKind::Up { project, services, options: was } => {
                let options = UpOptions { recreate: Recreate::Changed, always_recreate_deps: false, ..was };
                let options = if was.recreate == Recreate::Never { was } else { options };
                ChangeKind::Up { project, services, options }
            }
            other => other,
        };
        let left = world.plan(again).unwrap();
        let jobs = |line: &String| line.contains("migrate") || line.contains("job");
        assert!(options.no_start || left.lines().iter().all(jobs), "left to do: {:?}", left.lines());
    }
}

#[test]
fn a_new_project_is_created_first_then_started_in_order_of_dependencies() {
    check(
        World::default(),
        up(SHOP),
        expect![[r#"
        0 create network p_default: it does not exist
        1 create volume p_data: it does not exist
        2 create container p-db-1: it does not exist needs 0,1
        3 start container p-db-1 needs 2
        4 create container p-migrate-1: it does not exist needs 0
        5 wait until `db` is healthy: something that starts depends on it needs 3
        6 start container p-migrate-1 needs 4,3,5
        7 create container p-web-1: it does not exist needs 0
        8 wait until `migrate` has completed: something that starts depends on it needs 6
        9 start container p-web-1 needs 7,3,5,6,8
    "#]],
    );
}

#[test]
fn a_second_up_starts_programs_that_ended_again_and_nothing_else() {
    check(
        World::after_up(SHOP),
        up(SHOP),
        expect![[r#"
        0 start container p-migrate-1: it is not running (exit status 0)
        unchanged: p-db-1 p-web-1
    "#]],
    );
}

#[test]
fn what_runs_and_is_not_healthy_yet_is_waited_for() {
    let mut world = World::after_up(SHOP);
    if let Phase::Running { health, .. } = &mut world.container("p-db-1").phase {
        *health = Some(Health::Starting);
    }
    world.observed.containers.retain(|container| container.service.name == "db");
    check(
        world,
        up(SHOP),
        expect![[r#"
        0 create container p-migrate-1: it does not exist
        1 wait until `db` is healthy: something that starts depends on it
        2 start container p-migrate-1 needs 0,1
        3 create container p-web-1: it does not exist
        4 wait until `migrate` has completed: something that starts depends on it needs 2
        5 start container p-web-1 needs 3,1,2,4
        unchanged: p-db-1
    "#]],
    );
}

#[test]
fn a_dependency_that_meets_its_condition_holds_nobody_up() {
    let mut world = World::after_up(SHOP);
    world.observed.containers.retain(|container| container.service.name == "db");
    check(
        world,
        up_with(SHOP, &["db"], OPTIONS),
        expect![[r#"
        unchanged: p-db-1
    "#]],
    );
    let mut world = World::after_up(PAIR);
    world.exit("p-web-1", 3);
    check(
        world,
        up(PAIR),
        expect![[r#"
        0 start container p-web-1: it is not running (exit status 3)
        unchanged: p-db-1
    "#]],
    );
}

#[test]
fn changed_fields_are_named_with_their_old_and_new_value() {
    let old = "services: {web: {image: app, environment: {MODE: old, GONE: 1}, command: [a, b]}}";
    let new = "services: {web: {image: app, environment: {MODE: new, MORE: x}, command: [a, c], restart: always}}";
    check(
        World::after_up(old),
        up(new),
        expect![[r#"
        0 stop container p-web-1: its configuration changed
            command: ["a","b"] -> ["a","c"]
            environment.GONE: "1" -> (unset)
            environment.MODE: "old" -> "new"
            environment.MORE: (unset) -> "x"
            restart: (unset) -> "always"
        1 remove container p-web-1 needs 0
        2 recreate container p-web-1 needs 1
        3 start container p-web-1 needs 2
    "#]],
    );
}

#[test]
fn scale_and_dependencies_are_no_reason_to_recreate() {
    let new = "services:\n  db: {image: db, scale: 2}\n  web: {image: app, profiles: [], pull_policy: never}\n";
    check(
        World::after_up(PAIR),
        up(new),
        expect![[r#"
        0 create container p-db-2: it does not exist
        1 start container p-db-2 needs 0
        unchanged: p-web-1 p-db-1
    "#]],
    );
}

#[test]
fn a_container_of_an_older_image_is_replaced() {
    let mut world = World::after_up(PAIR);
    world.observed.images.insert("db".to_owned(), "sha256:newer".to_owned());
    check(
        world.clone(),
        up(PAIR),
        expect![[r#"
        0 stop container p-db-1: its image changed: sha256:db -> sha256:newer
        1 remove container p-db-1 needs 0
        2 recreate container p-db-1 needs 1
        3 start container p-db-1 needs 2
        unchanged: p-web-1
    "#]],
    );
    let never = UpOptions { recreate: Recreate::Never, ..OPTIONS };
    expect![[r#"
        unchanged: p-db-1 p-web-1
    "#]]
    .assert_eq(&world.text(up_with(PAIR, &[], never)));
}

#[test]
fn a_dependent_that_asks_for_it_is_stopped_before_and_started_after() {
    let new = SHOP.replace("image: db,", "image: db, tty: true,");
    check(
        World::after_up(SHOP),
        up(&new),
        expect![[r#"
        0 stop container p-web-1: `db` is recreated
        1 stop container p-db-1: its configuration changed
            tty: (unset) -> true needs 0
        2 remove container p-db-1 needs 1
        3 recreate container p-db-1 needs 2
        4 start container p-db-1 needs 3
        5 wait until `db` is healthy: something that starts depends on it needs 4
        6 start container p-migrate-1: it is not running (exit status 0) needs 4,5
        7 wait until `migrate` has completed: something that starts depends on it needs 6
        8 start container p-web-1 needs 0,4,5,6,7
    "#]],
    );
}

#[test]
fn a_changed_network_takes_its_containers_along() {
    let old = "services:\n  db: {image: db}\n  web: {image: app, networks: [front]}\nnetworks: {front: {}}\n";
    let new = old.replace("front: {}}", "front: {internal: true}}");
    check(
        World::after_up(old),
        up(&new),
        expect![[r#"
        0 stop container p-web-1: network `front` is recreated
        1 remove container p-web-1 needs 0
        2 remove network p_front: its configuration changed needs 1
        3 create network p_front needs 2
        4 recreate container p-web-1 needs 1,3
        5 start container p-web-1 needs 4
        unchanged: p-db-1
    "#]],
    );
}

#[test]
fn a_joined_namespace_is_recreated_with_its_owner() {
    let old = "services:\n  vpn: {image: vpn}\n  app: {image: app, network_mode: 'service:vpn'}\n";
    check(
        World::default(),
        up(old),
        expect![[r#"
        0 create network p_default: it does not exist
        1 create container p-vpn-1: it does not exist needs 0
        2 start container p-vpn-1 needs 1
        3 create container p-app-1: it does not exist needs 1
        4 start container p-app-1 needs 3,2
    "#]],
    );
    check(
        World::after_up(old),
        up(&old.replace("image: vpn", "image: vpn, tty: true")),
        expect![[r#"
        0 stop container p-vpn-1: its configuration changed
            tty: (unset) -> true
        1 remove container p-vpn-1 needs 0
        2 stop container p-app-1: `vpn` is recreated
        3 remove container p-app-1 needs 2
        4 recreate container p-vpn-1 needs 1
        5 start container p-vpn-1 needs 4
        6 recreate container p-app-1 needs 3,4
        7 start container p-app-1 needs 6,5
    "#]],
    );
}

#[test]
fn a_container_whose_namespace_was_left_is_recreated() {
    let text = "services:\n  vpn: {image: vpn}\n  app: {image: app, network_mode: 'service:vpn'}\n";
    let mut world = World::after_up(text);
    check(
        world.clone(),
        up(text),
        expect![[r#"
        unchanged: p-vpn-1 p-app-1
    "#]],
    );
    world.exit("p-vpn-1", 1);
    let left = world.clone();
    check(
        left,
        up(text),
        expect![[r#"
        0 stop container p-app-1: it is in namespaces that `vpn` has left
        1 remove container p-app-1 needs 0
        2 start container p-vpn-1: it is not running (exit status 1)
        3 recreate container p-app-1 needs 1
        4 start container p-app-1 needs 3,2
    "#]],
    );
    // Started by itself, for one by `start`.
    world.make(ChangeKind::Start { services: names(&["vpn"]) });
    check(
        world,
        up(text),
        expect![[r#"
        0 stop container p-app-1: it is in namespaces that `vpn` has left
        1 remove container p-app-1 needs 0
        2 recreate container p-app-1 needs 1
        3 start container p-app-1 needs 2
        unchanged: p-vpn-1
    "#]],
    );
}

#[test]
fn recreation_by_force_is_of_the_named_services() {
    let force = UpOptions { recreate: Recreate::Force, ..OPTIONS };
    check(
        World::after_up(PAIR),
        up_with(PAIR, &[], force.clone()),
        expect![[r#"
        0 stop container p-db-1: recreation was asked for
        1 remove container p-db-1 needs 0
        2 stop container p-web-1: recreation was asked for
        3 remove container p-web-1 needs 2
        4 recreate container p-db-1 needs 1
        5 start container p-db-1 needs 4
        6 recreate container p-web-1 needs 3
        7 start container p-web-1 needs 6,5
    "#]],
    );
    check(
        World::after_up(PAIR),
        up_with(PAIR, &["web"], force.clone()),
        expect![[r#"
        0 stop container p-web-1: recreation was asked for
        1 remove container p-web-1 needs 0
        2 recreate container p-web-1 needs 1
        3 start container p-web-1 needs 2
        unchanged: p-db-1
    "#]],
    );
    let deps = UpOptions { always_recreate_deps: true, ..force };
    check(
        World::after_up(PAIR),
        up_with(PAIR, &["web"], deps),
        expect![[r#"
        0 stop container p-db-1: recreation was asked for
        1 remove container p-db-1 needs 0
        2 stop container p-web-1: recreation was asked for
        3 remove container p-web-1 needs 2
        4 recreate container p-db-1 needs 1
        5 start container p-db-1 needs 4
        6 recreate container p-web-1 needs 3
        7 start container p-web-1 needs 6,5
    "#]],
    );
    let deps = UpOptions { always_recreate_deps: true, ..OPTIONS };
    check(
        World::after_up(PAIR),
        up_with(PAIR, &["web"], deps),
        expect![[r#"
        0 stop container p-db-1: recreation was asked for
        1 remove container p-db-1 needs 0
        2 stop container p-web-1: recreation was asked for
        3 remove container p-web-1 needs 2
        4 recreate container p-db-1 needs 1
        5 start container p-db-1 needs 4
        6 recreate container p-web-1 needs 3
        7 start container p-web-1 needs 6,5
    "#]],
    );
}

#[test]
fn recreation_by_force_is_done_once() {
    let mut world = World::after_up(PAIR);
    let kind = up_with(PAIR, &[], UpOptions { recreate: Recreate::Force, ..OPTIONS });
    let change = Change { requested_at: world.now(), kind };
    let first = plan(&change, &world.seen(&change.kind)).unwrap();
    // Killed after the database was replaced, before anything else.
    let replaced = |step: &&rcompose::plan::Step| step.text.contains("p-db-1");
    first.steps.iter().filter(replaced).for_each(|step| world.apply(&step.op));
    let second = plan(&change, &world.seen(&change.kind)).unwrap();
    expect![[r#"
        0 stop container p-web-1: recreation was asked for
        1 remove container p-web-1 needs 0
        2 recreate container p-web-1 needs 1
        3 start container p-web-1 needs 2
        unchanged: p-db-1
    "#]]
    .assert_eq(&text(&second));
}

#[test]
fn what_a_change_started_and_ended_since_is_not_started_again() {
    let mut world = World::after_up(SHOP);
    let change = Change { requested_at: world.now(), kind: up(SHOP) };
    world.exit("p-migrate-1", 0);
    let plan = plan(&change, &world.seen(&change.kind)).unwrap();
    expect![[r#"
        unchanged: p-db-1 p-migrate-1 p-web-1
    "#]]
    .assert_eq(&text(&plan));
}

#[test]
fn recreation_can_be_forbidden() {
    let never = UpOptions { recreate: Recreate::Never, ..OPTIONS };
    let new = PAIR.replace("image: db", "image: db, tty: true");
    let mut world = World::after_up(PAIR);
    world.exit("p-web-1", 0);
    check(
        world,
        up_with(&new, &[], never),
        expect![[r#"
        0 start container p-web-1: it is not running (exit status 0)
        unchanged: p-db-1
    "#]],
    );
}

#[test]
fn scale_takes_the_next_numbers_and_removes_the_highest() {
    let scaled = |count: u32| format!("services: {{web: {{image: app, scale: {count}}}}}");
    check(
        World::after_up(&scaled(1)),
        up(&scaled(3)),
        expect![[r#"
        0 create container p-web-2: it does not exist
        1 create container p-web-3: it does not exist
        2 start container p-web-2 needs 0
        3 start container p-web-3 needs 1
        unchanged: p-web-1
    "#]],
    );
    let mut world = World::after_up(&scaled(3));
    world.observed.containers.retain(|container| container.number != 2);
    check(
        world,
        up(&scaled(3)),
        expect![[r#"
            0 create container p-web-4: it does not exist
            1 start container p-web-4 needs 0
            unchanged: p-web-1 p-web-3
        "#]],
    );
    check(
        World::after_up(&scaled(3)),
        up(&scaled(1)),
        expect![[r#"
        0 stop container p-web-3: only 1 wanted
        1 remove container p-web-3 needs 0
        2 stop container p-web-2: only 1 wanted
        3 remove container p-web-2 needs 2
        unchanged: p-web-1
    "#]],
    );
    check(
        World::after_up(&scaled(2)),
        up(&scaled(0)),
        expect![[r#"
        0 stop container p-web-2: only 0 wanted
        1 remove container p-web-2 needs 0
        2 stop container p-web-1: only 0 wanted
        3 remove container p-web-1 needs 2
    "#]],
    );
}

#[test]
fn scaling_down_keeps_containers_that_are_right() {
    let old = "services: {web: {image: app, scale: 2}}";
    let new = "services: {web: {image: app, tty: true, scale: 2}}";
    let mut world = World::after_up(old);
    world.observed.containers.retain(|container| container.number == 2);
    world.make(up(new));
    let one = "services: {web: {image: app, tty: true, scale: 1}}";
    check(
        world,
        up(one),
        expect![[r#"
            0 stop container p-web-3: only 1 wanted
            1 remove container p-web-3 needs 0
            unchanged: p-web-2
        "#]],
    );
}

#[test]
fn orphans_are_named_or_removed() {
    let without = "services:\n  db: {image: db}\n";
    check(
        World::after_up(PAIR),
        up(without),
        expect![[r#"
        warning: Found orphan containers ([p-web-1]) for this project. If you removed or renamed this service in your compose file, you can run this command with the --remove-orphans flag to clean it up.
        unchanged: p-db-1
    "#]],
    );
    let remove = UpOptions { orphans: Orphans::Remove, ..OPTIONS };
    check(
        World::after_up(PAIR),
        up_with(without, &[], remove.clone()),
        expect![[r#"
        0 stop container p-web-1: its service is not in the project
        1 remove container p-web-1 needs 0
        unchanged: p-db-1
    "#]],
    );
    let profile = "services:\n  db: {image: db}\n  web: {image: app, profiles: [more]}\n";
    check(
        World::after_up(PAIR),
        up_with(profile, &[], remove),
        expect![[r#"
        unchanged: p-db-1
    "#]],
    );
}

#[test]
fn one_service_brings_its_dependencies_and_leaves_the_rest() {
    let text = format!("{PAIR}  far: {{image: app, depends_on: [web]}}\n");
    check(
        World::default(),
        up_with(&text, &["web"], OPTIONS),
        expect![[r#"
        0 create network p_default: it does not exist
        1 create container p-db-1: it does not exist needs 0
        2 start container p-db-1 needs 1
        3 create container p-web-1: it does not exist needs 0
        4 start container p-web-1 needs 3,2
    "#]],
    );
    let alone = UpOptions { no_deps: true, ..OPTIONS };
    check(
        World::default(),
        up_with(&text, &["web"], alone),
        expect![[r#"
        0 create network p_default: it does not exist
        1 create container p-web-1: it does not exist needs 0
        2 start container p-web-1 needs 1
    "#]],
    );
    let changed = text.replace("image: db", "image: db, tty: true");
    check(
        World::after_up(&text),
        up_with(&changed, &["web"], OPTIONS),
        expect![[r#"
        0 stop container p-db-1: its configuration changed
            tty: (unset) -> true
        1 remove container p-db-1 needs 0
        2 recreate container p-db-1 needs 1
        3 start container p-db-1 needs 2
        unchanged: p-web-1
    "#]],
    );
}

#[test]
fn create_without_start() {
    let options = UpOptions { no_start: true, ..OPTIONS };
    check(
        World::default(),
        up_with(SHOP, &[], options),
        expect![[r#"
        0 create network p_default: it does not exist
        1 create volume p_data: it does not exist
        2 create container p-db-1: it does not exist needs 0,1
        3 create container p-migrate-1: it does not exist needs 0
        4 create container p-web-1: it does not exist needs 0
    "#]],
    );
}

#[test]
fn a_dependency_that_is_not_required_may_fail() {
    let text = "
services:
  cache: {image: cache, healthcheck: {test: [CMD, check]}}
  web: {image: app, depends_on: {cache: {condition: service_healthy, required: false}}}
";
    check(
        World::default(),
        up(text),
        expect![[r#"
        0 create network p_default: it does not exist
        1 create container p-cache-1: it does not exist needs 0
        2 start container p-cache-1 needs 1
        3 create container p-web-1: it does not exist needs 0
        4 wait until `cache` is healthy: something that starts depends on it after 2
        5 start container p-web-1 needs 3,4 after 2
    "#]],
    );
}

#[test]
fn external_resources_are_looked_for_once() {
    let text = "services: {web: {image: app, networks: [shared], volumes: ['data:/d']}}
networks: {shared: {external: true, name: common}}
volumes: {data: {external: true}}
";
    check(
        World::default(),
        up(text),
        expect![[r#"
            0 find external network common
            1 find external volume data
            2 create container p-web-1: it does not exist needs 0,1
            3 start container p-web-1 needs 2
        "#]],
    );
    check(
        World::after_up(text),
        up(text),
        expect![[r#"
        unchanged: p-web-1
    "#]],
    );
}

#[test]
fn contradictions_are_errors() {
    let mut world = World::after_up("services: {old: {image: app, container_name: one}}");
    expect![[r#"
        error: container name `one` is in use by a container of service `old`
    "#]]
    .assert_eq(&world.text(up("services: {new: {image: app, container_name: one}}")));
    expect![[r#"
        error: no such service: `wep`; did you mean `web`?
    "#]]
    .assert_eq(&world.text(up_with(PAIR, &["wep"], OPTIONS)));
    expect![[r#"
        error: no such service: `entirely`
    "#]]
    .assert_eq(&world.text(up_with(PAIR, &["entirely"], OPTIONS)));
    let mut project = project("services: {web: {image: app, container_name: one}}");
    project.services.get_mut("web").unwrap().scale = 2;
    let kind = ChangeKind::Up { project, services: Vec::new(), options: OPTIONS };
    expect![[r#"
        error: service `web` has a `container_name` and cannot have 2 containers
    "#]]
    .assert_eq(&world.text(kind));
}

#[test]
fn a_name_may_pass_from_an_orphan_to_a_service() {
    let world = World::after_up("services: {old: {image: app, container_name: one}}");
    let remove = UpOptions { orphans: Orphans::Remove, ..OPTIONS };
    check(
        world,
        up_with("services: {new: {image: app, container_name: one}}", &[], remove),
        expect![[r#"
        0 stop container one: its service is not in the project
        1 remove container one needs 0
        2 create container one: it does not exist needs 1
        3 start container one needs 2
    "#]],
    );
}

#[test]
fn a_changed_container_name_is_a_change() {
    let world = World::after_up("services: {web: {image: app}}");
    check(
        world,
        up("services: {web: {image: app, container_name: one}}"),
        expect![[r#"
        0 stop container p-web-1: its configuration changed
            container_name: (unset) -> "one"
        1 remove container p-web-1 needs 0
        2 recreate container one needs 1
        3 start container one needs 2
    "#]],
    );
}

#[test]
fn run_starts_dependencies_and_one_more_container() {
    let run = |service: &str, no_deps| ChangeKind::Run {
        project: project(SHOP),
        service: service.to_owned(),
        name: "p-web-run-1".to_owned(),
        no_deps,
    };
    check(
        World::default(),
        run("web", false),
        expect![[r#"
        0 create network p_default: it does not exist
        1 create volume p_data: it does not exist
        2 create container p-db-1: it does not exist needs 0,1
        3 start container p-db-1 needs 2
        4 create container p-migrate-1: it does not exist needs 0
        5 wait until `db` is healthy: something that starts depends on it needs 3
        6 start container p-migrate-1 needs 4,3,5
        7 create container p-web-run-1: asked for needs 0
        8 wait until `migrate` has completed: something that starts depends on it needs 6
        9 start container p-web-run-1: asked for needs 7,3,5,6,8
    "#]],
    );
    check(
        World::after_up(SHOP),
        run("web", true),
        expect![[r#"
        0 create container p-web-run-1: asked for
        1 start container p-web-run-1: asked for needs 0
    "#]],
    );
    let mut world = World::after_up(SHOP);
    let change = Change { requested_at: world.now(), kind: run("web", true) };
    world.make(run("web", true));
    // Planned again after a crash: it runs already, and when it has ended it has run.
    let again = |world: &World| text(&plan(&change, &world.seen(&change.kind)).unwrap());
    assert_eq!(again(&world), "");
    world.exit("p-web-run-1", 0);
    assert_eq!(again(&world), "");
    let taken = "error: container name `p-web-run-1` is in use by a container of service `web`\n";
    assert_eq!(world.text(run("web", true)), taken);
}

#[test]
fn a_port_is_taken_when_the_container_that_has_it_is_gone() {
    let old = "services:\n  a: {image: app, ports: ['8080:80']}\n  b: {image: app}\n";
    let mut world = World::after_up(old);
    let port = Published { host_ip: [0, 0, 0, 0].into(), host: 8080, container: 80, protocol: Protocol::Tcp };
    world.container("p-a-1").ports = vec![port];
    check(
        world.clone(),
        up("services:\n  a: {image: app}\n  b: {image: app, ports: ['8080:80']}\n"),
        expect![[r#"
        0 stop container p-b-1: its configuration changed
            ports: (unset) -> [{"mode":"ingress","target":80,"published":"8080","protocol":"tcp"}]
        1 remove container p-b-1 needs 0
        2 stop container p-a-1: its configuration changed
            ports: [{"mode":"ingress","target":80,"published":"8080","protocol":"tcp"}] -> (unset)
        3 remove container p-a-1 needs 2
        4 recreate container p-b-1 needs 1
        5 start container p-b-1 needs 4,3
        6 recreate container p-a-1 needs 3
        7 start container p-a-1 needs 6
    "#]],
    );
    let remove = UpOptions { orphans: Orphans::Remove, ..OPTIONS };
    check(
        world,
        up_with("services:\n  b: {image: app}\n  c: {image: app, ports: ['8080-8081:80']}\n", &[], remove),
        expect![[r#"
            0 stop container p-a-1: its service is not in the project
            1 remove container p-a-1 needs 0
            2 create container p-c-1: it does not exist
            3 start container p-c-1 needs 2,1
            unchanged: p-b-1
        "#]],
    );
}

#[test]
fn start_starts_dependencies_and_waits_for_them() {
    let start = |services: &[&str]| ChangeKind::Start { services: names(services) };
    let stopped = || {
        let mut world = World::after_up(SHOP);
        world.make(ChangeKind::Stop { services: Vec::new(), timeout: None });
        world
    };
    check(
        stopped(),
        start(&["web"]),
        expect![[r#"
        0 start container p-db-1: it is not running (exit status 143)
        1 wait until `db` is healthy: something that starts depends on it needs 0
        2 start container p-migrate-1: it is not running (exit status 0) needs 0,1
        3 wait until `migrate` has completed: something that starts depends on it needs 2
        4 start container p-web-1: it is not running (exit status 143) needs 0,1,2,3
    "#]],
    );
    check(
        stopped(),
        start(&["db"]),
        expect![[r#"
        0 start container p-db-1: it is not running (exit status 143)
    "#]],
    );
    check(
        World::after_up(PAIR),
        start(&[]),
        expect![[r#"
        unchanged: p-db-1 p-web-1
    "#]],
    );
    check(
        World::default(),
        start(&["web"]),
        expect![[r#"
        warning: service `web` has no containers
    "#]],
    );
}
