//! Several loads at once, and loads that died.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Barrier;
use std::thread;

use super::fixture::*;
use crate::image::Compression;
use crate::image::locks::LayerLocks;

#[test]
fn loads_at_the_same_time_give_whole_images() {
    let fixture = Fixture::new();
    let archives: Vec<_> = (0..4)
        .map(|n| {
            let own = Tar::new().file(&format!("own-{n}"), &vec![n; 100_000]).end();
            // The same layers in different orders, so that careless locks would wait in a circle.
            let mut layers = vec![base_layer(), own, upper_layer()];
            layers.rotate_left(usize::from(n) % 3);
            fixture.write(&format!("archive-{n}"), &docker_archive(&format!("app-{n}"), &layers, Compression::Gzip))
        })
        .collect();
    let start = Barrier::new(8);
    thread::scope(|scope| {
        for archive in archives.iter().chain(&archives) {
            let (store, start) = (fixture.again(), &start);
            scope.spawn(move || {
                start.wait();
                store.load(archive).unwrap();
            });
        }
    });
    for n in 0..4 {
        assert_eq!(fixture.store.resolve(&format!("app-{n}")).unwrap().layers.len(), 3);
    }
    assert_eq!(fixture.counts(), (0, 2 + 4, 4));
}

#[test]
fn what_a_killed_load_left_is_swept_and_what_a_living_one_does_is_not() {
    let fixture = Fixture::new();
    let tmp = fixture.folder.path().join("data/images/tmp");
    fs::create_dir_all(tmp.join("1-0/abc/fs")).unwrap();
    fs::create_dir_all(tmp.join("2-0/abc/fs")).unwrap();
    let alive = fs::File::open(tmp.join("2-0")).unwrap();
    alive.lock().unwrap();
    let archive = fixture.write("archive", &docker_archive("app", &[base_layer()], Compression::None));
    fixture.store.load(&archive).unwrap();
    let left: Vec<_> = fs::read_dir(&tmp).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["2-0"]);
}

#[test]
fn a_layer_without_an_image_serves_the_next_load_or_goes_with_the_next_removal() {
    let fixture = Fixture::new();
    let archive = fixture.write("archive", &docker_archive("app", &[base_layer()], Compression::None));
    let id = fixture.store.load(&archive).unwrap().remove(0).id;
    // As after a kill between the layer's rename and the table's.
    fs::remove_file(fixture.folder.path().join("data/images/images.json")).unwrap();
    fixture.store.load(&archive).unwrap();
    assert_eq!(fixture.store.resolve("app").unwrap().id, id);
    fs::remove_file(fixture.folder.path().join("data/images/images.json")).unwrap();
    let other = fixture.write("other", &docker_archive("other", &[upper_layer()], Compression::None));
    fixture.store.load(&other).unwrap();
    assert_eq!(fixture.counts().1, 2);

    let needed = crate::image::Digest::of(&base_layer());
    let locks = LayerLocks::new(&fixture.folder.path().join("data/images/layers.lock")).unwrap();
    assert!(!locks.take(&needed, || true).unwrap());
    fixture.store.remove("other", &BTreeSet::new()).unwrap();
    assert_eq!(fixture.counts().1, 1, "a layer that another load has found stays");
    drop(locks);
    fixture.store.load(&other).unwrap();
    fixture.store.remove("other", &BTreeSet::new()).unwrap();
    assert_eq!(fixture.counts().1, 0);
}

#[test]
fn of_many_layers_the_one_that_fails_is_told() {
    let fixture = Fixture::new();
    let mut layers: Vec<_> = (0..20).map(|n| Tar::new().file("x", &vec![n; 200_000]).end()).collect();
    layers[7] = Tar::new().file("../bad", b"").end();
    let archive = fixture.write("archive", &docker_archive("app", &layers, Compression::Gzip));
    let error = fixture.store.load(&archive).unwrap_err();
    assert_eq!(error.to_string(), "layer 7/layer.tar cannot be unpacked");
    assert_eq!(fixture.counts(), (0, 0, 0));
}
