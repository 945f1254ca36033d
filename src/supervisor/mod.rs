//! The per-project process: owns the reconciler, log pump, DNS, ports, health probes and the control socket.

mod link;
