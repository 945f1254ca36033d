//! Attacks from inside a container, as its root, on the host: the published escapes of other engines and the classic ones.
//!
//! Each attack runs twice. Against the engine as it is set up for a service (Docker's capabilities, system call filter, masked
//! and read-only paths) it must fail. Against a configuration that is weakened at the place in question it must succeed, which
//! shows that it is a real attack and that the test would see it succeed. Weakening is data: another `config.json`, another
//! option of the caller, or a hook or a shell that does a step of the engine's in the naive way.
//!
//! | published as | test |
//! |---|---|
//! | CVE-2016-9962 | `processes::a_process_that_enters_cannot_be_looked_into` |
//! | CVE-2018-15664, CVE-2021-41089 | `rights::copies_stay_inside_while_directories_turn_into_links` |
//! | CVE-2019-5736 | `program::the_program_cannot_be_overwritten` |
//! | CVE-2019-14271 | `program::nothing_is_loaded_from_a_container` |
//! | CVE-2019-16884, CVE-2025-52881 | `procfs::writes_to_procfs_go_to_procfs` |
//! | CVE-2019-19921, CVE-2023-27561, CVE-2023-28642 | `procfs::proc_cannot_be_elsewhere` |
//! | CVE-2020-13401 | `network::a_container_is_no_router_of_the_host` |
//! | CVE-2020-15257 | `told::the_control_socket_is_out_of_reach` |
//! | CVE-2021-25741 | `mounts::a_part_of_a_volume_that_turns_into_a_link_stays_inside` |
//! | CVE-2021-30465, CVE-2024-45310 | `mounts::a_target_that_turns_into_a_link_stays_inside` |
//! | CVE-2021-41091 | `rights::users_of_the_host_do_not_get_into_containers_folders` |
//! | CVE-2022-0185 | `kernel::no_user_namespace_and_no_fsopen` |
//! | CVE-2022-0492 | `kernel::release_agent_cannot_be_set` |
//! | CVE-2022-24769, CVE-2022-29162 | `rights::no_capability_is_inherited` |
//! | CVE-2022-36109 | `rights::the_own_group_stays_with_a_process` |
//! | CVE-2024-1753, CVE-2024-9407, CVE-2024-9675 | `builds::mounts_of_steps_stay_inside` |
//! | CVE-2024-9676 | `told::user_databases_of_an_image_are_read_inside_of_it_and_to_an_end` |
//! | CVE-2024-21626 | `descriptors::the_working_directory_is_inside` |
//! | CVE-2024-23651, CVE-2024-23652 | `mounts::targets_behind_links_are_made_inside`, `builds::mounts_of_steps_stay_inside` |
//! | CVE-2024-23653 | `builds::a_step_has_the_rights_that_it_was_given` |
//! | CVE-2024-29018 | `network::names_do_not_lead_out_of_an_internal_network` |
//! | CVE-2024-32473 | `network::a_container_without_ipv6_does_not_listen_to_it` |
//! | CVE-2024-40635 | `rights::no_number_of_a_user_is_roots` |
//! | CVE-2025-9074 | `network::the_engine_does_not_listen_to_the_network` |
//! | CVE-2025-31133 | `procfs::a_false_null_device_masks_nothing` |
//! | CVE-2025-52565 | `procfs::a_false_console_is_not_mounted_on` |
//!
//! Attacks without a number: `kernel`, `processes`, and in `told` control characters, the control socket, hostile user databases.
//! CVE-2020-8558, and ports on the loopback that neighbours reach, are attacked in the tests of `src/network`; hostile layers of
//! images in those of `src/image`, volumes that are being filled in those of `src/volume`.

mod builds;
mod descriptors;
mod kernel;
mod mounts;
mod network;
mod processes;
mod procfs;
mod program;
mod rights;
mod told;

use std::fs;
use std::path::PathBuf;
use std::process::Output;

use rcompose::engine::capabilities::CapabilitySet;
use rcompose::engine::seccomp::default_profile;
use serde_json::json;

use crate::oci::bundle::{Bundle, text};
use crate::support::Project;

/// The host's Python can make system calls, which attackers in `rcompose/host` do with it.
fn has_ctypes() -> bool {
    let import = std::process::Command::new("/usr/bin/python3").args(["-c", "import ctypes"]).output();
    import.is_ok_and(|output| output.status.success())
}

/// The same for a test that is nothing without; says so.
fn lacks_ctypes(test: &str) -> bool {
    let lacks = !has_ctypes();
    if lacks {
        println!("{test}: skipped: python3 without ctypes");
    }
    lacks
}

/// A container as a service's is set up, which runs `script` as root.
fn container(name: &str, script: &str) -> Bundle {
    let mut bundle = Bundle::new(&format!("escape-{name}"), script);
    let profile = default_profile(CapabilitySet::docker_default()).unwrap();
    bundle.set("/linux/seccomp", serde_json::to_value(profile).unwrap());
    bundle
}

/// Weakened: all capabilities, no filter, nothing masked or read-only, all devices.
fn privileged(bundle: &mut Bundle) {
    let all: Vec<String> = CapabilitySet::all().to_oci().iter().map(|name| format!("CAP_{name}")).collect();
    bundle.set("/process/capabilities", json!({ "bounding": all, "effective": all, "permitted": all }));
    bundle.set("/linux/seccomp", json!(null));
    bundle.set("/linux/maskedPaths", json!([]));
    bundle.set("/linux/readonlyPaths", json!([]));
    bundle.set("/linux/resources", json!({ "devices": [{ "allow": true, "access": "rwm" }] }));
}

/// Runs the attack as it is and weakened. `succeeded` gets what the container printed.
fn judge(
    name: &str,
    script: &str,
    prepare: impl Fn(&mut Bundle),
    weaken: impl Fn(&mut Bundle),
    succeeded: impl Fn(&Bundle, &str) -> bool,
) {
    for weakened in [false, true] {
        let mut bundle = container(name, script);
        prepare(&mut bundle);
        if weakened {
            weaken(&mut bundle);
        }
        let output = bundle.oci(&["run", &bundle.id]);
        let success = succeeded(&bundle, &text(&output.stdout));
        assert_eq!(success, weakened, "weakened: {weakened}: {}", everything(&output));
    }
}

fn everything(output: &Output) -> String {
    format!("{}\n{}{}", output.status, text(&output.stdout), text(&output.stderr))
}

/// A folder of the host's with a file `prize`, which a project's containers are after.
fn outside(project: &Project) -> PathBuf {
    let outside = project.folder().parent().unwrap().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("prize"), "of the host").unwrap();
    outside
}
