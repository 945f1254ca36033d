//! `services.*.build`.

use super::*;

pub(super) static BUILD: Shape = NOTHING.or_text(Text::Any).or_struct(&FIELDS);

static FIELDS: Struct = structure(&[
    at("context", &STRING),
    at("dockerfile", &STRING),
    at("dockerfile_inline", &STRING),
    at("entitlements", &STRINGS),
    at("args", &VARIABLES).merge(Merge::KeyValue).unique(Unique::Key),
    at("provenance", &BOOL_OR_TEXT),
    at("sbom", &BOOL_OR_TEXT),
    at("ssh", &SSH),
    at("labels", &PAIRS).merge(Merge::KeyValue).unique(Unique::Key),
    at("cache_from", &STRINGS),
    at("cache_to", &STRINGS),
    at("no_cache", &BOOL),
    at("no_cache_filter", &STRING_OR_STRINGS),
    at("additional_contexts", &PAIRS).merge(Merge::KeyValue),
    at("pull", &BOOL),
    at("extra_hosts", &EXTRA_HOSTS).merge(Merge::ExtraHosts),
    at("isolation", &STRING),
    at("network", &STRING),
    at("target", &STRING),
    at("secrets", &FILE_REFERENCES),
    at("shm_size", &INT_BYTES),
    at("tags", &STRINGS).unique(Unique::Key),
    at("ulimits", &ULIMITS).merge(Merge::Ulimits),
    at("platforms", &STRINGS).unique(Unique::Key),
    at("privileged", &BOOL),
]);

static BOOL_OR_TEXT: Shape = NOTHING.or_boolean().or_text(Text::Any).cast(Cast::Text);
static SSH: Shape = NOTHING.or_named(Keys::Any, &SCALAR).or_list(&STRING, true);
