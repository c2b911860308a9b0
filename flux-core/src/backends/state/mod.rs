//! The state machines that the memory and the embedded backend share.
//!
//! A thread that panics under a lock poisons it. This workspace has one rule for
//! that, here and everywhere:
//!
//! - **State whose parts must agree** (a ledger, a queue, a group on its way to the
//!   disk) is never used again: `lock().expect(…)`. Whoever comes later panics too,
//!   rather than sell by numbers that may be wrong. Only opening the store anew helps,
//!   which derives them again.
//! - **State that is whole after each statement**, or that only makes things faster
//!   (caches, counts, who waits, leases), goes on:
//!   `lock().unwrap_or_else(PoisonError::into_inner)`. A panic concerns its own caller.

pub(super) mod buyer_book;
pub(super) mod debts;
pub(super) mod ledger;
pub(super) mod queue;
pub(super) mod rejected;
pub(super) mod removals;
pub(super) mod sharded;
