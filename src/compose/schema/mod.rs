//! The Compose file format as data: what each attribute may hold, what it becomes, and how files merge there.
//!
//! One table feeds casting, merging, validation, printing order and suggestions. Attributes stand in the order
//! in which `config` prints them.

mod build;
mod deploy;
mod descriptions;
mod json;
mod resources;
mod service;

pub(super) use json::document;
pub(super) use resources::PROJECT;
pub(super) use service::SERVICE;

/// What YAML kinds a value may be, and the type it ends as.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) null: bool,
    pub(super) boolean: bool,
    pub(super) number: Number,
    pub(super) text: Text,
    pub(super) list: Option<Items>,
    pub(super) map: Members,
    pub(super) cast: Cast,
}

#[derive(Clone, Copy)]
pub(super) enum Number {
    No,
    Integer,
    /// Integers of a closed range.
    Between(i64, i64),
    Any,
}

#[derive(Clone, Copy)]
pub(super) enum Text {
    No,
    Any,
    OneOf(&'static [&'static str]),
    /// A pattern in words, and the test of it.
    Like(&'static str, fn(&str) -> bool),
}

#[derive(Clone, Copy)]
pub(super) struct Items {
    pub(super) shape: &'static Shape,
    /// Equal items are an error.
    pub(super) unique: bool,
}

#[derive(Clone, Copy)]
pub(super) enum Members {
    No,
    Struct(&'static Struct),
    Named {
        keys: Keys,
        value: &'static Shape,
        /// Keys that do not fit may be there; their values are not checked.
        others: bool,
    },
}

#[derive(Clone, Copy)]
pub(super) enum Keys {
    /// Any text but none.
    Any,
    /// `[a-zA-Z0-9._-]+`
    Resource,
    /// `[a-z]+`
    Lowercase,
}

impl Keys {
    pub(super) fn fits(self, key: &str) -> bool {
        match self {
            Self::Any => !key.is_empty(),
            Self::Resource => {
                !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
            }
            Self::Lowercase => !key.is_empty() && key.bytes().all(|b| b.is_ascii_lowercase()),
        }
    }
}

/// A mapping with known keys.
pub(super) struct Struct {
    pub(super) attributes: &'static [Attribute],
    pub(super) required: &'static [&'static str],
    /// `x-*` keys may be there.
    pub(super) extensions: bool,
    /// `x-*` keys are accepted, and not kept.
    pub(super) forgetful: bool,
    /// Every key is always printed.
    pub(super) complete: bool,
    /// In JSON, keys have a capital letter: the reference forgot to name them.
    pub(super) capital: bool,
    /// Other keys are ignored, with a warning: the schema of the reference lets them through.
    pub(super) open: bool,
}

impl Struct {
    pub(super) fn attribute(&self, name: &str) -> Option<&'static Attribute> {
        self.position(name).and_then(|position| self.attributes.get(position))
    }

    /// Where the key stands in the order of the format.
    pub(super) fn position(&self, name: &str) -> Option<usize> {
        let first = name.bytes().next();
        let fits = |known: &str| known.len() == name.len() && known.bytes().next() == first && known == name;
        self.attributes.iter().position(|attribute| fits(attribute.name))
    }
}

/// One key of a mapping.
pub(super) struct Attribute {
    pub(super) name: &'static str,
    pub(super) shape: &'static Shape,
    pub(super) merge: Merge,
    pub(super) unique: Unique,
    pub(super) zero: Zero,
}

/// The type a value ends as. Text is turned into it right after interpolation where it is a boolean or a number.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Cast {
    Keep,
    Bool,
    Int,
    Float,
    Text,
    /// Text, but null stays.
    TextOrNull,
    /// Printed as quoted digits.
    Bytes,
    Duration,
    /// A whole number that is not negative.
    Unsigned,
    /// Octal text, printed with a leading zero.
    Mode,
    /// `all` or a number; -1 is all.
    Count,
}

/// How a value of a later file meets the one before.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Merge {
    /// Mappings by key, lists appended, scalars replaced.
    Deep,
    Replace,
    /// List or mapping of `KEY=VALUE`: by key.
    KeyValue,
    /// One text or a list of texts: appended.
    Append,
    Build,
    DependsOn,
    ExtraHosts,
    /// Short list or mapping by name.
    Names,
    Logging,
    Ulimits,
    IpamPools,
}

/// What makes two items of a list the same; the later one wins.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Unique {
    No,
    /// The text up to `=`.
    Key,
    EnvFile,
    Expose,
    Port,
    VolumeTarget,
    DeviceTarget,
    ConfigTarget,
    SecretTarget,
}

/// What is done with an empty value (null, false, 0, "", [], {}) when printing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Zero {
    Omit,
    /// Printed unless null.
    Keep,
    /// As `Keep`, and JSON has a null where there is nothing.
    JsonNull,
    /// Left out in YAML; JSON has `{}` where there is nothing.
    JsonObject,
    /// Printed in YAML, left out in JSON.
    Yaml,
    /// Accepted, and never printed.
    Never,
}

const fn at(name: &'static str, shape: &'static Shape) -> Attribute {
    Attribute { name, shape, merge: Merge::Deep, unique: Unique::No, zero: Zero::Omit }
}

impl Attribute {
    const fn merge(mut self, merge: Merge) -> Self {
        self.merge = merge;
        self
    }

    const fn unique(mut self, unique: Unique) -> Self {
        self.unique = unique;
        self
    }

    const fn zero(mut self, zero: Zero) -> Self {
        self.zero = zero;
        self
    }

    const fn keep(self) -> Self {
        self.zero(Zero::Keep)
    }
}

const fn structure(attributes: &'static [Attribute]) -> Struct {
    Struct {
        attributes,
        required: &[],
        extensions: true,
        forgetful: false,
        complete: false,
        capital: false,
        open: false,
    }
}

impl Struct {
    const fn required(mut self, required: &'static [&'static str]) -> Self {
        self.required = required;
        self
    }

    const fn forgetful(mut self) -> Self {
        self.forgetful = true;
        self
    }

    const fn complete(mut self) -> Self {
        self.complete = true;
        self
    }

    const fn capital(mut self) -> Self {
        self.capital = true;
        self
    }

    const fn open(mut self) -> Self {
        self.open = true;
        self.forgetful = true;
        self
    }

    const fn closed(mut self) -> Self {
        self.extensions = false;
        self
    }
}

const NOTHING: Shape = Shape {
    null: false,
    boolean: false,
    number: Number::No,
    text: Text::No,
    list: None,
    map: Members::No,
    cast: Cast::Keep,
};

impl Shape {
    const fn or_null(mut self) -> Self {
        self.null = true;
        self
    }

    const fn or_boolean(mut self) -> Self {
        self.boolean = true;
        self
    }

    const fn or_number(mut self, number: Number) -> Self {
        self.number = number;
        self
    }

    const fn or_text(mut self, text: Text) -> Self {
        self.text = text;
        self
    }

    const fn or_list(mut self, shape: &'static Self, unique: bool) -> Self {
        self.list = Some(Items { shape, unique });
        self
    }

    const fn or_struct(mut self, members: &'static Struct) -> Self {
        self.map = Members::Struct(members);
        self
    }

    const fn or_named(mut self, keys: Keys, value: &'static Self) -> Self {
        self.map = Members::Named { keys, value, others: false };
        self
    }

    const fn or_named_and_others(mut self, keys: Keys, value: &'static Self) -> Self {
        self.map = Members::Named { keys, value, others: true };
        self
    }

    const fn cast(mut self, cast: Cast) -> Self {
        self.cast = cast;
        self
    }
}

/// Anything at all, such as below `x-*`.
pub(super) static ANY: Shape = NOTHING.or_null().or_boolean().or_number(Number::Any).or_text(Text::Any);
static STRING: Shape = NOTHING.or_text(Text::Any).cast(Cast::Text);
static BOOL: Shape = NOTHING.or_boolean().or_text(Text::Any).cast(Cast::Bool);
static STRICT_BOOL: Shape = NOTHING.or_boolean().cast(Cast::Bool);
static INT: Shape = NOTHING.or_number(Number::Integer).or_text(Text::Any).cast(Cast::Int);
static COUNTER: Shape = NOTHING.or_number(Number::Integer).or_text(Text::Any).cast(Cast::Unsigned);
static NUMBER_INT: Shape = NOTHING.or_number(Number::Any).or_text(Text::Any).cast(Cast::Int);
static FLOAT: Shape = NOTHING.or_number(Number::Any).or_text(Text::Any).cast(Cast::Float);
static BYTES: Shape = NOTHING.or_number(Number::Any).or_text(Text::Any).cast(Cast::Bytes);
static INT_BYTES: Shape = NOTHING.or_number(Number::Integer).or_text(Text::Any).cast(Cast::Bytes);
static TEXT_BYTES: Shape = NOTHING.or_text(Text::Any).cast(Cast::Bytes);
static DURATION: Shape = NOTHING.or_text(Text::Any).cast(Cast::Duration);
static MODE: Shape = NOTHING.or_number(Number::Any).or_text(Text::Any).cast(Cast::Mode);
static STRINGS: Shape = NOTHING.or_list(&STRING, false);
static UNIQUE_STRINGS: Shape = NOTHING.or_list(&STRING, true);
static STRING_OR_STRINGS: Shape = NOTHING.or_text(Text::Any).or_list(&STRING, true).cast(Cast::Text);
static STRING_OR_NUMBER: Shape = NOTHING.or_text(Text::Any).or_number(Number::Any).cast(Cast::Text);
static STRINGS_OR_NUMBERS: Shape = NOTHING.or_list(&STRING_OR_NUMBER, true);
static COMMAND: Shape = NOTHING.or_null().or_text(Text::Any).or_list(&STRING, false);
static SCALAR: Shape = NOTHING.or_null().or_boolean().or_number(Number::Any).or_text(Text::Any).cast(Cast::Text);
static SCALAR_OR_NULL: Shape =
    NOTHING.or_null().or_boolean().or_number(Number::Any).or_text(Text::Any).cast(Cast::TextOrNull);
/// `KEY=VALUE` list or mapping whose values are text.
static PAIRS: Shape = NOTHING.or_named(Keys::Any, &SCALAR).or_list(&STRING, true);
/// The same whose values may be missing, to be looked up elsewhere.
static VARIABLES: Shape = NOTHING.or_named(Keys::Any, &SCALAR_OR_NULL).or_list(&STRING, true);
static DRIVER_OPTIONS: Shape = NOTHING.or_named_and_others(Keys::Any, &STRING_OR_NUMBER);
static HOST_ADDRESSES: Shape = NOTHING.or_text(Text::Any).or_list(&STRING, false);
static EXTRA_HOSTS: Shape = NOTHING.or_named(Keys::Any, &HOST_ADDRESSES).or_list(&STRING, true);

static ULIMIT: Shape = NOTHING.or_number(Number::Integer).or_text(Text::Any).or_struct(&ULIMIT_PAIR).cast(Cast::Int);
static ULIMIT_PAIR: Struct = structure(&[at("soft", &INT).zero(Zero::Yaml), at("hard", &INT).zero(Zero::Yaml)])
    .required(&["soft", "hard"])
    .forgetful();
static ULIMITS: Shape = NOTHING.or_named_and_others(Keys::Lowercase, &ULIMIT);

static FILE_REFERENCE: Shape = NOTHING.or_text(Text::Any).or_struct(&FILE_REFERENCE_FIELDS);
static FILE_REFERENCE_FIELDS: Struct = structure(&[
    at("source", &STRING),
    at("target", &STRING),
    at("uid", &STRING),
    at("gid", &STRING),
    at("mode", &MODE).keep(),
]);
static FILE_REFERENCES: Shape = NOTHING.or_list(&FILE_REFERENCE, false);

static HOOK: Shape = NOTHING.or_struct(&HOOK_FIELDS);
static HOOK_FIELDS: Struct = structure(&[
    at("command", &COMMAND).zero(Zero::JsonNull),
    at("user", &STRING),
    at("privileged", &BOOL),
    at("working_dir", &STRING),
    at("environment", &VARIABLES),
])
.required(&["command"]);
