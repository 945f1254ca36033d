//! What of a tree the two forms have, and in which order. It is looked up while the tree is written, so that nothing
//! but the text itself is made of a large project.

use std::borrow::Cow;
use std::sync::Arc;

use super::order;
use crate::compose::schema::{Attribute, Members, PROJECT, Shape, Struct, Zero};
use crate::model::tree::{Map, Node, Value};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Yaml,
    Json,
}

/// What is known of a value that is written.
#[derive(Clone, Copy)]
pub(super) enum View {
    /// The project itself.
    Project,
    /// A value of the format.
    Shape(&'static Shape),
    /// Keys in the order that YAML has, all the way down.
    Ordered,
    /// As the tree has it, but for empty lists, which are null. So they are in the extensions of the reference.
    NullLists,
    /// As the tree has it.
    Plain,
}

impl View {
    /// What is known of the items of a list.
    pub(super) fn items(self) -> Self {
        match self {
            Self::Project => Self::Plain,
            Self::Shape(shape) => shape.list.map_or(Self::Plain, |items| Self::Shape(items.shape)),
            other => other,
        }
    }
}

/// A key and its value.
pub(super) struct Member<'a> {
    pub(super) name: Cow<'a, str>,
    pub(super) node: Cow<'a, Node>,
    pub(super) view: View,
}

/// The members of a mapping in the order in which they are written.
pub(super) fn members(map: &Map, view: View, form: Form) -> Vec<Member<'_>> {
    match view {
        View::Project => {
            let mut members = structure(map, &PROJECT, form, true);
            if form == Form::Json {
                members.retain(|member| member.name != "models");
                members.sort_by(|a, b| a.name.cmp(&b.name));
            }
            members
        }
        View::Shape(Shape { map: Members::Struct(known), .. }) => structure(map, known, form, false),
        View::Shape(Shape { map: Members::Named { value, .. }, .. }) => {
            let mut members = all(map, View::Shape(value));
            if form == Form::Yaml {
                members.sort_by(|a, b| order::natural(&a.name, &b.name));
            }
            members
        }
        View::Shape(_) | View::Plain => all(map, View::Plain),
        View::NullLists => all(map, View::NullLists),
        View::Ordered => {
            let mut members = all(map, View::Ordered);
            members.sort_by(|a, b| order::natural(&a.name, &b.name));
            members
        }
    }
}

fn all(map: &Map, view: View) -> Vec<Member<'_>> {
    map.iter().map(|(key, (_, node))| Member { name: Cow::Borrowed(key), node: Cow::Borrowed(node), view }).collect()
}

/// Adds and leaves out what the two forms have differently.
fn structure<'a>(map: &'a Map, known: &'static Struct, form: Form, top: bool) -> Vec<Member<'a>> {
    let mut members: Vec<Member<'a>> = Vec::with_capacity(map.len() + 2);
    if form == Form::Json {
        members.extend(known.attributes.iter().filter_map(|attribute| json_member(map, attribute, known.capital)));
    } else {
        // In the order of the format already, but for what was added late.
        let mut positions: Vec<(usize, Member<'a>)> = Vec::with_capacity(map.len());
        for (key, (_, node)) in map {
            let Some((position, attribute)) =
                known.position(key).and_then(|position| Some((position, known.attributes.get(position)?)))
            else {
                continue;
            };
            let empty = node.as_map().is_some_and(Map::is_empty);
            if !(empty && attribute.zero == Zero::JsonObject) {
                let (node, view) = value(node, attribute);
                positions.push((position, Member { name: Cow::Borrowed(key), node, view }));
            }
        }
        positions.sort_by_key(|(position, _)| *position);
        members.extend(positions.into_iter().map(|(_, member)| member));
    }
    let first = members.len();
    for (key, (_, node)) in map {
        // JSON has extensions at the top only.
        if (form == Form::Yaml || top) && known.position(key).is_none() {
            let view = if form == Form::Yaml { View::Ordered } else { View::NullLists };
            members.push(Member { name: Cow::Borrowed(key), node: Cow::Borrowed(node), view });
        }
    }
    if form == Form::Yaml
        && let Some(extensions) = members.get_mut(first..)
    {
        extensions.sort_by(|a, b| order::natural(&a.name, &b.name));
    }
    members
}

/// What JSON has of an attribute, which may be something although the tree has nothing.
fn json_member<'a>(map: &'a Map, attribute: &'static Attribute, capital: bool) -> Option<Member<'a>> {
    let (node, view) = match map.get(attribute.name) {
        Some((_, node)) if matches!(node.value, Value::Int(0)) && attribute.zero == Zero::Yaml => return None,
        Some((_, node)) => value(node, attribute),
        None => {
            let value = match attribute.zero {
                Zero::JsonNull => Value::Null,
                Zero::JsonObject => Value::from(Map::default()),
                Zero::Omit | Zero::Keep | Zero::Yaml | Zero::Never => return None,
            };
            (Cow::Owned(Node { value, ..Node::default() }), View::Shape(attribute.shape))
        }
    };
    let name = if capital { Cow::Owned(capitalised(attribute.name)) } else { Cow::Borrowed(attribute.name) };
    Some(Member { name, node, view })
}

fn value<'a>(node: &'a Node, attribute: &'static Attribute) -> (Cow<'a, Node>, View) {
    match attribute.name {
        "ssh" => (Cow::Owned(ssh_keys(node)), View::Plain),
        _ => (Cow::Borrowed(node), View::Shape(attribute.shape)),
    }
}

/// `ID` or `ID: PATH`, as a list of texts.
fn ssh_keys(node: &Node) -> Node {
    let keys = node.as_map().into_iter().flatten().map(|(id, (mark, path))| match path.as_str().unwrap_or_default() {
        "" => Node::string(Arc::clone(id), *mark),
        path => Node::string(format!("{id}: {path}"), *mark),
    });
    Node::new(Value::List(keys.collect()), node.mark)
}

fn capitalised(name: &str) -> String {
    let mut chars = name.chars();
    chars.next().into_iter().flat_map(char::to_uppercase).chain(chars).collect()
}
