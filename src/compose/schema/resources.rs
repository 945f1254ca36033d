//! The top level of a file, and its resources other than services.

use super::service::SERVICE;
use super::*;

/// A whole file.
pub(in crate::compose) static PROJECT: Struct = structure(&[
    at("version", &STRING),
    at("name", &STRING),
    at("services", &SERVICES).keep(),
    at("networks", &NETWORKS),
    at("volumes", &VOLUMES),
    at("secrets", &SECRETS),
    at("configs", &CONFIGS),
    at("models", &MODELS),
    at("include", &INCLUDES),
]);

static SERVICES: Shape = NOTHING.or_named(Keys::Resource, &SERVICE_SHAPE);
static SERVICE_SHAPE: Shape = NOTHING.or_struct(&SERVICE);

static NETWORKS: Shape = NOTHING.or_named_and_others(Keys::Resource, &NETWORK);
static NETWORK: Shape = NOTHING.or_null().or_struct(&NETWORK_FIELDS);
static NETWORK_FIELDS: Struct = structure(&[
    at("name", &STRING),
    at("driver", &STRING),
    at("driver_opts", &DRIVER_OPTIONS),
    at("ipam", &IPAM).zero(Zero::JsonObject),
    at("external", &EXTERNAL),
    at("internal", &BOOL),
    at("attachable", &BOOL),
    at("labels", &PAIRS).merge(Merge::KeyValue).unique(Unique::Key),
    at("enable_ipv4", &BOOL).keep(),
    at("enable_ipv6", &BOOL).keep(),
]);
static IPAM: Shape = NOTHING.or_struct(&IPAM_FIELDS);
static IPAM_FIELDS: Struct = structure(&[
    at("driver", &STRING),
    at("config", &IPAM_POOLS).merge(Merge::IpamPools),
    at("options", &STRING_MAP).unique(Unique::Key).zero(Zero::Never),
]);
static IPAM_POOLS: Shape = NOTHING.or_list(&IPAM_POOL, false);
static IPAM_POOL: Shape = NOTHING.or_struct(&IPAM_POOL_FIELDS);
static IPAM_POOL_FIELDS: Struct = structure(&[
    at("subnet", &STRING),
    at("gateway", &STRING),
    at("ip_range", &STRING),
    at("aux_addresses", &STRING_MAP),
])
.forgetful();
static STRING_MAP: Shape = NOTHING.or_named(Keys::Any, &STRING);

/// `external: true`, or the old mapping with a name.
static EXTERNAL: Shape = NOTHING.or_boolean().or_text(Text::Any).or_struct(&EXTERNAL_FIELDS).cast(Cast::Bool);
static EXTERNAL_FIELDS: Struct = structure(&[at("name", &STRING)]);

static VOLUMES: Shape = NOTHING.or_named(Keys::Resource, &VOLUME);
static VOLUME: Shape = NOTHING.or_null().or_struct(&VOLUME_FIELDS);
static VOLUME_FIELDS: Struct = structure(&[
    at("name", &STRING),
    at("driver", &STRING),
    at("driver_opts", &DRIVER_OPTIONS),
    at("external", &EXTERNAL),
    at("labels", &PAIRS).merge(Merge::KeyValue),
]);

/// The same without limits: configs and secrets do not check it.
static LOOSE_EXTERNAL: Shape =
    NOTHING.or_boolean().or_text(Text::Any).or_struct(&LOOSE_EXTERNAL_FIELDS).cast(Cast::Bool);
static LOOSE_EXTERNAL_FIELDS: Struct = structure(&[at("name", &STRING)]).open();

static SECRETS: Shape = NOTHING.or_named(Keys::Resource, &SECRET);
static SECRET: Shape = NOTHING.or_struct(&SECRET_FIELDS);
/// Unlike those of networks and volumes, they are no numbers with a fraction.
static SECRET_OPTIONS: Shape = NOTHING.or_named_and_others(Keys::Any, &SECRET_OPTION);
static SECRET_OPTION: Shape = NOTHING.or_text(Text::Any).or_number(Number::Integer).cast(Cast::Text);
static SECRET_FIELDS: Struct = structure(&[
    at("name", &STRING),
    at("file", &STRING),
    at("environment", &STRING),
    at("external", &LOOSE_EXTERNAL),
    at("labels", &PAIRS),
    at("driver", &STRING),
    at("driver_opts", &SECRET_OPTIONS),
    at("template_driver", &STRING),
]);

static CONFIGS: Shape = NOTHING.or_named(Keys::Resource, &CONFIG);
static CONFIG: Shape = NOTHING.or_struct(&CONFIG_FIELDS);
static CONFIG_FIELDS: Struct = structure(&[
    at("name", &STRING),
    at("file", &STRING),
    at("environment", &STRING),
    at("content", &STRING),
    at("external", &LOOSE_EXTERNAL),
    at("labels", &PAIRS),
    at("template_driver", &STRING),
]);

static MODELS: Shape = NOTHING.or_named_and_others(Keys::Resource, &MODEL);
static MODEL: Shape = NOTHING.or_struct(&MODEL_FIELDS);
static MODEL_FIELDS: Struct = structure(&[
    at("name", &STRING),
    at("model", &STRING),
    at("context_size", &CONTEXT_SIZE),
    at("runtime_flags", &STRINGS),
])
.required(&["model"]);
static CONTEXT_SIZE: Shape = NOTHING.or_number(Number::Integer).cast(Cast::Int);

static INCLUDES: Shape = NOTHING.or_list(&INCLUDE, false);
static INCLUDE: Shape = NOTHING.or_text(Text::Any).or_struct(&INCLUDE_FIELDS);
static INCLUDE_FIELDS: Struct =
    structure(&[at("path", &STRING_OR_STRINGS), at("project_directory", &STRING), at("env_file", &STRING_OR_STRINGS)])
        .closed();
