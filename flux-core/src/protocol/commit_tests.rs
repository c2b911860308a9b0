//! The rule, refusal by refusal.

use std::collections::{HashMap, HashSet};

use super::*;
use crate::protocol::{BuyerRules, Hold, Lines, Money, OrderState, Timestamp};

/// The contents of a store: items with their tokens and stock, orders, buyers.
#[derive(Default)]
struct Store {
    items: HashMap<ItemId, (FencingToken, ItemSpec, Stock)>,
    orders: HashMap<OrderId, OrderStatus>,
    live: HashMap<(ItemId, BuyerId), u32>,
}

impl Store {
    fn with(specs: &[ItemSpec]) -> Self {
        let row =
            |spec: &ItemSpec| (spec.id.clone(), (FencingToken(7), spec.clone(), Stock::full(spec)));
        Self { items: specs.iter().map(row).collect(), ..Self::default() }
    }

    fn judge<'c>(&self, commit: &'c Commit) -> Result<Changes<'c>, Refusal> {
        let now = |item: &ItemId| {
            let (token, spec, stock) = self.items.get(item)?;
            Some(ItemNow { token: *token, spec, stock })
        };
        let mut written = HashSet::new();
        let is_expected = |write: &'c OrderWrite| {
            let found = self.orders.get(&write.order.id).map(|status| (*status, Money::None));
            written.insert(write.order.id) && write.expect.is_met_by(found)
        };
        let live = |item: &ItemId, buyer: &BuyerId| {
            self.live.get(&(item.clone(), buyer.clone())).copied().unwrap_or(0)
        };
        judge(commit, now, is_expected, live, None)
    }
}

fn item(id: &str) -> ItemId {
    ItemId::new(id).expect("item")
}

fn buyer(id: &str) -> BuyerId {
    BuyerId::new(id).expect("buyer")
}

fn pool(id: &str, capacity: u64) -> ItemSpec {
    ItemSpec::pool(id, capacity).expect("pool")
}

fn capped(id: &str, capacity: u64, cap: u64) -> ItemSpec {
    ItemSpec::builder().id(id).capacity(capacity).max_per_buyer(cap).build().expect("pool")
}

fn id(n: u128) -> OrderId {
    OrderId::from_uuid(uuid::Uuid::from_u128(n))
}

fn write(n: u128, who: &str, lines: &[(&str, u64)], expect: Expect) -> OrderWrite {
    let line = |(item, units): &(&str, u64)| Line::units(item, *units).expect("line");
    let lines = Lines::new(lines.iter().map(line).collect()).expect("lines");
    let at = Timestamp::from_millis(1);
    let hold = Hold { decided_at: at, expires_at: at };
    let state = match expect {
        Expect::Absent => OrderState::Held(hold),
        Expect::Status(_) | Expect::Money(..) => OrderState::Released(hold),
    };
    let order = Order::queued(id(n), buyer(who), lines, at).with_state(state);
    OrderWrite { order, expect }
}

fn hold(n: u128, who: &str, lines: &[(&str, u64)]) -> OrderWrite {
    write(n, who, lines, Expect::Absent)
}

fn release(n: u128, who: &str, lines: &[(&str, u64)]) -> OrderWrite {
    write(n, who, lines, Expect::Status(OrderStatus::Held))
}

fn commit(claims: &[(&str, u64)], writes: Vec<OrderWrite>) -> Commit {
    let claim = |(id, token): &(&str, u64)| (item(id), FencingToken(*token));
    Commit { claims: claims.iter().map(claim).collect(), writes }
}

fn conflict(moved: &[u128], over_cap: &[(&str, &str, u32)]) -> Refusal {
    let over =
        |(i, b, live): &(&str, &str, u32)| OverCap { item: item(i), buyer: buyer(b), live: *live };
    let moved = moved.iter().map(|n| id(*n)).collect();
    let over_cap = over_cap.iter().map(over).collect();
    Refusal::Conflict { moved, over_cap, barred: vec![] }
}

fn fenced(items: &[&str]) -> Refusal {
    Refusal::Fenced(items.iter().map(|i| item(i)).collect())
}

#[test]
fn every_claim_must_be_the_newest_and_there() {
    let store = Store::with(&[pool("a", 5), pool("b", 5)]);
    let both = || vec![hold(1, "ann", &[("a", 1), ("b", 1)])];
    for (claims, lost) in [
        (&[("a", 6), ("b", 7)][..], &["a"][..]),
        (&[("a", 7), ("b", 8)], &["b"]),
        (&[("a", 7)], &["b"]),
        (&[], &["a", "b"]),
        (&[("a", 7), ("b", 7), ("c", 7)], &["c"]),
        (&[("a", 7), ("b", 7), ("b", 6)], &["b"]),
    ] {
        assert_eq!(store.judge(&commit(claims, both())), Err(fenced(lost)), "{claims:?}");
    }
    let judged = commit(&[("b", 7), ("a", 7), ("a", 7)], both());
    let left = Stock::Pool { available: 4 };
    let stocks = vec![(&judged.claims[1].0, left.clone()), (&judged.claims[0].0, left)];
    assert_eq!(store.judge(&judged), Ok(Changes { stocks, ..Changes::default() }));
}

#[test]
fn what_moves_no_stock_needs_no_claim() {
    let store = Store::with(&[]);
    let mut rejected = hold(1, "ann", &[("a", 1)]);
    let reason = crate::protocol::Reason::UnknownItem;
    rejected.order.state = OrderState::Rejected(Timestamp::from_millis(1), reason);
    assert_eq!(store.judge(&commit(&[], vec![rejected])), Ok(Changes::default()));
}

#[test]
fn an_order_that_is_not_what_was_expected_refuses_all() {
    let mut store = Store::with(&[pool("a", 5)]);
    store.orders.insert(id(1), OrderStatus::Held);
    store.orders.insert(id(2), OrderStatus::Confirmed);
    let one = &[("a", 1)];
    let writes = vec![hold(1, "ann", one), release(2, "bob", one), hold(3, "eve", one)];
    assert_eq!(store.judge(&commit(&[("a", 7)], writes)), Err(conflict(&[1, 2], &[])));
    let missing = vec![release(4, "bob", one)];
    assert_eq!(store.judge(&commit(&[("a", 7)], missing)), Err(conflict(&[4], &[])));
}

#[test]
fn a_cap_is_held_by_the_sum_of_what_a_buyer_gains() {
    let mut store = Store::with(&[capped("a", 9, 2), pool("b", 9)]);
    let one = &[("a", 1)];
    let judged = |store: &Store, writes| {
        let commit = commit(&[("a", 7), ("b", 7)], writes);
        store.judge(&commit).map(|changes| changes.gains.values().copied().collect::<Vec<_>>())
    };
    let holds = |n: u128| (1..=n).map(|n| hold(n, "ann", one)).collect::<Vec<_>>();
    assert_eq!(judged(&store, holds(2)), Ok(vec![Gain { units: 2, cap: 2 }]));
    assert_eq!(judged(&store, holds(3)), Err(conflict(&[], &[("a", "ann", 0)])));
    let other_item = vec![hold(1, "ann", &[("b", 9)])];
    assert_eq!(judged(&store, other_item), Ok(vec![]), "uncapped");

    store.live.insert((item("a"), buyer("ann")), 1);
    assert_eq!(judged(&store, holds(2)), Err(conflict(&[], &[("a", "ann", 1)])));
    store.orders.insert(id(9), OrderStatus::Held);
    let swap = [vec![release(9, "ann", one)], holds(2)].concat();
    assert_eq!(judged(&store, swap), Ok(vec![Gain { units: 1, cap: 2 }]));

    // A cap that came later may be exceeded already; giving back is free.
    store.live.insert((item("a"), buyer("ann")), 8);
    let back = vec![release(9, "ann", one)];
    assert_eq!(judged(&store, back), Ok(vec![Gain { units: -1, cap: 2 }]));
}

#[test]
fn nothing_is_taken_that_is_not_there() {
    let mut store = Store::with(&[pool("a", 5)]);
    store.orders.insert(id(9), OrderStatus::Held);
    let claims = &[("a", 7)];
    let much = || vec![hold(1, "ann", &[("a", 3)]), hold(2, "bob", &[("a", 3)])];
    let overtaken = Refusal::Overtaken(vec![item("a")]);
    assert_eq!(store.judge(&commit(claims, much())), Err(overtaken));
    let (_, _, stock) = store.items.get_mut(&item("a")).expect("there");
    *stock = Stock::Pool { available: 4 };
    let back_first = [vec![release(9, "eve", &[("a", 1)])], much()].concat();
    let no_more = Err(Refusal::Overtaken(vec![item("a")]));
    assert_eq!(store.judge(&commit(claims, back_first)), no_more);
    let enough = vec![release(9, "eve", &[("a", 1)]), hold(1, "ann", &[("a", 5)])];
    let enough = commit(claims, enough);
    let left = store.judge(&enough).map(|changes| changes.stocks[0].1.clone());
    assert_eq!(left, Ok(Stock::Pool { available: 0 }));
}

#[test]
fn a_refusal_names_the_worst_first() {
    let mut store = Store::with(&[capped("a", 1, 1)]);
    store.orders.insert(id(1), OrderStatus::Held);
    let writes = || vec![hold(1, "ann", &[("a", 1)]), hold(2, "bob", &[("a", 2)])];
    assert_eq!(store.judge(&commit(&[("a", 6)], writes())), Err(fenced(&["a"])));
    let both = Err(conflict(&[1], &[("a", "bob", 0)]));
    assert_eq!(store.judge(&commit(&[("a", 7)], writes())), both);
}

#[test]
fn an_expectation_is_met_by_that_and_nothing_else() {
    let held = Some((OrderStatus::Held, Money::None));
    assert!(Expect::Absent.is_met_by(None) && !Expect::Absent.is_met_by(held));
    let expected = Expect::Status(OrderStatus::Held);
    assert!(expected.is_met_by(held) && !expected.is_met_by(None));
    assert!(!expected.is_met_by(Some((OrderStatus::Expired, Money::None))));

    let owed = Expect::Money(OrderStatus::Cancelled, Money::Owed);
    let cancelled = |money| Some((OrderStatus::Cancelled, money));
    assert!(owed.is_met_by(cancelled(Money::Owed)) && !owed.is_met_by(None));
    assert!(!owed.is_met_by(cancelled(Money::Refunded)));
    assert!(!owed.is_met_by(Some((OrderStatus::RefundDue, Money::Owed))));
    assert!(Expect::Status(OrderStatus::Cancelled).is_met_by(cancelled(Money::Refunded)));
}

/// Everybody holds as much as one buyer may.
struct AllHold;

impl BuyersNow for AllHold {
    fn rules(&self) -> BuyerRules {
        BuyerRules::builder().holds_max(std::num::NonZeroU32::MIN).build()
    }

    fn holds(&self, _: &BuyerId) -> u32 {
        1
    }

    fn paused_until(&self, _: &ItemId, _: &BuyerId) -> Option<Timestamp> {
        None
    }
}

#[test]
fn who_is_over_a_cap_is_told_that_and_not_the_rules_as_well() {
    let spec = capped("a", 5, 1);
    let stock = Stock::full(&spec);
    let told = |quantity| {
        let commit = commit(&[("a", 7)], vec![hold(1, "ann", &[("a", quantity)])]);
        let now = |_: &ItemId| Some(ItemNow { token: FencingToken(7), spec: &spec, stock: &stock });
        judge(&commit, now, |_| true, |_, _| 0, Some(&AllHold)).map(drop)
    };
    assert_eq!(told(2), Err(conflict(&[], &[("a", "ann", 0)])));
    let barred = Refusal::Conflict { moved: vec![], over_cap: vec![], barred: vec![id(1)] };
    assert_eq!(told(1), Err(barred));
}
