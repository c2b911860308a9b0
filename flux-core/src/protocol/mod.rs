//! The protocol, pure: values in, values out. Nothing here does I/O, reads a
//! clock, draws a random number or awaits; the model, the property tests and
//! the simulation all run this very code.
//!
//! | rule | where |
//! |---|---|
//! | what a name, a quantity, a capacity may be | `ids`, `limits` |
//! | what is on sale and how it may change | `item` |
//! | where each unit is | `stock` |
//! | what an order is and which states it goes through | `order` |
//! | who gets what, and what a late payment gets | `decide` |
//! | what one atomic write holds and when it is refused | `commit` |

mod commit;
mod decide;
mod ids;
mod item;
mod limits;
mod message;
mod order;
mod payment;
mod rfc3339;
mod stock;

pub use commit::{Commit, CommitOutcome, Effect, Expect, FencingToken, OrderWrite, OverCap};
pub use decide::{Claim, Verdict, View};
pub use ids::{BuyerId, ItemId, OrderId, PaymentRef, SeatId};
pub use item::{Hall, Item, ItemKind, ItemSpec, ItemState, PutItemError};
pub use limits::{
    BuyerCap, Capacity, HoldTime, InvalidInput, LINES_MAX, Quantity, SEATS_PER_HALL_MAX,
    SEATS_PER_LINE_MAX, Timestamp,
};
pub use message::Message;
pub use order::{Ask, Hold, Line, Lines, Order, OrderState, OrderStatus, Reason};
pub use payment::{ConfirmRuling, confirm};
pub use stock::{SeatMap, Stock, revise};
