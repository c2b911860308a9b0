//! Whole sales by engines that share one table, judged by their history.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use flux_aws::bill::Meter;
use flux_aws::dynamodb::DynamoStore;
use flux_core::clock::{Clock, SystemClock};
use flux_core::conformance::history::{Demand, EndState, History, Recorded};
use flux_core::layers::{Retry, TimeLimit};
use flux_core::seams::{InventoryStore, PutOutcome};
use flux_core::{
    Backend, Error, Flux, ItemSpec, Line, Order, OrderId, OrderRequest, OrderStatus, PaymentRef,
    Reason,
};
use tokio::sync::watch;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::table::{capped, client, item, order, pool, store, table_name, units};
use crate::wire::{Fate, wired};

/// Asks of one buyer before it gives up.
const PATIENCE: usize = 300;

/// A small generator of our own, so that a seed means the same for ever
/// (Steele, Lea, Flood: SplitMix64, 2014).
fn roll(seed: u64, sides: u64) -> u64 {
    let mut z = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (z ^ (z >> 31)) % sides
}

pub(crate) struct Sale {
    backend: Backend,
    pub(crate) engines: Vec<Flux>,
    history: History,
    /// Sees the table as it is.
    pub(crate) truth: Arc<DynamoStore>,
}

impl Sale {
    /// As many engines as there are clients, each with a wire of its own.
    pub(crate) async fn open(
        wires: Vec<aws_sdk_dynamodb::Client>,
        stripes: usize,
        specs: &[ItemSpec],
    ) -> Self {
        let (well, table, meter) = (client().await, table_name(), Meter::default());
        let truth = store(&well, &table, stripes, &meter).await;
        truth.create_table().await.expect("made");
        for spec in specs {
            assert_eq!(truth.put_item(spec).await.expect("put"), PutOutcome::Created);
        }
        let (backend, history) = (Backend::memory(), History::new());
        let mut engines = Vec::new();
        for wire in &wires {
            let store = store(wire, &table, stripes, &meter).await;
            let store: Arc<dyn InventoryStore> = Arc::new(Recorded::new(store, history.clone()));
            let backend = Backend { store, ..backend.clone() }
                .layered(TimeLimit::new(Duration::from_secs(10)))
                .layered(Retry::default());
            engines.push(Flux::builder(backend).start());
        }
        Self { backend, engines, history, truth }
    }

    /// Places an order until there is an answer, each time at another engine.
    async fn insist(&self, request: &OrderRequest, seed: u64) -> Result<Order, Error> {
        let mut last = None;
        for turn in 0..PATIENCE {
            let engine = &self.engines[(seed as usize + turn) % self.engines.len()];
            match engine.place(request.clone()).await {
                Err(
                    error @ (Error::Backend(_)
                    | Error::OutcomePending(_)
                    | Error::Overloaded { .. }),
                ) => last = Some(error),
                answer => return answer,
            }
            tokio::time::sleep(Duration::from_millis(roll(seed, 50))).await;
        }
        Err(last.expect("it was called"))
    }

    /// A buyer asks, notes the answer, and may pay. `None` at the gate.
    pub(crate) async fn buy(
        self: Arc<Self>,
        seed: u64,
        buyer: String,
        lines: Vec<Line>,
    ) -> Option<Order> {
        let id = OrderId::from_uuid(Uuid::from_u128(u128::from(seed) + 1));
        self.history.asked(&order(seed as usize + 1, &buyer, &lines));
        let request = OrderRequest::builder().id(id).buyer(buyer).lines(lines).build();
        let request = request.expect("a request");
        let placed = match self.insist(&request, seed).await {
            Ok(placed) => placed,
            Err(Error::SoldOut(_)) => {
                self.history.turned_away(id);
                return None;
            }
            Err(error) => panic!("{id}: {error}"),
        };
        self.history.answered(&placed);
        if placed.status() == OrderStatus::Held && seed.is_multiple_of(3) {
            let payment = PaymentRef::new(format!("pay-{seed}")).expect("a name");
            for turn in 0..PATIENCE {
                let engine = &self.engines[turn % self.engines.len()];
                match engine.confirm(id, payment.clone()).await {
                    Ok(paid) => {
                        self.history.answered(&paid);
                        return Some(paid);
                    }
                    Err(
                        Error::Backend(_) | Error::OutcomePending(_) | Error::Overloaded { .. },
                    ) => {}
                    Err(error) => panic!("{id}: {error}"),
                }
            }
            panic!("{id} could not be paid");
        }
        Some(placed)
    }

    /// Lets everything come to rest, then compares it with the history.
    pub(crate) async fn judge(&self, demand: Demand) -> EndState {
        for engine in &self.engines {
            engine.shutdown().await;
        }
        let end = EndState::read(&*self.truth, SystemClock.now()).await.expect("read");
        let end = end.with_grace(Duration::from_secs(30)).with_demand(demand);
        assert_eq!(self.history.check(&end), []);
        let control = Backend { store: self.truth.clone(), ..self.backend.clone() };
        let control = Flux::builder(control).role(flux_core::Role::AcceptOnly).start();
        // The count of held units is read from an index, which may lag.
        let mut audit = control.audit().await.expect("read");
        for _ in 0..50 {
            if audit.is_clean() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            audit = control.audit().await.expect("read");
        }
        assert!(audit.is_clean(), "{audit}");
        assert_eq!(self.backend.queue.depth().await.expect("read").dead, 0);
        end
    }
}

pub(crate) fn owned(orders: &[Order], name: &str) -> u32 {
    let live = orders.iter().filter(|order| order.status().owns_stock());
    let lines = live.flat_map(|order| order.lines.iter()).filter(|line| line.item == item(name));
    lines.map(|line| line.ask.units()).sum()
}

/// A client that is throttled and loses replies, a share of each in 100.
async fn troubled(
    seed: u64,
    throttled: u64,
    lost: u64,
) -> (aws_sdk_dynamodb::Client, Arc<AtomicU64>) {
    let (calls, troubles) = (AtomicU64::new(seed << 32), Arc::new(AtomicU64::new(0)));
    let count = Arc::clone(&troubles);
    let client = wired(&client().await, move |_, _| {
        let dice = roll(calls.fetch_add(1, Ordering::SeqCst), 100);
        let fate = match dice {
            dice if dice < throttled => Fate::throttle(),
            dice if dice < throttled + lost => Fate::Lost,
            _ => return Fate::Well,
        };
        count.fetch_add(1, Ordering::SeqCst);
        fate
    });
    (client, troubles)
}

async fn sale_in_trouble(stripes: usize) {
    let (mut wires, mut troubles) = (Vec::new(), Vec::new());
    for seed in 1..=3 {
        let (wire, count) = troubled(seed, 20, 5).await;
        wires.push(wire);
        troubles.push(count);
    }
    let seats = ItemSpec::hall("h", (0..40).map(|n| format!("S{n}"))).expect("a hall");
    let specs = [capped("a", 150, 3), pool("b", 120), seats];
    let sale = Arc::new(Sale::open(wires, stripes, &specs).await);
    let mut buyers = JoinSet::new();
    for seed in 0..600 {
        let seat = || Line::seats("h", [format!("S{}", roll(seed + 7, 40))]).expect("a line");
        let lines = match roll(seed, 6) {
            0 => vec![units("b", 1)],
            1 => vec![units("a", 1), units("b", 1)],
            2 => vec![seat()],
            3 => vec![seat(), units("a", 1)],
            _ => vec![units("a", 1)],
        };
        buyers.spawn(Arc::clone(&sale).buy(seed, format!("buyer-{}", roll(seed, 150)), lines));
    }
    while let Some(bought) = buyers.join_next().await {
        bought.expect("no panic");
    }
    // Whatever is left finds its buyers: to the last unit, and none more.
    for (number, name) in ["a", "b"].into_iter().enumerate() {
        let left = crate::table::available(&sale.truth, name).await;
        for more in 0..u64::from(left) + 2 {
            let seed = 10_000 + number as u64 * 1_000 + more;
            let last = Arc::clone(&sale).buy(seed, format!("last-{seed}"), vec![units(name, 1)]);
            let is_held = last.await.is_some_and(|order| order.status().owns_stock());
            assert_eq!(is_held, more < u64::from(left), "{more} of {left} of {name}");
        }
    }
    let end = sale.judge(Demand::CoversStock).await;
    assert_eq!((owned(&end.orders, "a"), owned(&end.orders, "b")), (150, 120));
    let troubles: u64 = troubles.iter().map(|count| count.load(Ordering::SeqCst)).sum();
    println!("{} orders, {troubles} calls in trouble", end.orders.len());
    assert!(troubles > 50, "only {troubles} calls failed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn three_engines_throttled_and_losing_replies_sell_exactly_the_stock() {
    sale_in_trouble(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn and_so_they_do_over_stripes() {
    sale_in_trouble(4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_cap_that_comes_while_three_engines_sell_counts_everybody() {
    let wires = vec![client().await, client().await, client().await];
    let sale = Arc::new(Sale::open(wires, 1, &[pool("a", 10_000)]).await);
    let (cap, capped_now) = watch::channel(false);
    let mut buyers = JoinSet::new();
    for seed in 0..900 {
        let (sale, mut capped_now) = (Arc::clone(&sale), capped_now.clone());
        buyers.spawn(async move {
            // The cap comes amid the first five of each buyer, while nobody has as
            // much as it allows.
            if seed >= 500 {
                capped_now.wait_for(|capped| *capped).await.expect("the cap comes");
            }
            tokio::time::sleep(Duration::from_millis(seed % 500 + roll(seed, 200))).await;
            sale.buy(seed, format!("buyer-{}", seed % 100), vec![units("a", 1)]).await
        });
    }
    let mut decided = 0;
    while decided < 200 {
        buyers.join_next().await.expect("there are more").expect("no panic");
        decided += 1;
    }
    let changed = sale.truth.put_item(&capped("a", 10_000, 6)).await.expect("put");
    assert_eq!(changed, PutOutcome::Changed);
    cap.send(true).expect("buyers wait");
    while let Some(bought) = buyers.join_next().await {
        bought.expect("no panic");
    }
    let end = sale.judge(Demand::Any).await;
    // Each of 100 buyers asked for nine and has six: no more, and no fewer.
    assert_eq!(owned(&end.orders, "a"), 600);
    let over = end.orders.iter().filter(|order| order.reason() == Some(Reason::BuyerLimit)).count();
    assert_eq!(over, 300);
}
