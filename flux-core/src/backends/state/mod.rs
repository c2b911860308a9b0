//! The state machines that the memory and the embedded backend share.

pub(super) mod ledger;
pub(super) mod queue;
pub(super) mod sharded;
