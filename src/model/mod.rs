//! The resolved Compose project as plain values. No I/O, no YAML.
