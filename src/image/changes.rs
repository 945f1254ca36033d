//! The Dockerfile instructions that only change an image's configuration, one at a time, as `import --change` takes them.

use super::config::{Healthcheck, ImageConfig};
use super::error::Error;

/// Applies one instruction.
pub(super) fn apply(change: &str, config: &mut ImageConfig) -> Result<(), Error> {
    let (keyword, rest) = change.trim().split_once(char::is_whitespace).unwrap_or((change.trim(), ""));
    let rest = rest.trim();
    let bad = |reason: String| Error::BadChange { change: change.to_owned(), reason };
    if rest.is_empty() {
        return Err(bad("it says nothing after its first word".to_owned()));
    }
    match keyword.to_ascii_uppercase().as_str() {
        "CMD" => config.cmd = Some(command(rest, config)),
        "ENTRYPOINT" => config.entrypoint = Some(command(rest, config)),
        "ENV" => pairs(rest).map_err(bad)?.iter().for_each(|(name, value)| set_env(config, name, value)),
        "EXPOSE" => config.exposed_ports.extend(ports(rest).map_err(bad)?),
        "HEALTHCHECK" => config.healthcheck = Some(healthcheck(rest, config).map_err(bad)?),
        "LABEL" => config.labels.extend(pairs(rest).map_err(bad)?),
        "ONBUILD" => config.on_build.push(rest.to_owned()),
        "STOPSIGNAL" => config.stop_signal = Some(rest.to_owned()),
        "USER" => rest.clone_into(&mut config.user),
        "VOLUME" => config.volumes.extend(list(rest).map_err(bad)?),
        "WORKDIR" => config.working_dir = working_dir(&config.working_dir, rest),
        _ => return Err(bad(format!("`{keyword}` is not an instruction that changes the configuration"))),
    }
    Ok(())
}

/// `["a", "b"]` is a command, anything else a line for the shell.
fn command(text: &str, config: &ImageConfig) -> Vec<String> {
    serde_json::from_str(text).unwrap_or_else(|_not_a_list| {
        let shell = config.shell.clone().unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned()]);
        shell.into_iter().chain([text.to_owned()]).collect()
    })
}

fn list(text: &str) -> Result<Vec<String>, String> {
    serde_json::from_str(text).or_else(|_not_a_list| words(text))
}

fn set_env(config: &mut ImageConfig, name: &str, value: &str) {
    let line = format!("{name}={value}");
    match config.env.iter_mut().find(|there| there.split('=').next() == Some(name)) {
        Some(there) => *there = line,
        None => config.env.push(line),
    }
}

/// `NAME=value NAME2="other value"`, or the old form `NAME value to the end`.
fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let words = words(text)?;
    match words.first() {
        Some(first) if !first.contains('=') => {
            let (name, value) = text.split_once(char::is_whitespace).ok_or_else(|| format!("`{text}` has no value"))?;
            Ok(vec![(name.to_owned(), value.trim().to_owned())])
        }
        _ => words
            .iter()
            .map(|word| match word.split_once('=') {
                Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
                _ => Err(format!("`{word}` is not of the form NAME=VALUE")),
            })
            .collect(),
    }
}

/// Splits at blanks outside of quotes and takes the quotes away.
fn words(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, '"' | '\'') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (Some(open), c) if c == open => quote = None,
            (None | Some('"'), '\\') => word.get_or_insert_default().push(characters.next().unwrap_or('\\')),
            (None | Some('"'), '$') => {
                return Err("variables are not expanded here; write `\\$` for a dollar".to_owned());
            }
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    if quote.is_some() { Err("a quote is not closed".to_owned()) } else { Ok(words) }
}

/// `80`, `80/udp`, `80-82/tcp`.
fn ports(text: &str) -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    for word in words(text)? {
        let (range, protocol) = word.split_once('/').unwrap_or((&word, "tcp"));
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        match (first.parse::<u16>(), last.parse::<u16>()) {
            (Ok(first), Ok(last)) if first <= last && matches!(protocol, "tcp" | "udp" | "sctp") => {
                found.extend((first..=last).map(|port| format!("{port}/{protocol}")));
            }
            _ => return Err(format!("`{word}` is not a port")),
        }
    }
    Ok(found)
}

fn working_dir(before: &str, path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("{}/{path}", before.trim_end_matches('/')) }
}

fn healthcheck(text: &str, config: &ImageConfig) -> Result<Healthcheck, String> {
    let mut check = Healthcheck::default();
    let mut rest = text;
    while let Some(option) = rest.strip_prefix("--") {
        let (option, after) = option.split_once(char::is_whitespace).ok_or("there is no command")?;
        let (name, value) = option.split_once('=').ok_or_else(|| format!("`--{option}` has no value"))?;
        match name {
            "interval" => check.interval = nanoseconds(value)?,
            "timeout" => check.timeout = nanoseconds(value)?,
            "start-period" => check.start_period = nanoseconds(value)?,
            "start-interval" => check.start_interval = nanoseconds(value)?,
            "retries" => check.retries = value.parse().map_err(|_| format!("`{value}` is not a number"))?,
            _ => return Err(format!("`--{name}` is not an option of HEALTHCHECK")),
        }
        rest = after.trim_start();
    }
    let (kind, command_text) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let command_text = command_text.trim();
    check.test = match (kind.to_ascii_uppercase().as_str(), serde_json::from_str::<Vec<String>>(command_text)) {
        ("NONE", _) => vec!["NONE".to_owned()],
        ("CMD", _) if command_text.is_empty() => return Err("there is no command".to_owned()),
        ("CMD", Ok(arguments)) => [vec!["CMD".to_owned()], arguments].concat(),
        ("CMD", Err(_)) if config.shell.is_none() => vec!["CMD-SHELL".to_owned(), command_text.to_owned()],
        ("CMD", Err(_)) => [vec!["CMD".to_owned()], command(command_text, config)].concat(),
        _ => return Err(format!("`{kind}` is neither CMD nor NONE")),
    };
    Ok(check)
}

/// A duration as the Go language writes it: `1m30s`, `500ms`.
fn nanoseconds(text: &str) -> Result<i64, String> {
    let bad = || format!("`{text}` is not a duration such as 1m30s");
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let (number, after) = rest.split_at(digits);
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let factor = match unit {
            "h" => 3600e9,
            "m" => 60e9,
            "s" => 1e9,
            "ms" => 1e6,
            "us" | "µs" => 1e3,
            "ns" => 1.0,
            _ => return Err(bad()),
        };
        total += number.parse::<f64>().map_err(|_| bad())? * factor;
        rest = after;
    }
    // Docker takes nothing below a millisecond; the cast cannot lose anything that matters here.
    if (1e6..9e18).contains(&total) { Ok(total as i64) } else { Err(bad()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(changes: &[&str]) -> ImageConfig {
        let mut config = ImageConfig::default();
        for change in changes {
            apply(change, &mut config).unwrap();
        }
        config
    }

    #[test]
    fn instructions_change_the_configuration() {
        let config = applied(&[
            r#"ENTRYPOINT ["docker-entrypoint.sh"]"#,
            "CMD exec postgres -c a=b",
            r#"ENV A=1 B="two words" C=it\ is D='$x'"#,
            "env A other value",
            "EXPOSE 5432 53/udp 8000-8001",
            "VOLUME /var/lib/postgresql/data /b",
            r#"VOLUME ["/with space"]"#,
            "WORKDIR /srv",
            "WORKDIR app",
            "USER 70:70",
            r#"LABEL a="b c""#,
            "STOPSIGNAL SIGINT",
            "HEALTHCHECK --interval=1m30s --timeout=500ms --retries=3 CMD pg_isready -U x",
        ]);
        assert_eq!(config.entrypoint.unwrap(), ["docker-entrypoint.sh"]);
        assert_eq!(config.cmd.unwrap(), ["/bin/sh", "-c", "exec postgres -c a=b"]);
        assert_eq!(config.env, ["A=other value", "B=two words", "C=it is", "D=$x"]);
        assert_eq!(
            config.exposed_ports.into_iter().collect::<Vec<_>>(),
            ["53/udp", "5432/tcp", "8000/tcp", "8001/tcp"]
        );
        assert_eq!(config.volumes.into_iter().collect::<Vec<_>>(), ["/b", "/var/lib/postgresql/data", "/with space"]);
        assert_eq!((config.working_dir.as_str(), config.user.as_str()), ("/srv/app", "70:70"));
        assert_eq!(config.labels["a"], "b c");
        let check = config.healthcheck.unwrap();
        assert_eq!(check.test, ["CMD-SHELL", "pg_isready -U x"]);
        assert_eq!((check.interval, check.timeout, check.retries), (90_000_000_000, 500_000_000, 3));
    }

    #[test]
    fn what_is_no_such_instruction_is_refused() {
        let bad = [
            "",
            "CMD",
            "RUN true",
            "ENV =x",
            "ENV A=\"x",
            "ENV A=$HOME",
            "EXPOSE http",
            "EXPOSE 9-8",
            "HEALTHCHECK --interval=5 CMD x",
            "HEALTHCHECK CMD",
        ];
        for change in bad {
            assert!(apply(change, &mut ImageConfig::default()).is_err(), "{change}");
        }
    }
}
