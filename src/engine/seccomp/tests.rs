use std::collections::BTreeMap;

use oci_spec::runtime::LinuxSeccompFilterFlag;

use super::*;
use crate::engine::seccomp::syscalls::SYSCALLS;

/// What the compiled program says for a system call, by interpreting it.
fn run(program: &[u8], audit: u32, number: u32, arguments: [u64; 6]) -> u32 {
    let mut data = Vec::new();
    data.extend(number.to_ne_bytes());
    data.extend(audit.to_ne_bytes());
    data.extend(0u64.to_ne_bytes());
    arguments.iter().for_each(|argument| data.extend(argument.to_ne_bytes()));
    let word = |offset: u32| u32::from_ne_bytes(data[offset as usize..offset as usize + 4].try_into().unwrap());
    let mut accumulator = 0;
    let mut at = 0;
    loop {
        let code: &[u8] = &program[at * 8..at * 8 + 8];
        let operation = u16::from_ne_bytes([code[0], code[1]]);
        let k = u32::from_ne_bytes(code[4..8].try_into().unwrap());
        let mut branch = |taken: bool| at += usize::from(if taken { code[2] } else { code[3] });
        match operation {
            0x20 => accumulator = word(k),
            0x54 => accumulator &= k,
            0x05 => at += k as usize,
            0x15 => branch(accumulator == k),
            0x25 => branch(accumulator > k),
            0x35 => branch(accumulator >= k),
            0x06 => return k,
            other => panic!("unknown operation {other:#x}"),
        }
        at += 1;
    }
}

const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;
const ALLOW: u32 = 0x7fff_0000;
const EPERM: u32 = 0x0005_0001;
const NOT_THERE: u32 = 0x0005_0026;

fn numbers(column: usize) -> BTreeMap<&'static str, u32> {
    let row = |(name, numbers): &(&'static str, [i16; 3])| Some((*name, u32::try_from(numbers[column]).ok()?));
    SYSCALLS.iter().filter_map(row).collect()
}

#[test]
fn the_table_is_sorted_and_has_the_numbers_of_this_machine() {
    assert!(SYSCALLS.is_sorted_by(|a, b| a.0 < b.0));
    let here = numbers(if cfg!(target_arch = "aarch64") { 2 } else { 0 });
    assert_eq!(here["openat2"], u32::try_from(libc::SYS_openat2).unwrap());
    assert_eq!(here["clone"], u32::try_from(libc::SYS_clone).unwrap());
    assert_eq!(here["ptrace"], u32::try_from(libc::SYS_ptrace).unwrap());
}

#[test]
#[cfg(target_arch = "x86_64")]
fn every_number_is_decided_as_its_name_says() {
    let program = compile(&default_profile(CapabilitySet::docker_default()).unwrap()).unwrap();
    let special = ["clone", "clone3", "personality", "socket"];
    for (audit, column) in [(X86_64, 0), (I386, 1)] {
        let numbers = numbers(column);
        let names: BTreeMap<u32, &str> = numbers.iter().map(|(name, number)| (*number, *name)).collect();
        for number in 0..600 {
            let wanted = match names.get(&number) {
                Some(name) if special.contains(name) => continue,
                Some(name) if ALWAYS.split_whitespace().any(|allowed| allowed == *name) || *name == "chroot" => ALLOW,
                _ if number > 466 => NOT_THERE,
                _ => EPERM,
            };
            assert_eq!(run(&program, audit, number, [0; 6]), wanted, "{audit:#x} {number} {:?}", names.get(&number));
        }
    }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn arguments_and_capabilities_decide() {
    let native = numbers(0);
    let with = |set: CapabilitySet| compile(&default_profile(set).unwrap()).unwrap();
    let plain = with(CapabilitySet::docker_default());
    let all = with(CapabilitySet::all());
    let call = |program: &[u8], name: &str, first: u64| run(program, X86_64, native[name], [first, 0, 0, 0, 0, 0]);
    assert_eq!(call(&plain, "clone", 0x11), ALLOW);
    assert_eq!(call(&plain, "clone", 0x1000_0011), EPERM);
    assert_eq!(call(&plain, "clone3", 0), NOT_THERE);
    assert_eq!(call(&all, "clone", 0x1000_0011), ALLOW);
    assert_eq!(call(&all, "clone3", 0), ALLOW);
    assert_eq!(call(&plain, "socket", 2), ALLOW);
    assert_eq!(call(&plain, "socket", 40), EPERM);
    assert_eq!(call(&plain, "socket", 40 | 1 << 32), ALLOW);
    for allowed in PERSONALITIES {
        assert_eq!(call(&plain, "personality", allowed), ALLOW);
    }
    assert_eq!(call(&plain, "personality", 0x4_0000), EPERM);
    assert_eq!(call(&plain, "personality", 0xffff_ffff_ffff_ffff), EPERM);
    assert_eq!(call(&plain, "mount", 0), EPERM);
    assert_eq!(call(&all, "mount", 0), ALLOW);
    assert_eq!(run(&plain, X86_64, 0x4000_0000, [0; 6]), NOT_THERE);
    assert_eq!(run(&plain, 0xc000_00b7, 0, [0; 6]), 0x8000_0000);
}

#[test]
fn comparisons_are_of_64_bits() {
    let cases = [
        (Operator::ScmpCmpEq, vec![5 << 32 | 7], vec![7, 5 << 32, 6 << 32 | 7]),
        (Operator::ScmpCmpNe, vec![7, 5 << 32], vec![5 << 32 | 7]),
        (Operator::ScmpCmpGt, vec![5 << 32 | 8, 6 << 32], vec![5 << 32 | 7, 4 << 32 | 9, 0]),
        (Operator::ScmpCmpGe, vec![5 << 32 | 7, 6 << 32], vec![5 << 32 | 6, 4 << 32 | 9]),
        (Operator::ScmpCmpLt, vec![5 << 32 | 6, 4 << 32 | 9], vec![5 << 32 | 7, 6 << 32]),
        (Operator::ScmpCmpLe, vec![5 << 32 | 7, 4 << 32 | 9], vec![5 << 32 | 8, 6 << 32]),
        (Operator::ScmpCmpMaskedEq, vec![0, 8], vec![1, 5 << 32]),
    ];
    let audit = native_architectures()[0] as u32;
    let column = if cfg!(target_arch = "aarch64") { 2 } else { 0 };
    let kill = numbers(column)["kill"];
    for (operator, matching, others) in cases {
        // Two rules, the second never true: jumps over several instructions are right.
        let mut profile = default_profile(CapabilitySet::default()).unwrap();
        let never = rule(vec!["kill".into()], Action::ScmpActTrap, Some((Operator::ScmpCmpLt, 0))).unwrap();
        let wanted = rule(vec!["kill".into()], Action::ScmpActLog, Some((operator, 5 << 32 | 7))).unwrap();
        profile.set_syscalls(Some(vec![wanted, never]));
        let program = compile(&profile).unwrap();
        for value in matching {
            assert_eq!(run(&program, audit, kill, [value, 0, 0, 0, 0, 0]), 0x7ffc_0000, "{operator} {value:#x}");
        }
        for value in others {
            assert_eq!(run(&program, audit, kill, [value, 0, 0, 0, 0, 0]), EPERM, "{operator} {value:#x}");
        }
    }
}

#[test]
fn a_file_with_capability_rules_is_resolved() {
    let text = r#"{"defaultAction": "SCMP_ACT_ALLOW", "archMap": [], "syscalls": [
        {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13},
        {"name": "rmdir", "action": "SCMP_ACT_ERRNO", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["chmod"], "action": "SCMP_ACT_ERRNO", "excludes": {"minKernel": "3.0"}}]}"#;
    let names = |set| {
        let profile = parse(text, set).unwrap();
        profile.syscalls().iter().flatten().flat_map(|syscall| syscall.names().clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(CapabilitySet::docker_default()), ["mkdir"]);
    assert_eq!(names(CapabilitySet::all()), ["mkdir", "rmdir"]);
    assert!(matches!(parse("{", CapabilitySet::all()), Err(SeccompError::Syntax(_))));
}

#[test]
fn what_cannot_be_had_is_refused() {
    let mut profile = default_profile(CapabilitySet::all()).unwrap();
    // A listener's path means nothing by itself.
    profile.set_listener_path(Some("/run/x.sock".into()));
    assert!(!notifies(&profile));
    profile.set_flags(Some(vec![LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv]));
    assert!(matches!(flags(&profile), Err(SeccompError::Unsupported(_))));
    profile.set_default_action(Action::ScmpActNotify);
    assert!(notifies(&profile) && flags(&profile).is_ok());
}

#[test]
#[cfg(target_arch = "x86_64")]
fn of_conditions_on_one_argument_one_is_enough() {
    let text = r#"{ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        { "names": ["kill"], "action": "SCMP_ACT_ALLOW", "args": [
            { "index": 0, "value": 1, "op": "SCMP_CMP_EQ" }, { "index": 0, "value": 2, "op": "SCMP_CMP_EQ" } ] },
        { "names": ["tgkill"], "action": "SCMP_ACT_ALLOW", "args": [
            { "index": 0, "value": 1, "op": "SCMP_CMP_EQ" }, { "index": 1, "value": 2, "op": "SCMP_CMP_EQ" } ] } ] }"#;
    let program = compile(&serde_json::from_str(text).unwrap()).unwrap();
    let says = |name: &str, first, second| run(&program, X86_64, numbers(0)[name], [first, second, 0, 0, 0, 0]);
    assert_eq!([1, 2, 3].map(|pid| says("kill", pid, 0)), [ALLOW, ALLOW, EPERM]);
    assert_eq!([(1, 2), (1, 3), (3, 2)].map(|(a, b)| says("tgkill", a, b)), [ALLOW, EPERM, EPERM]);
}
