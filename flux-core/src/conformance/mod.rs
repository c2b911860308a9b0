//! The suite that every backend must pass, and the checker of whole histories.
//!
//! For each seam there is a function that runs every check, each on a fresh
//! and empty backend, and reports which failed. A backend passes as a type of
//! its own and as `Arc<dyn …>`, bare and under any wrapper that hides faults.
//!
//! ```
//! use std::sync::Arc;
//!
//! use flux_core::conformance;
//! use flux_core::seams::InventoryStore;
//!
//! async fn my_store_keeps_every_promise(fresh: impl Fn() -> Arc<dyn InventoryStore>) {
//!     let report = conformance::store(|| async { fresh() }).await;
//!     print!("{report}");
//!     report.assert_clean();
//! }
//! ```
//!
//! `examples/custom_backend.rs` is a store of some 250 lines that passes. To
//! print as you go, or to run a few checks alone, take the list:
//! `for check in conformance::store_checks() { … check.run(fresh).await … }`.
//!
//! Call it from a tokio runtime with time enabled; several threads find more.
//! Whatever may lag (the numbers of an item, listings, a queue's depth) is asked
//! for again for up to five seconds. A check that takes ten minutes has failed.
//! Under `tokio::time::pause` nothing is waited for, but then the backend must
//! keep time by tokio's clock and wait for nothing outside the process.
//!
//! A test that runs an engine, or kills one, is judged by a [`history`].
//!
//! # Each rule was broken once to see its check fail
//!
//! In the store of the example, one at a time; the checks named are those that
//! failed, or some of them. `crowd` is `a_crowd_of_workers_leaves_no_fault`.
//!
//! | broken rule | caught by |
//! |---|---|
//! | no fencing check | `an_old_token_is_fenced_and_writes_nothing` and 8 more |
//! | tokens larger than the newest pass | `only_a_token_that_was_given_counts` |
//! | only the first claim of a commit is checked | `one_fenced_item_fences_the_commit` |
//! | a claim gives the last token again | `of_many_claims_at_once_one_can_write` and 6 more |
//! | tokens start over with `put_item` | `a_new_definition_fences` |
//! | `put_item` does not fence | `a_new_definition_fences` |
//! | a claim shows an old stock | `a_claim_shows_the_moment_it_was_made` and 5 more |
//! | stock moved without a claim | `only_a_token_that_was_given_counts`, `an_order_takes_all_its_items_or_none` |
//! | no duplicate check | `an_id_is_decided_once`, `an_id_is_decided_once_over_different_items` and 2 more |
//! | expected status ignored | `an_order_must_be_what_is_expected`, `stock_comes_back_once` and 1 more |
//! | a missing order taken for the expected one | `an_order_must_be_what_is_expected` |
//! | a refused commit writes its good orders | `a_partly_refused_commit_writes_nothing` and 7 more |
//! | a fenced commit writes its orders | `an_old_token_is_fenced_and_writes_nothing` and 13 more |
//! | only the first moved order is told | `a_partly_refused_commit_writes_nothing` |
//! | commits of one call stand or fall together | `commits_of_one_call_stand_alone` |
//! | commit judges, then writes | `no_more_is_taken_by_writers_at_once`, `a_payment_and_the_end_of_its_hold_race` and 2 more |
//! | a pool's stock is not checked | `no_more_is_taken_than_is_there` and 4 more |
//! | a seat's owner is not checked | `a_seat_has_one_owner`, `no_more_is_taken_by_writers_at_once` |
//! | only the first line on an item is taken | `no_more_is_taken_than_is_there`, `crowd` |
//! | a late payment takes no stock | `numbers_add_up_through_every_state`, `crowd` and 2 more |
//! | stock given back twice | `stock_comes_back_once`, `crowd` and 6 more |
//! | stock not given back, or not on expiry | `stock_comes_back_once`, `crowd` and 10 more |
//! | `put_item` refills the stock | `what_is_taken_stays_taken_when_the_item_changes` and 1 more |
//! | `put_item` changes what it refuses | `what_is_taken_stays_taken_when_the_item_changes` |
//! | expired orders counted as held | `numbers_add_up_through_every_state` and 8 more |
//! | cap not checked | `a_cap_holds_over_commits`, `crowd` and 5 more |
//! | cap checked before the commit | `a_cap_holds_over_commits_at_once` |
//! | cap checked order by order | `a_cap_holds_over_the_sum_of_a_commit` and 4 more |
//! | cap does not count paid orders | `a_cap_holds_over_commits` and 3 more |
//! | cap counts what was given back | `what_comes_back_gives_the_buyer_room` and 1 more |
//! | cap counts all buyers | `a_cap_holds_over_commits` and 3 more |
//! | cap stops a buyer above it from giving back | `a_cap_that_comes_later_counts_earlier_orders` |
//! | cap ignores what the same commit gives back | `what_comes_back_gives_the_buyer_room` |
//! | a late payment may pass the cap | `what_comes_back_gives_the_buyer_room` |
//! | a later cap does not count earlier orders | `a_cap_that_comes_later_counts_earlier_orders`, `a_cap_that_comes_with_another_capacity_counts_earlier_orders` |
//! | whether anybody is to be counted is judged by the capacity that comes with the cap | `a_cap_that_comes_with_another_capacity_counts_earlier_orders` |
//! | a cap that is gone leaves its count to the next one | `a_cap_that_comes_later_counts_earlier_orders` |
//! | `OverCap` tells the wrong count | `a_cap_holds_over_commits` and 4 more |
//! | `due_holds` lists paid or ended orders, is unsorted, ignores the limit or the moment itself | `due_holds_are_listed_earliest_first` |
//! | confirm ignores the end of the hold | `a_payment_is_ruled_on_by_the_orders_state` |
//! | confirm ignores the state, or pays expired orders | `a_payment_is_ruled_on_by_the_orders_state`, `a_payment_and_the_end_of_its_hold_race` |
//! | confirm takes any repeat | `of_two_payments_at_once_one_is_taken` and 1 more |
//! | confirm reads, then writes | `of_two_payments_at_once_one_is_taken` |
//! | confirm is not written | `payments_of_one_call_are_answered_in_order` and 13 more |
//! | confirm fences the item | `a_payment_needs_no_claim_and_fences_nobody` and 6 more |
//! | `put_item` keeps the old definition, or never tells `Unchanged` | `a_definition_reads_as_it_was_put` |
//! | a listing skips or repeats orders, takes a foreign cursor | `a_listing_survives_writes_between_its_pages` |
//! | a listing follows the orders' last changes, and so repeats what changed | `an_order_that_changes_between_two_pages_is_listed_once` |
//! | a listing ignores its limit or filter | `orders_are_listed_by_buyer_item_and_status` |
//! | items listed from the cursor on | `items_are_listed_by_id`, `crowd` |
//!
//! In the plain queue, locks and bus of `tests/conformance_seams.rs`:
//!
//! | broken rule | caught by |
//! |---|---|
//! | nothing comes again, or attempts are not counted | `a_delivery_left_alone_comes_again` |
//! | deliveries come again too early, or extend does nothing | `an_extended_delivery_stays_away` |
//! | a message in 50 is lost, or `max` is ignored | `everything_sent_is_delivered` |
//! | ack does nothing | `what_is_settled_stays_settled` and 5 more |
//! | an old receipt stays good | `a_stale_receipt_settles_nothing` |
//! | retry ignores its delay, or waits for the time-out | `a_delivery_handed_back_comes_again_in_time` |
//! | receive waits on though messages came | `a_waiting_receiver_is_woken` and 12 more |
//! | receive never answers empty | `an_empty_queue_answers_after_the_wait` and 5 more |
//! | bury loses the reason or keeps the message; redrive takes all or forgets; newest dead letter first | `what_is_buried_can_be_read_and_redriven` |
//! | find misses what is in flight, or finds another order | `a_waiting_order_is_found_or_never` |
//! | find names the later of two orders under one id | `of_two_orders_under_one_id_the_first_is_found` |
//! | depth counts what is in flight twice | `the_depth_tells_where_messages_are` |
//! | no bound, or one that forgets what is in flight | `a_full_queue_says_so` |
//! | every lease is granted, or there is one owner for all | `a_key_has_one_holder` |
//! | what is free is leased together with what is not, or under the other's owner | `what_is_free_or_none` |
//! | only the first key counts, or a refusal keeps some keys; keys unsorted | `all_keys_or_none` |
//! | the wait is ignored, or has no end | `a_wait_is_bounded` |
//! | leases never end | `a_lease_ends` |
//! | renew does nothing | `a_renewed_lease_lasts` |
//! | renew is always true, or takes over | `a_lost_lease_is_reported` |
//! | release frees what is others', or nothing | `only_what_is_ours_is_released` |
//! | members don't see each other, or stay when they left | `members_are_those_who_joined_and_did_not_leave` |
//! | a membership has no end, or is not renewed | `a_member_that_is_not_renewed_is_forgotten` |
//! | nothing is published, or without availability | `outcomes_arrive_as_they_were_sent` |
//! | publishing to nobody is an error | `publishing_to_nobody_is_no_error` |
//!
//! In the memory store, of what may be [forgotten](forgetting()):
//!
//! | broken rule | caught by |
//! |---|---|
//! | nothing is forgotten, or the order and not its row | `a_forgotten_id_is_a_new_orders` |
//! | orders are forgotten after half their time | `a_rejected_order_is_remembered_for_its_time` |
//! | any order is forgotten, whatever became of it | `what_was_ever_held_is_remembered_for_good` |
//! | an id is forgotten once more, when it is another order's | `a_forgotten_id_is_a_new_orders` |
//!
//! In the memory store with [`BUYER_RULES`]:
//!
//! | broken rule | caught by |
//! |---|---|
//! | a hold that ends makes no room, or one that is paid for makes none in its commit | `no_buyer_has_more_holds_than_the_rule` and 3 more |
//! | the holds of one commit are not summed | `no_buyer_has_more_holds_than_the_rule` |
//! | a late payment counts as a hold | `no_buyer_has_more_holds_than_the_rule` |
//! | a pause is not kept, or kept for another item | `nobody_holds_again_within_the_pause`, `a_pause_holds_for_writers_at_once` |
//! | a release, or an expiry, pauses nothing | `nobody_holds_again_within_the_pause` |
//! | a pause lasts a moment too long | `nobody_holds_again_within_the_pause`, `a_pause_holds_for_writers_at_once` |
//! | an end in the commit pauses nothing behind it | `nobody_holds_again_within_the_pause` |
//!
//! And every kind of [`history::Fault`] was left out once: the unit test of a
//! hand-made history with that fault failed.

mod bus;
mod changes;
mod check;
pub mod history;
mod locks;
mod queue;
mod removals;
mod store;

use std::sync::Arc;
use std::time::Duration;

pub use check::{Check, CheckResult, Failure, Report};
pub use queue::{Counts, QueueTerms};

use crate::protocol::BuyerRules;
use crate::seams::{InventoryStore, LockManager, OrderQueue, OutcomeBus};

/// Runs every check of an inventory store, each on an empty store from `fresh`.
pub async fn store<S, F, Fut>(fresh: F) -> Report
where
    S: InventoryStore + ?Sized,
    F: Fn() -> Fut,
    Fut: Future<Output = Arc<S>>,
{
    check::run_all(store_checks(), fresh).await
}

/// The checks of [`store`], for a runner of your own.
#[must_use]
pub fn store_checks<S>() -> Vec<Check<Arc<S>>>
where
    S: InventoryStore + ?Sized,
{
    store::all()
}

/// Runs every check of a store that forgets rejected orders, `keep` after they
/// were decided, each on an empty store from `fresh`. The time is what
/// [`due_holds`](InventoryStore::due_holds) is told: a store that goes by another
/// clock can't pass.
pub async fn forgetting<S, F, Fut>(keep: Duration, fresh: F) -> Report
where
    S: InventoryStore + ?Sized,
    F: Fn() -> Fut,
    Fut: Future<Output = Arc<S>>,
{
    check::run_all(forgetting_checks(), || async { (fresh().await, keep) }).await
}

/// The checks of [`forgetting`], for a runner of your own.
#[must_use]
pub fn forgetting_checks<S>() -> Vec<Check<(Arc<S>, Duration)>>
where
    S: InventoryStore + ?Sized,
{
    store::all_of_forgetting()
}

/// The [rules about buyers](BuyerRules) of the stores that
/// [`store_with_buyer_rules`] asks for.
pub const BUYER_RULES: BuyerRules = store::buyers::BUYER_RULES;

/// Runs the checks of a store that keeps to [`BUYER_RULES`], each on an empty
/// store from `fresh` that was given them. A store may do without such rules.
pub async fn store_with_buyer_rules<S, F, Fut>(fresh: F) -> Report
where
    S: InventoryStore + ?Sized,
    F: Fn() -> Fut,
    Fut: Future<Output = Arc<S>>,
{
    check::run_all(store::of_buyer_rules(), fresh).await
}

/// Runs every check of the [change feed](crate::seams::ChangeFeed) of a store, each on an
/// empty store from `fresh`. A store may do without one.
pub async fn feed<S, F, Fut>(fresh: F) -> Report
where
    S: InventoryStore + ?Sized,
    F: Fn() -> Fut,
    Fut: Future<Output = Arc<S>>,
{
    check::run_all(feed_checks(), fresh).await
}

/// The checks of [`feed`], for a runner of your own.
#[must_use]
pub fn feed_checks<S>() -> Vec<Check<Arc<S>>>
where
    S: InventoryStore + ?Sized,
{
    changes::all()
}

/// Runs every check of how items [leave](crate::seams::Removals) a store, each on an empty
/// store from `fresh`. A store may keep what it has.
pub async fn removals<S, F, Fut>(fresh: F) -> Report
where
    S: InventoryStore + ?Sized,
    F: Fn() -> Fut,
    Fut: Future<Output = Arc<S>>,
{
    check::run_all(removals_checks(), fresh).await
}

/// The checks of [`removals`](removals()), for a runner of your own.
#[must_use]
pub fn removals_checks<S>() -> Vec<Check<Arc<S>>>
where
    S: InventoryStore + ?Sized,
{
    removals::all()
}

/// Runs every check of an order queue, each on an empty queue from `fresh`.
pub async fn queue<Q, F, Fut>(terms: QueueTerms, fresh: F) -> Report
where
    Q: OrderQueue + ?Sized,
    F: Fn() -> Fut,
    Fut: Future<Output = Arc<Q>>,
{
    check::run_all(queue_checks(), || async { (fresh().await, terms) }).await
}

/// The checks of [`queue()`], for a runner of your own.
#[must_use]
pub fn queue_checks<Q>() -> Vec<Check<(Arc<Q>, QueueTerms)>>
where
    Q: OrderQueue + ?Sized,
{
    queue::all()
}

/// Runs every check of a lock manager, each on one from `fresh` that holds no
/// lease. `ttl` is the time of a lease whose end a check waits for; the checks
/// wait for some ten of them.
///
/// A manager that grants everything would fail, and is allowed all the same:
/// no guarantee rests on locks.
pub async fn locks<L, F, Fut>(ttl: Duration, fresh: F) -> Report
where
    L: LockManager + ?Sized,
    F: Fn() -> Fut,
    Fut: Future<Output = Arc<L>>,
{
    check::run_all(lock_checks(), || async { (fresh().await, ttl) }).await
}

/// The checks of [`locks()`], for a runner of your own.
#[must_use]
pub fn lock_checks<L>() -> Vec<Check<(Arc<L>, Duration)>>
where
    L: LockManager + ?Sized,
{
    locks::all()
}

/// Runs every check of an outcome bus.
pub async fn bus<B, F, Fut>(fresh: F) -> Report
where
    B: OutcomeBus + ?Sized,
    F: Fn() -> Fut,
    Fut: Future<Output = Arc<B>>,
{
    check::run_all(bus_checks(), fresh).await
}

/// The checks of [`bus()`], for a runner of your own.
#[must_use]
pub fn bus_checks<B>() -> Vec<Check<Arc<B>>>
where
    B: OutcomeBus + ?Sized,
{
    bus::all()
}
