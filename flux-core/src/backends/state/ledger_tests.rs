//! The commit contract, rule by rule.

use super::*;
use crate::protocol::{BuyerRules, Hold, Line, Lines, OrderState, OverCap, PaymentRef};

pub(crate) const T0: Timestamp = Timestamp::from_millis(1_000_000);

pub(crate) fn item(id: &str) -> ItemId {
    ItemId::new(id).expect("item")
}

pub(crate) fn buyer(id: &str) -> BuyerId {
    BuyerId::new(id).expect("buyer")
}

pub(crate) fn units(item: &str, n: u64) -> Line {
    Line::units(item, n).expect("line")
}

pub(crate) fn order(n: u128, buyer_id: &str, lines: Vec<Line>) -> Order {
    let id = OrderId::from_uuid(uuid::Uuid::from_u128(n));
    Order::queued(id, buyer(buyer_id), Lines::new(lines).expect("lines"), T0)
}

pub(crate) fn hold_until(millis: u64) -> Hold {
    Hold { decided_at: T0, expires_at: Timestamp::from_millis(millis) }
}

/// The write that holds `order` for the first time.
pub(crate) fn hold(order: &Order) -> OrderWrite {
    let order = order.with_state(OrderState::Held(hold_until(2_000_000)));
    OrderWrite { order, expect: Expect::Absent }
}

/// The write that gives a held order back.
pub(crate) fn release(order: &Order) -> OrderWrite {
    let order = order.with_state(OrderState::Released(hold_until(2_000_000)));
    OrderWrite { order, expect: Expect::Status(OrderStatus::Held) }
}

fn ledger(specs: &[ItemSpec]) -> Ledger {
    let mut ledger = Ledger::default();
    for spec in specs {
        let put = ledger.put_item(&Arc::new(spec.clone()), BuyerCounts::default());
        assert_eq!(put, PutOutcome::Created);
    }
    ledger
}

fn pool(id: &str, capacity: u64) -> ItemSpec {
    ItemSpec::pool(id, capacity).expect("pool")
}

fn capped(id: &str, capacity: u64, cap: u64) -> ItemSpec {
    let spec = ItemSpec::builder().id(id).capacity(capacity).max_per_buyer(cap);
    spec.build().expect("pool")
}

fn commit(ledger: &mut Ledger, items: &[&str], writes: &[OrderWrite]) -> Commit {
    let claim = |id: &&str| {
        let claim = ledger.claim(&item(id)).expect("there");
        (claim.spec.id.clone(), claim.token)
    };
    Commit { claims: items.iter().map(claim).collect(), writes: writes.to_vec() }
}

fn numbers(ledger: &Ledger, id: &str) -> (u32, u32, u32) {
    let item = ledger.item(&item(id)).expect("there");
    (item.available, item.held, item.sold)
}

#[test]
fn a_commit_needs_the_newest_token_of_every_item_it_writes() {
    let mut ledger = ledger(&[pool("a", 5), pool("b", 5)]);
    let both = order(1, "ann", vec![units("a", 1), units("b", 1)]);
    let stale = commit(&mut ledger, &["a", "b"], &[hold(&both)]);
    let unclaimed = commit(&mut ledger, &["a"], &[hold(&both)]);
    let fenced = |items: &[&str]| CommitOutcome::Fenced(items.iter().map(|i| item(i)).collect());
    assert_eq!(ledger.commit(&stale), Err(fenced(&["a"])));
    assert_eq!(ledger.commit(&unclaimed), Err(fenced(&["b"])));
    let fresh = commit(&mut ledger, &["a", "b"], &[hold(&both)]);
    let spec = Arc::new(pool("b", 6));
    assert_eq!(ledger.put_item(&spec, BuyerCounts::default()), PutOutcome::Changed);
    assert_eq!(ledger.commit(&fresh), Err(fenced(&["b"])), "a new definition fences");
    assert_eq!((numbers(&ledger, "a"), numbers(&ledger, "b")), ((5, 0, 0), (6, 0, 0)));
}

#[test]
fn a_refused_commit_leaves_nothing_behind() {
    let mut ledger = ledger(&[pool("a", 5)]);
    let (one, two) = (order(1, "ann", vec![units("a", 1)]), order(2, "bob", vec![units("a", 1)]));
    let first = commit(&mut ledger, &["a"], &[hold(&one)]);
    assert_eq!(ledger.commit(&first), Ok(vec![0]));

    let mixed = commit(&mut ledger, &["a"], &[hold(&two), release(&one), hold(&one)]);
    let conflict =
        CommitOutcome::Conflict { moved: vec![one.id], over_cap: vec![], barred: vec![] };
    assert_eq!(ledger.commit(&mixed), Err(conflict));
    assert_eq!(ledger.entry(two.id), None);
    assert_eq!(ledger.entry(one.id), Some(Entry::new(0, OrderStatus::Held, Money::None)));

    let twice = commit(&mut ledger, &["a"], &[hold(&two), hold(&two)]);
    assert!(
        matches!(ledger.commit(&twice), Err(CommitOutcome::Conflict { moved, .. }) if moved == [two.id])
    );

    let much = order(3, "bob", vec![units("a", 5)]);
    let over = commit(&mut ledger, &["a"], &[hold(&two), hold(&much)]);
    assert_eq!(ledger.commit(&over), Err(CommitOutcome::Fenced(vec![item("a")])));
    assert_eq!(numbers(&ledger, "a"), (4, 1, 0));

    let next = commit(&mut ledger, &["a"], &[release(&one), hold(&much)]);
    assert_eq!(ledger.commit(&next), Ok(vec![0, 1]), "an order keeps its place");
    assert_eq!(numbers(&ledger, "a"), (0, 5, 0));
}

#[test]
fn a_cap_holds_over_the_sum_of_a_commit() {
    let mut ledger = ledger(&[capped("a", 9, 2)]);
    let n = |n| order(n, "ann", vec![units("a", 1)]);
    let three = commit(&mut ledger, &["a"], &[hold(&n(1)), hold(&n(2)), hold(&n(3))]);
    let over = |live| CommitOutcome::Conflict {
        moved: vec![],
        over_cap: vec![OverCap { item: item("a"), buyer: buyer("ann"), live }],
        barred: vec![],
    };
    assert_eq!(ledger.commit(&three), Err(over(0)));
    let two = commit(&mut ledger, &["a"], &[hold(&n(1)), hold(&n(2))]);
    ledger.commit(&two).expect("within the cap");
    let third = commit(&mut ledger, &["a"], &[hold(&n(3))]);
    assert_eq!(ledger.commit(&third), Err(over(2)));
    let swap = commit(&mut ledger, &["a"], &[release(&n(1)), hold(&n(3))]);
    ledger.commit(&swap).expect("one goes, one comes");
    assert_eq!(numbers(&ledger, "a"), (7, 2, 0));
}

#[test]
fn a_cap_that_comes_later_counts_what_is_owned() {
    let mut ledger = ledger(&[pool("a", 9)]);
    let held = order(1, "ann", vec![units("a", 2)]);
    let first = commit(&mut ledger, &["a"], &[hold(&held)]);
    ledger.commit(&first).expect("uncapped");
    let spec = Arc::new(capped("a", 9, 2));
    assert!(ledger.put_counts_buyers(&spec));
    let mut owners = BuyerCounts::default();
    owners.count(&hold(&held).order, &item("a"));
    assert_eq!(ledger.put_item(&spec, owners), PutOutcome::Changed);
    let more = commit(&mut ledger, &["a"], &[hold(&order(2, "ann", vec![units("a", 1)]))]);
    assert!(matches!(
        ledger.commit(&more),
        Err(CommitOutcome::Conflict { over_cap, .. }) if over_cap[0].live == 2
    ));
}

#[test]
fn a_confirmed_hold_is_sold_and_never_due() {
    let mut ledger = ledger(&[pool("a", 9)]);
    let (one, two) = (order(1, "ann", vec![units("a", 2)]), order(2, "bob", vec![units("a", 3)]));
    let both = commit(&mut ledger, &["a"], &[hold(&one), hold(&two)]);
    ledger.commit(&both).expect("applied");
    let payment = PaymentRef::new("p").expect("ref");
    let paid = OrderWrite {
        order: one.with_state(OrderState::Confirmed(hold_until(2_000_000), payment)),
        expect: Expect::Status(OrderStatus::Held),
    };
    assert_eq!(ledger.write_alone(&paid), Some(0));
    assert_eq!(ledger.write_alone(&paid), None, "once");
    assert_eq!(numbers(&ledger, "a"), (4, 3, 2));
    let mut due = Vec::new();
    assert!(ledger.due_holds(Timestamp::from_millis(1_999_999), 9, &mut due));
    assert!(due.is_empty());
    assert!(ledger.due_holds(Timestamp::from_millis(2_000_000), 9, &mut due));
    assert_eq!(due, [two.id]);
}

#[test]
fn pauses_that_are_over_are_forgotten() {
    let pause = std::time::Duration::from_secs(60);
    let rules = BuyerRules::builder().hold_again_after(pause).build();
    let mut ledger = ledger(&[pool("a", 9)]).with_book(BuyerBook::of(rules));
    let kept = |ledger: &Ledger| ledger.book.as_ref().expect("there are rules").pauses_kept();
    let mut due = Vec::new();
    for n in 0..1_000 {
        let end = 2_000_000 + n * 1_000;
        let order = order(u128::from(n), &format!("buyer-{n}"), vec![units("a", 1)]);
        let begins = commit(&mut ledger, &["a"], &[hold(&order)]);
        ledger.commit(&begins).expect("held");
        let state = OrderState::Released(hold_until(end));
        let expect = Expect::Status(OrderStatus::Held);
        let ends = OrderWrite { order: order.with_state(state), expect };
        let ends = commit(&mut ledger, &["a"], &[ends]);
        ledger.commit(&ends).expect("released");
        ledger.due_holds(Timestamp::from_millis(end), 9, &mut due);
        assert!(kept(&ledger) <= 61, "{} pauses are kept of {n}", kept(&ledger));
    }
    assert_eq!(kept(&ledger), 60, "those of the last minute");
    ledger.due_holds(Timestamp::from_millis(u64::MAX), 9, &mut due);
    assert_eq!(kept(&ledger), 0);
}
