//! The task of one webhook: it reads the feed, sends, and keeps how far it came.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use flux_core::seams::{ChangeFeed, ChangePage, Consumer, Cursor, SeamError};
use flux_core::{ConsumerName, Timestamp};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{Id, JoinError, JoinSet, spawn_blocking};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout_at};
use tracing::{debug, info, warn};

use super::file::{File, Record, Written};
use super::message;
use super::schedule::{Failed, PAGE, Pending, Schedule, Verdict};
use super::sender::{Failure, Sender};
use super::status::Status;

/// Messages that were given up and are kept, the newest.
pub(super) const GIVEN_UP_MAX: usize = 10_000;
/// Period in which it is kept how far the webhook came, and told. Each time is one more sync
/// of the store's file, which orders may wait for; a crash repeats what came since.
const KEEP_EVERY: Duration = Duration::from_secs(2);
/// Longest wait of one read.
const READ_WAIT: Duration = Duration::from_secs(30);
/// Time after which a read that failed is tried again.
const READ_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Puts messages that were given up back: one by its id, or all. Answers how many.
pub(super) struct Resend {
    pub(super) id: Option<String>,
    pub(super) answer: oneshot::Sender<Result<usize>>,
}

/// One webhook.
pub(super) struct Endpoint {
    pub(super) name: ConsumerName,
    pub(super) feed: Arc<dyn ChangeFeed>,
    pub(super) sender: Sender,
    pub(super) file: Arc<File>,
    pub(super) status: Arc<Status>,
    schedule: Schedule,
    /// The ids of messages in the file.
    in_file: HashSet<String>,
    /// Those of them that were given up, by number, the oldest first.
    given_up: BTreeMap<u64, String>,
    /// Messages in the file that were taken.
    gone: Vec<u64>,
    after: Option<Cursor>,
    kept: Option<Cursor>,
}

type Sent = Result<(Id, (Result<(), Failure>, Duration)), JoinError>;

impl Endpoint {
    /// Takes up a webhook where it was, which blocks for disk accesses.
    pub(super) fn new(
        name: ConsumerName,
        feed: Arc<dyn ChangeFeed>,
        after: Cursor,
        sender: Sender,
        file: Arc<File>,
        status: Arc<Status>,
        give_up_after: Duration,
    ) -> Result<Self> {
        let now = Instant::now();
        let records = file.list(name.as_str(), 0, usize::MAX, |_| true)?;
        let next = records.last().map_or(0, |(number, _)| number + 1);
        let mut schedule = Schedule::new(give_up_after, next, now);
        let in_file = records.iter().map(|(_, record)| record.head.id.clone()).collect();
        let mut given_up = BTreeMap::new();
        for (number, record) in records {
            if record.given_up_ms.is_some() {
                given_up.insert(number, record.head.id);
            } else {
                let waited = Duration::from_millis(record.waited_ms);
                schedule.put(number, Pending::in_file(record.head, record.attempts, waited, now));
            }
        }
        let (gone, kept) = (Vec::new(), Some(after.clone()));
        let after = Some(after);
        Ok(Self {
            name,
            feed,
            sender,
            file,
            status,
            schedule,
            in_file,
            given_up,
            gone,
            after,
            kept,
        })
    }

    /// Sends until told to stop; then what is on its way has until then.
    pub(super) async fn run(
        mut self,
        mut resends: mpsc::Receiver<Resend>,
        mut stop: watch::Receiver<Option<Instant>>,
    ) {
        let mut sending = JoinSet::new();
        let mut numbers: HashMap<Id, u64> = HashMap::new();
        let mut reading = None;
        let mut read_at = Instant::now();
        let mut keeping = interval(KEEP_EVERY);
        keeping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.borrow().is_none() {
            let now = Instant::now();
            self.start(now, &mut sending, &mut numbers);
            if reading.is_none() && self.schedule.has_room() {
                reading = Some(Box::pin(read(Arc::clone(&self.feed), self.after.clone(), read_at)));
            }
            let wake = self.schedule.wake_at().filter(|at| *at > now);
            let wake_at = wake.unwrap_or(now + READ_WAIT);
            tokio::select! {
                biased;
                changed = stop.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                _ = keeping.tick() => self.keep().await,
                Some(sent) = sending.join_next_with_id() => self.sent(sent, &mut numbers).await,
                Some(resend) = resends.recv() => {
                    // Who asked may be gone.
                    let _ = resend.answer.send(self.resend(resend.id).await);
                }
                page = async { reading.as_mut().expect("checked").await }, if reading.is_some() => {
                    reading = None;
                    read_at = self.take(page);
                }
                () = sleep_until(wake_at) => {}
            }
        }
        let until = stop.borrow().unwrap_or_else(Instant::now);
        while let Ok(Some(sent)) = timeout_at(until, sending.join_next_with_id()).await {
            self.sent(sent, &mut numbers).await;
        }
        self.keep().await;
    }

    /// Starts the attempts that are due.
    fn start(
        &mut self,
        now: Instant,
        sending: &mut JoinSet<(Result<(), Failure>, Duration)>,
        numbers: &mut HashMap<Id, u64>,
    ) {
        while let Some((number, message)) = self.schedule.next(now) {
            let (sender, id) = (self.sender.clone(), message.head.id.clone());
            let (file, name, body) =
                (Arc::clone(&self.file), self.name.clone(), message.body.clone());
            let attempt = sending.spawn(async move {
                let body = match body {
                    Some(body) => Ok(body),
                    None => body_in(file, name, number).await,
                };
                let began = Instant::now();
                let sent = match body {
                    Ok(body) => sender.send(&id, body).await,
                    Err(error) => {
                        let said = format!("its body can't be read: {error:#}");
                        Err(Failure { said, answered: true, retry_after: None })
                    }
                };
                (sent, began.elapsed())
            });
            numbers.insert(attempt.id(), number);
        }
    }

    async fn sent(&mut self, sent: Sent, numbers: &mut HashMap<Id, u64>) {
        let (id, result) = match sent {
            Ok((id, (result, took))) => {
                self.status.took(took);
                (id, result)
            }
            Err(error) => {
                let said = "the attempt ended by a panic".to_owned();
                (error.id(), Err(Failure { said, answered: true, retry_after: None }))
            }
        };
        let Some(number) = numbers.remove(&id) else { return };
        let now = Instant::now();
        let Err(failure) = result else {
            self.status.delivered();
            if let Some(message) = self.schedule.get(number)
                && message.body.is_none()
            {
                self.in_file.remove(&message.head.id);
                self.gone.push(number);
            }
            self.schedule.taken(number, now);
            self.status.away(self.schedule.is_away());
            return;
        };
        self.status.failed(&failure.said);
        let Failure { said, answered, retry_after: pause } = failure;
        let how = Failed { answered, pause, jitter: jitter() };
        let verdict = self.schedule.failed(number, said, how, now);
        self.status.away(self.schedule.is_away());
        if verdict == Verdict::GiveUp
            && let Err(error) = self.give_up(number).await
        {
            warn!(webhook = %self.name, error = format!("{error:#}"), "a message can't be given up: it is tried again");
        }
    }

    /// Gives a message up, once that is in the file.
    async fn give_up(&mut self, number: u64) -> Result<()> {
        let Some(message) = self.schedule.get(number) else { return Ok(()) };
        let given_up_ms = Some(Timestamp::now().as_millis());
        let record = Record { given_up_ms, ..record(message) };
        let (id, kind, error) =
            (record.head.id.clone(), record.head.kind.clone(), record.error.clone());
        let written = vec![(number, record, message.body.clone())];
        let full = self.given_up.len() >= GIVEN_UP_MAX;
        let oldest = self.given_up.keys().next().copied().filter(|_| full);
        self.write(written, oldest.into_iter().collect()).await?;
        if let Some(forgotten) = oldest.and_then(|number| self.given_up.remove(&number)) {
            self.in_file.remove(&forgotten);
            self.status.forgotten();
        }
        self.in_file.insert(id.clone());
        self.schedule.remove(number);
        self.given_up.insert(number, id.clone());
        warn!(webhook = %self.name, id, kind, error, "a message was given up; it can be sent again");
        self.status.given_up();
        Ok(())
    }

    async fn resend(&mut self, id: Option<String>) -> Result<usize> {
        let (file, name) = (Arc::clone(&self.file), self.name.clone());
        let wanted = move |record: &Record| {
            record.given_up_ms.is_some() && id.as_ref().is_none_or(|id| record.head.id == *id)
        };
        let found =
            spawn_blocking(move || file.list(name.as_str(), 0, usize::MAX, wanted)).await??;
        let again = |(number, record): &(u64, Record)| {
            let head = record.head.clone();
            let error = record.error.clone();
            (*number, Record { head, error, attempts: 0, waited_ms: 0, given_up_ms: None }, None)
        };
        self.write(found.iter().map(again).collect(), Vec::new()).await?;
        let now = Instant::now();
        for (number, record) in &found {
            self.given_up.remove(number);
            let message = Pending::in_file(record.head.clone(), 0, Duration::ZERO, now);
            self.schedule.put(*number, message);
        }
        Ok(found.len())
    }

    /// Takes what was read, and says when to read again.
    fn take(&mut self, page: Result<ChangePage, SeamError>) -> Instant {
        let now = Instant::now();
        match page {
            Ok(page) => {
                for change in &page.changes {
                    let (head, body) = message::of(change);
                    if self.in_file.contains(&head.id) {
                        self.schedule.pass(change.cursor.clone());
                    } else {
                        self.schedule.read(change.cursor.clone(), Pending::new(head, body, now));
                    }
                }
                self.after = Some(page.next);
                now
            }
            Err(SeamError::ChangesGone { .. } | SeamError::UnknownCursor { .. }) => {
                warn!(webhook = %self.name, "changes were not kept until this webhook could be told; it goes on from the oldest that is kept");
                self.status.changes_gone();
                self.after = None;
                now
            }
            Err(error) => {
                debug!(webhook = %self.name, %error, "the feed can't be read for now");
                now + READ_AGAIN_AFTER
            }
        }
    }

    /// Keeps how far it came, and makes room.
    async fn keep(&mut self) {
        if let Err(error) = self.keep_all().await {
            debug!(webhook = %self.name, error = format!("{error:#}"), "how far it came can't be kept for now");
        }
        let oldest = self.schedule.oldest().map(|message| message.head.at());
        let (waiting, in_flight) = (self.schedule.waiting(), self.schedule.in_flight());
        self.status.now(waiting, in_flight, self.given_up.len(), oldest);
    }

    async fn keep_all(&mut self) -> Result<()> {
        let to_park = self.schedule.to_park();
        if !to_park.is_empty() || !self.gone.is_empty() {
            let messages = to_park.iter().filter_map(|number| {
                let message = self.schedule.get(*number)?;
                Some((*number, record(message), message.body.clone()))
            });
            let messages: Vec<Written> = messages.collect();
            let gone = std::mem::take(&mut self.gone);
            let ids: Vec<_> = messages.iter().map(|(_, m, _)| m.head.id.clone()).collect();
            if let Err(error) = self.write(messages, gone.clone()).await {
                self.gone = gone;
                return Err(error);
            }
            if !to_park.is_empty() {
                info!(webhook = %self.name, messages = to_park.len(), "messages that fail wait in a file, so that others go on");
            }
            self.in_file.extend(ids);
            to_park.iter().for_each(|number| self.schedule.parked(*number));
        }
        let done = self.schedule.done().cloned();
        if let Some(done) = done.filter(|done| self.kept.as_ref() != Some(done)) {
            self.feed.keep_cursor(&Consumer::new(self.name.clone(), done.clone())).await?;
            self.kept = Some(done);
        }
        Ok(())
    }

    async fn write(&self, written: Vec<Written>, gone: Vec<u64>) -> Result<()> {
        let (file, name) = (Arc::clone(&self.file), self.name.clone());
        spawn_blocking(move || file.write(name.as_str(), &written, &gone)).await?
    }
}

fn record(message: &Pending) -> Record {
    Record {
        head: message.head.clone(),
        attempts: message.attempts,
        waited_ms: u64::try_from(message.waited.as_millis()).unwrap_or(u64::MAX),
        error: message.error.clone(),
        given_up_ms: None,
    }
}

async fn read(
    feed: Arc<dyn ChangeFeed>,
    after: Option<Cursor>,
    at: Instant,
) -> Result<ChangePage, SeamError> {
    sleep_until(at).await;
    feed.changes(after.as_ref(), PAGE, READ_WAIT).await
}

async fn body_in(file: Arc<File>, name: ConsumerName, number: u64) -> Result<Bytes> {
    let body = spawn_blocking(move || file.body(name.as_str(), number)).await??;
    body.ok_or_else(|| anyhow::anyhow!("it is not in the file"))
}

/// 0 to 1, by chance.
fn jitter() -> f64 {
    // Without chance all wait equally long, which is right too.
    f64::from(getrandom::u32().unwrap_or(u32::MAX)) / f64::from(u32::MAX)
}
