//! The store: the one seam that must not be wrong.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;

use super::SeamError;
use crate::protocol::{
    BuyerId, Claim, Commit, CommitOutcome, Item, ItemId, ItemSpec, Order, OrderId, OrderStatus,
    PaymentRef, PutItemError, Stock, Timestamp,
};

/// What [`InventoryStore::put_item`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment {
    /// The order.
    pub order: OrderId,
    /// What the payment provider calls it.
    pub payment: PaymentRef,
    /// When it came.
    pub at: Timestamp,
}

/// What a [`Payment`] came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfirmOutcome {
    /// Confirmed, now or by an earlier call with the same payment; or
    /// refused for good by that payment (`refund_due`): see its status.
    Settled(Order),
    /// The hold is over: the item's worker must rule on it.
    Late(Order),
    /// The order is in no state to be paid for.
    NotHeld(Order),
    /// No such order.
    NotFound,
}

/// Which orders to list; `None` means any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OrderFilter {
    /// Of this buyer.
    pub buyer: Option<BuyerId>,
    /// With a line on this item.
    pub item: Option<ItemId>,
    /// In this state.
    pub status: Option<OrderStatus>,
}

impl OrderFilter {
    /// Whether `order` is meant.
    #[must_use]
    pub fn matches(&self, order: &Order) -> bool {
        self.buyer.as_ref().is_none_or(|buyer| *buyer == order.buyer)
            && self.item.as_ref().is_none_or(|item| order.lines.iter().any(|l| l.item == *item))
            && self.status.is_none_or(|status| status == order.status())
    }
}

/// Where a listing goes on; opaque to everybody but the store that made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor(pub String);

/// One page of a listing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OrderPage {
    /// The orders; may be fewer than asked for, even none, on any page.
    pub orders: Vec<Order>,
    /// Where to go on; `None` on the last page.
    pub next: Option<Cursor>,
}

/// Holds that ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DueHolds {
    /// Their orders, earliest end first.
    pub due: Vec<OrderId>,
    /// No other hold ends before this moment, but for those that ended too and
    /// were past the limit; `None` when there is no other.
    pub next: Option<Timestamp>,
}

/// How much one [`Commit`] may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommitMax {
    /// What it may be made of: each order counts as one part, each of its lines
    /// on a capped item as one more, and each item as two.
    pub parts: usize,
    /// The orders' bytes in all, by [`Order::weight`].
    pub bytes: usize,
    /// How many commits of one call may rest on one claim of an item that is
    /// in none of them together with another. They are applied side by side,
    /// so whether one is must not depend on another.
    pub side_by_side: usize,
}

impl CommitMax {
    /// One commit holds whatever there is to write.
    pub const UNLIMITED: Self = Self { parts: usize::MAX, bytes: usize::MAX, side_by_side: 1 };
}

/// A commit that is settled in order, and not on disk yet.
#[derive(Debug)]
pub struct Begun {
    /// What became of each commit, in order.
    pub outcomes: Vec<CommitOutcome>,
    /// When what was applied may be told.
    pub durable: Durable,
}

type Written = Pin<Box<dyn Future<Output = Result<(), SeamError>> + Send>>;

/// Completes when what was begun is durable.
pub struct Durable(Option<Written>);

impl Durable {
    /// It is durable already.
    #[must_use]
    pub fn now() -> Self {
        Self(None)
    }

    /// It is durable once `written` completes.
    pub fn after(written: impl Future<Output = Result<(), SeamError>> + Send + 'static) -> Self {
        Self(Some(Box::pin(written)))
    }

    /// Waits until it is durable. Cancel-safe as far as the write goes: it
    /// goes on.
    ///
    /// # Errors
    /// [`SeamError::Broken`]: it may never be, and the store takes no more.
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

/// Items, stock and orders; every guarantee rests on this trait's promises.
///
/// What a method's `Ok` tells is durable, whoever made it so: a state that a
/// crash could undo is never shown. (The numbers of [`Item`] are the one
/// exception; they may run ahead or lag.)
#[async_trait]
pub trait InventoryStore: Send + Sync + 'static {
    /// Creates the item or replaces its definition, as
    /// [`revise`](crate::protocol::revise) rules; what is taken stays taken.
    /// A change fences every claim made before. A cap counts what its buyers
    /// own already, also when it comes later than they did.
    async fn put_item(&self, spec: &ItemSpec) -> Result<PutOutcome, SeamError>;

    /// Takes items over: for each, in order, a token larger than any before
    /// and the stock at that moment, or `None` for an item that is not there.
    /// Every earlier claim of the item is fenced from now on. It need not
    /// survive a crash that all claimants die in.
    async fn claim(&self, items: &[ItemId]) -> Result<Vec<Option<Claim>>, SeamError>;

    /// Writes each commit as a whole or not at all, and says which, in order.
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

    /// How much one commit may hold. What weighs more may be refused as
    /// [`SeamError::Broken`]; a single order never weighs more.
    fn commit_max(&self) -> CommitMax {
        CommitMax::UNLIMITED
    }

    /// As [`commit`](Self::commit), but may return as soon as later calls build
    /// on the outcome, before it is durable: so that the next decisions are
    /// made while the disk writes these. Nothing of it may be shown before
    /// [`Begun::durable`] completes, and nothing that builds on it may become
    /// durable before it does. By default it waits.
    async fn begin_commit(&self, commits: &[Commit]) -> Result<Begun, SeamError> {
        Ok(Begun { outcomes: self.commit(commits).await?, durable: Durable::now() })
    }

    /// Pays held orders, each by one conditional write on the order alone, as
    /// [`confirm`](crate::protocol::confirm) rules.
    async fn confirm(&self, payments: &[Payment]) -> Result<Vec<ConfirmOutcome>, SeamError>;

    /// Reads decided orders: for each id, in order, what is known.
    async fn orders(&self, ids: &[OrderId]) -> Result<Vec<Option<Order>>, SeamError>;

    /// Lists orders, at most `limit` for each call, with bounded work.
    ///
    /// # Errors
    /// [`SeamError::UnknownCursor`] for a cursor this store did not make.
    async fn list_orders(
        &self,
        filter: &OrderFilter,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<OrderPage, SeamError>;

    /// Holds that ended at or before `now`, at most `limit` of them.
    async fn due_holds(&self, now: Timestamp, limit: usize) -> Result<DueHolds, SeamError>;

    /// Reads items: for each id, in order, what is known.
    async fn items(&self, ids: &[ItemId]) -> Result<Vec<Option<Item>>, SeamError>;

    /// What is left of items: for each id, in order. It may lag; it is what a
    /// gate goes by.
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
}
