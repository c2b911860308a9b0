//! The two legacy calls, kept for the clients of the system before Flux.

use std::time::Duration;

use bytes::Bytes;
use flux_core::seams::{Cursor, OrderFilter, OrderPage};
use flux_core::{
    Ask, BuyerId, Error, ItemId, Line, Lines, Order, OrderRequest, Quantity, Role, SeatId,
};
use http::StatusCode;
use http_body_util::Either;
use http_body_util::channel::Channel;
use hyper::body::Body;
use serde::{Deserialize, Serialize};

use crate::api::call::Call;
use crate::api::orders::{idempotency_key, refuse_while_draining};
use crate::app::App;
use crate::http::problem::Problem;
use crate::http::requests;
use crate::http::response::{self, Answer, Failure, PIECE};

/// Time an order may take to be decided before it is queued instead.
const DECIDED_WITHIN: Duration = Duration::from_secs(1);
/// Orders read at once for the list of owners.
const PAGE: usize = 1_000;

#[derive(Deserialize)]
struct BuyBody {
    user_id: Option<String>,
    item_id: Option<String>,
}

#[derive(Serialize)]
struct Bought<'b> {
    message: &'static str,
    order: Sent<'b>,
    order_id: String,
}

#[derive(Serialize)]
struct Sent<'b> {
    user_id: &'b BuyerId,
    item_id: &'b ItemId,
}

#[derive(Serialize)]
struct Refused<'r> {
    error: &'r str,
}

/// `POST /buy`.
pub(crate) async fn buy<B>(call: Call<B>) -> Result<Answer, Problem>
where
    B: Body<Data = Bytes, Error: Into<Failure>>,
{
    let caller = call.app.auth.buyer(&call.parts.headers)?;
    let (app, parts, body) = call.body().await?;
    let bought = async {
        let (buyer, item) = asked(&body).map_err(|wrong| caller.judge(&body, wrong))?;
        caller.acts_for(&buyer)?;
        app.limits.buyer(&buyer)?;
        refuse_while_draining(&app)?;
        let key = idempotency_key(&parts.headers)?;
        let lines = Lines::new(vec![Line::new(item.clone(), Ask::Units(Quantity::MIN))])?;
        let request = OrderRequest::of(buyer.clone(), lines).with_idempotency_key(key);
        let accepted = accept(&app, request).await.inspect_err(|error| app.note(error));
        let order = match accepted {
            Ok(order) => order,
            Err(Error::SoldOut(_)) => return Ok(refused(StatusCode::CONFLICT, "Sold out")),
            Err(Error::NotOpen(_)) => return Ok(refused(StatusCode::CONFLICT, "Not open yet")),
            Err(Error::Closed(_)) => return Ok(refused(StatusCode::CONFLICT, "Closed")),
            Err(Error::UnknownItem(_)) => {
                return Ok(refused(StatusCode::NOT_FOUND, "No such item"));
            }
            Err(error) => return Err(error.into()),
        };
        let bought = Bought {
            message: "Order received",
            order: Sent { user_id: &buyer, item_id: &item },
            order_id: order.id.to_string(),
        };
        Ok::<_, Problem>(response::json(StatusCode::OK, &bought))
    };
    match bought.await {
        Err(problem) if problem.status() == StatusCode::BAD_REQUEST => {
            Ok(refused(StatusCode::BAD_REQUEST, problem.detail()))
        }
        bought => bought,
    }
}

/// Reads the buyer and the item.
fn asked(body: &[u8]) -> Result<(BuyerId, ItemId), Problem> {
    let body: BuyBody = requests::read(body)?;
    let given = |field: Option<String>| field.filter(|text| !text.is_empty());
    let (Some(user), Some(item)) = (given(body.user_id), given(body.item_id)) else {
        return Err(Problem::invalid("Missing user_id or item_id"));
    };
    Ok((BuyerId::new(user)?, ItemId::new(item)?))
}

/// Makes an order durable the quickest way: a decision is written once,
/// an order that waits for one is written twice.
async fn accept(app: &App, request: OrderRequest) -> Result<Order, Error> {
    match app.role {
        Role::Both => app.flux.place_within(request, DECIDED_WITHIN).await,
        Role::AcceptOnly => app.flux.submit(request).await,
    }
}

fn refused(status: StatusCode, error: &str) -> Answer {
    response::json(status, &Refused { error })
}

#[derive(Serialize)]
struct Owned<'o> {
    id: &'o str,
    owner: &'o BuyerId,
}

/// `GET /inventory`. It reads every order, page by page as the caller takes what
/// is in it.
pub(crate) async fn inventory<B>(call: Call<B>) -> Result<Answer, Problem> {
    if call.app.auth.knows_buyers() {
        call.app.auth.operator(&call.parts.headers)?;
    }
    let (permit, reader) = (call.app.stream()?, call.app.inventory()?);
    let app = call.app.app();
    // The first page tells whether it can be read at all.
    let first = page(&app, None).await?;
    let (mut parts, body) = Channel::<Bytes, Error>::new(1);
    tokio::spawn(async move {
        let _reader = reader;
        let mut page_of_orders = first;
        let mut list = List::default();
        loop {
            for owned in owned(&page_of_orders.orders) {
                list.add(&owned);
                // The caller may have hung up.
                if list.json.len() >= PIECE && parts.send_data(list.take()).await.is_err() {
                    return;
                }
            }
            match &page_of_orders.next {
                next @ Some(_) => match page(&app, next.as_ref()).await {
                    Ok(next) => page_of_orders = next,
                    // Breaking off says that this is not all.
                    Err(error) => return parts.abort(error),
                },
                None => {
                    list.json.push(b']');
                    let _ = parts.send_data(list.take()).await;
                    return;
                }
            }
        }
    });
    let parts = response::Stream::new(body, permit);
    Ok(response::of_type("application/json", Either::Right(parts)))
}

async fn page(app: &App, after: Option<&Cursor>) -> Result<OrderPage, Error> {
    app.flux.orders(&OrderFilter::default(), after, PAGE).await
}

/// An array in the making.
struct List {
    json: Vec<u8>,
    has_entries: bool,
}

impl Default for List {
    fn default() -> Self {
        Self { json: b"[".to_vec(), has_entries: false }
    }
}

impl List {
    fn add(&mut self, entry: &impl Serialize) {
        if self.has_entries {
            self.json.push(b',');
        }
        self.has_entries = true;
        serde_json::to_writer(&mut self.json, entry).expect("a vector takes what is written");
    }

    /// Takes the bytes that are written and not yet taken.
    fn take(&mut self) -> Bytes {
        std::mem::take(&mut self.json).into()
    }
}

/// An entry for each unit that is held or sold.
fn owned(orders: &[Order]) -> impl Iterator<Item = Owned<'_>> {
    let owning = orders.iter().filter(|order| order.status().owns_stock());
    let lines = owning.flat_map(|order| order.lines.iter().map(move |line| (&order.buyer, line)));
    lines.flat_map(|(owner, line)| {
        let (units, seats) = match &line.ask {
            Ask::Units(quantity) => (quantity.get(), &[][..]),
            Ask::Seats(seats) => (0, &seats[..]),
        };
        let units = (0..units).map(|_| line.item.as_str());
        units.chain(seats.iter().map(SeatId::as_str)).map(move |id| Owned { id, owner })
    })
}

#[cfg(test)]
mod tests {
    use flux_core::{Hold, OrderId, OrderState, Timestamp};

    use super::*;

    #[test]
    fn owners_over_several_pages_are_one_array() {
        let held = |buyer: &str, quantity| {
            let request = OrderRequest::units(buyer, "a", quantity).expect("a request");
            let id = OrderId::from_uuid(uuid::Uuid::nil());
            let order = Order::queued(id, request.buyer, request.lines, Timestamp::default());
            let hold = Hold::between(order.placed_at, order.placed_at);
            order.with_state(OrderState::Held(hold))
        };
        let mut list = List::default();
        let mut json = Vec::new();
        for page in [vec![], vec![held("ann", 2)], vec![held("bob", 1)]] {
            owned(&page).for_each(|owned| list.add(&owned));
            json.extend(list.take());
        }
        json.push(b']');
        let owners: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
        let by: Vec<_> = owners.as_array().expect("an array").iter().map(|o| &o["owner"]).collect();
        assert_eq!(by, ["ann", "ann", "bob"]);
    }
}
