use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::*;

#[test]
fn a_tree_comes_out_as_it_went_in() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    fs::create_dir_all(from.join("a/b")).unwrap();
    fs::create_dir(&to).unwrap();
    fs::write(from.join("a/b/file"), "text").unwrap();
    fs::set_permissions(from.join("a/b/file"), fs::Permissions::from_mode(0o640)).unwrap();
    symlink("b/file", from.join("a/link")).unwrap();
    let mut stream = Vec::new();
    archive(File::open(&from).unwrap(), "a", "new", false, &mut stream).unwrap();
    let root = File::open(&to).unwrap();
    extract(&root, "/", stream.as_slice(), Owners::Ours, Symlinks::InRoot).unwrap();
    assert_eq!(fs::read_to_string(to.join("new/link")).unwrap(), "text");
    let (old, new) = (fs::metadata(from.join("a/b/file")).unwrap(), fs::metadata(to.join("new/b/file")).unwrap());
    assert_eq!((old.mode(), old.mtime()), (new.mode(), new.mtime()));
    assert_eq!(kind(&root, "new").unwrap(), Some(Kind::Directory));
    assert_eq!(kind(&root, "nope").unwrap(), None);
    remove(&root, "new/b").unwrap();
    remove(&root, "new/nope").unwrap();
    assert!(!to.join("new/b").exists() && fs::symlink_metadata(to.join("new/link")).is_ok());
}

#[test]
fn a_stream_leads_nowhere_else() {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("to");
    fs::create_dir(&to).unwrap();
    let secret = folder.path().join("secret");
    fs::write(&secret, "safe").unwrap();
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    header.set_mode(0o777);
    builder.append_link(&mut header, "out", folder.path()).unwrap();
    let mut header = tar::Header::new_gnu();
    header.set_size(3);
    header.set_mode(0o644);
    builder.append_data(&mut header, "out/secret", &b"bad"[..]).unwrap();
    let stream = builder.into_inner().unwrap();
    let root = File::open("/").unwrap();
    let shown = to.to_str().unwrap();
    assert!(extract(&root, shown, stream.as_slice(), Owners::Ours, Symlinks::Refused).is_err());
    assert_eq!(fs::read_to_string(&secret).unwrap(), "safe");
    // Inside a container's own root its links mean what they mean there.
    let inside = File::open(&to).unwrap();
    assert!(extract(&inside, "/", stream.as_slice(), Owners::Ours, Symlinks::InRoot).is_err());
    assert_eq!(fs::read_to_string(&secret).unwrap(), "safe");
}

#[test]
fn a_set_id_program_is_one_in_a_container_only() {
    let folder = tempfile::tempdir().unwrap();
    let mut header = tar::Header::new_gnu();
    header.set_size(0);
    header.set_mode(0o6755);
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_data(&mut header, "program", &b""[..]).unwrap();
    let stream = builder.into_inner().unwrap();
    let (here, inside) = (File::open("/").unwrap(), File::open(folder.path()).unwrap());
    let shown = folder.path().to_str().unwrap();
    let mode = || fs::metadata(folder.path().join("program")).unwrap().mode() & 0o7777;
    extract(&inside, "/", stream.as_slice(), Owners::Ours, Symlinks::InRoot).unwrap();
    assert_eq!(mode(), 0o6755);
    extract(&here, shown, stream.as_slice(), Owners::Ours, Symlinks::Refused).unwrap();
    assert_eq!(mode(), 0o755);
}

/// A container puts links in the place of directories that have just been made: the mode would be that of another one of its own
/// tree, which a mere user in there could not change.
#[test]
fn what_is_made_is_what_gets_the_mode() {
    let folder = tempfile::tempdir().unwrap();
    let victim = folder.path().join("victim");
    fs::create_dir(&victim).unwrap();
    fs::set_permissions(&victim, fs::Permissions::from_mode(0o711)).unwrap();
    let mut builder = tar::Builder::new(Vec::new());
    let names: Vec<String> = (0..500).map(|number| format!("made{number}")).collect();
    for name in &names {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_size(0);
        header.set_mode(0o777);
        builder.append_data(&mut header, name, &b""[..]).unwrap();
    }
    let stream = builder.into_inner().unwrap();
    let attack = || {
        for name in &names {
            let path = folder.path().join(name);
            // Between the two it may be made once more.
            while fs::rename(&path, folder.path().join(format!("old-{name}"))).is_err()
                || symlink("victim", &path).is_err()
            {}
        }
    };
    std::thread::scope(|scope| {
        let attack = scope.spawn(attack);
        let root = File::open(folder.path()).unwrap();
        // What has gone meanwhile is an error, and begun anew.
        while !attack.is_finished() {
            let _ = extract(&root, "/", stream.as_slice(), Owners::Ours, Symlinks::InRoot);
        }
    });
    assert_eq!(fs::metadata(&victim).unwrap().mode() & 0o777, 0o711);
}
