//! The promises of an inventory store: everything that G1 to G9 rest on.
//!
//! The trait does not say which rule is answered when a commit breaks several at
//! once, so each check breaks one, or asks only that nothing was written.

pub(super) mod buyers;
mod caps;
mod crowd;
mod decisions;
mod fencing;
mod forgetting;
mod notes;
mod payments;
mod reads;
mod refunds;
pub(super) mod shop;
mod units;

use std::sync::Arc;
use std::time::Duration;

use super::check::{Check, checks};
use crate::seams::InventoryStore;

pub(super) fn all<S>() -> Vec<Check<Arc<S>>>
where
    S: InventoryStore + ?Sized,
{
    checks! {
        "G1" {
            units::no_more_is_taken_than_is_there,
            units::no_more_is_taken_by_writers_at_once,
            units::a_seat_has_one_owner,
        }
        "G2" {
            units::numbers_add_up_through_every_state,
            units::what_is_taken_stays_taken_when_the_item_changes,
            units::a_definition_that_breaks_a_rule_is_refused,
        }
        "G3" {
            decisions::an_id_is_decided_once,
            decisions::an_id_is_decided_once_over_different_items,
            decisions::an_order_must_be_what_is_expected,
            notes::an_order_that_is_noted_is_decided_like_any_other,
        }
        "G4" { notes::a_reservation_keeps_nobody_from_deciding }
        "G5" {
            decisions::a_partly_refused_commit_writes_nothing,
            decisions::an_order_takes_all_its_items_or_none,
            decisions::commits_of_one_call_stand_alone,
        }
        "G6" {
            caps::a_cap_holds_over_commits,
            caps::a_cap_holds_over_the_sum_of_a_commit,
            caps::a_cap_holds_over_commits_at_once,
            caps::what_comes_back_gives_the_buyer_room,
            caps::a_cap_that_comes_later_counts_earlier_orders,
            caps::a_cap_that_comes_with_another_capacity_counts_earlier_orders,
        }
        "G7" {
            fencing::an_old_token_is_fenced_and_writes_nothing,
            fencing::every_change_of_stock_is_fenced,
            fencing::one_fenced_item_fences_the_commit,
            fencing::a_new_definition_fences,
            fencing::only_a_token_that_was_given_counts,
            fencing::a_claim_shows_the_moment_it_was_made,
            fencing::a_thawed_worker_changes_nothing,
            fencing::of_many_claims_at_once_one_can_write,
        }
        "G8" {
            units::stock_comes_back_once,
            units::units_pass_from_hand_to_hand_in_one_commit,
            units::due_holds_are_listed_earliest_first,
        }
        "G9" {
            payments::a_payment_is_ruled_on_by_the_orders_state,
            payments::payments_of_one_call_are_answered_in_order,
            payments::a_payment_needs_no_claim_and_fences_nobody,
            payments::a_payment_and_the_end_of_its_hold_race,
            payments::of_two_payments_at_once_one_is_taken,
            refunds::a_refund_is_ruled_on_by_the_orders_money,
            refunds::of_two_refunds_at_once_one_is_noted,
            refunds::money_is_written_only_where_it_stands_as_expected,
            refunds::what_is_owed_is_counted_and_listed_until_it_is_returned,
            refunds::a_refund_needs_no_claim_and_fences_nobody,
        }
        "reads" {
            reads::a_definition_reads_as_it_was_put,
            reads::what_is_not_there_is_none,
            reads::what_is_attached_to_an_order_stays_with_it,
            reads::orders_are_listed_by_buyer_item_and_status,
            reads::a_listing_survives_writes_between_its_pages,
            reads::an_order_that_changes_between_two_pages_is_listed_once,
            reads::items_are_listed_by_id,
        }
        "G1-G9" { crowd::a_crowd_of_workers_leaves_no_fault }
    }
}

pub(super) fn all_of_forgetting<S>() -> Vec<Check<(Arc<S>, Duration)>>
where
    S: InventoryStore + ?Sized,
{
    checks! {
        "G3" {
            forgetting::a_rejected_order_is_remembered_for_its_time,
            forgetting::a_forgotten_id_is_a_new_orders,
        }
        "G4" { forgetting::what_was_ever_held_is_remembered_for_good }
        "G9" { forgetting::a_debt_is_remembered_for_good }
    }
}

/// The checks of a store with [`BUYER_RULES`](buyers::BUYER_RULES).
pub(super) fn of_buyer_rules<S>() -> Vec<Check<Arc<S>>>
where
    S: InventoryStore + ?Sized,
{
    checks! {
        "G6" {
            buyers::no_buyer_has_more_holds_than_the_rule,
            buyers::no_buyer_has_more_holds_by_writers_at_once,
            buyers::nobody_holds_again_within_the_pause,
            buyers::a_pause_holds_for_writers_at_once,
        }
    }
}
