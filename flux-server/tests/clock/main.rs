//! Ten thousand random steps of the clock under a server: the story that
//! `flux-core` tells of its engine, told over HTTP. Real requests over sockets
//! in memory, on tokio's paused clock.
//!
//! `FLUX_CLOCK_SEEDS=200 cargo test -p flux-server --test clock`

#[path = "../../../flux-core/tests/clock_steps/story.rs"]
mod story;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, OnceLock};

use clap::Parser as _;
use flux_core::{Flux, OrderId, OrderStatus};
use flux_server::api::route::Route;
use flux_server::app::App;
use flux_server::serve;
use flux_server::setup::config::{Config, LogFormat};
use flux_server::setup::secret::Secret;
use flux_server::telemetry::{Figures, Http, Telemetry};
use serde_json::{Value, json};
use story::{Bought, Shop, WINDOW, tell};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Steps of one seed.
const STEPS: usize = 500;
const TOKEN: &str = "the-operators-token";

#[derive(Clone)]
struct Server(Arc<App>);

impl Server {
    /// Sends one request on a connection of its own; the status and the body.
    async fn ask(&self, request: &str, body: &Value) -> (u16, Value) {
        let (mut client, socket) = tokio::io::duplex(16 * 1024);
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let head = format!(
            "{request} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nPrefer: wait=10\r\n\
             Authorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let talking = async {
            client.write_all(head.as_bytes()).await.expect("in memory");
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.expect("in memory");
            answer
        };
        let peer = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let (answer, ()) =
            tokio::join!(talking, serve::connection(Arc::clone(&self.0), socket, peer));
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        (status.expect("a status"), serde_json::from_str(body).expect("JSON"))
    }
}

impl Shop for Server {
    fn open(flux: Flux) -> Self {
        static FIGURES: OnceLock<Figures> = OnceLock::new();
        let start = || Telemetry::start(LogFormat::Text).expect("the first").figures();
        let mut config = Config::parse_from(["flux-server"]);
        config.operator_token = Some(Secret::new("operator", TOKEN).expect("a token"));
        let (figures, http) = (FIGURES.get_or_init(start), Http::new(Route::ALL.map(Route::name)));
        Self(Arc::new(App::new(flux, &config, figures.clone(), http)))
    }

    async fn is_open(&self) -> bool {
        let (status, item) = self.ask(&format!("GET /v1/items/{WINDOW}"), &Value::Null).await;
        assert_eq!(status, 200, "{item}");
        item["state"] == "open"
    }

    async fn buy(&self, item: &'static str, buyer: u64, id: OrderId) -> Bought {
        let buyer = format!("buyer-{buyer}");
        let order = json!({"order_id": id, "buyer_id": buyer, "item_id": item, "quantity": 1});
        let (status, answer) = self.ask("POST /v1/orders", &order).await;
        match status {
            201 => {
                let until = answer["hold_expires_at"].as_str().expect("a time");
                Bought::Held(until.parse().expect("a time"))
            }
            409 => Bought::Not,
            202 | 500.. => Bought::Away,
            _ => panic!("{id}: {status} {answer}"),
        }
    }

    async fn pay(&self, id: OrderId) -> Option<OrderStatus> {
        let payment = json!({"payment_ref": format!("pay-{id}")});
        let (status, answer) = self.ask(&format!("POST /v1/orders/{id}/confirm"), &payment).await;
        match status {
            200 => Some(OrderStatus::Confirmed),
            409 if answer["type"] == "/problems/refund-due" => Some(OrderStatus::RefundDue),
            500.. => None,
            _ => panic!("{id}: {status} {answer}"),
        }
    }
}

#[test]
fn no_hold_ends_by_a_step_of_the_clock_that_does_not_stand() {
    let seeds = std::env::var("FLUX_CLOCK_SEEDS").ok().and_then(|n| n.parse().ok());
    for seed in 0..seeds.unwrap_or(20) {
        // Others than the engine's.
        tell::<Server>(1_000 + seed, STEPS);
    }
}
