//! What `doctor` has found, for people and for programs.

use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Ok,
    /// Works, with a limit that a person may want to know of.
    Note,
    /// Something does not work.
    Lack,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub what: &'static str,
    pub state: State,
    pub found: String,
    /// What does not work because of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<String>,
    /// The command that mends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

/// One paragraph per finding.
pub fn text(findings: &[Finding]) -> String {
    let mut text = String::new();
    for Finding { what, state, found, cost, mend } in findings {
        let word = match state {
            State::Ok => "ok  ",
            State::Note => "note",
            State::Lack => "LACK",
        };
        text.push_str(&format!("{word}  {what}: {found}\n"));
        if let Some(cost) = cost {
            text.push_str(&format!("      without it: {cost}\n"));
        }
        if let Some(mend) = mend {
            text.push_str(&format!("      to mend it: {mend}\n"));
        }
    }
    text
}

/// A list of objects.
pub fn json(findings: &[Finding]) -> String {
    // Plain strings cannot fail to be written as JSON.
    serde_json::to_string_pretty(findings).unwrap_or_default() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lack_says_what_it_costs_and_what_mends_it() {
        let lack = Finding {
            what: "tap",
            state: State::Lack,
            found: "none".to_owned(),
            cost: Some("no way out".to_owned()),
            mend: Some("modprobe tun".to_owned()),
        };
        assert_eq!(
            text(std::slice::from_ref(&lack)),
            "LACK  tap: none\n      without it: no way out\n      to mend it: modprobe tun\n"
        );
        let read: serde_json::Value = serde_json::from_str(&json(&[lack])).unwrap();
        assert_eq!(read[0]["state"], "lack");
    }
}
