//! `config --resolve-image-digests` and `--lock-image-digests` against our own registry.

use std::collections::BTreeMap;
use std::fs;

use rcompose::app::LoadOptions;
use rcompose::app::config::{self, ConfigOptions, ConfigOutput, Format, Print};
use rcompose::app::digests::Digests;
use rcompose::image::Digest;

use super::fake::Made;
use super::serve::{Served, image};

struct Scene {
    registry: Served,
    made: Made,
    folder: tempfile::TempDir,
}

impl Scene {
    /// A registry that has `team/app:1`, and a project whose file may say `REGISTRY`.
    fn new(text: &str) -> Self {
        let (registry, made, folder) = (Served::new(), image(), tempfile::tempdir().unwrap());
        registry.push_image("team/app", "1", &made);
        let text = text.replace("REGISTRY", &registry.address.to_string());
        fs::write(folder.path().join("compose.yaml"), text).unwrap();
        Self { registry, made, folder }
    }

    fn config(&self, digests: Digests, change: impl FnOnce(&mut ConfigOptions)) -> ConfigOutput {
        let load = LoadOptions {
            working_dir: self.folder.path().canonicalize().unwrap(),
            project_name: Some("test".to_owned()),
            ..LoadOptions::default()
        };
        let mut options =
            ConfigOptions { load, print: Print::Project, format: None, quiet: false, digests, output: None };
        change(&mut options);
        config::run(&options, &BTreeMap::new())
    }

    /// The text with what differs from run to run replaced.
    fn shown(&self, output: &ConfigOutput) -> String {
        let text = output.text.clone().unwrap_or_else(|| panic!("{:?}", output.diagnostics));
        text.replace(&Digest::of(&self.made.manifest).to_string(), "DIGEST")
            .replace(&self.registry.address.to_string(), "REGISTRY")
    }
}

const PROJECT: &str = "\
services:
  a: {image: 'REGISTRY/team/app:1', environment: {A: '1'}}
  b: {build: .}
  c: {image: 'REGISTRY/team/app:1', build: .}
  d: {image: 'redis:7@sha256:1111111111111111111111111111111111111111111111111111111111111111'}
";

#[test]
fn tags_become_digests() {
    let scene = Scene::new(PROJECT);
    let text = scene.shown(&scene.config(Digests::Resolve, |_| {}));
    let images: Vec<_> = text.lines().filter(|line| line.contains("image:")).map(str::trim).collect();
    let pinned = "image: REGISTRY/team/app:1@DIGEST";
    let redis = format!("image: docker.io/library/redis@sha256:{}", "1".repeat(64));
    assert_eq!(images, [pinned, pinned, redis.as_str()]);
    assert!(text.contains("A: \"1\"") && text.contains("networks:"), "{text}");
    let other = scene.config(Digests::Resolve, |options| options.print = Print::Images);
    assert!(scene.shown(&other).starts_with("REGISTRY/team/app:1\n"), "the other lists ask nobody");
}

#[test]
fn a_lock_has_images_only() {
    let scene = Scene::new(PROJECT);
    let redis = "1".repeat(64);
    let expected = format!(
        "services:\n  a:\n    image: REGISTRY/team/app:1@DIGEST\n  b: {{}}\n  c:\n    image: REGISTRY/team/app:1@DIGEST\n  d:\n    image: docker.io/library/redis@sha256:{redis}\n"
    );
    assert_eq!(scene.shown(&scene.config(Digests::Lock, |_| {})), expected);
    let uninterpolated = scene.config(Digests::Lock, |options| options.load.no_interpolate = true);
    assert_eq!(scene.shown(&uninterpolated), expected);
    let one = scene.config(Digests::Lock, |options| {
        options.load.services = vec!["a".to_owned()];
        options.format = Some(Format::Json);
    });
    let json: serde_json::Value = serde_json::from_str(&scene.shown(&one)).unwrap();
    assert_eq!(json["services"]["a"]["image"], "REGISTRY/team/app:1@DIGEST");
    assert_eq!(json.as_object().unwrap().keys().collect::<Vec<_>>(), ["name", "services"]);
}

#[test]
fn every_image_without_a_digest_is_named_with_its_place() {
    let scene = Scene::new(
        "services:\n  a: {image: 'REGISTRY/team/app:2'}\n  b: {image: 'REGISTRY/team/app:1'}\n  c: {image: 'A B'}\n",
    );
    let output = scene.config(Digests::Resolve, |options| options.quiet = true);
    assert_eq!(output.text, None);
    let found: Vec<_> =
        output.diagnostics.iter().map(|found| (found.code, found.place.as_ref().unwrap().line)).collect();
    assert_eq!(found, [("no-digest", 2), ("no-digest", 4)]);
}
