//! `volumes` in all forms, `volumes_from`, and the options of the local driver.

use super::{printed, shell};
use crate::support::{Project, can_run_containers, eventually, needs_root};

#[test]
fn mounts_below_a_bind_are_as_recursive_says() {
    if !can_run_containers("mounts_below_a_bind_are_as_recursive_says") {
        return;
    }
    if needs_root("mounts_below_a_bind_are_as_recursive_says", "the kernel does not part a mount from those below it") {
        return;
    }
    let try_all = shell(
        "for d in enabled disabled writable readonly; do
           [ -e /$d/sub/marker ] && echo $d has it
           touch /$d/new 2>/dev/null && echo $d is writable
           touch /$d/sub/new 2>/dev/null && echo $d/sub is writable
         done",
    );
    let host = tempfile::tempdir().unwrap();
    let sub = host.path().join("sub");
    std::fs::create_dir(&sub).unwrap();
    let none: Option<&str> = None;
    nix::mount::mount(Some("t"), &sub, Some("tmpfs"), nix::mount::MsFlags::empty(), none).unwrap();
    std::fs::write(sub.join("marker"), "").unwrap();
    let mount = |how: &str| {
        let source = host.path().display();
        format!("{{type: bind, source: {source}, target: /{how}, read_only: true, bind: {{recursive: {how}}}}}")
    };
    let mounts: Vec<_> = ["enabled", "disabled", "writable", "readonly"].map(mount).to_vec();
    let project = Project::new(&format!("services:\n  a: {{{try_all}, volumes: [{}]}}\n", mounts.join(", ")));
    project.run(&["up", "-d"]).ok();
    let said = printed(&project);
    project.down();
    nix::mount::umount(&sub).unwrap();
    assert_eq!(said, "enabled has it\nwritable has it\nwritable/sub is writable\nreadonly has it\n");
}

#[test]
fn mounts_spread_as_propagation_says() {
    if !can_run_containers("mounts_spread_as_propagation_says") {
        return;
    }
    let look = shell(
        "until [ -e /in/go ]; do sleep 0.05; done; [ -e /slave/sub/marker ] && echo slave; [ -e /private/sub/marker ] && echo private; echo over",
    );
    let host = tempfile::tempdir().unwrap();
    let flags = nix::mount::MsFlags::MS_SHARED;
    let none: Option<&str> = None;
    let tmpfs = |path: &std::path::Path| {
        nix::mount::mount(Some("t"), path, Some("tmpfs"), nix::mount::MsFlags::empty(), none).unwrap();
    };
    tmpfs(host.path());
    nix::mount::mount(none, host.path(), none, flags, none).unwrap();
    let source = host.path().display();
    let project = Project::new("services: {}");
    let text = format!(
        "services:\n  a: {{{look}, volumes: ['{source}:/slave:rslave', '{source}:/private', '{}:/in']}}\n",
        project.folder().display()
    );
    project.write("compose.yaml", &text);
    project.run(&["up", "-d"]).ok();
    let sub = host.path().join("sub");
    std::fs::create_dir(&sub).unwrap();
    tmpfs(&sub);
    std::fs::write(sub.join("marker"), "").unwrap();
    project.write("go", "");
    let said = printed(&project);
    project.down();
    nix::mount::umount(&sub).unwrap();
    nix::mount::umount2(host.path(), nix::mount::MntFlags::MNT_DETACH).unwrap();
    assert_eq!(said, "slave\nover\n");
}

#[test]
fn local_volumes_mount_what_their_options_say() {
    if !can_run_containers("local_volumes_mount_what_their_options_say") {
        return;
    }
    if needs_root("local_volumes_mount_what_their_options_say", "mounts are where root does not see them") {
        return;
    }
    let write = shell("echo hello > /t/file; stat -f -c '%T %b %S' /t; touch /b/new /r/new; exec sleep 1000");
    let read = shell("cat /t/file; exec sleep 1000");
    let project = Project::new("services: {}");
    let text = format!(
        "services:
  a: {{{write}, volumes: ['mem:/t', 'bound:/b', 'fixed:/r']}}
  b: {{{read}, volumes: ['mem:/t'], depends_on: [a]}}
volumes:
  mem: {{driver_opts: {{type: tmpfs, device: tmpfs, o: 'size=1m,mode=1777'}}}}
  bound: {{driver: local, driver_opts: {{type: none, device: ./data, o: bind}}}}
  fixed: {{driver_opts: {{type: none, device: $PWD/data, o: 'bind,ro'}}}}
"
    );
    project.write("compose.yaml", &text.replace("$PWD", &project.folder().to_string_lossy()));
    let data = project.folder().join("data");
    std::fs::create_dir(&data).unwrap();
    project.run(&["up", "-d"]).ok();
    let logs = eventually("both have spoken", || {
        let logs = project.run(&["logs", "--no-log-prefix"]).ok().out;
        (logs.contains("hello") && logs.contains("/r/new")).then_some(logs)
    });
    assert!(logs.contains("tmpfs 256 4096"), "{logs}");
    assert!(data.join("new").exists());
    let mounted = |project: &Project| {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        mounts.lines().filter(|line| line.contains(&*project.root().to_string_lossy())).count()
    };
    assert_eq!(mounted(&project), 1, "the file system that both share");
    project.run(&["stop", "a"]).ok();
    assert_eq!(mounted(&project), 1, "b has it still");
    project.run(&["stop"]).ok();
    assert_eq!(mounted(&project), 0);
    project.down();
    assert!(data.join("new").exists(), "what was bound is not the project's to remove");
}

#[test]
fn a_volume_that_cannot_be_mounted_is_an_error() {
    if !can_run_containers("a_volume_that_cannot_be_mounted_is_an_error") {
        return;
    }
    let project = Project::new(&format!(
        "services: {{a: {{{}, volumes: ['vol:/v']}}}}\nvolumes: {{vol: {{driver_opts: {{type: ext4, device: /dev/no-such}}}}}}\n",
        shell("true")
    ));
    let up = project.run(&["up", "-d"]).fails(1);
    assert!(up.err.contains("cannot mount `/dev/no-such` as volume"), "{}", up.err);
    project.down();
}

#[test]
fn mounts_of_other_containers_are_taken_over() {
    if !can_run_containers("mounts_of_other_containers_are_taken_over") {
        return;
    }
    let lend = shell("echo named > /n/file; echo anonymous > /a/file; exec sleep 1000");
    let take = shell("cat /n/file /a/file /b/file; touch /n/x /a/x; exec sleep 1000");
    let project = Project::new("services: {}");
    let folder = project.folder();
    std::fs::create_dir(folder.join("bound")).unwrap();
    std::fs::write(folder.join("bound/file"), "bound\n").unwrap();
    project.write(
        "compose.yaml",
        &format!(
            "services:
  b: {{{take}, volumes_from: ['a:ro']}}
  a: {{{lend}, volumes: ['named:/n', '/a', './bound:/b'], healthcheck: {{test: [CMD, test, -e, /a/file]}}}}
  c: {{{}, volumes_from: ['container:{}-a-1']}}
volumes: {{named: {{}}}}
",
            shell("echo more > /a/more"),
            project.name
        ),
    );
    project.run(&["up", "-d", "a", "--wait"]).ok();
    project.run(&["up", "-d"]).ok();
    let logs = eventually("b has spoken", || {
        let logs = project.run(&["logs", "--no-log-prefix", "b"]).ok().out;
        logs.contains("/a/x").then_some(logs)
    });
    assert!(logs.starts_with("named\nanonymous\nbound\n"), "{logs}");
    assert_eq!(logs.matches("Read-only file system").count(), 2, "{logs}");
    eventually("c has written", || (project.run(&["exec", "-T", "a", "cat", "/a/more"]).code == 0).then_some(()));
    project.down();
}

#[test]
fn a_part_of_a_volume_is_there_when_the_image_has_just_filled_it() {
    if !can_run_containers("a_part_of_a_volume_is_there_when_the_image_has_just_filled_it") {
        return;
    }
    let project = Project::new(
        "services:
  a:
    image: data:1
    command: [/none]
    volumes:
      - {type: volume, source: v, target: /a, volume: {subpath: part}}
      - {type: volume, source: v, target: /whole}
volumes: {v: {}}
",
    );
    let tree = project.folder().join("tree");
    std::fs::create_dir_all(tree.join("whole/part")).unwrap();
    let tar = project.folder().join("tree.tar");
    let packed =
        std::process::Command::new("tar").args(["-C", tree.to_str().unwrap(), "-cf"]).arg(&tar).arg(".").status();
    assert!(packed.unwrap().success());
    project.run(&["image", "import", "tree.tar", "data:1"]).ok();
    // All that is missing is the program.
    let up = project.run(&["up", "-d"]).fails(1);
    assert!(up.err.contains("there is no `/none` in the image"), "{}", up.err);
    project.down();
}

#[test]
fn an_image_is_mounted_read_only() {
    if !can_run_containers("an_image_is_mounted_read_only") {
        return;
    }
    let look = shell("cat /i/etc/motd /j/motd /k; touch /i/new /j/new && echo writable; exec true");
    let project = Project::new(&format!(
        "services:
  a:
    {{{look}, volumes: [
      {{type: image, source: 'data:1', target: /i}},
      {{type: image, source: 'data:1', target: /j, image: {{subpath: etc}}}},
      {{type: image, source: 'data:1', target: /k, image: {{subpath: link}}}}]}}
"
    ));
    let tree = project.folder().join("tree");
    std::fs::create_dir_all(tree.join("etc")).unwrap();
    std::fs::write(tree.join("etc/motd"), "welcome\n").unwrap();
    std::os::unix::fs::symlink("/etc/motd", tree.join("link")).unwrap();
    let missing = project.run(&["up", "-d"]).fails(1);
    assert!(missing.err.contains("data:1"), "{}", missing.err);
    let tar = project.folder().join("tree.tar");
    let packed =
        std::process::Command::new("tar").args(["-C", tree.to_str().unwrap(), "-cf"]).arg(&tar).arg(".").status();
    assert!(packed.unwrap().success());
    project.run(&["image", "import", "tree.tar", "data:1"]).ok();
    project.run(&["up", "-d"]).ok();
    let said = printed(&project);
    assert!(said.contains("welcome\nwelcome\nwelcome\n") && !said.contains("\nwritable"), "{said}");
    project.down();
}
