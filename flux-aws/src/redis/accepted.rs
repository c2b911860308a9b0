//! Notes the orders that were accepted and are not decided in Redis, for all processes:
//! SQS can't be looked into, and a buyer may ask another process, or the same
//! after a restart, what became of an order. What could not be noted is told, so that
//! the store takes note of it.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use flux_core::protocol::Message;
use flux_core::seams::{DeadLetter, Delivery, OrderQueue, QueueDepth, Receipt, SeamError};
use flux_core::{Order, OrderId};
use redis::Script;

use super::Redis;
use crate::batcher::Batcher;

/// Time after which a note is dropped, unless its order was acknowledged before.
const NOTED_FOR: Duration = Duration::from_secs(15 * 60);
/// Calls whose notes may wait to be made together; what comes on top is not
/// noted here.
const WAITING_MAX: usize = 10_000;
const BATCH_MAX: usize = 256;
/// Bytes of orders noted at once; the largest order has an eighth of it.
const BYTES_MAX: usize = 1 << 20;
/// Deliveries whose notes are dropped with them; others' end by themselves. And orders
/// that were not noted, until that was asked.
const OUT_MAX: usize = 100_000;

const NOTE: &str = "
for place, key in ipairs(KEYS) do
    redis.call('SET', key, ARGV[place + 1], 'PX', ARGV[1], 'NX')
end
return #KEYS";

const DROP: &str = "return redis.call('UNLINK', unpack(KEYS))";

/// An order queue that finds what other processes sent: see
/// [`Redis::remember`].
pub struct Accepted {
    queue: Arc<dyn OrderQueue>,
    redis: Redis,
    notes: Arc<Notes>,
    /// Whether it looks for what it does not know by itself.
    looks: bool,
    /// Orders that are out for work here.
    out: Mutex<HashMap<Receipt, OrderId>>,
}

/// The notes of a queue, all its partitions.
struct Notes {
    /// Whether all of them were noted.
    made: Batcher<Vec<Order>, bool>,
    dropped: Batcher<Vec<OrderId>, ()>,
    looked_up: Batcher<OrderId, Option<Order>>,
    /// Orders that were sent and could not be noted.
    missed: Mutex<HashSet<OrderId>>,
}

impl fmt::Debug for Accepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accepted").field("redis", &self.redis).finish_non_exhaustive()
    }
}

impl Accepted {
    pub(super) fn all(redis: &Redis, partitions: Vec<Arc<dyn OrderQueue>>) -> Vec<Self> {
        let (notes, last) = (Arc::new(Notes::new(redis)), partitions.len().saturating_sub(1));
        let wrap = |(number, queue)| Self {
            queue,
            redis: redis.clone(),
            notes: Arc::clone(&notes),
            looks: number == last,
            out: Mutex::default(),
        };
        partitions.into_iter().enumerate().map(wrap).collect()
    }

    fn out(&self) -> MutexGuard<'_, HashMap<Receipt, OrderId>> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Notes {
    fn new(redis: &Redis) -> Self {
        let (to_note, to_drop) = (redis.clone(), redis.clone());
        let made = Batcher::new(WAITING_MAX, BATCH_MAX, 1, move |batch: Vec<Vec<Order>>| {
            let redis = to_note.clone();
            async move {
                let mut left = batch.iter().flatten().peekable();
                let mut are_noted = true;
                while left.peek().is_some() {
                    let mut bytes = 0;
                    let together = std::iter::from_fn(|| {
                        bytes += left.peek()?.weight();
                        if bytes > BYTES_MAX { None } else { left.next() }
                    });
                    are_noted &= note(&redis, &together.take(BATCH_MAX).collect::<Vec<_>>()).await;
                }
                vec![are_noted; batch.len()]
            }
        });
        let dropped = Batcher::new(WAITING_MAX, BATCH_MAX, 1, move |batch: Vec<Vec<OrderId>>| {
            let redis = to_drop.clone();
            async move {
                let ids: Vec<OrderId> = batch.iter().flatten().copied().collect();
                // A script takes a few thousand arguments.
                for ids in ids.chunks(1_000) {
                    let keys: Vec<String> = ids.iter().map(|id| key(&redis, *id)).collect();
                    let dropping = (&Script::new(DROP), DROP);
                    // Whatever is left ends by itself.
                    let _ = redis.link.script::<i64, _>(dropping, &keys, &[]).await;
                }
                vec![(); batch.len()]
            }
        });
        let to_look = redis.clone();
        let looked_up = Batcher::new(WAITING_MAX, BATCH_MAX, 1, move |ids: Vec<OrderId>| {
            let redis = to_look.clone();
            async move { look(&redis, &ids).await }
        });
        Self { made, dropped, looked_up, missed: Mutex::default() }
    }

    fn missed(&self) -> MutexGuard<'_, HashSet<OrderId>> {
        self.missed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn note(redis: &Redis, orders: &[&Order]) -> bool {
    let keys: Vec<String> = orders.iter().map(|order| key(redis, order.id)).collect();
    let write = |order: &&Order| serde_json::to_string(order).expect("an order is plain data");
    let mut arguments = vec![NOTED_FOR.as_millis().to_string()];
    arguments.extend(orders.iter().map(write));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let noting = (&Script::new(NOTE), NOTE);
    let noted = redis.link.script::<i64, _>(noting, &keys, &arguments).await;
    if let Err(error) = &noted {
        tracing::debug!(%error, "accepted orders were not noted in Redis");
    }
    noted.is_ok()
}

/// Looks up the notes of some orders, for callers who each ask for one.
async fn look(redis: &Redis, ids: &[OrderId]) -> Vec<Option<Order>> {
    let mut get = redis::cmd("MGET");
    for id in ids {
        get.arg(key(redis, *id));
    }
    let noted = redis.link.command::<Vec<Option<String>>>("MGET", &get).await;
    let noted = noted.unwrap_or_default().into_iter().chain(std::iter::repeat(None));
    let read = |(id, noted): (&OrderId, Option<String>)| {
        let order: Order = serde_json::from_str(&noted?).ok()?;
        (order.id == *id).then_some(order)
    };
    ids.iter().zip(noted).map(read).collect()
}

fn key(redis: &Redis, id: OrderId) -> String {
    format!("flux:accepted:{{{}}}:{id}", redis.prefix)
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl OrderQueue for Accepted {
    async fn send(&self, messages: &[Message]) -> Result<(), SeamError> {
        self.queue.send(messages).await?;
        let orders = messages.iter().filter_map(|message| match message {
            Message::Place(order) => Some(order.clone()),
            _ => None,
        });
        let orders: Vec<Order> = orders.collect();
        if orders.is_empty() {
            return Ok(());
        }
        let ids: Vec<OrderId> = orders.iter().map(|order| order.id).collect();
        // Whoever hears that it was sent may ask elsewhere at once. With
        // too many waiting, or without Redis, it goes unnoted.
        if self.notes.made.call(orders).await != Ok(true) {
            let mut missed = self.notes.missed();
            if missed.len() + ids.len() > OUT_MAX {
                missed.clear();
            }
            missed.extend(ids);
        }
        Ok(())
    }

    async fn receive(&self, max: usize, wait: Duration) -> Result<Vec<Delivery>, SeamError> {
        let deliveries = self.queue.receive(max, wait).await?;
        let mut out = self.out();
        if out.len() + deliveries.len() > OUT_MAX {
            out.clear();
        }
        let places = deliveries.iter().filter(|d| matches!(d.message, Message::Place(_)));
        out.extend(places.map(|d| (d.receipt.clone(), d.message.order_id())));
        drop(out);
        Ok(deliveries)
    }

    async fn ack(&self, receipts: &[Receipt]) -> Result<(), SeamError> {
        self.queue.ack(receipts).await?;
        let done: Vec<OrderId> = {
            let mut out = self.out();
            receipts.iter().filter_map(|receipt| out.remove(receipt)).collect()
        };
        if !done.is_empty() {
            self.notes.dropped.tell(done);
        }
        Ok(())
    }

    async fn retry(&self, receipts: &[Receipt], delay: Duration) -> Result<(), SeamError> {
        self.queue.retry(receipts, delay).await?;
        let mut out = self.out();
        for receipt in receipts {
            out.remove(receipt);
        }
        Ok(())
    }

    async fn extend(&self, receipts: &[Receipt]) -> Result<(), SeamError> {
        self.queue.extend(receipts).await
    }

    async fn bury(&self, receipts: &[(Receipt, String)]) -> Result<(), SeamError> {
        self.queue.bury(receipts).await?;
        let mut out = self.out();
        for (receipt, _) in receipts {
            out.remove(receipt);
        }
        Ok(())
    }

    async fn dead_letters(&self, max: usize) -> Result<Vec<DeadLetter>, SeamError> {
        self.queue.dead_letters(max).await
    }

    async fn redrive(&self, max: usize) -> Result<usize, SeamError> {
        self.queue.redrive(max).await
    }

    /// The order as this process knows it, or else, if this is the last partition, as it
    /// is noted, which needs Redis.
    async fn find(&self, id: OrderId) -> Result<Option<Order>, SeamError> {
        if let Some(order) = self.queue.find(id).await? {
            return Ok(Some(order));
        }
        if !self.looks {
            return Ok(None);
        }
        Ok(self.notes.looked_up.call(id).await.ok().flatten())
    }

    /// Not while Redis is away; and not of an order that it took no note of, which is
    /// told once.
    fn tells_of(&self, order: OrderId) -> bool {
        let is_missed = self.notes.missed().remove(&order);
        self.queue.tells_of(order) || !is_missed && !self.redis.link.is_away()
    }

    fn finds_all(&self) -> bool {
        self.queue.finds_all()
    }

    async fn depth(&self) -> Result<QueueDepth, SeamError> {
        self.queue.depth().await
    }
}
