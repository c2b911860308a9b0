//! The recount of a store that sells at full speed: it finds every fault, and no movement.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use flux_core::protocol::{Claim, Commit, CommitOutcome, Stock};
use flux_core::seams::{
    Begun, ConfirmOutcome, Cursor, DueHolds, InventoryStore, OrderFilter, OrderPage, Owed, Payment,
    PutOutcome, RefundOutcome, Repayment, SeamError,
};
use flux_core::{
    AuditFault, Backend, Flux, Hold, Item, ItemId, ItemSpec, Line, Lines, Order, OrderId,
    OrderRequest, OrderState, OrderStatus, PaymentRef, Timestamp,
};

type Answer<T> = Result<T, SeamError>;

const SEATS: [&str; 6] = ["s1", "s2", "s3", "s4", "s5", "s6"];
const CALLERS: usize = 24;
const AUDITS: usize = 12;

fn one(item: &str, buyer: &str) -> OrderRequest {
    OrderRequest::units(buyer, item, 1).expect("a request")
}

/// Items that change all the time, and those nobody asks for.
async fn open(flux: &Flux) {
    let brief = |id, capacity| ItemSpec::builder().id(id).capacity(capacity).hold_seconds(1);
    for spec in [
        brief("few", 40).max_per_buyer(2).build(),
        brief("many", 1_000_000).build(),
        ItemSpec::hall("hall", SEATS),
        ItemSpec::pool("still", 100),
        ItemSpec::hall("still-hall", SEATS),
        ItemSpec::builder().id("still-capped").capacity(9).max_per_buyer(2).build(),
    ] {
        flux.put_item(spec.expect("a definition")).await.expect("put");
    }
    for n in 0..30 {
        let order = flux.place(one("still", &format!("buyer-{n}"))).await.expect("placed");
        if n % 2 == 0 {
            let paid = PaymentRef::new("p").expect("p");
            flux.confirm(order.id, paid).await.expect("paid");
        }
    }
}

/// Orders, pays, pays late, gives back and takes back, until told to stop.
async fn sell(flux: Flux, caller: usize, stops: Arc<AtomicBool>) -> usize {
    let payment = PaymentRef::new("p").expect("p");
    let both = ["few", "many"].map(|item| Line::units(item, 1).expect("a line"));
    let both = Lines::new(both.to_vec()).expect("lines");
    let (mut late, mut done) = (None, 0);
    for n in 0.. {
        if stops.load(Ordering::Relaxed) {
            break;
        }
        let buyer = format!("buyer-{}", (caller * 7 + n) % 40);
        let request = match n % 4 {
            0 => one("many", &buyer),
            1 => OrderRequest::seats(&buyer, "hall", [SEATS[(caller + n) % 6]]).expect("a seat"),
            2 => OrderRequest::of(buyer.parse().expect("a buyer"), both.clone()),
            _ => one("few", &buyer),
        };
        let Ok(order) = flux.place(request).await else {
            // The gate answers without a wait.
            tokio::time::sleep(Duration::from_millis(1)).await;
            continue;
        };
        done += 1;
        if order.status() != OrderStatus::Held {
            continue;
        }
        match n % 5 {
            0 | 1 => drop(flux.release(order.id).await),
            2 if flux.confirm(order.id, payment.clone()).await.is_ok() => {
                drop(flux.cancel(order.id).await);
            }
            // One is left to its end, and perhaps paid for after it.
            _ => {
                if let Some(id) = late.replace(order.id)
                    && flux.confirm(id, payment.clone()).await.is_ok()
                {
                    drop(flux.cancel(id).await);
                }
            }
        }
    }
    done
}

async fn audited_while_it_sells(backend: Backend) {
    let flux = Flux::builder(backend).start();
    open(&flux).await;
    let stops = Arc::<AtomicBool>::default();
    let selling: Vec<_> =
        (0..CALLERS).map(|n| tokio::spawn(sell(flux.clone(), n, stops.clone()))).collect();
    let mut moving = 0;
    for n in 0..AUDITS {
        tokio::time::sleep(Duration::from_millis(120)).await;
        let audit = flux.audit().await.expect("counted");
        assert!(audit.is_clean(), "audit {n}: {audit}");
        moving += audit.moving;
    }
    assert!(moving > 0, "it sold meanwhile");
    stops.store(true, Ordering::Relaxed);
    let mut orders = 0;
    for seller in selling {
        orders += seller.await.expect("no panic");
    }
    println!("{AUDITS} audits beside {orders} orders; {moving} times an item moved");
    let audit = flux.audit().await.expect("counted");
    assert!(audit.is_clean(), "{audit}");
    assert_eq!(audit.capacity, 1_000_000 + 40 + 6 + 100 + 6 + 9);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn movement_in_memory_is_no_fault() {
    audited_while_it_sells(Backend::memory()).await;
}

#[cfg(feature = "embedded")]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn movement_on_disk_is_no_fault() {
    let dir = tempfile::tempdir().expect("a directory");
    let embedded = flux_core::backends::embedded::Embedded::open(dir.path()).expect("opens");
    audited_while_it_sells(embedded.backend()).await;
}

/// What a store shows beside what is in it.
#[derive(Debug, Default)]
struct Planted {
    /// Orders, those that are here twice listed twice.
    orders: Vec<Order>,
    /// The item of whose stock a unit is missing.
    short: Option<ItemId>,
}

struct Crooked {
    store: Arc<dyn InventoryStore>,
    planted: Mutex<Planted>,
}

impl Crooked {
    fn planted<T>(&self, look: impl FnOnce(&mut Planted) -> T) -> T {
        look(&mut self.planted.lock().expect("no panic"))
    }
}

#[async_trait]
impl InventoryStore for Crooked {
    async fn put_item(&self, spec: &ItemSpec) -> Answer<PutOutcome> {
        self.store.put_item(spec).await
    }
    async fn claim(&self, items: &[ItemId]) -> Answer<Vec<Option<Claim>>> {
        self.store.claim(items).await
    }
    async fn commit(&self, commits: &[Commit]) -> Answer<Vec<CommitOutcome>> {
        self.store.commit(commits).await
    }
    async fn begin_commit(&self, commits: &[Commit]) -> Answer<Begun> {
        self.store.begin_commit(commits).await
    }
    async fn confirm(&self, payments: &[Payment]) -> Answer<Vec<ConfirmOutcome>> {
        self.store.confirm(payments).await
    }
    async fn refund(&self, repayments: &[Repayment]) -> Answer<Vec<RefundOutcome>> {
        self.store.refund(repayments).await
    }
    async fn owed(&self) -> Answer<Owed> {
        self.store.owed().await
    }
    async fn orders(&self, ids: &[OrderId]) -> Answer<Vec<Option<Order>>> {
        let found = self.store.orders(ids).await?;
        Ok(self.planted(|planted| {
            let by_id = |id: &OrderId| planted.orders.iter().find(|order| order.id == *id);
            ids.iter().zip(found).map(|(id, found)| found.or(by_id(id).cloned())).collect()
        }))
    }
    async fn list_orders(
        &self,
        filter: &OrderFilter,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Answer<OrderPage> {
        let mut page = self.store.list_orders(filter, after, limit).await?;
        if page.next.is_none() {
            page.orders.extend(self.planted(|planted| planted.orders.clone()));
        }
        Ok(page)
    }
    async fn due_holds(&self, now: Timestamp, limit: usize) -> Answer<DueHolds> {
        self.store.due_holds(now, limit).await
    }
    async fn items(&self, ids: &[ItemId]) -> Answer<Vec<Option<Item>>> {
        self.store.items(ids).await
    }
    async fn list_items(&self, after: Option<&ItemId>, limit: usize) -> Answer<Vec<Item>> {
        self.store.list_items(after, limit).await
    }
    async fn stock(&self, item: &ItemId) -> Answer<Option<(Arc<ItemSpec>, Stock)>> {
        let is_short = self.planted(|planted| planted.short.as_ref() == Some(item));
        let stock = self.store.stock(item).await?;
        Ok(stock.map(|(spec, stock)| match stock {
            Stock::Pool { available } if is_short => {
                (spec, Stock::Pool { available: available - 1 })
            }
            stock => (spec, stock),
        }))
    }
}

const FAR: Timestamp = Timestamp::from_millis(4_000_000_000_000);
const PAST: Timestamp = Timestamp::from_millis(1_000_000_000_000);

fn planted(n: u128, buyer: &str, line: Line, end: Timestamp) -> Order {
    let id = OrderId::from_uuid(uuid::Uuid::from_u128(n));
    let lines = Lines::new(vec![line]).expect("lines");
    let order = Order::queued(id, buyer.parse().expect("a buyer"), lines, PAST);
    order.with_state(OrderState::Held(Hold::between(PAST, end)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_fault_is_found_while_it_sells() {
    let backend = Backend::memory();
    let crooked = Arc::new(Crooked { store: backend.store.clone(), planted: Mutex::default() });
    let flux = Flux::builder(Backend { store: crooked.clone(), ..backend }).start();
    open(&flux).await;
    let seat = OrderRequest::seats("ann", "still-hall", ["s1"]).expect("a request");
    let owner = flux.place(seat).await.expect("placed").id;
    let units = |item: &str| Line::units(item, 1).expect("a line");
    let seat = |name: &str| Line::seats("still-hall", [name]).expect("a line");
    let twice = planted(4, "bob", units("many"), FAR);
    let orders = vec![
        planted(1, "bob", seat("s1"), FAR),
        planted(2, "bob", seat("nowhere"), FAR),
        planted(3, "bob", units("nowhere"), FAR),
        twice.clone(),
        twice,
        planted(5, "bob", units("many"), PAST),
        planted(6, "cy", units("still-capped"), FAR),
        planted(7, "cy", units("still-capped"), FAR),
        planted(8, "cy", units("still-capped"), FAR),
        planted(9, "bob", units("many"), FAR).with_state(OrderState::Queued),
    ];
    let ids: Vec<OrderId> = orders.iter().map(|order| order.id).collect();
    let stops = Arc::<AtomicBool>::default();
    let selling: Vec<_> =
        (0..CALLERS).map(|n| tokio::spawn(sell(flux.clone(), n, stops.clone()))).collect();
    let short = Some("still".parse().expect("a name"));
    crooked.planted(|planted| *planted = Planted { orders, short });
    let audit = flux.audit().await.expect("counted");
    stops.store(true, Ordering::Relaxed);
    for seller in selling {
        assert!(seller.await.expect("no panic") > 0);
    }
    let item = |name: &str| -> ItemId { name.parse().expect("a name") };
    let found: BTreeSet<String> = audit.faults.iter().map(|fault| format!("{fault:?}")).collect();
    let should_be = [
        AuditFault::SeatSoldTwice {
            item: item("still-hall"),
            seat: "s1".parse().expect("a seat"),
            orders: [owner, ids[0]],
        },
        AuditFault::NoSuchSeat {
            item: item("still-hall"),
            seat: "nowhere".parse().expect("a seat"),
            order: ids[1],
        },
        AuditFault::NoSuchItem { item: item("nowhere"), order: ids[2] },
        AuditFault::DecidedTwice(ids[3]),
        AuditFault::HoldOutlived(ids[5]),
        AuditFault::OverCap {
            item: item("still-capped"),
            buyer: "cy".parse().expect("a buyer"),
            units: 3,
        },
        AuditFault::Undecided(ids[9]),
        AuditFault::Unbalanced { item: item("still"), says: [69, 15, 15], counted: [70, 15, 15] },
        AuditFault::Unbalanced { item: item("still-hall"), says: [5, 1, 0], counted: [3, 3, 0] },
        AuditFault::Unbalanced { item: item("still-capped"), says: [9, 0, 0], counted: [6, 3, 0] },
    ];
    let should_be: BTreeSet<String> = should_be.iter().map(|fault| format!("{fault:?}")).collect();
    assert_eq!(found, should_be, "{audit}");
    assert!(audit.moving > 0, "it sold meanwhile");
}
