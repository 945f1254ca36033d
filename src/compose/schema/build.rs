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
    at("additional_contexts", &CONTEXTS).merge(Merge::KeyValue),
    at("pull", &BOOL),
    at("extra_hosts", &EXTRA_HOSTS).merge(Merge::ExtraHosts),
    at("isolation", &STRING),
    at("network", &STRING),
    at("target", &STRING),
    at("secrets", &FILE_REFERENCES),
    at("shm_size", &INT_BYTES),
    at("tags", &STRINGS).unique(Unique::Key),
    at("ulimits", &BUILD_ULIMITS).merge(Merge::Ulimits),
    at("platforms", &STRINGS),
    at("privileged", &BOOL),
]);

/// As those of a service, but numbers may not be written as text.
static BUILD_ULIMITS: Shape = NOTHING.or_named_and_others(Keys::Lowercase, &BUILD_ULIMIT);
static BUILD_ULIMIT: Shape = NOTHING.or_number(Number::Integer).or_struct(&BUILD_ULIMIT_PAIR).cast(Cast::Int);
static BUILD_ULIMIT_PAIR: Struct =
    structure(&[at("soft", &WHOLE).zero(Zero::Yaml), at("hard", &WHOLE).zero(Zero::Yaml)])
        .required(&["soft", "hard"])
        .forgetful();
static WHOLE: Shape = NOTHING.or_number(Number::Integer).cast(Cast::Int);

static CONTEXTS: Shape = NOTHING.or_named(Keys::Any, &STRING).or_list(&STRING, true);
static BOOL_OR_TEXT: Shape = NOTHING.or_boolean().or_text(Text::Any).cast(Cast::Text);
static SSH: Shape = NOTHING.or_named(Keys::Any, &SCALAR).or_list(&STRING, true);
