//! The rules of the protocol over random input: decisions against a reference
//! that keeps its own books, definitions that change, and what may come in as
//! JSON or as a name. A failure prints its smallest case and its seed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use flux_core::protocol::{
    Claim, Effect, Expect, FencingToken, Message, RefundRuling, SeatMap, Stock, Verdict, View,
    confirm, refund, revise,
};
use flux_core::{
    Ask, BuyerCap, BuyerId, Hall, Hold, ItemId, ItemKind, ItemSpec, Line, Lines, Money, Order,
    OrderId, OrderState, OrderStatus, PaymentRef, PutItemError, Refund, RefundRef, SeatId,
    Timestamp,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};

const SEATS: [&str; 5] = ["A1", "A2", "A3", "B1", "B2"];
const BUYERS: [&str; 3] = ["ann", "bob", "cyd"];

/// Two pools and a hall, some of them capped.
fn specs() -> impl Strategy<Value = Vec<ItemSpec>> {
    let cap = || proptest::option::of(1..4_u64);
    let hold = || 1..4_u64;
    (0..8_u64, 1..8_u64, (cap(), cap(), cap()), (hold(), hold(), hold())).prop_map(
        |(p, q, caps, holds)| {
            let item = |id: &str| ItemSpec::builder().id(id);
            let pool = item("p").capacity(p).hold_seconds(holds.0).maybe_max_per_buyer(caps.0);
            let other = item("q").capacity(q).hold_seconds(holds.1).maybe_max_per_buyer(caps.1);
            let hall = item("h").seats(SEATS).hold_seconds(holds.2).maybe_max_per_buyer(caps.2);
            [pool.build(), other.build(), hall.build()].map(|spec| spec.expect("item")).to_vec()
        },
    )
}

/// Lines on what there is, on what there is not, and of the wrong kind.
fn line() -> impl Strategy<Value = Line> {
    let units = |item, n| Line::units(item, n).expect("line");
    let seats = |item, names: Vec<&str>| Line::seats(item, names).expect("line");
    let seat_names = || subsequence(&SEATS[..], 1..=3);
    prop_oneof![
        6 => (select(&["p", "q"][..]), 1..4_u64).prop_map(move |(item, n)| units(item, n)),
        6 => seat_names().prop_map(move |names| seats("h", names)),
        1 => (select(&["h", "none"][..]), 1..3_u64).prop_map(move |(item, n)| units(item, n)),
        1 => (select(&["p", "h"][..]), Just(vec!["Z9"])).prop_map(move |(item, n)| seats(item, n)),
    ]
}

fn lines() -> impl Strategy<Value = Lines> {
    vec(line(), 1..4).prop_filter_map("a seat named twice", |lines| Lines::new(lines).ok())
}

/// One thing that happens to the view; numbers choose among what is there.
#[derive(Clone, Debug)]
enum Step {
    Place(&'static str, Lines),
    Repeat(prop::sample::Index),
    Release(prop::sample::Index),
    Cancel(prop::sample::Index),
    Expire(prop::sample::Index),
    Pay(prop::sample::Index),
    /// One of two refunds.
    Refund(prop::sample::Index, bool),
    Wait(u64),
    /// A new batch: what was known of buyers is forgotten.
    ForgetBuyers,
}

fn step() -> impl Strategy<Value = Step> {
    let which = any::<prop::sample::Index>;
    prop_oneof![
        6 => (select(&BUYERS[..]), lines()).prop_map(|(buyer, lines)| Step::Place(buyer, lines)),
        1 => which().prop_map(Step::Repeat),
        2 => which().prop_map(Step::Release),
        1 => which().prop_map(Step::Cancel),
        2 => which().prop_map(Step::Expire),
        2 => which().prop_map(Step::Pay),
        2 => (which(), any::<bool>()).prop_map(|(n, which)| Step::Refund(n, which)),
        2 => (0..2_000_u64).prop_map(Step::Wait),
        1 => Just(Step::ForgetBuyers),
    ]
}

/// The books of a naive clerk: every unit that is gone, by who has it.
#[derive(Default)]
struct Books {
    orders: Vec<Order>,
    units: BTreeMap<(ItemId, OrderId), u32>,
    seats: BTreeMap<(ItemId, SeatId), OrderId>,
    /// Money that bought nothing, or nothing any more: since when, and its refund.
    debts: BTreeMap<OrderId, (Timestamp, Option<Refund>)>,
}

impl Books {
    fn give(&mut self, order: &Order) {
        for line in order.lines.iter() {
            *self.units.entry((line.item.clone(), order.id)).or_default() += line.ask.units();
            let Ask::Seats(seats) = &line.ask else { continue };
            for seat in seats {
                let owner = self.seats.insert((line.item.clone(), seat.clone()), order.id);
                assert_eq!(owner, None, "{seat} of {} has an owner", line.item);
            }
        }
    }

    fn take_back(&mut self, order: &Order) {
        self.units.retain(|(_, id), _| *id != order.id);
        self.seats.retain(|_, id| *id != order.id);
    }

    fn taken(&self, item: &ItemId) -> u32 {
        self.units.iter().filter(|((it, _), _)| it == item).map(|(_, units)| units).sum()
    }

    fn has(&self, item: &ItemId, buyer: &BuyerId) -> u32 {
        let owner = |id: &OrderId| &self.orders[id.as_uuid().as_u128() as usize].buyer;
        let his = self.units.iter().filter(|((it, id), _)| it == item && owner(id) == buyer);
        his.map(|(_, units)| units).sum()
    }

    /// Whether the order fits into what is left, cap and all, told without
    /// the view's help.
    fn fits(&self, order: &Order, specs: &[ItemSpec]) -> bool {
        let mut asked: BTreeMap<&ItemId, u32> = BTreeMap::new();
        for line in order.lines.iter() {
            *asked.entry(&line.item).or_default() += line.ask.units();
            let Some(spec) = specs.iter().find(|spec| spec.id == line.item) else { return false };
            let fits = match (&line.ask, &spec.kind) {
                (Ask::Units(_), ItemKind::Pool(_)) => true,
                (Ask::Seats(seats), ItemKind::Seats(hall)) => seats.iter().all(|seat| {
                    hall.names().contains(seat)
                        && !self.seats.contains_key(&(line.item.clone(), seat.clone()))
                }),
                _ => false,
            };
            if !fits {
                return false;
            }
        }
        asked.into_iter().all(|(item, units)| {
            let spec = specs.iter().find(|spec| spec.id == *item).expect("found above");
            let cap = spec.max_per_buyer.map_or(u32::MAX, BuyerCap::get);
            self.taken(item) + units <= spec.capacity()
                && self.has(item, &order.buyer) + units <= cap
        })
    }

    /// The money of every order against the debts.
    fn money_agrees(&self) {
        for order in &self.orders {
            let noted = self.debts.get(&order.id);
            let money = match noted {
                Some((_, refund)) => refund.as_ref().map_or(Money::Owed, |_| Money::Refunded),
                None if order.status() == OrderStatus::Confirmed => Money::Paid,
                None => Money::None,
            };
            assert_eq!(order.money(), money, "{order:?}");
            assert_eq!(order.owed_since(), noted.map(|(since, _)| *since), "{order:?}");
            assert_eq!(order.refund(), noted.and_then(|(_, refund)| refund.as_ref()));
            assert_eq!(order.payment_ref().is_some(), money != Money::None, "{order:?}");
        }
    }

    /// The view's stock, unit by unit and seat by seat, against the books.
    fn agree(&self, view: &View, specs: &[ItemSpec]) {
        for spec in specs {
            let stock = &view.get(&spec.id).expect("claimed").stock;
            assert_eq!(stock.available() + self.taken(&spec.id), spec.capacity(), "{}", spec.id);
            let (Stock::Seats(map), ItemKind::Seats(hall)) = (stock, &spec.kind) else { continue };
            for (seat, place) in hall.names().iter().zip(0..) {
                let owned = self.seats.contains_key(&(spec.id.clone(), seat.clone()));
                assert_eq!(map.is_taken(place), owned, "{seat}");
            }
        }
    }
}

struct Sale {
    specs: Vec<ItemSpec>,
    view: View,
    books: Books,
    now: Timestamp,
    /// Since the view last forgot its buyers nobody owned anything from before,
    /// so its bound on them is exact.
    knows_buyers: bool,
}

impl Sale {
    fn of(specs: Vec<ItemSpec>) -> Self {
        let mut view = View::default();
        for spec in &specs {
            let (token, stock) = (FencingToken(1), Stock::full(spec));
            view.insert(Claim { token, spec: Arc::new(spec.clone()), stock });
        }
        let now = Timestamp::from_millis(1_000_000);
        Self { specs, view, books: Books::default(), now, knows_buyers: true }
    }

    fn run(&mut self, step: &Step) {
        let orders = self.books.orders.len();
        match step {
            Step::Place(buyer, lines) => self.place(buyer, lines.clone()),
            Step::Wait(millis) => self.now = self.now + Duration::from_millis(*millis),
            Step::ForgetBuyers => {
                self.view.forget_buyers();
                self.knows_buyers = self.books.units.is_empty();
            }
            _ if orders == 0 => {}
            Step::Repeat(n) => {
                let order = self.books.orders[n.index(orders)].clone();
                let again = Message::Place(order.with_state(OrderState::Queued));
                assert_eq!(self.view.decide(&again, Some(&order), self.now), Verdict::Nothing);
            }
            Step::Release(n) => self.follow_up(n.index(orders), Message::Release),
            Step::Cancel(n) => self.follow_up(n.index(orders), Message::Cancel),
            Step::Expire(n) => self.follow_up(n.index(orders), Message::Expire),
            Step::Pay(n) => self.pay(n.index(orders)),
            Step::Refund(n, which) => self.refund(n.index(orders), *which),
        }
        self.books.money_agrees();
        self.books.agree(&self.view, &self.specs);
    }

    fn place(&mut self, buyer: &str, lines: Lines) {
        let id = OrderId::from_uuid(uuid::Uuid::from_u128(self.books.orders.len() as u128));
        let buyer = BuyerId::new(buyer).expect("buyer");
        let order = Order::queued(id, buyer, lines, self.now);
        let verdict = self.view.decide(&Message::Place(order.clone()), None, self.now);
        let Verdict::Write(write) = verdict else { panic!("a new order is decided") };
        assert_eq!(write.expect, Expect::Absent);
        assert!(write.order.asks_the_same_as(&order));
        assert_eq!(write.order.decided_at(), Some(self.now));
        let fits = self.books.fits(&order, &self.specs);
        self.books.orders.push(write.order.clone());
        match write.effect() {
            Effect::Takes => {
                assert!(fits || !self.knows_buyers, "it was given what it may not have");
                let shortest = write.order.lines.iter().map(|line| self.spec(&line.item).hold);
                let shortest = shortest.min().expect("an order has a line").as_duration();
                assert_eq!(write.order.hold().expect("held").expires_at, self.now + shortest);
                self.books.give(&write.order);
            }
            Effect::None => {
                assert!(!fits, "it was refused what is there: {:?}", write.order.reason());
            }
            Effect::GivesBack => panic!("a new order has nothing to give back"),
        }
        self.check_caps();
    }

    fn spec(&self, item: &ItemId) -> &ItemSpec {
        self.specs.iter().find(|spec| spec.id == *item).expect("a held order's item exists")
    }

    fn check_caps(&self) {
        if !self.knows_buyers {
            return; // The store's part, told by a commit's refusal.
        }
        for spec in &self.specs {
            let Some(cap) = spec.max_per_buyer else { continue };
            for buyer in BUYERS {
                let buyer = BuyerId::new(buyer).expect("buyer");
                assert!(self.books.has(&spec.id, &buyer) <= cap.get());
            }
        }
    }

    fn follow_up(&mut self, number: usize, message: impl Fn(OrderId) -> Message) {
        let old = self.books.orders[number].clone();
        self.settle(&old, &message(old.id));
    }

    fn pay(&mut self, number: usize) {
        let old = self.books.orders[number].clone();
        let payment = PaymentRef::new(format!("pay-{}", self.now.as_millis())).expect("ref");
        match confirm(&old, &payment, self.now) {
            flux_core::protocol::ConfirmRuling::Write(write) => {
                assert_eq!(old.status(), OrderStatus::Held);
                assert_eq!(write.effect(), Effect::None);
                self.books.orders[number] = write.order;
            }
            flux_core::protocol::ConfirmRuling::Late => {
                self.settle(&old, &Message::LatePayment(old.id, payment.clone()));
                let new = &self.books.orders[number];
                assert_eq!(new.payment_ref(), Some(&payment), "late money has a ticket or is owed");
                let again = confirm(new, &payment, self.now);
                assert_eq!(again, flux_core::protocol::ConfirmRuling::Repeat);
            }
            flux_core::protocol::ConfirmRuling::Owe(write) => {
                assert!(matches!(old.status(), OrderStatus::Released | OrderStatus::Rejected));
                assert_eq!((&write.order.state, write.effect()), (&old.state, Effect::None));
                assert_eq!(write.order.payment_ref(), Some(&payment));
                self.books.debts.insert(old.id, (self.now, None));
                self.books.orders[number] = write.order;
            }
            ruling => assert!(old.payment_ref().is_some(), "{ruling:?}"),
        }
    }

    fn refund(&mut self, number: usize, which: bool) {
        let old = self.books.orders[number].clone();
        let reference = RefundRef::new(format!("back-{which}")).expect("ref");
        let told = Refund::new(reference, self.now);
        let noted = self.books.debts.get_mut(&old.id);
        match (refund(&old, &told), noted) {
            (RefundRuling::Write(write), Some((_, noted @ None))) => {
                assert_eq!(write.expect, Expect::Money(old.status(), Money::Owed));
                assert_eq!((&write.order.state, write.effect()), (&old.state, Effect::None));
                *noted = Some(told);
                self.books.orders[number] = write.order;
            }
            (RefundRuling::Repeat, Some((_, Some(noted)))) => {
                assert_eq!(noted.reference, told.reference);
            }
            (RefundRuling::Another, Some((_, Some(noted)))) => {
                assert_ne!(noted.reference, told.reference);
            }
            (RefundRuling::NotOwed, None) => {}
            (ruling, noted) => panic!("{ruling:?}, and the clerk has {noted:?}"),
        }
    }

    fn settle(&mut self, old: &Order, message: &Message) {
        let Verdict::Write(write) = self.view.decide(message, Some(old), self.now) else { return };
        assert_eq!(write.expect, Expect::Status(old.status()));
        let hold = old.hold().map(|hold| match write.order.status() {
            // A hold that is released ends there and then.
            OrderStatus::Released => Hold::between(hold.decided_at, self.now),
            _ => hold,
        });
        assert_eq!((write.order.id, write.order.hold()), (old.id, hold));
        let (was, is) = (old.status().owns_stock(), write.order.status().owns_stock());
        let fits = self.books.fits(&write.order, &self.specs);
        match write.effect() {
            Effect::Takes => {
                assert!(!was && is && (fits || !self.knows_buyers));
                self.books.give(&write.order);
            }
            Effect::GivesBack => {
                assert!(was && !is);
                self.books.take_back(old);
            }
            Effect::None => {
                assert_eq!(was, is);
                assert!(write.order.status() != OrderStatus::RefundDue || !fits);
            }
        }
        let number = write.order.id.as_uuid().as_u128() as usize;
        if matches!(write.order.status(), OrderStatus::Cancelled | OrderStatus::RefundDue) {
            self.books.debts.insert(write.order.id, (self.now, None));
        }
        self.books.orders[number] = write.order;
        self.check_caps();
    }
}

proptest! {
    #[test]
    fn decisions_agree_with_a_naive_clerk(specs in specs(), steps in vec(step(), 1..60)) {
        let mut sale = Sale::of(specs);
        steps.iter().for_each(|step| sale.run(step));
    }

    #[test]
    fn what_is_taken_of_a_pool_stays_taken(
        available in 0..50_u32, taken in 0..50_u32, after in 0..100_u64,
    ) {
        let pool = |n| ItemSpec::pool("p", n).expect("pool");
        let (before, left) = (u64::from(available + taken), Stock::Pool { available });
        match revise(&pool(before), &left, &pool(after)) {
            Ok(stock) => prop_assert_eq!(u64::from(stock.available() + taken), after),
            Err(PutItemError::CapacityInUse { taken: said, .. }) => {
                prop_assert!(u64::from(taken) > after && said == taken);
            }
            Err(error) => prop_assert!(false, "{}", error),
        }
    }

    #[test]
    fn taken_seats_stay_with_their_names(
        before in subsequence(&SEATS[..], 1..=5).prop_shuffle(),
        after in subsequence(&SEATS[..], 1..=5).prop_shuffle(),
        taken in subsequence(&SEATS[..], 0..=5),
    ) {
        let hall = |names: &[&str]| ItemSpec::hall("h", names.iter().copied()).expect("hall");
        let mut map = SeatMap::all_free(before.len() as u32);
        let taken: BTreeSet<&str> = taken.into_iter().filter(|s| before.contains(s)).collect();
        let places = before.iter().zip(0..).filter(|(seat, _)| taken.contains(*seat));
        places.for_each(|(_, place)| map.take(place));
        match revise(&hall(&before), &Stock::Seats(map), &hall(&after)) {
            Ok(Stock::Seats(revised)) => {
                for (seat, place) in after.iter().zip(0..) {
                    prop_assert_eq!(revised.is_taken(place), taken.contains(seat));
                }
                prop_assert!(taken.iter().all(|seat| after.contains(seat)));
            }
            Ok(stock) => prop_assert!(false, "{:?}", stock),
            Err(_) => prop_assert!(taken.iter().any(|seat| !after.contains(seat))),
        }
    }
}

fn name() -> impl Strategy<Value = String> {
    "[!-~]{1,128}"
}

fn any_order() -> impl Strategy<Value = Order> {
    let named = (name(), name(), any::<u128>(), lines(), any::<[u64; 3]>());
    (named, 0..8_u8).prop_map(|((buyer, payment, id, lines, times), state)| {
        let [placed_at, decided_at, expires_at] = times.map(Timestamp::from_millis);
        let hold = flux_core::Hold::between(decided_at, expires_at);
        let payment = PaymentRef::new(payment).expect("ref");
        let state = match state {
            0 => OrderState::Queued,
            1 => OrderState::Held(hold),
            2 => OrderState::Confirmed(hold, payment),
            3 => OrderState::Released(hold),
            4 => OrderState::Expired(hold),
            5 => OrderState::Cancelled(hold, payment),
            6 => OrderState::Rejected(decided_at, flux_core::Reason::SeatTaken),
            _ => OrderState::RefundDue(hold, payment),
        };
        let (id, buyer) = (OrderId::from_uuid(uuid::Uuid::from_u128(id)), BuyerId::new(buyer));
        Order::queued(id, buyer.expect("buyer"), lines, placed_at).with_state(state)
    })
}

fn there_and_back<T>(value: &T) -> Result<(), TestCaseError>
where
    T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let text = serde_json::to_string(value).expect("it can be written");
    let back: T = serde_json::from_str(&text).expect("what was written can be read");
    prop_assert_eq!(value, &back);
    Ok(())
}

/// Reads `json` as a `T` and says what was wrong with it.
fn refusal<T: serde::de::DeserializeOwned>(json: Value) -> String {
    serde_json::from_value::<T>(json).err().expect("it is out of bounds").to_string()
}

proptest! {
    #[test]
    fn orders_and_messages_survive_json(order in any_order(), payment in name()) {
        let (id, payment) = (order.id, PaymentRef::new(payment).expect("ref"));
        there_and_back(&order)?;
        there_and_back(&Message::Place(order))?;
        there_and_back(&Message::Release(id))?;
        there_and_back(&Message::Cancel(id))?;
        there_and_back(&Message::Expire(id))?;
        there_and_back(&Message::LatePayment(id, payment))?;
    }

    #[test]
    fn definitions_survive_json_or_are_refused_by_name(
        specs in specs(), label in proptest::option::of(".{0,90}"), times in any::<[u64; 2]>(),
    ) {
        let [opens_at, closes_at] = times.map(|at| Some(Timestamp::from_millis(at)));
        for mut spec in specs {
            (spec.name, spec.opens_at, spec.closes_at) = (label.clone(), opens_at, closes_at);
            let json = serde_json::to_value(&spec).expect("it can be written");
            let long = label.as_ref().is_some_and(|label| label.len() > 256);
            match serde_json::from_value::<ItemSpec>(json) {
                Ok(back) => prop_assert!(!long && opens_at < closes_at && back == spec),
                Err(error) if long => prop_assert!(error.to_string().starts_with("name")),
                Err(error) => {
                    prop_assert!(opens_at >= closes_at);
                    prop_assert!(error.to_string().starts_with("closes_at"));
                }
            }
        }
    }

    #[test]
    fn numbers_out_of_range_are_refused_by_name(
        n in prop_oneof![0..2_000_u64, 86_000..87_000_u64, 9_999_000..10_001_000_u64, any::<u64>()],
    ) {
        use flux_core::{Capacity, HoldTime, Quantity};
        let check = |field: &str, low: u64, high: u64, read: Result<u64, String>| match read {
            Ok(read) => assert!(read == n && (low..=high).contains(&n)),
            Err(error) => assert!(!(low..=high).contains(&n) && error.starts_with(field), "{error}"),
        };
        fn read<T: serde::de::DeserializeOwned + Into<u64>>(n: u64) -> Result<u64, String> {
            serde_json::from_value::<T>(json!(n)).map(Into::into).map_err(|e| e.to_string())
        }
        check("quantity", 1, 1000, read::<Quantity>(n));
        check("capacity", 0, 10_000_000, read::<Capacity>(n));
        check("hold_seconds", 1, 86_400, read::<HoldTime>(n));
        check("max_per_buyer", 1, 1000, read::<BuyerCap>(n));
    }

    #[test]
    fn names_of_any_bytes_are_judged_and_never_panic(bytes in vec(any::<u8>(), 0..160)) {
        let text = String::from_utf8_lossy(&bytes);
        let good = (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        for (field, read) in [
            ("item_id", text.parse::<ItemId>().map(|id| id.to_string())),
            ("buyer_id", text.parse::<BuyerId>().map(|id| id.to_string())),
            ("seat", text.parse::<SeatId>().map(|id| id.to_string())),
            ("payment_ref", text.parse::<PaymentRef>().map(|id| id.to_string())),
        ] {
            match read {
                Ok(name) => prop_assert!(good && name == text),
                Err(error) => prop_assert!(!good && error.field() == field),
            }
        }
        let from_json = serde_json::from_value::<BuyerId>(json!(text));
        prop_assert_eq!(from_json.is_ok(), good);
        let ann = BuyerId::new("ann").expect("buyer");
        let _ = OrderId::from_idempotency_key(&ann, &text);
        let _ = text.parse::<OrderId>();
        let _ = serde_json::from_slice::<Message>(&bytes);
    }

    #[test]
    fn an_order_id_reads_back_in_any_case(id in any::<u128>()) {
        let id = OrderId::from_uuid(uuid::Uuid::from_u128(id));
        let text = id.to_string();
        prop_assert_eq!(text.len(), 36);
        prop_assert_eq!(text.parse::<OrderId>(), Ok(id));
        prop_assert_eq!(text.to_uppercase().parse::<OrderId>(), Ok(id));
        prop_assert!(text.replace('-', "").parse::<OrderId>().is_err());
        let braced = format!("{{{text}}}");
        prop_assert!(braced.parse::<OrderId>().is_err());
    }

    #[test]
    fn an_order_id_takes_nothing_but_the_hyphenated_form(text in "[0-9a-fA-F{}-]{30,40}|.{36}") {
        let shape = |(n, c): (usize, char)| match n {
            8 | 13 | 18 | 23 => c == '-',
            _ => c.is_ascii_hexdigit(),
        };
        let good = text.len() == 36 && text.chars().enumerate().all(shape);
        prop_assert_eq!(text.parse::<OrderId>().is_ok(), good);
    }
}

#[test]
fn lists_out_of_bounds_are_refused_by_name() {
    let line = json!({ "item": "p", "ask": { "Units": 1 } });
    let seats = |n: usize| -> Vec<String> { (0..n).map(|s| format!("s{s}")).collect() };
    let ask = |seats: Vec<String>| json!([{ "item": "h", "ask": { "Seats": seats } }]);
    assert!(serde_json::from_value::<Lines>(json!(vec![line.clone(); 10])).is_ok());
    assert!(refusal::<Lines>(json!([])).starts_with("lines"));
    assert!(refusal::<Lines>(json!(vec![line; 11])).starts_with("lines"));
    assert!(serde_json::from_value::<Lines>(ask(seats(100))).is_ok());
    assert!(refusal::<Lines>(ask(seats(101))).starts_with("seats"));
    assert!(refusal::<Lines>(ask(vec![])).starts_with("seats"));
    assert!(refusal::<Lines>(ask(vec!["s".into(), "s".into()])).starts_with("seats"));
    let zero = json!([{ "item": "p", "ask": { "Units": 0 } }]);
    assert!(refusal::<Lines>(zero).starts_with("quantity"));
    assert!(
        refusal::<Lines>(json!([{ "item": "p q", "ask": { "Units": 1 } }])).starts_with("item_id")
    );
    assert!(refusal::<Hall>(json!([])).starts_with("seats"));
    assert!(refusal::<Hall>(json!(["x", "x"])).starts_with("seats"));
    assert!(refusal::<Hall>(json!(["x y"])).starts_with("seat:"));
}
