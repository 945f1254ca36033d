//! `provider`.

use std::os::unix::fs::PermissionsExt;

use super::{printed, shell};
use crate::support::{Project, Ran, can_run_containers};

/// Runs the program with the project's folder in front of the PATH.
fn run(project: &Project, args: &[&str]) -> Ran {
    let path = format!("{}:{}", project.folder().display(), std::env::var("PATH").unwrap());
    project.command(args).env("PATH", path).output().unwrap().into()
}

#[test]
fn a_program_provides_a_service() {
    if !can_run_containers("a_program_provides_a_service") {
        return;
    }
    let project = Project::new(&format!(
        "services:
  db: {{provider: {{type: fakecloud, options: {{size: [1, 2], name: x}}}}}}
  a: {{{}, depends_on: [db]}}
",
        shell("echo $DB_URL")
    ));
    let missing = project.run(&["up", "-d"]).fails(1);
    assert!(missing.err.contains("docker-fakecloud"), "{}", missing.err);
    let program = |text: &str| {
        project.write("docker-fakecloud", &format!("#!/bin/sh\necho \"$*\" >> called\n{text}\n"));
        let runs = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(project.folder().join("docker-fakecloud"), runs).unwrap();
    };
    program(r#"echo '{"type":"info","message":"thinking"}'; echo '{"type":"setenv","message":"URL=http://db=1"}'"#);
    let up = run(&project, &["up", "-d"]).ok();
    assert!(up.err.contains("Service db  thinking"), "{}", up.err);
    assert_eq!(printed(&project), "http://db=1\n");
    run(&project, &["down", "-t", "0"]).ok();
    let called = std::fs::read_to_string(project.folder().join("called")).unwrap();
    let name = &project.name;
    assert_eq!(
        called,
        format!(
            "compose --project-name={name} up --name=x --size=1 --size=2 db\n\
             compose --project-name={name} down --name=x --size=1 --size=2 db\n"
        )
    );
    program(r#"echo '{"type":"error","message":"no money"}'; exit 1"#);
    let up = run(&project, &["up", "-d"]).fails(1);
    assert!(up.err.contains("no money"), "{}", up.err);
    program("true");
    run(&project, &["down"]).ok();
    project.assert_nothing_left();
}
