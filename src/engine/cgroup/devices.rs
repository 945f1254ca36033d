//! Which devices a container may use: rules of the runtime specification as cgroup v1 lines or as an eBPF program.

use oci_spec::runtime::LinuxDeviceCgroup;
use oci_spec::runtime::LinuxDeviceType;

use crate::sys::bpf::Instruction;

const MKNOD: u32 = 1;
const READ: u32 = 2;
const WRITE: u32 = 4;
const EVERY_ACCESS: u32 = MKNOD | READ | WRITE;

/// One rule; later rules win over earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    allow: bool,
    kind: Kind,
    /// `None`: all.
    major: Option<u32>,
    minor: Option<u32>,
    access: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    All,
    Block,
    Char,
}

impl Rule {
    fn is_unconditional(&self) -> bool {
        self.kind == Kind::All && self.access == EVERY_ACCESS && self.major.is_none() && self.minor.is_none()
    }
}

/// What every container needs, whatever it was given: making nodes, and the devices that [`crate::engine`] puts into /dev.
const ALWAYS: &[(Kind, Option<u32>, Option<u32>, u32)] = &[
    (Kind::Char, None, None, MKNOD),
    (Kind::Block, None, None, MKNOD),
    (Kind::Char, Some(1), Some(3), EVERY_ACCESS),
    (Kind::Char, Some(1), Some(8), EVERY_ACCESS),
    (Kind::Char, Some(1), Some(7), EVERY_ACCESS),
    (Kind::Char, Some(5), Some(0), EVERY_ACCESS),
    (Kind::Char, Some(1), Some(5), EVERY_ACCESS),
    (Kind::Char, Some(1), Some(9), EVERY_ACCESS),
    (Kind::Char, Some(136), None, EVERY_ACCESS),
    (Kind::Char, Some(5), Some(2), EVERY_ACCESS),
    (Kind::Char, Some(10), Some(200), EVERY_ACCESS),
];

/// The specification's rules and then what every container needs. `None` when all is allowed anyway.
pub(super) fn effective(rules: &[LinuxDeviceCgroup]) -> Option<Vec<Rule>> {
    let mut effective: Vec<Rule> = Vec::new();
    for rule in rules.iter().map(rule) {
        if rule.is_unconditional() {
            effective.clear();
        }
        effective.push(rule);
    }
    if let [Rule { allow: true, kind: Kind::All, .. }] = effective.as_slice() {
        return None;
    }
    effective.extend(ALWAYS.iter().map(|&(kind, major, minor, access)| Rule {
        allow: true,
        kind,
        major,
        minor,
        access,
    }));
    Some(effective)
}

fn rule(rule: &LinuxDeviceCgroup) -> Rule {
    let number = |number: Option<i64>| number.and_then(|number| u32::try_from(number).ok());
    let letters = rule.access().as_deref().unwrap_or("rwm");
    let access = letters.chars().fold(0, |access, letter| {
        access
            | match letter {
                'r' => READ,
                'w' => WRITE,
                'm' => MKNOD,
                _ => 0,
            }
    });
    Rule {
        allow: rule.allow(),
        kind: match rule.typ().unwrap_or_default() {
            LinuxDeviceType::B => Kind::Block,
            LinuxDeviceType::C | LinuxDeviceType::U => Kind::Char,
            LinuxDeviceType::A | LinuxDeviceType::P => Kind::All,
        },
        major: number(rule.major()),
        minor: number(rule.minor()),
        access,
    }
}

/// File (`devices.allow` or `devices.deny`) and line for cgroup v1.
pub(super) fn line(rule: &Rule) -> (&'static str, String) {
    let file = if rule.allow { "devices.allow" } else { "devices.deny" };
    let letter = match rule.kind {
        Kind::All => return (file, "a *:* rwm".to_owned()),
        Kind::Block => 'b',
        Kind::Char => 'c',
    };
    let number = |number: Option<u32>| number.map_or("*".to_owned(), |number| number.to_string());
    let access: String = [(READ, 'r'), (WRITE, 'w'), (MKNOD, 'm')]
        .iter()
        .filter(|(bit, _)| rule.access & bit != 0)
        .map(|(_, l)| l)
        .collect();
    (file, format!("{letter} {}:{} {access}", number(rule.major), number(rule.minor)))
}

// Registers: what is returned, the context, and the fields of `struct bpf_cgroup_dev_ctx`.
const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
/// Free once the context has been read.
const SCRATCH: u8 = 1;

/// The rules as an eBPF program: the last rule that says something about the access decides; none: refused.
pub(super) fn program(rules: &[Rule]) -> Vec<Instruction> {
    let mut program = vec![
        load_word(KIND, 0),
        and(KIND, 0xffff),
        load_word(ACCESS, 0),
        shift_right(ACCESS, 16),
        load_word(MAJOR, 4),
        load_word(MINOR, 8),
    ];
    for rule in rules.iter().rev() {
        program.extend(check(rule));
        if rule.is_unconditional() {
            // The verifier refuses code that cannot be reached.
            return program;
        }
    }
    program.extend(verdict(false));
    program
}

/// Returns the rule's verdict when it matches, else falls off the end. Built backwards: jumps go to the end.
fn check(rule: &Rule) -> Vec<Instruction> {
    let mut code = verdict(rule.allow).to_vec();
    let mut before = |instructions: &[Instruction]| {
        code.splice(0..0, instructions.iter().copied());
        code.len() as i16
    };
    let mut distance = 2;
    if let Some(minor) = rule.minor {
        distance = before(&[jump_unless_equal(MINOR, minor, distance)]);
    }
    if let Some(major) = rule.major {
        distance = before(&[jump_unless_equal(MAJOR, major, distance)]);
    }
    if rule.access != EVERY_ACCESS {
        // Allowed only when nothing else is asked for; refused when anything of it is.
        let decide =
            if rule.allow { jump_unless_same(SCRATCH, ACCESS, distance) } else { jump_if_zero(SCRATCH, distance) };
        distance = before(&[copy(SCRATCH, ACCESS), and(SCRATCH, rule.access), decide]);
    }
    match rule.kind {
        Kind::All => {}
        Kind::Block => drop(before(&[jump_unless_equal(KIND, 1, distance)])),
        Kind::Char => drop(before(&[jump_unless_equal(KIND, 2, distance)])),
    }
    code
}

fn verdict(allow: bool) -> [Instruction; 2] {
    [instruction(0xb4, RESULT, 0, 0, u32::from(allow)), instruction(0x95, 0, 0, 0, 0)]
}

fn load_word(register: u8, offset: i16) -> Instruction {
    instruction(0x61, register, CONTEXT, offset, 0)
}

fn and(register: u8, mask: u32) -> Instruction {
    instruction(0x54, register, 0, 0, mask)
}

fn shift_right(register: u8, bits: u32) -> Instruction {
    instruction(0x74, register, 0, 0, bits)
}

fn copy(to: u8, from: u8) -> Instruction {
    instruction(0xbc, to, from, 0, 0)
}

fn jump_unless_equal(register: u8, value: u32, distance: i16) -> Instruction {
    instruction(0x56, register, 0, distance, value)
}

fn jump_unless_same(register: u8, other: u8, distance: i16) -> Instruction {
    instruction(0x5e, register, other, distance, 0)
}

fn jump_if_zero(register: u8, distance: i16) -> Instruction {
    instruction(0x16, register, 0, distance, 0)
}

fn instruction(code: u8, destination: u8, source: u8, offset: i16, immediate: u32) -> Instruction {
    Instruction { code, registers: source << 4 | destination, offset, immediate: immediate.cast_signed() }
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::LinuxDeviceCgroupBuilder;

    use super::*;

    fn deny_all() -> LinuxDeviceCgroup {
        LinuxDeviceCgroupBuilder::default().allow(false).access("rwm").build().unwrap()
    }

    fn allow(kind: LinuxDeviceType, major: i64, minor: i64, access: &str) -> LinuxDeviceCgroup {
        let rule = LinuxDeviceCgroupBuilder::default().allow(true).typ(kind).major(major).minor(minor).access(access);
        rule.build().unwrap()
    }

    #[test]
    fn v1_lines() {
        let rules = effective(&[deny_all(), allow(LinuxDeviceType::C, 42, -1, "rw")]).unwrap();
        let lines: Vec<_> = rules.iter().map(line).map(|(file, line)| format!("{file} {line}")).collect();
        assert_eq!(lines[..3], ["devices.deny a *:* rwm", "devices.allow c 42:* rw", "devices.allow c *:* m"]);
    }

    #[test]
    fn allowing_everything_needs_no_rules() {
        let mut everything = deny_all();
        everything.set_allow(true);
        assert_eq!(effective(&[deny_all(), everything]), None);
    }

    /// Interprets the program for one access.
    fn run(program: &[Instruction], kind: u32, access: u32, major: u32, minor: u32) -> u32 {
        let context = [access << 16 | kind, major, minor];
        let mut registers = [0u32; 16];
        let mut at = 0i64;
        loop {
            let instruction = program[usize::try_from(at).unwrap()];
            let (to, from) = (usize::from(instruction.registers & 15), usize::from(instruction.registers >> 4));
            let immediate = instruction.immediate.cast_unsigned();
            let mut jump = |taken: bool| at += if taken { i64::from(instruction.offset) } else { 0 };
            match instruction.code {
                0x61 => registers[to] = context[usize::try_from(instruction.offset / 4).unwrap()],
                0x54 => registers[to] &= immediate,
                0x74 => registers[to] >>= immediate,
                0xb4 => registers[to] = immediate,
                0xbc => registers[to] = registers[from],
                0x56 => jump(registers[to] != immediate),
                0x5e => jump(registers[to] != registers[from]),
                0x16 => jump(registers[to] == immediate),
                0x95 => return registers[0],
                other => panic!("unknown operation {other:#x}"),
            }
            at += 1;
        }
    }

    #[test]
    fn the_program_decides_as_the_rules_say() {
        let rules = [deny_all(), allow(LinuxDeviceType::C, 10, 229, "r"), allow(LinuxDeviceType::B, 7, -1, "rw")];
        let program = program(&effective(&rules).unwrap());
        let (block, char) = (1, 2);
        assert_eq!(run(&program, char, READ, 10, 229), 1);
        assert_eq!(run(&program, char, READ | WRITE, 10, 229), 0);
        assert_eq!(run(&program, char, MKNOD, 10, 229), 1, "nodes may be made");
        assert_eq!(run(&program, block, READ | WRITE, 7, 3), 1);
        assert_eq!(run(&program, char, READ, 7, 3), 0);
        assert_eq!(run(&program, block, READ, 8, 0), 0);
        assert_eq!(run(&program, char, EVERY_ACCESS, 1, 3), 1);
        assert_eq!(run(&program, char, WRITE, 136, 12), 1);
    }
}
