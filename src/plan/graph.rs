//! Names and dependencies of services.

use std::collections::{BTreeMap, BTreeSet};

use petgraph::algo::toposort;
use petgraph::graph::DiGraph;

use super::PlanError;
use crate::spec::ContainerState;
use crate::spec::ProjectSpec;
use crate::spec::ServiceSpec;

/// The services in an order in which each comes after those it depends on.
pub(super) fn order(project: &ProjectSpec) -> Result<Vec<&ServiceSpec>, PlanError> {
    let mut graph = DiGraph::<&ServiceSpec, ()>::new();
    let nodes: BTreeMap<_, _> =
        project.services.iter().map(|(name, service)| (name, graph.add_node(service))).collect();
    for (name, service) in &project.services {
        for (dependency, how) in &service.depends_on {
            match (nodes.get(name), nodes.get(dependency)) {
                (Some(from), Some(to)) => {
                    graph.add_edge(*to, *from, ());
                }
                _ if how.required => {
                    return Err(PlanError::UnknownDependency { service: name.clone(), dependency: dependency.clone() });
                }
                _ => {}
            }
        }
    }
    match toposort(&graph, None) {
        Ok(order) => Ok(order.into_iter().filter_map(|node| graph.node_weight(node).copied()).collect()),
        Err(cycle) => {
            let start = graph.node_weight(cycle.node_id()).map(|service| service.name.clone()).unwrap_or_default();
            Err(PlanError::Cycle(cycle_from(project, start)))
        }
    }
}

/// A way from `start` over dependencies back to `start`.
fn cycle_from(project: &ProjectSpec, start: String) -> Vec<String> {
    let mut came_from = BTreeMap::<&str, &str>::new();
    let mut open = vec![start.as_str()];
    while let Some(name) = open.pop() {
        for dependency in project.services.get(name).into_iter().flat_map(|service| service.depends_on.keys()) {
            if *dependency == start {
                let mut way = vec![start.clone(), name.to_owned()];
                let mut at = name;
                while let Some(previous) = came_from.get(at).filter(|_| at != start) {
                    way.push((*previous).to_owned());
                    at = previous;
                }
                way.reverse();
                if name == start {
                    way = vec![start.clone(), start.clone()];
                }
                return way;
            }
            if !came_from.contains_key(dependency.as_str()) {
                came_from.insert(dependency, name);
                open.push(dependency);
            }
        }
    }
    vec![start]
}

/// The named services (all of them when none is named), with what they depend on when `dependencies`.
pub(super) fn select(
    project: &ProjectSpec,
    names: &[String],
    dependencies: bool,
) -> Result<BTreeSet<String>, PlanError> {
    known(names, project.services.keys().map(String::as_str))?;
    let mut open: Vec<&String> =
        if names.is_empty() { project.services.keys().collect() } else { names.iter().collect() };
    let mut selected = BTreeSet::new();
    while let Some(name) = open.pop() {
        let Some(service) = project.services.get(name) else { continue };
        if selected.insert(name.clone()) && dependencies {
            open.extend(service.depends_on.keys());
        }
    }
    Ok(selected)
}

/// Fails on the first name that is not among `all`.
pub(super) fn known<'a>(names: &[String], all: impl Iterator<Item = &'a str> + Clone) -> Result<(), PlanError> {
    let Some(name) = names.iter().find(|name| !all.clone().any(|known| known == *name)) else { return Ok(()) };
    let close = all.map(|known| (distance(name, known), known)).min();
    let nearest = close.filter(|(far, _)| *far <= 1 + name.len() / 4).map(|(_, known)| known.to_owned());
    Err(PlanError::UnknownService { name: name.clone(), nearest })
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut next = vec![i + 1];
        for ((y, above_left), above) in b.iter().zip(&row).zip(row.iter().skip(1)) {
            let left = next.last().copied().unwrap_or_default();
            next.push((above_left + usize::from(x != *y)).min(left + 1).min(above + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

/// Which services depend on which, as the containers were made. Containers of different ages may contradict each
/// other: a dependency that closes a cycle is left out.
pub(super) fn made_dependencies<'a>(
    containers: impl Iterator<Item = &'a ContainerState>,
) -> BTreeMap<&'a str, BTreeSet<&'a str>> {
    let mut all = BTreeMap::<&str, BTreeSet<&str>>::new();
    for container in containers {
        for dependency in container.service.depends_on.keys() {
            if !reaches(&all, dependency, &container.service.name) {
                all.entry(&container.service.name).or_default().insert(dependency);
            }
        }
    }
    all
}

fn reaches(all: &BTreeMap<&str, BTreeSet<&str>>, from: &str, to: &str) -> bool {
    let (mut open, mut seen) = (vec![from], BTreeSet::new());
    while let Some(name) = open.pop() {
        if name == to {
            return true;
        }
        if seen.insert(name) {
            open.extend(all.get(name).into_iter().flatten().copied());
        }
    }
    false
}
