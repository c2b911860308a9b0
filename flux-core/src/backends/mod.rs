//! Where queue, locks, inventory and outcomes live.
