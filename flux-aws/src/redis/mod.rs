//! Leases and outcomes over Redis.
