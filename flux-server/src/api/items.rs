//! `/v1/items`.

use bytes::Bytes;
use flux_core::seams::PutOutcome;
use flux_core::views::ItemView;
use flux_core::{Error, Flux, Item, ItemId, Seat};
use http::StatusCode;
use http::header::{HeaderValue, LOCATION};
use hyper::body::Body;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::api::archives::or_archived;
use crate::api::call::Call;
use crate::http::problem::Problem;
use crate::http::query::{Query, decode};
use crate::http::requests::{ItemBody, read};
use crate::http::response::{self, Answer, Failure};
use crate::http::{body, cursor};

/// Characters to encode in a path: all but the unreserved ones of RFC 3986 §2.3.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// `PUT /v1/items/{id}`.
pub(crate) async fn put<B>(call: Call<B>, id: &str) -> Result<Answer, Problem>
where
    B: Body<Data = Bytes, Error: Into<Failure>>,
{
    call.app.auth.operator(&call.parts.headers)?;
    let id = id_to_change(id)?;
    let bytes_max = call.app.bounds.item_body_max;
    let body = call.body_of_at_most(bytes_max).await;
    let (app, _, body) = body.map_err(|refused| match refused.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::item_too_large(bytes_max),
        _ => refused,
    })?;
    let spec = read::<ItemBody>(&body)?.spec(id.clone())?;
    let flux = app.flux.clone();
    let listed = app.listed.clone();
    let put = async move {
        let put = flux.put_item(spec).await;
        // What failed may be done all the same.
        listed.iter().for_each(|listed| listed.changed());
        Ok::<_, Problem>((put?, known(&flux, id).await?, flux.now()))
    };
    let (outcome, item, now) = app.finish(put).await?;
    let mut answer = response::json(StatusCode::OK, &ItemView::new(&item, now));
    if outcome == PutOutcome::Created {
        *answer.status_mut() = StatusCode::CREATED;
        let location =
            format!("/v1/items/{}", utf8_percent_encode(item.spec.id.as_str(), RESERVED));
        let location = HeaderValue::try_from(location).expect("an id is visible ASCII");
        answer.headers_mut().insert(LOCATION, location);
    }
    Ok(answer)
}

/// `DELETE /v1/items/{id}`.
pub(crate) async fn delete<B>(call: Call<B>, id: &str) -> Result<Answer, Problem> {
    call.app.auth.operator(&call.parts.headers)?;
    body::check_coding(&call.parts.headers)?;
    let id = id_to_change(id)?;
    let (flux, listed) = (call.app.flux.clone(), call.app.listed.clone());
    let deleting = async move {
        let deleted = flux.delete_item(&id).await;
        listed.iter().for_each(|listed| listed.changed());
        deleted
    };
    call.app.finish(deleting).await?;
    Ok(response::no_content())
}

/// `GET /v1/items/{id}`.
pub(crate) async fn get<B>(call: Call<B>, id: &str) -> Result<Answer, Problem> {
    let item = known(&call.app.flux, id_to_read(id)?).await?;
    Ok(response::json(StatusCode::OK, &ItemView::new(&item, call.app.flux.now())))
}

#[derive(Serialize)]
struct Page<'i> {
    items: Vec<ItemView<'i>>,
    next_cursor: Option<String>,
}

const LIST: &str = "items";

/// `GET /v1/items`.
pub(crate) async fn list<B>(call: Call<B>) -> Result<Answer, Problem> {
    let query = Query::of(&call.parts.uri, &["limit", "cursor"])?;
    let limit = query.limit()?;
    let after = query.get("cursor").map(|text| cursor::decode(LIST, text)).transpose()?;
    let after = after.map(ItemId::new).transpose()?;
    // One more than asked for tells whether there is a next page.
    let flux = &call.app.flux;
    let mut items = match &call.app.listed {
        Some(listed) => listed.page(flux, after.as_ref(), limit + 1).await?,
        None => flux.items(after.as_ref(), limit + 1).await?,
    };
    let more = items.len() > limit;
    items.truncate(limit);
    let last = items.last().filter(|_| more);
    let next_cursor = last.map(|item| cursor::encode(LIST, item.spec.id.as_str()));
    let now = call.app.flux.now();
    let items = items.iter().map(|item| ItemView::new(item, now)).collect();
    Ok(response::json(StatusCode::OK, &Page { items, next_cursor }))
}

/// The seats of a hall by name.
struct Seats(Vec<Seat>);

impl Serialize for Seats {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut seats = to.serialize_map(Some(self.0.len()))?;
        for seat in &self.0 {
            seats.serialize_entry(&seat.id, &seat.state)?;
        }
        seats.end()
    }
}

/// `GET /v1/items/{id}/seats`.
pub(crate) async fn seats<B>(call: Call<B>, id: &str) -> Result<Answer, Problem> {
    let id = id_to_read(id)?;
    let permit = call.app.hall()?;
    match call.app.flux.seats(&id).await? {
        Some(seats) => Ok(response::long_json(&Seats(seats), permit)),
        None => Err(Problem::no_seats(format!("{id} is sold by quantity, it has no seats"))),
    }
}

/// `GET /v1/events`.
pub(crate) async fn events<B>(call: Call<B>) -> Result<Answer, Problem> {
    let query = Query::of(&call.parts.uri, &["item_id"])?;
    let id: Option<ItemId> = query.parsed("item_id")?;
    if let Some(id) = &id {
        known(&call.app.flux, id.clone()).await?;
    }
    Ok(call.app.hub.items(id).into_answer(call.app.stream()?))
}

async fn known(flux: &Flux, id: ItemId) -> Result<Item, Problem> {
    match flux.item(&id).await? {
        Some(item) => Ok(item),
        None => Err(or_archived(flux, Error::UnknownItem(id)).await),
    }
}

fn unknown() -> Problem {
    Problem::not_found("no item has such an id")
}

/// The item's id, for a call that reads.
fn id_to_read(text: &str) -> Result<ItemId, Problem> {
    id_to_change(text).map_err(|_| unknown())
}

/// The item's id, for a call that changes it.
fn id_to_change(text: &str) -> Result<ItemId, Problem> {
    let text = decode(text).ok_or_else(|| Problem::invalid("item_id: is not percent-encoded"))?;
    Ok(ItemId::new(text)?)
}
