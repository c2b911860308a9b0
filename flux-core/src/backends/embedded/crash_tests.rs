//! Power loss and full disks at random moments, many times over: whatever was
//! acknowledged is there afterwards, and the numbers add up.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::ErrorKind;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use super::disk::{Dice, Disk, Fault};
use super::*;
use crate::backends::state::ledger::tests::{T0, hold, item, order, release, units};
use crate::protocol::{
    Ask, BuyerCap, Claim, Commit, CommitOutcome, ConfirmRuling, Expect, ItemId, ItemSpec, Line,
    Message, Money, Order, OrderId, OrderState, OrderStatus, OrderWrite, PaymentRef, Reason,
    Refund, RefundRef, RefundRuling, Stock, Timestamp, Verdict, View, confirm, refund,
};
use crate::seams::{
    Changed, ConfirmOutcome, Cursor, OrderFilter, Payment, PutOutcome, RefundOutcome, Repayment,
    SeamError,
};

/// So few that some are forgotten all the time.
const REJECTED_MAX: u64 = 5;
/// So few that some are dropped all the time.
const CHANGES_MAX: u64 = 300;
const HALL: [&str; 6] = ["s0", "s1", "s2", "s3", "s4", "s5"];

/// The values that may be found: the one that was acknowledged, or any tried since.
#[derive(Debug, Clone)]
struct Known<T> {
    acknowledged: Option<T>,
    tried: Vec<T>,
}

impl<T> Default for Known<T> {
    fn default() -> Self {
        Self { acknowledged: None, tried: Vec::new() }
    }
}

impl<T: PartialEq + std::fmt::Debug> Known<T> {
    fn check(&self, found: Option<&T>, what: &dyn std::fmt::Debug) {
        let expected = match found {
            None => self.acknowledged.is_none(),
            Some(found) => self.acknowledged.as_ref() == Some(found) || self.tried.contains(found),
        };
        assert!(expected, "{what:?}: found {found:?}, known {self:?}");
    }

    fn answered(&mut self, result: bool) {
        if result {
            self.acknowledged = self.tried.pop();
            self.tried.clear();
        }
    }
}

/// The state in which a message must be found; it is named by its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Letter {
    /// In the queue.
    Waiting,
    /// Among the dead letters, and only there.
    Dead,
    /// In one of them, perhaps both.
    Either,
    /// Anywhere or nowhere.
    Free,
}

/// All that a user of the backend may rely on.
#[derive(Debug, Default)]
struct Model {
    items: BTreeMap<ItemId, Known<ItemSpec>>,
    orders: HashMap<OrderId, Known<Order>>,
    letters: HashMap<OrderId, Letter>,
    next_id: u128,
    last_token: u64,
    follower: Follower,
}

/// Somebody who knows the store by its feed alone.
#[derive(Debug)]
struct Follower {
    after: Cursor,
    orders: HashMap<OrderId, Order>,
    items: BTreeMap<ItemId, ItemSpec>,
    /// Times that changes were gone before they were read.
    came_late: u32,
}

impl Default for Follower {
    fn default() -> Self {
        let (orders, items) = Default::default();
        Self { after: Cursor("0".to_owned()), orders, items, came_late: 0 }
    }
}

impl Follower {
    /// Reads on to the end of the feed, and compares what it knows then with what was
    /// found. Only rejected orders may be gone from the store.
    async fn catch_up(&mut self, backend: &Backend, found: &[Order]) {
        let feed = backend.store.feed().expect("a feed");
        loop {
            let page = match feed.changes(Some(&self.after), 7, Duration::ZERO).await {
                Err(SeamError::ChangesGone { .. }) => {
                    self.came_late += 1;
                    self.after = feed.newest().await.expect("newest");
                    self.orders = found.iter().map(|order| (order.id, order.clone())).collect();
                    let items = backend.store.list_items(None, 100).await.expect("items");
                    let items = items.into_iter().map(|item| (*item.spec).clone());
                    self.items = items.map(|spec| (spec.id.clone(), spec)).collect();
                    continue;
                }
                page => page.expect("changes"),
            };
            if page.changes.is_empty() {
                break;
            }
            for change in page.changes {
                match change.changed {
                    Changed::Removed(gone) => panic!("{gone:?} was not removed"),
                    Changed::Order(order) => {
                        let was = self.orders.insert(order.id, order.clone());
                        assert_ne!(was, Some(order), "a change came twice");
                    }
                    Changed::Item(spec) => {
                        let was = self.items.insert(spec.id.clone(), spec.clone());
                        assert_ne!(was, Some(spec), "a change came twice");
                    }
                }
            }
            self.after = page.next;
        }
        let found: HashMap<_, _> = found.iter().map(|order| (order.id, order)).collect();
        for (id, known) in &self.orders {
            let is_forgotten = known.reason().is_some() && !found.contains_key(id);
            assert!(is_forgotten || found.get(id) == Some(&known), "{known:?}");
        }
        assert!(found.keys().all(|id| self.orders.contains_key(id)), "a change is missing");
        let items = backend.store.list_items(None, 100).await.expect("items");
        let specs: Vec<&ItemSpec> = items.iter().map(|item| &*item.spec).collect();
        assert_eq!(self.items.values().collect::<Vec<_>>(), specs);
    }
}

fn open(disk: &Disk) -> Result<Backend, OpenError> {
    let limits = Limits {
        queue: QueueLimits { visibility: VISIBILITY, depth_max: DEPTH_MAX },
        rejected: Retention { max: REJECTED_MAX, ..Retention::DEFAULT },
        buyers: BuyerRules::default(),
        changes: Some(KeepChanges { max: CHANGES_MAX, ..KeepChanges::DEFAULT }),
    };
    let path = Path::new("disk");
    if disk.live().is_empty() {
        let db = Builder::new().create_with_backend(disk.clone()).map_err(Failure::from);
        let made = db.and_then(|db| {
            initialise(&db)?;
            Ok(db.close()?)
        });
        made.map_err(|failure| open_error(path, failure))?;
    }
    let disk = disk.clone();
    Embedded::open_database(path, None, limits, Arc::new(SystemClock), move || {
        let mut builder = Builder::new();
        builder.set_cache_size(1 << 20).set_check_integrity_on_open(true);
        builder.create_with_backend(disk.clone())
    })
    .map(|embedded| embedded.backend())
}

impl Model {
    fn new_order(&mut self, dice: &mut Dice) -> Order {
        self.next_id += 1;
        let buyer = ["ann", "bob", "eve"][dice.roll(3) as usize];
        let lines = (0..=dice.roll(2)).map(|line| match dice.roll(3) {
            0 => units("a", 1 + dice.roll(3)),
            1 => units("b", 1),
            _ => Line::seats("h", [HALL[(dice.roll(3) * 2 + line) as usize]]).expect("line"),
        });
        order(self.next_id, buyer, lines.collect())
    }

    fn some_order(&self, dice: &mut Dice) -> Option<OrderId> {
        let id = u128::from(dice.roll(u64::try_from(self.next_id).expect("few") + 1));
        let id = OrderId::from_uuid(uuid::Uuid::from_u128(id));
        self.orders.contains_key(&id).then_some(id)
    }

    /// Does one thing with the backend.
    async fn step(&mut self, backend: &Backend, dice: &mut Dice) -> Result<(), SeamError> {
        match dice.roll(10) {
            0 => self.put(backend, dice).await,
            1..=3 => {
                let messages = (0..=dice.roll(40)).map(|_| Message::Place(self.new_order(dice)));
                let messages: Vec<_> = messages.collect();
                self.work(backend, &messages).await
            }
            4 | 5 => {
                let Some(id) = self.some_order(dice) else { return Ok(()) };
                let payment = PaymentRef::new("late").expect("ref");
                let message = match dice.roll(4) {
                    0 => Message::Release(id),
                    1 => Message::Cancel(id),
                    2 => Message::Expire(id),
                    _ => Message::LatePayment(id, payment),
                };
                self.work(backend, &[message]).await
            }
            6 if dice.roll(3) == 0 => self.repay(backend, dice).await,
            6 => self.pay(backend, dice).await,
            7 => self.send(backend, dice).await,
            8 => self.serve(backend, dice).await,
            _ => self.redrive(backend).await,
        }
    }

    async fn put(&mut self, backend: &Backend, dice: &mut Dice) -> Result<(), SeamError> {
        let mut spec = match dice.roll(3) {
            0 => ItemSpec::pool("a", 40 + dice.roll(40)).expect("pool"),
            1 => ItemSpec::pool("b", 20).expect("pool"),
            _ => ItemSpec::hall("h", HALL).expect("hall"),
        };
        if dice.roll(2) == 0 {
            spec.max_per_buyer = Some(BuyerCap::new(2 + dice.roll(9)).expect("cap"));
        }
        let known = self.items.entry(spec.id.clone()).or_default();
        known.tried.push(spec.clone());
        let put = backend.store.put_item(&spec).await?;
        if let PutOutcome::Refused(_) = put {
            known.tried.pop();
        } else {
            known.answered(true);
        }
        Ok(())
    }

    /// Decides messages as a worker does.
    async fn work(&mut self, backend: &Backend, messages: &[Message]) -> Result<(), SeamError> {
        let ids = [item("a"), item("b"), item("h")];
        let claims = backend.store.claim(&ids).await?;
        let mut view = View::default();
        let mut commit = Commit::default();
        for claim in claims.into_iter().flatten() {
            assert!(claim.token.0 > self.last_token, "a token came twice");
            self.last_token = claim.token.0;
            commit.claims.push((claim.spec.id.clone(), claim.token));
            view.insert(claim);
        }
        for message in messages {
            let found = backend.store.orders(&[message.order_id()]).await?.remove(0);
            let now = T0 + Duration::from_secs(900);
            if let Verdict::Write(write) = view.decide(message, found.as_ref(), now) {
                commit.writes.push(write);
            }
        }
        for write in &commit.writes {
            self.orders.entry(write.order.id).or_default().tried.push(write.order.clone());
        }
        let outcome = backend.store.commit(std::slice::from_ref(&commit)).await?.remove(0);
        for write in &commit.writes {
            let known = self.orders.get_mut(&write.order.id).expect("just put there");
            if outcome == CommitOutcome::Applied {
                known.answered(true);
            } else {
                assert!(
                    matches!(&outcome, CommitOutcome::Conflict { moved, .. } if moved.is_empty())
                );
                known.tried.pop();
            }
        }
        Ok(())
    }

    async fn pay(&mut self, backend: &Backend, dice: &mut Dice) -> Result<(), SeamError> {
        let Some(id) = self.some_order(dice) else { return Ok(()) };
        let payment = PaymentRef::new(format!("pay-{}", dice.roll(2))).expect("ref");
        let known = self.orders.get_mut(&id).expect("it was just found");
        let ruling = known.acknowledged.as_ref().map(|order| confirm(order, &payment, T0));
        if let Some(ConfirmRuling::Write(write) | ConfirmRuling::Owe(write)) = ruling {
            known.tried.push(write.order);
        }
        let payment = Payment { order: id, payment, at: T0 };
        let outcome = backend.store.confirm(&[payment]).await?.remove(0);
        if let ConfirmOutcome::Settled(order) | ConfirmOutcome::NotHeld(order) = outcome {
            known.check(Some(&order), &"settled");
            known.acknowledged = Some(order);
        }
        known.tried.clear();
        Ok(())
    }

    async fn repay(&mut self, backend: &Backend, dice: &mut Dice) -> Result<(), SeamError> {
        let Some(id) = self.some_order(dice) else { return Ok(()) };
        let reference = RefundRef::new(format!("back-{}", dice.roll(2))).expect("ref");
        let told = Refund::new(reference, T0);
        let known = self.orders.get_mut(&id).expect("it was just found");
        let ruling = known.acknowledged.as_ref().map(|order| refund(order, &told));
        if let Some(RefundRuling::Write(write)) = ruling {
            known.tried.push(write.order);
        }
        let outcome = backend.store.refund(&[Repayment::new(id, told)]).await?.remove(0);
        if let RefundOutcome::Refunded(order) | RefundOutcome::ByAnother(order) = outcome {
            known.check(Some(&order), &"returned");
            known.acknowledged = Some(order);
        }
        known.tried.clear();
        Ok(())
    }

    async fn send(&mut self, backend: &Backend, dice: &mut Dice) -> Result<(), SeamError> {
        let count = if dice.roll(9) == 0 { 300 } else { 1 + dice.roll(9) };
        let messages: Vec<_> = (0..count).map(|_| Message::Place(self.new_order(dice))).collect();
        let ids = messages.iter().map(Message::order_id);
        self.letters.extend(ids.clone().map(|id| (id, Letter::Free)));
        backend.queue.send(&messages).await?;
        self.letters.extend(ids.map(|id| (id, Letter::Waiting)));
        Ok(())
    }

    /// Takes deliveries and acknowledges, hands back and buries some.
    async fn serve(&mut self, backend: &Backend, dice: &mut Dice) -> Result<(), SeamError> {
        let deliveries = backend.queue.receive(1 + dice.roll(80) as usize, Duration::ZERO).await?;
        let (mut done, mut back, mut buried) = (Vec::new(), Vec::new(), Vec::new());
        for delivery in deliveries {
            let id = delivery.message.order_id();
            match dice.roll(8) {
                0 => buried.push((id, (delivery.receipt, "why".to_owned()))),
                1 | 2 => back.push(delivery.receipt),
                _ => {
                    self.letters.insert(id, Letter::Free);
                    done.push(delivery.receipt);
                }
            }
        }
        backend.queue.ack(&done).await?;
        backend.queue.retry(&back, Duration::ZERO).await?;
        let (ids, buried): (Vec<_>, Vec<_>) = buried.into_iter().unzip();
        let was: Vec<_> = ids.iter().map(|id| self.letters[id]).collect();
        self.letters.extend(ids.iter().map(|id| (*id, Letter::Either)));
        backend.queue.bury(&buried).await?;
        for (id, was) in ids.into_iter().zip(was) {
            // One that was there twice may still be.
            let now = if was == Letter::Waiting { Letter::Dead } else { Letter::Either };
            self.letters.insert(id, now);
        }
        Ok(())
    }

    async fn redrive(&mut self, backend: &Backend) -> Result<(), SeamError> {
        let letters = backend.queue.dead_letters(3).await?;
        let ids: Vec<_> = letters.iter().map(|letter| letter.message.order_id()).collect();
        self.letters.extend(ids.iter().map(|id| (*id, Letter::Either)));
        assert_eq!(backend.queue.redrive(3).await?, ids.len());
        Ok(())
    }

    /// Compares what a reopened backend shows with what is known.
    async fn check(&mut self, backend: &Backend) {
        let found = self.check_orders(backend).await;
        self.check_items(backend, &found).await;
        self.check_letters(backend).await;
        self.follower.catch_up(backend, &found).await;
    }

    async fn check_orders(&mut self, backend: &Backend) -> Vec<Order> {
        let mut found = Vec::new();
        let mut next = None;
        loop {
            let filter = OrderFilter::default();
            let page = backend.store.list_orders(&filter, next.as_ref(), 50).await.expect("list");
            found.extend(page.orders);
            next = page.next;
            if next.is_none() {
                break;
            }
        }
        let by_id: HashMap<_, _> = found.iter().map(|order| (order.id, order)).collect();
        assert_eq!(by_id.len(), found.len(), "an id is there twice");
        for id in by_id.keys() {
            assert!(self.orders.contains_key(id), "{id} came from nowhere");
        }
        for (id, known) in &mut self.orders {
            let order = by_id.get(id).copied();
            let acknowledged = known.acknowledged.as_ref();
            let may_be_forgotten =
                |order: &Order| order.reason().is_some() && order.money() == Money::None;
            if order.is_some() || !acknowledged.is_some_and(may_be_forgotten) {
                known.check(order, id);
            }
            *known = Known { acknowledged: order.cloned(), tried: Vec::new() };
            let read = backend.store.orders(&[*id]).await.expect("orders");
            assert_eq!(read[0].as_ref(), order);
        }
        let owing = || found.iter().filter(|order| order.money() == Money::Owed);
        let owed = backend.store.owed().await.expect("owed");
        assert_eq!(owed.orders, owing().count() as u64);
        assert_eq!(owed.since, owing().filter_map(Order::owed_since).min());
        let filter = OrderFilter::builder().money(Money::Owed).build();
        let listed = backend.store.list_orders(&filter, None, 1_000).await.expect("list");
        assert_eq!(listed.orders.iter().collect::<Vec<_>>(), owing().collect::<Vec<_>>());
        found
    }

    async fn check_items(&mut self, backend: &Backend, found: &[Order]) {
        let (mut held, mut sold) = (HashMap::new(), HashMap::new());
        let mut seats = HashSet::new();
        for order in found.iter().filter(|order| order.status().owns_stock()) {
            let owned = if order.status() == OrderStatus::Held { &mut held } else { &mut sold };
            for line in order.lines.iter() {
                *owned.entry(&line.item).or_insert(0) += line.ask.units();
                if let Ask::Seats(named) = &line.ask {
                    assert!(named.iter().all(|seat| seats.insert(seat)), "a seat was sold twice");
                }
            }
        }
        for (id, known) in &mut self.items {
            let item =
                backend.store.items(std::slice::from_ref(id)).await.expect("items").remove(0);
            known.check(item.as_ref().map(|item| &*item.spec), id);
            let Some(item) = item else { continue };
            *known = Known { acknowledged: Some((*item.spec).clone()), tried: Vec::new() };
            let of = |owned: &HashMap<_, _>| owned.get(id).copied().unwrap_or(0);
            assert_eq!((item.held, item.sold), (of(&held), of(&sold)), "{id}");
            assert_eq!(item.available + item.held + item.sold, item.spec.capacity(), "{id}");
            let claim =
                backend.store.claim(std::slice::from_ref(id)).await.expect("claim").remove(0);
            let Claim { token, spec, stock } = claim.expect("it is there");
            assert!(token.0 > self.last_token, "a token came twice");
            self.last_token = token.0;
            if let (Stock::Seats(map), crate::ItemKind::Seats(hall)) = (&stock, &spec.kind) {
                for name in hall.names() {
                    let place = hall.index_of(name).expect("named");
                    assert_eq!(map.is_taken(place), seats.contains(name), "{name}");
                }
            }
        }
        let ever = Timestamp::from_millis(u64::MAX);
        let due = backend.store.due_holds(ever, usize::MAX).await.expect("due").due;
        let due: HashSet<_> = due.into_iter().collect();
        let held = found.iter().filter(|order| order.status() == OrderStatus::Held);
        assert_eq!(due, held.map(|order| order.id).collect());
    }

    async fn check_letters(&mut self, backend: &Backend) {
        let waiting = backend.queue.receive(usize::MAX, Duration::ZERO).await.expect("receive");
        let receipts: Vec<_> = waiting.iter().map(|delivery| delivery.receipt.clone()).collect();
        backend.queue.retry(&receipts, Duration::ZERO).await.expect("retry");
        let (mut ids, mut twice) = (HashSet::new(), HashSet::new());
        for id in waiting.iter().map(|delivery| delivery.message.order_id()) {
            if !ids.insert(id) {
                twice.insert(id);
            }
        }
        let waiting = ids;
        let dead = backend.queue.dead_letters(usize::MAX).await.expect("dead");
        let dead: HashSet<_> = dead.iter().map(|letter| letter.message.order_id()).collect();
        for id in waiting.iter().chain(&dead) {
            assert!(self.letters.contains_key(id), "a message came from nowhere");
        }
        for (id, letter) in &mut self.letters {
            let found = (waiting.contains(id), dead.contains(id));
            let right = match letter {
                Letter::Waiting => found == (true, false),
                Letter::Dead => found == (false, true),
                Letter::Either => found.0 || found.1,
                Letter::Free => true,
            };
            assert!(right, "{id} must be {letter:?}, is (waiting, dead) {found:?}");
            *letter = match found {
                (true, false) if *letter == Letter::Free => Letter::Free,
                (true, false) if twice.contains(id) => Letter::Either,
                (true, false) => Letter::Waiting,
                (false, true) => Letter::Dead,
                (true, true) => Letter::Either,
                (false, false) => Letter::Free,
            };
        }
    }
}

/// One disk through several crashes.
async fn crash(seed: u64, fault: Fault) {
    let mut dice = Dice(seed);
    let mut model = Model::default();
    let mut image = Vec::new();
    for _ in 0..4 {
        let is_new = image.is_empty();
        let disk = Disk::holding(std::mem::take(&mut image));
        let faulty_open = dice.roll(3) == 0;
        if faulty_open {
            disk.fail_after(dice.roll(60), fault);
        }
        let opened = open(&disk);
        if let Ok(backend) = opened {
            if !disk.failed() {
                model.check(&backend).await;
            }
            if !faulty_open {
                disk.fail_after(dice.roll(800), fault);
            }
            for _ in 0..200 {
                if let Err(error) = model.step(&backend, &mut dice).await {
                    assert!(disk.failed(), "{error}");
                    assert!(matches!(error, SeamError::Broken { .. }), "{error}");
                    let later = model.put(&backend, &mut dice).await;
                    assert!(matches!(later, Err(SeamError::Stopped { .. })), "{later:?}");
                    break;
                }
            }
        } else {
            assert!(disk.failed(), "a whole file opens: {opened:?}");
            if is_new {
                // A file that is not whole yet has no name yet.
                continue;
            }
        }
        image = match fault {
            Fault::Fails(_) if dice.roll(2) == 0 => disk.live(),
            _ => disk.after_power_loss(&mut dice),
        };
    }
    let backend = open(&Disk::holding(image)).expect("a whole file opens");
    model.check(&backend).await;
}

/// Set `FLUX_CRASH_SEEDS` to look longer.
fn seeds() -> u64 {
    let seeds = std::env::var("FLUX_CRASH_SEEDS").ok();
    seeds.map_or(12, |seeds| seeds.parse().expect("FLUX_CRASH_SEEDS is a number"))
}

#[tokio::test]
async fn what_was_acknowledged_survives_power_loss() {
    for seed in 0..seeds() {
        println!("seed {seed}");
        crash(seed, Fault::PowerLoss).await;
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_full_or_failing_disk() {
    for seed in 1_000..1_000 + seeds() {
        println!("seed {seed}");
        let kind = [ErrorKind::StorageFull, ErrorKind::Other][(seed % 2) as usize];
        crash(seed, Fault::Fails(kind)).await;
    }
}

/// The file that an earlier version left.
fn earlier(name: &str) -> Vec<u8> {
    let file = format!("{}/tests/upgrade/{name}.redb.gz", env!("CARGO_MANIFEST_DIR"));
    let mut image = Vec::new();
    let packed = std::fs::File::open(file).expect("a fixture");
    io::Read::read_to_end(&mut flate2::read::GzDecoder::new(packed), &mut image).expect("whole");
    image
}

async fn all_orders(backend: &Backend) -> Vec<Order> {
    let page = backend.store.list_orders(&OrderFilter::default(), None, 100).await;
    page.expect("listed").orders
}

#[tokio::test]
async fn an_upgrade_that_is_cut_off_anywhere_is_made_or_not_and_loses_nothing() {
    for name in ["format-1", "format-2"] {
        let image = earlier(name);
        let whole = open(&Disk::holding(image.clone())).expect("it opens");
        let (orders, items) = (all_orders(&whole).await, whole.store.list_items(None, 9).await);
        assert!(orders.len() > 8 && items.is_ok());
        drop(whole);
        let mut cut_off = 0;
        for changes in 0.. {
            let disk = Disk::holding(image.clone());
            disk.fail_after(changes, Fault::PowerLoss);
            let opened = open(&disk);
            let is_done = opened.is_ok() && !disk.failed();
            drop(opened);
            for seed in 0..4 {
                let left = disk.after_power_loss(&mut Dice(seed));
                let again = open(&Disk::holding(left)).expect("whatever was left opens");
                assert_eq!(all_orders(&again).await, orders, "{name}, cut off after {changes}");
                assert_eq!(again.queue.dead_letters(9).await.expect("read").len(), 2);
            }
            if is_done {
                break;
            }
            cut_off += 1;
        }
        assert!(cut_off > 10, "{name} was cut off at {cut_off} places only");
    }
}

#[tokio::test]
async fn a_disk_that_can_only_be_read_is_refused() {
    let disk = Disk::default();
    drop(open(&disk).expect("opens"));
    disk.fail_after(0, Fault::Fails(ErrorKind::ReadOnlyFilesystem));
    let error = open(&disk).expect_err("nothing can be written");
    assert!(matches!(error, OpenError::Io { .. }), "{error:?}");
}

#[tokio::test]
async fn a_full_disk_is_named_once_and_kept_as_the_source_up_to_the_caller_of_the_engine() {
    let disk = Disk::default();
    // A clock without a boot: its position is not kept, so the order's is the write that fails.
    let clock = std::sync::Arc::new(crate::clock::TokioClock::starting_at(T0));
    let flux = crate::Flux::builder(open(&disk).expect("opens")).clock(clock).start();
    flux.put_item(ItemSpec::pool("a", 9).expect("pool")).await.expect("put");
    disk.fail_after(0, Fault::Fails(ErrorKind::StorageFull));
    let asked = crate::OrderRequest::units("ann", "a", 1).expect("a request");
    let error = flux.place(asked).await.expect_err("the disk is full");
    assert!(matches!(error, crate::Error::Backend(SeamError::Broken { .. })), "{error:?}");
    let said = error.to_string();
    assert!(said.starts_with("embedded store is broken: a write failed"), "{said}");
    assert_eq!(said.matches("broken").count(), 1, "{said}");
    assert_is_full(&error);

    // There is room again, and yet nothing is done: the next open goes by the file.
    disk.mend();
    let more = ItemSpec::pool("b", 9).expect("pool");
    let later = flux.put_item(more).await.expect_err("the store has stopped");
    assert!(matches!(later, crate::Error::Backend(SeamError::Stopped { .. })), "{later:?}");
    assert_is_full(&later);
    let failure = flux.failed().await;
    assert!(matches!(failure, crate::Failure::Backend(SeamError::Stopped { .. })), "{failure:?}");
    assert_is_full(&failure);
}

#[track_caller]
fn assert_is_full(error: &(dyn Error + 'static)) {
    let mut chain = std::iter::successors(Some(error), |&error| error.source());
    let io = chain.find_map(|error| error.downcast_ref::<io::Error>());
    assert_eq!(io.map(io::Error::kind), Some(ErrorKind::StorageFull), "{error:?}");
}

/// Only what was on its way when the disk filled up is in doubt.
#[tokio::test]
async fn what_comes_after_a_full_disk_is_refused_and_reopening_finds_what_was_acknowledged() {
    let disk = Disk::default();
    let flux = crate::Flux::builder(open(&disk).expect("opens")).start();
    flux.put_item(ItemSpec::pool("a", 9_000).expect("pool")).await.expect("put");
    let asked = || crate::OrderRequest::units("ann", "a", 1).expect("a request");
    disk.fail_after(60, Fault::Fails(ErrorKind::StorageFull));
    let (mut held, mut queued) = (Vec::new(), Vec::new());
    // The call that fails may have met the fault, or have come after one that did.
    loop {
        let Ok(order) = flux.place(asked()).await else { break };
        held.push(order);
        let Ok(order) = flux.submit(asked()).await else { break };
        queued.push(order.id);
    }
    disk.mend();
    let id = held[0].id;
    let payment = || crate::PaymentRef::new("p").expect("a reference");
    for refused in [
        flux.submit(asked()).await,
        flux.place(asked()).await,
        flux.place_within(asked(), Duration::from_secs(1)).await,
        flux.confirm(id, payment()).await,
        flux.release(id).await,
    ] {
        match refused {
            Err(crate::Error::Backend(error)) => assert!(!error.may_have_applied(), "{error:?}"),
            refused => assert!(matches!(refused, Err(crate::Error::ShuttingDown)), "{refused:?}"),
        }
    }
    flux.failed().await;
    flux.shutdown().await;
    drop(flux);

    let flux = crate::Flux::builder(open(&disk).expect("opens")).start();
    for order in &held {
        assert_eq!(flux.order(order.id).await.expect("read").as_ref(), Some(order));
    }
    for id in queued {
        let order = flux.wait(id, Duration::from_secs(60)).await.expect("it was accepted");
        assert_eq!(order.status(), crate::OrderStatus::Held);
    }
    assert!(flux.audit().await.expect("read").is_clean());
    flux.shutdown().await;
}

/// The same handles go on, and what was acknowledged is there; all the while it can be read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_full_disk_reads_go_on_and_with_room_again_so_does_everything() {
    let disk = Disk::default();
    let backend = open(&disk).expect("opens");
    let flux = crate::Flux::builder(backend.clone()).start();
    let other_handle = flux.clone();
    let mut hears = flux.subscribe();
    flux.put_item(ItemSpec::pool("a", 9_000).expect("pool")).await.expect("put");
    let asked = || crate::OrderRequest::units("ann", "a", 1).expect("a request");
    let is_known = |known: &[Order], orders: &[Order]| {
        known.iter().all(|order| orders.iter().any(|other| other.id == order.id))
    };
    let mut held = Vec::new();
    for round in 0..3 {
        disk.fail_after(40 + 7 * round, Fault::Fails(ErrorKind::StorageFull));
        let mut queued = Vec::new();
        loop {
            let Ok(order) = flux.place(asked()).await else { break };
            held.push(order);
            let Ok(order) = flux.submit(asked()).await else { break };
            queued.push(order.id);
        }
        flux.failed().await;

        // Reads go on, of what is on disk.
        for order in &held {
            assert_eq!(flux.order(order.id).await.expect("read").as_ref(), Some(order));
        }
        let listed = backend.store.list_orders(&OrderFilter::default(), None, 1_000).await;
        assert!(is_known(&held, &listed.expect("read").orders));
        assert_eq!(flux.item(&item("a")).await.expect("read").expect("it is there").sold, 0);
        assert_eq!(flux.items(None, 10).await.expect("read").len(), 1);
        assert!(!flux.changes(None, 10).await.expect("read").changes.is_empty());
        let refused = flux.place(asked()).await;
        assert!(matches!(refused, Err(crate::Error::ShuttingDown)), "{refused:?}");

        // As long as there is no room, it is as it was.
        let error = flux.reopen().await.expect_err("the disk is full");
        assert!(matches!(error, crate::Error::Backend(SeamError::Stopped { .. })), "{error:?}");
        assert!(flux.failure().is_some());
        // Who listens is not told of an end.
        let heard = loop {
            match hears.try_recv() {
                Ok(_) | Err(TryRecvError::Lagged(_)) => {}
                Err(heard) => break heard,
            }
        };
        assert_eq!(heard, TryRecvError::Empty);
        disk.mend();
        flux.reopen().await.expect("there is room again");
        assert!(flux.failure().is_none());

        for order in &held {
            assert_eq!(other_handle.order(order.id).await.expect("read").as_ref(), Some(order));
        }
        for id in queued {
            let order = flux.wait(id, Duration::from_secs(60)).await.expect("it was accepted");
            assert_eq!(order.status(), crate::OrderStatus::Held);
            held.push(order);
        }
        held.push(other_handle.place(asked()).await.expect("it goes on"));
        flux.reopen().await.expect("it has not failed");
        let audit = flux.audit().await.expect("read");
        assert!(audit.is_clean(), "{audit}");
    }
    let last = held.last().expect("some were held").id;
    let heard = async {
        loop {
            match hears.recv().await {
                Ok(outcomes) if outcomes.orders.iter().any(|order| order.id == last) => {
                    return true;
                }
                Err(RecvError::Closed) => return false,
                _ => {}
            }
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(10), heard).await.expect("told"));
    flux.shutdown().await;
    assert!(matches!(flux.reopen().await, Err(crate::Error::ShuttingDown)));
    drop((flux, other_handle, backend));
    let audit = crate::Flux::builder(open(&disk).expect("opens")).start().audit().await;
    assert!(audit.expect("read").is_clean());
}

#[tokio::test]
async fn a_payment_that_meets_a_full_disk_tells_that_the_store_has_stopped() {
    let disk = Disk::default();
    let flux = crate::Flux::builder(open(&disk).expect("opens")).start();
    flux.put_item(ItemSpec::pool("a", 9).expect("pool")).await.expect("put");
    let asked = crate::OrderRequest::units("ann", "a", 1).expect("a request");
    let order = flux.place(asked).await.expect("placed");
    let payment = || crate::PaymentRef::new("paid").expect("a reference");

    disk.fail_after(0, Fault::Fails(ErrorKind::StorageFull));
    flux.confirm(order.id, payment()).await.expect_err("the disk is full");
    // Nobody else has met it yet.
    flux.check_backends().await.expect_err("it takes nothing");
    flux.reopen().await.expect_err("the disk is full");
    disk.mend();
    flux.reopen().await.expect("there is room again");
    flux.check_backends().await.expect("it works");
    let order = flux.confirm(order.id, payment()).await.expect("paid");
    assert_eq!(order.status(), crate::OrderStatus::Confirmed);
    flux.shutdown().await;
}

#[tokio::test]
async fn a_crash_counts_as_a_delivery_and_a_close_does_not() {
    async fn attempt(disk: &Disk) -> (Backend, u32) {
        let backend = open(disk).expect("opens");
        let taken = backend.queue.receive(9, Duration::ZERO).await.expect("receive");
        assert_eq!(taken.len(), 1);
        (backend, taken[0].attempt)
    }
    let (mut disk, mut dice) = (Disk::default(), Dice(0));
    let message = [Message::Place(order(1, "ann", vec![units("a", 1)]))];
    open(&disk).expect("opens").queue.send(&message).await.expect("send");
    for _ in 0..20 {
        assert_eq!(attempt(&disk).await.1, 1, "it was closed each time");
    }

    for crashes in 1..=4 {
        let (backend, _) = attempt(&disk).await;
        let image = disk.after_power_loss(&mut dice);
        drop(backend);
        disk = Disk::holding(image);
        for _ in 0..2 {
            assert_eq!(attempt(&disk).await.1, 1 + crashes, "the power went");
        }
    }

    let (backend, _) = attempt(&disk).await;
    disk.fail_after(0, Fault::PowerLoss);
    drop(backend);
    disk = Disk::holding(disk.after_power_loss(&mut dice));
    assert_eq!(attempt(&disk).await.1, 6, "the power went while it closed");

    let (backend, _) = attempt(&disk).await;
    disk.fail_after(0, Fault::Fails(ErrorKind::StorageFull));
    backend.queue.send(&message).await.expect_err("full");
    disk.mend();
    drop(backend);
    disk = Disk::holding(disk.live());
    assert_eq!(attempt(&disk).await.1, 7, "a write had failed");

    let (backend, _) = attempt(&disk).await;
    let unwound = catch_unwind(AssertUnwindSafe(move || {
        let _dropped = backend;
        panic!("on purpose");
    }));
    assert!(unwound.is_err());
    assert_eq!(attempt(&disk).await.1, 8, "it was closed by a panic");
}

#[tokio::test]
async fn crashes_before_a_message_was_sent_are_no_deliveries_of_it() {
    let (mut disk, mut dice) = (Disk::default(), Dice(0));
    // More than a message may live to see.
    for _ in 0..120 {
        let backend = open(&disk).expect("opens");
        let image = disk.after_power_loss(&mut dice);
        drop(backend);
        disk = Disk::holding(image);
    }
    let accepts = crate::Flux::builder(open(&disk).expect("opens"));
    let accepts = accepts.role(crate::Role::AcceptOnly).start();
    accepts.put_item(ItemSpec::pool("a", 5).expect("a pool")).await.expect("put");
    let request = crate::OrderRequest::units("ann", "a", 1).expect("a request");
    let queued = accepts.submit(request).await.expect("accepted");
    accepts.shutdown().await;
    drop(accepts);

    let flux = crate::Flux::builder(open(&disk).expect("opens")).start();
    let order = flux.wait(queued.id, Duration::from_secs(60)).await;
    assert_eq!(order.expect("it was accepted").status(), OrderStatus::Held);
    assert_eq!(flux.dead_letters(9).await.expect("read"), []);
    flux.shutdown().await;
}

/// Polls once; a future that needs the disk is not done.
fn is_pending<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> bool {
    future.poll(&mut Context::from_waker(Waker::noop())).is_pending()
}

#[tokio::test]
async fn nothing_is_answered_or_shown_before_it_is_on_disk() {
    let disk = Disk::default();
    let Backend { store, queue, .. } = open(&disk).expect("opens");
    let spec = ItemSpec::pool("a", 9).expect("pool");
    store.put_item(&spec).await.expect("put");
    let id = [item("a")];
    let token = store.claim(&id).await.expect("claim")[0].clone().expect("there").token;
    let messages = [1, 2].map(|n| Message::Place(order(n, "ann", vec![units("a", 1)])));
    let held = order(3, "ann", vec![units("a", 1)]);
    let commit = [Commit { claims: vec![(item("a"), token)], writes: vec![hold(&held)] }];

    let stuck = disk.stick();
    let mut send = pin!(queue.send(&messages));
    assert!(is_pending(send.as_mut()), "sent");
    let mut find = pin!(queue.find(messages[0].order_id()));
    assert!(is_pending(find.as_mut()), "found");
    // Taking is no promise: what comes of it is on disk no earlier than the message.
    let taken = queue.receive(2, Duration::ZERO).await.expect("receive");
    let letter = [(taken[1].receipt.clone(), "why".to_owned())];
    let mut bury = pin!(queue.bury(&letter));
    assert!(is_pending(bury.as_mut()), "buried");
    let mut dead = pin!(queue.dead_letters(9));
    assert!(is_pending(dead.as_mut()), "dead");
    let mut applied = pin!(store.commit(&commit));
    assert!(is_pending(applied.as_mut()), "committed");
    let mut orders = pin!(store.orders(std::slice::from_ref(&held.id)));
    assert!(is_pending(orders.as_mut()), "read");
    let mut stock = pin!(store.stock(&id[0]));
    assert!(is_pending(stock.as_mut()), "stock");
    let larger = ItemSpec::pool("a", 10).expect("pool");
    let mut put = pin!(store.put_item(&larger));
    assert!(is_pending(put.as_mut()), "put");
    let mut items = pin!(store.items(&id));
    assert!(is_pending(items.as_mut()), "items");

    drop(stuck);
    send.await.expect("sent");
    bury.await.expect("buried");
    assert!(find.await.expect("found").is_some());
    assert_eq!(dead.await.expect("dead").len(), 1);
    assert_eq!(applied.await.expect("committed"), [CommitOutcome::Applied]);
    assert_eq!(orders.await.expect("read")[0].as_ref(), Some(&commit[0].writes[0].order));
    assert_eq!(stock.await.expect("stock").expect("there").1, Stock::Pool { available: 8 });
    assert_eq!(put.await.expect("put"), PutOutcome::Changed);
    assert_eq!(items.await.expect("items")[0].as_ref().expect("there").spec.capacity(), 10);
}

#[tokio::test]
async fn an_order_is_not_shown_as_it_was_while_its_change_is_on_its_way_to_the_disk() {
    let disk = Disk::default();
    let Backend { store, .. } = open(&disk).expect("opens");
    store.put_item(&ItemSpec::pool("a", 9).expect("pool")).await.expect("put");
    let token = store.claim(&[item("a")]).await.expect("claim")[0].clone().expect("there").token;
    let commit = |write| [Commit { claims: vec![(item("a"), token)], writes: vec![write] }];
    let order = order(1, "ann", vec![units("a", 1)]);
    store.commit(&commit(hold(&order))).await.expect("committed");
    let ended = release(&order);

    let stuck = disk.stick();
    let change = commit(ended.clone());
    let mut changed = pin!(store.commit(&change));
    assert!(is_pending(changed.as_mut()), "committed");
    let ids = [order.id];
    let mut read = pin!(store.orders(&ids));
    assert!(is_pending(read.as_mut()), "read");
    drop(stuck);
    assert_eq!(read.await.expect("read"), [Some(ended.order)]);
    changed.await.expect("committed");
}

#[tokio::test]
async fn what_is_on_disk_is_answered_so_though_the_disk_fails_before_anybody_asks() {
    let disk = Disk::default();
    let Backend { queue, .. } = open(&disk).expect("opens");
    let messages = [1, 2].map(|n| [Message::Place(order(n, "ann", vec![units("a", 1)]))]);
    let mut first = pin!(queue.send(&messages[0]));
    assert!(is_pending(first.as_mut()), "sent");
    // Found once it is on disk.
    assert!(queue.find(messages[0][0].order_id()).await.expect("found").is_some());
    disk.fail_after(0, Fault::PowerLoss);
    queue.send(&messages[1]).await.expect_err("the power is off");
    first.await.expect("it is on disk");
}

/// Begins calls until one is refused; all others end once the disk goes on.
async fn begun_until_refused<Fut>(disk: &Disk, mut begin: impl FnMut(u128) -> Fut)
where
    Fut: Future<Output = Result<(), SeamError>>,
{
    let stuck = disk.stick();
    let mut begun = Vec::new();
    let refused = loop {
        let number = begun.len() as u128;
        assert!(number < 40, "nothing is refused");
        let mut call = Box::pin(begin(number));
        match call.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => begun.push(call),
            Poll::Ready(answer) => break answer,
        }
    };
    assert!(matches!(refused, Err(SeamError::Overloaded { .. })), "{refused:?}");
    assert!(begun.len() > 5, "only {} wait", begun.len());
    drop(stuck);
    for call in begun {
        call.await.expect("it is on disk");
    }
    begin(40).await.expect("there is room again");
}

#[tokio::test]
async fn what_waits_for_a_slow_disk_is_bounded() {
    let disk = Disk::default();
    let Backend { queue, store, .. } = open(&disk).expect("opens");
    let seats: Vec<String> = (0..100).map(|n| format!("{n:0>128}")).collect();
    let line = Line::seats("h", &seats).expect("seats");
    let large = &order(0, "ann", vec![line]);
    // Some megabytes each time.
    let orders = |number: u128| {
        let ids = (number * 400..(number + 1) * 400).map(uuid::Uuid::from_u128);
        ids.map(move |id| Order { id: OrderId::from_uuid(id), ..large.clone() })
    };
    begun_until_refused(&disk, |number| {
        let messages: Vec<_> = orders(number).map(Message::Place).collect();
        let queue = &queue;
        async move { queue.send(&messages).await }
    })
    .await;
    begun_until_refused(&disk, |number| {
        let turned_down = |order: Order| {
            let order = order.with_state(OrderState::Rejected(T0, Reason::SeatTaken));
            OrderWrite { order, expect: Expect::Absent }
        };
        let writes = orders(number).map(turned_down).collect();
        let (store, commit) = (&store, Commit { claims: Vec::new(), writes });
        async move { store.commit(&[commit]).await.map(drop) }
    })
    .await;
}
