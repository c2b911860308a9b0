//! One client: sends a call, notes it, and reads the answer as the contract has it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use flux_core::conformance::history::{Answer, Call};
use flux_core::views::{LineView, OrderView};
use flux_core::{ItemId, Order, OrderId, PaymentRef, Reason};
use http_body_util::Full;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request};
use serde_json::{Value, json};
use stage::{Client, Reply};
use tokio::time::{sleep, timeout};

use super::notes::Notes;

/// Pause after a call without an answer.
const PAUSE: Duration = Duration::from_millis(50);

/// The server under judgement.
#[derive(Debug, Clone)]
pub(super) struct Site {
    pub(super) address: SocketAddr,
    host: String,
    pub(super) token: String,
}

impl Site {
    /// The server at `http://HOST:PORT`.
    pub(super) async fn find(url: &str) -> Result<Self> {
        let rest = url.strip_prefix("http://").context("--url must begin with http://")?;
        let host = rest.trim_end_matches('/').to_owned();
        let with_port = if host.contains(':') { host.clone() } else { format!("{host}:80") };
        let mut found = tokio::net::lookup_host(&with_port).await?;
        let address = found.next().with_context(|| format!("{host} has no address"))?;
        Ok(Self { address, host, token: String::new() })
    }

    /// Whether the server says that it is ready.
    pub(super) async fn is_ready(&self, client: &mut Client) -> bool {
        let request = Request::get("/readyz").header(HOST, &self.host).body(Full::default());
        let Ok(request) = request else { return false };
        let answered = timeout(Duration::from_secs(1), client.send(request)).await;
        let is_ready = matches!(answered, Ok(Ok(reply)) if reply.status == 200);
        if !is_ready {
            client.hang_up();
        }
        is_ready
    }
}

/// How a call is sent.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Manner {
    /// Seconds that the server may wait for the decision.
    pub(super) wait: Option<u64>,
    /// Time after which the client hangs up.
    pub(super) patience: Option<Duration>,
}

/// A client with a connection of its own.
#[derive(Debug)]
pub(super) struct Teller {
    site: Arc<Site>,
    client: Client,
    pub(super) notes: Arc<Notes>,
}

impl Teller {
    pub(super) fn new(site: &Arc<Site>, notes: &Arc<Notes>) -> Self {
        let (site, notes) = (Arc::clone(site), Arc::clone(notes));
        Self { client: Client::new(site.address), site, notes }
    }

    /// Places an order under its id, or under a key that its id spells.
    pub(super) async fn place(&mut self, order: &Order, by_key: bool, manner: Manner) -> Answer {
        let lines: Vec<LineView> = order.lines.iter().map(Into::into).collect();
        let mut body = json!({ "buyer_id": order.buyer, "lines": lines });
        let (call, key) = match by_key {
            true => (Call::PlaceByKey(order.clone()), Some(order.id.to_string())),
            false => (Call::Place(order.clone()), None),
        };
        if !by_key {
            body["order_id"] = json!(order.id);
        }
        self.tell(call, Method::POST, "/v1/orders", key.as_deref(), Some(body), manner).await
    }

    pub(super) async fn look(&mut self, id: OrderId, manner: Manner) -> Answer {
        let path = format!("/v1/orders/{id}");
        self.tell(Call::Look(id), Method::GET, &path, None, None, manner).await
    }

    pub(super) async fn confirm(&mut self, id: OrderId, payment: &PaymentRef) -> Answer {
        let path = format!("/v1/orders/{id}/confirm");
        let body = json!({ "payment_ref": payment });
        let call = Call::Confirm(id, payment.clone());
        self.until_answered(call, &path, Some(body)).await
    }

    pub(super) async fn release(&mut self, id: OrderId) -> Answer {
        self.until_answered(Call::Release(id), &format!("/v1/orders/{id}/release"), None).await
    }

    pub(super) async fn cancel(&mut self, id: OrderId) -> Answer {
        self.until_answered(Call::Cancel(id), &format!("/v1/orders/{id}/cancel"), None).await
    }

    /// Puts an item on sale; tried again until it is.
    pub(super) async fn put(&mut self, item: &ItemId, body: &Value) -> Result<()> {
        let path = format!("/v1/items/{item}");
        loop {
            let reply = self.send(Method::PUT, &path, None, Some(body), None).await;
            match reply {
                Ok(Reply { status: 200 | 201, .. }) => return Ok(()),
                Ok(Reply { status: 429 | 500.., .. }) | Err(_) => sleep(PAUSE).await,
                Ok(reply) => bail!("PUT {path} was answered {}: {}", reply.status, reply.json()),
            }
        }
    }

    async fn until_answered(&mut self, call: Call, path: &str, body: Option<Value>) -> Answer {
        loop {
            let manner = Manner::default();
            let answer =
                self.tell(call.clone(), Method::POST, path, None, body.clone(), manner).await;
            if answer != Answer::Nothing {
                return answer;
            }
            sleep(PAUSE).await;
            // The refusal of late money need not show the order.
            if let Call::Confirm(id, payment) = &call
                && let shown @ Answer::Shown(order) = &self.look(*id, manner).await
                && order.payment_ref() == Some(payment)
            {
                return shown.clone();
            }
        }
    }

    async fn tell(
        &mut self,
        call: Call,
        method: Method,
        path: &str,
        key: Option<&str>,
        body: Option<Value>,
        manner: Manner,
    ) -> Answer {
        let notes = Arc::clone(&self.notes);
        let sent = notes.ask(call.clone());
        let sending = self.send(method, path, key, body.as_ref(), manner.wait);
        let replied = match manner.patience {
            Some(patience) => timeout(patience, sending).await.ok(),
            None => Some(sending.await),
        };
        let answer = match replied {
            Some(Ok(reply)) => meaning(&call, &reply).unwrap_or_else(|| {
                let (status, body) = (reply.status, reply.json());
                notes.complain(format!("{path} was answered {status}: {body}"));
                Answer::Nothing
            }),
            Some(Err(_)) => Answer::Nothing,
            None => {
                self.client.hang_up();
                Answer::Nothing
            }
        };
        notes.hear(&sent, answer.clone());
        answer
    }

    async fn send(
        &mut self,
        method: Method,
        path: &str,
        key: Option<&str>,
        body: Option<&Value>,
        wait: Option<u64>,
    ) -> io::Result<Reply> {
        let mut request = Request::builder().method(method).uri(path).header(HOST, &self.site.host);
        request = request.header(AUTHORIZATION, format!("Bearer {}", self.site.token));
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        if let Some(seconds) = wait {
            request = request.header("prefer", format!("wait={seconds}"));
        }
        let body = match body {
            Some(body) => {
                request = request.header(CONTENT_TYPE, "application/json");
                Bytes::from(body.to_string())
            }
            None => Bytes::new(),
        };
        self.client.send(request.body(Full::new(body)).map_err(io::Error::other)?).await
    }
}

/// What an answer says; `None` for one that the contract does not have.
fn meaning(call: &Call, reply: &Reply) -> Option<Answer> {
    let json = reply.json();
    let problem = json["type"].as_str().unwrap_or_default();
    let is_placed = matches!(call, Call::Place(_) | Call::PlaceByKey(_));
    match (reply.status, problem) {
        (200..=202, _) => shown(&json),
        (409, "/problems/not-held" | "/problems/not-confirmed") if !is_placed => {
            Some(Answer::NotAllowed)
        }
        (409, _) if json["order"].is_object() => shown(&json["order"]),
        (409, "/problems/sold-out") if is_placed => Some(Answer::TurnedAway(Reason::SoldOut)),
        (409, "/problems/not-open") if is_placed => Some(Answer::TurnedAway(Reason::NotOpen)),
        (409, "/problems/closed") if is_placed => Some(Answer::TurnedAway(Reason::Closed)),
        // The order itself tells the rest.
        (409, "/problems/refund-due") => Some(Answer::Nothing),
        (404, _) => Some(Answer::NotFound),
        (422, _) => Some(Answer::Reused),
        (408 | 429 | 500.., _) => Some(Answer::Nothing),
        _ => None,
    }
}

fn shown(order: &Value) -> Option<Answer> {
    let view: OrderView = serde_json::from_value(order.clone()).ok()?;
    Some(Answer::Shown(Order::try_from(view).ok()?))
}
