//! Volumes in short syntax.

use super::{Findings, Scene};
use crate::compose::short;
use crate::compose::template;
use crate::model::tree::{Node, Value};

/// The volumes that were written as one text: service, volume, text.
fn short_volumes<'a>(scene: &Scene<'a>) -> impl Iterator<Item = (&'a str, &'a Node, String)> {
    scene.items("volumes").filter_map(|(service, volume)| match &scene.written(volume.mark)?.value {
        Value::String(text) => {
            let lookup = |name: &str| scene.environment.get(name).cloned();
            // What could not be replaced is an error that the loader reports.
            let spec = template::substitute(text, &lookup, &mut |_| {}).ok()?.into_owned();
            Some((service, volume, spec))
        }
        _ => None,
    })
}

pub(super) fn one_letter(scene: &Scene<'_>, findings: &mut Findings<'_>) {
    for (service, volume, spec) in short_volumes(scene) {
        let mut chars = spec.chars();
        let (Some(letter), Some(':'), Some('/')) = (chars.next(), chars.next(), chars.next()) else { continue };
        if letter.is_alphabetic() {
            let message =
                format!("`{letter}` in `{spec}` of service `{service}` is taken for a Windows drive, not a volume");
            findings.service(service, volume.mark, message, "give the volume a longer name, or use the long syntax");
        }
    }
}

pub(super) fn unknown_option(scene: &Scene<'_>, findings: &mut Findings<'_>) {
    for (service, volume, spec) in short_volumes(scene) {
        for option in short::unknown_volume_options(&spec) {
            let message =
                format!("`{option}` is not an option of a volume, so `{spec}` of service `{service}` ignores it");
            let help = "options are `ro`, `rw`, `z`, `Z`, `nocopy` and the propagation modes, such as `rslave`";
            findings.service(service, volume.mark, message, help);
        }
    }
}
