//! The inventory store on DynamoDB.
#![doc = include_str!("design.md")]

#[cfg(test)]
mod answered;
mod claim;
mod commit;
mod conditions;
mod create;
mod debts;
mod draft;
mod feed;
mod format;
mod held;
mod hoarding;
mod items;
mod last_count;
mod list;
mod notes;
mod put;
mod rows;
mod service_clock;
mod stock_row;
mod store;
mod stripes;
mod table;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use bon::bon;
use flux_core::clock::{Clock, SystemClock};
use flux_core::seams::{SeamError, Sight};
use flux_core::{BuyerRules, ItemId, Order, OrderId};

use crate::aws;
use crate::batcher::Batcher;
use crate::bill::Meter;

use claim::Memory;
use feed::FoundFeed;
use format::Format;
use held::HeldUnits;
use hoarding::Hoarding;
use items::Items;
use last_count::LastCount;
use service_clock::ServiceClock;
use stock_row::Known;
use table::Table;

/// Most rows the stock of a pool may be spread over.
const STRIPES_MAX: usize = 32;
/// Time for which a rejected order is remembered, unless the builder says otherwise.
const KEEP_REJECTED: Duration = Duration::from_secs(24 * 3_600);
/// Calls for single orders, or items, that may wait to be read together.
const READS_WAITING_MAX: usize = 65_536;
/// Batches of them on their way at once.
const READS_AT_ONCE: usize = 4;

/// An [`InventoryStore`](flux_core::seams::InventoryStore) in one DynamoDB
/// table, which any number of processes may share. See the
/// [module](self) for the table, and for what each call costs.
///
/// ```no_run
/// # async fn example() -> Result<(), flux_core::seams::SeamError> {
/// use flux_aws::bill::Meter;
/// use flux_aws::dynamodb::DynamoStore;
///
/// let client = aws_sdk_dynamodb::Client::new(&flux_aws::aws::from_env().await);
/// let store = DynamoStore::builder().client(&client).table("flux").build();
/// store.create_table().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct DynamoStore {
    table: Table,
    format: Arc<Format>,
    clock: Arc<dyn Clock>,
    service_clock: ServiceClock,
    stripes: usize,
    keep_rejected: Duration,
    memory: Mutex<Memory>,
    items: Items,
    item_reads: Batcher<ItemId, Result<Option<Known>, SeamError>>,
    order_reads: Batcher<OrderId, Result<Option<Order>, SeamError>>,
    lagging_reads: Batcher<OrderId, Result<Option<Order>, SeamError>>,
    held: Arc<HeldUnits>,
    hoarding: Hoarding,
    last_owed: LastCount,
    feed: Arc<FoundFeed>,
}

#[bon]
impl DynamoStore {
    /// A store in a table that exists, or will. Must be called within a tokio
    /// runtime. Nothing is asked of DynamoDB yet.
    #[builder]
    pub fn new(
        /// A ready-made client; its retries and time-outs are replaced by ours.
        client: &Client,
        /// A client of DynamoDB Streams, by which the store keeps a change feed: the
        /// table's stream, with new and old images, which
        /// [`create_table`](Self::create_table) turns on and [`check`](Self::check) looks
        /// for. Without one there is no feed.
        streams: Option<&aws_sdk_dynamodbstreams::Client>,
        /// The table's name.
        #[builder(into)]
        table: String,
        /// Counts the calls.
        #[builder(default)]
        meter: Meter,
        /// Rows that the stock of a pool made by this store is spread over: 1 to
        /// 32. One serves some thousands of orders a second; the more there are,
        /// the more each claim costs.
        #[builder(default = 1)]
        stripes: usize,
        /// What is asked of buyers before they get another hold; nothing. Give every
        /// process on the table the same rules. Holds are counted from the first one
        /// that is made under the rule on.
        #[builder(default)]
        buyer_rules: BuyerRules,
        /// Time for which an order that was turned down is remembered at least: a day by
        /// default. After that its id is a new order's, as soon as DynamoDB has deleted
        /// it, which may take days.
        #[builder(default = KEEP_REJECTED)]
        keep_rejected: Duration,
        /// Tells the time, for the pause while buyers are counted.
        #[builder(default = Arc::new(SystemClock))]
        clock: Arc<dyn Clock>,
    ) -> Self {
        let service_clock = ServiceClock::default();
        let config = client.config().to_builder().interceptor(service_clock.clone());
        let config = config.retry_config(aws::no_retries());
        let config = config.timeout_config(aws::time_outs(aws::CALL_MAX)).build();
        let table = Table { client: Client::from_conf(config), name: table, meter };
        let format = Arc::new(Format::new(table.clone()));
        let order_reads = |sight| {
            let reader = table.clone();
            let read = move |ids: Vec<OrderId>| {
                let reader = reader.clone();
                async move { store::read_together(&reader, &ids, sight).await }
            };
            Batcher::new(READS_WAITING_MAX, table::GET_MAX, READS_AT_ONCE, read)
        };
        let (now, lagging) = (order_reads(Sight::Now), order_reads(Sight::MayLag));
        let items = Items::new(table.clone());
        let reader = items.clone();
        let read_items = move |ids: Vec<ItemId>| {
            let reader = reader.clone();
            async move { reader.read_together(&ids).await }
        };
        Self {
            held: Arc::new(HeldUnits::new(table.clone(), Arc::clone(&format))),
            hoarding: Hoarding::new(buyer_rules),
            last_owed: LastCount::default(),
            feed: Arc::new(FoundFeed::new(table.clone(), streams.cloned())),
            table,
            format,
            clock,
            service_clock,
            stripes: stripes.clamp(1, STRIPES_MAX),
            keep_rejected,
            memory: Mutex::default(),
            items,
            item_reads: Batcher::new(READS_WAITING_MAX, table::GET_MAX, READS_AT_ONCE, read_items),
            order_reads: now,
            lagging_reads: lagging,
        }
    }
}
