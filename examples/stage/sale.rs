//! A sale that follows from a few numbers: two processes that are given the
//! same [`Sale`] have the same buyers, who want the same things under the same
//! order ids. So a sale can go on in another process after the first was killed.

use flux_core::{
    Error, Flux, InvalidInput, Item, ItemId, ItemSpec, Line, Order, OrderId, OrderRequest,
    PaymentRef, Timestamp,
};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};

const SEATS_PER_ROW: u32 = 100;

/// The stock of each item of a sale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stock {
    /// A pool of so many units.
    Units(u32),
    /// A hall of so many seats.
    Seats(u32),
}

impl Stock {
    /// Units or seats.
    #[must_use]
    pub fn capacity(self) -> u32 {
        match self {
            Self::Units(capacity) | Self::Seats(capacity) => capacity,
        }
    }
}

/// A sale by its numbers. Each buyer wants one unit of one item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sale {
    /// The time it began, which names its items and its orders, so that many sales fit
    /// into one store.
    pub opened_at: Timestamp,
    /// Decides whatever is left to chance.
    pub seed: u64,
    /// The number of buyers.
    pub buyers: u32,
    /// The number of items on sale.
    pub items: u32,
    /// The stock of each item.
    pub stock: Stock,
    /// Buyers served at once.
    pub in_flight: usize,
    /// Buyers of a hundred who send their order twice.
    pub repeat_percent: u32,
    /// Buyers of a hundred who pay for what they hold.
    pub pay_percent: u32,
}

/// A buyer's way to send the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sends {
    Once,
    /// Twice at the same time.
    Together,
    /// Again after the answer came.
    Again,
}

/// A buyer's plan.
#[derive(Debug)]
pub(crate) struct Buyer {
    pub(crate) request: OrderRequest,
    pub(crate) sends: Sends,
    /// The payment that the buyer makes if the order is held.
    pub(crate) pays: Option<PaymentRef>,
}

impl Sale {
    /// The items, by number.
    ///
    /// # Errors
    /// [`InvalidInput`] when a number is out of the protocol's bounds.
    pub fn specs(&self) -> Result<Vec<ItemSpec>, InvalidInput> {
        let spec = |item| match self.stock {
            Stock::Units(units) => ItemSpec::pool(self.item_name(item), u64::from(units)),
            Stock::Seats(seats) => ItemSpec::hall(self.item_name(item), (0..seats).map(seat_name)),
        };
        (0..self.items).map(spec).collect()
    }

    /// Puts the items on sale; does nothing to those that are.
    ///
    /// # Errors
    /// Those of [`Flux::put_item`].
    pub async fn put_items(&self, flux: &Flux) -> Result<(), Error> {
        for spec in self.specs()? {
            flux.put_item(spec).await?;
        }
        Ok(())
    }

    /// The id of a buyer's order.
    #[must_use]
    pub fn order_id(&self, buyer: u32) -> OrderId {
        // A UUIDv7: ordered by the sale's beginning, then by arrival.
        let mut tail = [0; 10];
        tail[3..7].copy_from_slice(&buyer.to_be_bytes());
        tail[7..].copy_from_slice(&self.seed.to_be_bytes()[5..]);
        let millis = self.opened_at.as_millis();
        OrderId::from_uuid(uuid::Builder::from_unix_timestamp_millis(millis, &tail).into_uuid())
    }

    /// Units that must be gone in the end, for each item: what it has, or what
    /// is asked of it if that is less.
    #[must_use]
    pub fn expected_taken(&self, item: u32) -> u32 {
        let asked = self.buyers / self.items + u32::from(item < self.buyers % self.items);
        asked.min(self.stock.capacity())
    }

    /// Units of all items that must be gone in the end.
    #[must_use]
    pub fn tickets(&self) -> u32 {
        (0..self.items).map(|item| self.expected_taken(item)).sum()
    }

    /// Units held and sold so far.
    ///
    /// # Errors
    /// [`Error::UnknownItem`] before they are put on sale, [`Error::Backend`].
    pub async fn taken(&self, flux: &Flux) -> Result<u64, Error> {
        let mut taken = 0;
        for number in 0..self.items {
            let item = self.item(number, flux).await?;
            taken += u64::from(item.held + item.sold);
        }
        Ok(taken)
    }

    /// Compares a store at rest with what this sale must have come to; says
    /// what is wrong.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn faults(&self, flux: &Flux) -> Result<Vec<String>, Error> {
        let mut faults = Vec::new();
        for number in 0..self.items {
            let expected = self.expected_taken(number);
            let item = self.item(number, flux).await?;
            let (taken, left) = (item.held + item.sold, item.available);
            if taken != expected || left != item.spec.capacity() - expected {
                faults.push(format!(
                    "{}: {expected} units must be taken, {taken} are and {left} are left",
                    item.spec.id
                ));
            }
        }
        Ok(faults)
    }

    async fn item(&self, number: u32, flux: &Flux) -> Result<Item, Error> {
        let id = ItemId::new(self.item_name(number))?;
        flux.item(&id).await?.ok_or(Error::UnknownItem(id))
    }

    /// Each buyer's wish, as a number: every item and every seat has its share
    /// of buyers, who arrive in random order.
    pub(crate) fn wishes(&self) -> Vec<u32> {
        let mut wishes: Vec<u32> = (0..self.buyers).collect();
        wishes.shuffle(&mut StdRng::seed_from_u64(self.seed));
        wishes
    }

    pub(crate) fn buyer(&self, buyer: u32, wish: u32) -> Result<Buyer, InvalidInput> {
        let name = format!("buyer-{buyer}");
        let item = self.item_name(wish % self.items);
        let line = match self.stock {
            Stock::Units(_) => Line::units(item, 1)?,
            Stock::Seats(seats) => Line::seats(item, [seat_name(wish / self.items % seats)])?,
        };
        let (sends, pays) = self.habits(buyer);
        let pays = pays.then(|| PaymentRef::new(format!("payment-{buyer}"))).transpose()?;
        let request = OrderRequest::builder()
            .id(self.order_id(buyer))
            .buyer(name)
            .lines(vec![line])
            .build()?;
        Ok(Buyer { request, sends, pays })
    }

    /// Whether a buyer pays for what is held.
    pub(crate) fn pays(&self, buyer: u32) -> bool {
        self.habits(buyer).1
    }

    fn habits(&self, buyer: u32) -> (Sends, bool) {
        let mut chance = StdRng::seed_from_u64(self.seed ^ (u64::from(buyer) << 32));
        let sends = match chance.random_ratio(self.repeat_percent.min(100), 100) {
            false => Sends::Once,
            true if chance.random_bool(0.5) => Sends::Together,
            true => Sends::Again,
        };
        (sends, chance.random_ratio(self.pay_percent.min(100), 100))
    }

    fn item_name(&self, item: u32) -> String {
        format!("ticket-{}@{}", item + 1, self.opened_at.as_millis())
    }
}

/// Whether an order may go on from one answer to a later one: the same
/// decision, in the same state or one that follows it.
pub(crate) fn follows(earlier: &Order, later: &Order) -> bool {
    use flux_core::OrderStatus::{
        Cancelled, Confirmed, Expired, Held, Queued, RefundDue, Rejected,
    };
    let (from, to) = (earlier.status(), later.status());
    let allowed = from == to
        || match from {
            Queued => true,
            Held => !matches!(to, Queued | Rejected),
            Expired => matches!(to, Confirmed | RefundDue | Cancelled),
            Confirmed => to == Cancelled,
            _ => false,
        };
    allowed
        && earlier.id == later.id
        && earlier.asks_the_same_as(later)
        && earlier.placed_at == later.placed_at
        && (from == Queued
            || (earlier.hold() == later.hold()
                && earlier.decided_at() == later.decided_at()
                && earlier.reason() == later.reason()))
        && (earlier.payment_ref().is_none() || earlier.payment_ref() == later.payment_ref())
}

fn seat_name(seat: u32) -> String {
    format!("{}-{}", seat / SEATS_PER_ROW + 1, seat % SEATS_PER_ROW + 1)
}
