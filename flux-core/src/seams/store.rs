//! The store: the one seam that must not be wrong.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{ChangeFeed, CommitMax, KeptClock, Removals, SeamError, ServiceTime};
use crate::clock::ClockReference;
use crate::protocol::{
    BuyerId, Claim, Commit, CommitOutcome, Item, ItemId, ItemSpec, Money, Order, OrderId,
    OrderStatus, PaymentRef, PutItemError, Refund, Stock, Timestamp,
};

/// The outcome of [`InventoryStore::put_item`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PutOutcome {
    /// The item is new.
    Created,
    /// The definition was replaced.
    Changed,
    /// It was the same already.
    Unchanged,
    /// It breaks a rule, or doesn't fit what is sold; nothing was changed.
    Refused(PutItemError),
}

/// Money for an order.
///
/// ```
/// use flux_core::seams::Payment;
/// use flux_core::{OrderId, PaymentRef, Timestamp};
///
/// let order = OrderId::new();
/// let paid = Payment::new(order, PaymentRef::new("pay_81")?, Timestamp::default());
/// assert_eq!(paid.order, order);
/// # Ok::<(), flux_core::InvalidInput>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Payment {
    /// The order.
    pub order: OrderId,
    /// The payment provider's name of it.
    pub payment: PaymentRef,
    /// The moment it came: in time if the hold ends after it.
    pub at: Timestamp,
}

impl Payment {
    /// The payment named `payment` for `order`, made `at`.
    #[must_use]
    pub fn new(order: OrderId, payment: PaymentRef, at: Timestamp) -> Self {
        Self { order, payment, at }
    }
}

/// The outcome of a [`Payment`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ConfirmOutcome {
    /// Confirmed, by this call or by an earlier one with the same payment; or
    /// refused for good with that payment (`refund_due`): see its status.
    Settled(Order),
    /// The hold is over: the item's worker must rule on it.
    Late(Order),
    /// The order is in no state to be paid for. Of one that was released or rejected the
    /// money is noted as [owed](Money::Owed), the first that came.
    NotHeld(Order),
    /// No such order.
    NotFound,
}

/// Money of an order that was returned.
///
/// ```
/// use flux_core::seams::Repayment;
/// use flux_core::{OrderId, Refund, RefundRef, Timestamp};
///
/// let refund = Refund::new(RefundRef::new("re_81")?, Timestamp::default());
/// let repaid = Repayment::new(OrderId::new(), refund.clone());
/// assert_eq!(repaid.refund, refund);
/// # Ok::<(), flux_core::InvalidInput>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Repayment {
    /// The order.
    pub order: OrderId,
    /// The refund.
    pub refund: Refund,
}

impl Repayment {
    /// The refund of that order's money.
    #[must_use]
    pub fn new(order: OrderId, refund: Refund) -> Self {
        Self { order, refund }
    }
}

/// The outcome of a [`Repayment`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RefundOutcome {
    /// The money is returned, by this refund: told of now, or before.
    Refunded(Order),
    /// It was returned by another refund.
    ByAnother(Order),
    /// None is owed.
    NotOwed(Order),
    /// No such order.
    NotFound,
}

/// The money that is owed.
///
/// ```
/// use flux_core::seams::Owed;
///
/// assert_eq!(Owed::new(0, None), Owed::default());
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Owed {
    /// Orders whose money is owed.
    pub orders: u64,
    /// The moment from which the oldest of it is.
    pub since: Option<Timestamp>,
}

impl Owed {
    /// So many orders, the oldest owed since then.
    #[must_use]
    pub const fn new(orders: u64, since: Option<Timestamp>) -> Self {
        Self { orders, since }
    }
}

/// Selects the orders to list; by default all of them.
///
/// ```
/// use flux_core::{OrderFilter, OrderStatus};
///
/// let anns = OrderFilter::builder().buyer("ann".parse()?).status(OrderStatus::Held).build();
/// assert_eq!((anns.item, anns.status), (None, Some(OrderStatus::Held)));
/// # Ok::<(), flux_core::InvalidInput>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, bon::Builder)]
#[builder(builder_type(doc {
    /// Builds an [`OrderFilter`]; made by [`OrderFilter::builder`]. An order must
    /// meet all that is set.
}))]
#[serde(default)]
#[non_exhaustive]
pub struct OrderFilter {
    /// Only orders of this buyer.
    pub buyer: Option<BuyerId>,
    /// Only orders with a line on this item.
    pub item: Option<ItemId>,
    /// Only orders in this state.
    pub status: Option<OrderStatus>,
    /// Only orders whose money stands so. A store finds those that are
    /// [owed](Money::Owed) without looking through others.
    pub money: Option<Money>,
}

impl OrderFilter {
    /// Whether `order` is one of those selected.
    #[must_use]
    pub fn matches(&self, order: &Order) -> bool {
        self.buyer.as_ref().is_none_or(|buyer| *buyer == order.buyer)
            && self.item.as_ref().is_none_or(|item| order.lines.iter().any(|l| l.item == *item))
            && self.status.is_none_or(|status| status == order.status())
            && self.money.is_none_or(|money| money == order.money())
    }
}

/// The point where a listing goes on; opaque to everybody but the store that
/// made it. It may be kept and sent: it stays good as long as the store does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cursor(pub String);

/// One page of a listing.
///
/// ```
/// use flux_core::{Cursor, OrderPage};
///
/// // Nothing found yet, and more to look through.
/// let page = OrderPage::new(vec![], Some(Cursor("7".into())));
/// assert!(page.next.is_some());
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct OrderPage {
    /// The orders; may be fewer than asked for, even none, on any page.
    pub orders: Vec<Order>,
    /// The start of the next page; `None` on the last, and only there.
    pub next: Option<Cursor>,
}

impl OrderPage {
    /// A page of `orders` that goes on at `next`.
    #[must_use]
    pub fn new(orders: Vec<Order>, next: Option<Cursor>) -> Self {
        Self { orders, next }
    }
}

/// The holds that ended, and the time to ask again.
///
/// ```
/// use flux_core::seams::DueHolds;
/// use flux_core::{OrderId, Timestamp};
///
/// let tomorrow = Timestamp::from_millis(1_790_000_000_000);
/// let found = DueHolds::new(vec![OrderId::new()], Some(tomorrow));
/// assert_eq!((found.due.len(), found.next), (1, Some(tomorrow)));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DueHolds {
    /// Their orders, earliest end first.
    pub due: Vec<OrderId>,
    /// The earliest end of the holds that last still, so the time to ask again;
    /// `None` when no hold lasts. As many `due` as the limit allows are no sign
    /// that these were all: then ask again at once.
    pub next: Option<Timestamp>,
}

impl DueHolds {
    /// The orders whose holds are `due`, and the earliest end of the others.
    #[must_use]
    pub fn new(due: Vec<OrderId>, next: Option<Timestamp>) -> Self {
        Self { due, next }
    }
}

/// Commits whose outcomes are certain among those who share the store, but
/// perhaps not on disk yet.
#[derive(Debug)]
#[non_exhaustive]
pub struct Begun {
    /// The outcome of each commit, in order.
    pub outcomes: Vec<CommitOutcome>,
    /// Completes when what was applied may be shown.
    pub durable: Durable,
}

impl Begun {
    /// Outcomes that may be shown once `durable` completes.
    #[must_use]
    pub fn new(outcomes: Vec<CommitOutcome>, durable: Durable) -> Self {
        Self { outcomes, durable }
    }
}

type Written = Pin<Box<dyn Future<Output = Result<(), SeamError>> + Send>>;

/// Completes when what was begun is durable.
///
/// ```
/// use flux_core::seams::Durable;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), flux_core::SeamError> {
/// let (written, disk) = tokio::sync::oneshot::channel();
/// let durable = Durable::after(async { disk.await.expect("the disk tells") });
/// written.send(Ok(())).expect("it is waited for");
/// durable.wait().await?;
/// Durable::now().wait().await
/// # }
/// ```
pub struct Durable(Option<Written>);

impl Durable {
    /// Completes at once: the write is durable already.
    #[must_use]
    pub fn now() -> Self {
        Self(None)
    }

    /// Completes with `written`: the write is durable once that is `Ok`.
    pub fn after(written: impl Future<Output = Result<(), SeamError>> + Send + 'static) -> Self {
        Self(Some(Box::pin(written)))
    }

    /// Waits until it is durable. Dropping the future only ends the waiting:
    /// the write goes on.
    ///
    /// # Errors
    /// [`SeamError::Broken`]: it may never be durable, and the store takes no
    /// more commits.
    pub async fn wait(self) -> Result<(), SeamError> {
        match self.0 {
            Some(written) => written.await,
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Durable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Durable(later)" } else { "Durable(now)" })
    }
}

/// How new a read must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sight {
    /// It shows all that was written before it began.
    Now,
    /// It may miss what was written in the last few seconds.
    MayLag,
}

/// Items, stock and orders; every guarantee rests on this trait's promises.
///
/// An `Ok` tells only of what is durable, whoever wrote it: a state that a crash
/// could undo is never shown. (The numbers of [`Item`] are the one
/// exception; they may run ahead or lag.)
///
/// A worker uses it in three steps: claim, decide, commit.
///
/// ```
/// use flux_core::protocol::{Commit, CommitOutcome, Message, Verdict, View};
/// use flux_core::{Backend, ItemSpec, Line, Lines, Order, OrderId, OrderStatus, Timestamp};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = Backend::memory().store;
/// let spec = ItemSpec::pool("ticket_1", 5)?;
/// store.put_item(&spec).await?;
///
/// // The claim: from here on nobody who claimed the item before can write.
/// let claim = store.claim(&[spec.id.clone()]).await?.remove(0).expect("put above");
/// let mut commit = Commit::default();
/// commit.claims.push((spec.id.clone(), claim.token));
/// let mut view = View::default();
/// view.insert(claim);
///
/// // The decision, by the protocol.
/// let now = Timestamp::from_millis(1_790_000_000_000);
/// let lines = Lines::new(vec![Line::units("ticket_1", 2)?])?;
/// let order = Order::queued(OrderId::new(), "ann".parse()?, lines, now);
/// let Verdict::Write(write) = view.decide(&Message::Place(order.clone()), None, now) else {
///     unreachable!("a new order is decided")
/// };
/// commit.writes.push(write);
///
/// // The commit: applied, as the token is the newest still.
/// assert_eq!(store.commit(&[commit]).await?, [CommitOutcome::Applied]);
/// let stored = store.orders(&[order.id]).await?.remove(0).expect("committed above");
/// assert_eq!(stored.status(), OrderStatus::Held);
/// assert_eq!(store.availability(&[spec.id]).await?, [Some(3)]);
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait InventoryStore: Send + Sync + 'static {
    /// Creates the item, or replaces its whole definition, whoever put the one
    /// before: a field that `spec` leaves out is gone. Orders keep the units and
    /// seats they hold or own; a definition with too little room for them is
    /// refused, as [`revise`](crate::protocol::revise) rules. A change fences
    /// every claim made before. A new cap counts what its buyers own already.
    async fn put_item(&self, spec: &ItemSpec) -> Result<PutOutcome, SeamError>;

    /// Takes items over: for each, in order, a token larger than any before
    /// and the stock at that moment, or `None` for an item that is not there.
    /// Every earlier claim of the item is fenced from then on: a commit that
    /// carries it is refused. A store that lives and dies with all who claim
    /// from it may keep its claims in memory only, as a crash leaves nobody
    /// who could write under an old one; any other store makes them durable.
    async fn claim(&self, items: &[ItemId]) -> Result<Vec<Option<Claim>>, SeamError>;

    /// Writes each commit as a whole or not at all, and returns which, in order.
    /// One is applied exactly if, at one moment,
    ///
    /// 1. each claim carries the newest token of its item,
    /// 2. each order is what is expected ([`Expect`](crate::protocol::Expect)),
    /// 3. no buyer comes to own more of a capped item than its cap,
    /// 4. no unit is taken that is not available (a worker that does as it
    ///    should never asks; answered as [`CommitOutcome::Fenced`]).
    ///
    /// A claim is needed for every item of a write that changes stock.
    ///
    /// [`CommitOutcome::Unknown`] leaves that commit open, and
    /// [`SeamError::Unknown`] all of them: claim again, which fences a write
    /// still on its way, and read the orders.
    async fn commit(&self, commits: &[Commit]) -> Result<Vec<CommitOutcome>, SeamError>;

    /// The bounds of one commit. A larger one may be refused as
    /// [`SeamError::Broken`]; a commit of a single order must always fit.
    fn commit_max(&self) -> CommitMax {
        CommitMax::UNLIMITED
    }

    /// Commits as [`commit`](Self::commit) does, but may return before the
    /// outcome is durable, as soon as later calls build on it: the next
    /// decisions are made while the disk writes these. Callers show nothing of
    /// it before [`Begun::durable`] completes, and the store makes nothing that
    /// builds on it durable before it. By default it waits.
    async fn begin_commit(&self, commits: &[Commit]) -> Result<Begun, SeamError> {
        Ok(Begun { outcomes: self.commit(commits).await?, durable: Durable::now() })
    }

    /// Pays held orders, each by one conditional write on the order alone, as
    /// [`confirm`](crate::protocol::confirm) rules.
    async fn confirm(&self, payments: &[Payment]) -> Result<Vec<ConfirmOutcome>, SeamError>;

    /// Notes that money was returned, each by one conditional write on the order alone, as
    /// [`refund`](crate::protocol::refund) rules. An order whose money is owed, or was
    /// returned, is not forgotten.
    async fn refund(&self, repayments: &[Repayment]) -> Result<Vec<RefundOutcome>, SeamError>;

    /// Counts the orders whose money is owed. It may lag.
    async fn owed(&self) -> Result<Owed, SeamError>;

    /// Reads decided orders: for each id, in order, the order or `None`.
    async fn orders(&self, ids: &[OrderId]) -> Result<Vec<Option<Order>>, SeamError>;

    /// Reserves an id for an order that is about to be accepted, or returns the order that
    /// has it: decided, accepted, or one with other contents that is about to be. The
    /// reservation ends by itself, after a minute or so, unless the order is
    /// [noted](Self::note_accepted). It keeps nobody from deciding an order under the id.
    ///
    /// An engine asks for it, and for the note, where the queue does not
    /// [tell of](super::OrderQueue::tells_of) the order. A store that lives in one process
    /// with its queue needs neither; by default what is decided is looked up.
    async fn reserve(&self, order: &Order) -> Result<Option<Order>, SeamError> {
        Ok(self.orders(&[order.id]).await?.pop().flatten())
    }

    /// Notes that an order is accepted, for those who can't ask the queue, unless it is
    /// decided. The note lasts as long as the order can wait, or until it is decided. By
    /// default nothing is noted.
    async fn note_accepted(&self, order: &Order) -> Result<(), SeamError> {
        let _ = order;
        Ok(())
    }

    /// Reads orders as [`orders`](Self::orders) does, and those that are
    /// [noted](Self::note_accepted) and not decided: as they are now, or where that may
    /// [lag](Sight::MayLag) as they were a few seconds ago, if that is cheaper.
    async fn known(&self, ids: &[OrderId], sight: Sight) -> Result<Vec<Option<Order>>, SeamError> {
        let _ = sight;
        self.orders(ids).await
    }

    /// Lists the orders that `filter` selects, at most `limit` for each call, and
    /// with bounded work: a page may have fewer, even none, and still not be
    /// the last. An order that is there all the while is listed once.
    ///
    /// # Errors
    /// [`SeamError::UnknownCursor`] for a cursor this store did not make.
    async fn list_orders(
        &self,
        filter: &OrderFilter,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<OrderPage, SeamError>;

    /// Finds holds that ended at or before `now`, at most `limit` of them. It
    /// may lag, but comes to find each that is not given back.
    async fn due_holds(&self, now: Timestamp, limit: usize) -> Result<DueHolds, SeamError>;

    /// Reads items: for each id, in order, the item or `None`.
    async fn items(&self, ids: &[ItemId]) -> Result<Vec<Option<Item>>, SeamError>;

    /// Reads the units of items that are left: for each id, in order, the number
    /// or `None`. It may lag: it only spares orders the way to a sold-out item.
    async fn availability(&self, ids: &[ItemId]) -> Result<Vec<Option<u32>>, SeamError> {
        let items = self.items(ids).await?.into_iter();
        Ok(items.map(|item| item.map(|item| item.available)).collect())
    }

    /// Lists items by id, those after `after`, at most `limit`.
    async fn list_items(
        &self,
        after: Option<&ItemId>,
        limit: usize,
    ) -> Result<Vec<Item>, SeamError>;

    /// Reads an item's definition and stock without claiming it.
    async fn stock(&self, item: &ItemId) -> Result<Option<(Arc<ItemSpec>, Stock)>, SeamError>;

    /// The feed of what changes in this store; `None`, unless told otherwise: it keeps
    /// none.
    fn feed(&self) -> Option<Arc<dyn ChangeFeed>> {
        None
    }

    /// The way of items out of this store; `None`, unless told otherwise: none leaves.
    fn removals(&self) -> Option<&dyn Removals> {
        None
    }

    /// Tells whether the store takes writes, without a look at a disk or a network: it is
    /// asked often. It does, unless told otherwise.
    ///
    /// # Errors
    /// [`SeamError::Stopped`] once it takes none until it is [reopened](Self::reopen).
    fn check(&self) -> Result<(), SeamError> {
        Ok(())
    }

    /// Goes on after the store, or the queue that it shares its files with, has
    /// [stopped](SeamError::Stopped): whoever has them has them still, with all that was
    /// acknowledged. A store that did not stop, or that heals by itself, does nothing, which
    /// is the default.
    ///
    /// # Errors
    /// [`SeamError::Stopped`] when the cause is still there: it may be asked again.
    async fn reopen(&self) -> Result<(), SeamError> {
        Ok(())
    }

    /// Tells what is known of the clock that made the holds in this store: an
    /// engine asks when it starts. Nothing, unless told otherwise, and then the
    /// clock is believed.
    fn kept_clock(&self) -> KeptClock {
        KeptClock::default()
    }

    /// Keeps the position of the engine's clock for the next start, best effort.
    /// Called when it changes, and not for a new position before that has stood.
    fn keep_clock(&self, reference: ClockReference) {
        let _ = reference;
    }

    /// The present time by the clock of the service behind this store, as far as
    /// its last answers told it. An engine whose own clock is off by much ends
    /// no holds. `None`, unless told otherwise: there is no such clock.
    fn service_time(&self) -> Option<ServiceTime> {
        None
    }
}
