//! Items: the definition of something on sale, and its numbers.

use std::collections::HashMap;
use std::sync::Arc;

use bon::bon;
use serde::{Deserialize, Serialize};

use super::ids::{ItemId, SeatId};
use super::limits::{BuyerCap, Capacity, HoldTime, InvalidInput, SEATS_PER_HALL_MAX, Timestamp};
use super::words::words;

const ITEM_NAME_BYTES_MAX: usize = 256;

/// The nature of an item's stock. A store keeps each kind in a way of its own,
/// so this enum is exhaustive: a kind that a store does not know must not compile.
///
/// ```
/// use flux_core::{ItemKind, ItemSpec};
///
/// let seats = match ItemSpec::hall("hall", ["A1", "A2"])?.kind {
///     ItemKind::Pool(_) => 0,
///     ItemKind::Seats(hall) => hall.names().len(),
/// };
/// assert_eq!(seats, 2);
/// # Ok::<(), flux_core::InvalidInput>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ItemKind {
    /// Interchangeable units, this many.
    Pool(Capacity),
    /// Named seats, each sold by its name.
    Seats(Hall),
}

impl ItemKind {
    /// The kind that one of the two makes.
    ///
    /// # Errors
    /// [`InvalidInput`] naming `capacity`, when both are given or neither is.
    pub fn of(capacity: Option<Capacity>, seats: Option<Hall>) -> Result<Self, InvalidInput> {
        match (capacity, seats) {
            (Some(capacity), None) => Ok(Self::Pool(capacity)),
            (None, Some(hall)) => Ok(Self::Seats(hall)),
            (None, None) => Err(InvalidInput::new("capacity", "or seats must be given")),
            (Some(_), Some(_)) => Err(InvalidInput::new("capacity", "can't stand beside seats")),
        }
    }
}

/// The named seats of an item, 1–100,000, each name once.
///
/// ```
/// use flux_core::{Hall, SeatId};
///
/// let hall = Hall::new(vec!["A1".parse()?, "A2".parse()?])?;
/// assert_eq!(hall.index_of(&SeatId::new("A2")?), Some(1));
/// assert!(Hall::new(vec!["A1".parse()?, "A1".parse()?]).is_err());
/// # Ok::<(), flux_core::InvalidInput>(())
/// ```
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "Vec<SeatId>", into = "Vec<SeatId>")]
pub struct Hall {
    names: Vec<SeatId>,
    indices: HashMap<SeatId, u32>,
}

impl Hall {
    /// Checks the number of seats and that no name comes twice.
    ///
    /// # Errors
    /// [`InvalidInput`] naming `seats`.
    pub fn new(names: Vec<SeatId>) -> Result<Self, InvalidInput> {
        if names.is_empty() || names.len() > SEATS_PER_HALL_MAX {
            return Err(InvalidInput::new(
                "seats",
                format!("must be 1 to {SEATS_PER_HALL_MAX}, were {}", names.len()),
            ));
        }
        let mut indices = HashMap::with_capacity(names.len());
        for (index, name) in names.iter().enumerate() {
            // The length check above keeps every index within 32 bits.
            if indices.insert(name.clone(), index as u32).is_some() {
                return Err(InvalidInput::new("seats", format!("names {name} twice")));
            }
        }
        Ok(Self { names, indices })
    }

    /// The seats in the order given.
    #[must_use]
    pub fn names(&self) -> &[SeatId] {
        &self.names
    }

    /// The index of `seat` in [`names`](Self::names), if it is in the hall.
    #[must_use]
    pub fn index_of(&self, seat: &SeatId) -> Option<u32> {
        self.indices.get(seat).copied()
    }
}

impl PartialEq for Hall {
    fn eq(&self, other: &Self) -> bool {
        self.names == other.names
    }
}

impl Eq for Hall {}

impl std::fmt::Debug for Hall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Hall({} seats)", self.names.len())
    }
}

impl TryFrom<Vec<SeatId>> for Hall {
    type Error = InvalidInput;
    fn try_from(names: Vec<SeatId>) -> Result<Self, InvalidInput> {
        Self::new(names)
    }
}

impl From<Hall> for Vec<SeatId> {
    fn from(hall: Hall) -> Self {
        hall.names
    }
}

/// The definition of something on sale.
///
/// ```
/// use flux_core::ItemSpec;
///
/// let tickets = ItemSpec::pool("ticket_1", 1_000)?;
/// let hall = ItemSpec::builder()
///     .id("hall")
///     .seats(["A1", "A2", "B1"])
///     .hold_seconds(120)
///     .max_per_buyer(2)
///     .build()?;
/// assert_eq!((tickets.capacity(), hall.capacity()), (1_000, 3));
/// # Ok::<(), flux_core::InvalidInput>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
#[non_exhaustive]
pub struct ItemSpec {
    /// Its id.
    pub id: ItemId,
    /// A name for people, at most 256 bytes.
    pub name: Option<String>,
    /// A pool or seats.
    pub kind: ItemKind,
    /// The time a hold lasts unpaid.
    pub hold: HoldTime,
    /// Most units one buyer may hold or own at once; no cap if `None`.
    pub max_per_buyer: Option<BuyerCap>,
    /// Start of the sale: orders placed before are turned down.
    pub opens_at: Option<Timestamp>,
    /// End of the sale: orders placed at this moment or later are turned down.
    pub closes_at: Option<Timestamp>,
}

#[bon]
impl ItemSpec {
    /// A pool of `capacity` units, with defaults for the rest.
    ///
    /// # Errors
    /// [`InvalidInput`] naming the field at fault.
    pub fn pool(id: impl AsRef<str>, capacity: u64) -> Result<Self, InvalidInput> {
        Self::builder().id(id.as_ref()).capacity(capacity).build()
    }

    /// A hall of named seats, with defaults for the rest.
    ///
    /// # Errors
    /// [`InvalidInput`] naming the field at fault.
    pub fn hall<S: Into<String>>(
        id: impl AsRef<str>,
        seats: impl IntoIterator<Item = S>,
    ) -> Result<Self, InvalidInput> {
        Self::builder().id(id.as_ref()).seats(seats).build()
    }

    /// Starts a definition from plain numbers and strings: an `id` and either
    /// `capacity` or `seats` must be given.
    #[builder(
        start_fn(name = builder, vis = "pub"),
        finish_fn(name = build, doc {
            /// Checks every value and makes the definition.
            ///
            /// # Errors
            /// [`InvalidInput`] naming the field at fault.
        }),
        builder_type(name = ItemSpecBuilder, vis = "pub", doc {
            /// Builds an [`ItemSpec`]; made by [`ItemSpec::builder`].
            ///
            /// ```
            /// use flux_core::{ItemSpec, Timestamp};
            ///
            /// let presale = ItemSpec::builder()
            ///     .id("ticket_1")
            ///     .name("Standing, presale")
            ///     .capacity(500)
            ///     .hold_seconds(300)
            ///     .max_per_buyer(4)
            ///     .closes_at(Timestamp::from_millis(1_790_000_000_000))
            ///     .build()?;
            /// assert_eq!(presale.hold.get(), 300);
            ///
            /// let error = ItemSpec::builder().id("ticket_1").build().expect_err("no stock");
            /// assert_eq!(error.to_string(), "capacity: or seats must be given");
            /// # Ok::<(), flux_core::InvalidInput>(())
            /// ```
        })
    )]
    fn checked(
        /// Sets the item's id: 1–128 bytes of visible ASCII.
        #[builder(into)]
        id: String,
        /// Sets a name for people, at most 256 bytes.
        #[builder(into)]
        name: Option<String>,
        /// Makes the item a pool of so many units: 0 to 10,000,000.
        capacity: Option<u64>,
        /// Makes the item a hall of these seats: 1 to 100,000 different names,
        /// each 1–128 bytes of visible ASCII.
        #[builder(with = |seats: impl IntoIterator<Item: Into<String>>| {
            seats.into_iter().map(Into::into).collect()
        })]
        seats: Option<Vec<String>>,
        /// Sets how long a hold lasts unpaid, in seconds: 1 to 86,400; 600
        /// unless given.
        hold_seconds: Option<u64>,
        /// Caps the units that one buyer may hold or own at once: 1 to 1000;
        /// no cap unless given.
        max_per_buyer: Option<u64>,
        /// Sets when the sale starts; at once unless given.
        opens_at: Option<Timestamp>,
        /// Sets when the sale ends, after `opens_at`; never unless given.
        closes_at: Option<Timestamp>,
    ) -> Result<Self, InvalidInput> {
        let hall = |seats: Vec<String>| {
            Hall::new(seats.iter().map(SeatId::new).collect::<Result<_, _>>()?)
        };
        let kind =
            ItemKind::of(capacity.map(Capacity::new).transpose()?, seats.map(hall).transpose()?)?;
        let spec = Self {
            name,
            hold: hold_seconds.map_or(Ok(HoldTime::DEFAULT), HoldTime::new)?,
            max_per_buyer: max_per_buyer.map(BuyerCap::new).transpose()?,
            opens_at,
            closes_at,
            ..Self::new(ItemId::new(id)?, kind)
        };
        spec.check()?;
        Ok(spec)
    }
}

/// A definition as it is read, before [`ItemSpec::check`]. Fields as in
/// [`ItemSpec`].
#[derive(Deserialize)]
struct Unchecked {
    id: ItemId,
    name: Option<String>,
    kind: ItemKind,
    hold: HoldTime,
    max_per_buyer: Option<BuyerCap>,
    opens_at: Option<Timestamp>,
    closes_at: Option<Timestamp>,
}

impl TryFrom<Unchecked> for ItemSpec {
    type Error = InvalidInput;
    fn try_from(spec: Unchecked) -> Result<Self, InvalidInput> {
        let Unchecked { id, name, kind, hold, max_per_buyer, opens_at, closes_at } = spec;
        let spec = Self { id, name, kind, hold, max_per_buyer, opens_at, closes_at };
        spec.check()?;
        Ok(spec)
    }
}

impl ItemSpec {
    /// A definition from values that are checked already, with defaults for
    /// the rest. Whoever sets its fields runs [`check`](Self::check) after.
    ///
    /// ```
    /// use flux_core::{Capacity, ItemKind, ItemSpec};
    ///
    /// let mut spec = ItemSpec::new("ticket_1".parse()?, ItemKind::Pool(Capacity::new(9)?));
    /// assert_eq!(spec, ItemSpec::pool("ticket_1", 9)?);
    ///
    /// spec.name = Some("x".repeat(257));
    /// assert_eq!(spec.check().expect_err("too long").field(), "name");
    /// # Ok::<(), flux_core::InvalidInput>(())
    /// ```
    #[must_use]
    pub fn new(id: ItemId, kind: ItemKind) -> Self {
        Self {
            id,
            name: None,
            kind,
            hold: HoldTime::DEFAULT,
            max_per_buyer: None,
            opens_at: None,
            closes_at: None,
        }
    }

    /// Checks what the types of the fields leave open: `name` has at most 256
    /// bytes, and `closes_at` is after `opens_at`. The fields are public, so
    /// code that changed one calls this before it uses the definition; the
    /// constructors, serde and every store's `put_item` do so by themselves.
    ///
    /// # Errors
    /// [`InvalidInput`] naming the field at fault.
    pub fn check(&self) -> Result<(), InvalidInput> {
        if let Some(name) = &self.name
            && name.len() > ITEM_NAME_BYTES_MAX
        {
            return Err(InvalidInput::new(
                "name",
                format!("must be at most {ITEM_NAME_BYTES_MAX} bytes, was {}", name.len()),
            ));
        }
        if let (Some(opens), Some(closes)) = (self.opens_at, self.closes_at)
            && closes <= opens
        {
            return Err(InvalidInput::new("closes_at", "must be after opens_at"));
        }
        Ok(())
    }

    /// Units in all.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        match &self.kind {
            ItemKind::Pool(capacity) => capacity.get(),
            // `Hall::new` bounds the number of seats.
            ItemKind::Seats(hall) => hall.names.len() as u32,
        }
    }
}

/// The reason why a definition could not be changed; nothing was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PutItemError {
    /// Fewer units than are held and sold, or a taken seat left out.
    #[error("{item}: {taken} units are held or sold; release or cancel some before shrinking")]
    CapacityInUse {
        /// The item.
        item: ItemId,
        /// Units held or sold.
        taken: u32,
    },
    /// A pool can't become seats, nor seats a pool.
    #[error("{item}: a pool can't become seats, nor seats a pool; use another item id")]
    KindChange {
        /// The item.
        item: ItemId,
    },
    /// The item is on its way into an archive, or is in one: its orders' ids would be
    /// decided anew.
    #[error("{item} is archived; use another item id, or delete what is kept of it first")]
    Archived {
        /// The item.
        item: ItemId,
    },
    /// The definition breaks a rule; see [`ItemSpec::check`].
    #[error(transparent)]
    Invalid(#[from] InvalidInput),
}

/// An item's state of sale at some moment, by [`Item::state`].
///
/// ```
/// use flux_core::ItemState;
///
/// assert_eq!(ItemState::SoldOut.to_string(), "sold_out");
/// assert_eq!("open".parse(), Ok(ItemState::Open));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ItemState {
    /// The sale opens later.
    Scheduled,
    /// The sale is open.
    Open,
    /// No unit is available.
    SoldOut,
    /// Its closing time has passed.
    Closed,
}

words! {
    ItemState, "state":
    Scheduled = "scheduled", Open = "open", SoldOut = "sold_out" or Closed = "closed"
}

/// An item and its numbers. At rest `available + held + sold = capacity`.
///
/// ```
/// use flux_core::{Item, ItemSpec, ItemState, Timestamp};
///
/// let item = Item::builder()
///     .spec(ItemSpec::pool("ticket_1", 100)?)
///     .available(60)
///     .held(30)
///     .sold(10)
///     .build();
/// assert_eq!(item.state(Timestamp::default()), ItemState::Open);
/// # Ok::<(), flux_core::InvalidInput>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, bon::Builder)]
#[builder(builder_type(doc {
    /// Builds an [`Item`], for a store to answer with. Made by [`Item::builder`].
}))]
#[non_exhaustive]
pub struct Item {
    /// Its definition.
    #[builder(into)]
    pub spec: Arc<ItemSpec>,
    /// Units that can be ordered.
    pub available: u32,
    /// Units set aside for orders that are not paid yet.
    pub held: u32,
    /// Units paid for.
    pub sold: u32,
}

impl Item {
    /// The state of its sale at `now`: [`SoldOut`](ItemState::SoldOut) when no
    /// unit is available, whatever the clock says.
    #[must_use]
    pub fn state(&self, now: Timestamp) -> ItemState {
        if self.available == 0 {
            ItemState::SoldOut
        } else if self.spec.closes_at.is_some_and(|closes| now >= closes) {
            ItemState::Closed
        } else if self.spec.opens_at.is_some_and(|opens| now < opens) {
            ItemState::Scheduled
        } else {
            ItemState::Open
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_of_a_definition_names_its_field() {
        let build = ItemSpec::builder;
        let field =
            |result: Result<ItemSpec, InvalidInput>| result.expect_err("bad").field().to_owned();
        assert_eq!(field(ItemSpec::pool("", 1)), "item_id");
        assert_eq!(field(ItemSpec::pool("a", 10_000_001)), "capacity");
        assert_eq!(field(build().id("a").build()), "capacity");
        assert_eq!(field(build().id("a").capacity(1).seats(["x"]).build()), "capacity");
        let both = build().id("a").capacity(1).seats(["x"]).build().expect_err("both");
        assert_eq!(both.to_string(), "capacity: can't stand beside seats");
        assert_eq!(field(ItemSpec::hall("a", Vec::<String>::new())), "seats");
        assert_eq!(field(ItemSpec::hall("a", ["x", "x"])), "seats");
        assert_eq!(field(ItemSpec::hall("a", ["x y"])), "seat");
        assert_eq!(field(ItemSpec::hall("a", (0..100_001).map(|n| n.to_string()))), "seats");
        assert!(ItemSpec::hall("a", (0..100_000).map(|n| n.to_string())).is_ok());
        assert_eq!(field(build().id("a").capacity(1).hold_seconds(0).build()), "hold_seconds");
        assert_eq!(field(build().id("a").capacity(1).max_per_buyer(0).build()), "max_per_buyer");
        assert_eq!(field(build().id("a").capacity(1).name("n".repeat(257)).build()), "name");
        let at = Timestamp::from_millis;
        let times = build().id("a").capacity(1).opens_at(at(5)).closes_at(at(5)).build();
        assert_eq!(field(times), "closes_at");
    }

    #[test]
    fn a_changed_definition_is_held_against_the_same_rules() {
        let good = ItemSpec::pool("a", 5).expect("pool");
        assert_eq!(good.check(), Ok(()));
        let at = Timestamp::from_millis;
        let times = ItemSpec { opens_at: Some(at(5)), closes_at: Some(at(5)), ..good.clone() };
        let name = ItemSpec { name: Some("n".repeat(257)), ..good.clone() };
        for (bad, field) in [(times, "closes_at"), (name, "name")] {
            assert_eq!(bad.check().expect_err("bad").field(), field);
            let text = serde_json::to_string(&bad).expect("json");
            let error = serde_json::from_str::<ItemSpec>(&text).expect_err("bad");
            assert!(error.to_string().contains(field), "{error}");
        }
    }

    #[test]
    fn a_name_may_fill_its_256_bytes_and_a_sale_last_a_millisecond() {
        let at = Timestamp::from_millis;
        let spec = ItemSpec::builder().id("a").capacity(1).name("n".repeat(256));
        assert!(spec.opens_at(at(5)).closes_at(at(6)).build().is_ok());
    }

    #[test]
    fn a_sale_is_open_from_its_opening_until_before_its_end() {
        let at = Timestamp::from_millis;
        let spec = ItemSpec::builder().id("a").capacity(9).opens_at(at(5)).closes_at(at(8));
        let spec = Arc::new(spec.build().expect("an item"));
        let left = |available| {
            Item::builder().spec(spec.clone()).available(available).held(0).sold(0).build()
        };
        let states = [(4, "scheduled"), (5, "open"), (7, "open"), (8, "closed"), (9, "closed")];
        for (millis, state) in states {
            assert_eq!(left(1).state(at(millis)).as_str(), state, "at {millis}");
            assert_eq!(left(0).state(at(millis)), ItemState::SoldOut, "at {millis}");
        }
    }
}
