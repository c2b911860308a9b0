//! The change feed, read from the table's stream: DynamoDB writes it with the commit and
//! keeps it for a day, and no write costs more for it.
//!
//! A stream is cut into shards by the rows' keys, and a shard ends after some hours in
//! others, its children. All records of one row are in one shard and its children, in
//! order; so a reader is in several shards at once, and goes on to the children of one when
//! it has read all of it. A [`Frontier`] says how far it came in each, and is the cursor.

mod consumers;
mod found;
mod frontier;
mod late;
mod records;
mod stream;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use aws_sdk_dynamodbstreams::types::Record;
use flux_core::backoff::Backoff;
use flux_core::seams::{Change, ChangeFeed, ChangePage, Changed, Consumer, Cursor, SeamError};
use flux_core::{ConsumerName, Timestamp};
use futures_util::TryStreamExt;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

pub(super) use self::found::FoundFeed;
use self::frontier::{Frontier, Position};
use self::records::read_change;
use self::stream::{ReadError, Records, Stream};
use super::items::Items;
use super::rows::SERVICE;
use super::table::{Table, in_order};

/// The pause between two looks for something new; it doubles.
const PAUSE: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
/// Most records of a shard in one read; DynamoDB gives no more.
const RECORDS_MAX: usize = 1_000;
/// Time for which an iterator is used; DynamoDB's last for fifteen minutes.
const ITERATOR_SERVES: Duration = Duration::from_secs(10 * 60);
/// Time within which a reader looks for shards that were listed after their siblings.
const LATE_WITHIN: Duration = Duration::from_secs(30);
/// Most iterators remembered.
const ITERATORS_MAX: usize = 4_096;
/// Time by which this process's clock may be off against DynamoDB's without a change being
/// missed behind the newest; another process tells those of that time again.
const CLOCKS_AGREE: Duration = Duration::from_secs(60);

type Iterators = HashMap<(String, Position), (String, Instant)>;

/// A [`ChangeFeed`] over the stream of a table.
#[derive(Debug)]
pub(super) struct StreamFeed {
    table: Table,
    items: Items,
    stream: Stream,
    /// Where reads can go on without asking for the place again.
    iterators: Mutex<Iterators>,
}

/// A record of a shard, and the change it tells of.
struct Seen {
    at: Timestamp,
    shard: String,
    /// Behind it.
    position: Position,
    changed: Option<Changed>,
}

/// What was read of a shard.
struct Read {
    shard: String,
    /// Where it was read from.
    from: Position,
    seen: Vec<Seen>,
    /// Goes on behind it; none at the end of the shard.
    iterator: Option<String>,
}

impl StreamFeed {
    /// The feed of a table over the stream of that name and label.
    pub(super) fn new(
        client: &aws_sdk_dynamodbstreams::Client,
        table: Table,
        arn: String,
        label: String,
    ) -> Self {
        let stream = Stream::new(client, arn, label, table.meter.clone());
        // Its definitions are those of other moments, so it has a memory of its own.
        let items = Items::new(table.clone());
        Self { table, items, stream, iterators: Mutex::default() }
    }

    fn iterators(&self) -> MutexGuard<'_, Iterators> {
        self.iterators.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, shard: &str, position: &Position, iterator: String) {
        let mut iterators = self.iterators();
        if iterators.len() >= ITERATORS_MAX {
            iterators.retain(|_, (_, at)| at.elapsed() < ITERATOR_SERVES);
        }
        if iterators.len() < ITERATORS_MAX {
            let key = (shard.to_owned(), position.clone());
            iterators.insert(key, (iterator, Instant::now()));
        }
    }

    /// Where a reader begins: before all that is kept.
    async fn start(&self) -> Result<Frontier, SeamError> {
        let shards = self.stream.shards().await?;
        let is_known = |id: &String| shards.iter().any(|shard| shard.id == *id);
        let roots = shards.iter().filter(|shard| !shard.parent.as_ref().is_some_and(is_known));
        let shards = roots.map(|shard| (shard.id.clone(), Position::Start)).collect();
        Ok(Frontier { stream: self.stream.label.clone(), shards })
    }

    /// Up to `limit` changes behind a frontier, which moves on.
    async fn read_on(
        &self,
        frontier: &mut Frontier,
        limit: usize,
    ) -> Result<Vec<Change>, SeamError> {
        let before = frontier.shards.clone();
        let reads = before.clone().into_iter();
        let reads = in_order(reads.map(|(shard, at)| self.read_shard(shard, at, limit)));
        let reads: Vec<_> = reads.try_collect().await?;
        let (mut ends, mut seen) = (BTreeMap::new(), Vec::new());
        for Read { shard, from, seen: of_shard, iterator } in reads {
            let end = of_shard.last().map_or(&from, |last| &last.position).clone();
            ends.insert(shard.clone(), (end, iterator));
            frontier.shards.insert(shard, from);
            seen.extend(of_shard);
        }
        // Those of one shard stay as they are.
        seen.sort_by_key(|seen| seen.at);
        let mut changes = Vec::new();
        for Seen { at, shard, position, changed } in seen {
            if changes.len() == limit {
                break;
            }
            frontier.shards.insert(shard, position);
            if let Some(changed) = changed {
                changes.push(Change::new(frontier.cursor(), at, changed));
            }
        }
        self.go_on(&before, frontier, ends).await?;
        if let Some(last) = changes.last_mut() {
            // Behind the last there may be records that tell nothing.
            last.cursor = frontier.cursor();
        }
        Ok(changes)
    }

    /// Remembers where the shards go on whose records were all taken, and has the children
    /// of those that are at their end follow.
    async fn go_on(
        &self,
        before: &BTreeMap<String, Position>,
        frontier: &mut Frontier,
        ends: BTreeMap<String, (Position, Option<String>)>,
    ) -> Result<(), SeamError> {
        for (shard, (end, iterator)) in ends {
            let Some(position) = frontier.shards.get(&shard) else { continue };
            match iterator {
                // Whoever reads it again goes on from the same iterator.
                _ if end != *position => {}
                Some(iterator) => {
                    if let Some(was) = before.get(&shard).filter(|was| *was != position) {
                        self.iterators().remove(&(shard.clone(), was.clone()));
                    }
                    self.remember(&shard, position, iterator);
                }
                None => {
                    let shards = self.stream.shards().await?;
                    let is_child = |id: &Option<String>| id.as_ref() == Some(&shard);
                    let children = shards.iter().filter(|child| is_child(&child.parent));
                    let children: Vec<String> = children.map(|child| child.id.clone()).collect();
                    // They may be listed a little later.
                    if !children.is_empty() {
                        frontier.shards.remove(&shard);
                        let start = end.of_child();
                        frontier.shards.extend(children.into_iter().map(|id| (id, start.clone())));
                    }
                }
            }
        }
        // Without a list now the next look finds them.
        if let Ok(shards) = self.stream.shards_within(LATE_WITHIN).await {
            late::adopt(frontier, &shards);
        }
        Ok(())
    }

    /// The records of a shard behind a position.
    async fn read_shard(
        &self,
        shard: String,
        position: Position,
        limit: usize,
    ) -> Result<Read, SeamError> {
        let limit = limit.saturating_mul(2).clamp(50, RECORDS_MAX) as i32;
        let (Records { records, iterator }, from) =
            self.records(&shard, position, limit).await.map_err(|error| match error {
                ReadError::Trimmed => SeamError::ChangesGone { service: SERVICE },
                ReadError::Expired => SeamError::unavailable(SERVICE),
                ReadError::Failed(error) => error,
            })?;
        let mut seen: Vec<Seen> = Vec::with_capacity(records.len());
        let mut position = from.clone();
        for record in &records {
            let (sequence, at) = place_of(record)?;
            let at = seen.last().map_or(at, |before| before.at.max(at));
            let is_told = at.as_millis() >= position.since();
            let changed = match is_told {
                true => read_change(record, &self.items).await?,
                false => None,
            };
            position = position.behind(sequence, is_told);
            seen.push(Seen { at, shard: shard.clone(), position: position.clone(), changed });
        }
        Ok(Read { shard, from, seen, iterator })
    }

    /// The records behind a position, and where they were read from: whoever asked for the
    /// newest elsewhere, or long ago, goes by the time.
    async fn records(
        &self,
        shard: &str,
        position: Position,
        limit: i32,
    ) -> Result<(Records, Position), ReadError> {
        let key = (shard.to_owned(), position.clone());
        let known = self.iterators().get(&key).cloned();
        if let Some((iterator, at)) = known
            && at.elapsed() < ITERATOR_SERVES
        {
            match self.stream.records(iterator, limit).await {
                Err(ReadError::Expired) => {}
                read => return Ok((read?, position)),
            }
        }
        let from = position.by_the_time();
        let iterator = self.stream.iterator(shard, Some(&from)).await?;
        Ok((self.stream.records(iterator, limit).await?, from))
    }
}

/// The sequence number of a record, and when it was made, to the second.
fn place_of(record: &Record) -> Result<(String, Timestamp), SeamError> {
    let image = record.dynamodb.as_ref();
    let sequence = image.and_then(|image| image.sequence_number.clone());
    let sequence =
        sequence.ok_or_else(|| SeamError::broken(SERVICE, "a record without a number"))?;
    let at = image.and_then(|image| image.approximate_creation_date_time);
    let at = at.and_then(|at| at.to_millis().ok()).and_then(|at| u64::try_from(at).ok());
    Ok((sequence, Timestamp::from_millis(at.unwrap_or_default())))
}

#[async_trait]
impl ChangeFeed for StreamFeed {
    async fn changes(
        &self,
        after: Option<&Cursor>,
        limit: usize,
        wait: Duration,
    ) -> Result<ChangePage, SeamError> {
        let until = Instant::now() + wait;
        let mut frontier = match after {
            Some(after) => Frontier::read(after)?,
            None => self.start().await?,
        };
        if frontier.stream != self.stream.label {
            // The stream was turned off and on since: it is another one.
            return Err(SeamError::ChangesGone { service: SERVICE });
        }
        let mut looks = 0;
        loop {
            let changes = match limit {
                0 => Vec::new(),
                limit => self.read_on(&mut frontier, limit).await?,
            };
            let left = until.saturating_duration_since(Instant::now());
            if !changes.is_empty() || left.is_zero() {
                return Ok(ChangePage::new(changes, frontier.cursor()));
            }
            looks += 1;
            sleep(PAUSE.full_jitter(looks).min(left)).await;
        }
    }

    async fn newest(&self) -> Result<Cursor, SeamError> {
        let since = Timestamp::from(SystemTime::now() - CLOCKS_AGREE).as_millis();
        let nonce = Uuid::new_v4().as_u64_pair().1;
        let newest = Position::Newest { since, nonce };
        let shards = self.stream.shards().await?;
        // What comes goes to those without children.
        let is_parent = |id: &String| shards.iter().any(|shard| shard.parent.as_ref() == Some(id));
        let open = shards.iter().filter(|shard| !is_parent(&shard.id));
        let mut frontier =
            Frontier { stream: self.stream.label.clone(), shards: BTreeMap::default() };
        for shard in open {
            let iterator = self.stream.iterator(&shard.id, None).await;
            let iterator = iterator.map_err(|error| match error {
                ReadError::Failed(error) => error,
                ReadError::Trimmed | ReadError::Expired => SeamError::unavailable(SERVICE),
            })?;
            self.remember(&shard.id, &newest, iterator);
            frontier.shards.insert(shard.id.clone(), newest.clone());
        }
        Ok(frontier.cursor())
    }

    async fn keep_cursor(&self, consumer: &Consumer) -> Result<(), SeamError> {
        Frontier::read(&consumer.after)?;
        consumers::keep(&self.table, consumer).await
    }

    async fn consumers(&self) -> Result<Vec<Consumer>, SeamError> {
        consumers::list(&self.table).await
    }

    async fn forget_consumer(&self, name: &ConsumerName) -> Result<bool, SeamError> {
        consumers::forget(&self.table, name).await
    }

    async fn cursor_of(&self, name: &ConsumerName) -> Result<Option<Cursor>, SeamError> {
        consumers::cursor_of(&self.table, name).await
    }
}
