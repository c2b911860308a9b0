//! Two processes that accept orders, and the ids that callers chose: whoever is asked says
//! the same, with Redis there, away, and while it goes.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use flux_aws::bill::Meter;
use flux_aws::dynamodb::DynamoStore;
use flux_core::protocol::Message;
use flux_core::seams::{
    DeadLetter, Delivery, InventoryStore, OrderQueue, QueueDepth, Recalled, Receipt, SeamError,
};
use flux_core::{
    Backend, Error, Flux, ItemSpec, Order, OrderId, OrderRequest, OrderStatus, Role, Timestamp,
};
use uuid::Uuid;

use crate::server::{Server, free_port};
use crate::{PATIENCE, eventually, item, metered, open, prefix, shared_url, variable};

type Sent<T = ()> = Result<T, SeamError>;

/// A queue that can't be looked into, as SQS.
struct Blind(Arc<dyn OrderQueue>);

#[async_trait]
impl OrderQueue for Blind {
    async fn send(&self, messages: &[Message]) -> Sent {
        self.0.send(messages).await
    }
    async fn receive(&self, max: usize, wait: Duration) -> Sent<Vec<Delivery>> {
        self.0.receive(max, wait).await
    }
    async fn ack(&self, receipts: &[Receipt]) -> Sent {
        self.0.ack(receipts).await
    }
    async fn retry(&self, receipts: &[Receipt], delay: Duration) -> Sent {
        self.0.retry(receipts, delay).await
    }
    async fn extend(&self, receipts: &[Receipt]) -> Sent {
        self.0.extend(receipts).await
    }
    async fn bury(&self, receipts: &[(Receipt, String)]) -> Sent {
        self.0.bury(receipts).await
    }
    async fn dead_letters(&self, max: usize) -> Sent<Vec<DeadLetter>> {
        self.0.dead_letters(max).await
    }
    async fn redrive(&self, max: usize) -> Sent<usize> {
        self.0.redrive(max).await
    }
    async fn find(&self, _: OrderId) -> Sent<Option<Order>> {
        Ok(None)
    }
    fn finds_all(&self) -> bool {
        false
    }
    fn tells_of(&self, _: OrderId) -> bool {
        false
    }
    async fn depth(&self) -> Sent<QueueDepth> {
        self.0.depth().await
    }
}

/// A table and a queue, which processes share.
struct Shared {
    client: Client,
    table: String,
    meter: Meter,
    backend: Backend,
    prefix: String,
    url: String,
}

impl Shared {
    async fn behind(url: &str) -> Self {
        let endpoint = variable("AWS_ENDPOINT_URL_DYNAMODB");
        assert!(endpoint.starts_with("http://127.0.0.1:"), "{endpoint} is not on this machine");
        let client = Client::new(&flux_aws::aws::from_env().await);
        let table = format!("flux-{}", Uuid::new_v4().simple());
        let (meter, backend, prefix) = (Meter::default(), Backend::memory(), prefix());
        let shared = Self { client, table, meter, backend, prefix, url: url.to_owned() };
        let store = shared.store();
        store.create_table().await.expect("the emulator makes tables");
        let spec = ItemSpec::pool("a", 5).expect("an item");
        store.put_item(&spec).await.expect("put");
        shared
    }

    fn store(&self) -> DynamoStore {
        let store = DynamoStore::builder().client(&self.client).table(&self.table);
        store.meter(self.meter.clone()).build()
    }

    /// A process that has just begun.
    fn process(&self, role: Role) -> Flux {
        let redis = open(&self.url, &self.prefix);
        let queue = Arc::new(Blind(Arc::clone(&self.backend.queue)));
        let queue = Arc::new(redis.remember(queue));
        let store = Arc::new(self.store());
        let backend = Backend { queue, store, ..self.backend.clone() };
        Flux::builder(backend).role(role).start()
    }

    fn updates(&self) -> u64 {
        let name = ("dynamodb".to_owned(), "UpdateItem".to_owned());
        self.meter.bill().calls.get(&name).copied().unwrap_or(0)
    }

    /// Closes the sale at its gates.
    async fn close(&self) {
        let closed = ItemSpec::builder().id("a").capacity(5);
        let closed = closed.closes_at(Timestamp::from_millis(1)).build().expect("an item");
        self.store().put_item(&closed).await.expect("put");
    }

    /// Decides all that waits, and checks that it is these orders.
    async fn decided(&self, orders: &[&Order]) {
        let worker = self.process(Role::Both);
        for order in orders {
            let decided = worker.wait(order.id, PATIENCE).await.expect("it was accepted");
            assert_eq!(decided.status(), OrderStatus::Held);
            assert!(decided.asks_the_same_as(order), "{decided:?} of {order:?}");
        }
        let counts = || async {
            let depth = worker.depth().await.expect("it is there");
            (depth.waiting + depth.in_flight, depth.dead)
        };
        eventually(counts, |counts| *counts == (0, 0)).await;
        let audit = worker.audit().await.expect("the store is there");
        assert!(audit.is_clean(), "{audit}");
        assert_eq!(audit.count(OrderStatus::Held), orders.len() as u64, "{audit}");
        worker.shutdown().await;
    }
}

fn id() -> OrderId {
    OrderId::from_uuid(Uuid::new_v4())
}

fn one(buyer: &str, id: OrderId) -> OrderRequest {
    OrderRequest::units(buyer, "a", 1).expect("a request").with_id(id)
}

/// Checks that a process knows an order that another accepted, by each way to ask.
async fn assert_knows(process: &Flux, order: &Order) {
    assert_eq!(process.order(order.id).await.expect("it answers").as_ref(), Some(order));
    if order.id.to_string().as_bytes()[14] == b'7' {
        return;
    }
    let again = process.submit(one(order.buyer.as_str(), order.id)).await;
    assert_eq!(again.as_ref().expect("a repeat"), order);
    for other in [one("eve", order.id), OrderRequest::units("ann", "a", 2).expect("a request")] {
        let other = process.submit(other.with_id(order.id)).await;
        assert!(matches!(other, Err(Error::IdReused(_))), "{other:?}");
    }
}

#[tokio::test]
async fn without_redis_every_process_knows_what_one_accepted() {
    let shared = Shared::behind(&format!("redis://127.0.0.1:{}", free_port())).await;
    let (here, elsewhere) = (shared.process(Role::AcceptOnly), shared.process(Role::AcceptOnly));
    let chosen = here.submit(one("ann", id())).await.expect("accepted");
    let made = here.submit(OrderRequest::units("bob", "a", 1).expect("a request")).await;
    let made = made.expect("accepted");
    here.shutdown().await;
    let again = shared.process(Role::AcceptOnly);
    for process in [&elsewhere, &again] {
        for order in [&chosen, &made] {
            assert_eq!(order.status(), OrderStatus::Queued);
            assert_knows(process, order).await;
        }
    }
    let depth = shared.backend.queue.depth().await.expect("it is there");
    assert_eq!(depth.waiting, 2, "repeats are not sent");

    // Two at once, in two processes.
    let contested = id();
    let (anns, bobs) =
        tokio::join!(elsewhere.submit(one("ann", contested)), again.submit(one("bob", contested)));
    let winner = match (anns, bobs) {
        (Ok(order), Err(Error::IdReused(_))) | (Err(Error::IdReused(_)), Ok(order)) => order,
        both => panic!("{both:?}"),
    };
    shared.decided(&[&chosen, &made, &winner]).await;
    let repeat = again.submit(one("ann", chosen.id)).await.expect("a repeat");
    assert_eq!(repeat.status(), OrderStatus::Held);
}

#[tokio::test]
async fn a_repeat_meets_no_shut_gate_elsewhere() {
    let shared = Shared::behind(&format!("redis://127.0.0.1:{}", free_port())).await;
    let here = shared.process(Role::AcceptOnly);
    let order = here.submit(one("ann", id())).await.expect("accepted");
    shared.close().await;
    let elsewhere = shared.process(Role::AcceptOnly);
    let new = elsewhere.submit(one("ann", id())).await;
    assert!(matches!(new, Err(Error::Closed(_))), "{new:?}");
    assert_knows(&elsewhere, &order).await;
}

#[tokio::test]
async fn what_was_accepted_while_redis_was_away_is_known_when_it_is_back() {
    let mut server = Server::start().await;
    let shared = Shared::behind(&server.url()).await;
    let (here, elsewhere) = (shared.process(Role::AcceptOnly), shared.process(Role::AcceptOnly));
    let before = shared.updates();
    let noted = here.submit(one("ann", id())).await.expect("accepted");
    assert_knows(&elsewhere, &noted).await;
    assert_eq!(shared.updates(), before, "with Redis there the table takes no note");

    server.kill();
    let orders = [here.submit(one("ann", id())).await, here.submit(one("ann", id())).await];
    let orders = orders.map(|order| order.expect("accepted"));
    server.resume().await;
    let probe = open(&server.url(), &shared.prefix);
    eventually(|| async { probe.is_up() }, |up| *up).await;
    for order in &orders {
        assert_knows(&elsewhere, order).await;
    }
    shared.decided(&[&noted, &orders[0], &orders[1]]).await;
}

#[tokio::test]
async fn what_redis_refuses_to_note_is_noted_in_the_table() {
    let server = Server::start().await;
    let shared = Shared::behind(&server.url()).await;
    let (here, elsewhere) = (shared.process(Role::AcceptOnly), shared.process(Role::AcceptOnly));
    server.ask(&["ACL", "SETUSER", "default", "-@scripting"]).await;
    let order = here.submit(one("ann", id())).await.expect("accepted");
    assert_knows(&elsewhere, &order).await;
    shared.decided(&[&order]).await;
}

/// The gate refuses, and Redis never heard of the id: half a read unit, the least there is.
#[tokio::test]
async fn a_latecomer_with_an_id_of_his_own_costs_half_a_read_unit() {
    const LATECOMERS: usize = 200;
    let server = Server::start().await;
    let shared = Shared::behind(&server.url()).await;
    let first = shared.process(Role::AcceptOnly);
    let order = first.submit(one("ann", id())).await.expect("accepted");
    shared.close().await;
    let api = shared.process(Role::AcceptOnly);
    let late = async || {
        let late = api.submit(one("bob", id())).await;
        assert!(matches!(late, Err(Error::Closed(_))), "{late:?}");
    };
    let reads = || shared.meter.bill().read_units;
    // Redis is new, so for a moment nothing is concluded from what it does not have.
    let one = async || {
        let before = reads();
        late().await;
        reads() - before
    };
    eventually(one, |units| *units == 0.5).await;
    let before = reads();
    futures_util::future::join_all((0..LATECOMERS).map(|_| late())).await;
    let each = (reads() - before) / LATECOMERS as f64;
    println!("{each} read units for a latecomer");
    // The gate reads the item again each second.
    assert!(each <= 0.52, "{each}");
    assert_knows(&api, &order).await;
    let open = ItemSpec::pool("a", 5).expect("an item");
    shared.store().put_item(&open).await.expect("put");
    shared.decided(&[&order]).await;
    shared.close().await;
    assert_knows_decided(&api, &order).await;
    let elsewhere = shared.process(Role::AcceptOnly);
    assert_knows_decided(&elsewhere, &order).await;
}

async fn assert_knows_decided(process: &Flux, order: &Order) {
    let again = process.submit(one(order.buyer.as_str(), order.id)).await.expect("a repeat");
    assert_eq!(again.status(), OrderStatus::Held);
}

/// A process died after it reserved an id and before it sent the order.
#[tokio::test]
async fn an_id_that_is_only_reserved_is_no_order_and_a_repeat_becomes_one() {
    let shared = Shared::behind(&format!("redis://127.0.0.1:{}", free_port())).await;
    let (elsewhere, id) = (shared.process(Role::AcceptOnly), id());
    let OrderRequest { buyer, lines, .. } = one("ann", id);
    let reserved = Order::queued(id, buyer, lines, Timestamp::from_millis(7));
    assert_eq!(shared.store().reserve(&reserved).await.expect("it answers"), None);
    assert_eq!(elsewhere.order(id).await.expect("it answers"), None);
    let other = elsewhere.submit(one("eve", id)).await;
    assert!(matches!(other, Err(Error::IdReused(_))), "{other:?}");
    let order = elsewhere.submit(one("ann", id)).await.expect("a repeat");
    assert_knows(&elsewhere, &order).await;
    shared.decided(&[&order]).await;
    let sold = elsewhere.item(&item("a")).await.expect("it answers").expect("it is there");
    assert_eq!(sold.available, 4);
}

#[tokio::test]
async fn of_all_partitions_the_last_alone_asks_redis() {
    let meter = Meter::default();
    let redis = metered(&shared_url(), &prefix(), &meter);
    let blind = || Arc::new(Blind(Backend::memory().queue)) as Arc<dyn OrderQueue>;
    let [first, last] = redis.remember_all(vec![blind(), blind()]).try_into().expect("two");
    let calls = || meter.bill().calls.values().sum::<u64>();
    last.recall(id()).await.expect("it looks");
    let before = calls();
    assert!(matches!(first.recall(id()).await, Ok(Recalled::Unknown)));
    assert_eq!(first.announce(id()).await.expect("it asks nobody"), None);
    assert_eq!(calls(), before);
    assert_eq!(last.announce(id()).await.expect("it is noted"), None);
    assert!(calls() > before);
}
