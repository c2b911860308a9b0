//! The store on DynamoDB, held to everything a store must do. It talks to an
//! emulator at `AWS_ENDPOINT_URL_DYNAMODB`, and by way of `FLUX_TEST_MICROBURST`
//! where that must fail; `tests/services` starts both.
//!
//! # Each rule was broken once to see its test fail
//!
//! One at a time; the tests named are those that failed, or some of them. Those
//! of `flux_core::conformance` fail within `conformance::one_row_for_each_item`.
//!
//! | broken rule | caught by |
//! |---|---|
//! | a stock row is written without a look at `epoch` | `a_commit_that_arrives_after_the_next_claim_writes_nothing`, `four_engines_sell_eight_stripes_to_the_last_unit`, `and_so_they_do_over_stripes` |
//! | without a look at `revision` | `a_commit_that_arrives_late_does_not_undo_a_later_one_of_its_claim`; conformance: `no_more_is_taken_by_writers_at_once`, `a_cap_holds_over_commits_at_once` |
//! | `epoch` is not looked at where no stock moves | `an_old_token_is_fenced_where_no_stock_moves` |
//! | a claim sets its token on the first stripe only | `a_claim_fences_every_stripe` |
//! | a claim sets its token over a later one | `a_claim_that_is_overtaken_halfway_begins_again` |
//! | a new order may be there already | `a_commit_that_arrives_late_and_first_is_found`, `orders_that_are_repeated` |
//! | the expected status is ignored | conformance: `an_order_must_be_what_is_expected`, `stock_comes_back_once` and 2 more |
//! | stock is not checked before it is written | conformance: `no_more_is_taken_than_is_there`, `a_seat_has_one_owner` and 3 more |
//! | a buyer's count has no condition | `a_cap_counts_what_was_sold_between_its_look_and_its_claim`, `orders_over_ten_capped_items`, `and_so_they_do_over_stripes` |
//! | who is above a cap can't give back | conformance: `a_cap_that_comes_later_counts_earlier_orders` |
//! | a late cap counts nobody | `a_cap_counts_what_was_sold_between_its_look_and_its_claim` and, in conformance, `a_cap_that_comes_later_counts_earlier_orders` |
//! | whether anybody is to be counted is judged by the capacity that comes with the cap | conformance: `a_cap_that_comes_with_another_capacity_counts_earlier_orders` |
//! | a late cap goes on with an older count | `a_cap_counts_what_was_sold_between_its_look_and_its_claim` |
//! | whether to count is settled before the claim | the same |
//! | a count that fails keeps the item shut | `a_count_that_fails_lets_others_claim_at_once` |
//! | the item is not shut while buyers are counted | nothing, as it should be: the count ends under its token, and begins again |
//! | `put_item` writes over what was sold meanwhile | `a_change_that_a_sale_overtakes_is_made_again` |
//! | unknown taken for applied, or for refused | `what_lasts_is_unavailable_…`, the three of `a_commit_that_arrives_…` |
//! | a refusal after a lost reply taken for the answer | `what_lasts_is_unavailable_…` |
//! | a conflict with another transaction taken for a failed condition | the same |
//! | each try has a request token of its own | `what_passes_is_tried_again`, `and_so_they_do_over_stripes` |
//! | payments refused although some of the call were taken | `payments_of_one_call_are_not_said_to_be_refused_when_some_were_taken` |
//! | keys, or rows, that a batch left out are forgotten | `keys_and_rows_that_a_batch_left_out_are_asked_again` |
//! | a read that may lag | `every_read_is_consistent_but_those_of_the_index` |
//! | what was needed of several stripes leaves all units on one | `after_an_order_larger_than_a_stripe_…`, `a_stock_that_was_left_on_one_stripe_…` |
//! | units move for a commit that can't be had | `an_order_larger_than_everything_…` |
//! | units move without a look at `revision` | `of_two_orders_larger_than_a_stripe_…` |
//! | a throttle of the key in KMS is taken for final | `what_passes_is_tried_again` |
//! | the key of the index is the id's remainder in new tables, or is not in older ones | `ids_that_were_chosen_to_meet_…`, `a_table_of_the_older_format_…` |
//! | the number of keys is the store's own | `the_number_of_keys_…`, `a_table_of_the_older_format_…` |
//! | what found too little on its stripe is given up, or stripes are never brought together | `the_rest_is_brought_together_…`; the sale of `four_engines_…` never ends |
//! | the dates of answers are not read, or a clock that is off ends holds | the two of `a_worker_whose_clock_is_…` |
//! | a payment ignores the end of the hold, or the state | conformance: `a_payment_is_ruled_on_by_the_orders_state` and 2 more |
//! | a paid order stays in the index | `everything_else` of the bill |
//! | holds are due before they end | conformance: `due_holds_are_listed_earliest_first` |
//! | an order is named in the log of its first item only | conformance: `orders_are_listed_by_buyer_item_and_status` |
//! | the tail is dropped when it is full | conformance: `a_listing_survives_writes_between_its_pages`, `a_crowd_of_workers_leaves_no_fault` |
//! | a listing leaves out what it can't see yet | `a_listing_waits_for_orders_that_are_not_to_be_seen_yet` |
//! | each caller reads an item for itself | `five_thousand_orders_at_once_through_an_engine` |

mod bill;
mod clock;
mod conformance;
mod due_keys;
mod faults;
mod feed;
mod forgotten;
mod hoarding;
mod limits;
mod making;
mod microburst;
mod notes;
mod remembered;
mod sale;
mod side_by_side;
mod stripes;
mod table;
mod wire;
