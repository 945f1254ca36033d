//! A pull that is killed at any moment leaves a store that works.

use std::time::Duration;

use rcompose::image::{Compression, Format, Store};

use super::fake::{Made, noise};
use super::serve::Served;
use crate::support::Project;

const ROUNDS: u64 = 20;

#[test]
fn pulls_that_are_killed_leave_a_store_that_works() {
    let served = Served::new();
    let large = |seed: u64| noise(seed, 2_000_000);
    let made =
        Made::new(&[("a", large(1)), ("b", large(2)), ("c", large(3)), ("d", b"small".to_vec())], Compression::Gzip);
    served.push_image("team/large", "1", &made);
    let name = format!("{}/team/large:1", served.address);
    let project = Project::new("services: {}\n");
    // The store is who runs the commands', whoever looks into it first.
    project.run(&["image", "pull", "-q", &name]).ok();
    project.run(&["image", "rm", &name]).ok();
    let mut whole = 0;
    for round in 0..ROUNDS {
        let mut pull = project.spawn(&["image", "pull", "-q", &name]);
        // Spread over the time that a pull takes; which moment it hits differs with each run.
        std::thread::sleep(Duration::from_millis(round * 12));
        pull.kill().unwrap();
        whole += u64::from(pull.wait().unwrap().success());
        let store = Store::open(&project.root().join("data")).unwrap();
        // Either the image is there and whole, or it is not there.
        match store.resolve(&name) {
            Ok(image) => {
                assert_eq!(image.id, made.id);
                store
                    .save(std::slice::from_ref(&name), Format::Docker, Compression::None, &mut std::io::sink())
                    .unwrap();
                store.remove(&name, &Default::default()).unwrap();
            }
            Err(error) => assert!(matches!(error, rcompose::image::Error::NotFound { .. }), "round {round}: {error}"),
        }
    }
    println!("{whole} of {ROUNDS} pulls ended before they were killed");
    project.run(&["image", "pull", "-q", &name]).ok();
    let store = Store::open(&project.root().join("data")).unwrap();
    let mut archive = Vec::new();
    store.save(std::slice::from_ref(&name), Format::Docker, Compression::None, &mut archive).unwrap();
    assert_eq!(store.resolve(&name).unwrap().id, made.id);
    assert!(archive.len() > 6_000_000);
    let left = std::fs::read_dir(project.root().join("data/images/tmp")).unwrap().count();
    assert_eq!(left, 0, "unfinished work");
}
