//! `EXPOSE`.

/// `80`, `80/udp`, `80-82/tcp`, and what a published port looks like: its container's part counts.
pub(super) fn ports(text: &str) -> Result<Vec<String>, String> {
    let wrong = || format!("EXPOSE: `{text}` is not a port such as 80, 53/udp or 8000-8010");
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(wrong());
    }
    let range = range.rsplit(':').next().unwrap_or_default();
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    match (first.parse::<u16>(), last.parse::<u16>()) {
        (Ok(first), Ok(last)) if first <= last => Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect()),
        _ => Err(wrong()),
    }
}
