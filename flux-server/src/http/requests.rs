//! The bodies of requests, as they may be.

use std::fmt;
use std::marker::PhantomData;

use flux_core::{
    Ask, BuyerCap, BuyerId, Capacity, Hall, HoldTime, InvalidInput, ItemId, ItemKind, ItemSpec,
    Line, Lines, Metadata, OrderId, OrderRequest, PaymentRef, Quantity, RefundRef, SeatId,
    Timestamp,
};
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::http::problem::Problem;

/// Reads a body; an error names the field.
pub(crate) fn read<'b, T: Deserialize<'b>>(body: &'b [u8]) -> Result<T, Problem> {
    let read = serde_json::from_slice::<Object<T>>(body);
    read.map(|read| read.0).map_err(|wrong| Problem::invalid(explain::<T>(body, &wrong)))
}

/// The buyer whose order a body is, whatever is wrong with the rest of it.
pub(crate) fn buyer_of(body: &[u8]) -> Option<BuyerId> {
    #[derive(Deserialize)]
    struct Bare {
        #[serde(alias = "user_id")]
        buyer_id: BuyerId,
    }
    serde_json::from_slice::<Object<Bare>>(body).ok().map(|read| read.0.buyer_id)
}

/// A JSON object and nothing else: left to itself serde takes an array of the
/// fields' values too.
#[derive(Debug)]
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Members<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
            type Value = T;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<M: MapAccess<'de>>(self, members: M) -> Result<T, M::Error> {
                T::deserialize(MapAccessDeserializer::new(members))
            }
        }
        from.deserialize_map(Members(PhantomData)).map(Self)
    }
}

/// Reads again, slower, to learn where it went wrong.
fn explain<'b, T: Deserialize<'b>>(body: &'b [u8], wrong: &serde_json::Error) -> String {
    let mut reader = serde_json::Deserializer::from_slice(body);
    match serde_path_to_error::deserialize::<_, Object<T>>(&mut reader) {
        Err(placed) if wrong.is_data() => {
            let path = placed.path().to_string();
            let what = wrong.to_string();
            if path == "." || what.starts_with(&path) { what } else { format!("{path}: {what}") }
        }
        _ => format!("malformed JSON: {wrong}"),
    }
}

/// A field that may be absent, and may not be null.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

fn id<'de, D: Deserializer<'de>>(from: D) -> Result<Option<OrderId>, D::Error> {
    let id = std::borrow::Cow::<str>::deserialize(from)?;
    id.parse().map(Some).map_err(serde::de::Error::custom)
}

fn moment<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Timestamp>, D::Error> {
    let Some(text) = Option::<String>::deserialize(from)? else { return Ok(None) };
    text.parse().map(Some).map_err(serde::de::Error::custom)
}

/// `POST /v1/archives`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ArchiveBody {
    pub(crate) items: Vec<ItemId>,
}

/// `POST /v1/orders`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PlaceBody {
    #[serde(default, deserialize_with = "id")]
    order_id: Option<OrderId>,
    pub(crate) buyer_id: BuyerId,
    #[serde(default)]
    metadata: Metadata,
    #[serde(default, deserialize_with = "given")]
    lines: Option<Vec<Object<LineBody>>>,
    #[serde(default, deserialize_with = "given")]
    item_id: Option<ItemId>,
    #[serde(default, deserialize_with = "given")]
    quantity: Option<Quantity>,
    #[serde(default, deserialize_with = "given")]
    seats: Option<Vec<SeatId>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LineBody {
    item_id: ItemId,
    #[serde(default, deserialize_with = "given")]
    quantity: Option<Quantity>,
    #[serde(default, deserialize_with = "given")]
    seats: Option<Vec<SeatId>>,
}

impl PlaceBody {
    /// The request, its lines checked against each other.
    pub(crate) fn request(self) -> Result<OrderRequest, InvalidInput> {
        let lines = match (self.lines, self.item_id) {
            (Some(lines), None) if self.quantity.is_none() && self.seats.is_none() => {
                lines.into_iter().map(|line| line.0.line()).collect::<Result<_, _>>()?
            }
            (None, Some(item_id)) => {
                vec![LineBody { item_id, quantity: self.quantity, seats: self.seats }.line()?]
            }
            (None, None) => {
                return Err(InvalidInput::new("item_id", "is missing; or give lines"));
            }
            _ => {
                return Err(InvalidInput::new(
                    "lines",
                    "can't stand beside item_id, quantity or seats",
                ));
            }
        };
        let lines = Lines::new(lines)?;
        for (at, line) in lines.iter().enumerate() {
            if lines[..at].iter().any(|other| other.item == line.item) {
                let rule = format!("has two lines on {}; join them", line.item);
                return Err(InvalidInput::new("lines", rule));
            }
        }
        let request = OrderRequest::of(self.buyer_id, lines).with_id(self.order_id);
        Ok(request.with_metadata(self.metadata))
    }
}

impl LineBody {
    fn line(self) -> Result<Line, InvalidInput> {
        let ask = match (self.quantity, self.seats) {
            (Some(_), Some(_)) => {
                return Err(InvalidInput::new("seats", "can't stand beside quantity"));
            }
            (_, Some(seats)) => Ask::Seats(seats),
            (quantity, None) => Ask::Units(quantity.unwrap_or(Quantity::MIN)),
        };
        Ok(Line::new(self.item_id, ask))
    }
}

/// Most orders of a batch.
pub(crate) const ORDERS_PER_BATCH_MAX: usize = 500;

/// `POST /v1/orders/batch`; each order is read as one that comes alone.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BatchBody<'b> {
    #[serde(borrow)]
    pub(crate) orders: Vec<&'b RawValue>,
}

/// `POST /v1/orders/{id}/confirm`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConfirmBody {
    pub(crate) payment_ref: PaymentRef,
}

/// `POST /v1/orders/{id}/refunded`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RefundBody {
    pub(crate) refund_ref: RefundRef,
}

/// `PUT /v1/items/{id}`, and a table of the catalogue.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ItemBody {
    #[serde(default)]
    name: Option<String>,
    #[serde(default, deserialize_with = "given")]
    capacity: Option<Capacity>,
    #[serde(default, deserialize_with = "given")]
    seats: Option<Hall>,
    #[serde(default, deserialize_with = "given")]
    hold_seconds: Option<HoldTime>,
    #[serde(default)]
    max_per_buyer: Option<BuyerCap>,
    #[serde(default, deserialize_with = "moment")]
    opens_at: Option<Timestamp>,
    #[serde(default, deserialize_with = "moment")]
    closes_at: Option<Timestamp>,
}

impl ItemBody {
    /// The definition of the item called `id`.
    pub(crate) fn spec(self, id: ItemId) -> Result<ItemSpec, InvalidInput> {
        let mut spec = ItemSpec::new(id, ItemKind::of(self.capacity, self.seats)?);
        spec.name = self.name;
        spec.hold = self.hold_seconds.unwrap_or_default();
        spec.max_per_buyer = self.max_per_buyer;
        (spec.opens_at, spec.closes_at) = (self.opens_at, self.closes_at);
        spec.check()?;
        Ok(spec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(body: &str) -> String {
        let read = read::<PlaceBody>(body.as_bytes())
            .and_then(|body| body.request().map_err(Problem::from));
        read.expect_err(body).detail().to_owned()
    }

    #[test]
    fn what_is_wrong_with_an_order_is_said_with_the_field() {
        for (body, field) in [
            (r#"{"buyer_id":"b"}"#, "item_id"),
            (r#"{"item_id":"i"}"#, "buyer_id"),
            (r#"{"buyer_id":5,"item_id":"i"}"#, "buyer_id"),
            (r#"{"buyer_id":"","item_id":"i"}"#, "buyer_id"),
            (r#"{"buyer_id":"b","item_id":"i","quantity":0}"#, "quantity"),
            (r#"{"buyer_id":"b","item_id":"i","quantity":-1}"#, "quantity"),
            (r#"{"buyer_id":"b","item_id":"i","quantity":1.5}"#, "quantity"),
            (r#"{"buyer_id":"b","item_id":"i","quantity":null}"#, "quantity"),
            (r#"{"buyer_id":"b","item_id":"i","seats":[]}"#, "seats"),
            (r#"{"buyer_id":"b","item_id":"i","seats":["A","A"]}"#, "seats"),
            (r#"{"buyer_id":"b","item_id":"i","seats":["A"],"quantity":1}"#, "seats"),
            (r#"{"buyer_id":"b","item_id":"i","colour":"red"}"#, "colour"),
            (r#"{"buyer_id":"b","buyer_id":"b","item_id":"i"}"#, "buyer_id"),
            (r#"{"buyer_id":"b","item_id":"i","order_id":"x"}"#, "order_id"),
            (r#"{"buyer_id":"b","item_id":"i","order_id":null}"#, "order_id"),
            (r#"{"buyer_id":"b","lines":[]}"#, "lines"),
            (r#"{"buyer_id":"b","lines":[{"item_id":"i"}],"item_id":"i"}"#, "lines"),
            (r#"{"buyer_id":"b","lines":[{"item_id":"i"},{"item_id":"i"}]}"#, "lines"),
            (r#"{"buyer_id":"b","lines":[{"item_id":"i"},{"item_id":7}]}"#, "lines[1].item_id"),
            (r#"{"buyer_id":"b","lines":[["i"]]}"#, "lines[0]"),
            (r#"{"buyer_id":"b","item_id":"i","metadata":null}"#, "metadata"),
            (r#"{"buyer_id":"b","item_id":"i","metadata":{"":"x"}}"#, "metadata"),
            (r#"{"buyer_id":"b","item_id":"i","metadata":{"a":1}}"#, "metadata"),
            (r#"{"buyer_id":"b","item_id":"i","metadata":{"a":"1","a":"1"}}"#, "metadata"),
        ] {
            let detail = wrong(body);
            assert!(detail.contains(field), "{body}: {detail}");
        }
        assert!(wrong("{").starts_with("malformed JSON"));
        assert!(wrong("").starts_with("malformed JSON"));
        assert!(wrong(r#"["b"]"#).contains("expected an object"));
    }
}
