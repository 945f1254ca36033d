//! How one configuration differs from another.

use std::collections::BTreeSet;

use super::step::FieldChange;

/// The fields that differ, by dotted path; maps are gone into.
pub(super) fn differences(
    old: &serde_json::Map<String, serde_json::Value>,
    new: &serde_json::Map<String, serde_json::Value>,
) -> Vec<FieldChange> {
    let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let mut found = Vec::new();
    for key in keys {
        match (old.get(key), new.get(key)) {
            (Some(serde_json::Value::Object(old)), Some(serde_json::Value::Object(new))) => {
                let inner = differences(old, new).into_iter();
                found.extend(inner.map(|change| FieldChange { field: format!("{key}.{}", change.field), ..change }));
            }
            (old, new) if old != new => {
                found.push(FieldChange { field: key.clone(), old: old.cloned(), new: new.cloned() });
            }
            _ => {}
        }
    }
    found
}
