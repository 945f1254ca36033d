//! Decided values for the host (services, containers, networks, volumes) and the observed state. No Compose syntax left.
