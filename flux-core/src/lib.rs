#![doc = include_str!("../README.md")]

#[cfg(feature = "archive")]
pub mod archive;
pub mod backends;
pub mod backoff;
pub mod clock;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod engine;
pub mod layers;
#[doc = include_str!("promises.md")]
pub mod promises {}
pub mod protocol;
mod random;
#[doc = include_str!("recipes.md")]
pub mod recipes {}
pub mod seams;
mod sync;
pub mod views;

pub use backends::Backend;
pub use engine::{
    Audit, AuditFault, Error, Failure, Flux, FluxBuilder, Follower, OrderRequest,
    OrderRequestBuilder, Role, Seat, SeatState, Settings, SettingsBuilder, Subscription,
};
pub use protocol::{
    Ask, BuyerCap, BuyerId, BuyerRules, BuyerRulesBuilder, Capacity, ConsumerName, Debt, Hall,
    Hold, HoldTime, IdempotencyKey, InvalidInput, Item, ItemId, ItemKind, ItemSpec,
    ItemSpecBuilder, ItemState, LINES_MAX, Line, Lines, METADATA_BYTES_MAX,
    METADATA_NAME_BYTES_MAX, METADATA_PAIRS_MAX, Metadata, Money, Order, OrderId, OrderState,
    OrderStatus, PaymentRef, PutItemError, Quantity, Reason, Refund, RefundRef, SEATS_PER_HALL_MAX,
    SEATS_PER_LINE_MAX, SeatId, Timestamp,
};
pub use seams::{
    Availability, Change, ChangePage, Changed, Consumer, Cursor, DeadLetter, OrderFilter,
    OrderPage, OutcomeReceiver, Outcomes, Owed, PutOutcome, QueueDepth, RemovalRefused, SeamError,
    Tombstone,
};
