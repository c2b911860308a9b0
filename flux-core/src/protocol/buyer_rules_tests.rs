//! The rules about buyers, judged over whole commits.

use std::collections::HashMap;

use super::*;
use crate::protocol::{
    Commit, FencingToken, ItemNow, ItemSpec, Line, Lines, PaymentRef, Refusal, Stock, judge,
};

const PAUSE: Duration = Duration::from_secs(60);

struct Store {
    rules: BuyerRules,
    holds: HashMap<&'static str, u32>,
    pauses: HashMap<(&'static str, &'static str), u64>,
}

impl BuyersNow for Store {
    fn rules(&self) -> BuyerRules {
        self.rules
    }

    fn holds(&self, buyer: &BuyerId) -> u32 {
        self.holds.get(buyer.as_str()).copied().unwrap_or(0)
    }

    fn paused_until(&self, item: &ItemId, buyer: &BuyerId) -> Option<Timestamp> {
        self.pauses.get(&(item.as_str(), buyer.as_str())).copied().map(Timestamp::from_millis)
    }
}

fn store(holds_max: u32, pause: Option<Duration>) -> Store {
    let rules = BuyerRules { holds_max: NonZeroU32::new(holds_max), hold_again_after: pause };
    Store { rules, holds: HashMap::new(), pauses: HashMap::new() }
}

fn id(n: u128) -> OrderId {
    OrderId::from_uuid(uuid::Uuid::from_u128(n))
}

fn order(n: u128, who: &str, items: &[&str], state: OrderState) -> Order {
    let lines = items.iter().map(|item| Line::units(item, 1).expect("line")).collect();
    let lines = Lines::new(lines).expect("lines");
    Order::queued(id(n), BuyerId::new(who).expect("buyer"), lines, Timestamp::from_millis(0))
        .with_state(state)
}

fn hold(from: u64, to: u64) -> Hold {
    Hold::between(Timestamp::from_millis(from), Timestamp::from_millis(to))
}

fn begins(n: u128, who: &str, items: &[&str], at: u64) -> OrderWrite {
    let order = order(n, who, items, OrderState::Held(hold(at, at + 600_000)));
    OrderWrite { order, expect: Expect::Absent }
}

/// The end of a hold that ended at that time.
fn released(n: u128, who: &str, items: &[&str], at: u64) -> OrderWrite {
    let order = order(n, who, items, OrderState::Released(hold(0, at)));
    OrderWrite { order, expect: Expect::Status(OrderStatus::Held) }
}

fn paid(n: u128, who: &str, items: &[&str], expect: OrderStatus) -> OrderWrite {
    let payment = PaymentRef::new("p").expect("ref");
    let order = order(n, who, items, OrderState::Confirmed(hold(0, 1), payment));
    OrderWrite { order, expect: Expect::Status(expect) }
}

/// The orders that are barred, or the changes; of any number of items.
fn ruled(
    store: &Store,
    writes: Vec<OrderWrite>,
) -> Result<(Vec<i64>, Vec<PauseChange>), Vec<u128>> {
    let specs = ["a", "b", "c"].map(|id| ItemSpec::pool(id, 100).expect("pool"));
    let stocks = specs.clone().map(|spec| {
        let mut stock = Stock::full(&spec);
        let taken = Line::units(spec.id.as_str(), 50).expect("line");
        stock.take(&spec, &taken.ask).expect("half of it");
        stock
    });
    let claims = specs.iter().map(|spec| (spec.id.clone(), FencingToken(1))).collect();
    let commit = Commit { claims, writes };
    let now = |item: &ItemId| {
        let at = specs.iter().position(|spec| spec.id == *item)?;
        Some(ItemNow { token: FencingToken(1), spec: &specs[at], stock: &stocks[at] })
    };
    match judge(&commit, now, |_| true, |_, _| 0, Some(store)) {
        Ok(changes) => Ok((
            changes.buyers.holds.values().map(|gain| gain.holds).collect(),
            changes.buyers.pauses.values().copied().collect(),
        )),
        Err(Refusal::Conflict { moved, over_cap, barred }) => {
            assert!(moved.is_empty() && over_cap.is_empty());
            Err(barred.iter().map(|id| id.as_uuid().as_u128()).collect())
        }
        Err(other) => panic!("{other:?}"),
    }
}

#[test]
fn of_a_buyers_orders_the_last_are_barred_in_one_refusal() {
    let mut store = store(3, None);
    store.holds.insert("ann", 1);
    let anns = |from: u128, to: u128| (from..=to).map(|n| begins(n, "ann", &["a"], 0));
    let bobs = || begins(20, "bob", &["b"], 0);
    let many: Vec<_> = anns(1, 2).chain([bobs()]).chain(anns(3, 9)).collect();
    assert_eq!(ruled(&store, many), Err((3..=9).collect()));
    let rest: Vec<_> = anns(1, 2).chain([bobs()]).collect();
    assert_eq!(ruled(&store, rest).map(|changes| changes.0), Ok(vec![2, 1]));
    store.holds.insert("ann", 7);
    assert_eq!(ruled(&store, anns(1, 1).collect()), Err(vec![1]), "the rule came later");
}

#[test]
fn a_hold_that_ends_in_the_commit_makes_room_and_a_late_payment_takes_none() {
    let mut store = store(2, None);
    store.holds.insert("ann", 2);
    let new = || begins(1, "ann", &["a", "b"], 0);
    assert_eq!(ruled(&store, vec![new()]), Err(vec![1]));
    for end in [released(9, "ann", &["c"], 5), paid(9, "ann", &["c"], OrderStatus::Held)] {
        assert_eq!(ruled(&store, vec![new(), end]).map(|changes| changes.0), Ok(vec![0]));
    }
    let late = paid(9, "ann", &["c"], OrderStatus::Expired);
    assert_eq!(ruled(&store, vec![late.clone()]).map(|changes| changes.0), Ok(vec![]));
    assert_eq!(ruled(&store, vec![new(), late]), Err(vec![1]));
}

#[test]
fn a_pause_is_for_one_buyer_and_one_item_and_has_an_end() {
    let mut store = store(0, Some(PAUSE));
    store.pauses.insert(("a", "ann"), 60_005);
    for (write, is_barred) in [
        (begins(1, "ann", &["a"], 60_004), true),
        (begins(1, "ann", &["b", "a"], 60_004), true),
        (begins(1, "ann", &["a"], 60_005), false),
        (begins(1, "ann", &["b"], 0), false),
        (begins(1, "bob", &["a"], 0), false),
        (paid(1, "ann", &["a"], OrderStatus::Expired), false),
    ] {
        let at = write.order.clone();
        assert_eq!(ruled(&store, vec![write]).is_err(), is_barred, "{at:?}");
    }
}

#[test]
fn an_end_in_the_commit_pauses_what_comes_behind_it() {
    let store = store(0, Some(PAUSE));
    let (end, new) = (released(9, "ann", &["a"], 5), begins(1, "ann", &["a"], 5));
    assert_eq!(ruled(&store, vec![end.clone(), new.clone()]), Err(vec![1]));
    let change = PauseChange {
        over_by: Some(Timestamp::from_millis(5)),
        until: Some(Timestamp::from_millis(60_005)),
    };
    assert_eq!(ruled(&store, vec![new, end]), Ok((vec![], vec![change])));
}

#[test]
fn rules_that_ask_for_nothing_are_off() {
    let zero = BuyerRules::builder().hold_again_after(Duration::ZERO).build();
    assert!(zero.are_off() && BuyerRules::default().are_off());
    let read: BuyerRules = serde_json::from_str(r#"{"holds_max": 4}"#).expect("it reads");
    assert_eq!(read, BuyerRules::builder().holds_max(NonZeroU32::new(4).expect("4")).build());
    assert!(serde_json::from_str::<BuyerRules>(r#"{"holds_max": 0}"#).is_err());
}

#[test]
fn only_holds_that_begin_are_bounded() {
    let max = NonZeroU32::new(3).expect("three");
    assert_eq!(HoldGain { holds: -2, begun: 0 }.live_max(max), None);
    assert_eq!(HoldGain { holds: 2, begun: 2 }.live_max(max), Some(1));
    assert_eq!(HoldGain { holds: -1, begun: 1 }.live_max(max), Some(4));
}
