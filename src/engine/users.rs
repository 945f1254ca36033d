//! Who the process is: `user[:group]` and `group_add` against the image's own `/etc/passwd` and `/etc/group`.
//!
//! Both files come from the image and are hostile: lines that do not parse are skipped, nothing else follows from them.

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::OFlags;

use crate::sys::inroot;

/// More than this of a user database is not read.
const MAX_DATABASE: u64 = 4 << 20;
/// Linux's limit on supplementary groups.
const MAX_GROUPS: usize = 65_536;

/// A resolved user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups; the primary one first, as Docker sets them.
    pub groups: Vec<u32>,
    /// Home directory; `/` when the user is not in the image.
    pub home: String,
}

/// A user or group that the image does not know.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    #[error(
        "`user: {wanted}`: the image has no user `{name}` in `/etc/passwd`; use a number or a user that the image creates"
    )]
    NoUser { wanted: String, name: String },
    #[error(
        "`{attribute}: {wanted}`: the image has no group `{name}` in `/etc/group`; use a number or a group of the image"
    )]
    NoGroup { attribute: &'static str, wanted: String, name: String },
    #[error("`{attribute}: {wanted}` is out of range: ids go from 0 to 2147483647")]
    OutOfRange { attribute: &'static str, wanted: String },
}

/// The image's user databases.
#[derive(Clone, Debug, Default)]
pub struct UserDatabase {
    pub passwd: Vec<u8>,
    pub group: Vec<u8>,
}

impl UserDatabase {
    /// Reads both files below a root directory, links resolved inside it. Missing or unreadable files are empty.
    pub fn read(root: impl AsFd) -> Self {
        let read = |path: &str| read_in_root(root.as_fd(), path).unwrap_or_default();
        Self { passwd: read("etc/passwd"), group: read("etc/group") }
    }

    /// Resolves `user[:group]` (`None` or empty: root) and `group_add`.
    ///
    /// # Errors
    /// Names that the image does not have, numbers that are no id.
    pub fn resolve(&self, wanted: Option<&str>, group_add: &[String]) -> Result<User, UserError> {
        let wanted = wanted.unwrap_or_default();
        let (name, group) = match wanted.split_once(':') {
            Some((name, group)) => (name, Some(group).filter(|group| !group.is_empty())),
            None => (wanted, None),
        };
        let name = if name.is_empty() { "0" } else { name };
        let id = number("user", wanted, name)?;
        let account = self.accounts().find(|account| account.name == name || Some(account.uid) == id);
        let (uid, own_gid, login, home) = match (account, id) {
            (Some(account), _) => (account.uid, account.gid, Some(account.name), account.home),
            (None, Some(uid)) => (uid, 0, None, "/".to_owned()),
            (None, None) => return Err(UserError::NoUser { wanted: wanted.to_owned(), name: name.to_owned() }),
        };
        let gid = group.map_or(Ok(own_gid), |group| self.group_id("user", wanted, group))?;
        let mut groups = vec![gid];
        if group.is_none() {
            let login = login.unwrap_or_else(|| name.to_owned());
            groups.extend(self.groups().filter(|group| group.members.contains(&login)).map(|group| group.gid));
        }
        for added in group_add {
            groups.push(self.group_id("group_add", added, added)?);
        }
        let mut seen = std::collections::HashSet::new();
        groups.retain(|gid| seen.insert(*gid));
        groups.truncate(MAX_GROUPS);
        Ok(User { uid, gid, groups, home })
    }

    fn group_id(&self, attribute: &'static str, wanted: &str, name: &str) -> Result<u32, UserError> {
        let id = number(attribute, wanted, name)?;
        let known = self.groups().find(|group| group.name == name).map(|group| group.gid);
        known.or(id).ok_or_else(|| UserError::NoGroup { attribute, wanted: wanted.to_owned(), name: name.to_owned() })
    }

    fn accounts(&self) -> impl Iterator<Item = Account> + '_ {
        lines(&self.passwd).filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?.to_owned();
            let uid = id(fields.nth(1)?)?;
            let gid = id(fields.next()?)?;
            let home = fields.nth(1).filter(|home| home.starts_with('/')).unwrap_or("/").to_owned();
            Some(Account { name, uid, gid, home })
        })
    }

    fn groups(&self) -> impl Iterator<Item = Group> + '_ {
        lines(&self.group).filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?.to_owned();
            let gid = id(fields.nth(1)?)?;
            let members = fields.next().unwrap_or_default().split(',').map(str::to_owned).collect();
            Some(Group { name, gid, members })
        })
    }
}

struct Account {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

struct Group {
    name: String,
    gid: u32,
    members: Vec<String>,
}

/// Lines that are text and no comment.
fn lines(bytes: &[u8]) -> impl Iterator<Item = &str> {
    let lines = bytes.split(|byte| *byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok());
    lines.map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// The number, if the text is one.
fn number(attribute: &'static str, wanted: &str, text: &str) -> Result<Option<u32>, UserError> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    id(text).map(Some).ok_or_else(|| UserError::OutOfRange { attribute, wanted: wanted.to_owned() })
}

/// As Docker takes them. To become the user of the last number (-1) would be to stay root.
fn id(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id <= i32::MAX as u32)
}

fn read_in_root(root: BorrowedFd<'_>, path: &str) -> Option<Vec<u8>> {
    let file = inroot::regular(&inroot::open(root, path.as_bytes(), OFlags::PATH).ok()?).ok()?;
    let mut bytes = Vec::new();
    file.take(MAX_DATABASE).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database() -> UserDatabase {
        UserDatabase {
            passwd: b"root:x:0:0:root:/root:/bin/sh\nbroken\nmail:x:8:8::/var/mail:/bin/false\n12:x:77:78::/h:/x\n\xff:x:1:1::/:\n"
                .to_vec(),
            group: b"root:x:0:root\nmail:x:8:\naudio:x:29:mail,root\nbad:x:notnumber:mail\nvideo:x:44:other".to_vec(),
        }
    }

    fn resolve(user: &str, add: &[&str]) -> Result<User, UserError> {
        let add: Vec<_> = add.iter().map(|name| (*name).to_owned()).collect();
        database().resolve(Some(user), &add)
    }

    #[test]
    fn names_numbers_and_groups() {
        let user = |uid, gid, groups: &[u32], home: &str| User { uid, gid, groups: groups.to_vec(), home: home.into() };
        assert_eq!(resolve("", &[]), Ok(user(0, 0, &[0, 29], "/root")));
        assert_eq!(resolve("mail", &["video"]), Ok(user(8, 8, &[8, 29, 44], "/var/mail")));
        assert_eq!(resolve("8", &[]), Ok(user(8, 8, &[8, 29], "/var/mail")));
        assert_eq!(resolve("1000:1000", &["44"]), Ok(user(1000, 1000, &[1000, 44], "/")));
        assert_eq!(resolve("1000", &[]), Ok(user(1000, 0, &[0], "/")));
        assert_eq!(resolve("mail:video", &[]), Ok(user(8, 44, &[44], "/var/mail")));
        assert_eq!(resolve("12", &[]), Ok(user(77, 78, &[78], "/h")));
    }

    #[test]
    fn unknown_names_say_what_to_do() {
        let error = resolve("nobody", &[]).unwrap_err().to_string();
        assert_eq!(
            error,
            "`user: nobody`: the image has no user `nobody` in `/etc/passwd`; use a number or a user that the image creates"
        );
        assert!(matches!(resolve("0:nogroup", &[]), Err(UserError::NoGroup { .. })));
        assert!(matches!(resolve("4294967295", &[]), Err(UserError::OutOfRange { .. })));
        assert!(matches!(resolve("65536000000:0", &[]), Err(UserError::OutOfRange { .. })));
        let passwd = b"rest:x:4294967295:4294967295::/:/bin/sh\n".to_vec();
        let database = UserDatabase { passwd, group: b"rest:x:4294967295:\n".to_vec() };
        assert!(matches!(database.resolve(Some("rest"), &[]), Err(UserError::NoUser { .. })));
        assert!(matches!(database.resolve(None, &["rest".to_owned()]), Err(UserError::NoGroup { .. })));
    }

    #[test]
    fn a_link_out_of_the_root_is_resolved_inside_it() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", root.path().join("etc/passwd")).unwrap();
        let handle = std::fs::File::open(root.path()).unwrap();
        assert!(UserDatabase::read(&handle).passwd.is_empty());
        std::fs::write(root.path().join("etc/hostname"), "inside").unwrap();
        assert_eq!(UserDatabase::read(&handle).passwd, b"inside");
    }
}
