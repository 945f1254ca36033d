//! One registry's connections: HTTP over TCP or TLS, with proxies, and failures in our words.

use std::io;
use std::sync::Once;
use std::time::Duration;

use ureq::Agent;
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{ConnectProxyConnector, Connector, TcpConnector};

use super::error::Error;
use super::given::Given;
use super::settings::{Settings, setting};
use crate::sys::resolver;

/// Time for a connection to come about.
const CONNECT: Duration = Duration::from_secs(15);
/// A registry may look a while before it answers (a pull-through cache fetches first).
const ANSWER: Duration = Duration::from_secs(90);

/// How a server's certificate counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// It must be valid, and nothing goes over plain HTTP.
    Certificates,
    /// It is not looked at.
    Anybody,
    /// There is none: plain HTTP.
    Plain,
}

fn prepare() {
    static PREPARED: Once = Once::new();
    PREPARED.call_once(|| {
        resolver::use_built_in();
        // Fails only where there is one already.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

/// Makes the connections for a file at a URL, which is no registry's: its certificate must be valid, and https leads nowhere
/// else.
///
/// # Errors
/// A setting is not valid.
pub fn downloads(settings: &Settings, url: &str) -> Result<Agent, Error> {
    prepare();
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let is_plain = scheme == "http";
    let trust = if is_plain { Trust::Plain } else { Trust::Certificates };
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .timeout_connect(Some(CONNECT))
        .timeout_recv_response(Some(ANSWER))
        .timeout_per_read(Some(settings.silence))
        .timeout_per_write(Some(settings.silence))
        .user_agent(concat!("rcompose/", env!("CARGO_PKG_VERSION")))
        .https_only(!is_plain)
        .proxy(proxy(settings, host, trust)?)
        .tls_config(tls(settings, host, Trust::Certificates)?);
    Ok(Agent::new_with_config(config.build()))
}

/// Makes the connections to a registry (`host[:port]`).
pub(super) fn agent(settings: &Settings, registry: &str, trust: Trust) -> Result<Agent, Error> {
    prepare();
    let mut config = Agent::config_builder()
        .http_status_as_error(false)
        .timeout_connect(Some(CONNECT))
        .timeout_recv_response(Some(ANSWER))
        .timeout_per_read(Some(settings.silence))
        .timeout_per_write(Some(settings.silence))
        .max_idle_connections_per_host(4)
        .user_agent(concat!("rcompose/", env!("CARGO_PKG_VERSION")))
        .https_only(trust == Trust::Certificates)
        .proxy(proxy(settings, registry, trust)?);
    if trust != Trust::Plain {
        config = config.tls_config(tls(settings, registry, trust)?);
    }
    let config = config.build();
    Ok(match if trust == Trust::Certificates { given(settings, registry)? } else { None } {
        Some(given) => {
            let connector = ().chain(ConnectProxyConnector::default()).chain(TcpConnector::default()).chain(given);
            Agent::with_parts(config, connector, DefaultResolver::default())
        }
        None => Agent::new_with_config(config),
    })
}

/// For a registry in whose folder certificates lie.
fn given(settings: &Settings, registry: &str) -> Result<Option<Given>, Error> {
    let found = settings.certificates(registry)?;
    let bad = |error: String| setting(&format!("certificates of `{registry}`"), &error);
    let mut given = Vec::new();
    for pem in &found.authorities {
        for certificate in CertificateDer::pem_slice_iter(pem) {
            given.push(certificate.map_err(|error| bad(error.to_string()))?);
        }
    }
    if given.is_empty() {
        return Ok(None);
    }
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots.add_parsable_certificates(given.iter().cloned());
    let own = found.own.as_ref().map(|(certificate, key)| (certificate.as_slice(), key.as_slice()));
    Given::new(roots, given, own).map(Some).map_err(bad)
}

fn tls(settings: &Settings, registry: &str, trust: Trust) -> Result<TlsConfig, Error> {
    let found = settings.certificates(registry)?;
    let mut roots = Vec::new();
    let bad = |error: ureq::Error| setting(&format!("certificates of `{registry}`"), &error.to_string());
    if trust == Trust::Certificates {
        let system = rustls_native_certs::load_native_certs();
        roots.extend(system.certs.iter().map(|certificate| Certificate::from_der(certificate).to_owned()));
        for pem in &found.authorities {
            for item in ureq::tls::parse_pem(pem) {
                if let ureq::tls::PemItem::Certificate(certificate) = item.map_err(bad)? {
                    roots.push(certificate);
                }
            }
        }
    }
    let own = match &found.own {
        Some((certificate, key)) => {
            let certificate = Certificate::from_pem(certificate).map_err(bad)?;
            Some(ClientCert::new_with_certs(&[certificate], PrivateKey::from_pem(key).map_err(bad)?))
        }
        None => None,
    };
    Ok(TlsConfig::builder()
        .root_certs(RootCerts::new_with_certs(&roots))
        .client_cert(own)
        .disable_verification(trust == Trust::Anybody)
        .build())
}

/// Loopback is never behind a proxy.
fn proxy(settings: &Settings, registry: &str, trust: Trust) -> Result<Option<ureq::Proxy>, Error> {
    let url = if trust == Trust::Plain { &settings.http_proxy } else { &settings.https_proxy };
    let Some(url) = url else { return Ok(None) };
    if settings.is_direct(registry) {
        return Ok(None);
    }
    let bad = |_| setting("HTTPS_PROXY", &format!("`{url}` is not a proxy's URL"));
    let parsed = ureq::Proxy::new(url).map_err(bad)?;
    let mut builder = ureq::Proxy::builder(parsed.protocol()).host(parsed.host()).port(parsed.port());
    if let (Some(user), Some(password)) = (parsed.username(), parsed.password()) {
        builder = builder.username(user).password(password);
    }
    // For the hosts that a registry sends us on to. A name stands for what is below it, too.
    for part in settings.no_proxy.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        builder = builder.no_proxy(part).no_proxy(&format!(".{}", part.trim_start_matches(['.', '*'])));
    }
    builder.build().map(Some).map_err(bad)
}

/// A transport failure in our words.
pub(super) fn failure(registry: &str, error: ureq::Error) -> Error {
    let registry = registry.to_owned();
    match error {
        ureq::Error::HostNotFound => Error::UnknownHost { registry },
        ureq::Error::Timeout(_) => Error::Timeout { registry },
        ureq::Error::Rustls(error) => tls_failure(registry, &error),
        ureq::Error::Tls(reason) => Error::Certificate { registry, reason: reason.to_owned() },
        ureq::Error::Io(error) => io_failure(registry, error),
        ureq::Error::ConnectionFailed => Error::Unreachable { registry, source: io::ErrorKind::NotConnected.into() },
        ureq::Error::ConnectProxyFailed(reason) => {
            Error::Unreachable { registry, source: io::Error::other(format!("the proxy refuses: {reason}")) }
        }
        other => Error::Protocol { registry, reason: other.to_string() },
    }
}

fn io_failure(registry: String, error: io::Error) -> Error {
    use io::ErrorKind as Kind;
    if let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        return tls_failure(registry, tls);
    }
    // The standard library has no kind for a failed look-up of a name, only these words.
    if error.raw_os_error().is_none() && error.to_string().starts_with("failed to lookup address information") {
        return Error::UnknownHost { registry };
    }
    match error.kind() {
        Kind::ConnectionRefused
        | Kind::HostUnreachable
        | Kind::NetworkUnreachable
        | Kind::AddrNotAvailable
        | Kind::NetworkDown => Error::Unreachable { registry, source: error },
        Kind::TimedOut | Kind::WouldBlock => Error::Timeout { registry },
        _ => Error::Broken { registry, source: error },
    }
}

fn tls_failure(registry: String, error: &rustls::Error) -> Error {
    use rustls::{AlertDescription as Alert, CertificateError as Bad};
    match error {
        rustls::Error::InvalidCertificate(bad) => {
            let reason = match bad {
                Bad::Expired | Bad::ExpiredContext { .. } => "it has expired".to_owned(),
                Bad::NotValidYet | Bad::NotValidYetContext { .. } => "it is not valid yet".to_owned(),
                Bad::UnknownIssuer => "no authority that this machine knows has signed it".to_owned(),
                Bad::NotValidForName | Bad::NotValidForNameContext { .. } => "it is for another host name".to_owned(),
                Bad::Revoked => "it has been revoked".to_owned(),
                // What `openssl req -x509` makes where nothing else is said.
                Bad::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
                    "it is an authority's own (CA:TRUE), and not one that was given for this registry".to_owned()
                }
                other => other.to_string(),
            };
            Error::Certificate { registry, reason }
        }
        rustls::Error::AlertReceived(
            Alert::CertificateRequired | Alert::BadCertificate | Alert::UnknownCA | Alert::CertificateExpired,
        ) => Error::OwnCertificate { registry },
        rustls::Error::InvalidMessage(_) => Error::Protocol { registry, reason: "it does not speak TLS".to_owned() },
        other => Error::Protocol { registry, reason: other.to_string() },
    }
}
