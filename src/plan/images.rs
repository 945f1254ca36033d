//! Which images a project needs, and when each is fetched again.

use std::time::Duration;

use crate::base::diagnostic::Place;
use crate::model::{Project, VolumeKind};

/// When an image is fetched from its registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullPolicy {
    Always,
    /// When it is not in the store.
    Missing,
    Never,
    /// It is built, and never fetched.
    Build,
    /// When it is not in the store, or was fetched so long ago.
    Refresh(Duration),
}

impl PullPolicy {
    /// `pull_policy` of a service: `always`, `missing`, `if_not_present`, `refresh`, `never`, `build`, `daily`,
    /// `weekly`, and `every_` with a duration of weeks, days, hours, minutes and seconds (`every_1w2d`).
    pub fn parse(text: &str) -> Option<Self> {
        const DAY: Duration = Duration::from_secs(24 * 3600);
        Some(match text {
            "always" => Self::Always,
            // The reference takes `refresh` for `missing`: it has no duration.
            "" | "missing" | "if_not_present" | "refresh" => Self::Missing,
            "never" => Self::Never,
            "build" => Self::Build,
            "daily" => Self::Refresh(DAY),
            "weekly" => Self::Refresh(7 * DAY),
            other => Self::Refresh(duration(other.strip_prefix("every_")?)?),
        })
    }

    /// Whether to fetch an image. `named_at`: when the image that the store has got its name, in seconds since the epoch
    /// (`None`: nobody knows); not in the store at all: `None` outside.
    pub fn wants_pull(self, in_store: Option<Option<i64>>, now: i64) -> bool {
        match (self, in_store) {
            (Self::Always, _) => true,
            (Self::Never | Self::Build, _) => false,
            (Self::Missing | Self::Refresh(_), None) | (Self::Refresh(_), Some(None)) => true,
            (Self::Missing, Some(_)) => false,
            (Self::Refresh(age), Some(Some(named_at))) => {
                u64::try_from(now.saturating_sub(named_at)).is_ok_and(|found| found > age.as_secs())
            }
        }
    }
}

/// `1w2d3h4m5s`, any of them.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut seconds = 0_u64;
    while !rest.is_empty() {
        let (number, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?);
        let mut characters = after.chars();
        let unit = match characters.next()? {
            'w' => 7 * 24 * 3600,
            'd' => 24 * 3600,
            'h' => 3600,
            'm' => 60,
            's' => 1,
            _ => return None,
        };
        seconds = seconds.checked_add(number.parse::<u64>().ok()?.checked_mul(unit)?)?;
        rest = characters.as_str();
    }
    (!text.is_empty()).then_some(Duration::from_secs(seconds))
}

/// An image that services need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedImage {
    /// As written.
    pub image: String,
    /// The first service that needs it.
    pub service: String,
    pub policy: PullPolicy,
    /// `os/architecture[/variant]`; `None`: this machine's.
    pub platform: Option<String>,
    /// It can be made from the service's `build` when it cannot be fetched.
    pub can_build: bool,
    /// Where it is asked for.
    pub place: Option<Place>,
}

/// The images that the services name, each once, in the order of the services.
pub fn images(project: &Project) -> Vec<WantedImage> {
    let mut wanted: Vec<WantedImage> = Vec::new();
    let mut add = |one: WantedImage| match wanted
        .iter_mut()
        .find(|there| there.image == one.image && there.platform == one.platform)
    {
        None => wanted.push(one),
        Some(there) => {
            there.can_build |= one.can_build;
            if one.policy == PullPolicy::Always {
                there.policy = one.policy;
            }
        }
    };
    for (name, service) in &project.services {
        let path = format!("services.{name}");
        let one = |image: &str, path: &str, policy, can_build| WantedImage {
            image: image.to_owned(),
            service: name.clone(),
            policy,
            platform: service.platform.clone().filter(|platform| !platform.is_empty()),
            can_build,
            place: project.place(path),
        };
        let policy = service.pull_policy.as_deref().and_then(PullPolicy::parse).unwrap_or(PullPolicy::Missing);
        let image = service.image.as_deref().filter(|image| !image.is_empty() && service.provider.is_none());
        if let Some(image) = image {
            add(one(image, &format!("{path}.image"), policy, service.build.is_some()));
        }
        for (index, hook) in service.pre_start.iter().enumerate() {
            if let Some(image) = hook.image.as_deref().filter(|image| !image.is_empty()) {
                add(one(image, &format!("{path}.pre_start.{index}.image"), PullPolicy::Missing, false));
            }
        }
        for (index, volume) in service.volumes.iter().enumerate() {
            if let (VolumeKind::Image, Some(image)) = (volume.kind, &volume.source) {
                add(one(image, &format!("{path}.volumes.{index}.source"), PullPolicy::Missing, false));
            }
        }
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_read() {
        let seconds = |seconds| Some(PullPolicy::Refresh(Duration::from_secs(seconds)));
        assert_eq!(PullPolicy::parse("if_not_present"), Some(PullPolicy::Missing));
        assert_eq!(PullPolicy::parse("refresh"), Some(PullPolicy::Missing));
        assert_eq!(PullPolicy::parse("daily"), seconds(86_400));
        assert_eq!(PullPolicy::parse("every_1w2d3h4m5s"), seconds(7 * 86_400 + 2 * 86_400 + 3 * 3600 + 4 * 60 + 5));
        for bad in ["sometimes", "every_", "every_5", "every_x", "every_99999999999999999999w"] {
            assert_eq!(PullPolicy::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_policy_decides() {
        let there = Some(Some(1000));
        assert!(PullPolicy::Always.wants_pull(there, 1000));
        assert!(PullPolicy::Missing.wants_pull(None, 0) && !PullPolicy::Missing.wants_pull(there, 9_999_999));
        assert!(!PullPolicy::Never.wants_pull(None, 0) && !PullPolicy::Build.wants_pull(None, 0));
        let minute = PullPolicy::Refresh(Duration::from_secs(60));
        assert!(minute.wants_pull(None, 0) && minute.wants_pull(Some(None), 0));
        assert!(!minute.wants_pull(there, 1060) && minute.wants_pull(there, 1061));
        assert!(!minute.wants_pull(there, 0), "a clock that went back is no reason");
    }
}
