//! Networks on this host: bridges and their records.
//!
//! The record is written before the bridge is made and removed after it is gone, so whatever a kill leaves behind is
//! named by a record, and the next [`Networks::ensure`] or [`Networks::sweep`] clears it.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnetwork::IpNetwork;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use rtnetlink::{LinkBridge, LinkUnspec};

use crate::base::ids::ContainerId;
use crate::network::NetworkError;
use crate::network::foreign;
use crate::network::ipam::{self, Used};
use crate::network::netlink::{self, ACK, CREATE, DUMP, EXCLUSIVE, Netlink};
use crate::network::records::{self, NetworkRecord, Records};
use crate::spec::NetworkSpec;

const BRIDGE_NAME: &str = "com.docker.network.bridge.name";
const MTU: &str = "com.docker.network.driver.mtu";

/// All networks of this data folder, of all projects.
#[derive(Clone, Debug)]
pub struct Networks {
    folder: PathBuf,
}

impl Networks {
    /// `folder` is `<data_dir>/networks`; made when first needed.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The records as they are now, also those of half-made networks (`ready` is false).
    ///
    /// # Errors
    /// [`NetworkError::File`].
    pub fn list(&self) -> Result<Vec<NetworkRecord>, NetworkError> {
        records::read_all(&self.folder)
    }

    /// The ready network of that name.
    ///
    /// # Errors
    /// [`NetworkError::File`].
    pub fn find(&self, name: &str) -> Result<Option<NetworkRecord>, NetworkError> {
        Ok(self.list()?.into_iter().find(|record| record.ready && record.name == name))
    }

    /// Makes the network exist, or finds the one that does. A difference to the specification is the planner's matter
    /// (`config_hash` of the record).
    ///
    /// # Errors
    /// [`NetworkError`]: an external network that is missing, a name another project has, an overlap, no room.
    pub fn ensure(&self, spec: &NetworkSpec, project: &str) -> Result<NetworkRecord, NetworkError> {
        let records = Records::lock(&self.folder)?;
        let all = records.all()?;
        let same_name = all.iter().find(|record| record.name == spec.name);
        if spec.external {
            let ready = same_name.filter(|record| record.ready).cloned();
            return ready.ok_or_else(|| NetworkError::NotFound { name: spec.name.clone() });
        }
        if let Some(record) = same_name {
            if record.project != project {
                return Err(NetworkError::Foreign { name: spec.name.clone(), project: record.project.clone() });
            }
            if record.ready && link_exists(&record.bridge) {
                return Ok(record.clone());
            }
            clear(&records, record)?;
        }
        let mut others: Vec<_> = all.into_iter().filter(|record| record.name != spec.name).collect();
        // Under the lock nobody is making one: what is not ready is going, and must not be in the way of the range or the
        // bridge name that is asked for.
        if !spec.subnets.is_empty() || spec.driver_opts.contains_key(BRIDGE_NAME) {
            for record in others.extract_if(.., |record| !record.ready) {
                clear(&records, &record)?;
            }
        }
        let mut record = plan_record(spec, project, &others)?;
        records.put(&record)?;
        create_bridge(&record).and_then(|()| foreign::admit(&record)).inspect_err(|_| {
            // Best effort: the record stays when something does, and the next sweep takes both.
            let _ = clear(&records, &record);
        })?;
        record.ready = true;
        records.put(&record)?;
        Ok(record)
    }

    /// Marks a network as gone: nothing finds it any more, and its name is free. [`Networks::remove`] is still to follow;
    /// when it does not, because of a kill, [`Networks::sweep`] or the next [`Networks::ensure`] of that name does it.
    ///
    /// # Errors
    /// [`NetworkError::File`].
    pub fn retire(&self, id: &str) -> Result<(), NetworkError> {
        let records = Records::lock(&self.folder)?;
        let Some(mut record) = records.get(id)? else { return Ok(()) };
        record.ready = false;
        records.put(&record)
    }

    /// Removes a network; one that is gone already is fine. Takes about 50 ms (the kernel waits for the bridge to
    /// be out of use), so do it last.
    ///
    /// # Errors
    /// [`NetworkError`].
    pub fn remove(&self, id: &str) -> Result<(), NetworkError> {
        let record = {
            let records = Records::lock(&self.folder)?;
            let Some(mut record) = records.get(id)? else { return Ok(()) };
            record.ready = false;
            records.put(&record)?;
            record
        };
        // Others are not kept waiting: the lock is not held here, and the name of the bridge is never used again.
        foreign::dismiss(&record)?;
        delete_link(&record.bridge)?;
        Records::lock(&self.folder)?.delete(id)
    }

    /// Removes what a crash left of the project: half-made or half-removed networks. Call under the project's lock.
    ///
    /// # Errors
    /// [`NetworkError`].
    pub fn sweep(&self, project: &str) -> Result<(), NetworkError> {
        for record in self.list()?.into_iter().filter(|record| record.project == project) {
            if !record.ready || !link_exists(&record.bridge) {
                self.remove(&record.id)?;
            }
        }
        Ok(())
    }

    /// Addresses for a container in a network, one per address family; the same ones when it has some already.
    ///
    /// # Errors
    /// [`NetworkError`], as [`ipam::lease`].
    pub fn lease(&self, id: &str, container: &ContainerId, wanted: &[IpAddr]) -> Result<Vec<IpAddr>, NetworkError> {
        let records = Records::lock(&self.folder)?;
        let mut record = records.get(id)?.ok_or_else(|| NetworkError::NotFound { name: id.to_owned() })?;
        let before = record.leases.clone();
        let addresses = ipam::lease(&mut record, container.as_str(), wanted)?;
        if before != record.leases {
            records.put(&record)?;
        }
        Ok(addresses)
    }

    /// Gives the addresses of containers back, in all networks.
    ///
    /// # Errors
    /// [`NetworkError::File`].
    pub fn release(&self, containers: &[ContainerId]) -> Result<(), NetworkError> {
        let records = Records::lock(&self.folder)?;
        for mut record in records.all()? {
            let before = record.leases.len();
            record.leases.retain(|_, holder| !containers.iter().any(|container| container.as_str() == holder));
            if record.leases.len() != before {
                records.put(&record)?;
            }
        }
        Ok(())
    }
}

/// Removes the bridge, the host firewall's rules for it, and then the record.
fn clear(records: &Records, record: &NetworkRecord) -> Result<(), NetworkError> {
    foreign::dismiss(record)?;
    delete_link(&record.bridge)?;
    records.delete(&record.id)
}

fn plan_record(spec: &NetworkSpec, project: &str, others: &[NetworkRecord]) -> Result<NetworkRecord, NetworkError> {
    if let Some(driver) = spec.driver.as_deref().filter(|driver| *driver != "bridge" && *driver != "default") {
        return Err(NetworkError::Driver { network: spec.name.clone(), driver: driver.to_owned() });
    }
    let refused = |option: &str, value: &str| NetworkError::Option {
        network: spec.name.clone(),
        option: option.to_owned(),
        value: value.to_owned(),
    };
    let mtu = match spec.driver_opts.get(MTU) {
        Some(value) => Some(value.parse().map_err(|_| refused(MTU, value))?),
        None => None,
    };
    let mut bytes = [0; 32];
    rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty())
        .map_err(|errno| NetworkError::kernel("give random bytes")(errno.into()))?;
    let id = ContainerId::from_bytes(bytes).to_string();
    let bridge = match spec.driver_opts.get(BRIDGE_NAME) {
        Some(name) if name.is_empty() || name.len() > 15 || name.contains(['/', ' ']) => {
            return Err(refused(BRIDGE_NAME, name));
        }
        Some(name) => name.clone(),
        None => format!("rc-{}", id.get(..10).unwrap_or(&id)),
    };
    let mut used = ipam::used_by(others);
    used.extend(host_ranges().map_err(NetworkError::kernel("list the routes and addresses of this host"))?);
    let subnets = ipam::choose(spec, &id, &used)?;
    Ok(NetworkRecord {
        id,
        name: spec.name.clone(),
        project: project.to_owned(),
        bridge,
        mtu,
        internal: spec.internal,
        subnets,
        labels: spec.labels.clone(),
        config_hash: spec.config_hash.clone(),
        ready: false,
        leases: Default::default(),
    })
}

/// Address ranges the host uses: those of its interfaces and its routes, the default route left out.
fn host_ranges() -> io::Result<Vec<Used>> {
    let socket = Netlink::route()?;
    let mut used = Vec::new();
    let addresses = netlink::encode(RouteNetlinkMessage::GetAddress(AddressMessage::default()), DUMP);
    for answer in socket.dump(&addresses)? {
        let Some(RouteNetlinkMessage::NewAddress(message)) = netlink::decode(&answer) else { continue };
        let address = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        });
        let range = address.and_then(|address| IpNetwork::new(address, message.header.prefix_len).ok());
        used.extend(range.map(|range| Used { range, by: format!("address {range} of this host") }));
    }
    let routes = netlink::encode(RouteNetlinkMessage::GetRoute(RouteMessage::default()), DUMP);
    for answer in socket.dump(&routes)? {
        let Some(RouteNetlinkMessage::NewRoute(message)) = netlink::decode(&answer) else { continue };
        let address = message.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(IpAddr::V4(*address)),
            RouteAttribute::Destination(RouteAddress::Inet6(address)) => Some(IpAddr::V6(*address)),
            _ => None,
        });
        // Halves of the whole address space (VPNs that take the default route that way) are no ranges in use.
        let prefix = message.header.destination_prefix_length;
        let range = address.filter(|_| prefix > 1).and_then(|address| IpNetwork::new(address, prefix).ok());
        used.extend(range.map(|range| Used { range, by: format!("route {range} of this host") }));
    }
    Ok(used)
}

pub(super) fn link_exists(name: &str) -> bool {
    nix::net::if_::if_nametoindex(name).is_ok()
}

fn create_bridge(record: &NetworkRecord) -> Result<(), NetworkError> {
    let name = &record.bridge;
    let failed = |action: &str| NetworkError::kernel(format!("{action} bridge `{name}` of network `{}`", record.name));
    let socket = Netlink::route().map_err(failed("open a netlink socket for"))?;
    let mut bridge = LinkBridge::new(name).mcast_snooping(false).up();
    if let Some(mtu) = record.mtu {
        bridge = bridge.mtu(mtu);
    }
    let create = netlink::encode(RouteNetlinkMessage::NewLink(bridge.build()), ACK | CREATE | EXCLUSIVE);
    socket.send(&create).map_err(failed("create"))?;
    let index = nix::net::if_::if_nametoindex(name.as_str()).map_err(|errno| failed("find")(errno.into()))?;
    // So that `ip link` tells whose it is.
    let alias = format!("/sys/class/net/{name}/ifalias");
    fs::write(&alias, &record.name).map_err(NetworkError::file("write", &alias))?;
    let mut addresses = Vec::new();
    for subnet in &record.subnets {
        addresses.extend(address_message(index, subnet.gateway, subnet.subnet.prefix()));
    }
    let ipv6 = record.subnets.iter().any(|subnet| subnet.subnet.is_ipv6());
    // Without IPv6 the bridge needs no link-local address; a kernel without IPv6 has no such file.
    if !ipv6 {
        let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1");
    }
    socket.send(&addresses).map_err(failed("address"))?;
    set(&format!("/proc/sys/net/ipv4/conf/{name}/route_localnet"))?;
    if !record.internal {
        set("/proc/sys/net/ipv4/ip_forward")?;
        if ipv6 {
            set("/proc/sys/net/ipv6/conf/all/forwarding")?;
        }
    }
    Ok(())
}

/// Switches a kernel setting on, unless it is.
fn set(path: &str) -> Result<(), NetworkError> {
    if fs::read_to_string(path).is_ok_and(|value| value.trim() == "1") {
        return Ok(());
    }
    fs::write(path, "1").map_err(NetworkError::file("write", path))
}

/// The message that gives a link an address; IPv6 without waiting for duplicate detection.
pub(super) fn address_message(index: u32, address: IpAddr, prefix: u8) -> Vec<u8> {
    let mut message = AddressMessage::default();
    message.header.family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.header.prefix_len = prefix;
    message.header.index = index;
    message.attributes.push(AddressAttribute::Address(address));
    if let (IpAddr::V4(_), Ok(IpNetwork::V4(network))) = (address, IpNetwork::new(address, prefix)) {
        message.attributes.push(AddressAttribute::Local(address));
        message.attributes.push(AddressAttribute::Broadcast(network.broadcast()));
    } else {
        message.attributes.push(AddressAttribute::Flags(netlink_packet_route::address::AddressFlags::Nodad));
    }
    netlink::encode(RouteNetlinkMessage::NewAddress(message), ACK | CREATE | EXCLUSIVE)
}

/// Deletes a link; one that is gone is fine.
fn delete_link(name: &str) -> Result<(), NetworkError> {
    if !link_exists(name) {
        return Ok(());
    }
    let message: LinkMessage = LinkUnspec::new_with_name(name).build();
    let delete = netlink::encode(RouteNetlinkMessage::DelLink(message), ACK);
    match Netlink::route().and_then(|socket| socket.send(&delete)) {
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
        Err(source) => Err(NetworkError::Kernel { action: format!("delete bridge `{name}`"), source }),
        Ok(_) => Ok(()),
    }
}

/// The index of a link in the namespace of `socket`.
pub(super) fn link_index(socket: &Netlink, name: &str) -> io::Result<u32> {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    let answers = socket.send(&netlink::encode(RouteNetlinkMessage::GetLink(message), 0))?;
    // The index stands at offset 4 of `struct ifinfomsg`.
    answers.first().and_then(|(_, body)| netlink::u32_at(body, 4)).ok_or_else(|| io::ErrorKind::NotFound.into())
}
