//! The names of the protocol. Each is checked once, where it enters; short
//! ones are stored inline, so a clone costs no allocation.
//!
//! In JSON and in postcard a name is a string, and an order's id a UUID.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use uuid::{Uuid, Variant};

use super::limits::{InvalidInput, Timestamp};

fn visible_ascii(field: &'static str, name: &str, bytes_max: usize) -> Result<(), InvalidInput> {
    if name.is_empty() || name.len() > bytes_max {
        return Err(InvalidInput::new(
            field,
            format!("must be 1 to {bytes_max} bytes long, was {}", name.len()),
        ));
    }
    if !name.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(InvalidInput::new(
            field,
            "must be visible ASCII (0x21 to 0x7E), without spaces",
        ));
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $field:literal, $bytes_max:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "SmolStr", into = "SmolStr")]
        pub struct $name(SmolStr);

        impl $name {
            #[doc = concat!("Checks that `name` is 1–", $bytes_max, " bytes of visible ASCII")]
            /// (0x21 to 0x7E, so without spaces).
            ///
            /// # Errors
            /// [`InvalidInput`] naming the field.
            pub fn new(name: impl AsRef<str>) -> Result<Self, InvalidInput> {
                visible_ascii($field, name.as_ref(), $bytes_max)?;
                Ok(Self(SmolStr::new(name)))
            }

            /// The name as given.
            #[must_use]
            pub fn as_str(&self) -> &str {
                self.0.as_str()
            }
        }

        impl TryFrom<SmolStr> for $name {
            type Error = InvalidInput;
            fn try_from(name: SmolStr) -> Result<Self, InvalidInput> {
                visible_ascii($field, &name, $bytes_max)?;
                Ok(Self(name))
            }
        }

        impl From<$name> for SmolStr {
            fn from(name: $name) -> SmolStr {
                name.0
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.into()
            }
        }

        impl FromStr for $name {
            type Err = InvalidInput;
            fn from_str(name: &str) -> Result<Self, InvalidInput> {
                Self::new(name)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                self.as_str()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.as_str())
            }
        }
    };
}

name! {
    /// The name of somebody who follows the [change feed](crate::seams::ChangeFeed), who
    /// is not told from another of the same name.
    ///
    /// ```
    /// use flux_core::ConsumerName;
    ///
    /// assert_eq!(ConsumerName::new("mailer")?.as_str(), "mailer");
    /// assert_eq!(ConsumerName::new("").expect_err("no name").field(), "consumer");
    /// # Ok::<(), flux_core::InvalidInput>(())
    /// ```
    ConsumerName, "consumer", 64
}

name! {
    /// The name of something on sale, chosen by the seller.
    ///
    /// ```
    /// use flux_core::ItemId;
    ///
    /// let item = ItemId::new("ticket_1")?;
    /// assert_eq!(item.as_str(), "ticket_1");
    /// assert_eq!(item, "ticket_1".parse()?);
    ///
    /// let error = ItemId::new("ticket 1").expect_err("a space");
    /// assert_eq!(error.field(), "item_id");
    /// # Ok::<(), flux_core::InvalidInput>(())
    /// ```
    ItemId, "item_id", 128
}
name! {
    /// The name of a buyer, as the application knows its users. Caps count by
    /// it, and only its owner may repeat an order.
    ///
    /// ```
    /// use flux_core::BuyerId;
    ///
    /// let buyer: BuyerId = "ann".parse()?;
    /// assert_eq!(String::from(buyer), "ann");
    /// # Ok::<(), flux_core::InvalidInput>(())
    /// ```
    BuyerId, "buyer_id", 128
}
name! {
    /// The name of one seat, unique in its [`Hall`](super::Hall).
    ///
    /// ```
    /// use flux_core::SeatId;
    ///
    /// assert_eq!(SeatId::new("A-12")?.to_string(), "A-12");
    /// # Ok::<(), flux_core::InvalidInput>(())
    /// ```
    SeatId, "seat", 128
}
name! {
    /// The payment provider's name of a payment. A confirmation repeated with
    /// the same one is the same payment; with another it is a second one.
    ///
    /// ```
    /// use flux_core::PaymentRef;
    ///
    /// assert_eq!(PaymentRef::new("pay_81")?.as_str(), "pay_81");
    /// # Ok::<(), flux_core::InvalidInput>(())
    /// ```
    PaymentRef, "payment_ref", 128
}
name! {
    /// The payment provider's name of a refund. One that is told of again by the same name
    /// is the same refund.
    ///
    /// ```
    /// use flux_core::RefundRef;
    ///
    /// assert_eq!(RefundRef::new("re_81")?.as_str(), "re_81");
    /// # Ok::<(), flux_core::InvalidInput>(())
    /// ```
    RefundRef, "refund_ref", 128
}
name! {
    /// A word by which a buyer's request is known when it is repeated, as in the header
    /// `Idempotency-Key`. It counts for that buyer alone: see
    /// [`OrderId::from_idempotency_key`].
    ///
    /// ```
    /// use flux_core::{IdempotencyKey, OrderRequest};
    ///
    /// let key = IdempotencyKey::new("basket_7")?;
    /// let request = OrderRequest::units("ann", "ticket_1", 2)?.with_idempotency_key(key);
    /// # Ok::<(), flux_core::InvalidInput>(())
    /// ```
    IdempotencyKey, "Idempotency-Key", 255
}

/// The identity of an order: a UUID. A client that repeats its request under
/// the same id gets the first answer again, never a second order.
///
/// ```
/// use flux_core::{BuyerId, OrderId};
///
/// let fresh = OrderId::new();
/// assert_eq!(fresh.to_string().parse::<OrderId>()?, fresh);
///
/// let ann = BuyerId::new("ann")?;
/// let first = OrderId::from_idempotency_key(&ann, "click-7")?;
/// let again = OrderId::from_idempotency_key(&ann, "click-7")?;
/// assert_eq!(first, again);
/// # Ok::<(), flux_core::InvalidInput>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OrderId(Uuid);

/// The name space of ids derived from idempotency keys.
const KEY_SPACE: Uuid = Uuid::from_bytes(*b"flux-idempotency");

impl OrderId {
    /// Makes a fresh UUIDv7 (RFC 9562 §5.7): later ids sort after earlier ones.
    /// For callers, who make an id before they order; no rule of the protocol
    /// calls it.
    #[expect(clippy::new_without_default, reason = "a default is the same each time")]
    #[must_use]
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }

    /// A UUID the caller made.
    #[must_use]
    pub const fn from_uuid(id: Uuid) -> Self {
        Self(id)
    }

    /// The id that `buyer`'s idempotency key stands for: the same key from the
    /// same buyer is the same order, for as long as the order is remembered,
    /// with nothing more to store (a UUIDv5 over buyer and key, RFC 9562 §5.5).
    ///
    /// Anybody can compute it, so it only takes an order in with the key itself
    /// ([`with_idempotency_key`](crate::OrderRequest::with_idempotency_key)); as an id
    /// it finds the order, pays it, and repeats its request.
    ///
    /// # Errors
    /// [`InvalidInput`] when the key is not 1–255 visible ASCII characters.
    pub fn from_idempotency_key(buyer: &BuyerId, key: &str) -> Result<Self, InvalidInput> {
        Ok(Self::of_key(buyer, &IdempotencyKey::new(key)?))
    }

    pub(crate) fn of_key(buyer: &BuyerId, key: &IdempotencyKey) -> Self {
        // A space can be in neither, so no two pairs read the same.
        let name = format!("{buyer} {key}");
        Self(Uuid::new_v5(&KEY_SPACE, name.as_bytes()))
    }

    /// Whether it has the form of an id that stands for an idempotency key, a
    /// version 5 UUID. No caller may choose one for a new order: the key it stands
    /// for is another's to use.
    pub(crate) fn stands_for_a_key(&self) -> bool {
        self.0.get_version_num() == 5 && self.0.get_variant() == Variant::RFC4122
    }

    /// The moment that the id says it was made, if it is of version 7, as those are that
    /// the engine makes.
    pub(crate) fn made_at(&self) -> Option<Timestamp> {
        let is_of_7 = self.0.get_version_num() == 7 && self.0.get_variant() == Variant::RFC4122;
        let (seconds, nanos) = self.0.get_timestamp().filter(|_| is_of_7)?.to_unix();
        Some(Timestamp::from_millis(seconds * 1_000 + u64::from(nanos) / 1_000_000))
    }

    /// The UUID.
    #[must_use]
    pub const fn as_uuid(&self) -> &Uuid {
        &self.0
    }
}

impl From<Uuid> for OrderId {
    fn from(id: Uuid) -> Self {
        Self(id)
    }
}

impl FromStr for OrderId {
    type Err = InvalidInput;
    /// Takes the hyphenated form, in any case.
    fn from_str(id: &str) -> Result<Self, InvalidInput> {
        let wrong = || InvalidInput::new("order_id", "must be a hyphenated UUID");
        if id.len() != uuid::fmt::Hyphenated::LENGTH {
            return Err(wrong());
        }
        Uuid::try_parse(id).map(Self).map_err(|_| wrong())
    }
}

impl fmt::Display for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

impl fmt::Debug for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_1_to_128_visible_ascii_bytes() {
        assert!(ItemId::new("a").is_ok());
        assert!(ItemId::new("~".repeat(128)).is_ok());
        for bad in ["", &"a".repeat(129), "a b", "a\n", "é", "\u{7f}", "a\0"] {
            let error = BuyerId::new(bad).expect_err(bad);
            assert_eq!(error.field(), "buyer_id");
        }
    }

    #[test]
    fn an_order_id_is_a_hyphenated_uuid_in_any_case() {
        let id: OrderId = "018F2B6C-0000-7000-8000-00000000ABCD".parse().expect("upper case");
        assert_eq!(id.to_string(), "018f2b6c-0000-7000-8000-00000000abcd");
        for bad in [
            "",
            "018f2b6c000070008000-00000000abcd",
            "{018f2b6c-0000-7000-8000-00000000abc",
            "x18f2b6c-0000-7000-8000-00000000abcd",
        ] {
            assert!(bad.parse::<OrderId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_idempotency_key_is_scoped_to_the_buyer() {
        let (ann, bob) = (BuyerId::new("ann").expect("name"), BuyerId::new("bob").expect("name"));
        let key = OrderId::from_idempotency_key;
        assert_eq!(key(&ann, "k").expect("key"), key(&ann, "k").expect("key"));
        assert_ne!(key(&ann, "k").expect("key"), key(&bob, "k").expect("key"));
        assert!(key(&ann, "").is_err() && key(&ann, &"k".repeat(256)).is_err());
        assert!(key(&ann, &"k".repeat(255)).is_ok());
    }

    #[test]
    fn an_id_of_version_7_tells_when_it_was_made() {
        let of = |id: &str| id.parse::<OrderId>().expect("a UUID").made_at();
        let at = Timestamp::from_millis(0x018f_2b6c_0102);
        assert_eq!(of("018f2b6c-0102-7fff-aa5d-d1157028e078"), Some(at));
        for other in ["4", "5", "8"] {
            assert_eq!(of(&format!("018f2b6c-0102-{other}fff-aa5d-d1157028e078")), None);
        }
        let now = Timestamp::from(std::time::SystemTime::now());
        let age = now.since(OrderId::new().made_at().expect("it is of version 7"));
        assert!(age < std::time::Duration::from_secs(60), "{age:?}");
    }

    #[test]
    fn a_keys_id_is_told_from_all_others() {
        let ann = BuyerId::new("ann").expect("a name");
        let keys = OrderId::from_idempotency_key(&ann, "k").expect("a key");
        assert!(keys.stands_for_a_key());
        assert!(!OrderId::new().stands_for_a_key());
        for other in [
            "00000000-0000-0000-0000-000000000000",
            "ffffffff-ffff-ffff-ffff-ffffffffffff",
            "2ed6657d-e927-468b-95e1-2665a8aea6a2",
            "2ed6657d-e927-368b-95e1-2665a8aea6a2",
            "2ed6657d-e927-868b-95e1-2665a8aea6a2",
            // Only this variant has versions.
            "2ed6657d-e927-568b-d5e1-2665a8aea6a2",
        ] {
            assert!(!other.parse::<OrderId>().expect("a UUID").stands_for_a_key(), "{other}");
        }
    }
}
