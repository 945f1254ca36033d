//! The address ranges of networks that ask for none.
//!
//! Docker's (172.17.0.0/16, its default bridge, left out), and 10.192.0.0/10 in /20s after them, so that hundreds of networks
//! find room; or those that the administrator has set for Docker.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use ipnetwork::IpNetwork;
use serde::Deserialize;

use crate::network::NetworkError;

/// How many ranges of one pool are looked at.
const MOST: u128 = 1 << 20;

/// Equal ranges of `2 ^ (bits - size)` addresses in `base`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Pool {
    base: IpNetwork,
    /// Prefix length of each range.
    size: u8,
}

/// The part of Docker's `daemon.json` that is of interest.
#[derive(Deserialize)]
struct Daemon {
    #[serde(default, rename = "default-address-pools")]
    pools: Vec<Pool>,
}

impl Pool {
    /// Its ranges, in order.
    pub fn ranges(self) -> impl Iterator<Item = IpNetwork> {
        let bits = if self.base.is_ipv4() { 32 } else { 128 };
        let count = 1_u128.checked_shl(u32::from(self.size - self.base.prefix())).map_or(MOST, |count| count.min(MOST));
        let step = 1_u128.checked_shl(bits - u32::from(self.size)).unwrap_or(0);
        let first = match self.base.network() {
            IpAddr::V4(address) => u128::from(address.to_bits()),
            IpAddr::V6(address) => address.to_bits(),
        };
        (0..count).filter_map(move |index| {
            let at = first + index * step;
            let address = match self.base {
                IpNetwork::V4(_) => IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(at).ok()?)),
                IpNetwork::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(at)),
            };
            IpNetwork::new(address, self.size).ok()
        })
    }

    /// Whether its addresses are of version 6.
    pub fn is_ipv6(self) -> bool {
        self.base.is_ipv6()
    }

    fn is_valid(self) -> bool {
        let bits = if self.base.is_ipv4() { 32 } else { 128 };
        (self.base.prefix()..=bits).contains(&self.size)
    }
}

/// The pools of this host: those of Docker's `daemon.json` where it has some, the user's own before the machine's.
///
/// # Errors
/// [`NetworkError::Pools`] for a file that says something else.
pub(super) fn of_this_host() -> Result<Vec<Pool>, NetworkError> {
    for path in files() {
        if let Ok(text) = std::fs::read_to_string(&path) {
            let pools = parse(&text).map_err(|why| NetworkError::Pools { path, why })?;
            if !pools.is_empty() {
                return Ok(pools);
            }
        }
    }
    Ok(defaults())
}

fn files() -> impl Iterator<Item = PathBuf> {
    let own = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
    let own = own.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".config")));
    let own = own.filter(|_| !rustix::process::geteuid().is_root()).map(|folder| folder.join("docker/daemon.json"));
    own.into_iter().chain([PathBuf::from("/etc/docker/daemon.json")])
}

fn parse(text: &str) -> Result<Vec<Pool>, String> {
    let daemon: Daemon = serde_json::from_str(text).map_err(|error| error.to_string())?;
    match daemon.pools.iter().find(|pool| !pool.is_valid()) {
        Some(pool) => Err(format!("`default-address-pools`: {} has no ranges of size {}", pool.base, pool.size)),
        None => Ok(daemon.pools),
    }
}

pub(super) fn defaults() -> Vec<Pool> {
    let pool = |address: [u8; 4], prefix, size| {
        IpNetwork::new(IpAddr::from(address), prefix).ok().map(|base| Pool { base, size })
    };
    let large = (18..=31).map(|second| pool([172, second, 0, 0], 16, 16));
    large.chain([pool([192, 168, 0, 0], 16, 20), pool([10, 192, 0, 0], 10, 20)]).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_are_those_of_the_daemons_file() {
        let text = r#"{"log-driver": "local", "default-address-pools": [
            {"base": "10.77.0.0/16", "size": 24}, {"base": "fd77::/48", "size": 64}]}"#;
        let pools = parse(text).unwrap();
        let some: Vec<_> = pools[0].ranges().take(2).map(|range| range.to_string()).collect();
        assert_eq!(some, ["10.77.0.0/24", "10.77.1.0/24"]);
        assert_eq!(pools[0].ranges().count(), 256);
        assert_eq!(pools[1].ranges().nth(1).unwrap().to_string(), "fd77:0:0:1::/64");
        assert_eq!(parse("{}").unwrap(), []);
        let small = parse(r#"{"default-address-pools": [{"base": "10.0.0.0/24", "size": 16}]}"#).unwrap_err();
        assert!(small.contains("10.0.0.0/24 has no ranges of size 16"), "{small}");
        assert!(parse("[").is_err());
    }

    #[test]
    fn the_last_range_of_the_address_space_is_one() {
        let pool = Pool { base: "240.0.0.0/4".parse().unwrap(), size: 5 };
        assert_eq!(pool.ranges().last().unwrap().to_string(), "248.0.0.0/5");
        assert!(Pool { base: "::/0".parse().unwrap(), size: 128 }.ranges().nth(3).is_some());
    }
}
