//! Every attribute of a service: what it becomes, or the error that says that it is not supported yet.

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::world::{lowered, project};

/// A service with one attribute (YAML, one line), where that shows in the lowered service, and what is there.
#[rustfmt::skip]
const SUPPORTED: &[(&str, &str, &str)] = &[
    ("annotations: {a: b}", "/container/annotations", r#"{"a":"b"}"#),
    ("attach: false", "/attach", "false"),
    ("blkio_config: {weight: 300}", "/container/resources/blkio_weight", "300"),
    ("cap_add: [net_admin, CAP_SYS_TIME, ALL]", "/container/cap_add", r#"["NET_ADMIN","SYS_TIME","ALL"]"#),
    ("cap_drop: [ALL]", "/container/cap_drop", r#"["ALL"]"#),
    ("cgroup: host", "/container/cgroup", r#""host""#),
    ("cgroup: private", "/container/cgroup", r#""private""#),
    ("cgroup_parent: mine", "/container/cgroup", "null"),
    ("tmpfs: '/t:size=50%'", "/container/mounts/0/source/tmpfs/options", r#"["size=50%"]"#),
    ("volumes: [{type: volume, target: /t, volume: {nocopy: true}}]", "/container/mounts/0/source/anonymous/no_copy", "true"),
    ("network_mode: default", "/container/network/networks/0/network", r#""bridge""#),
    ("cgroup_parent: mine", "/container/resources/cgroup_parent", r#""mine""#),
    ("command: echo 'a b' c", "/container/command", r#"["echo","a b","c"]"#),
    ("command: []", "/container/command", "[]"),
    ("tty: false", "/container/command", "null"),
    ("configs: [c]", "/container/mounts/0", r#"{"target":"/c","read_only":false,"source":{"content":{"bytes":[104,105],"mode":292,"uid":0,"gid":0}}}"#),
    ("configs: [{source: c, target: /etc/x, uid: '5', gid: '6', mode: 0440}]", "/container/mounts/0", r#"{"target":"/etc/x","read_only":false,"source":{"content":{"bytes":[104,105],"mode":288,"uid":5,"gid":6}}}"#),
    ("container_name: one", "/container_name", r#""one""#),
    ("cpu_shares: 512", "/container/resources/cpu_shares", "512"),
    ("cpu_period: 50000", "/container/resources/cpu_period", "50000"),
    ("cpu_quota: 25000", "/container/resources/cpu_quota", "25000"),
    ("cpus: 1.5", "/container/resources/cpus", "1.5"),
    ("cpus: 0", "/container/resources/cpus", "null"),
    ("cpuset: 0-1", "/container/resources/cpuset", r#""0-1""#),
    ("depends_on: [b]", "/depends_on/b", r#"{"condition":"service_started","required":true,"restart":false}"#),
    ("depends_on: {b: {condition: service_healthy, required: false, restart: true}}", "/depends_on/b", r#"{"condition":"service_healthy","required":false,"restart":true}"#),
    ("depends_on: {b: {condition: service_completed_successfully}}", "/depends_on/b/condition", r#""service_completed_successfully""#),
    ("deploy: {replicas: 3}", "/scale", "3"),
    ("deploy: {resources: {limits: {cpus: '0.5', memory: 64m, pids: 9}}}", "/container/resources/memory", "67108864"),
    ("deploy: {resources: {limits: {cpus: '0.5', memory: 64m, pids: 9}}}", "/container/resources/cpus", "0.5"),
    ("deploy: {resources: {limits: {cpus: '0.5', memory: 64m, pids: 9}}}", "/container/resources/pids", "9"),
    ("deploy: {resources: {reservations: {memory: 32m}}}", "/container/resources/memory_reservation", "33554432"),
    ("deploy: {restart_policy: {condition: on-failure, max_attempts: 2}}", "/restart", r#"{"on_failure":{"max_retries":2}}"#),
    ("deploy: {restart_policy: {condition: none}}", "/restart", r#""no""#),
    ("deploy: {restart_policy: {condition: any}}", "/restart", r#""always""#),
    ("device_cgroup_rules: ['c 1:3 mr']", "/container/resources/device_cgroup_rules", r#"["c 1:3 mr"]"#),
    ("devices: ['/dev/null:/dev/x:r']", "/container/devices", r#"[{"host":"/dev/null","container":"/dev/x","permissions":"r"}]"#),
    ("devices: ['/dev/null']", "/container/devices", r#"[{"host":"/dev/null","container":"/dev/null","permissions":"rwm"}]"#),
    ("dns: 1.1.1.1", "/container/dns", r#"["1.1.1.1"]"#),
    ("dns_opt: [ndots:2]", "/container/dns_opt", r#"["ndots:2"]"#),
    ("dns_search: [a.test]", "/container/dns_search", r#"["a.test"]"#),
    ("domainname: d.test", "/container/domainname", r#""d.test""#),
    ("entrypoint: /bin/e --x", "/container/entrypoint", r#"["/bin/e","--x"]"#),
    ("environment: {A: b, C: }", "/container/environment", r#"{"A":"b","C":null}"#),
    ("extra_hosts: ['a=1.2.3.4', 'b:host-gateway']", "/container/extra_hosts", r#"[["a","1.2.3.4"],["b","host-gateway"]]"#),
    ("group_add: [audio, 44]", "/container/group_add", r#"["audio","44"]"#),
    ("healthcheck: {test: curl x}", "/health", r#"{"command":["/bin/sh","-c","curl x"],"interval":{"secs":30,"nanos":0},"timeout":{"secs":30,"nanos":0},"retries":3,"start_period":{"secs":0,"nanos":0},"start_interval":{"secs":5,"nanos":0}}"#),
    ("healthcheck: {test: [CMD, a, b], interval: 1s, timeout: 2s, retries: 4, start_period: 5s, start_interval: 6s}", "/health", r#"{"command":["a","b"],"interval":{"secs":1,"nanos":0},"timeout":{"secs":2,"nanos":0},"retries":4,"start_period":{"secs":5,"nanos":0},"start_interval":{"secs":6,"nanos":0}}"#),
    ("healthcheck: {disable: true}", "/health", "null"),
    ("healthcheck: {test: [NONE]}", "/health", "null"),
    ("hostname: h", "/container/hostname", r#""h""#),
    ("init: true", "/container/init", "true"),
    ("ipc: shareable", "/container/ipc", r#""shareable""#),
    ("ipc: 'service:b'", "/container/ipc", r#"{"service":"b"}"#),
    ("ipc: host", "/container/ipc", r#""host""#),
    ("ipc: none", "/container/ipc", r#""none""#),
    ("labels: {a: b}", "/container/labels/a", r#""b""#),
    ("mac_address: '02:00:00:00:00:01'", "/container/network/networks/0/mac", r#""02:00:00:00:00:01""#),
    ("mem_limit: 64m", "/container/resources/memory", "67108864"),
    ("mem_reservation: 6m", "/container/resources/memory_reservation", "6291456"),
    ("mem_swappiness: 10", "/container/resources/memory_swappiness", "10"),
    ("memswap_limit: -1", "/container/resources/memory_swap", "-1"),
    ("network_mode: none", "/container/network", r#""none""#),
    ("network_mode: host", "/container/network", r#""host""#),
    ("network_mode: 'service:b'", "/container/network", r#"{"service":"b"}"#),
    ("network_mode: 'container:x'", "/container/network", r#"{"container":"x"}"#),
    ("networks: {n: {aliases: [x], ipv4_address: 10.9.0.5, ipv6_address: 'fd00::5', interface_name: in0, gw_priority: 3, mac_address: '02:00:00:00:00:02', link_local_ips: [169.254.1.1], driver_opts: {com.docker.network.endpoint.sysctls: net.ipv4.conf.IFNAME.forwarding=1}}}", "/container/network/networks", r#"[{"network":"n","aliases":["x"],"ipv4":"10.9.0.5","ipv6":"fd00::5","mac":"02:00:00:00:00:02","interface":"in0","gw_priority":3,"link_local":["169.254.1.1"],"sysctls":[["net.ipv4.conf.IFNAME.forwarding","1"]]}]"#),
    ("networks: {default: , n: {priority: 5}}", "/container/network/networks/0/network", r#""n""#),
    ("oom_kill_disable: true", "/container/resources/oom_kill_disable", "true"),
    ("oom_score_adj: -500", "/container/oom_score_adj", "-500"),
    ("pid: host", "/container/pid", r#""host""#),
    ("pid: 'container:x'", "/container/pid", r#"{"container":"x"}"#),
    ("pids_limit: -1", "/container/resources/pids", "-1"),
    ("ports: ['8080:80']", "/container/ports", r#"[{"host_ip":null,"host":[8080,8080],"container":80,"protocol":"tcp"}]"#),
    ("ports: ['127.0.0.1:8000-8003:53/udp']", "/container/ports", r#"[{"host_ip":"127.0.0.1","host":[8000,8003],"container":53,"protocol":"udp"}]"#),
    ("ports: ['[::1]:8080:80', '81']", "/container/ports", r#"[{"host_ip":"::1","host":[8080,8080],"container":80,"protocol":"tcp"},{"host_ip":null,"host":null,"container":81,"protocol":"tcp"}]"#),
    ("privileged: true", "/container/privileged", "true"),
    ("read_only: true", "/container/read_only", "true"),
    ("restart: always", "/restart", r#""always""#),
    ("restart: unless-stopped", "/restart", r#""unless_stopped""#),
    ("restart: 'no'", "/restart", r#""no""#),
    ("restart: 'on-failure:3'", "/restart", r#"{"on_failure":{"max_retries":3}}"#),
    ("restart: on-failure", "/restart", r#"{"on_failure":{"max_retries":null}}"#),
    ("scale: 0", "/scale", "0"),
    ("secrets: [s]", "/container/mounts/0", r#"{"target":"/run/secrets/s","read_only":false,"source":{"content":{"bytes":[115,101,99,114,101,116],"mode":292,"uid":0,"gid":0}}}"#),
    ("secrets: [{source: s, target: x}]", "/container/mounts/0/target", r#""/run/secrets/x""#),
    ("secrets: [{source: s, target: /etc/x}]", "/container/mounts/0/target", r#""/etc/x""#),
    ("security_opt: ['no-new-privileges:true']", "/container/security_opt", r#"["no-new-privileges:true"]"#),
    ("shm_size: 1m", "/container/shm_size", "1048576"),
    ("stdin_open: true", "/container/stdin_open", "true"),
    ("stop_grace_period: 1m", "/stop_grace", r#"{"secs":60,"nanos":0}"#),
    ("tty: false", "/stop_grace", r#"{"secs":10,"nanos":0}"#),
    ("stop_signal: SIGINT", "/stop_signal", r#""SIGINT""#),
    ("sysctls: {net.core.somaxconn: 1}", "/container/sysctls", r#"{"net.core.somaxconn":"1"}"#),
    ("tmpfs: '/t:size=1m,mode=1777,uid=5,gid=6,noexec,ro'", "/container/mounts/0", r#"{"target":"/t","read_only":true,"source":{"tmpfs":{"size":1048576,"mode":1023,"uid":5,"gid":6,"options":["noexec"]}}}"#),
    ("tty: true", "/container/tty", "true"),
    ("ulimits: {nofile: {soft: 1, hard: 2}, nproc: -1}", "/container/ulimits", r#"{"nofile":{"soft":1,"hard":2},"nproc":{"soft":-1,"hard":-1}}"#),
    ("user: '5:6'", "/container/user", r#""5:6""#),
    ("uts: host", "/container/uts", r#""host""#),
    ("volumes: ['/h:/c/../d/:ro']", "/container/mounts/0", r#"{"target":"/d","read_only":true,"source":{"bind":{"path":"/h","create":true,"propagation":null,"recursive":"enabled"}}}"#),
    ("volumes: [{type: bind, source: /h, target: /c, bind: {propagation: rshared, recursive: disabled, create_host_path: false}}]", "/container/mounts/0/source", r#"{"bind":{"path":"/h","create":false,"propagation":"rshared","recursive":"disabled"}}"#),
    ("volumes: [{type: bind, source: /h, target: /c}]", "/container/mounts/0/source/bind/create", "true"),
    ("volumes: ['vol:/c']", "/container/mounts/0/source", r#"{"volume":{"key":"vol","no_copy":false,"subpath":null}}"#),
    ("volumes: [{type: volume, source: vol, target: /c, volume: {nocopy: true, subpath: x}}]", "/container/mounts/0/source", r#"{"volume":{"key":"vol","no_copy":true,"subpath":"x"}}"#),
    ("volumes: [/c]", "/container/mounts/0/source", r#"{"anonymous":{"labels":{}}}"#),
    ("volumes: [{type: volume, target: /c, volume: {labels: {a: b}}}]", "/container/mounts/0/source/anonymous/labels/a", r#""b""#),
    ("volumes: [{type: image, source: i, target: /c, image: {subpath: x}}]", "/container/mounts/0/source", r#"{"image":{"reference":"i","subpath":"x"}}"#),
    ("volumes: [{type: image, source: b, target: /c}]", "/container/mounts/0/source/image/reference", r#""app""#),
    ("volumes: ['/h:/c:z']", "/container/mounts/0/source/bind/relabel", r#""shared""#),
    ("volumes: [{type: bind, source: /h, target: /c, bind: {selinux: Z}}]", "/container/mounts/0/source/bind/relabel", r#""private""#),
    ("volumes: ['vol:/c:Z']", "/container/mounts/0/source/volume/relabel", r#""private""#),
    ("volumes: [{type: bind, source: /h, target: /c, bind: {recursive: writable}}]", "/container/mounts/0/source/bind/recursive", r#""writable""#),
    ("volumes: [{type: bind, source: /h, target: /c, read_only: true, bind: {recursive: readonly}}]", "/container/mounts/0/source/bind/recursive", r#""enabled""#),
    ("volumes_from: [b, 'b:ro', 'container:x:rw']", "/container/volumes_from", r#"[{"of":{"service":"b"},"read_only":null},{"of":{"service":"b"},"read_only":true},{"of":{"container":"x"},"read_only":false}]"#),
    ("volumes: [{type: tmpfs, target: /t, tmpfs: {size: 1k, mode: 01777}}]", "/container/mounts/0/source", r#"{"tmpfs":{"size":1024,"mode":1023,"uid":null,"gid":null,"options":[]}}"#),
    ("post_start: [{command: [x, y], user: u, privileged: true, working_dir: /w, environment: {A: b}}]", "/post_start/0", r#"{"command":["x","y"],"user":"u","privileged":true,"working_dir":"/w","environment":{"A":"b"}}"#),
    ("pre_start: [{command: x y, image: other}]", "/pre_start/0/container/image", r#""other""#),
    ("pre_start: [{command: x y}]\n    ports: ['80:80']", "/pre_start/0/container/ports", "[]"),
    ("pre_start: [{command: x y, per_replica: true}]", "/pre_start/0/per_replica", "true"),
    ("pre_stop: [{command: x y}]", "/pre_stop/0/command", r#"["x","y"]"#),
    ("blkio_config: {weight_device: [{path: /dev/x, weight: 10}], device_write_iops: [{path: /dev/y, rate: 20}]}", "/container/resources/blkio_devices", r#"[{"path":"/dev/x","kind":"weight","value":10},{"path":"/dev/y","kind":"write_iops","value":20}]"#),
    ("cpu_rt_period: 1000", "/container/resources/cpu_rt_period", "1000"),
    ("cpu_rt_runtime: 900", "/container/resources/cpu_rt_runtime", "900"),
    ("devices: [vendor.test/class=one]", "/container/cdi", r#"[{"device":"vendor.test/class=one"}]"#),
    ("gpus: all", "/container/cdi", r#"[{"gpus":{"vendor":null,"count":null,"ids":[]}}]"#),
    ("gpus: [{driver: nvidia, device_ids: ['0']}]", "/container/cdi", r#"[{"gpus":{"vendor":"nvidia","count":null,"ids":["0"]}}]"#),
    ("deploy: {resources: {reservations: {devices: [{capabilities: [gpu], count: 2}]}}}", "/container/cdi", r#"[{"gpus":{"vendor":null,"count":2,"ids":[]}}]"#),
    ("healthcheck: {interval: 5s}", "/health_times/interval", r#"{"secs":5,"nanos":0}"#),
    ("healthcheck: {interval: 5s}", "/health/command", "[]"),
    ("working_dir: /w", "/container/working_dir", r#""/w""#),
    // Accepted, and of no effect, as with docker compose on one engine.
    ("deploy: {restart_policy: {delay: 5s, window: 10s, condition: on-failure}}", "/restart", r#"{"on_failure":{"max_retries":null}}"#),
    ("deploy: {endpoint_mode: vip, mode: global, labels: {a: b}, update_config: {parallelism: 2}, placement: {constraints: [x]}}", "/scale", "1"),
    ("deploy: {mode: replicated-job}", "/scale", "1"),
    ("cpu_count: 2", "/container/resources/cpus", "null"),
    ("cpu_percent: 20", "/container/resources/cpus", "null"),
    ("runtime: runc", "/container/runtime", "null"),
    ("runtime: kata", "/container/runtime", r#""kata""#),
    ("userns_mode: host", "/scale", "1"),
    ("userns_mode: private", "/scale", "1"),
    ("deploy: {restart_policy: {max_attempts: 3}}", "/restart", r#""no""#),
    ("deploy: {restart_policy: {condition: always}}", "/restart", r#""always""#),
    ("deploy: {restart_policy: {condition: unless-stopped}}", "/restart", r#""unless_stopped""#),
    ("network_mode: host\n    ports: ['80:80']", "/container/ports", "[]"),
    ("expose: ['80']", "/container/ports", "[]"),
];

/// One attribute that is refused.
const REFUSED: &[&str] = &[
    "build: .",
    "credential_spec: {file: x}",
    "devices: [one]",
    "isolation: hyperv",
    "logging: {driver: gelf}",
    "logging: {options: {max-sise: 10m}}",
    "logging: {options: {max-size: x, max-file: 0}}",
    "logging: {options: {compress: true}}",
    "logging: {driver: journald, options: {max-size: 10m}}",
    "logging: {driver: syslog, options: {syslog-address: x, syslog-facility: y, syslog-format: z, tag: '{{.Color}}'}}",
    "network_mode: far",
    "networks: {n: {link_local_ips: [near]}}",
    "networks: {n: {driver_opts: {a: b}}}",
    "platform: windows/amd64",
    "post_start: [{user: x}]",
    "pre_stop: [{command: []}]",
    "pull_policy: sometimes",
    "pull_policy: every_5",
    "storage_opt: {size: 1g}",
    "use_api_socket: true",
    "volumes: [{type: bind, source: /h, target: /c, bind: {recursive: readonly}}]",
    "hostname: \"a\\n1.2.3.4 evil\"",
    "domainname: \"x\\ny\"",
    "extra_hosts: [\"ev\\nil=1.2.3.4\"]",
    "extra_hosts: [evil=nonsense]",
    "dns_search: [\"a\\nnameserver 6.6.6.6\"]",
    "dns_opt: [\"a\\tb\"]",
    "deploy: {resources: {reservations: {devices: [{capabilities: [tpu]}]}}}",
    "deploy: {resources: {reservations: {generic_resources: [{discrete_resource_spec: {kind: a, value: 1}}]}}}",
    "network_mode: 'service:b'\n    ports: ['80:80']",
    "configs: [far]",
    "secrets: [unset]",
    // What makes no sense, and docker compose leaves to the engine.
    "restart: sometimes",
    "restart: 'on-failure:x'",
    "deploy: {restart_policy: {condition: sometimes}}",
    "pid: sometimes",
    "oom_score_adj: 99999999999",
    "tmpfs: '/t:size=x'",
    "ports: [{target: 80, published: '1', protocol: icmp}]",
    "networks: {n: {ipv4_address: fd00::1}}",
    "networks: {n: {link_local_ips: [10.0.0.1]}}",
    "mac_address: 02:00:00:00:00:01\n    networks: {n: {mac_address: 02:00:00:00:00:02}}",
    "mem_limit: -1",
    "mem_limit: 10m\n    mem_reservation: 20m",
    "mem_reservation: 1m",
    "memswap_limit: 20m",
    "mem_limit: 30m\n    memswap_limit: 20m",
    "mem_swappiness: 101",
    "cpus: -1",
    "cpus: 0.5\n    cpu_quota: 20000",
    "blkio_config: {weight: 5}",
    "shm_size: -1",
    "sysctls: {net.core.somaxconn: }",
    "tmpfs: '/t:size=-1'",
    "volumes: [{type: tmpfs, source: s, target: /t}]",
    "working_dir: here",
    "cgroup_parent: /a/../..",
    "uts: host\n    hostname: x",
    "network_mode: 'service:b'\n    hostname: x\n    dns: 192.0.2.1\n    extra_hosts: [x=192.0.2.2]",
    "healthcheck: {test: 'true', timeout: 500us, start_interval: 1s}",
    "secrets: [driven]",
];

fn file(attribute: &str) -> String {
    let image = if attribute.starts_with("provider") { "" } else { "    image: app\n" };
    format!(
        "services:
  b:
    image: app
  a:
{image}    {attribute}
networks: {{n: {{}}, default: {{}}}}
volumes: {{vol: {{}}}}
configs: {{c: {{content: hi}}, far: {{external: true}}}}
secrets: {{s: {{environment: TOKEN}}, unset: {{environment: NOT_THERE}}, driven: {{file: ./f, driver: x}}}}
"
    )
}

#[test]
fn what_is_supported_arrives() {
    let mut wrong = Vec::new();
    for (attribute, pointer, expected) in SUPPORTED {
        let lowered = serde_json::to_value(&project(&file(attribute)).services["a"]).unwrap();
        let expected: Value = serde_json::from_str(expected).unwrap();
        let found = lowered.pointer(pointer).cloned().unwrap_or(json!("(no such place)"));
        if found != expected {
            wrong.push(format!("{attribute}\n  is {found}\n  not {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_not_says_what_and_where() {
    let mut text = String::new();
    for attribute in REFUSED {
        match lowered(&file(attribute)) {
            Ok(_) => text.push_str(&format!("ACCEPTED: {attribute}\n")),
            Err(problems) => text.push_str(&told(&problems)),
        }
    }
    expect![[r#"
        ACCEPTED: build: .
        compose.yaml:6:22: `services.a.credential_spec` is not supported yet: it exists on Windows only
        compose.yaml:6:15: `one` is neither a path nor a CDI name such as `vendor.com/class=name`
        compose.yaml:6:16: `services.a.isolation` is not supported yet: it exists on Windows only
        compose.yaml:6:23: `services.a.logging.driver` is not supported yet: log driver `gelf`; known are `json-file`, `local`, `none`, `journald` and `syslog`
        compose.yaml:6:35: unknown log opt `max-sise` for json-file log driver
        compose.yaml:6:35: `x` is not a size
        compose.yaml:6:48: `0` is not a number of files, which is at least 1
        compose.yaml:6:35: `services.a.logging.options.compress` must be text, a number or empty, but it is a boolean
        compose.yaml:6:53: unknown log opt `max-size` for journald log driver
        compose.yaml:6:57: `x` is not an address such as `udp://host:514` or `unixgram:///dev/log`
        compose.yaml:6:77: `y` is not a syslog facility such as `daemon`
        compose.yaml:6:95: `z` is not `rfc3164`, `rfc5424` or `rfc5424micro`
        compose.yaml:6:103: `{{.Color}}` is not known in a tag
        compose.yaml:6:19: `services.a.network_mode` is not supported yet: known are `bridge`, `none`, `host`, `service:NAME` and `container:NAME`
        compose.yaml:6:36: `near` is not an address
        compose.yaml:6:37: `services.a.networks.n.driver_opts.a` is not supported yet: it is not known here
        compose.yaml:6:15: `services.a.platform` is not supported yet: programs run natively, as `linux/amd64`
        compose.yaml:6:18: `services.a.post_start.0` needs `command`
        compose.yaml:6:16: a hook needs a command
        compose.yaml:6:18: `services.a.pull_policy` is `sometimes`, which does not match `always|never|build|if_not_present|missing|refresh|daily|weekly|every_([0-9]+[wdhms])+`
        compose.yaml:6:18: `services.a.pull_policy` is `every_5`, which does not match `always|never|build|if_not_present|missing|refresh|daily|weekly|every_([0-9]+[wdhms])+`
        compose.yaml:6:18: `services.a.storage_opt` is not supported yet: a container's root has no quota of its own (in Docker only where it lies on xfs with project quotas)
        compose.yaml:6:21: `services.a.use_api_socket` is not supported yet: there is no engine socket to hand in
        compose.yaml:6:70: `recursive: readonly` needs `read_only: true`
        compose.yaml:6:15: `a\n1.2.3.4 evil` has control characters, which no name has
        compose.yaml:6:17: `x\ny` has control characters, which no name has
        compose.yaml:6:18: `ev\nil=1.2.3.4` has control characters, which no name has
        compose.yaml:6:18: invalid IP address in add-host: `nonsense`
        compose.yaml:6:17: `a\nnameserver 6.6.6.6` has control characters, which no name has
        compose.yaml:6:14: `a\tb` has control characters, which no name has
        compose.yaml:6:51: no device driver has the capabilities [tpu]; known is `gpu`
        compose.yaml:6:60: `services.a.deploy.resources.reservations.generic_resources` is not supported yet: there is no inventory of generic resources
        compose.yaml:7:12: ports are published by the one whose network is joined
        compose.yaml:6:15: `services.a.configs.0` is not supported yet: external configs and secrets are kept by a cluster; use `file`, `environment` or `content`
        compose.yaml:6:15: environment variable `NOT_THERE` required by `unset` is not set
        compose.yaml:6:14: invalid restart policy `sometimes`
        compose.yaml:6:14: `x` is not a number of retries
        compose.yaml:6:42: `sometimes` is not `none`, `on-failure` or `any`
        compose.yaml:6:10: `sometimes` is not a namespace mode
        compose.yaml:6:20: `services.a.oom_score_adj` must be -1000 to 1000, but it is 99999999999
        compose.yaml:6:12: `x` is not a size
        compose.yaml:6:52: `icmp` is not `tcp`, `udp` or `sctp`
        compose.yaml:6:34: `fd00::1` is not an IPv4 address
        compose.yaml:6:36: `10.0.0.1` is not link-local: those are in 169.254.0.0/16 and fe80::/10
        compose.yaml:6:18: it differs from that of the network `n`
        compose.yaml:6:16: the least memory that a container can be limited to is 6 MiB
        compose.yaml:7:22: more memory is reserved than the container may have
        compose.yaml:6:22: the least memory that can be reserved is 6 MiB
        compose.yaml:6:20: it counts memory and swap together, so it needs a `mem_limit` that is not above it
        compose.yaml:7:20: it counts memory and swap together, so it needs a `mem_limit` that is not above it
        compose.yaml:6:21: it is a percentage: 0 to 100
        compose.yaml:6:11: the number of processors cannot be negative
        compose.yaml:7:16: `cpu_quota` and `cpus` set the same limit; keep one of them
        compose.yaml:6:28: a weight is 10 to 1000
        compose.yaml:6:15: a size cannot be negative
        compose.yaml:6:14: `net.core.somaxconn` has no value
        compose.yaml:6:12: `-1` is not a size
        compose.yaml:6:37: a tmpfs is empty: it has no source
        compose.yaml:6:18: `here` must be an absolute path
        compose.yaml:6:20: `/a/../..` must be a path without `.` and `..`
        compose.yaml:7:15: with `uts: host` the host's name is the container's
        compose.yaml:7:15: `hostname` is that of the container whose network is joined; set it there
        compose.yaml:9:18: `extra_hosts` is that of the container whose network is joined; set it there
        compose.yaml:8:10: `dns` is that of the container whose network is joined; set it there
        compose.yaml:6:42: the shortest time is a millisecond
        compose.yaml:6:65: `start_interval` is that of the start period, so it needs `start_period`
        compose.yaml:6:15: `services.a.secrets.0` is not supported yet: `driven` has a `driver`, which only a cluster has
    "#]].assert_eq(&text);
}

fn told(problems: &[rcompose::base::diagnostic::Diagnostic]) -> String {
    let line = |problem: &rcompose::base::diagnostic::Diagnostic| {
        let place = problem.place.as_ref().map(ToString::to_string).unwrap_or_default();
        format!("{place}: {}\n", problem.message)
    };
    problems.iter().map(line).collect()
}

#[track_caller]
fn check_refused(text: &str, expected: Expect) {
    let problems = lowered(text).expect_err("it must be refused");
    expected.assert_eq(&told(&problems));
}

#[test]
fn networks_and_volumes_that_are_not_supported() {
    check_refused(
        "services: {a: {image: app, networks: [m, o, i, p], volumes: ['d:/d', 'e:/e']}}
networks:
  m: {driver: overlay}
  o: {driver_opts: {com.docker.network.bridge.enable_icc: 'maybe', far: 1}}
  i: {ipam: {driver: far}}
  p: {ipam: {config: [{subnet: x}, {gateway: 10.0.0.1}]}}
volumes:
  d: {driver: nfs}
  e: {driver_opts: {type: nfs}}
",
        expect![[r#"
            compose.yaml:5:22: `networks.i.ipam.driver` is not supported yet: addresses are managed here
            compose.yaml:3:15: `networks.m.driver` is not supported yet: there is no driver `overlay`; known are `bridge`, `macvlan` and `ipvlan`
            compose.yaml:4:59: `maybe` is neither `true` nor `false`
            compose.yaml:4:73: `networks.o.driver_opts.far` is not supported yet: it is not known here
            compose.yaml:6:32: `x` is not a subnet such as `10.1.0.0/16`
            compose.yaml:6:36: `networks.p.ipam.config.1` is not supported yet: an address pool needs its `subnet`
            compose.yaml:1:62: the mount path `d:/d` must be absolute
            compose.yaml:1:70: the mount path `e:/e` must be absolute
        "#]],
    );
}

#[test]
fn a_network_with_everything() {
    let text = "services: {a: {image: app, networks: [n]}}
networks:
  n:
    name: other
    driver: bridge
    internal: true
    enable_ipv6: true
    labels: {a: b}
    driver_opts: {com.docker.network.driver.mtu: 1400}
    ipam: {config: [{subnet: 10.9.0.0/16, ip_range: 10.9.1.0/24, gateway: 10.9.0.7, aux_addresses: {x: 10.9.0.9}}]}
";
    let mut network = serde_json::to_value(&project(text).networks["n"]).unwrap();
    network["config_hash"] = json!("");
    expect![[r#"
        {
          "name": "other",
          "external": false,
          "internal": true,
          "enable_ipv4": true,
          "enable_ipv6": true,
          "driver": {
            "bridge": {
              "name": null,
              "icc": true,
              "masquerade": true,
              "unprotected": false,
              "host_binding": null,
              "sources": []
            }
          },
          "mtu": 1400,
          "interface_prefix": null,
          "subnets": [
            {
              "subnet": "10.9.0.0/16",
              "range": "10.9.1.0/24",
              "gateway": "10.9.0.7",
              "reserved": {
                "x": "10.9.0.9"
              }
            }
          ],
          "labels": {
            "a": "b"
          },
          "config_hash": ""
        }"#]]
    .assert_eq(&serde_json::to_string_pretty(&network).unwrap());
}

#[test]
fn a_network_on_a_link_of_the_host() {
    let driver = |options: &str| {
        let network = format!("n: {{driver: ipvlan, driver_opts: {{parent: eth0, {options}}}}}");
        let text = format!("services: {{a: {{image: app, networks: [n]}}}}\nnetworks: {{{network}}}");
        serde_json::to_value(&project(&text).networks["n"].driver).unwrap()["shared"].clone()
    };
    assert_eq!(driver("ipvlan_flag: bridge"), json!({"parent": "eth0", "kind": "ipvlan_l2"}));
    let apart = json!({"parent": "eth0", "kind": "ipvlan_l3s", "flag": "private"});
    assert_eq!(driver("ipvlan_mode: l3s, ipvlan_flag: private"), apart);
    check_refused(
        "services: {a: {image: app, networks: [i, m]}}
networks:
  i: {driver: ipvlan, driver_opts: {ipvlan_flag: odd}}
  m: {driver: macvlan, driver_opts: {ipvlan_flag: vepa}}
",
        expect![[r#"
            compose.yaml:3:50: there is no flag `odd`
            compose.yaml:4:51: `networks.m.driver_opts.ipvlan_flag` is not supported yet: it is not known here
        "#]],
    );
}

#[test]
fn the_hash_is_of_what_makes_the_container() {
    let hash = |attributes: &str| {
        let text = format!("services: {{a: {{{attributes}}}, b: {{image: app}}}}\nconfigs: {{c: {{content: one}}}}");
        project(&text).services["a"].config_hash.clone()
    };
    let plain = hash("image: app");
    for same in ["scale: 3", "depends_on: [b]", "profiles: []", "pull_policy: never", "attach: false"] {
        assert_eq!(hash(&format!("image: app, {same}")), plain, "{same}");
    }
    for other in ["tty: true", "labels: {a: b}", "deploy: {resources: {limits: {memory: 64m}}}", "configs: [c]"] {
        assert_ne!(hash(&format!("image: app, {other}")), plain, "{other}");
    }
    let one = project("services: {a: {image: app, configs: [c]}}\nconfigs: {c: {content: one}}");
    let two = project("services: {a: {image: app, configs: [c]}}\nconfigs: {c: {content: two}}");
    assert_ne!(one.services["a"].config_hash, two.services["a"].config_hash, "the content of a config counts");
}

#[test]
fn labels_that_tools_of_docker_compose_look_for() {
    let spec = project(
        "services: {a: {image: app, labels: {mine: x}, depends_on: {b: {condition: service_healthy, restart: true}, c: {condition: service_started}}}, b: {image: app}, c: {image: app}}",
    );
    let labels: Vec<_> = spec.services["a"].container.labels.keys().map(String::as_str).collect();
    assert_eq!(
        labels,
        [
            "com.docker.compose.config-hash",
            "com.docker.compose.depends_on",
            "com.docker.compose.oneoff",
            "com.docker.compose.project",
            "com.docker.compose.project.config_files",
            "com.docker.compose.project.working_dir",
            "com.docker.compose.service",
            "com.docker.compose.version",
            "mine"
        ]
    );
    let needs = |service: &str| spec.services[service].container.labels["com.docker.compose.depends_on"].clone();
    assert_eq!(needs("a"), "b:service_healthy:true,c:service_started:false");
    assert_eq!(needs("b"), "");
}
