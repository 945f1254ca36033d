//! A canonical tree as text, the way `config` prints it.

mod json;
mod members;
mod order;
mod yaml;

use super::schema::{Members, PROJECT};
use crate::model::tree::Node;

use members::View;

/// The tree of a project as `config --format yaml` prints it.
pub fn yaml(tree: &Node) -> String {
    yaml::text(tree, View::Project)
}

/// The tree of a project as `config --format json` prints it.
pub fn json(tree: &Node) -> String {
    json::text(tree, View::Project)
}

/// Any tree as indented JSON, members in the order of the tree.
pub fn json_text(node: &Node) -> String {
    json::text(node, View::Plain)
}

/// Any tree as block YAML, members in the order of the tree.
pub fn yaml_text(node: &Node) -> String {
    yaml::text(node, View::Plain)
}

/// A tree without known order, such as one whose variables are not replaced, as YAML.
pub fn plain_yaml(tree: &Node) -> String {
    yaml::text(tree, View::Ordered)
}

/// What the reference hashes of each service to tell whether its containers must be replaced: JSON in one line,
/// without what makes no difference to a container.
pub fn hashed_services(tree: &Node) -> Vec<(String, String)> {
    let services = tree.get("services").and_then(Node::as_map);
    let shape = PROJECT.attribute("services").and_then(|services| match services.shape.map {
        Members::Named { value, .. } => Some(value),
        Members::Struct(_) | Members::No => None,
    });
    let view = shape.map_or(View::Plain, View::Shape);
    let text = |(name, (_, service)): (&std::sync::Arc<str>, &(_, Node))| {
        let mut service = service.clone();
        if let Some(members) = service.as_map_mut() {
            for key in ["build", "pull_policy", "scale", "depends_on", "profiles"] {
                members.remove(key);
            }
        }
        if let Some(deploy) = service.get_mut("deploy").and_then(Node::as_map_mut) {
            deploy.remove("replicas");
        }
        (name.to_string(), json::compact(&service, view))
    };
    services.into_iter().flatten().map(text).collect()
}

/// `$` doubled, so that the text can be read as a Compose file again.
pub fn escape_dollars(text: String) -> String {
    if text.contains('$') { text.replace('$', "$$") } else { text }
}
