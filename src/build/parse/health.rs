//! `HEALTHCHECK`.

use super::flags::Flag;
use super::instruction::Command;
use super::words::json_list;
use crate::base::units::parse_duration;

/// The options are nanoseconds; 0 is "not given".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// `None`: no check, whatever the base image has.
    pub command: Option<Command>,
    pub interval: i64,
    pub timeout: i64,
    pub start_period: i64,
    pub start_interval: i64,
    pub retries: i64,
}

pub(super) fn parse(text: &str, flags: &[Flag]) -> Result<Health, String> {
    let mut health = Health { command: None, interval: 0, timeout: 0, start_period: 0, start_interval: 0, retries: 0 };
    let (kind, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let rest = rest.trim();
    match kind.to_ascii_uppercase().as_str() {
        "NONE" if rest.is_empty() && flags.is_empty() => return Ok(health),
        "NONE" => return Err("`NONE` takes nothing else".to_owned()),
        "CMD" if rest.is_empty() => return Err("there is no command after `CMD`".to_owned()),
        "CMD" => {}
        _ => return Err(format!("`{kind}` is neither `CMD` nor `NONE`")),
    }
    for (flag, value) in flags {
        let value = value.as_deref().ok_or_else(|| format!("`--{flag}` needs a value"))?;
        match flag.as_str() {
            "interval" => health.interval = duration(flag, value)?,
            "timeout" => health.timeout = duration(flag, value)?,
            "start-period" => health.start_period = duration(flag, value)?,
            "start-interval" => health.start_interval = duration(flag, value)?,
            "retries" => {
                let retries = value.parse().ok().filter(|retries| (0..=i64::from(i32::MAX)).contains(retries));
                health.retries = retries.ok_or_else(|| format!("`--retries={value}` is not a number from 0 on"))?;
            }
            _ => return Err(format!("unknown flag `--{flag}`")),
        }
    }
    health.command = Some(match json_list(rest)? {
        Some(words) => Command::Exec(words),
        None => Command::Shell(rest.to_owned()),
    });
    Ok(health)
}

fn duration(flag: &str, value: &str) -> Result<i64, String> {
    const SHORTEST: i64 = 1_000_000;
    match parse_duration(value) {
        Some(span) if span.0 == 0 || span.0 >= SHORTEST => Ok(span.0),
        Some(_) => Err(format!("`--{flag}={value}` is less than a millisecond")),
        None => Err(format!("`--{flag}={value}` is not a duration such as `1m30s`")),
    }
}
