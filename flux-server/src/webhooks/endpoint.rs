//! The task of one webhook: it reads the feed, sends, and keeps how far it came.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
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
    /// Messages in the file that were taken. They are in it until the cursor that is kept has
    /// passed their changes: read again, one would come after later ones of its order.
    gone: BTreeMap<u64, Record>,
    /// Messages in the file that have waited for longer than it knows.
    stale: BTreeSet<u64>,
    after: Option<Cursor>,
    kept: Option<Cursor>,
    /// The number of the first change behind that cursor.
    kept_until: u64,
    /// The first number since the start.
    begin: u64,
    /// The number behind all changes that there were at the start, once they are read.
    caught_up: Option<u64>,
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
        let (mut given_up, mut gone) = (BTreeMap::new(), BTreeMap::new());
        for (number, record) in records {
            if record.taken {
                gone.insert(number, record);
            } else if record.given_up_ms.is_some() {
                given_up.insert(number, record.head.id);
            } else {
                let waited = Duration::from_millis(record.waited_ms);
                schedule.put(number, Pending::in_file(record.head, record.attempts, waited, now));
            }
        }
        let kept = Some(after.clone());
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
            stale: BTreeSet::new(),
            after,
            kept,
            kept_until: next,
            begin: next,
            caught_up: None,
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
                self.gone.insert(number, record(message));
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
        if self.schedule.get(number).is_some_and(Pending::is_stale) {
            self.stale.insert(number);
        }
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
            let (attempts, waited_ms, given_up_ms, taken) = (0, 0, None, false);
            (*number, Record { head, attempts, waited_ms, error, given_up_ms, taken }, None)
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
                if page.changes.len() < PAGE {
                    self.caught_up.get_or_insert(self.schedule.next_number());
                }
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
        let to_write: Vec<_> = to_park.iter().chain(&self.stale).copied().collect();
        let messages = to_write.iter().filter_map(|number| {
            let message = self.schedule.get(*number)?;
            Some((*number, record(message), message.body.clone()))
        });
        let mut messages: Vec<Written> = messages.collect();
        let ids: Vec<_> = messages.iter().map(|(_, m, _)| m.head.id.clone()).collect();
        let (over, not_yet): (Vec<_>, Vec<_>) =
            self.gone.iter().partition(|(number, _)| self.is_behind(**number));
        let over: Vec<u64> = over.into_iter().map(|(number, _)| *number).collect();
        let mark = not_yet.into_iter().filter(|(_, record)| !record.taken);
        let mark = mark.map(|(number, record)| (*number, Record { taken: true, ..record.clone() }));
        let mark: Vec<_> = mark.collect();
        messages.extend(mark.iter().map(|(number, record)| (*number, record.clone(), None)));
        if !messages.is_empty() || !over.is_empty() {
            self.write(messages, over.clone()).await?;
            if !to_park.is_empty() {
                info!(webhook = %self.name, messages = to_park.len(), "messages that fail wait in a file, so that others go on");
            }
            self.in_file.extend(ids);
            to_write.iter().for_each(|number| self.schedule.parked(*number));
            self.gone.extend(mark);
            for record in over.iter().filter_map(|number| self.gone.remove(number)) {
                self.in_file.remove(&record.head.id);
            }
        }
        self.stale.clear();
        let (done, until) = (self.schedule.done().cloned(), self.schedule.done_until());
        if let Some(done) = done.filter(|done| self.kept.as_ref() != Some(done)) {
            self.feed.keep_cursor(&Consumer::new(self.name.clone(), done.clone())).await?;
            self.kept = Some(done);
        }
        self.kept_until = until;
        Ok(())
    }

    /// Whether the change of a message is behind the cursor that is kept.
    fn is_behind(&self, number: u64) -> bool {
        let end = if number < self.begin { self.caught_up } else { Some(number + 1) };
        end.is_some_and(|end| end <= self.kept_until)
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
        taken: false,
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use flux_core::seams::{Change, Changed};
    use flux_core::{Backend, Flux, ItemSpec};

    use super::*;
    use crate::setup::webhook::{SigningKeys, WebhookUrl};
    use crate::webhooks::connector::{Connector, Reach};

    const DAY: Duration = Duration::from_secs(86_400);
    const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

    fn endpoint(dir: &Path, flux: &Flux) -> Endpoint {
        let url = WebhookUrl::parse("https://shop.example").expect("a URL");
        let keys = Arc::new(SigningKeys::parse("secret", SECRET).expect("a key"));
        let connector = Connector::new(Reach::Public).expect("roots");
        let name = url.name();
        Endpoint::new(
            name.clone(),
            flux.feed().expect("a feed"),
            Cursor("0".to_owned()),
            Sender::new(url, keys, connector, 1),
            Arc::new(File::open(dir).expect("a file")),
            Arc::new(Status::new(name.as_str())),
            DAY,
        )
        .expect("taken up")
    }

    /// Changes of these items, from the first of the feed.
    fn page(items: &[&str]) -> ChangePage {
        let change = |(at, item): (usize, &&str)| {
            let spec = ItemSpec::pool(*item, 5).expect("an item");
            let (cursor, at) = (Cursor((at + 1).to_string()), Timestamp::from_millis(1));
            Change::new(cursor, at, Changed::Item(spec))
        };
        let changes: Vec<_> = items.iter().enumerate().map(change).collect();
        ChangePage::new(changes, Cursor(items.len().to_string()))
    }

    impl Endpoint {
        /// The numbers of all that may be sent now, which then are on their way.
        fn all(&mut self) -> Vec<u64> {
            let next = || self.schedule.next(Instant::now()).map(|(number, _)| number);
            std::iter::from_fn(next).collect()
        }

        async fn answered(&mut self, number: u64, result: Result<(), Failure>) {
            let id = tokio::spawn(async {}).id();
            let mut numbers = HashMap::from([(id, number)]);
            self.sent(Ok((id, (result, Duration::ZERO))), &mut numbers).await;
        }

        async fn park(&mut self, numbers: &[u64]) {
            for number in numbers {
                let message = self.schedule.get(*number).expect("it waits");
                let (record, body) = (record(message), message.body.clone());
                self.in_file.insert(record.head.id.clone());
                self.write(vec![(*number, record, body)], Vec::new()).await.expect("written");
                self.schedule.parked(*number);
            }
        }

        fn records(&self) -> Vec<(u64, Record)> {
            self.file.list(self.name.as_str(), 0, usize::MAX, |_| true).expect("read")
        }
    }

    fn refused() -> Result<(), Failure> {
        Err(Failure { said: "answered 500".to_owned(), answered: true, retry_after: None })
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_that_a_message_in_the_file_waits_is_written_there() {
        let dir = tempfile::tempdir().expect("a directory");
        let flux = Flux::builder(Backend::memory()).start();
        let mut to = endpoint(dir.path(), &flux);
        to.take(Ok(page(&["poison"])));
        to.park(&[0]).await;
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(3_600) {
            for number in to.all() {
                to.answered(number, refused()).await;
            }
            to.keep().await;
            sleep_until(to.schedule.wake_at().expect("it waits")).await;
        }
        let (_, record) = to.records().remove(0);
        assert!(record.waited_ms >= 600_000, "{record:?}");
        assert!(record.attempts > 4, "{record:?}");
        drop(to);
        let to = endpoint(dir.path(), &flux);
        let message = to.schedule.get(0).expect("it waits still");
        assert_eq!(message.attempts, record.attempts);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_taken_does_not_come_again_after_what_is_later() {
        let dir = tempfile::tempdir().expect("a directory");
        let flux = Flux::builder(Backend::memory()).start();
        let mut to = endpoint(dir.path(), &flux);
        let feed = || page(&["other", "a", "a"]);
        to.take(Ok(feed()));
        assert_eq!(to.all(), [0, 1]);
        to.park(&[1, 2]).await;
        to.answered(1, Ok(())).await;
        // What is before it is not taken yet, so that the cursor stays; and it is killed.
        to.keep().await;
        drop(to);
        let mut to = endpoint(dir.path(), &flux);
        to.take(Ok(feed()));
        let mut sent = to.all();
        sent.sort_unstable();
        assert_eq!((sent.len(), to.schedule.waiting(), sent[0]), (2, 2, 2));
        for number in sent {
            to.answered(number, Ok(())).await;
        }
        assert!(to.all().is_empty());
        to.kept = to.schedule.done().cloned();
        to.keep().await;
        to.keep().await;
        assert_eq!((to.records(), to.in_file.len()), (vec![], 0));
    }
}
