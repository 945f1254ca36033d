//! A seccomp profile to one BPF program: a binary search over system call numbers for each architecture.
//!
//! One program, not a stack of them: it can give several errors (`EPERM`, and `ENOSYS` for `clone3` and for system calls
//! newer than the profile, on which C libraries fall back), knows 32-bit programs, and costs ten comparisons at most.

use std::collections::BTreeMap;

use oci_spec::runtime::Arch;
use oci_spec::runtime::LinuxSeccomp;
use oci_spec::runtime::LinuxSeccompAction as Action;
use oci_spec::runtime::LinuxSeccompArg;
use oci_spec::runtime::LinuxSeccompFilterFlag;
use oci_spec::runtime::LinuxSeccompOperator as Operator;
use oci_spec::runtime::LinuxSyscall;

use crate::engine::seccomp::ENOSYS;
use crate::engine::seccomp::SeccompError;
use crate::engine::seccomp::syscalls::SYSCALLS;

const RET_ERRNO: u32 = 0x0005_0000;
const RET_USER_NOTIF: u32 = 0x7fc0_0000;
const RET_KILL_PROCESS: u32 = 0x8000_0000;
/// Marks the x32 system calls of x86_64 kernels.
const X32_BIT: u32 = 0x4000_0000;
const MAX_INSTRUCTIONS: usize = 4096;

// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

// Classic BPF operations (linux/bpf_common.h).
const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const JEQ: u16 = 0x15;
const JGT: u16 = 0x25;
const JGE: u16 = 0x35;
const RETURN: u16 = 0x06;

/// `struct sock_filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Instruction {
    code: u16,
    jump_true: u8,
    jump_false: u8,
    k: u32,
}

/// What a filter does for a system call when its conditions hold.
#[derive(Clone, Debug, PartialEq)]
struct Rule {
    conditions: Vec<LinuxSeccompArg>,
    verdict: u32,
}

/// From this number on (to the next segment's), these rules, then the verdict.
#[derive(Clone, Debug, PartialEq)]
struct Segment {
    first: u32,
    rules: Vec<Rule>,
    verdict: u32,
}

/// Compiles a profile to the bytes of an array of `struct sock_filter`.
///
/// System calls with a number above the highest one named fail with `ENOSYS` if the default is an error, so that programs
/// built for newer kernels fall back. Names that no table knows are skipped, as every runtime does.
///
/// # Errors
/// Actions, flags and architectures that cannot be had; a program larger than the kernel takes.
pub fn compile(profile: &LinuxSeccomp) -> Result<Vec<u8>, SeccompError> {
    let default = verdict(profile.default_action(), profile.default_errno_ret());
    let mut program = vec![load(ARCHITECTURE)];
    for (audit, column) in architectures(profile) {
        let block = architecture_block(profile, column, default)?;
        program.push(jump_if(JEQ, audit, 1, 0));
        program.push(jump(block.len()));
        program.extend(block);
    }
    program.push(ret(RET_KILL_PROCESS));
    if program.len() > MAX_INSTRUCTIONS {
        return Err(SeccompError::TooLarge(program.len()));
    }
    Ok(program.into_iter().flat_map(Instruction::bytes).collect())
}

/// The profile's flags as `SECCOMP_FILTER_FLAG_*`.
///
/// # Errors
/// A flag that only makes sense with a listener.
pub fn flags(profile: &LinuxSeccomp) -> Result<u32, SeccompError> {
    profile.flags().iter().flatten().try_fold(0, |flags, flag| match flag {
        LinuxSeccompFilterFlag::SeccompFilterFlagTsync => Ok(flags | 1),
        LinuxSeccompFilterFlag::SeccompFilterFlagLog => Ok(flags | 2),
        LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => Ok(flags | 4),
        LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv if notifies(profile) => Ok(flags | 32),
        LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => Err(SeccompError::Unsupported(flag.to_string())),
    })
}

/// Audit number and column of the table for what the profile names and this machine can run.
fn architectures(profile: &LinuxSeccomp) -> Vec<(u32, usize)> {
    let known: &[(Arch, usize)] = match std::env::consts::ARCH {
        "aarch64" => &[(Arch::ScmpArchAarch64, 2)],
        _ => &[(Arch::ScmpArchX86_64, 0), (Arch::ScmpArchX86, 1)],
    };
    let listed = profile.architectures().as_deref().unwrap_or_default();
    let wanted = known.iter().enumerate().filter(|(index, (arch, _))| *index == 0 || listed.contains(arch));
    wanted.map(|(_, (arch, column))| (*arch as u32, *column)).collect()
}

fn architecture_block(profile: &LinuxSeccomp, column: usize, default: u32) -> Result<Vec<Instruction>, SeccompError> {
    let rules = rules_by_number(profile, column)?;
    let mut block = vec![load(NUMBER)];
    if column == 0 {
        // As a kernel without x32 answers.
        block.extend([jump_if(JGE, X32_BIT, 0, 1), ret(RET_ERRNO | ENOSYS)]);
    }
    block.extend(search(&segments(rules, default)));
    Ok(block)
}

/// Rules by system call number. A rule without conditions decides alone, whatever others there are.
fn rules_by_number(profile: &LinuxSeccomp, column: usize) -> Result<BTreeMap<u32, Vec<Rule>>, SeccompError> {
    let mut rules: BTreeMap<u32, Vec<Rule>> = BTreeMap::new();
    for syscall in profile.syscalls().iter().flatten() {
        let verdict = verdict(syscall.action(), syscall.errno_ret());
        let conditions = syscall.args().clone().unwrap_or_default();
        for name in syscall.names() {
            if let Some(argument) = conditions.iter().find(|argument| argument.index() > 5) {
                return Err(SeccompError::Argument(argument.index(), name.clone()));
            }
            let Some(number) = number(name, column) else { continue };
            let of_number = rules.entry(number).or_default();
            if of_number.iter().any(|rule| rule.conditions.is_empty()) {
                continue;
            }
            if conditions.is_empty() {
                of_number.clear();
            }
            let rule = |conditions| Rule { conditions, verdict };
            if is_list_of_values(&conditions) {
                of_number.extend(conditions.iter().map(|condition| rule(vec![*condition])));
            } else {
                of_number.push(rule(conditions.clone()));
            }
        }
    }
    Ok(rules)
}

/// Of several conditions on the same argument one is enough, as with runc and Docker, whose profiles list values like that.
fn is_list_of_values(conditions: &[LinuxSeccompArg]) -> bool {
    let earlier = |at: usize| conditions.get(..at).unwrap_or_default();
    let repeated = |(at, one): (usize, &LinuxSeccompArg)| earlier(at).iter().any(|other| other.index() == one.index());
    conditions.iter().enumerate().any(repeated)
}

fn number(name: &str, column: usize) -> Option<u32> {
    let index = SYSCALLS.binary_search_by_key(&name, |(name, _)| name).ok()?;
    let (_, numbers) = SYSCALLS.get(index)?;
    u32::try_from(*numbers.get(column)?).ok()
}

/// Covers all numbers; neighbours that decide the same are one segment.
fn segments(rules: BTreeMap<u32, Vec<Rule>>, default: u32) -> Vec<Segment> {
    let beyond = if default & 0xffff_0000 == RET_ERRNO { RET_ERRNO | ENOSYS } else { default };
    let mut segments: Vec<Segment> = Vec::new();
    let mut push = |segment: Segment| match segments.last() {
        Some(last) if last.rules == segment.rules && last.verdict == segment.verdict => {}
        _ => segments.push(segment),
    };
    let mut next = 0;
    for (number, rules) in rules {
        if number > next {
            push(Segment { first: next, rules: Vec::new(), verdict: default });
        }
        push(match rules.as_slice() {
            [rule] if rule.conditions.is_empty() => Segment { first: number, rules: Vec::new(), verdict: rule.verdict },
            _ => Segment { first: number, rules, verdict: default },
        });
        next = number + 1;
    }
    push(Segment { first: next, rules: Vec::new(), verdict: if next == 0 { default } else { beyond } });
    segments
}

/// Binary search: the number is in the accumulator.
fn search(segments: &[Segment]) -> Vec<Instruction> {
    let (left, right) = segments.split_at(segments.len() / 2);
    let (true, Some(middle)) = (!left.is_empty(), right.first()) else {
        return segments.first().map(decide).unwrap_or_default();
    };
    let lower = search(left);
    let mut code = match u8::try_from(lower.len()) {
        Ok(distance) => vec![jump_if(JGE, middle.first, distance, 0)],
        Err(_) => vec![jump_if(JGE, middle.first, 0, 1), jump(lower.len())],
    };
    code.extend(lower);
    code.extend(search(right));
    code
}

fn decide(segment: &Segment) -> Vec<Instruction> {
    let mut code: Vec<_> = segment.rules.iter().flat_map(check).collect();
    code.push(ret(segment.verdict));
    code
}

/// One rule: falls off its end when a condition does not hold. Built backwards, so that the distance to the end is known.
fn check(rule: &Rule) -> Vec<Instruction> {
    let mut code = vec![ret(rule.verdict)];
    for condition in rule.conditions.iter().rev() {
        // At most six conditions of six instructions each.
        let rest = u8::try_from(code.len()).unwrap_or(u8::MAX);
        let mut checked = compare(condition, rest);
        checked.extend(code);
        code = checked;
    }
    code
}

/// 64-bit comparison in 32-bit words (little endian); falls through when it holds, else jumps over `rest` instructions.
fn compare(condition: &LinuxSeccompArg, rest: u8) -> Vec<Instruction> {
    let low_at = ARGUMENTS + 8 * condition.index() as u32;
    let high_at = low_at + 4;
    let (high, low) = words(condition.value());
    match condition.op() {
        Operator::ScmpCmpEq => {
            vec![load(low_at), jump_if(JEQ, low, 0, rest + 2), load(high_at), jump_if(JEQ, high, 0, rest)]
        }
        Operator::ScmpCmpNe => {
            vec![load(low_at), jump_if(JEQ, low, 0, 2), load(high_at), jump_if(JEQ, high, rest, 0)]
        }
        Operator::ScmpCmpMaskedEq => {
            let (high_wanted, low_wanted) = words(condition.value_two().unwrap_or(0));
            vec![
                load(low_at),
                and(low),
                jump_if(JEQ, low_wanted, 0, rest + 3),
                load(high_at),
                and(high),
                jump_if(JEQ, high_wanted, 0, rest),
            ]
        }
        operator @ (Operator::ScmpCmpGt | Operator::ScmpCmpGe) => vec![
            load(high_at),
            jump_if(JGT, high, 3, 0),
            jump_if(JEQ, high, 0, rest + 2),
            load(low_at),
            jump_if(if operator == Operator::ScmpCmpGt { JGT } else { JGE }, low, 0, rest),
        ],
        operator @ (Operator::ScmpCmpLt | Operator::ScmpCmpLe) => vec![
            load(high_at),
            jump_if(JGT, high, rest + 3, 0),
            jump_if(JEQ, high, 0, 2),
            load(low_at),
            jump_if(if operator == Operator::ScmpCmpLt { JGE } else { JGT }, low, rest, 0),
        ],
    }
}

fn words(value: u64) -> (u32, u32) {
    ((value >> 32) as u32, value as u32)
}

fn verdict(action: Action, errno: Option<u32>) -> u32 {
    match action {
        Action::ScmpActNotify => RET_USER_NOTIF,
        _ => action.as_u32(errno.map(|errno| errno & 0xffff)),
    }
}

/// Whether another process decides about some of the system calls.
pub fn notifies(profile: &LinuxSeccomp) -> bool {
    let actions = profile.syscalls().iter().flatten().map(LinuxSyscall::action);
    actions.chain([profile.default_action()]).any(|action| action == Action::ScmpActNotify)
}

fn load(offset: u32) -> Instruction {
    Instruction { code: LOAD, jump_true: 0, jump_false: 0, k: offset }
}

fn and(mask: u32) -> Instruction {
    Instruction { code: AND, jump_true: 0, jump_false: 0, k: mask }
}

fn jump(over: usize) -> Instruction {
    // Programs are at most 4096 instructions long; a longer one is refused.
    Instruction { code: JUMP, jump_true: 0, jump_false: 0, k: u32::try_from(over).unwrap_or(u32::MAX) }
}

fn jump_if(code: u16, k: u32, jump_true: u8, jump_false: u8) -> Instruction {
    Instruction { code, jump_true, jump_false, k }
}

fn ret(verdict: u32) -> Instruction {
    Instruction { code: RETURN, jump_true: 0, jump_false: 0, k: verdict }
}

impl Instruction {
    fn bytes(self) -> [u8; 8] {
        let [c0, c1] = self.code.to_ne_bytes();
        let [k0, k1, k2, k3] = self.k.to_ne_bytes();
        [c0, c1, self.jump_true, self.jump_false, k0, k1, k2, k3]
    }
}
