//! firewalld, asked over the system's bus to put bridges into its zone `trusted`, which lets everything pass; for as long as it
//! runs. Docker has it make a zone for that; this one is there.
//!
//! Source: firewalld.dbus(5).

use std::io;
use std::path::Path;
use std::time::Duration;

use crate::network::NetworkError;
use crate::sys::dbus::{Body, Connection, Failure, Object};

const BUS: &str = "/run/dbus/system_bus_socket";
const FIREWALLD: Object = Object {
    destination: "org.fedoraproject.FirewallD1",
    path: "/org/fedoraproject/FirewallD1",
    interface: "org.fedoraproject.FirewallD1.zone",
};
/// While it reloads it does not answer, for about a second.
const PATIENCE: Duration = Duration::from_secs(5);
const ZONE: &str = "trusted";

/// Whether it answers.
pub(super) fn check() -> io::Result<()> {
    let mut bus = connect()?;
    bus.call(FIREWALLD, "getZones", "", &Body::default()).map(drop).map_err(io::Error::from)
}

pub(super) fn trust(bridges: &[String]) -> Result<(), NetworkError> {
    if bridges.is_empty() {
        return Ok(());
    }
    let failed = |bridge: &str, source| NetworkError::Zone { bridge: bridge.to_owned(), source };
    let mut bus = connect().map_err(|error| failed(&bridges.join(","), error))?;
    for bridge in bridges {
        match bus.call(FIREWALLD, "addInterface", "ss", &binding(bridge)) {
            // In this zone, or in one of the user's choice.
            Err(Failure::Refused { text, .. })
                if ["ZONE_ALREADY_SET", "ZONE_CONFLICT"].iter().any(|code| text.starts_with(code)) => {}
            added => drop(added.map_err(|error| failed(bridge, error.into()))?),
        }
    }
    Ok(())
}

/// Takes a bridge out of the zone. The name means nothing once the bridge is gone, so what fails is left to firewalld's end.
pub(super) fn distrust(bridge: &str) {
    let removed = connect()
        .map_err(Failure::Io)
        .and_then(|mut bus| bus.call(FIREWALLD, "removeInterface", "ss", &binding(bridge)));
    drop(removed);
}

fn connect() -> io::Result<Connection> {
    Connection::open_bus(Path::new(BUS), PATIENCE).map_err(io::Error::from)
}

fn binding(bridge: &str) -> Body {
    let mut body = Body::default();
    body.text(ZONE);
    body.text(bridge);
    body
}
