//! Random projects and worlds: a plan leaves nothing to plan, and `down` leaves nothing.

use std::collections::BTreeMap;

use proptest::prelude::*;
use rcompose::plan::{ChangeKind, Orphans, Recreate, UpOptions};
use rcompose::spec::Phase;

use super::world::{OPTIONS, World, down, up_with};

/// A service: how many, what it depends on (a bit each of those before) and how, what makes its configuration.
#[derive(Clone, Debug)]
struct Shape {
    scale: u32,
    depends_on: u8,
    condition: u8,
    restart: bool,
    variant: u8,
    joins: bool,
    network: u8,
    volume: bool,
}

fn shape() -> impl Strategy<Value = Shape> {
    (0..4_u32, any::<u8>(), 0..3_u8, any::<bool>(), 0..3_u8, prop::bool::weighted(0.2), 0..3_u8, any::<bool>())
        .prop_map(|(scale, depends_on, condition, restart, variant, joins, network, volume)| Shape {
            scale,
            depends_on,
            condition,
            restart,
            variant,
            joins,
            network,
            volume,
        })
}

fn text(shapes: &[Shape], internal: bool) -> String {
    let mut text =
        format!("networks: {{n0: {{internal: {internal}}}, n1: {{}}}}\nvolumes: {{data: {{}}}}\nservices:\n");
    for (index, shape) in shapes.iter().enumerate() {
        let others: Vec<usize> = (0..index).filter(|other| shape.depends_on & (1 << other) != 0).collect();
        let condition = ["service_started", "service_healthy", "service_completed_successfully"];
        let condition = condition[usize::from(shape.condition)];
        let depends: Vec<String> = others
            .iter()
            .map(|other| format!("s{other}: {{condition: {condition}, restart: {}}}", shape.restart))
            .collect();
        let network = match (others.first(), shape.network) {
            (Some(other), _) if shape.joins => format!("network_mode: 'service:s{other}'"),
            (_, 2) => "networks: [n0, n1]".to_owned(),
            (_, number) => format!("networks: [n{number}]"),
        };
        let volumes = if shape.volume { "['data:/data']" } else { "[]" };
        text.push_str(&format!(
            "  s{index}: {{image: app, scale: {}, labels: {{v: '{}'}}, depends_on: {{{}}}, {network}, volumes: {volumes}, \
             healthcheck: {{test: [CMD, x]}}}}\n",
            shape.scale,
            shape.variant,
            depends.join(", "),
        ));
    }
    text
}

#[derive(Clone, Debug)]
struct Case {
    before: Vec<Shape>,
    was_internal: bool,
    after: Vec<Shape>,
    is_internal: bool,
    /// What befell containers meanwhile: gone, ended, made but not started, or nothing.
    fates: Vec<u8>,
    force: bool,
    remove_orphans: bool,
}

fn case() -> impl Strategy<Value = Case> {
    let shapes = || prop::collection::vec(shape(), 1..6);
    (shapes(), any::<bool>(), shapes(), any::<bool>(), prop::collection::vec(0..8_u8, 16), any::<bool>(), any::<bool>())
        .prop_map(|(before, was_internal, after, is_internal, fates, force, remove_orphans)| Case {
            before,
            was_internal,
            after,
            is_internal,
            fates,
            force,
            remove_orphans,
        })
}

impl Case {
    fn world(&self) -> World {
        let mut world = World::after_up(&text(&self.before, self.was_internal));
        let names: Vec<_> = world.observed.containers.iter().map(|container| container.name.clone()).collect();
        for (name, fate) in names.iter().zip(&self.fates) {
            match fate {
                0 => world.observed.containers.retain(|container| container.name != *name),
                1 => world.exit(name, 0),
                2 => world.exit(name, 1),
                3 => world.container(name).phase = Phase::Created,
                _ => {}
            }
        }
        world
    }

    fn up(&self, recreate: Recreate) -> ChangeKind {
        let options = UpOptions {
            recreate,
            orphans: if self.remove_orphans { Orphans::Remove } else { Orphans::Warn },
            ..OPTIONS
        };
        up_with(&text(&self.after, self.is_internal), &[], options)
    }
}

/// Programs that others wait for to end may end, and are then started again.
fn programs(shapes: &[Shape]) -> BTreeMap<String, ()> {
    let jobs = shapes.iter().filter(|shape| shape.condition == 2).flat_map(|shape| {
        (0..8).filter(|other| shape.depends_on & (1 << other) != 0).map(|other| (format!("p-s{other}-"), ()))
    });
    jobs.collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_second_up_has_nothing_to_do(case in case()) {
        let mut world = case.world();
        let orphans = case.before.len() > case.after.len() && !case.remove_orphans;
        // An orphan on a network that is to be replaced keeps it in use.
        prop_assume!(!orphans || case.was_internal == case.is_internal);
        world.make(case.up(if case.force { Recreate::Force } else { Recreate::Changed }));
        let left = world.plan(case.up(Recreate::Changed)).unwrap();
        let jobs = programs(&case.after);
        let other: Vec<_> = left
            .steps
            .iter()
            .filter(|step| !matches!(step.op, rcompose::plan::Op::Wait { .. }))
            .filter(|step| !jobs.keys().any(|job| step.text.starts_with(&format!("start container {job}"))))
            .map(|step| &step.text)
            .collect();
        prop_assert!(other.is_empty(), "left: {:?}\nof\n{}", left.lines(), text(&case.after, case.is_internal));
    }

    #[test]
    fn down_leaves_nothing(case in case(), same_file in any::<bool>()) {
        let mut world = case.world();
        let file = if same_file { &case.before } else { &case.after };
        let file = text(file, case.was_internal);
        let ChangeKind::Down { services, volumes, timeout, project, .. } = down(Some(&file), &[], true) else {
            unreachable!()
        };
        world.make(ChangeKind::Down { services, volumes, orphans: Orphans::Remove, timeout, project });
        prop_assert!(world.observed.containers.is_empty());
        prop_assert!(world.observed.networks.is_empty());
        // What the file does not have may be anybody's.
        prop_assert!(!same_file || world.observed.volumes.is_empty());
    }
}
