//! Bridges, address pools, sandboxes (network namespaces), nftables, DNS, hosts files, the port proxy.
