//! `--chmod`: octal, or in symbols as chmod(1) has them.

/// A change of mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Chmod {
    Absolute(u32),
    Symbolic(Vec<Clause>),
}

/// `ug+rX`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Clause {
    /// Bits of all permissions that the users named have: 0o700, 0o070, 0o007 and set-id or sticky ones.
    who: u32,
    operator: char,
    permissions: String,
}

impl Chmod {
    /// # Errors
    /// Says what is wrong.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if !text.is_empty() && text.chars().all(|c| c.is_ascii_digit()) {
            let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777);
            return mode.map(Self::Absolute).ok_or_else(|| format!("`{text}` is not an octal mode up to 7777"));
        }
        let mut clauses = Vec::new();
        for part in text.split(',') {
            clauses.extend(clause(part).ok_or_else(|| format!("`{text}` is no mode such as 0644 or u=rwX,go=rX"))?);
        }
        Ok(Self::Symbolic(clauses))
    }

    pub(super) fn apply(&self, mode: u32, directory: bool) -> u32 {
        match self {
            Self::Absolute(absolute) => *absolute,
            Self::Symbolic(clauses) => clauses.iter().fold(mode, |mode, clause| clause.apply(mode, directory)),
        }
    }
}

fn clause(text: &str) -> Option<Vec<Clause>> {
    let start = text.find(['+', '-', '='])?;
    let (users, mut rest) = text.split_at(start);
    let mut who = 0;
    for user in users.chars() {
        who |= match user {
            'u' => 0o4700,
            'g' => 0o2070,
            'o' => 0o1007,
            'a' => 0o7777,
            _ => return None,
        };
    }
    if users.is_empty() {
        who = 0o7777;
    }
    let mut clauses = Vec::new();
    while let Some(operator) = rest.chars().next() {
        rest = rest.get(1..)?;
        let end = rest.find(['+', '-', '=']).unwrap_or(rest.len());
        let (permissions, next) = rest.split_at(end);
        if !permissions.chars().all(|c| "rwxXstugo".contains(c)) {
            return None;
        }
        clauses.push(Clause { who, operator, permissions: permissions.to_owned() });
        rest = next;
    }
    Some(clauses)
}

impl Clause {
    fn apply(&self, mode: u32, directory: bool) -> u32 {
        let mut bits = 0;
        for permission in self.permissions.chars() {
            bits |= match permission {
                'r' => 0o444,
                'w' => 0o222,
                'x' => 0o111,
                'X' if directory || mode & 0o111 != 0 => 0o111,
                's' => 0o6000,
                't' => 0o1000,
                'u' => (mode >> 6 & 7) * 0o111,
                'g' => (mode >> 3 & 7) * 0o111,
                'o' => (mode & 7) * 0o111,
                _ => 0,
            };
        }
        let bits = bits & self.who;
        match self.operator {
            '+' => mode | bits,
            '-' => mode & !bits,
            _ => mode & !(self.who & if directory { 0o777 } else { 0o7777 }) | bits,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms() {
        let apply = |text: &str, mode, directory| Chmod::parse(text).unwrap().apply(mode, directory);
        assert_eq!(apply("0640", 0o777, false), 0o640);
        assert_eq!(apply("u=rwX,go=rX", 0o600, false), 0o644);
        assert_eq!(apply("u=rwX,go=rX", 0o700, true), 0o755);
        assert_eq!(apply("+x", 0o644, false), 0o755);
        assert_eq!(apply("a-w,u+s", 0o755, false), 0o4555);
        assert_eq!(apply("g=u", 0o640, false), 0o660);
        for bad in ["", "99", "77777", "z+x", "u+q", "rw"] {
            assert!(Chmod::parse(bad).is_err(), "{bad}");
        }
    }
}
