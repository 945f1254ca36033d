//! Runs plans: holds dependents until their condition is met, restarts by policy, checks health. Knows no system call.
