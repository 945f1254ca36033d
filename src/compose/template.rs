//! `${VARIABLE:-default}` in text: parsing and substitution. Pure.

use std::borrow::Cow;

/// What is wrong with a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TemplateError {
    /// `${` without its end, or something in braces that is no variable.
    Syntax,
    /// `${VARIABLE:?message}` whose variable has no value.
    Required { variable: String, message: String },
    /// The values of its variables make it longer than [`MAX_LENGTH`].
    TooLong,
}

/// Bytes of a text whose variables are replaced. Values that hold each other's values can double at every step.
pub(super) const MAX_LENGTH: usize = 4 * 1024 * 1024;

/// A use of a variable, for `config --variables` and for warnings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Variable {
    pub(super) name: String,
    pub(super) default: String,
    pub(super) presence: String,
    pub(super) required: bool,
}

/// A piece of a template.
enum Piece<'a> {
    Text(&'a str),
    Dollar,
    Variable { name: &'a str, operation: Option<(Operator, &'a str)> },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operator {
    /// `:-`
    DefaultIfEmpty,
    /// `-`
    DefaultIfUnset,
    /// `:?`
    RequiredNonEmpty,
    /// `?`
    Required,
    /// `:+`
    AlternateIfNonEmpty,
    /// `+`
    AlternateIfSet,
}

/// How deep defaults may hold templates themselves.
const MAX_NESTING: usize = 32;

/// Replaces the variables of `template`. `lookup` gives values; `missing` hears of each variable that has none
/// and no operator that would say what to do then.
pub(super) fn substitute<'a>(
    template: &'a str,
    lookup: &dyn Fn(&str) -> Option<String>,
    missing: &mut dyn FnMut(&str),
) -> Result<Cow<'a, str>, TemplateError> {
    if !template.contains('$') {
        return Ok(Cow::Borrowed(template));
    }
    expand(template, lookup, missing, 0).map(Cow::Owned)
}

fn expand(
    template: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
    missing: &mut dyn FnMut(&str),
    depth: usize,
) -> Result<String, TemplateError> {
    if depth > MAX_NESTING {
        return Err(TemplateError::Syntax);
    }
    let mut result = String::with_capacity(template.len());
    let mut rest = template;
    while !rest.is_empty() {
        let (piece, tail) = next_piece(rest)?;
        rest = tail;
        match piece {
            Piece::Text(text) => result.push_str(text),
            Piece::Dollar => result.push('$'),
            Piece::Variable { name, operation: None } => match lookup(name) {
                Some(value) => result.push_str(&value),
                None => missing(name),
            },
            Piece::Variable { name, operation: Some((operator, argument)) } => {
                let argument = expand(argument, lookup, missing, depth + 1)?;
                result.push_str(&operate(name, lookup(name), operator, argument)?);
            }
        }
        if result.len() > MAX_LENGTH.max(template.len()) {
            return Err(TemplateError::TooLong);
        }
    }
    Ok(result)
}

fn operate(name: &str, value: Option<String>, operator: Operator, argument: String) -> Result<String, TemplateError> {
    let filled = value.as_deref().is_some_and(|value| !value.is_empty());
    let is_set = value.is_some();
    let value = value.unwrap_or_default();
    Ok(match operator {
        Operator::DefaultIfEmpty => {
            if filled {
                value
            } else {
                argument
            }
        }
        Operator::DefaultIfUnset => {
            if is_set {
                value
            } else {
                argument
            }
        }
        Operator::AlternateIfNonEmpty => {
            if filled {
                argument
            } else {
                value
            }
        }
        Operator::AlternateIfSet => {
            if is_set {
                argument
            } else {
                value
            }
        }
        Operator::RequiredNonEmpty if filled => value,
        Operator::Required if is_set => value,
        Operator::RequiredNonEmpty | Operator::Required => {
            return Err(TemplateError::Required { variable: name.to_owned(), message: argument });
        }
    })
}

/// Splits the first piece off a non-empty template.
fn next_piece(template: &str) -> Result<(Piece<'_>, &str), TemplateError> {
    let Some(after) = template.strip_prefix('$') else {
        let end = template.find('$').unwrap_or(template.len());
        let (text, rest) = template.split_at(end);
        return Ok((Piece::Text(text), rest));
    };
    if let Some(rest) = after.strip_prefix('$') {
        return Ok((Piece::Dollar, rest));
    }
    if let Some(inside) = after.strip_prefix('{') {
        let (body, rest) = braced(inside).ok_or(TemplateError::Syntax)?;
        return Ok((variable(body)?, rest));
    }
    let (name, rest) = after.split_at(name_length(after));
    if name.is_empty() {
        return Ok((Piece::Text("$"), after));
    }
    Ok((Piece::Variable { name, operation: None }, rest))
}

/// Text up to the brace that closes, minding nested ones; where they do not balance, up to the last one.
fn braced(inside: &str) -> Option<(&str, &str)> {
    let mut open = 1_usize;
    let mut end = inside.rfind('}')?;
    for (index, byte) in inside.bytes().enumerate() {
        match byte {
            b'{' => open += 1,
            b'}' => open -= 1,
            _ => {}
        }
        if open == 0 {
            end = index;
            break;
        }
    }
    Some((inside.get(..end)?, inside.get(end + 1..)?))
}

fn variable(body: &str) -> Result<Piece<'_>, TemplateError> {
    let (name, rest) = body.split_at(name_length(body));
    if name.is_empty() {
        return Err(TemplateError::Syntax);
    }
    if rest.is_empty() {
        return Ok(Piece::Variable { name, operation: None });
    }
    let operators = [
        (":-", Operator::DefaultIfEmpty),
        ("-", Operator::DefaultIfUnset),
        (":?", Operator::RequiredNonEmpty),
        ("?", Operator::Required),
        (":+", Operator::AlternateIfNonEmpty),
        ("+", Operator::AlternateIfSet),
    ];
    let found = operators.iter().find_map(|(sign, operator)| Some((*operator, rest.strip_prefix(sign)?)));
    found.map(|operation| Piece::Variable { name, operation: Some(operation) }).ok_or(TemplateError::Syntax)
}

fn name_length(text: &str) -> usize {
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return 0;
    }
    text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len())
}

/// Variables written without braces: where their `$` is, and their names.
pub(super) fn bare_names(template: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut rest = template;
    while !rest.is_empty() {
        let start = template.len() - rest.len();
        let Ok((piece, tail)) = next_piece(rest) else { break };
        if let Piece::Variable { name, operation: None } = piece
            && !rest.starts_with("${")
        {
            found.push((start, name));
        }
        rest = tail;
    }
    found
}

/// Every variable that `template` names, those in defaults included.
pub(super) fn variables(template: &str) -> Vec<Variable> {
    let mut found = Vec::new();
    collect(template, &mut found, 0);
    found
}

fn collect(template: &str, found: &mut Vec<Variable>, depth: usize) {
    let mut rest = template;
    while !rest.is_empty() && depth <= MAX_NESTING {
        let Ok((piece, tail)) = next_piece(rest) else { return };
        rest = tail;
        if let Piece::Variable { name, operation } = piece {
            let mut variable =
                Variable { name: name.to_owned(), default: String::new(), presence: String::new(), required: false };
            match operation {
                Some((Operator::DefaultIfEmpty | Operator::DefaultIfUnset, text)) => variable.default = text.to_owned(),
                Some((Operator::AlternateIfNonEmpty | Operator::AlternateIfSet, text)) => {
                    variable.presence = text.to_owned();
                }
                Some((Operator::Required | Operator::RequiredNonEmpty, _)) => variable.required = true,
                None => {}
            }
            found.push(variable);
            if let Some((_, argument)) = operation {
                collect(argument, found, depth + 1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(template: &str) -> Result<String, TemplateError> {
        let lookup = |name: &str| match name {
            "FOO" => Some("foo".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        substitute(template, &lookup, &mut |_| {}).map(Cow::into_owned)
    }

    #[test]
    fn every_operator() {
        let cases = [
            ("$FOO-${FOO}", "foo-foo"),
            ("$$FOO", "$FOO"),
            ("${EMPTY:-d}|${EMPTY-d}|${NO-d}", "d||d"),
            ("${FOO:+a}|${EMPTY:+a}|${EMPTY+a}|${NO+a}", "a||a|"),
            ("${NO:-${FOO}${NO:-x}}", "foox"),
            ("${NO-BAR:-baz}", "BAR:-baz"),
            ("$1 $ $- a$", "$1 $ $- a$"),
            ("${NO:-a{b}c}", "a{b}c"),
            ("${NO:-{}x", "{x"),
            ("${FOO:?}", "foo"),
        ];
        for (template, expected) in cases {
            assert_eq!(run(template).as_deref(), Ok(expected), "{template}");
        }
    }

    #[test]
    fn errors_are_told_apart() {
        for template in ["${", "${}", "${FOO!x}", "${ FOO}", "${FOO", "${1}"] {
            assert_eq!(run(template), Err(TemplateError::Syntax), "{template}");
        }
        let required = TemplateError::Required { variable: "NO".into(), message: "set foo".into() };
        assert_eq!(run("${NO:?set ${FOO}}"), Err(required));
    }

    #[test]
    fn variables_of_defaults_count() {
        let names: Vec<_> = variables("a ${A:-$B} ${C:?x} $$D").into_iter().map(|v| v.name).collect();
        assert_eq!(names, ["A", "B", "C"]);
    }

    proptest! {
        #[test]
        fn no_text_panics(template in "[${}:?+a-z -]{0,40}|\\PC{0,40}") {
            let _ = run(&template);
            let _ = variables(&template);
        }

        #[test]
        fn doubled_dollars_come_back(text in "[a-z$ ]{0,20}") {
            prop_assert_eq!(run(&text.replace('$', "$$")), Ok(text));
        }
    }
}
