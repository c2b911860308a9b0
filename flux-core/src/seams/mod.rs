//! The four seams where a backend plugs in: a [queue](OrderQueue), a
//! [lock manager](LockManager), an [inventory store](InventoryStore) and an
//! [outcome bus](OutcomeBus). A store that keeps one also gives out a
//! [change feed](ChangeFeed), and one that lets items go tells [how](Removals).
//!
//! The lock makes it fast; the store makes it right. A lock manager may grant
//! everybody everything, a bus may lose every message and a queue may deliver
//! twice and out of order: only the store's promises carry the guarantees.
//!
//! Every trait is object-safe and batch-first, and its futures are `Send`.
//! Unless a method says otherwise its future may be dropped at any point: the
//! call then either took effect or did not, as after [`SeamError::Unknown`].
//!
//! The page of a method is an implementor's promise; the `conformance` suite (a
//! feature of this crate) checks it.
//!
//! The structs that seams exchange may get more fields: make them by their
//! constructors and builders, read their fields.

mod bus;
mod changes;
mod commit_max;
mod error;
mod lock;
mod partition;
mod queue;
mod removals;
mod store;
mod time;

pub use bus::{
    Availability, OutcomeBus, OutcomeReceiver, OutcomeSender, Outcomes, outcome_channel,
};
pub use changes::{CONSUMERS_MAX, Change, ChangeFeed, ChangePage, Changed, Consumer};
pub use commit_max::{CommitMax, CommitMaxBuilder, Weight};
pub use error::{SeamError, Source};
pub use lock::{Lease, LockManager, Member, WantedReceiver};
pub(crate) use partition::hash;
pub use partition::{partition_of, partition_of_lines};
pub use queue::{
    DeadLetter, Delivery, OrderQueue, QueueDepth, QueueDepthBuilder, Recalled, Receipt,
};
pub use removals::{
    ArchiveId, Deletion, Digest, Leaving, RemovalRefused, Removals, Removed, Sealing, Tombstone,
};
pub use store::{
    Begun, ConfirmOutcome, Cursor, DueHolds, Durable, InventoryStore, OrderFilter,
    OrderFilterBuilder, OrderPage, Owed, Payment, PutOutcome, RefundOutcome, Repayment, Sight,
};
pub use time::{KeptClock, ServiceTime};
