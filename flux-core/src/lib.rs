#![doc = include_str!("../README.md")]

pub mod backends;
pub mod backoff;
pub mod clock;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod engine;
pub mod layers;
pub mod protocol;
mod random;
pub mod seams;

pub use backends::Backend;
pub use engine::{
    Audit, AuditFault, Error, Flux, FluxBuilder, OrderRequest, OrderRequestBuilder, Role, Seat,
    SeatState, Settings, SettingsBuilder, Subscription,
};
pub use protocol::{
    Ask, BuyerCap, BuyerId, Capacity, Hall, Hold, HoldTime, InvalidInput, Item, ItemId, ItemKind,
    ItemSpec, ItemState, LINES_MAX, Line, Lines, Order, OrderId, OrderState, OrderStatus,
    PaymentRef, PutItemError, Quantity, Reason, SEATS_PER_HALL_MAX, SEATS_PER_LINE_MAX, SeatId,
    Timestamp,
};
pub use seams::{
    Availability, Cursor, DeadLetter, OrderFilter, OrderPage, OutcomeReceiver, Outcomes,
    PutOutcome, QueueDepth, SeamError,
};
