//! Mutations of a small corpus: whatever a file holds, its reader answers and does not panic, and a layer stays in its place.
//!
//! `RCOMPOSE_FUZZ_SECONDS` says how long each target runs (1 without it), `RCOMPOSE_FUZZ_SEED` with which seed. An
//! input that broke something belongs into `tests/corpus`, where every run tries it as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use rcompose::base::trash::Trash;
use rcompose::build::graph::{Inputs, graph};
use rcompose::build::parse::parse;
use rcompose::compose::{self, LoadOptions, render};
use rcompose::image::{ImageDocument, Manifest, Platform, Store, manifest};

/// Pieces that mean something in one of the formats.
const TOKENS: [&str; 54] = [
    "&a ",
    "*a",
    "<<: ",
    "!reset ",
    "!override ",
    "- ",
    ": ",
    "\n",
    "\n  ",
    "{",
    "}",
    "[",
    "]",
    "|\n",
    ">-\n",
    "\"",
    "'",
    "#",
    "---\n",
    "? ",
    "${",
    "$$",
    "${A:-",
    "${A?",
    ":+",
    "}}",
    "\\",
    "\u{feff}",
    "\u{0}",
    "é",
    "0x",
    "1e9",
    "extends: ",
    "services:",
    "export ",
    "=",
    "\\\n",
    "FROM ",
    "RUN ",
    "COPY --from=",
    "ADD ",
    "ARG ",
    "ONBUILD ",
    " AS ",
    "--mount=type=",
    "<<EOF\n",
    "<<-'X' ",
    "# escape=`\n",
    "null",
    "-1",
    "18446744073709551616",
    "../",
    "/",
    ".wh.",
];

/// xorshift64*: what it gives is the same for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(high).unwrap_or(0) % bound.max(1)
    }
}

fn mutate(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = seeds[random.below(seeds.len())].clone();
    for _ in 0..=random.below(6) {
        let at = random.below(bytes.len() + 1);
        let end = (at + random.below(40)).min(bytes.len());
        match random.below(6) {
            0 => drop(bytes.drain(at..end)),
            1 => {
                let piece = bytes[at..end].to_vec();
                let to = random.below(bytes.len() + 1);
                bytes.splice(to..to, piece);
            }
            2 if at < bytes.len() => bytes[at] = u8::try_from(random.below(128)).unwrap(),
            3 => {
                let other = &seeds[random.below(seeds.len())];
                let from = random.below(other.len() + 1);
                let until = (from + random.below(80)).min(other.len());
                bytes.splice(at..end, other[from..until].iter().copied());
            }
            _ => {
                let token = TOKENS[random.below(TOKENS.len())];
                bytes.splice(at..at, token.bytes());
            }
        }
    }
    bytes.truncate(8192);
    bytes
}

/// Runs `target` with the corpus of that name and with mutations of it.
fn fuzz(name: &str, target: impl Fn(&Path, &[u8])) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(name);
    let mut files: Vec<_> = fs::read_dir(corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let seeds: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).unwrap()).collect();
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().canonicalize().unwrap();
    let run = |input: &[u8]| {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(&place, input))) {
            eprintln!("{name} panics with {:?}", String::from_utf8_lossy(input));
            resume_unwind(panic);
        }
    };
    seeds.iter().for_each(|seed| run(seed));
    let mut random = Random(number("RCOMPOSE_FUZZ_SEED").unwrap_or(1).max(1));
    let end = Instant::now() + Duration::from_secs(number("RCOMPOSE_FUZZ_SECONDS").unwrap_or(1));
    let mut runs = 0;
    while Instant::now() < end {
        run(&mutate(&seeds, &mut random));
        runs += 1;
    }
    println!("{name}: {runs} inputs");
}

fn load(folder: &Path) {
    let options =
        LoadOptions { working_dir: folder.to_owned(), project_name: Some("test".to_owned()), ..LoadOptions::default() };
    let environment = BTreeMap::from([("A".to_owned(), "a".to_owned()), ("E".to_owned(), String::new())]);
    if let Some(tree) = compose::load_tree(&options, &environment).tree {
        let _ = (render::yaml(&tree), render::json(&tree));
    }
    let _ = compose::load_uninterpolated(&options, &environment);
}

#[test]
fn yaml() {
    fuzz("yaml", |folder, input| {
        fs::write(folder.join("compose.yaml"), input).unwrap();
        load(folder);
    });
}

#[test]
fn dotenv() {
    fuzz("dotenv", |folder, input| {
        let raw = "{path: vars, format: raw}";
        let text = format!("services: {{a: {{image: x, env_file: [vars]}}, b: {{image: x, env_file: [{raw}]}}}}\n");
        fs::write(folder.join("compose.yaml"), text).unwrap();
        fs::write(folder.join("vars"), input).unwrap();
        fs::write(folder.join(".env"), input).unwrap();
        load(folder);
    });
}

#[test]
fn interpolation() {
    fuzz("interpolation", |folder, input| {
        let value = serde_json::Value::from(String::from_utf8_lossy(input));
        fs::write(folder.join("compose.yaml"), format!("services: {{a: {{image: x, command: [{value}]}}}}\n")).unwrap();
        load(folder);
    });
}

#[test]
fn dockerfile() {
    fuzz("dockerfile", |_, input| {
        let Ok(parsed) = parse(&String::from_utf8_lossy(input)) else { return };
        let args = BTreeMap::from([("V".to_owned(), "v".to_owned())]);
        let inputs = Inputs { args, platform: "linux/amd64".to_owned(), ..Inputs::default() };
        for target in [None, Some("one".to_owned()), Some("1".to_owned())] {
            let _ = graph(parsed.clone(), &Inputs { target, ..inputs.clone() });
        }
    });
}

#[test]
fn manifest() {
    fuzz("manifest", |_, input| {
        for kind in ["", manifest::MANIFEST, manifest::INDEX, manifest::DOCKER_MANIFEST, manifest::DOCKER_INDEX] {
            if let Ok(Manifest::Index(index)) = Manifest::parse(kind, input) {
                let _ = index.choose(&Platform::host());
            }
        }
        let _ = serde_json::from_slice::<ImageDocument>(input);
    });
}

/// Layers are unpacked into a store, with headers whose checksums are right. What lies beside it stays as it is.
#[test]
fn layer() {
    fuzz("layer", |folder, input| {
        let outside = folder.join("outside");
        fs::create_dir_all(&outside).unwrap();
        fs::write(outside.join("kept"), "kept").unwrap();
        let store = Store::open(&folder.join("data")).unwrap();
        let mut archive = input.to_vec();
        archive.resize(archive.len().next_multiple_of(512) + 1024, 0);
        for header in archive.chunks_exact_mut(512).filter(|block| &block[257..262] == b"ustar") {
            header[148..156].fill(b' ');
            let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
            header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        let _ = store.import(&mut archive.as_slice(), None, &[], "");
        let left: Vec<_> = fs::read_dir(&outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["kept"], "beside the store");
        assert_eq!(fs::read_to_string(outside.join("kept")).unwrap(), "kept");
        let beside: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(beside.iter().all(|name| name == "data" || name == "outside"), "{beside:?}");
        store.prune(true, &BTreeSet::new()).unwrap();
        Trash::new(&folder.join("data")).empty().unwrap();
    });
}
