//! Limits of the runtime specification as writes to cgroup files: one translation for v1, one for v2.

use oci_spec::runtime::LinuxBlockIo;
use oci_spec::runtime::LinuxCpu;
use oci_spec::runtime::LinuxMemory;
use oci_spec::runtime::LinuxResources;

/// The first takes 1 to 1000 and is there with the scheduler BFQ, the second one 1 to 10000; runc, too, looks for them in this order.
const WEIGHTS_V2: [&str; 2] = ["io.bfq.weight", "io.weight"];

/// What real-time processes may use of each period, in microseconds.
pub(super) const RT_RUNTIME: &str = "cpu.rt_runtime_us";

/// One value for one file of one controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Write {
    pub(super) file: String,
    pub(super) value: String,
    /// The kernel may have been built without it; then it is left out and somebody is told.
    pub(super) optional: bool,
    /// Where `file` is not there: another of the same meaning, and its value.
    pub(super) otherwise: Option<(&'static str, String)>,
}

/// Limits of one controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// Name in v2; [`v1_name`] gives that in v1.
    pub(super) controller: &'static str,
    /// The service attributes that ask for it, for messages.
    pub(super) attribute: &'static str,
    pub(super) v1: Vec<Write>,
    pub(super) v2: Vec<Write>,
    /// What v2 has no equivalent of.
    pub(super) v1_only: Vec<&'static str>,
    /// The same, where doing without is an error.
    pub(super) v1_required: Option<&'static str>,
}

impl Limits {
    fn new(controller: &'static str, attribute: &'static str) -> Self {
        Self { controller, attribute, v1: Vec::new(), v2: Vec::new(), v1_only: Vec::new(), v1_required: None }
    }

    fn v1(&mut self, file: impl Into<String>, value: impl ToString) {
        self.v1.push(Write { file: file.into(), value: value.to_string(), optional: false, otherwise: None });
    }

    fn v2(&mut self, file: impl Into<String>, value: impl ToString) {
        self.v2.push(Write { file: file.into(), value: value.to_string(), optional: false, otherwise: None });
    }

    fn is_asked(&self) -> bool {
        !self.v1.is_empty() || !self.v2.is_empty() || !self.v1_only.is_empty() || self.v1_required.is_some()
    }
}

pub(super) fn v1_name(controller: &str) -> &str {
    if controller == "io" { "blkio" } else { controller }
}

/// The controllers that are needed and what to write, in order.
pub(super) fn of(resources: &LinuxResources) -> Vec<Limits> {
    let mut all = Vec::new();
    all.extend(resources.memory().as_ref().map(memory));
    all.extend(resources.cpu().as_ref().map(cpu));
    all.extend(resources.cpu().as_ref().map(cpuset));
    all.extend(resources.pids().as_ref().map(|pids| {
        let mut limits = Limits::new("pids", "pids_limit");
        if pids.limit() > 0 {
            limits.v1("pids.max", pids.limit());
            limits.v2("pids.max", pids.limit());
        }
        limits
    }));
    all.extend(resources.block_io().as_ref().map(io));
    all.extend(resources.hugepage_limits().as_ref().map(|pages| {
        let mut limits = Limits::new("hugetlb", "hugepage limits");
        for page in pages {
            limits.v1(format!("hugetlb.{}.limit_in_bytes", page.page_size()), page.limit());
            limits.v2(format!("hugetlb.{}.max", page.page_size()), page.limit());
        }
        limits
    }));
    all.retain(Limits::is_asked);
    all
}

/// The same for a group that exists, where taking a limit away is a change, too.
pub(super) fn of_update(resources: &LinuxResources) -> Vec<Limits> {
    let mut all = of(resources);
    if resources.pids().as_ref().is_some_and(|pids| pids.limit() < 0) {
        let mut limits = Limits::new("pids", "pids_limit");
        limits.v1("pids.max", "max");
        limits.v2("pids.max", "max");
        all.push(limits);
    }
    all
}

fn memory(memory: &LinuxMemory) -> Limits {
    let mut limits = Limits::new("memory", "mem_limit");
    let limit = memory.limit().filter(|limit| *limit != 0);
    let swap = memory.swap().filter(|swap| *swap != 0);
    if let Some(limit) = limit {
        limits.v1("memory.limit_in_bytes", limit);
        limits.v2("memory.max", unlimited_below_zero(limit));
    }
    if let Some(reservation) = memory.reservation().filter(|reservation| *reservation != 0) {
        limits.v1("memory.soft_limit_in_bytes", reservation);
        limits.v2("memory.low", unlimited_below_zero(reservation));
    }
    if let Some(swap) = swap {
        // Swap accounting can be off; Docker drops the limit then, too.
        limits.v1.push(Write {
            file: "memory.memsw.limit_in_bytes".into(),
            value: swap.to_string(),
            optional: true,
            otherwise: None,
        });
        let only_swap = if swap < 0 { -1 } else { swap - limit.unwrap_or(0) };
        let value = unlimited_below_zero(only_swap);
        limits.v2.push(Write { file: "memory.swap.max".into(), value, optional: true, otherwise: None });
    }
    if let Some(swappiness) = memory.swappiness() {
        limits.v1("memory.swappiness", swappiness);
        limits.v1_only.push("mem_swappiness");
    }
    if memory.disable_oom_killer() == Some(true) {
        limits.v1("memory.oom_control", 1);
        limits.v1_only.push("oom_kill_disable");
    }
    limits
}

fn cpu(cpu: &LinuxCpu) -> Limits {
    let mut limits = Limits::new("cpu", "cpus, cpu_shares and cpu_quota");
    if let Some(shares) = cpu.shares().filter(|shares| *shares != 0) {
        limits.v1("cpu.shares", shares);
        limits.v2("cpu.weight", 1 + (shares.clamp(2, 262_144) - 2) * 9_999 / 262_142);
    }
    let quota = cpu.quota().filter(|quota| *quota != 0);
    let period = cpu.period().filter(|period| *period != 0);
    if let Some(idle) = cpu.idle() {
        limits.v1("cpu.idle", idle);
        limits.v2("cpu.idle", idle);
    }
    if quota.is_some() || period.is_some() {
        if let Some(period) = period {
            limits.v1("cpu.cfs_period_us", period);
        }
        if let Some(quota) = quota {
            limits.v1("cpu.cfs_quota_us", quota);
        }
        let quota = quota.map_or("max".to_owned(), unlimited_below_zero);
        limits.v2("cpu.max", format!("{quota} {}", period.unwrap_or(100_000)));
    }
    if let Some(burst) = cpu.burst() {
        limits.v1("cpu.cfs_burst_us", burst);
        limits.v2("cpu.max.burst", burst);
    }
    if let Some(period) = cpu.realtime_period().filter(|period| *period != 0) {
        limits.v1("cpu.rt_period_us", period);
        limits.v1_required = Some("cpu_rt_period");
    }
    if let Some(runtime) = cpu.realtime_runtime().filter(|runtime| *runtime != 0) {
        limits.v1(RT_RUNTIME, runtime);
        limits.v1_required = Some("cpu_rt_runtime");
    }
    limits
}

fn cpuset(cpu: &LinuxCpu) -> Limits {
    let mut limits = Limits::new("cpuset", "cpuset");
    let settings = [("cpuset.cpus", cpu.cpus()), ("cpuset.mems", cpu.mems())];
    for (file, value) in settings {
        if let Some(value) = value.as_deref().filter(|value| !value.is_empty()) {
            limits.v1(file, value);
            limits.v2(file, value);
        }
    }
    limits
}

fn io(io: &LinuxBlockIo) -> Limits {
    let mut limits = Limits::new("io", "blkio_config");
    if let Some(weight) = io.weight().filter(|weight| *weight != 0) {
        // There only with an I/O scheduler that knows weights.
        limits.v1.push(weight_write(["blkio.weight", "blkio.bfq.weight"], [weight.to_string(), weight.to_string()]));
        limits.v2.push(weight_write(WEIGHTS_V2, [weight.to_string(), weight_v2(weight).to_string()]));
    }
    for device in io.weight_device().iter().flatten() {
        let number = format!("{}:{}", device.major(), device.minor());
        let weight = device.weight().unwrap_or_default();
        let files = ["blkio.weight_device", "blkio.bfq.weight_device"];
        let values = [format!("{number} {weight}"), format!("{number} {weight}")];
        limits.v1.push(weight_write(files, values));
        let values = [format!("{number} {weight}"), format!("{number} {}", weight_v2(weight))];
        limits.v2.push(weight_write(WEIGHTS_V2, values));
    }
    let throttles = [
        ("blkio.throttle.read_bps_device", "rbps", io.throttle_read_bps_device()),
        ("blkio.throttle.write_bps_device", "wbps", io.throttle_write_bps_device()),
        ("blkio.throttle.read_iops_device", "riops", io.throttle_read_iops_device()),
        ("blkio.throttle.write_iops_device", "wiops", io.throttle_write_iops_device()),
    ];
    for (file, key, devices) in throttles {
        for device in devices.iter().flatten() {
            limits.v1(file, format!("{}:{} {}", device.major(), device.minor(), device.rate()));
            limits.v2("io.max", format!("{}:{} {key}={}", device.major(), device.minor(), device.rate()));
        }
    }
    limits
}

fn weight_write([file, other]: [&'static str; 2], [value, other_value]: [String; 2]) -> Write {
    Write { file: file.into(), value, optional: true, otherwise: Some((other, other_value)) }
}

/// 10 to 1000 as 1 to 10000.
fn weight_v2(weight: u16) -> u32 {
    1 + (u32::from(weight.clamp(10, 1000)) - 10) * 9_999 / 990
}

fn unlimited_below_zero(value: i64) -> String {
    if value < 0 { "max".to_owned() } else { value.to_string() }
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::LinuxCpuBuilder;
    use oci_spec::runtime::LinuxMemoryBuilder;
    use oci_spec::runtime::LinuxPidsBuilder;
    use oci_spec::runtime::LinuxResourcesBuilder;

    use super::*;

    #[test]
    fn both_versions_say_the_same() {
        let memory = LinuxMemoryBuilder::default().limit(64i64 << 20).swap(128i64 << 20).reservation(32i64 << 20);
        let cpu = LinuxCpuBuilder::default().shares(1024u64).quota(150_000).period(100_000u64).cpus("0-1");
        let cpu = cpu.idle(1).burst(50_000u64);
        let resources = LinuxResourcesBuilder::default()
            .memory(memory.build().unwrap())
            .cpu(cpu.build().unwrap())
            .pids(LinuxPidsBuilder::default().limit(100).build().unwrap())
            .build()
            .unwrap();
        let text = |writes: &[Write]| writes.iter().map(|w| format!(" {}={}", w.file, w.value)).collect::<String>();
        let lines =
            of(&resources).into_iter().map(|l| format!("{}\n v1{}\n v2{}\n", l.controller, text(&l.v1), text(&l.v2)));
        expect_test::expect![[r#"
            memory
             v1 memory.limit_in_bytes=67108864 memory.soft_limit_in_bytes=33554432 memory.memsw.limit_in_bytes=134217728
             v2 memory.max=67108864 memory.low=33554432 memory.swap.max=67108864
            cpu
             v1 cpu.shares=1024 cpu.idle=1 cpu.cfs_period_us=100000 cpu.cfs_quota_us=150000 cpu.cfs_burst_us=50000
             v2 cpu.weight=39 cpu.idle=1 cpu.max=150000 100000 cpu.max.burst=50000
            cpuset
             v1 cpuset.cpus=0-1
             v2 cpuset.cpus=0-1
            pids
             v1 pids.max=100
             v2 pids.max=100
        "#]]
        .assert_eq(&lines.collect::<String>());
    }

    /// What runc writes for the same numbers, so what Docker's users get.
    #[test]
    fn block_io_is_written_as_runc_does() {
        let resources: LinuxResources = serde_json::from_value(serde_json::json!({"blockIO": {
            "weight": 300,
            "weightDevice": [{"major": 8, "minor": 0, "weight": 1000}],
            "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1048576}],
            "throttleWriteBpsDevice": [{"major": 8, "minor": 16, "rate": 2097152}],
            "throttleReadIOPSDevice": [{"major": 8, "minor": 0, "rate": 100}],
            "throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 200}]}}))
        .unwrap();
        let one = |write: &Write| {
            let other = write.otherwise.as_ref().map_or(String::new(), |(file, value)| format!(" or {file}={value}"));
            format!("{}={}{other}\n", write.file, write.value)
        };
        let limits = of(&resources).remove(0);
        let text: String = limits.v1.iter().chain(&limits.v2).map(one).collect();
        expect_test::expect![[r#"
            blkio.weight=300 or blkio.bfq.weight=300
            blkio.weight_device=8:0 1000 or blkio.bfq.weight_device=8:0 1000
            blkio.throttle.read_bps_device=8:0 1048576
            blkio.throttle.write_bps_device=8:16 2097152
            blkio.throttle.read_iops_device=8:0 100
            blkio.throttle.write_iops_device=8:0 200
            io.bfq.weight=300 or io.weight=2930
            io.bfq.weight=8:0 1000 or io.weight=8:0 10000
            io.max=8:0 rbps=1048576
            io.max=8:16 wbps=2097152
            io.max=8:0 riops=100
            io.max=8:0 wiops=200
        "#]]
        .assert_eq(&text);
        assert_eq!([10, 100, 500, 1000].map(weight_v2), [1, 910, 4950, 10_000]);
    }

    #[test]
    fn taking_a_limit_away_is_a_change() {
        let pids = LinuxPidsBuilder::default().limit(-1).build().unwrap();
        let resources = LinuxResourcesBuilder::default().pids(pids).build().unwrap();
        assert_eq!(of(&resources), []);
        let update = of_update(&resources).remove(0);
        assert_eq!(
            (update.v1.first().unwrap().value.as_str(), update.v2.first().unwrap().value.as_str()),
            ("max", "max")
        );
    }

    #[test]
    fn nothing_asked_needs_no_controller() {
        let memory = LinuxMemoryBuilder::default().disable_oom_killer(false).build().unwrap();
        let resources =
            LinuxResourcesBuilder::default().memory(memory).block_io(LinuxBlockIo::default()).build().unwrap();
        assert_eq!(of(&resources), []);
    }
}
