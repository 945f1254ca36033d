//! Connections the kernel remembers. Datagrams have no end, so what is remembered of a peer must be forgotten when the port
//! it sends to leads elsewhere. Numbers are those of `linux/netfilter/nfnetlink_conntrack.h`.

use std::io;

use crate::network::NetworkError;
use crate::network::netlink::{ACK, DUMP, Netlink, REQUEST};
use crate::network::nft::{self, Attributes};

const GET: u16 = 0x101;
const DELETE: u16 = 0x102;
const UNSPECIFIED: u8 = 0;
const UDP: u8 = 17;

const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const PROTOCOL_NUMBER: u16 = 1;
const DESTINATION_PORT: u16 = 3;

/// Forgets all that was sent to these UDP ports.
///
/// # Errors
/// [`NetworkError::Kernel`].
pub fn forget_udp(ports: &[u16]) -> Result<(), NetworkError> {
    let forgotten = Netlink::with_netfilter(|socket| {
        let connections = match socket.dump(&message(GET, DUMP, UNSPECIFIED, &Attributes::default())) {
            // Nobody tracks connections here.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => return Ok(()),
            connections => connections?,
        };
        for (_, body) in connections {
            let Some(family) = body.first().copied() else { continue };
            let attributes = nft::parse(body.get(4..).unwrap_or_default());
            let Some((_, original)) = attributes.iter().find(|(kind, _)| *kind == TUPLE_ORIGINAL) else { continue };
            if udp_port(original).is_some_and(|port| ports.contains(&port)) {
                let tuple = Attributes::default().bytes(TUPLE_ORIGINAL | 0x8000, original);
                gone_is_fine(socket.send(&message(DELETE, ACK, family, &tuple)))?;
            }
        }
        Ok(())
    });
    forgotten.map_err(NetworkError::kernel("forget datagrams that were sent before"))
}

/// The destination port of a tuple, when it is UDP's.
fn udp_port(tuple: &[u8]) -> Option<u16> {
    let parts = nft::parse(tuple);
    let (_, protocol) = parts.iter().find(|(kind, _)| *kind == TUPLE_PROTOCOL)?;
    let fields = nft::parse(protocol);
    let find = |kind| fields.iter().find(|(other, _)| *other == kind).map(|(_, value)| *value);
    let port = find(DESTINATION_PORT)?.first_chunk()?;
    (find(PROTOCOL_NUMBER)? == [UDP]).then(|| u16::from_be_bytes(*port))
}

fn gone_is_fine<T>(result: io::Result<T>) -> io::Result<()> {
    match result {
        Err(error) if error.raw_os_error() != Some(libc::ENOENT) => Err(error),
        _ => Ok(()),
    }
}

fn message(kind: u16, flags: u16, family: u8, attributes: &Attributes) -> Vec<u8> {
    let length = u32::try_from(20 + attributes.len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::new();
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((flags | REQUEST).to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend([family, 0, 0, 0]);
    bytes.extend(attributes.as_slice());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_that_of_udp_only() {
        let tuple = |protocol: u8| {
            let fields = Attributes::default()
                .bytes(PROTOCOL_NUMBER, &[protocol])
                .bytes(2, &1u16.to_be_bytes())
                .bytes(DESTINATION_PORT, &53u16.to_be_bytes());
            Attributes::default().nest(TUPLE_PROTOCOL, fields)
        };
        assert_eq!(udp_port(tuple(17).as_slice()), Some(53));
        assert_eq!(udp_port(tuple(6).as_slice()), None);
        assert_eq!(udp_port(&[4, 0]), None);
    }
}
