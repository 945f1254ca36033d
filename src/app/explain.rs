//! `config --explain`: where values come from, as text or JSON.

use serde_json::json;

use crate::base::diagnostic::Place;
use crate::compose::explain::{Explanation, Step};

/// A line per value, and one per step below it.
pub fn text(explanations: &[Explanation]) -> String {
    let mut text = String::new();
    for Explanation { path, value, steps } in explanations {
        text += &format!("{path} = {value}\n");
        for Step { place, text: step } in steps {
            text += &match place {
                Some(place) => format!("  {place}: {step}\n"),
                None => format!("  {step}\n"),
            };
        }
    }
    text
}

/// A list of `{path, value, steps: [{place, text}]}`.
pub fn json(explanations: &[Explanation]) -> String {
    let place = |place: &Place| json!({ "file": place.file, "line": place.line, "column": place.column });
    let step = |step: &Step| json!({ "place": step.place.as_ref().map(place), "text": step.text });
    let value = |explanation: &Explanation| {
        let steps: Vec<_> = explanation.steps.iter().map(step).collect();
        json!({ "path": explanation.path, "value": explanation.value, "steps": steps })
    };
    let values: Vec<_> = explanations.iter().map(value).collect();
    format!("{:#}\n", serde_json::Value::Array(values))
}
