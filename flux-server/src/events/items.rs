//! The task behind the item streams. It hears which items changed, reads each
//! of them once a tick at most and makes one event of it for all who watch.
//! Lost outcomes and the passing of time are made good by reading everything that
//! is watched once a second.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use flux_core::seams::Outcomes;
use flux_core::views::ItemView;
use flux_core::{Error, Flux, Item, ItemId, Subscription};
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{broadcast, mpsc};
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use super::{ASKS_MAX, Ask, Told, UPDATES_KEPT, event};

/// Time between two ticks. Nine of them fill more than a second, so that with the
/// event on connecting no stream has more than ten of an item in any second.
const TICK: Duration = Duration::from_millis(120);
const REREAD_EVERY: Duration = Duration::from_secs(1);
/// Items that a stream of all of them shows.
const LISTED_MAX: usize = 1_000;

/// Serves streams until the last handle of the hub is gone.
pub(super) async fn run(flux: Flux, mut asks: mpsc::Receiver<Ask>) {
    while let Some(first) = asks.recv().await {
        let mut board = Board::new(flux.clone());
        board.serve(first, &mut asks).await;
    }
}

/// The last event of each item that somebody watches.
struct Board {
    flux: Flux,
    outcomes: Subscription,
    entries: HashMap<ItemId, Entry>,
    all: broadcast::Sender<Bytes>,
    changed: HashSet<ItemId>,
    /// Set once the engine has stopped, and its outcomes have ended.
    engine_stopped: bool,
    rest_until: Instant,
    reread_at: Instant,
}

struct Entry {
    said: Bytes,
    /// The channel of those who watch this item alone.
    watchers: Option<broadcast::Sender<Bytes>>,
    /// Whether those who watch all items are shown it.
    listed: bool,
}

impl Entry {
    fn is_watched(&self) -> bool {
        self.watchers.as_ref().is_some_and(|watchers| watchers.receiver_count() > 0)
    }
}

impl Board {
    fn new(flux: Flux) -> Self {
        Self {
            // From before anything is read, so that no change falls between.
            outcomes: flux.subscribe(),
            flux,
            entries: HashMap::new(),
            all: broadcast::channel(UPDATES_KEPT).0,
            changed: HashSet::new(),
            engine_stopped: false,
            rest_until: Instant::now(),
            reread_at: Instant::now() + REREAD_EVERY,
        }
    }

    /// Returns when nobody watches any more.
    async fn serve(&mut self, first: Ask, asks: &mut mpsc::Receiver<Ask>) {
        self.admit(first, asks).await;
        loop {
            let resting = Instant::now() < self.rest_until;
            tokio::select! {
                ask = asks.recv() => match ask {
                    Some(ask) => self.admit(ask, asks).await,
                    None => return,
                },
                outcomes = self.outcomes.recv(), if !resting && !self.engine_stopped => {
                    self.hear(outcomes);
                }
                () = sleep_until(self.rest_until), if resting => {}
                () = sleep_until(self.reread_at), if !resting => {}
            }
            let now = Instant::now();
            if now < self.rest_until {
                continue;
            }
            self.catch_up();
            if now >= self.reread_at {
                self.reread().await;
                self.reread_at = now + REREAD_EVERY;
                self.rest_until = Instant::now() + TICK;
            } else if !self.changed.is_empty() {
                self.tell_changes().await;
                self.rest_until = Instant::now() + TICK;
            }
            if self.all.receiver_count() == 0 && !self.entries.values().any(Entry::is_watched) {
                return;
            }
        }
    }

    fn hear(&mut self, outcomes: Result<Arc<Outcomes>, RecvError>) {
        match outcomes {
            Ok(outcomes) => self.note(&outcomes),
            // Reading everything finds what was lost.
            Err(RecvError::Lagged(_)) => self.reread_at = Instant::now(),
            Err(RecvError::Closed) => self.engine_stopped = true,
        }
    }

    fn catch_up(&mut self) {
        loop {
            match self.outcomes.try_recv() {
                Ok(outcomes) => self.note(&outcomes),
                Err(TryRecvError::Lagged(_)) => self.reread_at = Instant::now(),
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
        }
    }

    fn note(&mut self, outcomes: &Outcomes) {
        if outcomes.is_gap() {
            self.reread_at = Instant::now();
        }
        let levels = outcomes.availability.iter().map(|level| &level.item);
        // A payment moves units from held to sold and changes no level.
        let lines =
            outcomes.orders.iter().flat_map(|order| order.lines.iter()).map(|line| &line.item);
        let mut last = None;
        for item in levels.chain(lines) {
            // A batch is often of one item; a look at the last saves a hash.
            if last != Some(item) && self.entries.contains_key(item) {
                self.changed.insert(item.clone());
            }
            last = Some(item);
        }
    }

    fn event(&self, item: &Item) -> Bytes {
        let json = serde_json::to_vec(&ItemView::new(item, self.flux.now()));
        event("item", &json.expect("an item is made of strings and numbers"))
    }

    /// Answers all who ask at this moment, with one look at each item.
    async fn admit(&mut self, first: Ask, asks: &mut mpsc::Receiver<Ask>) {
        let mut of_all = Vec::new();
        let mut of_one: HashMap<ItemId, Vec<_>> = HashMap::new();
        let mut next = Some(first);
        for _ in 0..ASKS_MAX {
            let Some(ask) = next else { break };
            match ask.item {
                None => of_all.push(ask.answer),
                Some(item) => of_one.entry(item).or_default().push(ask.answer),
            }
            next = asks.try_recv().ok();
        }
        // An ask that can't be answered is dropped, which ends its stream; the
        // client connects again.
        if !of_all.is_empty()
            && let Some(now) = read(self.list().await)
        {
            for answer in of_all {
                let updates = self.all.subscribe();
                let _ = answer.send(Told { now: now.clone(), updates });
            }
        }
        for (item, answers) in of_one {
            let Some(Some(found)) = read(self.flux.item(&item).await) else { continue };
            let said = self.seen(&found);
            let entry = self.entries.get_mut(&item).expect("it was just seen");
            let watchers = entry.watchers.get_or_insert_with(|| broadcast::channel(UPDATES_KEPT).0);
            for answer in answers {
                let updates = watchers.subscribe();
                let _ = answer.send(Told { now: vec![said.clone()], updates });
            }
        }
    }

    /// The event of an item that somebody connecting is told. If it is new to
    /// others, the next tick tells everybody how things stand by then.
    fn seen(&mut self, item: &Item) -> Bytes {
        let said = self.event(item);
        let id = &item.spec.id;
        match self.entries.get_mut(id) {
            Some(entry) if entry.said == said => return entry.said.clone(),
            Some(entry) => {
                entry.said = Bytes::new();
                self.changed.insert(id.clone());
            }
            None => {
                let entry = Entry { said: said.clone(), watchers: None, listed: false };
                self.entries.insert(id.clone(), entry);
            }
        }
        said
    }

    /// The first items by id, which are those to be listed from now on.
    async fn list(&mut self) -> Result<Vec<Bytes>, Error> {
        let items = self.flux.items(None, LISTED_MAX).await?;
        self.entries.values_mut().for_each(|entry| entry.listed = false);
        let said = items.iter().map(|item| self.seen(item)).collect();
        for item in &items {
            self.entries.get_mut(&item.spec.id).expect("it was just seen").listed = true;
        }
        Ok(said)
    }

    async fn tell_changes(&mut self) {
        let mut items = Vec::with_capacity(self.changed.len());
        for id in std::mem::take(&mut self.changed) {
            items.extend(read(self.flux.item(&id).await).flatten());
        }
        self.tell(&items);
    }

    /// Reads all that is watched and forgets what is not.
    async fn reread(&mut self) {
        self.changed.clear();
        let mut items = Vec::new();
        let mut listed = HashSet::new();
        if self.all.receiver_count() > 0 {
            let Some(found) = read(self.flux.items(None, LISTED_MAX).await) else { return };
            listed.extend(found.iter().map(|item| item.spec.id.clone()));
            items = found;
        }
        self.entries.retain(|id, entry| {
            entry.listed = listed.contains(id);
            entry.listed || entry.is_watched()
        });
        let alone = self.entries.iter().filter(|(_, entry)| !entry.listed);
        let alone: Vec<ItemId> = alone.map(|(id, _)| id.clone()).collect();
        for id in alone {
            items.extend(read(self.flux.item(&id).await).flatten());
        }
        for id in listed {
            let new = || Entry { said: Bytes::new(), watchers: None, listed: true };
            self.entries.entry(id).or_insert_with(new);
        }
        self.tell(&items);
    }

    /// Tells those who watch of what is new to them.
    fn tell(&mut self, items: &[Item]) {
        let mut batch = BytesMut::new();
        for item in items {
            let said = self.event(item);
            let Some(entry) = self.entries.get_mut(&item.spec.id) else { continue };
            if entry.said == said {
                continue;
            }
            if entry.listed {
                batch.extend_from_slice(&said);
            }
            if let Some(watchers) = &entry.watchers {
                // An error says that nobody is left, which the next reading finds.
                let _ = watchers.send(said.clone());
            }
            entry.said = said;
        }
        if !batch.is_empty() {
            let _ = self.all.send(batch.freeze());
        }
    }
}

fn read<T>(result: Result<T, Error>) -> Option<T> {
    result.inspect_err(|error| debug!(%error, "items could not be read for an event stream")).ok()
}
