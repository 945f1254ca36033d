//! The table of attributes as a JSON Schema, for editors.

use serde_json::{Map, Value, json};

use super::descriptions::{description, examples};
use super::{ANY, Cast, Keys, Members, Number, PROJECT, Shape, Struct, Text, Unique};

/// What editors show in place of a pattern that does not match; validators do not know it.
const PATTERN_MESSAGE: &str = "patternErrorMessage";

/// The schema of a whole file, draft 2020-12.
pub(in crate::compose) fn document() -> Value {
    let mut schema = Map::new();
    schema.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
    schema.insert("title".to_owned(), json!("Compose file"));
    schema.insert("description".to_owned(), json!("A Compose file as rcompose reads it. Generated: do not edit."));
    schema.insert("type".to_owned(), json!("object"));
    members(&PROJECT, &mut schema, "");
    Value::Object(schema)
}

fn members(structure: &Struct, schema: &mut Map<String, Value>, path: &str) {
    let mut properties = Map::new();
    for attribute in structure.attributes {
        let path = if path.is_empty() { attribute.name.to_owned() } else { format!("{path}.{}", attribute.name) };
        let mut schema = shape(attribute.shape, &path);
        if let Some(members) = schema.as_object_mut() {
            if let Some(text) = description(&path) {
                members.insert("description".to_owned(), json!(text));
            }
            if let Some(words) = examples(&path) {
                members.insert("examples".to_owned(), json!(words));
            }
            // Of equal items, the loader keeps the last before it looks.
            if attribute.unique != Unique::No {
                members.shift_remove("uniqueItems");
            }
        }
        properties.insert(attribute.name.to_owned(), schema);
    }
    schema.insert("properties".to_owned(), Value::Object(properties));
    if !structure.required.is_empty() {
        schema.insert("required".to_owned(), json!(structure.required));
    }
    if structure.extensions {
        schema.insert("patternProperties".to_owned(), json!({"^x-": {}}));
    }
    if !structure.open {
        schema.insert("additionalProperties".to_owned(), json!(false));
    }
}

/// Keywords of one kind of value say nothing about the others, so that all kinds fit into one schema.
fn shape(shape: &'static Shape, path: &str) -> Value {
    if std::ptr::eq(shape, &raw const ANY) {
        return json!({});
    }
    let mut schema = Map::new();
    let mut types = Vec::new();
    let mut add = |keyword: &str, value: Value| {
        schema.insert(keyword.to_owned(), value);
    };
    match shape.text {
        Text::No => {}
        Text::Any => {
            types.push("string");
            if let Some((pattern, wanted)) = pattern_of_cast(shape.cast) {
                add("pattern", json!(or_variable(pattern)));
                add(PATTERN_MESSAGE, json!(format!("This must be {wanted}.")));
            }
        }
        Text::OneOf(words) => {
            types.push("string");
            add("pattern", json!(or_variable(&format!("^({})$", words.join("|").replace('+', "\\+")))));
            add(PATTERN_MESSAGE, json!(format!("This must be one of {}.", words.join(", "))));
            add("examples", json!(words));
        }
        Text::Like(pattern, _) => {
            types.push("string");
            add("pattern", json!(or_variable(pattern)));
            add(PATTERN_MESSAGE, json!(format!("This must match {pattern}.")));
        }
    }
    match shape.number {
        Number::No => {}
        Number::Any => types.push("number"),
        Number::Integer => types.push("integer"),
        Number::Between(least, most) => {
            types.push("integer");
            add("minimum", json!(least));
            if most < i64::MAX {
                add("maximum", json!(most));
            }
        }
    }
    if shape.cast == Cast::Unsigned {
        add("minimum", json!(0));
    }
    if shape.boolean {
        types.push("boolean");
    }
    if shape.null {
        types.push("null");
    }
    if let Some(items) = shape.list {
        types.push("array");
        add("items", self::shape(items.shape, &format!("{path}.*")));
        if items.unique {
            add("uniqueItems", json!(true));
        }
    }
    match shape.map {
        Members::No => {}
        Members::Struct(structure) => {
            types.push("object");
            members(structure, &mut schema, path);
        }
        Members::Named { keys, value, others } => {
            types.push("object");
            let path = format!("{path}.*");
            let mut value = self::shape(value, &path);
            if let (Some(members), Some(text)) = (value.as_object_mut(), description(&path)) {
                members.insert("description".to_owned(), json!(text));
            }
            let mut patterns = Map::from_iter([(pattern_of_keys(keys).to_owned(), value)]);
            if !others {
                patterns.entry("^x-").or_insert_with(|| json!({}));
                schema.insert("additionalProperties".to_owned(), json!(false));
            }
            schema.insert("patternProperties".to_owned(), Value::Object(patterns));
        }
    }
    let types = if let [one] = types.as_slice() { json!(one) } else { json!(types) };
    schema.insert("type".to_owned(), types);
    Value::Object(schema)
}

fn pattern_of_keys(keys: Keys) -> &'static str {
    match keys {
        Keys::Any => ".",
        Keys::Resource => "^[a-zA-Z0-9._-]+$",
        Keys::Lowercase => "^[a-z]+$",
    }
}

/// What text must look like to become a value of the type, as a pattern and in words.
fn pattern_of_cast(cast: Cast) -> Option<(&'static str, &'static str)> {
    Some(match cast {
        Cast::Keep | Cast::Text | Cast::TextOrNull => return None,
        Cast::Bool => (
            "^([tT][rR][uU][eE]|[fF][aA][lL][sS][eE]|[yY]([eE][sS])?|[nN][oO]?|[oO][nN]|[oO][fF][fF])$",
            "true or false",
        ),
        Cast::Int => ("^[+-]?[0-9]+$", "a whole number"),
        Cast::Unsigned => ("^[+]?[0-9]+$", "a whole number that is not negative"),
        Cast::Float => ("^[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]+)?$", "a number"),
        Cast::Bytes => (
            "^[+]?([0-9][0-9_]*[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]+)? ?([bB]|[kKmMgGtTpP]([iI]?[bB])?)?$",
            "a size such as 512m or 1gb",
        ),
        Cast::Duration => {
            ("^[+-]?(0|(([0-9]+[.]?[0-9]*|[.][0-9]+)(ns|us|µs|μs|ms|s|m|h|d|w))+)$", "a time such as 30s or 1m30s")
        }
        Cast::Mode => ("^[+-]?[0-7]+$", "octal permissions such as 0440"),
        Cast::Count => ("^(all|[+-]?[0-9]+)$", "all or a whole number"),
    })
}

/// A variable may stand for anything.
fn or_variable(pattern: &str) -> String {
    format!("({pattern})|[$]")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Calls `visit` with the path and schema of every attribute.
    fn attributes(schema: &Value, path: &str, visit: &mut dyn FnMut(&str, &Value)) {
        for (name, attribute) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            visit(&path, attribute);
            attributes(attribute, &path, visit);
        }
        let patterns = schema["patternProperties"].as_object().into_iter().flatten().map(|(_, value)| value);
        for inner in patterns.chain(schema.get("items")) {
            attributes(inner, &format!("{path}.*"), visit);
        }
    }

    #[test]
    fn every_attribute_is_described() {
        let mut missing = Vec::new();
        let mut count = 0;
        attributes(&document(), "", &mut |path, schema| {
            count += 1;
            if schema["description"].as_str().is_none() {
                missing.push(path.to_owned());
            }
            // What an editor shows of a pattern must be words.
            assert_eq!(schema.get("pattern").is_some(), schema.get(PATTERN_MESSAGE).is_some(), "{path}");
        });
        assert!(missing.is_empty(), "without description: {missing:#?}");
        assert!(count > 290, "{count} attributes");
    }
}
