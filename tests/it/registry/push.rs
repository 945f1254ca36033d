//! Pushing, to our own registry and to one that misbehaves.

use rcompose::image::{Compression, Digest, Reference};
use rcompose::registry::{Error, PushStep};

use super::fake::{Fake, Here, Made, Reply, noise, say};
use super::serve::Served;

fn reference(text: &str) -> Reference {
    Reference::parse(text).unwrap()
}

/// A store that has pulled an image, and the name it has there.
fn with_image() -> (Here, Made, String) {
    let made = Made::new(&[("low", noise(1, 300_000)), ("high", b"content".to_vec())], Compression::Gzip);
    let (fake, here) = (Fake::with(&made, |_| None), Here::new(&[]));
    let name = fake.name("a:1");
    here.pull(&name).unwrap();
    (here, made, name.familiar())
}

#[test]
fn what_is_pushed_comes_back_the_same() {
    let (here, made, name) = with_image();
    let served = Served::new();
    let target = format!("{}/team/app:1", served.address);
    here.store.tag(&name, &target).unwrap();
    let (digest, _) = here.registries.push(&here.store, &reference(&target), &|_, _| {}).unwrap();
    let there = Here::new(&[]);
    let pulled = there.pull(&reference(&target)).unwrap();
    assert_eq!((pulled.id, pulled.digest), (made.id, digest.clone()));
    assert_eq!(there.file(&target, "low"), noise(1, 300_000));
    let by_digest = format!("{}/team/app@{digest}", served.address);
    assert!(here.store.resolve(&by_digest).is_ok(), "the store knows under which digest it was pushed");
}

#[test]
fn layers_that_are_there_are_not_sent_and_those_of_a_neighbour_are_taken_over() {
    let (here, _, name) = with_image();
    let served = Served::new();
    let steps = |target: &str| {
        here.store.tag(&name, target).unwrap();
        let steps = std::sync::Mutex::new(Vec::new());
        let told = |_: &Digest, step| {
            if !matches!(step, PushStep::Bytes(..) | PushStep::Preparing) {
                steps.lock().unwrap().push(step);
            }
        };
        here.registries.push(&here.store, &reference(target), &told).unwrap();
        steps.into_inner().unwrap()
    };
    assert_eq!(steps(&format!("{}/a:1", served.address)), [PushStep::Pushed, PushStep::Pushed]);
    assert_eq!(steps(&format!("{}/a:2", served.address)), [PushStep::Exists, PushStep::Exists]);
    assert_eq!(steps(&format!("{}/b:1", served.address)), [PushStep::Mounted, PushStep::Mounted]);
}

#[test]
fn an_upload_that_breaks_is_sent_again_and_a_refused_one_is_told() {
    let (here, _, name) = with_image();
    let fake = Fake::new(|asked| match asked.method.as_str() {
        "GET" => say(200, "{}"),
        "HEAD" => say(404, ""),
        "POST" => Reply::Say(202, vec![("location", "/v2/a/blobs/uploads/1?state=x".to_owned())], Vec::new()),
        "PUT" if asked.path.contains("uploads") => {
            let whole =
                asked.path.split("digest=").nth(1).unwrap().replace("%3A", ":") == Digest::of(&asked.body).to_string();
            assert!(whole && asked.path.contains("?state=x&digest="));
            if asked.before == 0 { say(502, "") } else { say(201, "") }
        }
        _ => say(201, ""),
    });
    let target = format!("{}/a:1", fake.address);
    here.store.tag(&name, &target).unwrap();
    here.registries.push(&here.store, &reference(&target), &|_, _| {}).unwrap();

    let closed = Fake::new(|asked| match asked.method.as_str() {
        "GET" => say(200, "{}"),
        _ => say(403, r#"{"errors":[{"code":"DENIED","message":"no"}]}"#),
    });
    let target = format!("{}/a:1", closed.address);
    here.store.tag(&name, &target).unwrap();
    let error = here.registries.push(&here.store, &reference(&target), &|_, _| {}).unwrap_err();
    assert!(matches!(error, Error::Denied { .. }), "{error:?}");
    assert!(matches!(
        here.registries.push(&here.store, &reference("nothing:1"), &|_, _| {}),
        Err(Error::Store(rcompose::image::Error::NotFound { .. }))
    ));
}
