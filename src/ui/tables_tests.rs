use super::*;
use crate::spec::{Exit, Protocol, fixture};

const NOW: i64 = 1_763_950_731_000_000_000;

fn container(service: &str, number: u32, phase: Phase, ports: Vec<Published>) -> ContainerState {
    let mut container = ContainerState { number, ports, ..fixture::container(service, phase) };
    container.name = format!("clioracle-{service}-{number}");
    container.service.container.image = "busybox:latest".to_owned();
    container.created_at = NOW - 3 * SECOND;
    container
}

fn port(ip: &str, host: u16, container: u16) -> Published {
    Published { host_ip: ip.parse().unwrap(), host, container, protocol: Protocol::Tcp }
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

fn row<'a>(container: &'a ContainerState, command: &'a [String]) -> PsRow<'a> {
    PsRow { container, project: "clioracle", command, networks: &[], mounts: &[], volumes: 0, restarting: false }
}

#[test]
fn a_command_is_quoted_as_go_quotes_it() {
    let command = |text: &str| command(&["sh".to_owned(), "-c".to_owned(), text.to_owned()], true);
    assert_eq!(command("echo \"a\tb\""), r#""sh -c 'echo \"a\tb\"'""#);
    assert_eq!(command("a\\b c\n\u{1b}é"), r#""sh -c 'a\\b c\n\x1bé'""#);
}

#[test]
fn ps_looks_as_docker_compose_prints_it() {
    let exited = container("long-name", 1, Phase::Exited(Exit { code: 3, oom: false, at: NOW - 3 * SECOND }), vec![]);
    let published = vec![
        port("127.0.0.1", 18390, 80),
        port("127.0.0.1", 18391, 81),
        port("0.0.0.0", 18395, 90),
        port("::", 18395, 90),
    ];
    let up = Phase::Running {
        pid: 1,
        started_at: NOW - 3 * SECOND,
        health: Some(Health::Healthy),
        paused: false,
        joined: Vec::new(),
    };
    let web = container("web", 1, up, published);
    let (one, two) = (words("sh -c 'echo one; echo two'"), words("sh -c 'echo hello; sleep 1'"));
    let rows = [row(&exited, &one), row(&web, &two)];
    let expected = "\
NAME                    IMAGE            COMMAND                  SERVICE     CREATED         STATUS                     PORTS
clioracle-long-name-1   busybox:latest   \"sh -c 'echo one; ec…\"   long-name   3 seconds ago   Exited (3) 3 seconds ago   
clioracle-web-1         busybox:latest   \"sh -c 'echo hello; …\"   web         3 seconds ago   Up 3 seconds (healthy)     127.0.0.1:18390->80/tcp, 127.0.0.1:18391->81/tcp, 0.0.0.0:18395->90/tcp, [::]:18395->90/tcp
";
    assert_eq!(ps(&rows, false, NOW), expected);
}

#[test]
fn an_empty_ps_has_dockers_columns() {
    let expected = "NAME      IMAGE     COMMAND   SERVICE   CREATED   STATUS    PORTS\n";
    assert_eq!(ps(&[], false, NOW), expected);
}

#[test]
fn ps_json_has_dockers_keys() {
    let web = container("web", 1, Phase::Created, vec![port("127.0.0.1", 18390, 80)]);
    let command = words("true");
    let rows = [row(&web, &command)];
    let object = ps_objects(&rows, false, NOW).remove(0);
    let keys: Vec<_> = object.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = "Command CreatedAt ExitCode Health ID Image Labels LocalVolumes Mounts Name Names Networks Ports Project \
                    Publishers RunningFor Service Size State Status";
    assert_eq!(keys.join(" "), expected);
    assert_eq!(object["ID"], "070707070707");
    assert_eq!(object["CreatedAt"], "2025-11-24 02:18:48 +0000 UTC");
    assert_eq!(
        object["Publishers"],
        json!([{"URL": "127.0.0.1", "TargetPort": 80, "PublishedPort": 18390, "Protocol": "tcp"}])
    );
}

#[test]
fn equal_neighbours_are_merged_to_ranges() {
    let same =
        [port("0.0.0.0", 8080, 8080), port("0.0.0.0", 8081, 8081), port("::", 8080, 8080), port("::", 8081, 8081)];
    assert_eq!(
        ports(&[port("0.0.0.0", 8000, 80), port("0.0.0.0", 443, 443)]),
        "0.0.0.0:443->443/tcp, 0.0.0.0:8000->80/tcp"
    );
    assert_eq!(ports(&same), "0.0.0.0:8080-8081->8080-8081/tcp, [::]:8080-8081->8080-8081/tcp");
}

#[test]
fn images_look_as_docker_compose_prints_them() {
    let row = ImageRow {
        container: "clioracle-long-name-1".to_owned(),
        repository: "busybox".to_owned(),
        tag: "latest".to_owned(),
        platform: "linux/amd64".to_owned(),
        id: "sha256:abdd3706e645d2e558c88de38b55dac789527f65e3597d873803e1c16532bf4a".to_owned(),
        size: 2_065_221,
        created: Some(NOW - 34 * 60 * SECOND),
        digest: None,
    };
    let expected = "\
CONTAINER               REPOSITORY          TAG                 PLATFORM            IMAGE ID            SIZE                CREATED
clioracle-long-name-1   busybox             latest              linux/amd64         abdd3706e645        2.07MB              34 minutes ago
";
    assert_eq!(images(std::slice::from_ref(&row), NOW), expected);
    let expected = "\
REPOSITORY   TAG       IMAGE ID       CREATED          SIZE
busybox      latest    abdd3706e645   34 minutes ago   2.07MB
";
    assert_eq!(image_ls(&[row], false, false, NOW), expected);
}

#[test]
fn ls_looks_as_docker_compose_prints_it() {
    let row = LsRow {
        name: "clioracle".to_owned(),
        states: BTreeMap::from([("running".to_owned(), 1)]),
        config_files: vec!["/tmp/clioracle/compose.yaml".to_owned()],
    };
    let expected = "\
NAME                STATUS              CONFIG FILES
clioracle           running(1)          /tmp/clioracle/compose.yaml
";
    assert_eq!(ls(std::slice::from_ref(&row)), expected);
    let json = "[{\"Name\":\"clioracle\",\"Status\":\"running(1)\",\"ConfigFiles\":\"/tmp/clioracle/compose.yaml\"}]\n";
    assert_eq!(ls_json(&[row]), json);
}
