//! Two buyers who chose one order id, with processes that do not know of each other: the
//! one that does not get it sees nothing of the other's order.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Parser;
use flux_core::protocol::{Commit, CommitOutcome, Expect, Message, OrderWrite};
use flux_core::{
    Backend, BuyerId, Flux, Hold, ItemId, ItemSpec, Line, Lines, Order, OrderId, OrderState, Role,
    Timestamp,
};
use flux_server::api::route::Route;
use flux_server::app::App;
use flux_server::serve;
use flux_server::setup::config::{Config, LogFormat};
use flux_server::setup::secret::Secret;
use flux_server::telemetry::{Http, Telemetry};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::json;
use sha2::Sha256;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;
use tokio::time::sleep;

const SECRET: &str = "a-secret-that-is-long-enough-for-HS256";

fn token(buyer: &str) -> String {
    let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = json!({"sub": buyer, "exp": jiff::Timestamp::now().as_second() + 86_400});
    let text = format!("{}.{}", part(&json!({"alg": "HS256"})), part(&claims));
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("any length");
    mac.update(text.as_bytes());
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}

/// Asks as `ann`, on a connection of its own.
fn ask(app: &Arc<App>, head: &str, body: &str) -> JoinHandle<String> {
    let (mut client, socket) = tokio::io::duplex(16 * 1024);
    let peer = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let serving = tokio::spawn(serve::connection(Arc::clone(app), socket, peer));
    let (length, bearer) = (body.len(), token("ann"));
    let request = format!(
        "{head} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nprefer: wait=30\r\n\
         authorization: Bearer {bearer}\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n{body}"
    );
    tokio::spawn(async move {
        client.write_all(request.as_bytes()).await.expect("in memory");
        let mut heard = String::new();
        client.read_to_string(&mut heard).await.expect("in memory");
        serving.await.expect("it does not panic");
        heard
    })
}

/// Has the order id decided for `bob`, by a process elsewhere.
async fn decide_for_bob(backend: &Backend, id: OrderId) {
    let item = ItemId::new("ticket").expect("a name");
    let claim = backend.store.claim(std::slice::from_ref(&item)).await.expect("claimed").remove(0);
    let lines = Lines::new(vec![Line::units("ticket", 1).expect("a line")]).expect("lines");
    let now = Timestamp::now();
    let hold = Hold::between(now, now + Duration::from_secs(600));
    let order = Order::queued(id, BuyerId::new("bob").expect("a name"), lines, now);
    let write =
        OrderWrite { order: order.with_state(OrderState::Held(hold)), expect: Expect::Absent };
    let claims = vec![(item, claim.expect("it is there").token)];
    let written = backend.store.commit(&[Commit { claims, writes: vec![write] }]).await;
    assert_eq!(written.expect("written"), [CommitOutcome::Applied]);
}

#[tokio::test(start_paused = true)]
async fn an_order_that_turns_out_to_be_another_buyers_is_not_shown_and_not_released() {
    let backend = Backend::memory();
    let flux = Flux::builder(backend.clone()).role(Role::AcceptOnly).start();
    flux.put_item(ItemSpec::pool("ticket", 9).expect("a pool")).await.expect("put");
    let figures = Telemetry::start(LogFormat::Text).expect("the first").figures();
    let mut config = Config::parse_from(["flux-server", "api"]);
    config.buyer_jwt_secret = Some(Secret::new("FLUX_BUYER_JWT_SECRET", SECRET).expect("a secret"));
    let app = Arc::new(App::new(flux, &config, figures, Http::new(Route::ALL.map(Route::name))));

    let ids = ["GET", "release", "POST"].map(|call| (call, OrderId::new()));
    let order = |id: OrderId| {
        json!({"order_id": id.to_string(), "buyer_id": "ann", "item_id": "ticket"}).to_string()
    };
    let mut asked = Vec::new();
    for (call, id) in ids {
        if call != "POST" {
            let queued = ask(&app, "POST /v1/orders", &order(id));
            // It waits for a decision that does not come.
            sleep(Duration::from_secs(1)).await;
            queued.abort();
        }
        asked.push(match call {
            "GET" => ask(&app, &format!("GET /v1/orders/{id}"), ""),
            "release" => ask(&app, &format!("POST /v1/orders/{id}/release"), ""),
            _ => ask(&app, "POST /v1/orders", &order(id)),
        });
        sleep(Duration::from_secs(1)).await;
        decide_for_bob(&backend, id).await;
    }
    for ((call, id), asked) in ids.into_iter().zip(asked) {
        let heard = asked.await.expect("it does not panic");
        let expected = if call == "POST" { "HTTP/1.1 422" } else { "HTTP/1.1 404" };
        assert!(heard.starts_with(expected) && !heard.contains("bob"), "{call}: {heard}");
        let found = backend.store.orders(&[id]).await.expect("read").remove(0);
        let found = found.expect("it was decided");
        assert!(found.buyer.as_str() == "bob" && found.hold().is_some(), "{call}: {found:?}");
    }
    let left = backend.queue.receive(9, Duration::ZERO).await.expect("received");
    assert_eq!(left.len(), 3, "{left:?}");
    assert!(left.iter().all(|left| matches!(left.message, Message::Place(_))), "{left:?}");
}
