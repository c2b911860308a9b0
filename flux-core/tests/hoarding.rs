//! The rules about buyers, as an application sees them and against a clerk who
//! counts anew for each order.
#![cfg(feature = "conformance")]

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use flux_core::clock::TokioClock;
use flux_core::conformance::history::{EndState, History};
use flux_core::layers::YesLocks;
use flux_core::protocol::{Commit, CommitOutcome, Expect, OrderWrite};
use flux_core::seams::{InventoryStore, Payment};
use flux_core::{
    Backend, BuyerRules, Flux, Hold, ItemSpec, Line, Lines, Order, OrderId, OrderRequest,
    OrderState, OrderStatus, PaymentRef, Reason, Timestamp,
};
use proptest::collection::vec;
use proptest::prelude::*;
use uuid::Uuid;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);
const HOLD: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_secs(120);

fn holds(max: u32) -> BuyerRules {
    BuyerRules::builder().maybe_holds_max(NonZeroU32::new(max)).build()
}

fn pause() -> BuyerRules {
    BuyerRules::builder().hold_again_after(PAUSE).build()
}

fn engine(backend: &Backend) -> Flux {
    let clock = Arc::new(TokioClock::starting_at(START));
    Flux::builder(backend.clone()).clock(clock).start()
}

/// An engine with three items on sale.
async fn sale(rules: BuyerRules) -> Result<Flux> {
    let flux = engine(&Backend::memory_with().buyer_rules(rules).build());
    put_items(&flux).await?;
    Ok(flux)
}

async fn put_items(flux: &Flux) -> Result {
    for item in ["a", "b", "c"] {
        let spec = ItemSpec::builder().id(item).capacity(1_000).hold_seconds(HOLD.as_secs());
        flux.put_item(spec.build()?).await?;
    }
    Ok(())
}

fn one(buyer: &str, item: &str) -> OrderRequest {
    OrderRequest::units(buyer, item, 1).expect("a request")
}

/// Places all requests at once, and counts those that are held; the others are
/// turned down for their buyer.
async fn held_of(flux: &[&Flux], requests: impl Iterator<Item = OrderRequest>) -> Result<usize> {
    let calls: Vec<_> = requests
        .zip(flux.iter().cycle())
        .map(|(request, flux)| {
            let flux = Flux::clone(flux);
            tokio::spawn(async move { flux.place(request).await })
        })
        .collect();
    let mut held = 0;
    for call in calls {
        let order = call.await??;
        match order.status() {
            OrderStatus::Held => held += 1,
            _ => assert_eq!(order.reason(), Some(Reason::BuyerLimit), "{order:?}"),
        }
    }
    Ok(held)
}

#[tokio::test(start_paused = true)]
async fn a_buyer_holds_what_she_likes_unless_there_are_rules() -> Result {
    let flux = sale(BuyerRules::default()).await?;
    let many = || (0..300).map(|n| one("ann", ["a", "b", "c"][n % 3]));
    assert_eq!(held_of(&[&flux], many()).await?, 300);
    let order = flux.place(one("ann", "a")).await?;
    flux.release(order.id).await?;
    assert_eq!(flux.place(one("ann", "a")).await?.status(), OrderStatus::Held);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn of_many_orders_at_once_a_buyer_holds_as_many_as_the_rule_says() -> Result {
    let flux = sale(holds(4)).await?;
    let crowd = || (0..300).map(|n| one(["ann", "bob"][n % 2], ["a", "b", "c"][n % 3]));
    assert_eq!(held_of(&[&flux], crowd()).await?, 8);
    // An order that is turned down takes nothing from the others in its batch.
    let few = flux.item(&"a".parse()?).await?.expect("the item is there");
    assert_eq!(few.held + few.available, 1_000);
    // Each way out of a hold makes room for one.
    let orders = flux.orders(&Default::default(), None, 1_000).await?.orders;
    let anns = orders
        .iter()
        .filter(|order| order.status() == OrderStatus::Held && order.buyer.as_str() == "ann");
    let anns: Vec<_> = anns.map(|order| order.id).collect();
    flux.confirm(anns[0], PaymentRef::new("p")?).await?;
    flux.release(anns[1]).await?;
    assert_eq!(held_of(&[&flux], (0..9).map(|_| one("ann", "b"))).await?, 2);
    tokio::time::sleep(HOLD + Duration::from_secs(1)).await;
    assert_eq!(held_of(&[&flux], (0..9).map(|_| one("ann", "c"))).await?, 4);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn an_order_over_a_cap_does_not_count_as_a_hold_of_those_that_came_with_it() -> Result {
    let flux = sale(holds(1)).await?;
    flux.put_item(ItemSpec::builder().id("d").capacity(9).max_per_buyer(1).build()?).await?;
    let bought = flux.place(one("ann", "d")).await?;
    flux.confirm(bought.id, PaymentRef::new("p")?).await?;
    // Bob's order makes it one write with both of hers.
    let lines = vec![Line::units("d", 1)?, Line::units("b", 1)?];
    let both = OrderRequest::builder().buyer("bob").lines(lines).build()?;
    let (more, other, bobs) =
        tokio::join!(flux.place(one("ann", "d")), flux.place(one("ann", "b")), flux.place(both));
    assert_eq!(bobs?.status(), OrderStatus::Held);
    assert_eq!(more?.reason(), Some(Reason::BuyerLimit));
    let other = other?;
    assert_eq!((other.status(), other.reason()), (OrderStatus::Held, None));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn who_let_a_hold_go_waits_for_the_next_of_that_item() -> Result {
    let flux = sale(pause()).await?;
    let reason = async |buyer, item| flux.place(one(buyer, item)).await.map(|o| o.reason());
    let expires = flux.place(one("ann", "a")).await?;
    let released = flux.place(one("bob", "a")).await?;
    flux.release(released.id).await?;
    // From the release on, not from where the hold would have ended.
    let end = released.placed_at + PAUSE;
    assert_eq!(reason("bob", "a").await?, Some(Reason::BuyerLimit));
    assert_eq!(reason("bob", "b").await?, None);
    tokio::time::sleep(HOLD + Duration::from_secs(1)).await;
    assert_eq!(reason("ann", "a").await?, Some(Reason::BuyerLimit));
    let lines = vec![Line::units("b", 1)?, Line::units("a", 1)?];
    let both = OrderRequest::builder().buyer("ann").lines(lines).build()?;
    assert_eq!(flux.place(both).await?.reason(), Some(Reason::BuyerLimit));
    assert_eq!(reason("cyd", "a").await?, None);

    let until = async |time: Timestamp| {
        let now = flux.place(one(&format!("clock-{}", time.as_millis()), "c")).await?.placed_at;
        tokio::time::sleep(time.since(now)).await;
        Result::Ok(())
    };
    until(end).await?;
    assert_eq!(reason("bob", "a").await?, None);
    assert_eq!(reason("ann", "a").await?, Some(Reason::BuyerLimit));
    until(expires.hold().expect("held").expires_at + PAUSE).await?;
    assert_eq!(reason("ann", "a").await?, None);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn money_in_time_or_late_pauses_nobody() -> Result {
    let flux = sale(pause()).await?;
    let in_time = flux.place(one("ann", "a")).await?;
    flux.confirm(in_time.id, PaymentRef::new("p1")?).await?;
    flux.cancel(in_time.id).await?;
    let late = flux.place(one("ann", "a")).await?;
    assert_eq!(late.status(), OrderStatus::Held, "a sale that is taken back is no hold");
    tokio::time::sleep(HOLD + Duration::from_secs(1)).await;
    let paid = flux.confirm(late.id, PaymentRef::new("p2")?).await?;
    assert_eq!(paid.status(), OrderStatus::Confirmed, "the rules are about holds");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn engines_that_take_each_others_items_keep_the_rules() -> Result {
    let rules = BuyerRules::builder().maybe_holds_max(NonZeroU32::new(3));
    let rules = rules.hold_again_after(PAUSE).build();
    let backend = Backend::memory_with().buyer_rules(rules).build();
    let backend = Backend { locks: Arc::new(YesLocks), ..backend };
    let engines = [engine(&backend), engine(&backend), engine(&backend)];
    put_items(&engines[0]).await?;
    let flux: Vec<_> = engines.iter().collect();
    for round in 0..6 {
        let buyers = ["ann", "bob", "cyd", "dan"];
        let crowd = (0..60).map(|n| one(buyers[n % 4], ["a", "b", "c"][(n / 4 + round) % 3]));
        held_of(&flux, crowd).await?;
        let orders = engines[1].orders(&Default::default(), None, 1_000).await?.orders;
        let live = orders.iter().filter(|order| order.status() == OrderStatus::Held);
        for (n, order) in live.enumerate() {
            match n % 3 {
                0 => drop(engines[n % 2].release(order.id).await?),
                1 => drop(engines[0].confirm(order.id, PaymentRef::new("p")?).await?),
                _ => {}
            }
        }
        tokio::time::sleep(Duration::from_secs(11)).await;
    }
    let end = EndState::read(&*backend.store, START).await?.with_buyer_rules(rules);
    let end = end.with_grace(Duration::from_millis(500));
    assert!(end.orders.iter().any(|order| order.hold().is_some()));
    assert!(end.orders.iter().any(|order| order.reason() == Some(Reason::BuyerLimit)));
    let history = History::new();
    end.orders.iter().for_each(|order| history.asked(&order.with_state(OrderState::Queued)));
    assert_eq!(history.check(&end), []);
    Ok(())
}

/// One thing that a buyer does; numbers choose among what is there.
#[derive(Clone, Debug)]
enum Step {
    Hold(usize, Vec<usize>),
    Release(prop::sample::Index),
    Expire(prop::sample::Index),
    Pay(prop::sample::Index),
    PayLate(prop::sample::Index),
    Wait(u64),
    Look,
}

fn step() -> impl Strategy<Value = Step> {
    let which = any::<prop::sample::Index>;
    prop_oneof![
        8 => (0..3_usize, vec(0..3_usize, 1..3)).prop_map(|(buyer, on)| Step::Hold(buyer, on)),
        2 => which().prop_map(Step::Release),
        2 => which().prop_map(Step::Expire),
        1 => which().prop_map(Step::Pay),
        1 => which().prop_map(Step::PayLate),
        4 => (0..40_000_u64).prop_map(Step::Wait),
        1 => Just(Step::Look),
    ]
}

/// A store, and a clerk who looks through all orders before each.
struct Clerk {
    store: Arc<dyn InventoryStore>,
    rules: BuyerRules,
    orders: Vec<Order>,
    /// The orders whose holds ended unpaid, as they ended.
    ended: Vec<Order>,
    now: Timestamp,
}

impl Clerk {
    async fn of(rules: BuyerRules) -> Self {
        let store = Backend::memory_with().buyer_rules(rules).build().store;
        for item in ["a", "b", "c"] {
            store.put_item(&ItemSpec::pool(item, 1_000).expect("pool")).await.expect("put");
        }
        Self { store, rules, orders: Vec::new(), ended: Vec::new(), now: START }
    }

    fn is_barred(&self, new: &Order) -> bool {
        let of_buyer = |order: &&Order| order.buyer == new.buyer;
        let live = |order: &&Order| of_buyer(order) && order.status() == OrderStatus::Held;
        let holds = self.orders.iter().filter(live).count();
        let shares = |order: &Order| {
            order.lines.iter().any(|line| new.lines.iter().any(|own| own.item == line.item))
        };
        let paused = self.ended.iter().filter(of_buyer).filter(|order| shares(order));
        self.rules.holds_max.is_some_and(|max| holds >= max.get() as usize)
            || paused.into_iter().any(|order| self.rules.paused_until(order) > Some(self.now))
    }

    async fn write(&mut self, order: Order, expect: Expect) -> CommitOutcome {
        let items: Vec<_> = ["a", "b", "c"].map(|id| id.parse().expect("a name")).into();
        let claims = self.store.claim(&items).await.expect("claim").into_iter().flatten();
        let claims = claims.map(|claim| (claim.spec.id.clone(), claim.token)).collect();
        let writes = vec![OrderWrite { order, expect }];
        self.store.commit(&[Commit { claims, writes }]).await.expect("commit").remove(0)
    }

    /// Turns an order that is in that state into another.
    async fn turn(
        &mut self,
        which: &prop::sample::Index,
        from: OrderStatus,
        to: impl FnOnce(Hold) -> OrderState,
    ) {
        let met = |order: &&Order| order.status() == from;
        let met: Vec<_> = self.orders.iter().filter(met).cloned().collect();
        if met.is_empty() {
            return;
        }
        let order = which.get(&met);
        let order = order.with_state(to(order.hold().expect("it had one")));
        let outcome = self.write(order.clone(), Expect::Status(from)).await;
        assert_eq!(outcome, CommitOutcome::Applied, "no rule is about the end of a hold");
        if matches!(order.status(), OrderStatus::Released | OrderStatus::Expired) {
            self.ended.push(order.clone());
        }
        let at = order.id.as_uuid().as_u128() as usize;
        self.orders[at] = order;
    }

    async fn run(&mut self, step: &Step) {
        let now = self.now;
        let paid = || PaymentRef::new("p").expect("ref");
        match step {
            Step::Hold(buyer, on) => {
                let line = |at: &usize| Line::units(["a", "b", "c"][*at], 1).expect("line");
                let lines = Lines::new(on.iter().map(line).collect()).expect("lines");
                let buyer = ["ann", "bob", "cyd"][*buyer].parse().expect("buyer");
                let id = OrderId::from_uuid(Uuid::from_u128(self.orders.len() as u128));
                let state = OrderState::Held(Hold::between(now, now + HOLD));
                let new = Order::queued(id, buyer, lines, now).with_state(state);
                let outcome = self.write(new.clone(), Expect::Absent).await;
                if self.is_barred(&new) {
                    let barred = vec![id];
                    let (moved, over_cap) = (vec![], vec![]);
                    assert_eq!(outcome, CommitOutcome::Conflict { moved, over_cap, barred });
                } else {
                    assert_eq!(outcome, CommitOutcome::Applied, "{new:?}");
                    self.orders.push(new);
                }
            }
            Step::Release(which) => {
                let to = |hold: Hold| {
                    let end = hold.expires_at.min(now);
                    OrderState::Released(Hold::between(hold.decided_at, end))
                };
                self.turn(which, OrderStatus::Held, to).await;
            }
            Step::Expire(which) => {
                self.turn(which, OrderStatus::Held, OrderState::Expired).await;
            }
            Step::Pay(which) => {
                let held = |order: &&Order| order.status() == OrderStatus::Held;
                let held: Vec<_> = self.orders.iter().filter(held).map(|o| o.id).collect();
                if held.is_empty() {
                    return;
                }
                let order = *which.get(&held);
                let payment = Payment::new(order, paid(), START);
                self.store.confirm(&[payment]).await.expect("confirm");
                let at = order.as_uuid().as_u128() as usize;
                let hold = self.orders[at].hold().expect("held");
                self.orders[at] = self.orders[at].with_state(OrderState::Confirmed(hold, paid()));
            }
            Step::PayLate(which) => {
                let to = |hold| OrderState::Confirmed(hold, paid());
                self.turn(which, OrderStatus::Expired, to).await;
            }
            Step::Wait(millis) => self.now = now + Duration::from_millis(*millis),
            Step::Look => drop(self.store.due_holds(now, 100).await.expect("due holds")),
        }
    }
}

proptest! {
    #[test]
    fn a_store_with_rules_agrees_with_a_clerk_who_counts_anew(
        max in 0..4_u32, pauses in any::<bool>(), steps in vec(step(), 1..80),
    ) {
        let rules = BuyerRules::builder().maybe_holds_max(NonZeroU32::new(max));
        let rules = rules.maybe_hold_again_after(pauses.then_some(PAUSE)).build();
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let mut clerk = Clerk::of(rules).await;
            for step in &steps {
                clerk.run(step).await;
            }
        });
    }
}
