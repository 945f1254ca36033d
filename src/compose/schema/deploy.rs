//! `services.*.deploy` and device requests.

use super::*;

pub(super) static DEPLOY: Shape = NOTHING.or_null().or_struct(&FIELDS);

static FIELDS: Struct = structure(&[
    at("mode", &STRING),
    at("replicas", &INT).keep(),
    at("labels", &PAIRS).merge(Merge::KeyValue).unique(Unique::Key),
    at("update_config", &UPDATE_CONFIG).keep(),
    at("rollback_config", &UPDATE_CONFIG).keep(),
    at("resources", &RESOURCES).zero(Zero::JsonObject),
    at("restart_policy", &RESTART_POLICY).keep(),
    at("placement", &PLACEMENT).zero(Zero::JsonObject),
    at("endpoint_mode", &STRING),
]);

static UPDATE_CONFIG: Shape = NOTHING.or_struct(&UPDATE_CONFIG_FIELDS);
static UPDATE_CONFIG_FIELDS: Struct = structure(&[
    at("parallelism", &COUNTER).keep(),
    at("delay", &DURATION),
    at("failure_action", &STRING),
    at("monitor", &DURATION),
    at("max_failure_ratio", &FLOAT),
    at("order", &UPDATE_ORDER),
]);
static UPDATE_ORDER: Shape = NOTHING.or_text(Text::OneOf(&["start-first", "stop-first"])).cast(Cast::Text);

static RESOURCES: Shape = NOTHING.or_struct(&RESOURCES_FIELDS);
static RESOURCES_FIELDS: Struct = structure(&[at("limits", &LIMITS).keep(), at("reservations", &RESERVATIONS).keep()]);
static LIMITS: Shape = NOTHING.or_struct(&LIMITS_FIELDS);
static LIMITS_FIELDS: Struct = structure(&[at("cpus", &FLOAT), at("memory", &TEXT_BYTES), at("pids", &INT)]);
static RESERVATIONS: Shape = NOTHING.or_struct(&RESERVATIONS_FIELDS);
static RESERVATIONS_FIELDS: Struct = structure(&[
    at("cpus", &FLOAT),
    at("memory", &TEXT_BYTES),
    at("devices", &DEVICE_REQUESTS),
    at("generic_resources", &GENERIC_RESOURCES),
]);

static GENERIC_RESOURCES: Shape = NOTHING.or_list(&GENERIC_RESOURCE, false);
static GENERIC_RESOURCE: Shape = NOTHING.or_struct(&GENERIC_RESOURCE_FIELDS);
static GENERIC_RESOURCE_FIELDS: Struct = structure(&[at("discrete_resource_spec", &DISCRETE).keep()]);
static DISCRETE: Shape = NOTHING.or_struct(&DISCRETE_FIELDS);
static DISCRETE_FIELDS: Struct = structure(&[at("kind", &STRING).keep(), at("value", &NUMBER_INT).keep()]).complete();

static DEVICE_REQUESTS: Shape = NOTHING.or_list(&DEVICE_REQUEST, false);
static DEVICE_REQUEST: Shape = NOTHING.or_struct(&DEVICE_REQUEST_FIELDS);
static DEVICE_REQUEST_FIELDS: Struct = structure(DEVICE_REQUEST_ATTRIBUTES).required(&["capabilities"]);
const DEVICE_REQUEST_ATTRIBUTES: &[Attribute] = &[
    at("capabilities", &UNIQUE_STRINGS),
    at("driver", &STRING),
    at("count", &COUNT),
    at("device_ids", &UNIQUE_STRINGS),
    at("options", &PAIRS),
];
static COUNT: Shape = NOTHING.or_number(Number::Integer).or_text(Text::Any).cast(Cast::Count);

pub(super) static GPUS: Shape = NOTHING.or_text(Text::OneOf(&["all"])).or_list(&GPU, false);
static GPU: Shape = NOTHING.or_struct(&GPU_FIELDS);
static GPU_FIELDS: Struct = structure(DEVICE_REQUEST_ATTRIBUTES).open();

static RESTART_POLICY: Shape = NOTHING.or_struct(&RESTART_POLICY_FIELDS);
static RESTART_POLICY_FIELDS: Struct = structure(&[
    at("condition", &STRING),
    at("delay", &DURATION).keep(),
    at("max_attempts", &COUNTER).keep(),
    at("window", &DURATION).keep(),
]);

static PLACEMENT: Shape = NOTHING.or_struct(&PLACEMENT_FIELDS);
static PLACEMENT_FIELDS: Struct =
    structure(&[at("constraints", &STRINGS), at("preferences", &PREFERENCES), at("max_replicas_per_node", &COUNTER)]);
static PREFERENCES: Shape = NOTHING.or_list(&PREFERENCE, false);
static PREFERENCE: Shape = NOTHING.or_struct(&PREFERENCE_FIELDS);
static PREFERENCE_FIELDS: Struct = structure(&[at("spread", &STRING)]);
