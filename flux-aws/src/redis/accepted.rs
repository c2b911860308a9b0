//! Notes the orders that were accepted and are not decided in Redis, for all processes:
//! SQS can't be looked into, and a buyer may ask another process, or the same
//! after a restart, what became of an order. What could not be noted is told, so that
//! the store takes note of it.
//!
//! An id is noted from before its order can be decided until a while after that: by the
//! process that accepts it, by the worker that receives it, and by whoever is about to decide
//! one that was never in the queue. So of an id that Redis never heard of nothing was written
//! to the store of late, and a read that may lag shows all there is. Nothing is concluded for
//! a while after Redis was away from here, or lost what it had.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use flux_core::protocol::Message;
use flux_core::seams::{
    DeadLetter, Delivery, OrderQueue, QueueDepth, Recalled, Receipt, SeamError,
};
use flux_core::{Order, OrderId};
use redis::Script;
use tokio::time::Instant;
use uuid::Uuid;

use super::Redis;
use crate::batcher::Batcher;

/// Time after which a note is dropped, unless its order was acknowledged before.
const NOTED_FOR: Duration = Duration::from_secs(15 * 60);
/// Time for which an id is noted whose order is decided without the queue: it takes a moment.
const ANNOUNCED_FOR: Duration = Duration::from_secs(60);
/// Time for which an id is noted when its order is done: reads of DynamoDB that may lag do so
/// for about a second.
const DONE_FOR: Duration = Duration::from_secs(10);
/// Time for which an id that Redis does not know may have been used all the same, after it
/// was away or wiped: longer than reads lag.
const UNSURE_FOR: Duration = Duration::from_secs(3);
/// Calls whose notes may wait to be made together; what comes on top is not
/// noted here.
const WAITING_MAX: usize = 10_000;
const BATCH_MAX: usize = 256;
/// Notes in one script, which takes a few thousand arguments.
const SCRIPT_MAX: usize = 1_000;
/// Bytes of orders noted at once; the largest order has an eighth of it.
const BYTES_MAX: usize = 1 << 20;
/// Deliveries whose notes end with them; others' end by themselves. And orders
/// that were not noted, until that was asked.
const OUT_MAX: usize = 100_000;

/// Makes notes of what has none, or none of an order, and returns those that there were.
const NOTE: &str = "
local known = {}
for place, key in ipairs(KEYS) do
    local order = ARGV[2 * place - 1]
    known[place] = redis.call('GET', key)
    if not known[place] or known[place] == '' and order ~= '' then
        redis.call('SET', key, order, 'PX', ARGV[2 * place])
    end
end
return known";

const DONE: &str = "
for _, key in ipairs(KEYS) do
    redis.call('SET', key, '', 'PX', ARGV[1])
end
return #KEYS";

/// Returns notes, the name of this life of Redis, which gets one if it is new, and its age
/// in seconds.
const LOOK: &str = "
local now = redis.call('TIME')[1]
local life = redis.call('GET', KEYS[1])
if not life then
    life = ARGV[1] .. ' ' .. now
    redis.call('SET', KEYS[1], life)
end
local known = redis.call('MGET', unpack(KEYS, 2))
table.insert(known, life)
table.insert(known, tostring(tonumber(now) - tonumber(string.match(life, '%d+$'))))
return known";

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
    /// The notes that there were, or `None` if it is not sure that all are there now.
    made: Batcher<Vec<Note>, Option<Vec<Option<String>>>>,
    done: Batcher<Vec<OrderId>, ()>,
    looked_up: Batcher<OrderId, Look>,
    /// Orders that were sent and could not be noted.
    missed: Mutex<HashSet<OrderId>>,
}

/// A note of an order, or of an id that is used.
struct Note {
    id: OrderId,
    order: String,
    lasts: Duration,
}

/// What a look at the note of an id showed.
enum Look {
    Order(Order),
    Used,
    /// No note; whether that is sure.
    Nothing {
        is_sure: bool,
    },
}

/// Whether Redis has the notes that it should have.
struct Trust {
    /// The name that this process would give a life of Redis.
    name: String,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// The connection, and the life of Redis, by which it was last looked at.
    last: Option<(u64, String)>,
    unsure_until: Option<Instant>,
}

impl Trust {
    /// Concludes nothing for a while: something went wrong.
    fn doubt(&self) {
        self.seen().doubt();
    }

    /// Whether what Redis does not have was not used of late, by a look over that connection
    /// at that life of it, which is so old.
    fn judge(&self, connection: Option<u64>, life: Option<String>, age: Duration) -> bool {
        let mut seen = self.seen();
        let now = connection.zip(life);
        if now.is_none() || seen.last.as_ref().is_some_and(|last| now.as_ref() != Some(last)) {
            seen.doubt();
        }
        seen.last = now.or(seen.last.take());
        let is_past = seen.unsure_until.is_none_or(|until| until <= Instant::now());
        is_past && age > UNSURE_FOR
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    fn doubt(&mut self) {
        self.unsure_until = Some(Instant::now() + UNSURE_FOR);
    }
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
        let trust = Trust { name: Uuid::new_v4().to_string(), seen: Mutex::default() };
        let trust = Arc::new(trust);
        let (to_note, doubts) = (redis.clone(), Arc::clone(&trust));
        let made = Batcher::new(WAITING_MAX, BATCH_MAX, 1, move |batch: Vec<Vec<Note>>| {
            let (redis, trust) = (to_note.clone(), Arc::clone(&doubts));
            async move { note_all(&redis, &trust, &batch).await }
        });
        let to_end = redis.clone();
        let done = Batcher::new(WAITING_MAX, BATCH_MAX, 1, move |batch: Vec<Vec<OrderId>>| {
            let redis = to_end.clone();
            async move {
                let ids: Vec<OrderId> = batch.iter().flatten().copied().collect();
                let lasts = DONE_FOR.as_millis().to_string();
                for ids in ids.chunks(SCRIPT_MAX) {
                    let keys: Vec<String> = ids.iter().map(|id| key(&redis, id)).collect();
                    let ending = (&Script::new(DONE), DONE);
                    // Whatever is left ends by itself.
                    let _ = redis.link.script::<i64, _>(ending, &keys, &[&lasts]).await;
                }
                vec![(); batch.len()]
            }
        });
        let (to_look, judge) = (redis.clone(), Arc::clone(&trust));
        let looked_up = Batcher::new(WAITING_MAX, BATCH_MAX, 1, move |ids: Vec<OrderId>| {
            let (redis, trust) = (to_look.clone(), Arc::clone(&judge));
            async move { look(&redis, &trust, &ids).await }
        });
        // A first look, so that a life of Redis that begins now is known for one.
        looked_up.tell(OrderId::from_uuid(Uuid::nil()));
        Self { made, done, looked_up, missed: Mutex::default() }
    }

    /// Notes ids that are used, and returns the first one's order if there is a note of it.
    async fn note_used(&self, ids: Vec<OrderId>, lasts: Duration) -> Option<Order> {
        let first = *ids.first()?;
        let used = |id| Note { id, order: String::new(), lasts };
        let made = self.made.call(ids.into_iter().map(used).collect()).await;
        let known = made.ok().flatten()?.into_iter().next().flatten()?;
        read(first, &known)
    }

    fn missed(&self) -> MutexGuard<'_, HashSet<OrderId>> {
        self.missed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes the notes of several calls.
async fn note_all(
    redis: &Redis,
    trust: &Trust,
    batch: &[Vec<Note>],
) -> Vec<Option<Vec<Option<String>>>> {
    let notes: Vec<&Note> = batch.iter().flatten().collect();
    let (mut left, mut known) = (notes.as_slice(), Vec::with_capacity(notes.len()));
    while !left.is_empty() {
        let mut bytes = 0;
        let fits = |note: &&&Note| {
            bytes += note.order.len();
            bytes <= BYTES_MAX
        };
        let count = left.iter().take(SCRIPT_MAX).take_while(fits).count().max(1);
        let (some, rest) = left.split_at(count);
        let keys: Vec<String> = some.iter().map(|note| key(redis, &note.id)).collect();
        let lasts = some.iter().map(|note| note.lasts.as_millis().to_string());
        let lasts: Vec<String> = lasts.collect();
        let arguments = some.iter().zip(&lasts).flat_map(|(note, lasts)| [&*note.order, &**lasts]);
        let arguments: Vec<&str> = arguments.collect();
        let noting = (&Script::new(NOTE), NOTE);
        match redis.link.script::<Vec<Option<String>>, _>(noting, &keys, &arguments).await {
            Ok(were_there) => known.extend(were_there),
            Err(error) => {
                tracing::debug!(%error, "accepted orders were not noted in Redis");
                trust.doubt();
                return batch.iter().map(|_| None).collect();
            }
        }
        left = rest;
    }
    let mut known = known.into_iter();
    batch.iter().map(|notes| Some(known.by_ref().take(notes.len()).collect())).collect()
}

/// Looks up the notes of some orders, for callers who each ask for one.
async fn look(redis: &Redis, trust: &Trust, ids: &[OrderId]) -> Vec<Look> {
    let life = format!("flux:accepted:{{{}}}", redis.prefix);
    let keys = std::iter::once(life).chain(ids.iter().map(|id| key(redis, id)));
    let keys: Vec<String> = keys.collect();
    let looking = (&Script::new(LOOK), LOOK);
    let noted = redis.link.script::<Vec<Option<String>>, _>(looking, &keys, &[&trust.name]).await;
    let Ok(mut noted) = noted else {
        trust.doubt();
        return ids.iter().map(|_| Look::Nothing { is_sure: false }).collect();
    };
    let age = noted.pop().flatten().and_then(|age| age.parse().ok()).map(Duration::from_secs);
    let life = noted.pop().flatten();
    let is_sure = trust.judge(redis.link.number(), life, age.unwrap_or_default());
    let looked = |(id, noted): (&OrderId, Option<String>)| match noted {
        None => Look::Nothing { is_sure },
        Some(noted) => read(*id, &noted).map_or(Look::Used, Look::Order),
    };
    ids.iter().zip(noted.into_iter().chain(std::iter::repeat(None))).map(looked).collect()
}

/// The order of a note, if there is more than that its id is used.
fn read(id: OrderId, noted: &str) -> Option<Order> {
    serde_json::from_str(noted).ok().filter(|order: &Order| order.id == id)
}

fn key(redis: &Redis, id: &OrderId) -> String {
    format!("flux:accepted:{{{}}}:{id}", redis.prefix)
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl OrderQueue for Accepted {
    async fn send(&self, messages: &[Message]) -> Result<(), SeamError> {
        self.queue.send(messages).await?;
        let notes = messages.iter().filter_map(|message| match message {
            Message::Place(order) => {
                let written = serde_json::to_string(order).expect("an order is plain data");
                Some(Note { id: order.id, order: written, lasts: NOTED_FOR })
            }
            _ => None,
        });
        let notes: Vec<Note> = notes.collect();
        if notes.is_empty() {
            return Ok(());
        }
        let ids: Vec<OrderId> = notes.iter().map(|note| note.id).collect();
        // Whoever hears that it was sent may ask elsewhere at once. With
        // too many waiting, or without Redis, it goes unnoted.
        if !matches!(self.notes.made.call(notes).await, Ok(Some(_))) {
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
        let places = deliveries.iter().filter(|d| matches!(d.message, Message::Place(_)));
        let places: Vec<OrderId> = places.map(|d| d.message.order_id()).collect();
        if !places.is_empty() {
            // Before any of them can be decided. Whoever sent them may not have noted them.
            let _ = self.notes.note_used(places, NOTED_FOR).await;
        }
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
            self.notes.done.tell(done);
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
        Ok(match self.notes.looked_up.call(id).await {
            Ok(Look::Order(order)) => Some(order),
            Ok(Look::Used | Look::Nothing { .. }) | Err(_) => None,
        })
    }

    async fn recall(&self, id: OrderId) -> Result<Recalled, SeamError> {
        match self.queue.recall(id).await? {
            Recalled::Unknown if self.looks => Ok(match self.notes.looked_up.call(id).await {
                Ok(Look::Order(order)) => Recalled::Waits(order),
                Ok(Look::Nothing { is_sure: true }) => Recalled::Unheard,
                Ok(Look::Used | Look::Nothing { .. }) | Err(_) => Recalled::Unknown,
            }),
            recalled => Ok(recalled),
        }
    }

    async fn announce(&self, id: OrderId) -> Result<Option<Order>, SeamError> {
        match self.queue.announce(id).await? {
            None if self.looks => Ok(self.notes.note_used(vec![id], ANNOUNCED_FOR).await),
            found => Ok(found),
        }
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
