//! `registry serve` against the categories of the distribution specification's conformance tests: pull, push, content
//! discovery, content management. <https://github.com/opencontainers/distribution-spec/tree/main/conformance>

use std::io::Read;
use std::net::SocketAddr;

use rcompose::image::{Compression, Digest, Store};
use rcompose::registry::Server;
use serde_json::{Value, json};

use super::fake::{Made, noise};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

pub(crate) struct Served {
    pub(crate) address: SocketAddr,
    pub(crate) folder: tempfile::TempDir,
}

impl Served {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let server = Server::bind(store, "127.0.0.1:0".parse().unwrap()).unwrap();
        let address = server.address().unwrap();
        std::thread::spawn(move || server.run());
        Self { address, folder }
    }

    pub(crate) fn store(&self) -> Store {
        Store::open(self.folder.path()).unwrap()
    }

    /// Whether a name leads to a manifest.
    pub(crate) fn shelf_has(&self, name: &rcompose::image::Reference) -> bool {
        self.get(&format!("/v2/{}/manifests/{}", name.path(), name.tag().unwrap_or("latest"))).status == 200
    }

    pub(crate) fn has_repository(&self, path: &str) -> bool {
        self.get(&format!("/v2/{path}/tags/list")).status == 200
    }

    fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let url = if path.starts_with('/') { format!("http://{}{path}", self.address) } else { path.to_owned() };
        let mut request = ureq::http::Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
        let response = match method {
            "GET" | "HEAD" | "DELETE" => agent.run(request.body(()).unwrap()),
            _ => agent.run(request.body(body.to_vec()).unwrap()),
        };
        let mut response = response.unwrap();
        let mut body = Vec::new();
        response.body_mut().as_reader().read_to_end(&mut body).unwrap();
        Answer { status: response.status().as_u16(), headers: response.headers().clone(), body }
    }

    fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], b"")
    }

    /// Pushes a blob in one request after another; returns its digest.
    pub(crate) fn push_blob(&self, repository: &str, bytes: &[u8]) -> String {
        let digest = Digest::of(bytes).to_string();
        let begun = self.ask("POST", &format!("/v2/{repository}/blobs/uploads/"), &[], b"");
        assert_eq!(begun.status, 202);
        let url = format!("{}?digest={digest}", begun.header("location"));
        assert_eq!(self.ask("PUT", &url, &[], bytes).status, 201);
        digest
    }

    pub(crate) fn push_manifest(&self, repository: &str, tag: &str, manifest: &[u8]) {
        let path = format!("/v2/{repository}/manifests/{tag}");
        let put = self.ask("PUT", &path, &[("content-type", MANIFEST)], manifest);
        assert_eq!(put.status, 201, "{}", put.text());
    }

    /// The text of a layer.
    pub(crate) fn layer(&self, repository: &str, tag: &str, number: usize) -> String {
        let manifest = self.get(&format!("/v2/{repository}/manifests/{tag}")).body;
        let manifest: Value = serde_json::from_slice(&manifest).unwrap();
        let digest = manifest["layers"][number]["digest"].as_str().unwrap();
        String::from_utf8(self.get(&format!("/v2/{repository}/blobs/{digest}")).body).unwrap()
    }

    pub(super) fn push_image(&self, repository: &str, tag: &str, made: &Made) {
        made.blobs.values().for_each(|blob| drop(self.push_blob(repository, blob)));
        let path = format!("/v2/{repository}/manifests/{tag}");
        let put = self.ask("PUT", &path, &[("content-type", MANIFEST)], &made.manifest);
        assert_eq!(put.status, 201, "{}", put.text());
        assert_eq!(put.header("docker-content-digest"), Digest::of(&made.manifest).to_string());
    }
}

struct Answer {
    status: u16,
    headers: ureq::http::HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> String {
        self.headers.get(name).map_or_else(String::new, |value| value.to_str().unwrap().to_owned())
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    #[track_caller]
    fn fails(&self, status: u16, code: &str) {
        assert_eq!((self.status, self.json()["errors"][0]["code"].as_str()), (status, Some(code)), "{}", self.text());
    }
}

pub(super) fn image() -> Made {
    Made::new(&[("low", noise(1, 50_000)), ("high", b"content".to_vec())], Compression::Gzip)
}

#[test]
fn pull() {
    let served = Served::new();
    let made = image();
    assert_eq!(served.get("/v2/").status, 200);
    served.push_image("team/app", "1", &made);
    let digest = Digest::of(&made.manifest).to_string();
    for which in ["1", &digest] {
        let path = format!("/v2/team/app/manifests/{which}");
        let got = served.get(&path);
        assert_eq!((got.status, got.header("content-type").as_str(), &got.body), (200, MANIFEST, &made.manifest));
        let head = served.ask("HEAD", &path, &[], b"");
        assert_eq!((head.status, head.header("docker-content-digest"), head.body.len()), (200, digest.clone(), 0));
        assert_eq!(head.header("content-length"), made.manifest.len().to_string());
    }
    let (layer, bytes) = (&made.layers[0], &made.blobs[&made.layers[0]]);
    let path = format!("/v2/team/app/blobs/{layer}");
    assert_eq!(&served.get(&path).body, bytes);
    assert_eq!(served.ask("HEAD", &path, &[], b"").header("content-length"), bytes.len().to_string());
    let part = served.ask("GET", &path, &[("range", "bytes=100-199")], b"");
    assert_eq!((part.status, part.body.as_slice()), (206, &bytes[100..200]));
    assert_eq!(part.header("content-range"), format!("bytes 100-199/{}", bytes.len()));
    assert_eq!(served.ask("GET", &path, &[("range", "bytes=9999999-")], b"").status, 416);
    served.get("/v2/team/app/manifests/2").fails(404, "MANIFEST_UNKNOWN");
    served.get(&format!("/v2/team/app/manifests/{}", Digest::of(b"x"))).fails(404, "MANIFEST_UNKNOWN");
    served.get(&format!("/v2/team/app/blobs/{}", Digest::of(b"x"))).fails(404, "BLOB_UNKNOWN");
    served.get(&format!("/v2/other/blobs/{layer}")).fails(404, "BLOB_UNKNOWN");
    served.get("/v2/Team/manifests/1").fails(400, "NAME_INVALID");
}

#[test]
fn push_in_one_request_in_two_and_in_chunks() {
    let served = Served::new();
    let bytes = noise(3, 70_000);
    let digest = Digest::of(&bytes).to_string();
    let one = served.ask("POST", &format!("/v2/one/blobs/uploads/?digest={digest}"), &[], &bytes);
    assert_eq!((one.status, one.header("docker-content-digest")), (201, digest.clone()));
    assert_eq!(served.get(&one.header("location")).body, bytes);
    served.push_blob("two", &bytes);

    let begun = served.ask("POST", "/v2/chunks/blobs/uploads/", &[], b"");
    let mut location = begun.header("location");
    let chunk = |location: &str, start: usize, end: usize| {
        let range = format!("{start}-{}", end - 1);
        served.ask("PATCH", location, &[("content-range", &range)], &bytes[start..end])
    };
    let first = chunk(&location, 0, 30_000);
    assert_eq!((first.status, first.header("range")), (202, "0-29999".to_owned()));
    location = first.header("location");
    let early = chunk(&location, 40_000, 50_000);
    assert_eq!((early.status, early.header("range")), (416, "0-29999".to_owned()));
    let status = served.get(&location);
    assert_eq!((status.status, status.header("range")), (204, "0-29999".to_owned()));
    location = chunk(&location, 30_000, 60_000).header("location");
    let last = served.ask("PUT", &format!("{location}?digest={digest}"), &[], &bytes[60_000..]);
    assert_eq!(last.status, 201);
    assert_eq!(served.get(&format!("/v2/chunks/blobs/{digest}")).body, bytes);
}

/// The server learns only by and by that a connection is gone; who tries again meanwhile is not sent away.
#[test]
fn a_push_goes_on_after_a_request_that_broke_off() {
    let served = Served::new();
    let location = served.ask("POST", "/v2/a/blobs/uploads/", &[], b"").header("location");
    let path = location.strip_prefix(&format!("http://{}", served.address)).unwrap_or(&location);
    let mut broken = std::net::TcpStream::connect(served.address).unwrap();
    let head = format!("PATCH {path} HTTP/1.1\r\nhost: {}\r\ncontent-length: 9\r\n\r\nbl", served.address);
    std::io::Write::write_all(&mut broken, head.as_bytes()).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    let late = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(300));
        drop(broken);
    });
    let digest = Digest::of(b"blob");
    let last = served.ask("PUT", &format!("{location}?digest={digest}"), &[], b"ob");
    assert_eq!(last.status, 201, "{}", last.text());
    late.join().unwrap();
}

#[test]
fn push_mounts_cancels_and_refuses() {
    let served = Served::new();
    let digest = served.push_blob("a", b"blob");
    let mounted = served.ask("POST", &format!("/v2/b/blobs/uploads/?mount={digest}&from=a"), &[], b"");
    assert_eq!(mounted.status, 201);
    assert_eq!(served.get(&format!("/v2/b/blobs/{digest}")).body, b"blob");
    let not_there = served.ask("POST", &format!("/v2/c/blobs/uploads/?mount={digest}&from=x"), &[], b"");
    assert_eq!(not_there.status, 202, "an upload begins instead");
    assert_eq!(served.ask("DELETE", &not_there.header("location"), &[], b"").status, 204);
    served.ask("PATCH", &not_there.header("location"), &[], b"x").fails(404, "BLOB_UPLOAD_UNKNOWN");

    let begun = served.ask("POST", "/v2/a/blobs/uploads/", &[], b"").header("location");
    served.ask("PUT", &format!("{begun}?digest={}", Digest::of(b"other")), &[], b"blob").fails(400, "DIGEST_INVALID");
    served.ask("PUT", &begun, &[], b"").fails(400, "DIGEST_INVALID");
    served.ask("POST", "/v2/a/blobs/uploads/?digest=md5:1", &[], b"").fails(400, "DIGEST_INVALID");

    let made = image();
    let put = |bytes: &[u8]| served.ask("PUT", "/v2/a/manifests/1", &[("content-type", MANIFEST)], bytes);
    put(&made.manifest).fails(404, "MANIFEST_BLOB_UNKNOWN");
    put(b"{").fails(400, "MANIFEST_INVALID");
    put(br#"{"schemaVersion":1}"#).fails(400, "MANIFEST_INVALID");
    put(&vec![b' '; 5 << 20]).fails(413, "MANIFEST_INVALID");
    let elsewhere = format!("/v2/a/manifests/{}", Digest::of(b"other"));
    served.ask("PUT", &elsewhere, &[("content-type", MANIFEST)], &made.manifest).fails(400, "DIGEST_INVALID");
    assert_eq!(served.ask("POST", "/v2/a/manifests/1", &[], b"").status, 405);
    assert_eq!(served.get("/v2/a/manifests/1").status, 404);
}

#[test]
fn content_discovery() {
    let served = Served::new();
    let made = image();
    for tag in ["b", "a", "d", "c"] {
        served.push_image("app", tag, &made);
    }
    assert_eq!(served.get("/v2/app/tags/list").json(), json!({"name": "app", "tags": ["a", "b", "c", "d"]}));
    let page = served.get("/v2/app/tags/list?n=2");
    assert_eq!(
        (page.json()["tags"].clone(), page.header("link")),
        (json!(["a", "b"]), "</v2/app/tags/list?n=2&last=b>; rel=\"next\"".to_owned())
    );
    let rest = served.get("/v2/app/tags/list?n=2&last=b");
    assert_eq!((rest.json()["tags"].clone(), rest.header("link")), (json!(["c", "d"]), String::new()));
    assert_eq!(served.get("/v2/app/tags/list?n=0").json()["tags"], json!([]));
    assert_eq!(served.get("/v2/app/tags/list?last=c").json()["tags"], json!(["d"]));
    served.get("/v2/nothing/tags/list").fails(404, "NAME_UNKNOWN");
    assert_eq!(served.get("/v2/_catalog").json(), json!({"repositories": ["app"]}));

    // What refers to an image, by kind.
    let subject = Digest::of(&made.manifest).to_string();
    let empty = served.push_blob("app", b"{}");
    for kind in ["example/signature", "example/sbom"] {
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": kind, "layers": [],
            "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": empty, "size": 2},
            "subject": {"mediaType": MANIFEST, "digest": subject, "size": made.manifest.len()},
            "annotations": {"kind": kind}})
        .to_string();
        let path = format!("/v2/app/manifests/{}", Digest::of(manifest.as_bytes()));
        let put = served.ask("PUT", &path, &[("content-type", MANIFEST)], manifest.as_bytes());
        assert_eq!((put.status, put.header("oci-subject")), (201, subject.clone()));
    }
    let all = served.get(&format!("/v2/app/referrers/{subject}"));
    assert_eq!(all.header("content-type"), "application/vnd.oci.image.index.v1+json");
    assert_eq!(all.json()["manifests"].as_array().unwrap().len(), 2);
    let some = served.get(&format!("/v2/app/referrers/{subject}?artifactType=example%2Fsbom"));
    assert_eq!(some.header("oci-filters-applied"), "artifactType");
    let found = some.json()["manifests"].clone();
    assert_eq!((found.as_array().unwrap().len(), &found[0]["annotations"]["kind"]), (1, &json!("example/sbom")));
    let none = served.get(&format!("/v2/app/referrers/{}", Digest::of(b"x")));
    assert_eq!((none.status, none.json()["manifests"].clone()), (200, json!([])));
}

#[test]
fn content_management() {
    let served = Served::new();
    let made = image();
    served.push_image("app", "1", &made);
    served.push_image("app", "2", &made);
    let digest = Digest::of(&made.manifest).to_string();
    let delete = |path: String| served.ask("DELETE", &path, &[], b"").status;
    assert_eq!(delete("/v2/app/manifests/1".to_owned()), 202);
    assert_eq!(served.get("/v2/app/manifests/1").status, 404);
    assert_eq!(served.get("/v2/app/manifests/2").status, 200);
    assert_eq!(delete(format!("/v2/app/manifests/{digest}")), 202);
    assert_eq!(served.get("/v2/app/manifests/2").status, 404);
    assert_eq!(served.get("/v2/app/tags/list").json()["tags"], json!([]));
    assert_eq!(delete(format!("/v2/app/manifests/{digest}")), 404);
    let blob = format!("/v2/app/blobs/{}", made.layers[0]);
    assert_eq!((delete(blob.clone()), served.get(&blob).status, delete(blob)), (202, 404, 404));
}

#[test]
fn a_page_in_a_browser_that_points_its_name_here_is_not_answered() {
    let served = Served::new();
    served.ask("GET", "/v2/", &[("host", "attacker.example")], b"").fails(403, "DENIED");
    // Nor is one that sends a form to this address: what it says would be kept.
    let upload = format!("/v2/a/blobs/uploads/?digest={}", Digest::of(b"blob"));
    let (origin, kind) = (("origin", "https://attacker.example"), ("content-type", "text/plain"));
    served.ask("POST", &upload, &[origin, kind], b"blob").fails(403, "DENIED");
    assert!(!served.has_repository("a"));
    // Nor is anything sent as a page that somebody has pushed.
    let page = br#"{"schemaVersion": 2, "mediaType": "text/html", "x": "<script>alert(1)</script>"}"#;
    served.ask("PUT", "/v2/a/manifests/1", &[("content-type", "text/html")], page).fails(400, "MANIFEST_INVALID");
}

#[test]
fn images_of_the_store_can_be_pulled_without_being_pushed() {
    let served = Served::new();
    let made = image();
    // Into the store of the registry itself, by way of another one.
    let fake = super::fake::Fake::with(&made, |_| None);
    let registries = super::fake::registries(served.folder.path(), &[]);
    let name = fake.name("a:1");
    let host = rcompose::image::Platform::host();
    registries.pull(&served.store(), &name, &host, &|_, _| {}).unwrap();
    served.store().tag(&name.familiar(), "team/app:1").unwrap();

    assert_eq!(served.get("/v2/team/app/tags/list").json()["tags"], json!(["1"]));
    let here = super::fake::Here::new(&[]);
    let there = rcompose::image::Reference::parse(&format!("{}/team/app:1", served.address)).unwrap();
    let pulled = here.pull(&there).unwrap();
    assert_eq!(pulled.id, made.id);
    assert_eq!(here.file(&there.familiar(), "low"), noise(1, 50_000));
    // A part of a layer, too.
    let manifest = served.get(&format!("/v2/team/app/manifests/{}", pulled.digest)).json();
    let layer = manifest["layers"][0]["digest"].as_str().unwrap().to_owned();
    let path = format!("/v2/team/app/blobs/{layer}");
    let whole = served.get(&path).body;
    assert_eq!(Digest::of(&whole).to_string(), layer);
    assert_eq!(served.ask("GET", &path, &[("range", "bytes=500-40000")], b"").body, whole[500..=40_000]);
    // Names of other registries are not ours to give.
    served.get(&format!("/v2/a/blobs/{layer}")).fails(404, "BLOB_UNKNOWN");
}

/// The disk is not filled, and what has no room is given up at once.
#[test]
fn a_push_for_which_the_disk_has_no_room_is_refused_and_leaves_nothing() {
    let test = "registry::serve::a_push_for_which_the_disk_has_no_room_is_refused_and_leaves_nothing";
    if !crate::support::can_run_containers(test) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let options = Some(c"size=20m");
    rustix::mount::mount("tmpfs", folder.path(), "tmpfs", rustix::mount::MountFlags::empty(), options).unwrap();
    let store = Store::open(folder.path()).unwrap();
    let server = Server::bind(store, "127.0.0.1:0".parse().unwrap()).unwrap();
    let address = server.address().unwrap();
    std::thread::spawn(move || server.run());
    let served = Served { address, folder };
    let uploads = served.folder.path().join("images/registry/uploads");
    let begun = served.ask("POST", "/v2/a/blobs/uploads/", &[], b"");
    let place = begun.headers["location"].to_str().unwrap().to_owned();
    let refused = served.ask("PATCH", &place, &[], &vec![1; 30 << 20]);
    assert_eq!(refused.status, 507, "{}", String::from_utf8_lossy(&refused.body));
    assert_eq!(std::fs::read_dir(&uploads).unwrap().count(), 0);
    let small = served.ask("POST", &format!("/v2/a/blobs/uploads/?digest={}", Digest::of(b"x")), &[], b"x");
    assert_eq!(small.status, 201);
    rustix::mount::unmount(served.folder.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
}
