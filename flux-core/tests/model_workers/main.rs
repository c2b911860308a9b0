//! The protocol under every schedule: two workers, a store, a queue that
//! delivers in any order and again, payments that race the end of their holds,
//! with a crash, a freeze or a lost answer between any two steps and no lock at
//! all. The scenes are small, and checked to the last state. The last tests
//! leave one rule out each, to see the model notice.

mod properties;
mod rest;
mod scene;
mod shared;
mod store;
mod worker;
mod world;

use std::collections::BTreeSet;

use flux_core::{ItemSpec, Line};
use scene::{Fault, Scene, Task};
use stateright::{Checker, HasDiscoveries, Model};

fn units(item: &str, n: u64) -> Line {
    Line::units(item, n).expect("line")
}

fn seats(names: &[&str]) -> Line {
    Line::seats("a", names).expect("line")
}

/// One unit, two buyers; the first pays, in time or late.
fn one_unit() -> Scene {
    let scene = Scene::pools(&[1]).order("ann", vec![units("a", 1)]);
    let scene = scene.order("bob", vec![units("a", 1)]).paid_by(0, "pay-1");
    let meets = &[
        "a fenced commit",
        "a payment too late for its hold",
        "a ticket for late money",
        "a refund",
        "an ended hold sold again",
    ];
    Scene { ticks: 1, meets, ..scene }
}

/// One unit, two buyers; the first gives it back. A commit may come long after
/// its worker stopped waiting for it.
fn late_commits() -> Scene {
    let scene = Scene::pools(&[1]).order("ann", vec![units("a", 1)]);
    let scene = scene.order("bob", vec![units("a", 1)]);
    let meets = &[
        "a fenced commit",
        "a doubt about what was written",
        "a late commit that still counts",
        "a release",
    ];
    Scene { follow_ups: vec![Task::Release(0)], late_max: 1, meets, ..scene }
}

/// Two items, and an order for both of them against one for the second.
fn two_items() -> Scene {
    let scene = Scene::pools(&[1, 1]).order("ann", vec![units("a", 1), units("b", 1)]);
    let scene = scene.order("bob", vec![units("b", 1)]);
    Scene { follow_ups: vec![Task::Release(0)], meets: &["a fenced commit", "a release"], ..scene }
}

/// A buyer who may have one unit and orders two, one at a time.
fn capped() -> Scene {
    let capped = ItemSpec::builder().id("a").capacity(2).max_per_buyer(1).build().expect("item");
    let scene = Scene::item(vec![capped]).order("ann", vec![units("a", 1)]);
    let scene = scene.order("ann", vec![units("a", 1)]);
    Scene { batch_max: 2, meets: &["a buyer at the limit"], ..scene }
}

/// Two seats, wanted both together and one of them alone.
fn hall() -> Scene {
    let hall = ItemSpec::hall("a", ["A1", "A2"]).expect("hall");
    let scene = Scene::item(vec![hall]).order("ann", vec![seats(&["A1", "A2"])]);
    let scene = scene.order("bob", vec![seats(&["A2"])]);
    Scene { follow_ups: vec![Task::Release(0)], meets: &["a release"], ..scene }
}

/// One unit becomes two under the sale, and one again.
fn revised() -> Scene {
    let specs = [1, 2, 1].map(|n| ItemSpec::pool("a", n).expect("pool"));
    let scene = Scene::item(specs.to_vec()).order("ann", vec![units("a", 1)]);
    Scene { meets: &["a fenced commit"], ..scene.order("bob", vec![units("a", 1)]) }
}

/// One order, two payments for it, and a cancellation once it is paid.
fn paid_twice() -> Scene {
    let scene = Scene::pools(&[1]).order("ann", vec![units("a", 1)]);
    let scene = scene.paid_by(0, "pay-1").paid_by(0, "pay-2");
    let meets = &["a payment too late for its hold", "a cancellation"];
    Scene { ticks: 1, follow_ups: vec![Task::Cancel(0)], meets, ..scene }
}

/// One order, paid and given back at once.
fn paid_or_released() -> Scene {
    let scene = Scene::pools(&[1]).order("ann", vec![units("a", 1)]).paid_by(0, "pay-1");
    let meets = &["a release", "late money for what was given back"];
    Scene { ticks: 1, follow_ups: vec![Task::Release(0)], meets, ..scene }
}

/// One order, paid, cancelled or given back, and two refunds told of its money.
fn refunded() -> Scene {
    let scene = Scene::pools(&[1]).order("ann", vec![units("a", 1)]).paid_by(0, "pay-1");
    let scene = scene.refunded_by(0, "back-1").refunded_by(0, "back-2");
    let follow_ups = vec![Task::Cancel(0), Task::Release(0)];
    let meets = &[
        "a cancellation",
        "money for what was given back",
        "two refunds at once",
        "money returned",
    ];
    Scene { follow_ups, meets, ..scene }
}

/// Checks all of it, and that it is still as large as it was.
fn holds(scene: Scene, states: usize) {
    let checker = scene.checker().threads(2).finish_when(HasDiscoveries::AnyFailures);
    let checker = checker.spawn_bfs().join();
    checker.assert_properties();
    assert_eq!(checker.unique_state_count(), states);
}

/// Sees `property` broken when `fault` leaves a rule out.
fn notices(scene: Scene, fault: Fault, property: &'static str) {
    let enough = HasDiscoveries::AllOf(BTreeSet::from([property]));
    let checker = scene.with(fault).checker().finish_when(enough).spawn_bfs().join();
    checker.assert_any_discovery(property);
}

#[test]
fn one_unit_goes_to_one_of_two() {
    holds(one_unit(), 286_389);
}

#[test]
fn a_late_commit_changes_nothing_it_should_not() {
    holds(late_commits(), 214_576);
}

#[test]
fn an_order_over_two_items_is_whole() {
    holds(two_items(), 178_083);
}

#[test]
fn a_cap_holds_over_concurrent_orders() {
    holds(capped(), 65_522);
}

#[test]
fn a_seat_has_one_owner() {
    holds(hall(), 35_547);
}

#[test]
fn a_sale_goes_on_while_its_capacity_changes() {
    holds(revised(), 52_349);
}

#[test]
fn an_order_takes_one_payment() {
    holds(paid_twice(), 276_355);
}

#[test]
fn an_order_is_paid_or_given_back() {
    holds(paid_or_released(), 126_488);
}

#[test]
fn money_is_returned_once() {
    holds(refunded(), 124_307);
}

#[test]
fn everything_can_always_come_to_rest() {
    let unpaid = Scene { payments: Vec::new(), meets: &[], ..one_unit() };
    for scene in [paid_or_released(), unpaid] {
        let stuck = rest::stuck(&scene);
        assert!(stuck.is_none(), "{stuck:#?}");
    }
}

#[test]
fn holds_nobody_ends_are_noticed() {
    let unpaid = Scene { payments: Vec::new(), ..one_unit() };
    assert!(rest::stuck(&unpaid.with(Fault::NoSweep)).is_some());
}

#[test]
fn a_store_without_fencing_is_noticed() {
    notices(late_commits(), Fault::NoFencing, "G7 fencing");
    notices(late_commits(), Fault::NoFencing, "G8 no false refusal");
}

#[test]
fn a_store_that_decides_again_is_noticed() {
    notices(one_unit(), Fault::NoAbsent, "G3 one decision");
    notices(one_unit(), Fault::NoAbsent, "G2 conservation");
}

#[test]
fn a_store_that_writes_half_is_noticed() {
    notices(two_items(), Fault::NotAtomic, "G2 conservation");
    notices(two_items(), Fault::NotAtomic, "G5 all or nothing");
}

#[test]
fn a_blind_confirmation_is_noticed() {
    notices(one_unit(), Fault::BlindConfirm, "G1 no oversell");
    notices(paid_twice(), Fault::BlindConfirm, "G3 one decision");
}

#[test]
fn money_that_is_not_noted_is_noticed() {
    notices(refunded(), Fault::UnnotedMoney, "G9 ticket or refund");
    notices(paid_or_released(), Fault::UnnotedMoney, "G9 ticket or refund");
}

#[test]
fn a_refund_noted_over_another_is_noticed() {
    notices(refunded(), Fault::BlindRefund, "G9 a debt is settled once");
}

#[test]
fn a_store_without_caps_is_noticed() {
    notices(capped(), Fault::NoCap, "G6 limits hold");
}

#[test]
fn a_revision_that_fences_nobody_is_noticed() {
    notices(revised(), Fault::QuietRevision, "G8 no false refusal");
}

#[test]
fn an_acknowledgement_too_early_is_noticed() {
    notices(one_unit(), Fault::AckFirst, "G4 nothing lost");
}

#[test]
fn a_view_kept_in_doubt_is_noticed() {
    notices(late_commits(), Fault::KeepsView, "G8 no false refusal");
}

#[test]
fn a_release_at_the_very_end_of_a_hold_is_noticed() {
    notices(paid_or_released(), Fault::ReleasesAtTheEnd, "G9 an ended hold expires");
}

#[test]
fn a_view_that_gives_back_twice_is_noticed() {
    notices(late_commits(), Fault::GivesBackAgain, "G2 no view of more than there is");
}
