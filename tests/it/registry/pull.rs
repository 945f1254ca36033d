//! Pulling, from registries good and bad.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use rcompose::image::{Compression, Digest, LayerStep, Platform, Reference};
use rcompose::registry::{Error, Step};
use serde_json::json;

use super::fake::{Asked, Fake, Here, Made, Reply, noise, part, say, tar_of};

fn image() -> Made {
    Made::new(&[("low", noise(1, 300_000)), ("high", b"content".to_vec())], Compression::Gzip)
}

#[test]
fn an_image_comes_in_all_compressions_and_is_not_fetched_twice() {
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let made = Made::new(&[("low", noise(1, 300_000)), ("high", b"content".to_vec())], compression);
        let (fake, here) = (Fake::with(&made, |_| None), Here::new(&[]));
        let name = fake.name("a/b:1");
        let pulled = here.pull(&name).unwrap();
        assert_eq!((pulled.id, pulled.digest, pulled.is_new), (made.id.clone(), Digest::of(&made.manifest), true));
        assert_eq!(here.file(&name.familiar(), "low"), noise(1, 300_000));
        let blobs = fake.count("/blobs/");
        assert!(!here.pull(&name).unwrap().is_new);
        assert_eq!((blobs, fake.count("/blobs/")), (3, 3));
        let by_digest = fake.name(&format!("a/b@{}", Digest::of(&made.manifest)));
        assert_eq!(here.store.resolve(&by_digest.to_string()).unwrap().id, made.id);
    }
}

#[test]
fn a_cut_connection_goes_on_where_it_was() {
    let made = image();
    let layer = made.layers[0].clone();
    let whole = made.blobs[&layer].clone();
    for has_ranges in [true, false] {
        let (whole, layer) = (whole.clone(), layer.clone());
        let fake = Fake::with(&made, move |asked| {
            if !asked.path.ends_with(&layer) {
                return None;
            }
            // The first two answers break off, the second one further on.
            let count = [100_000, 120_000].get(asked.before).copied()?;
            if !has_ranges {
                return Some(Reply::Cut(200, vec![], whole.clone(), (count + asked.before * 100_000).min(whole.len())));
            }
            match part(asked, &whole) {
                Reply::Say(status, headers, body) => {
                    let count = count.min(body.len());
                    Some(Reply::Cut(status, headers, body, count))
                }
                other => Some(other),
            }
        });
        let here = Here::new(&[]);
        here.pull(&fake.name("a:1")).unwrap();
        let asked: Vec<Asked> = fake.asked().into_iter().filter(|asked| asked.path.contains(&made.layers[0])).collect();
        assert_eq!(asked.len(), 3, "with ranges: {has_ranges}");
        assert_eq!(asked[0].headers.get("range"), None);
        assert_eq!(asked[1].headers["range"], "bytes=100000-");
        assert_eq!(here.file(&fake.name("a:1").familiar(), "low"), noise(1, 300_000));
    }
}

#[test]
fn a_silent_registry_is_asked_again() {
    let made = image();
    let (layer, whole) = (made.layers[0].clone(), made.blobs[&made.layers[0]].clone());
    let fake = Fake::with(&made, move |asked| {
        (asked.path.ends_with(&layer) && asked.before == 0).then(|| Reply::Stall(whole.clone(), 1000))
    });
    let here = Here::new(&[]);
    here.pull(&fake.name("a:1")).unwrap();
    assert_eq!(fake.count(&made.layers[0]), 2);
}

#[test]
fn a_busy_registry_is_waited_for_and_one_that_wants_too_much_is_told() {
    let made = image();
    let fake = Fake::with(&made, |asked| {
        (asked.path.contains("/manifests/") && asked.before < 2)
            .then(|| Reply::Say(503, vec![("retry-after", "0".to_owned())], Vec::new()))
    });
    Here::new(&[]).pull(&fake.name("a:1")).unwrap();
    assert_eq!(fake.count("/manifests/"), 3);

    let fake = Fake::with(&made, |asked| {
        let limited = br#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}"#;
        let header = ("retry-after", "7200".to_owned());
        asked.path.contains("/manifests/").then(|| Reply::Say(429, vec![header], limited.to_vec()))
    });
    let error = Here::new(&[]).pull(&fake.name("a:1")).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("registry `{}` takes no more requests for now; it says to wait 120 minutes", fake.address)
    );
    assert_eq!(fake.count("/manifests/"), 1);
}

/// Every lie is found, and the image is not there afterwards.
#[test]
fn lies_are_found() {
    let made = image();
    let (layer, config) = (made.layers[1].clone(), made.id.to_string());
    let whole = made.blobs[&layer].clone();
    let mut flipped = whole.clone();
    flipped[20] ^= 1;
    type Lie = Box<dyn Fn(&Asked) -> Option<Reply> + Send + Sync>;
    let blob = |digest: &str, body: Vec<u8>| -> Lie {
        let digest = digest.to_owned();
        Box::new(move |asked| asked.path.ends_with(&digest).then(|| say(200, body.clone())))
    };
    let manifest = |body: Vec<u8>| -> Lie {
        Box::new(move |asked| asked.path.contains("/manifests/").then(|| say(200, body.clone())))
    };
    let nested = format!(r#"{{"schemaVersion":2,"manifests":[{{"digest":"{}","size":1}}]}}"#, Digest::of(b"nowhere"));
    let missing_layer = String::from_utf8(made.manifest.clone()).unwrap().replace(&made.layers[0], &made.layers[1]);
    let cases: Vec<(&str, Lie, &str)> = vec![
        ("another layer", blob(&layer, flipped), "digest"),
        ("a longer layer", blob(&layer, [whole.clone(), vec![0; 9]].concat()), "bytes instead of"),
        ("a shorter layer", blob(&layer, whole[..whole.len() - 1].to_vec()), "bytes instead of"),
        ("another configuration", blob(&config, vec![b'{'; made.blobs[&config].len()]), "digest"),
        ("a page", manifest(b"<html>login</html>".to_vec()), "not valid"),
        ("an old format", manifest(br#"{"schemaVersion":1}"#.to_vec()), "schema 1"),
        ("an index of nothing", manifest(nested.into_bytes()), "digest"),
        ("a layer twice", manifest(missing_layer.into_bytes()), "bytes instead of"),
        ("a huge manifest", manifest(vec![b' '; 9 << 20]), ""),
        (
            "another digest in the header",
            Box::new(move |asked| {
                let header = ("docker-content-digest", Digest::of(b"other").to_string());
                asked.path.contains("/manifests/").then(|| Reply::Say(200, vec![header], b"{}".to_vec()))
            }),
            "digest",
        ),
    ];
    for (what, lie, says) in cases {
        let (fake, here) = (Fake::with(&made, lie), Here::new(&[]));
        let error = here.pull(&fake.name("a:1")).unwrap_err();
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            text.push_str(&format!(": {cause}"));
            source = cause.source();
        }
        assert!(text.contains(says), "{what}: {text}");
        assert!(here.store.resolve(&fake.name("a:1").familiar()).is_err(), "{what}");
        assert!(here.store.list().unwrap().is_empty(), "{what}");
    }
}

#[test]
fn a_token_is_fetched_with_the_login_and_used() {
    let made = image();
    let fake = Fake::new(move |asked| {
        let authorization = asked.headers.get("authorization").map(String::as_str).unwrap_or_default();
        if asked.path.starts_with("/token") {
            return match authorization {
                "Basic bWU6c2VjcmV0" => say(200, r#"{"token":"t0ken","expires_in":300}"#),
                _ => say(401, ""),
            };
        }
        if authorization == "Bearer t0ken" {
            return made.answer(asked);
        }
        let realm = format!("Bearer realm=\"http://{}/token\",service=\"here\"", asked.headers["host"]);
        Reply::Say(401, vec![("www-authenticate", realm)], Vec::new())
    });
    let here = Here::known_at(&fake.address, "me", "secret");
    here.pull(&fake.name("team/app:1")).unwrap();
    let token: Vec<_> = fake.asked().into_iter().filter(|asked| asked.path.starts_with("/token")).collect();
    assert_eq!(token.len(), 1, "one token serves all requests");
    assert_eq!(token[0].path, "/token?service=here&scope=repository%3Ateam%2Fapp%3Apull&account=me");

    let wrong = Here::known_at(&fake.address, "me", "wrong").pull(&fake.name("team/app:1")).unwrap_err();
    assert!(matches!(wrong, Error::WrongPassword { .. }), "{wrong}");
    let anonymous = Here::new(&[]).pull(&fake.name("team/app:1")).unwrap_err();
    assert!(matches!(&anonymous, Error::Denied { repository, logged_in: false, .. } if repository == "team/app"));
    assert!(anonymous.help().unwrap().contains(&format!("rcompose login {}", fake.address)));
}

#[test]
fn a_password_is_sent_where_it_belongs_and_nowhere_else() {
    let made = image();
    let elsewhere = Fake::with(&made, |_| None);
    let there = elsewhere.address;
    let fake = Fake::with(&made, move |asked| match asked.headers.get("authorization").map(String::as_str) {
        _ if asked.path == "/v2/" => None,
        Some("Basic bWU6c2VjcmV0") if asked.path.contains("/blobs/") => {
            Some(Reply::Say(307, vec![("location", format!("http://{there}{}", asked.path))], Vec::new()))
        }
        Some("Basic bWU6c2VjcmV0") => None,
        _ => Some(Reply::Say(401, vec![("www-authenticate", "Basic realm=\"x\"".to_owned())], Vec::new())),
    });
    Here::known_at(&fake.address, "me", "secret").pull(&fake.name("a:1")).unwrap();
    assert_eq!(elsewhere.count("/blobs/"), 3);
    assert!(elsewhere.asked().iter().all(|asked| !asked.headers.contains_key("authorization")));
}

#[test]
fn the_platform_of_an_index_is_chosen_and_a_missing_one_is_named() {
    let made = image();
    let platform = Platform::host();
    let entry = |digest: Digest, size: usize, architecture: &str| {
        json!({"digest": digest.to_string(), "size": size, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "platform": {"os": "linux", "architecture": architecture}})
    };
    let other = entry(Digest::of(b"other"), 7, "vax");
    let ours = entry(Digest::of(&made.manifest), made.manifest.len(), &platform.architecture);
    let index = json!({"schemaVersion": 2, "manifests": [other, ours]}).to_string();
    let served = index.clone();
    let fake = Fake::with(&made, move |asked| {
        let kind = "application/vnd.oci.image.index.v1+json".to_owned();
        asked
            .path
            .ends_with("/manifests/1")
            .then(|| Reply::Say(200, vec![("content-type", kind)], served.clone().into()))
    });
    let here = Here::new(&[]);
    assert_eq!(here.pull(&fake.name("a:1")).unwrap().digest, Digest::of(index.as_bytes()));
    let wanted = Platform::parse("linux/s390x").unwrap();
    let error = here.registries.pull(&here.store, &fake.name("a:1"), &wanted, &|_, _| {}).unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.starts_with("there is no image for `linux/s390x` in it, only for `linux/vax`"), "{cause}");
}

#[test]
fn a_mirror_serves_docker_hub_and_gets_no_login() {
    let made = image();
    let mirror = Fake::with(&made, |_| None);
    let here = Here::new(&[("RCOMPOSE_REGISTRY_MIRRORS", &format!("http://{}", mirror.address))]);
    let name = Reference::parse("redis").unwrap();
    here.pull(&name).unwrap();
    assert_eq!(here.store.resolve("redis").unwrap().id, made.id);
    assert_eq!(mirror.count("/v2/library/redis/manifests/latest"), 1);
    assert_eq!(here.registries.digest(&name).unwrap(), Digest::of(&made.manifest));
}

#[test]
fn two_pulls_at_once_do_the_work_once() {
    let made = image();
    let (slow, whole) = (made.layers[0].clone(), made.blobs[&made.layers[0]].clone());
    let fake = Fake::with(&made, move |asked| {
        asked.path.ends_with(&slow).then(|| {
            std::thread::sleep(Duration::from_millis(300));
            part(asked, &whole)
        })
    });
    let here = Here::new(&[]);
    let start = Barrier::new(2);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                start.wait();
                here.pull(&fake.name("a:1")).unwrap();
            });
        }
    });
    for layer in &made.layers {
        assert_eq!(fake.count(layer), 1);
    }
}

#[test]
fn an_unreachable_registry_is_said_to_be_so() {
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = Here::new(&[]).pull(&Reference::parse(&format!("{address}/a")).unwrap()).unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    let error = Here::new(&[]).pull(&Reference::parse("registry.invalid/a").unwrap()).unwrap_err();
    assert!(matches!(error, Error::UnknownHost { .. }), "{error:?}");
}

#[test]
fn a_service_is_pulled_by_its_name_also_when_another_has_its_image() {
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let project =
        crate::support::Project::new(&format!("services: {{a: {{image: {address}/x}}, b: {{image: {address}/x}}}}"));
    let pull = project.run(&["pull", "b"]).fails(1);
    assert!(pull.err.contains("for service `b`"), "{}", pull.err);
}

#[test]
fn what_came_before_a_failure_is_not_fetched_again() {
    let made = Made::new(
        &[("low", noise(1, 300_000)), ("mid", noise(2, 200_000)), ("high", noise(3, 100))],
        Compression::Gzip,
    );
    let bad = made.layers[2].clone();
    let taken = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&taken);
    let fake = Fake::with(&made, move |asked| {
        (asked.path.ends_with(&bad) && asked.before == 0).then(|| {
            crate::support::eventually("the others are there", || (seen.load(Ordering::Relaxed) == 2).then_some(()));
            say(404, "")
        })
    });
    let here = Here::new(&[]);
    let told = |_: &Digest, step| {
        if matches!(step, Step::Layer(LayerStep::Made)) {
            taken.fetch_add(1, Ordering::Relaxed);
        }
    };
    let error = here.registries.pull(&here.store, &fake.name("a:1"), &Platform::host(), &told).unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error:?}");
    here.pull(&fake.name("a:1")).unwrap();
    assert_eq!((fake.count(&made.layers[0]), fake.count(&made.layers[2])), (1, 2));
}

#[test]
fn a_hostile_layer_stays_inside() {
    let here = Here::new(&[]);
    let outside = here.folder.path().join("data/outside");
    for name in ["../../../../outside", "a/../../b"] {
        let mut tar = tar_of("x", b"bad");
        tar[..100].fill(0);
        tar[..name.len()].copy_from_slice(name.as_bytes());
        let sum: u32 = tar[..148].iter().chain(&[b' '; 8]).chain(&tar[156..512]).map(|byte| u32::from(*byte)).sum();
        tar[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let fake = Fake::with(&Made::of_tars(&[tar], Compression::Gzip), |_| None);
        assert!(matches!(here.pull(&fake.name("a:1")).unwrap_err(), Error::Store(_)));
        assert!(!outside.exists());
    }
}
