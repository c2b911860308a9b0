//! The protocol, pure: values in, values out. No rule does I/O, reads a clock,
//! draws a random number or awaits; the model, the property tests and the
//! simulation all run this very code. (`Timestamp::now` and `OrderId::new` are
//! for callers; no rule calls them.)
//!
//! | rule | where |
//! |---|---|
//! | the ranges of names, quantities and capacities | `ids`, `limits` |
//! | the definition of an item, and its numbers | `item` |
//! | the units that are left, and how a definition may change | `stock` |
//! | an order and the states it goes through | `order` |
//! | the messages of the queue | `message` |
//! | who gets what | `decide` |
//! | the rulings on a payment, in time or late | `payment` |
//! | the holds of buyers who hoard | `buyer_rules` |
//! | the effects of one atomic write, or its refusal | `commit` |
//!
//! # The doors of G1 to G9
//!
//! For each guarantee the functions that enforce it, each tagged with it in the
//! code (`git grep 'G6:'` is a tour), and the checks of the conformance suite
//! that would catch its loss. How DynamoDB's conditions say the same is in the
//! design page of `flux-aws`.
//!
//! | guarantee | enforced by | caught by |
//! |---|---|---|
//! | G1 no oversell | `take` in `protocol/stock.rs`, `judge` in `protocol/commit.rs` | `no_more_is_taken_by_writers_at_once`, `a_seat_has_one_owner` |
//! | G2 conservation | `line` in `protocol/commit.rs` | `numbers_add_up_through_every_state` |
//! | G3 one decision | `is_met_by` in `protocol/commit.rs`, `judge` in `protocol/commit.rs`, `swap` in `backends/state/ledger.rs`, `same` in `engine/accept/repeats.rs`, `reserve` in `engine/accept/submit.rs`, `order_of_new_id` in `engine/core.rs` | `an_id_is_decided_once`, `an_order_that_is_noted_is_decided_like_any_other`, `a_forgotten_id_is_a_new_orders` |
//! | G4 nothing lost | `tell` in `engine/worker/completion.rs` | `a_delivery_left_alone_comes_again` |
//! | G5 all or nothing | `take` in `protocol/decide.rs`, `judge` in `protocol/commit.rs` | `an_order_takes_all_its_items_or_none`, `a_partly_refused_commit_writes_nothing` |
//! | G6 limits hold | `live_max` in `protocol/commit.rs`, `judge` in `protocol/commit.rs`, `live_max` in `protocol/buyer_rules.rs`, `begin` in `protocol/buyer_rules.rs`, `put_counting` in `backends/memory/store.rs`, `put_counting` in `backends/embedded/store.rs` | `a_cap_holds_over_commits_at_once`, `no_buyer_has_more_holds_by_writers_at_once`, `nobody_holds_again_within_the_pause`, `a_cap_that_comes_later_counts_earlier_orders`, `a_cap_that_comes_with_another_capacity_counts_earlier_orders` |
//! | G7 fencing | `of_claims` in `protocol/commit.rs`, `mint` in `backends/state/ledger.rs`, `put_numbers` in `backends/embedded/backup.rs`, `seal` in `backends/state/removals.rs` | `a_thawed_worker_changes_nothing` |
//! | G8 no undersell | `give_back` in `protocol/stock.rs`, `glance` in `engine/accept/gate.rs`, `refresh_shut` in `engine/accept/gate.rs`, `sweep` in `engine/worker/ended_holds.rs` | `stock_comes_back_once`, `due_holds_are_listed_earliest_first` |
//! | G9 late payment | `confirm` in `protocol/payment.rs`, `late` in `protocol/payment.rs`, `stray` in `protocol/payment.rs`, `refund` in `protocol/payment.rs`, `is_met_by` in `protocol/commit.rs`, `forget` in `backends/state/ledger.rs`, `confirm` in `engine/flux/follow_ups.rs`, `stays` in `engine/flux/archive.rs` | `a_payment_and_the_end_of_its_hold_race`, `of_two_refunds_at_once_one_is_noted`, `a_debt_is_remembered_for_good` |

mod buyer_rules;
mod commit;
mod debt;
mod decide;
mod ids;
mod item;
mod limits;
mod message;
mod metadata;
mod order;
mod payment;
mod rfc3339;
mod stock;
mod words;

pub use buyer_rules::{
    BuyerChanges, BuyerRules, BuyerRulesBuilder, BuyersNow, HoldGain, PauseChange,
};
pub use commit::{
    Changes, Commit, CommitOutcome, Effect, Expect, FencingToken, Gain, ItemNow, OrderWrite,
    OverCap, Refusal, judge,
};
pub use debt::{Debt, Money, Refund};
pub use decide::{Claim, Verdict, View};
pub use ids::{
    BuyerId, ConsumerName, IdempotencyKey, ItemId, OrderId, PaymentRef, RefundRef, SeatId,
};
pub use item::{
    Hall, Item, ItemBuilder, ItemKind, ItemSpec, ItemSpecBuilder, ItemState, PutItemError,
};
pub use limits::{
    BuyerCap, Capacity, HoldTime, InvalidInput, LINES_MAX, METADATA_BYTES_MAX,
    METADATA_NAME_BYTES_MAX, METADATA_PAIRS_MAX, Quantity, SEATS_PER_HALL_MAX, SEATS_PER_LINE_MAX,
    Timestamp,
};
pub use message::Message;
pub use metadata::Metadata;
pub use order::{Ask, Hold, Line, Lines, Order, OrderState, OrderStatus, Reason};
pub use payment::{ConfirmRuling, RefundRuling, confirm, refund};
pub use stock::{SeatMap, Stock, revise};
