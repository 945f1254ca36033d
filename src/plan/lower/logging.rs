//! `logging`: Docker's drivers and their options.

use std::collections::BTreeMap;

use crate::base::units::parse_bytes;
use crate::model::Service;
use crate::spec::logging::{Destination, Forward, Keep, LogSpec, SyslogAddress, SyslogFormat};

use super::Lowering;

/// Options of the drivers that keep files.
const OF_FILES: [&str; 10] = [
    "max-size",
    "max-file",
    "compress",
    "labels",
    "labels-regex",
    "env",
    "env-regex",
    "tag",
    "mode",
    "max-buffer-size",
];
/// Options of the drivers that send lines on; they keep files too.
const OF_FORWARDING: [&str; 11] = [
    "cache-disabled",
    "cache-max-size",
    "cache-max-file",
    "cache-compress",
    "labels",
    "labels-regex",
    "env",
    "env-regex",
    "tag",
    "mode",
    "max-buffer-size",
];
const OF_SYSLOG: [&str; 3] = ["syslog-address", "syslog-facility", "syslog-format"];
const OF_SYSLOG_TLS: [&str; 4] = ["syslog-tls-ca-cert", "syslog-tls-cert", "syslog-tls-key", "syslog-tls-skip-verify"];

/// Names of facilities, in the order of their numbers (RFC 5424, section 6.2.1).
const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp", "", "", "",
    "", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
];

type Options = BTreeMap<String, String>;

impl Lowering<'_> {
    pub(super) fn logging(&mut self, path: &str, service: &Service) -> LogSpec {
        let Some(logging) = &service.logging else { return LogSpec::default() };
        let path = format!("{path}.logging");
        let options = &logging.options;
        let driver = logging.driver.as_deref().unwrap_or_default();
        let known: &[&[&str]] = match driver {
            "" | "json-file" | "local" => &[&OF_FILES],
            // Docker takes any option for `none`, and no option has an effect there.
            "none" => return LogSpec { keep: None, hidden: true, forward: None },
            "journald" => &[&OF_FORWARDING],
            "syslog" => &[&OF_FORWARDING, &OF_SYSLOG, &OF_SYSLOG_TLS],
            other => {
                let known = "known are `json-file`, `local`, `none`, `journald` and `syslog`";
                self.not_yet(&format!("{path}.driver"), &format!("log driver `{other}`; {known}"));
                return LogSpec::default();
            }
        };
        let driver = if driver.is_empty() { "json-file" } else { driver };
        for name in options.keys().filter(|name| !known.iter().any(|known| known.contains(&name.as_str()))) {
            let at = format!("{path}.options.{name}");
            self.invalid(&at, format!("unknown log opt `{name}` for {driver} log driver"));
        }
        self.mode(&path, options);
        match driver {
            "journald" => self.forwarding(&path, options, Destination::Journald),
            "syslog" => {
                let to = self.syslog(&path, options);
                self.forwarding(&path, options, to)
            }
            "local" => self.files(&path, options, ["max-size", "max-file"], Keep { size: 20 << 20, files: 5 }, true),
            _ => self.files(&path, options, ["max-size", "max-file"], Keep { size: 0, files: 1 }, false),
        }
    }

    /// What is kept of the output; `default` where nothing is said. A size of 0 is no limit.
    fn files(&mut self, path: &str, options: &Options, names: [&str; 2], default: Keep, always: bool) -> LogSpec {
        let [size_name, files_name] = names;
        let mut keep = default;
        if let Some(text) = options.get(size_name) {
            match parse_bytes(text).and_then(|bytes| u64::try_from(bytes).ok()).filter(|bytes| *bytes > 0) {
                Some(size) => keep.size = size,
                None if text == "-1" => keep.size = 0,
                None => self.invalid(&format!("{path}.options.{size_name}"), format!("`{text}` is not a size")),
            }
        }
        if let Some(text) = options.get(files_name) {
            match text.parse().ok().filter(|files| *files > 0) {
                Some(files) => keep.files = files,
                None => self.invalid(
                    &format!("{path}.options.{files_name}"),
                    format!("`{text}` is not a number of files, which is at least 1"),
                ),
            }
        }
        if let Some(text) = options.get("compress") {
            let at = format!("{path}.options.compress");
            match text.parse() {
                Ok(true) if !always && (keep.files < 2 || keep.size == 0) => {
                    self.invalid(&at, "compress cannot be true when max-file is less than 2 or max-size is not set");
                }
                Ok(_) => {}
                Err(_) => self.invalid(&at, format!("`{text}` is neither `true` nor `false`")),
            }
        }
        LogSpec { keep: (keep.size > 0).then_some(keep), hidden: false, forward: None }
    }

    fn forwarding(&mut self, path: &str, options: &Options, to: Destination) -> LogSpec {
        let cache = Keep { size: 20 << 20, files: 5 };
        let kept = self.files(path, options, ["cache-max-size", "cache-max-file"], cache, true);
        let disabled = options.get("cache-disabled").is_some_and(|text| text == "true");
        for name in ["labels-regex", "env-regex"].into_iter().filter(|name| options.contains_key(*name)) {
            self.not_yet(&format!("{path}.options.{name}"), "name the labels and variables one by one");
        }
        let tag = options.get("tag").cloned().unwrap_or_else(|| "{{.ID}}".to_owned());
        if let Err(unknown) = crate::spec::logging::expand_tag(&tag, &|_| Some(String::new())) {
            self.invalid(&format!("{path}.options.tag"), format!("`{unknown}` is not known in a tag"));
        }
        let names = |key: &str| {
            let text = options.get(key).map(String::as_str).unwrap_or_default();
            text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
        };
        let forward = Forward { to, tag, labels: names("labels"), env: names("env") };
        LogSpec { hidden: disabled, forward: Some(forward), ..kept }
    }

    fn syslog(&mut self, path: &str, options: &Options) -> Destination {
        for name in OF_SYSLOG_TLS.into_iter().filter(|name| options.contains_key(*name)) {
            self.not_yet(&format!("{path}.options.{name}"), "lines are not encrypted; use a local relay");
        }
        let at = |name: &str| format!("{path}.options.{name}");
        let address = options.get("syslog-address").map_or(SyslogAddress::Local, |text| {
            let remote = |address: &str| {
                if address.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
                    address.to_owned()
                } else {
                    format!("{address}:514")
                }
            };
            match text.split_once("://") {
                Some(("unix", path)) if path.starts_with('/') => SyslogAddress::Unix(path.into()),
                Some(("unixgram", path)) if path.starts_with('/') => SyslogAddress::Unixgram(path.into()),
                Some(("udp", address)) if !address.is_empty() => SyslogAddress::Udp(remote(address)),
                Some(("tcp", address)) if !address.is_empty() => SyslogAddress::Tcp(remote(address)),
                Some(("tcp+tls", _)) => {
                    self.not_yet(&at("syslog-address"), "lines are not encrypted; use a local relay");
                    SyslogAddress::Local
                }
                _ => {
                    let message =
                        format!("`{text}` is not an address such as `udp://host:514` or `unixgram:///dev/log`");
                    self.invalid(&at("syslog-address"), message);
                    SyslogAddress::Local
                }
            }
        });
        let facility = options.get("syslog-facility").map_or(3, |text| {
            let number = FACILITIES.iter().position(|name| name == text && !name.is_empty());
            let number = number.or_else(|| text.parse().ok()).filter(|number| *number < FACILITIES.len());
            number.and_then(|number| u8::try_from(number).ok()).unwrap_or_else(|| {
                self.invalid(&at("syslog-facility"), format!("`{text}` is not a syslog facility such as `daemon`"));
                3
            })
        });
        let format = match options.get("syslog-format").map(String::as_str) {
            None | Some("") => SyslogFormat::Plain,
            Some("rfc3164") => SyslogFormat::Rfc3164,
            Some("rfc5424") => SyslogFormat::Rfc5424,
            Some("rfc5424micro") => SyslogFormat::Rfc5424Micro,
            Some(other) => {
                let message = format!("`{other}` is not `rfc3164`, `rfc5424` or `rfc5424micro`");
                self.invalid(&at("syslog-format"), message);
                SyslogFormat::Plain
            }
        };
        Destination::Syslog { address, facility, format }
    }

    /// Files take everything in time, so both modes are the same here.
    fn mode(&mut self, path: &str, options: &Options) {
        if let Some(mode) = options.get("mode").filter(|mode| !matches!(mode.as_str(), "blocking" | "non-blocking")) {
            self.invalid(&format!("{path}.options.mode"), format!("`{mode}` is neither `blocking` nor `non-blocking`"));
        }
        let size = options.get("max-buffer-size");
        if let Some(size) = size.filter(|size| parse_bytes(size).is_none()) {
            self.invalid(&format!("{path}.options.max-buffer-size"), format!("`{size}` is not a size"));
        }
    }
}
