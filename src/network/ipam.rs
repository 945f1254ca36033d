//! Choosing address ranges and addresses; pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::{IpNetwork, Ipv6Network};

use crate::network::NetworkError;
use crate::network::pools::Pool;
use crate::network::records::{NetworkRecord, SubnetRecord};
use crate::spec::NetworkSpec;

/// An address range in use, and by what, in words for a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Used {
    pub range: IpNetwork,
    pub by: String,
}

/// The subnets a new network gets: those of its specification, or the first free one of the pools.
///
/// # Errors
/// [`NetworkError::Overlap`] for a subnet that is in use, [`NetworkError::PoolsExhausted`].
pub fn choose(spec: &NetworkSpec, id: &str, used: &[Used], pools: &[Pool]) -> Result<Vec<SubnetRecord>, NetworkError> {
    let free = |ipv6: bool| {
        let ranges = pools.iter().filter(|pool| pool.is_ipv6() == ipv6).flat_map(|pool| pool.ranges());
        ranges.into_iter().find(|range| !used.iter().any(|other| overlap(other.range, *range)))
    };
    let mut chosen = Vec::new();
    for wanted in &spec.subnets {
        let subnet = base(wanted.subnet);
        if let Some(other) = used.iter().find(|other| overlap(other.range, subnet)) {
            return Err(NetworkError::Overlap { network: spec.name.clone(), subnet, other: other.by.clone() });
        }
        if let Some(outside) = wanted.gateway.filter(|gateway| !subnet.contains(*gateway)) {
            return Err(NetworkError::AddressOutside { network: spec.name.clone(), address: outside });
        }
        let gateway = wanted.gateway.unwrap_or_else(|| first_address(subnet, wanted.range.unwrap_or(subnet)));
        chosen.push(SubnetRecord { subnet, range: wanted.range, gateway, reserved: wanted.reserved.clone() });
    }
    if spec.enable_ipv4 && !chosen.iter().any(|subnet| subnet.subnet.is_ipv4()) {
        let subnet = free(false).ok_or_else(|| NetworkError::PoolsExhausted { network: spec.name.clone() })?;
        chosen.insert(0, plain(subnet));
    }
    if spec.enable_ipv6 && !chosen.iter().any(|subnet| subnet.subnet.is_ipv6()) {
        chosen.push(plain(free(true).unwrap_or_else(|| unique_local(id))));
    }
    Ok(chosen)
}

fn plain(subnet: IpNetwork) -> SubnetRecord {
    SubnetRecord { subnet, range: None, gateway: first_address(subnet, subnet), reserved: Default::default() }
}

/// A unique local /64 (RFC 4193) out of the network's random id.
fn unique_local(id: &str) -> IpNetwork {
    let random = u64::from_str_radix(id.get(..14).unwrap_or("1"), 16).unwrap_or(1);
    let bits = (0xfd_u128 << 120) | (u128::from(random) << 64);
    let address = Ipv6Addr::from_bits(bits);
    IpNetwork::V6(Ipv6Network::new(address, 64).unwrap_or(Ipv6Network::from(address)))
}

/// The range with its host bits cleared.
fn base(network: IpNetwork) -> IpNetwork {
    IpNetwork::new(network.network(), network.prefix()).unwrap_or(network)
}

fn first_address(subnet: IpNetwork, range: IpNetwork) -> IpAddr {
    let start = if subnet.contains(range.network()) { range.network() } else { subnet.network() };
    from_number(subnet, number(start).max(first_host(subnet)))
}

/// An IPv4 subnet of one or two addresses has none for itself and none for broadcasts (RFC 3021).
fn is_pair(subnet: IpNetwork) -> bool {
    subnet.is_ipv4() && subnet.prefix() >= 31
}

fn first_host(subnet: IpNetwork) -> u128 {
    number(subnet.network()) + u128::from(!is_pair(subnet))
}

/// The last address of an IPv4 subnet is its broadcast address.
fn last_host(subnet: IpNetwork) -> u128 {
    number(subnet.broadcast()) - u128::from(subnet.is_ipv4() && !is_pair(subnet))
}

/// Who has an address that no container can have.
fn owner(subnet: &SubnetRecord, address: IpAddr) -> Option<String> {
    if subnet.gateway == address {
        return Some("the gateway".to_owned());
    }
    if let Some((name, _)) = subnet.reserved.iter().find(|(_, reserved)| **reserved == address) {
        return Some(format!("`{name}` of its `aux_addresses`"));
    }
    match number(address) {
        number if number < first_host(subnet.subnet) => Some("the network itself".to_owned()),
        number if number > last_host(subnet.subnet) => Some("broadcasts".to_owned()),
        _ => None,
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn from_number(like: IpNetwork, number: u128) -> IpAddr {
    match like {
        IpNetwork::V4(_) => Ipv4Addr::from_bits(u32::try_from(number).unwrap_or(u32::MAX)).into(),
        IpNetwork::V6(_) => Ipv6Addr::from_bits(number).into(),
    }
}

/// Whether two ranges share an address.
pub fn overlap(a: IpNetwork, b: IpNetwork) -> bool {
    a.is_ipv4() == b.is_ipv4() && (a.contains(b.network()) || b.contains(a.network()))
}

/// Leases addresses for a container: those it has already, or the wanted, or the lowest free one per subnet.
///
/// # Errors
/// [`NetworkError::AddressOutside`], [`NetworkError::AddressTaken`], [`NetworkError::AddressesExhausted`]; the
/// record is then as it was.
pub fn lease(record: &mut NetworkRecord, container: &str, wanted: &[IpAddr]) -> Result<Vec<IpAddr>, NetworkError> {
    for address in wanted {
        let network = record.name.clone();
        let Some(subnet) = record.subnets.iter().find(|subnet| subnet.subnet.contains(*address)) else {
            return Err(NetworkError::AddressOutside { network, address: *address });
        };
        let leased = record.leases.get(address).filter(|holder| *holder != container);
        let holder = owner(subnet, *address).or_else(|| leased.map(|holder| format!("container {holder}")));
        if let Some(holder) = holder {
            return Err(NetworkError::AddressTaken { network, address: *address, holder });
        }
    }
    let mut given: Vec<IpAddr> = Vec::new();
    for subnet in &record.subnets {
        if given.iter().any(|address| address.is_ipv4() == subnet.subnet.is_ipv4()) {
            continue;
        }
        let fixed = wanted.iter().find(|address| subnet.subnet.contains(**address)).copied();
        let asked_elsewhere = wanted.iter().any(|address| address.is_ipv4() == subnet.subnet.is_ipv4());
        if fixed.is_none() && asked_elsewhere {
            continue;
        }
        let held =
            record.leases.iter().find(|(address, holder)| *holder == container && subnet.subnet.contains(**address));
        let address = fixed.or(held.map(|(address, _)| *address)).or_else(|| free_address(record, subnet));
        given.push(address.ok_or_else(|| NetworkError::AddressesExhausted { network: record.name.clone() })?);
    }
    record.leases.retain(|_, holder| holder != container);
    record.leases.extend(given.iter().map(|address| (*address, container.to_owned())));
    Ok(given)
}

fn free_address(record: &NetworkRecord, subnet: &SubnetRecord) -> Option<IpAddr> {
    let range = subnet.range.unwrap_or(subnet.subnet);
    let first = number(range.network()).max(first_host(subnet.subnet));
    let last = number(range.broadcast()).min(last_host(subnet.subnet));
    let taken = |address: &IpAddr| {
        *address == subnet.gateway
            || record.leases.contains_key(address)
            || subnet.reserved.values().any(|reserved| reserved == address)
    };
    (first..=last).map(|number| from_number(subnet.subnet, number)).find(|address| !taken(address))
}

/// Ranges held by networks of ours.
pub fn used_by(records: &[NetworkRecord]) -> Vec<Used> {
    let each = |record: &NetworkRecord| {
        let by = format!("network `{}` of project `{}`", record.name, record.project);
        record.subnets.iter().map(move |subnet| Used { range: subnet.subnet, by: by.clone() }).collect::<Vec<_>>()
    };
    records.iter().flat_map(each).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::pools::defaults;

    fn spec(subnet: Option<&str>) -> NetworkSpec {
        let subnets = subnet.map(|subnet| crate::spec::network::Subnet {
            subnet: subnet.parse().unwrap(),
            range: None,
            gateway: None,
            reserved: Default::default(),
        });
        NetworkSpec { subnets: subnets.into_iter().collect(), ..NetworkSpec::bridge("p_default".into()) }
    }

    fn record(subnet: &str) -> NetworkRecord {
        NetworkRecord {
            id: "ab".repeat(32),
            name: "p_default".into(),
            project: "p".into(),
            bridge: "rc-abababab".into(),
            owns_link: true,
            driver: Default::default(),
            mtu: None,
            interface_prefix: None,
            internal: false,
            subnets: choose(&spec(Some(subnet)), "ab", &[], &defaults()).unwrap(),
            labels: Default::default(),
            config_hash: String::new(),
            ready: true,
            leases: Default::default(),
            endpoints: Default::default(),
        }
    }

    #[test]
    fn pools_are_used_in_order_and_never_twice() {
        let mut used = Vec::new();
        for _ in 0..200 {
            let subnet = choose(&spec(None), "ab", &used, &defaults()).unwrap().remove(0).subnet;
            assert!(!used.iter().any(|other: &Used| overlap(other.range, subnet)));
            used.push(Used { range: subnet, by: String::new() });
        }
        assert_eq!(used[0].range, "172.18.0.0/16".parse().unwrap());
        assert_eq!(used[14].range, "192.168.0.0/20".parse().unwrap());
    }

    #[test]
    fn ranges_of_the_host_are_skipped_and_explicit_ones_refused() {
        let vpn = Used { range: "172.16.0.0/14".parse().unwrap(), by: "the route of `tun0`".into() };
        let chosen = choose(&spec(None), "ab", std::slice::from_ref(&vpn), &defaults()).unwrap();
        assert_eq!(chosen[0].subnet, "172.20.0.0/16".parse().unwrap());
        let refused = choose(&spec(Some("172.19.4.0/24")), "ab", &[vpn], &defaults()).unwrap_err();
        assert!(refused.to_string().contains("overlaps the route of `tun0`"), "{refused}");
    }

    #[test]
    fn leases_are_stable_static_ones_honoured_and_full_is_an_error() {
        let mut network = record("10.9.0.0/29");
        assert_eq!(network.subnets[0].gateway, "10.9.0.1".parse::<IpAddr>().unwrap());
        let first = lease(&mut network, "a", &[]).unwrap();
        assert_eq!(first, ["10.9.0.2".parse::<IpAddr>().unwrap()]);
        assert_eq!(lease(&mut network, "a", &[]).unwrap(), first);
        let fixed = ["10.9.0.5".parse().unwrap()];
        assert_eq!(lease(&mut network, "b", &fixed).unwrap(), fixed);
        assert!(matches!(lease(&mut network, "c", &fixed), Err(NetworkError::AddressTaken { .. })));
        assert!(matches!(
            lease(&mut network, "c", &["10.8.0.5".parse().unwrap()]),
            Err(NetworkError::AddressOutside { .. })
        ));
        for container in ["c", "d", "e"] {
            lease(&mut network, container, &[]).unwrap();
        }
        assert!(matches!(lease(&mut network, "f", &[]), Err(NetworkError::AddressesExhausted { .. })));
    }

    #[test]
    fn what_no_container_can_have_is_refused_by_name() {
        let mut network = record("10.9.0.0/24");
        network.subnets[0].reserved.insert("printer".into(), "10.9.0.9".parse().unwrap());
        for (address, holder) in [
            ("10.9.0.0", "the network itself"),
            ("10.9.0.1", "the gateway"),
            ("10.9.0.9", "`printer` of its `aux_addresses`"),
            ("10.9.0.255", "broadcasts"),
        ] {
            let refused = lease(&mut network, "a", &[address.parse().unwrap()]).unwrap_err().to_string();
            assert_eq!(refused, format!("address {address} of network `p_default` is taken by {holder}"));
        }
    }

    /// As Docker's, and RFC 3021: both addresses of a pair can be used.
    #[test]
    fn a_pair_has_an_address_beside_the_gateway() {
        let mut network = record("10.9.0.0/31");
        assert_eq!(network.subnets[0].gateway, "10.9.0.0".parse::<IpAddr>().unwrap());
        assert_eq!(lease(&mut network, "a", &[]).unwrap(), ["10.9.0.1".parse::<IpAddr>().unwrap()]);
        assert!(matches!(lease(&mut network, "b", &[]), Err(NetworkError::AddressesExhausted { .. })));
        assert!(matches!(lease(&mut record("10.9.0.7/32"), "a", &[]), Err(NetworkError::AddressesExhausted { .. })));
    }

    #[test]
    fn ipv6_networks_get_a_unique_local_subnet() {
        let mut both = spec(None);
        both.enable_ipv6 = true;
        let chosen = choose(&both, &"ab".repeat(32), &[], &defaults()).unwrap();
        assert_eq!(chosen[1].subnet.to_string(), "fdab:abab:abab:abab::/64");
        assert_eq!(chosen[1].gateway.to_string(), "fdab:abab:abab:abab::1");
    }
}
