//! A table of its own for each test, and the words tests are written in.

use std::sync::Arc;

use aws_sdk_dynamodb::Client;
use flux_aws::bill::{Bill, Meter};
use flux_aws::dynamodb::DynamoStore;
use flux_core::protocol::{Claim, Commit, CommitOutcome, Expect, OrderWrite};
use flux_core::seams::{InventoryStore, OrderFilter};
use flux_core::{
    BuyerId, Hold, ItemId, ItemSpec, Line, Lines, Order, OrderId, OrderState, Reason, Timestamp,
};
use uuid::Uuid;

pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
pub(crate) const LATER: Timestamp = Timestamp::from_millis(1_700_000_600_000);

pub(crate) fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!("{name} is not set; start the services: tests/services cargo nextest run …")
    })
}

/// A client of the emulator.
pub(crate) async fn client() -> Client {
    let endpoint = variable("AWS_ENDPOINT_URL_DYNAMODB");
    let is_loopback = ["http://127.0.0.1:", "http://localhost:"];
    assert!(
        is_loopback.iter().any(|start| endpoint.starts_with(start)),
        "tests make and fill tables; {endpoint} is not on this machine"
    );
    Client::new(&flux_aws::aws::from_env().await)
}

pub(crate) fn table_name() -> String {
    format!("flux-{}", Uuid::new_v4().simple())
}

/// One process's store in a table, which is made if it is not there.
pub(crate) async fn store(
    client: &Client,
    table: &str,
    stripes: usize,
    meter: &Meter,
) -> Arc<DynamoStore> {
    let store = DynamoStore::builder().client(client).table(table);
    Arc::new(store.stripes(stripes).meter(meter.clone()).build())
}

/// A store in a new table, its pools on so many rows.
pub(crate) async fn fresh(stripes: usize) -> Arc<DynamoStore> {
    fresh_metered(stripes, &Meter::default()).await
}

pub(crate) async fn fresh_metered(stripes: usize, meter: &Meter) -> Arc<DynamoStore> {
    let store = store(&client().await, &table_name(), stripes, meter).await;
    store.create_table().await.expect("the emulator makes tables");
    store
}

/// The bill of `work`.
pub(crate) async fn bill_of<T>(meter: &Meter, work: impl Future<Output = T>) -> (T, Bill) {
    let before = meter.bill();
    let done = work.await;
    (done, meter.bill() - &before)
}

pub(crate) fn calls(bill: &Bill) -> u64 {
    bill.calls.values().sum()
}

pub(crate) fn id(n: usize) -> OrderId {
    OrderId::from_uuid(Uuid::from_u128(n as u128))
}

pub(crate) fn item(name: &str) -> ItemId {
    ItemId::new(name).expect("a name")
}

pub(crate) fn pool(name: &str, capacity: u64) -> ItemSpec {
    ItemSpec::pool(name, capacity).expect("a definition")
}

pub(crate) fn capped(name: &str, capacity: u64, cap: u64) -> ItemSpec {
    let spec = ItemSpec::builder().id(name).capacity(capacity).max_per_buyer(cap);
    spec.build().expect("a definition")
}

pub(crate) fn units(item: &str, quantity: u64) -> Line {
    Line::units(item, quantity).expect("a line")
}

pub(crate) fn order(n: usize, buyer: &str, lines: &[Line]) -> Order {
    let buyer = BuyerId::new(buyer).expect("a name");
    Order::queued(id(n), buyer, Lines::new(lines.to_vec()).expect("lines"), NOW)
}

/// An order that gets one unit.
pub(crate) fn single(n: usize, item: &str) -> Order {
    order(n, &format!("buyer-{n}"), &[units(item, 1)])
}

pub(crate) fn held(order: &Order) -> Order {
    order.with_state(OrderState::Held(Hold::between(NOW, LATER)))
}

pub(crate) fn rejected(order: &Order) -> Order {
    order.with_state(OrderState::Rejected(NOW, Reason::SoldOut))
}

pub(crate) fn new(order: &Order) -> OrderWrite {
    OrderWrite { order: order.clone(), expect: Expect::Absent }
}

pub(crate) fn commit(claims: &[&Claim], writes: Vec<OrderWrite>) -> Commit {
    let claims = claims.iter().map(|claim| (claim.spec.id.clone(), claim.token)).collect();
    Commit { claims, writes }
}

pub(crate) async fn claim(store: &DynamoStore, name: &str) -> Claim {
    let claimed = store.claim(&[item(name)]).await.expect("claimed");
    claimed.into_iter().flatten().next().expect("the item is there")
}

/// Commits what must be applied.
pub(crate) async fn apply(store: &DynamoStore, claims: &[&Claim], writes: Vec<OrderWrite>) {
    let outcomes = store.commit(&[commit(claims, writes)]).await.expect("committed");
    assert_eq!(outcomes, [CommitOutcome::Applied]);
}

pub(crate) async fn available(store: &DynamoStore, name: &str) -> u32 {
    store.stock(&item(name)).await.expect("read").expect("it is there").1.available()
}

/// Every order of a listing.
pub(crate) async fn listed(store: &DynamoStore, filter: &OrderFilter) -> Vec<Order> {
    let (mut orders, mut after) = (Vec::new(), None);
    loop {
        let page = store.list_orders(filter, after.as_ref(), 1_000).await.expect("listed");
        orders.extend(page.orders);
        match page.next {
            Some(next) => after = Some(next),
            None => return orders,
        }
    }
}
