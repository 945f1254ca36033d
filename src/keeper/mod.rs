//! The keeper: parent of the containers and holder of their file descriptors. Single-threaded, no async runtime, no YAML.
