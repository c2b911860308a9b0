//! The state machine of an inventory store, without a disk: the newest token and
//! the stock of each item, the status of each order. The memory store and the
//! embedded store both run it, each behind one lock.

use std::collections::hash_map::Entry::{Occupied, Vacant};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::{Arc, Mutex};

use super::buyer_book::BuyerBook;
use super::debts::Debts;
use super::rejected::{Rejected, Retention};
use super::removals::Departures;
use super::sharded::Sharded;
use crate::protocol::{
    BuyerId, BuyersNow, Changes, Claim, Commit, CommitOutcome, Effect, Expect, FencingToken, Item,
    ItemId, ItemNow, ItemSpec, Money, Order, OrderId, OrderState, OrderStatus, OrderWrite,
    PutItemError, Stock, Timestamp, judge, revise,
};
use crate::seams::{Owed, PutOutcome};

/// Most orders that are held no more dropped in one look for ended holds, so
/// that a caller can let go of its lock.
const DROPS_PER_LOOK: usize = 2_048;

/// An order's sequence number, its status and where its money stands, in eight bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry(u64);

impl Entry {
    pub(crate) fn new(seq: u64, status: OrderStatus, money: Money) -> Self {
        debug_assert!(seq < 1 << 56);
        Self(seq << 8 | (money as u64) << 4 | status as u64)
    }

    pub(crate) fn seq(self) -> u64 {
        self.0 >> 8
    }

    pub(crate) fn status(self) -> OrderStatus {
        OrderStatus::ALL[(self.0 & 0xf) as usize]
    }

    pub(super) fn money(self) -> Money {
        Money::ALL[(self.0 >> 4 & 0xf) as usize]
    }
}

/// The units of an item that each buyer holds or owns.
#[derive(Debug, Default)]
pub(crate) struct BuyerCounts(Sharded<BuyerId, u32>);

impl BuyerCounts {
    fn get(&self, buyer: &BuyerId) -> u32 {
        self.0.get(buyer).copied().unwrap_or(0)
    }

    /// Adds units, or takes some away.
    pub(crate) fn add(&mut self, buyer: &BuyerId, units: i64) {
        let buyers = self.0.shard_mut(buyer);
        let live = i64::from(buyers.get(buyer).copied().unwrap_or(0)) + units;
        debug_assert!(live >= 0, "gave back more than was owned");
        match u32::try_from(live) {
            Ok(0) | Err(_) => buyers.remove(buyer),
            Ok(live) => buyers.insert(buyer.clone(), live),
        };
    }

    /// Counts what an order holds or owns of the item.
    pub(crate) fn count(&mut self, order: &Order, item: &ItemId) {
        if order.status().owns_stock() {
            for line in order.lines.iter().filter(|line| line.item == *item) {
                self.add(&order.buyer, i64::from(line.ask.units()));
            }
        }
    }
}

/// Units that a buyer came to own, or gave back, while the buyers of their item
/// are counted.
#[derive(Debug)]
pub(crate) struct Move {
    /// The place of the change among those that the count has seen, as the store
    /// noted it.
    pub(crate) place: u64,
    pub(crate) buyer: BuyerId,
    pub(crate) units: i64,
}

/// One item.
#[derive(Debug)]
struct ItemEntry {
    spec: Arc<ItemSpec>,
    stock: Stock,
    /// Units of orders that are [`OrderStatus::Held`].
    held: u32,
    token: FencingToken,
    /// Whether a unit of it was ever paid for, and is kept in an order.
    ever_sold: bool,
    /// Kept only while the item has a cap.
    buyers: Option<BuyerCounts>,
}

impl ItemEntry {
    fn item(&self) -> Item {
        let available = self.stock.available();
        let taken = self.spec.capacity() - available;
        Item {
            spec: self.spec.clone(),
            available,
            held: self.held,
            sold: taken.saturating_sub(self.held),
        }
    }

    /// The item as a commit is judged by it.
    fn now(&self) -> ItemNow<'_> {
        ItemNow { token: self.token, spec: &self.spec, stock: &self.stock }
    }

    /// Units the buyer holds or owns, as far as they are counted.
    fn live(&self, buyer: &BuyerId) -> u32 {
        self.buyers.as_ref().map_or(0, |buyers| buyers.get(buyer))
    }

    /// Starts to keep count of buyers if the item has a cap, and stops if not.
    fn count_buyers(&mut self, owners: BuyerCounts) {
        if self.spec.max_per_buyer.is_none() {
            self.buyers = None;
        } else if self.buyers.is_none() {
            self.buyers = Some(owners);
        }
    }
}

/// An item as it is found when a store opens.
#[cfg(feature = "embedded")]
pub(crate) struct RestoredItem {
    pub(crate) spec: Arc<ItemSpec>,
    pub(crate) stock: Stock,
    pub(crate) held: u32,
    /// Whether an order was paid for, whatever became of it.
    pub(crate) ever_sold: bool,
    /// Empty unless the item has a cap.
    pub(crate) buyers: BuyerCounts,
}

type Items = HashMap<ItemId, ItemEntry, foldhash::fast::RandomState>;

/// The state of an inventory store.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    items: Items,
    /// The items in order, for listing.
    ids: BTreeSet<ItemId>,
    index: Sharded<OrderId, Entry>,
    /// Orders by the end of their holds. One that is not held any more stays
    /// until its time, and is dropped when met.
    holds: BTreeMap<Timestamp, Vec<OrderId>>,
    rejected: Rejected,
    debts: Debts,
    /// What changed of the items whose buyers are being counted.
    counting: HashMap<ItemId, Vec<Move>, foldhash::fast::RandomState>,
    next_seq: u64,
    last_token: u64,
    /// Kept only while there are rules about buyers.
    book: Option<BuyerBook>,
    pub(super) departures: Departures,
}

impl Ledger {
    /// An empty ledger that remembers rejected orders as told.
    pub(crate) fn new(retention: Retention) -> Self {
        Self { rejected: Rejected::new(retention), ..Self::default() }
    }

    /// The same ledger, that keeps to the rules of a book.
    pub(crate) fn with_book(self, book: Option<BuyerBook>) -> Self {
        Self { book, ..self }
    }

    /// The same ledger, with items that are leaving or left it.
    #[cfg(feature = "embedded")]
    pub(crate) fn with_departures(self, departures: Departures) -> Self {
        Self { departures, ..self }
    }

    pub(crate) fn departures(&self) -> &Departures {
        &self.departures
    }

    /// A ledger as it was, but that all claims are fenced: its tokens are larger
    /// than `last_token`.
    #[cfg(feature = "embedded")]
    pub(crate) fn restore(
        items: Vec<RestoredItem>,
        index: Sharded<OrderId, Entry>,
        holds: BTreeMap<Timestamp, Vec<OrderId>>,
        rejected: Rejected,
        debts: Debts,
        next_seq: u64,
        mut last_token: u64,
    ) -> Self {
        let mut entries = Items::default();
        for RestoredItem { spec, stock, held, ever_sold, buyers } in items {
            let token = Self::mint(&mut last_token);
            let mut entry = ItemEntry { spec, stock, held, token, ever_sold, buyers: None };
            entry.count_buyers(buyers);
            entries.insert(entry.spec.id.clone(), entry);
        }
        let ids = entries.keys().cloned().collect();
        let counting = HashMap::default();
        Self {
            items: entries,
            ids,
            index,
            holds,
            rejected,
            debts,
            counting,
            next_seq,
            last_token,
            book: None,
            departures: Departures::default(),
        }
    }

    fn mint(last_token: &mut u64) -> FencingToken {
        // G7: larger than any before, so that every earlier claim is fenced.
        *last_token += 1;
        FencingToken(*last_token)
    }

    /// Whether [`put_item`](Self::put_item) will ask who owns the item: it gets
    /// a cap, had none, and units are taken.
    pub(crate) fn put_counts_buyers(&self, spec: &ItemSpec) -> bool {
        self.items.get(&spec.id).is_some_and(|entry| {
            entry.buyers.is_none()
                && spec.max_per_buyer.is_some()
                && entry.stock.available() < entry.spec.capacity()
        })
    }

    /// Notes from now on what changes for the buyers of an item, until
    /// [`stop_counting`](Self::stop_counting): whoever counts them reads orders
    /// of different moments, and makes them one moment's by these changes.
    pub(crate) fn start_counting(&mut self, item: &ItemId) {
        self.counting.insert(item.clone(), Vec::new());
    }

    pub(crate) fn stop_counting(&mut self, item: &ItemId) {
        self.counting.remove(item);
    }

    /// Notes what an applied commit changed for the buyers that are being
    /// counted. `place` tells the place of each write.
    pub(crate) fn note_moves(&mut self, commit: &Commit, place: impl Fn(usize) -> u64) {
        if self.counting.is_empty() {
            return;
        }
        for (at, write) in commit.writes.iter().enumerate() {
            let sign = match write.effect() {
                Effect::Takes => 1,
                Effect::GivesBack => -1,
                Effect::None => continue,
            };
            for line in write.order.lines.iter() {
                if let Some(moves) = self.counting.get_mut(&line.item) {
                    let units = sign * i64::from(line.ask.units());
                    let buyer = write.order.buyer.clone();
                    moves.push(Move { place: place(at), buyer, units });
                }
            }
        }
    }

    /// Takes out what was noted so far.
    pub(crate) fn take_moves(&mut self, item: &ItemId) -> Vec<Move> {
        self.counting.get_mut(item).map(std::mem::take).unwrap_or_default()
    }

    /// As [`InventoryStore::put_item`](crate::seams::InventoryStore::put_item).
    /// `owners` are the units that each buyer holds or owns, and count only when
    /// [`put_counts_buyers`](Self::put_counts_buyers).
    pub(crate) fn put_item(&mut self, spec: &Arc<ItemSpec>, owners: BuyerCounts) -> PutOutcome {
        if self.departures.bars(&spec.id) {
            return PutOutcome::Refused(PutItemError::Archived { item: spec.id.clone() });
        }
        let Some(entry) = self.items.get_mut(&spec.id) else {
            if let Err(invalid) = spec.check() {
                return PutOutcome::Refused(invalid.into());
            }
            let entry = ItemEntry {
                stock: Stock::full(spec),
                held: 0,
                ever_sold: false,
                token: Self::mint(&mut self.last_token),
                buyers: spec.max_per_buyer.map(|_| BuyerCounts::default()),
                spec: spec.clone(),
            };
            self.ids.insert(spec.id.clone());
            self.items.insert(spec.id.clone(), entry);
            return PutOutcome::Created;
        };
        if entry.spec == *spec {
            return PutOutcome::Unchanged;
        }
        match revise(&entry.spec, &entry.stock, spec) {
            Ok(stock) => entry.stock = stock,
            Err(error) => return PutOutcome::Refused(error),
        }
        entry.spec = spec.clone();
        entry.count_buyers(owners);
        entry.token = Self::mint(&mut self.last_token);
        PutOutcome::Changed
    }

    pub(crate) fn claim(&mut self, item: &ItemId) -> Option<Claim> {
        if self.departures.has(item) {
            return None;
        }
        let entry = self.items.get_mut(item)?;
        entry.token = Self::mint(&mut self.last_token);
        Some(Claim { token: entry.token, spec: entry.spec.clone(), stock: entry.stock.clone() })
    }

    /// Applies the commit as a whole and returns its orders' sequence numbers, or
    /// changes nothing and says why.
    pub(crate) fn commit(&mut self, commit: &Commit) -> Result<Vec<u64>, CommitOutcome> {
        self.departures.check(commit)?;
        let Self { items, index, next_seq, book, .. } = self;
        let first_new = *next_seq;
        let mut swapped = Vec::with_capacity(commit.writes.len());
        let judged = judge(
            commit,
            |item| items.get(item).map(ItemEntry::now),
            // The index is written as it is checked, one look-up for both, and an
            // order named twice meets itself.
            |write| swap(index, next_seq, write).map(|swap| swapped.push(swap)).is_some(),
            |item, buyer| items.get(item).map_or(0, |entry| entry.live(buyer)),
            book.as_ref().map(|book| book as &dyn BuyersNow),
        );
        let Changes { stocks, gains, buyers } = match judged {
            Ok(changes) => changes,
            Err(refusal) => {
                for Swapped { id, was, .. } in swapped.into_iter().rev() {
                    match was {
                        Some(entry) => index.shard_mut(&id).insert(id, entry),
                        None => index.shard_mut(&id).remove(&id),
                    };
                }
                *next_seq = first_new;
                return Err(refusal.into());
            }
        };
        for (item, stock) in stocks {
            items.get_mut(item).expect("a claimed item is there").stock = stock;
        }
        for ((item, buyer), gain) in gains {
            let entry = items.get_mut(item).expect("a claimed item is there");
            if let Some(buyers) = &mut entry.buyers {
                buyers.add(buyer, gain.units);
            }
        }
        if let Some(book) = book {
            book.enter(buyers);
        }
        for (write, swapped) in commit.writes.iter().zip(&swapped) {
            self.note_hold(write);
            self.debts.note(swapped.seq, &write.order);
            if let (OrderState::Rejected(at, _), None) = (&write.order.state, swapped.was) {
                self.rejected.push(write.order.id, *at);
            }
        }
        Ok(swapped.into_iter().map(|swapped| swapped.seq).collect())
    }

    /// Forgets rejected orders whose time is over or that are too many, after a
    /// commit that was applied: up to two for each that it rejects, which keeps
    /// up with any flood. Returns their sequence numbers.
    pub(crate) fn forget_after(&mut self, commit: &Commit) -> Vec<u64> {
        let rejected_at = |write: &OrderWrite| match write.order.state {
            OrderState::Rejected(at, _) if write.expect == Expect::Absent => Some(at),
            _ => None,
        };
        let times = || commit.writes.iter().filter_map(rejected_at);
        times().max().map_or_else(Vec::new, |now| self.forget(now, 2 * times().count()))
    }

    /// Forgets rejected orders whose time is over at `now` or that are too many,
    /// oldest first and at most `most`. Returns their sequence numbers. One that money
    /// came for is remembered for good.
    pub(crate) fn forget(&mut self, now: Timestamp, most: usize) -> Vec<u64> {
        let Self { rejected, index, .. } = self;
        let gone = std::iter::from_fn(|| rejected.pop(now)).take(most);
        gone.filter_map(|id| {
            // One that left into an archive is not there, or is another by now.
            let entry = index.get(&id)?;
            // G9: a debt is not forgotten.
            let goes = entry.status() == OrderStatus::Rejected && entry.money() == Money::None;
            if goes { index.remove(&id).map(Entry::seq) } else { None }
        })
        .collect()
    }

    /// Writes one order that changes no stock, if it is what is expected.
    pub(crate) fn write_alone(&mut self, write: &OrderWrite) -> Option<u64> {
        debug_assert_eq!(write.effect(), Effect::None);
        if self.departures.hold(&write.order) {
            return None;
        }
        let swapped = swap(&mut self.index, &mut self.next_seq, write)?;
        self.note_hold(write);
        self.debts.note(swapped.seq, &write.order);
        if let Some(book) = &mut self.book
            && write.expect == Expect::Status(OrderStatus::Held)
        {
            book.move_holds(&write.order.buyer, -1);
        }
        Some(swapped.seq)
    }

    /// The orders whose money is owed.
    pub(crate) fn owed(&self) -> Owed {
        self.debts.owed()
    }

    /// The sequence numbers of up to `most` of those, from one on.
    pub(crate) fn owing(&self, from: u64, most: usize) -> Vec<u64> {
        self.debts.from(from, most)
    }

    /// Keeps `held` and the list of holds in step with a write that counted.
    fn note_hold(&mut self, write: &OrderWrite) {
        let was_held = write.expect == Expect::Status(OrderStatus::Held);
        let is_held = write.order.status() == OrderStatus::Held;
        if write.order.money() != Money::None {
            for line in write.order.lines.iter() {
                if let Some(entry) = self.items.get_mut(&line.item) {
                    entry.ever_sold = true;
                }
            }
        }
        if was_held == is_held {
            return;
        }
        for line in write.order.lines.iter() {
            let Some(entry) = self.items.get_mut(&line.item) else { continue };
            let units = line.ask.units();
            entry.held =
                if is_held { entry.held + units } else { entry.held.saturating_sub(units) };
        }
        if let (true, Some(hold)) = (is_held, write.order.hold()) {
            self.holds.entry(hold.expires_at).or_default().push(write.order.id);
        }
    }

    /// The sequence number of the next new order.
    #[cfg(feature = "embedded")]
    pub(crate) fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// An order's sequence number and its status.
    pub(crate) fn entry(&self, id: OrderId) -> Option<Entry> {
        self.index.get(&id).copied()
    }

    /// Fills `due` with holds that ended at or before `now`, earliest first, up
    /// to `limit`; `false` when it must be asked again to look further.
    pub(crate) fn due_holds(
        &mut self,
        now: Timestamp,
        limit: usize,
        due: &mut Vec<OrderId>,
    ) -> bool {
        due.clear();
        if let Some(book) = &mut self.book {
            book.drop_pauses(now, DROPS_PER_LOOK);
        }
        let mut dropped = 0;
        let mut emptied = Vec::new();
        let index = &self.index;
        let is_held = |id: OrderId| index.get(&id).is_some_and(|e| e.status() == OrderStatus::Held);
        for (&ended, ids) in self.holds.range_mut(..=now) {
            // From the back, where what was found by an earlier look, and is held no
            // more, can be dropped one by one: any number may end at one moment.
            let mut at = ids.len();
            while at > 0 && due.len() < limit && dropped < DROPS_PER_LOOK {
                at -= 1;
                if is_held(ids[at]) {
                    due.push(ids[at]);
                } else {
                    ids.swap_remove(at);
                    dropped += 1;
                }
            }
            if ids.is_empty() {
                emptied.push(ended);
            }
            if due.len() >= limit || dropped >= DROPS_PER_LOOK {
                break;
            }
        }
        for ended in emptied {
            self.holds.remove(&ended);
        }
        due.len() >= limit || dropped < DROPS_PER_LOOK
    }

    /// The earliest time past `now` at which a hold may end.
    pub(crate) fn next_hold_end(&self, now: Timestamp) -> Option<Timestamp> {
        let later = (Bound::Excluded(now), Bound::Unbounded);
        self.holds.range(later).next().map(|(end, _)| *end)
    }

    /// Fences every claim of an item.
    pub(super) fn fence(&mut self, item: &ItemId) {
        if let Some(entry) = self.items.get_mut(item) {
            entry.token = Self::mint(&mut self.last_token);
        }
    }

    /// Whether a unit of an item was ever paid for.
    pub(super) fn ever_sold(&self, item: &ItemId) -> bool {
        self.items.get(item).is_some_and(|entry| entry.ever_sold)
    }

    /// Drops an order, and gives back what it owns.
    pub(super) fn drop_order(&mut self, order: &Order) -> Option<Entry> {
        let gone = self.index.remove(&order.id)?;
        if gone.status().owns_stock() {
            for line in order.lines.iter() {
                if let Some(ItemEntry { spec, stock, .. }) = self.items.get_mut(&line.item) {
                    stock.give_back(spec, &line.ask);
                }
            }
        }
        Some(gone)
    }

    /// Drops an item; its orders are another matter.
    pub(super) fn remove_item(&mut self, item: &ItemId) {
        self.ids.remove(item);
        self.items.remove(item);
    }

    pub(crate) fn item(&self, id: &ItemId) -> Option<Item> {
        self.items.get(id).map(ItemEntry::item)
    }

    pub(crate) fn list_items(&self, after: Option<&ItemId>, limit: usize) -> Vec<Item> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let ids = self.ids.range::<ItemId, _>((from, Bound::Unbounded)).take(limit);
        ids.filter_map(|id| self.item(id)).collect()
    }

    pub(crate) fn stock(&self, id: &ItemId) -> Option<(Arc<ItemSpec>, Stock)> {
        self.items.get(id).map(|entry| (entry.spec.clone(), entry.stock.clone()))
    }
}

/// An index entry that was replaced.
struct Swapped {
    id: OrderId,
    was: Option<Entry>,
    seq: u64,
}

/// Puts the order's new status in the index, if it is what is expected.
fn swap(
    index: &mut Sharded<OrderId, Entry>,
    next_seq: &mut u64,
    write: &OrderWrite,
) -> Option<Swapped> {
    let (id, status, money) = (write.order.id, write.order.status(), write.order.money());
    match index.shard_mut(&id).entry(id) {
        Occupied(mut slot) => {
            let was = *slot.get();
            // G3: of two decisions on one id the second finds it taken.
            if !write.expect.is_met_by(Some((was.status(), was.money()))) {
                return None;
            }
            slot.insert(Entry::new(was.seq(), status, money));
            Some(Swapped { id, was: Some(was), seq: was.seq() })
        }
        Vacant(slot) => {
            if !write.expect.is_met_by(None) {
                return None;
            }
            let seq = *next_seq;
            slot.insert(Entry::new(seq, status, money));
            *next_seq += 1;
            Some(Swapped { id, was: None, seq })
        }
    }
}

/// An item whose buyers are being counted, until this is dropped.
pub(crate) struct Counting<'s, S: AsMut<Ledger>> {
    state: &'s Mutex<S>,
    item: ItemId,
}

impl<'s, S: AsMut<Ledger>> Counting<'s, S> {
    /// Starts the count that a new definition needs, if it still does.
    pub(crate) fn start(state: &'s Mutex<S>, spec: &ItemSpec) -> Option<Self> {
        let mut locked = state.lock().expect("the ledger does not panic");
        let ledger = locked.as_mut();
        if !ledger.put_counts_buyers(spec) {
            return None;
        }
        ledger.start_counting(&spec.id);
        Some(Self { state, item: spec.id.clone() })
    }
}

impl<S: AsMut<Ledger>> Drop for Counting<'_, S> {
    fn drop(&mut self) {
        // A ledger that panicked is used no more.
        if let Ok(mut state) = self.state.lock() {
            state.as_mut().stop_counting(&self.item);
        }
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
pub(crate) mod tests;
