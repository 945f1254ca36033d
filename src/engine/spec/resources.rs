//! Limits and device rules.

use std::os::unix::fs::{FileTypeExt, MetadataExt};

use oci_spec::runtime::LinuxBlockIo;
use oci_spec::runtime::LinuxCpu;
use oci_spec::runtime::LinuxDevice;
use oci_spec::runtime::LinuxDeviceCgroup;
use oci_spec::runtime::LinuxDeviceCgroupBuilder;
use oci_spec::runtime::LinuxDeviceType;
use oci_spec::runtime::LinuxMemory;
use oci_spec::runtime::LinuxMemoryBuilder;
use oci_spec::runtime::LinuxPidsBuilder;
use oci_spec::runtime::LinuxResources;
use oci_spec::runtime::LinuxThrottleDevice;
use oci_spec::runtime::LinuxThrottleDeviceBuilder;
use oci_spec::runtime::LinuxWeightDeviceBuilder;

use crate::engine::spec::SpecError;
use crate::spec::ContainerSpec;
use crate::spec::container::{BlockLimitKind, Resources};

/// Microseconds; the kernel's default.
const CPU_PERIOD: u64 = 100_000;

pub(super) fn resources(
    container: &ContainerSpec,
    devices: &[(LinuxDevice, String)],
) -> Result<LinuxResources, SpecError> {
    let limits = &container.resources;
    let mut resources = LinuxResources::default();
    resources.set_devices(Some(device_rules(container, devices)?));
    resources.set_memory(memory(limits)?);
    resources.set_cpu(cpu(limits));
    if let Some(pids) = limits.pids.filter(|pids| *pids > 0) {
        resources.set_pids(Some(LinuxPidsBuilder::default().limit(pids).build()?));
    }
    resources.set_block_io(block_io(limits)?);
    Ok(resources)
}

fn block_io(limits: &Resources) -> Result<Option<LinuxBlockIo>, SpecError> {
    let mut io = LinuxBlockIo::default();
    io.set_weight(limits.blkio_weight.filter(|weight| *weight > 0));
    let mut weights = Vec::new();
    let mut rates: [Vec<LinuxThrottleDevice>; 4] = Default::default();
    let [read_bps, write_bps, read_iops, write_iops] = &mut rates;
    for limit in &limits.blkio_devices {
        let not_one = |source| SpecError::NotABlockDevice { path: limit.path.clone(), source };
        let found = std::fs::metadata(&limit.path).map_err(not_one)?;
        if !found.file_type().is_block_device() {
            return Err(not_one(std::io::Error::other("it is something else")));
        }
        let (major, minor) = (i64::from(libc::major(found.rdev())), i64::from(libc::minor(found.rdev())));
        let list = match limit.kind {
            BlockLimitKind::Weight => {
                let weight = u16::try_from(limit.value).unwrap_or(u16::MAX);
                weights.push(LinuxWeightDeviceBuilder::default().major(major).minor(minor).weight(weight).build()?);
                continue;
            }
            BlockLimitKind::ReadBps => &mut *read_bps,
            BlockLimitKind::WriteBps => &mut *write_bps,
            BlockLimitKind::ReadIops => &mut *read_iops,
            BlockLimitKind::WriteIops => &mut *write_iops,
        };
        list.push(LinuxThrottleDeviceBuilder::default().major(major).minor(minor).rate(limit.value).build()?);
    }
    let [read_bps, write_bps, read_iops, write_iops] = rates;
    io.set_weight_device((!weights.is_empty()).then_some(weights));
    io.set_throttle_read_bps_device((!read_bps.is_empty()).then_some(read_bps));
    io.set_throttle_write_bps_device((!write_bps.is_empty()).then_some(write_bps));
    io.set_throttle_read_iops_device((!read_iops.is_empty()).then_some(read_iops));
    io.set_throttle_write_iops_device((!write_iops.is_empty()).then_some(write_iops));
    Ok((io != LinuxBlockIo::default()).then_some(io))
}

/// Nothing, and then what was given; a privileged container is given all.
fn device_rules(
    container: &ContainerSpec,
    devices: &[(LinuxDevice, String)],
) -> Result<Vec<LinuxDeviceCgroup>, SpecError> {
    let rule = |allow| LinuxDeviceCgroupBuilder::default().allow(allow).access("rwm").build();
    if container.privileged {
        return Ok(vec![rule(true)?]);
    }
    let mut rules = vec![rule(false)?];
    for (device, permissions) in devices {
        let rule = LinuxDeviceCgroupBuilder::default().allow(true).typ(device.typ());
        rules.push(rule.major(device.major()).minor(device.minor()).access(permissions.as_str()).build()?);
    }
    for text in &container.resources.device_cgroup_rules {
        rules.push(parse_rule(text)?);
    }
    Ok(rules)
}

/// `c 1:3 rwm`, with `*` for any number.
fn parse_rule(text: &str) -> Result<LinuxDeviceCgroup, SpecError> {
    let wrong = || SpecError::DeviceRule(text.to_owned());
    let mut parts = text.split_whitespace();
    let (Some(kind), Some(numbers), Some(access), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(wrong());
    };
    let kind = match kind {
        "a" => LinuxDeviceType::A,
        "b" => LinuxDeviceType::B,
        "c" => LinuxDeviceType::C,
        _ => return Err(wrong()),
    };
    let (major, minor) = numbers.split_once(':').ok_or_else(wrong)?;
    let number =
        |text: &str| if text == "*" { Ok(-1) } else { text.parse::<u32>().map(i64::from).map_err(|_| wrong()) };
    if access.is_empty() || !access.chars().all(|letter| "rwm".contains(letter)) {
        return Err(wrong());
    }
    let rule = LinuxDeviceCgroupBuilder::default().allow(true).typ(kind).major(number(major)?).minor(number(minor)?);
    Ok(rule.access(access).build()?)
}

fn memory(limits: &Resources) -> Result<Option<LinuxMemory>, SpecError> {
    let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    let mut memory = LinuxMemoryBuilder::default();
    let mut asked = false;
    if let Some(limit) = limits.memory.filter(|limit| *limit > 0) {
        // Twice the memory where no limit on swap is given: Docker's default.
        let swap = limits.memory_swap.filter(|swap| *swap != 0).unwrap_or(bytes(limit).saturating_mul(2));
        memory = memory.limit(bytes(limit)).swap(swap);
        asked = true;
    }
    if let Some(reservation) = limits.memory_reservation.filter(|reservation| *reservation > 0) {
        memory = memory.reservation(bytes(reservation));
        asked = true;
    }
    if let Some(swappiness) = limits.memory_swappiness {
        memory = memory.swappiness(swappiness);
        asked = true;
    }
    if let Some(disable) = limits.oom_kill_disable {
        memory = memory.disable_oom_killer(disable);
        asked |= disable;
    }
    Ok(if asked { Some(memory.build()?) } else { None })
}

fn cpu(limits: &Resources) -> Option<LinuxCpu> {
    let mut cpu = LinuxCpu::default();
    cpu.set_shares(limits.cpu_shares.filter(|shares| *shares > 0));
    cpu.set_period(limits.cpu_period.filter(|period| *period > 0));
    cpu.set_quota(limits.cpu_quota.filter(|quota| *quota != 0));
    cpu.set_cpus(limits.cpuset.clone().filter(|cpus| !cpus.is_empty()));
    if let Some(cpus) = limits.cpus.filter(|cpus| *cpus > 0.0) {
        cpu.set_period(Some(CPU_PERIOD));
        cpu.set_quota(Some((cpus * CPU_PERIOD as f64).round() as i64));
    }
    cpu.set_realtime_period(limits.cpu_rt_period);
    cpu.set_realtime_runtime(limits.cpu_rt_runtime);
    (cpu != LinuxCpu::default()).then_some(cpu)
}
