//! Host ports: held by real sockets, so that everybody sees them taken, and the error for one that is taken already.

use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, ipproto, listen, socket_with, sockopt};

use crate::spec::{PortSpec, Protocol};

const ANY_PORT_TRIES: u32 = 16;

/// A host port held for a container.
#[derive(Debug)]
pub struct HeldPort {
    pub host_ip: Option<IpAddr>,
    pub host: u16,
    pub container: u16,
    pub protocol: Protocol,
    /// IPv4: holds the port only, the kernel's translation carries the traffic.
    pub ipv4: Option<OwnedFd>,
    /// IPv6: for the proxy.
    pub ipv6: Option<OwnedFd>,
}

/// A host port that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    #[error("port {address}/{protocol} is in use by {holder}")]
    InUse { address: SocketAddr, protocol: Protocol, holder: Holder },
    #[error("none of the ports {first}-{last}/{protocol} is free")]
    RangeTaken { first: u16, last: u16, protocol: Protocol },
    #[error("cannot bind port {address}/{protocol}")]
    Bind { address: SocketAddr, protocol: Protocol, source: io::Error },
}

/// Who has a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    Process { name: String, pid: u32 },
    Unknown,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { name, pid } => write!(f, "`{name}` (process {pid})"),
            Self::Unknown => f.write_str("another process"),
        }
    }
}

/// Takes a port: the given one, the first free one of the range, or any.
///
/// # Errors
/// [`PortError`].
pub fn reserve(spec: &PortSpec) -> Result<HeldPort, PortError> {
    let Some((first, last)) = spec.host else {
        // The port the kernel chose for IPv4 may be taken for IPv6; another choice then.
        for _ in 0..ANY_PORT_TRIES {
            match hold(spec, 0) {
                Err(PortError::InUse { .. }) => {}
                held => return held,
            }
        }
        return hold(spec, 0);
    };
    for port in first..=last {
        match hold(spec, port) {
            Err(PortError::InUse { .. }) if first != last => {}
            held => return held,
        }
    }
    Err(PortError::RangeTaken { first, last, protocol: spec.protocol })
}

fn hold(spec: &PortSpec, port: u16) -> Result<HeldPort, PortError> {
    let mut held = HeldPort {
        host_ip: spec.host_ip,
        host: port,
        container: spec.container,
        protocol: spec.protocol,
        ipv4: None,
        ipv6: None,
    };
    // SCTP has no sockets where the module is not loaded: the translation alone publishes it.
    if spec.protocol == Protocol::Sctp && !has_sctp() {
        if port == 0 {
            held.host = any_port()?;
        }
        return Ok(held);
    }
    if spec.host_ip.is_none_or(|address| address.is_ipv4()) {
        let (socket, chosen) = open(spec.host_ip.unwrap_or(Ipv4Addr::UNSPECIFIED.into()), port, spec.protocol)?;
        held.ipv4 = Some(socket);
        held.host = chosen;
    }
    if spec.host_ip.is_none_or(|address| address.is_ipv6()) {
        match open(spec.host_ip.unwrap_or(Ipv6Addr::UNSPECIFIED.into()), held.host, spec.protocol) {
            Ok((socket, chosen)) => {
                held.ipv6 = Some(socket);
                held.host = chosen;
            }
            // A host without IPv6, and nobody asked for it.
            Err(PortError::Bind { source, .. })
                if spec.host_ip.is_none()
                    && matches!(source.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(held)
}

fn has_sctp() -> bool {
    socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, Some(ipproto::SCTP)).is_ok()
}

/// A port as the kernel would choose one.
fn any_port() -> Result<u16, PortError> {
    open(Ipv4Addr::UNSPECIFIED.into(), 0, Protocol::Tcp).map(|(_, port)| port)
}

fn open(address: IpAddr, port: u16, protocol: Protocol) -> Result<(OwnedFd, u16), PortError> {
    let address = SocketAddr::new(address, port);
    let opened = (|| {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let kind = if protocol == Protocol::Udp { SocketType::DGRAM } else { SocketType::STREAM };
        let transport = match protocol {
            Protocol::Tcp => ipproto::TCP,
            Protocol::Udp => ipproto::UDP,
            Protocol::Sctp => ipproto::SCTP,
        };
        let socket = socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, Some(transport))?;
        if address.is_ipv6() {
            sockopt::set_ipv6_v6only(&socket, true)?;
        }
        if protocol == Protocol::Tcp {
            // Connections of an earlier `up` that linger in TIME_WAIT are not in the way.
            sockopt::set_socket_reuseaddr(&socket, true)?;
        }
        bind(&socket, &address)?;
        if protocol != Protocol::Udp {
            listen(&socket, 4096)?;
        }
        let name = SocketAddr::try_from(rustix::net::getsockname(&socket)?)?;
        Ok((socket, name.port()))
    })();
    opened.map_err(|errno: rustix::io::Errno| match errno {
        rustix::io::Errno::ADDRINUSE => PortError::InUse { address, protocol, holder: holder(address, protocol) },
        errno => PortError::Bind { address, protocol, source: errno.into() },
    })
}

/// Finds the process with a socket on the port, by the kernel's tables and the descriptors of all processes.
pub fn holder(address: SocketAddr, protocol: Protocol) -> Holder {
    let table = |path: &str| fs::read_to_string(format!("/proc/thread-self/net/{path}")).unwrap_or_default();
    let port = address.port();
    let inodes = match protocol {
        Protocol::Tcp => [inodes_on(&table("tcp"), port, true), inodes_on(&table("tcp6"), port, true)].concat(),
        Protocol::Udp => [inodes_on(&table("udp"), port, false), inodes_on(&table("udp6"), port, false)].concat(),
        Protocol::Sctp => endpoints_on(&table("sctp/eps"), port),
    };
    let sockets: Vec<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        let mut links = descriptors.filter_map(|entry| fs::read_link(entry.path()).ok());
        if links.any(|link| sockets.iter().any(|socket| link.as_os_str() == socket.as_str())) {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            return Holder::Process { name: name.trim().to_owned(), pid };
        }
    }
    Holder::Unknown
}

/// Socket inodes of a `/proc/net/tcp` or `udp` table with that local port; for TCP only listening ones.
fn inodes_on(table: &str, port: u16, listening: bool) -> Vec<String> {
    let inode = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let local = u16::from_str_radix(fields.get(1)?.rsplit(':').next()?, 16).ok()?;
        let matches = local == port && (!listening || fields.get(3) == Some(&"0A"));
        matches.then(|| fields.get(9).map(|inode| (*inode).to_owned()))?
    };
    table.lines().skip(1).filter_map(inode).collect()
}

/// Socket inodes of a `/proc/net/sctp/eps` table with that port; it holds listening ones of both families.
fn endpoints_on(table: &str, port: u16) -> Vec<String> {
    let inode = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let matches = fields.get(5)?.parse() == Ok(port);
        matches.then(|| fields.get(7).map(|inode| (*inode).to_owned()))?
    };
    table.lines().skip(1).filter_map(inode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(host: Option<(u16, u16)>, protocol: Protocol) -> PortSpec {
        PortSpec { host_ip: Some(Ipv4Addr::LOCALHOST.into()), host, container: 80, protocol }
    }

    #[test]
    fn a_taken_port_names_its_holder_and_a_range_goes_on() {
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
            if protocol == Protocol::Sctp && !has_sctp() {
                println!("skipped: the kernel has no SCTP");
                continue;
            }
            let held = reserve(&spec(None, protocol)).unwrap();
            assert_ne!(held.host, 0);
            let error = reserve(&spec(Some((held.host, held.host)), protocol)).unwrap_err();
            let PortError::InUse { holder: Holder::Process { pid, .. }, .. } = &error else { panic!("{error}") };
            assert_eq!(*pid, std::process::id());
            let last = held.host.saturating_add(20);
            let next = reserve(&spec(Some((held.host, last)), protocol)).unwrap();
            assert!(next.host > held.host && next.host <= last);
        }
    }

    #[test]
    fn an_sctp_endpoint_is_found_by_its_port() {
        let table = " ENDPT     SOCK   STY SST HBKT LPORT   UID INODE LADDRS\n\
                     ffff9c1a ffff9c1b 2   10  48   8100      0 15673 0.0.0.0 \n\
                     ffff9c1c ffff9c1d 2   10  12   810       0 15674 10.55.0.1 \n";
        assert_eq!(endpoints_on(table, 8100), ["15673"]);
        assert_eq!(endpoints_on(table, 81), Vec::<String>::new());
    }
}
