//! The calls of a server whose engine has failed, over a backend with a bug.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;
use flux_core::layers::{Call, Layer, Operation};
use flux_core::{Backend, Flux, ItemSpec, SeamError};
use flux_server::api::route::Route;
use flux_server::app::App;
use flux_server::serve;
use flux_server::setup::config::{Config, LogFormat};
use flux_server::telemetry::{Http, Telemetry};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Panics in each commit, once it is armed.
#[derive(Clone, Default)]
struct Bug(Arc<AtomicBool>);

impl Layer for Bug {
    async fn around<T, F, Fut>(&self, call: Call, run: F) -> Result<T, SeamError>
    where
        T: Send,
        F: Fn() -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, SeamError>> + Send,
    {
        let strikes = call.operation == Operation::Commit && self.0.load(Ordering::Relaxed);
        assert!(!strikes, "a bug");
        run().await
    }
}

/// The head and the body of the answer to a request on a connection of its own.
async fn ask(app: &Arc<App>, head: &str, body: &str) -> String {
    let (mut client, socket) = tokio::io::duplex(16 * 1024);
    let peer = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let serving = tokio::spawn(serve::connection(Arc::clone(app), socket, peer));
    let length = body.len();
    let json = format!("content-type: application/json\r\ncontent-length: {length}\r\n");
    let request =
        format!("{head} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{json}\r\n{body}");
    client.write_all(request.as_bytes()).await.expect("in memory");
    let mut heard = String::new();
    client.read_to_string(&mut heard).await.expect("in memory");
    serving.await.expect("it does not panic");
    heard
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).expect("a status line")
}

#[tokio::test]
async fn a_server_whose_worker_is_gone_is_not_healthy_and_accepts_nothing() {
    let bug = Bug::default();
    let flux = Flux::builder(Backend::memory().layered(bug.clone())).start();
    flux.put_item(ItemSpec::pool("ticket", 9).expect("a pool")).await.expect("put");
    let figures = Telemetry::start(LogFormat::Text).expect("the first").figures();
    let config = Config::parse_from(["flux-server"]);
    let http = Http::new(Route::ALL.map(Route::name));
    let app = Arc::new(App::new(flux.clone(), &config, figures, http));
    for path in ["GET /healthz", "GET /readyz"] {
        assert_eq!(status(&ask(&app, path, "").await), "200", "{path}");
    }

    bug.0.store(true, Ordering::Relaxed);
    let order = r#"{"buyer_id": "ann", "item_id": "ticket"}"#;
    let at_work = ask(&app, "POST /v1/orders?", order).await;
    assert_eq!(status(&at_work), "202", "its acceptance was on disk: {at_work}");
    let failure = flux.failed().await.to_string();
    assert!(failure.contains("worker") && failure.contains("a bug"), "{failure}");

    let buy = r#"{"user_id": "ann", "item_id": "ticket"}"#;
    let asks =
        [("GET /healthz", ""), ("GET /readyz", ""), ("POST /v1/orders", order), ("POST /buy", buy)];
    for (call, body) in asks {
        let answer = ask(&app, call, body).await;
        assert_eq!(status(&answer), "503", "{call}: {answer}");
        assert!(answer.contains("/problems/unavailable"), "{call}: {answer}");
        assert!(answer.to_ascii_lowercase().contains("retry-after: "), "{call}: {answer}");
        assert!(body.is_empty() || answer.contains("nothing was accepted"), "{call}: {answer}");
    }
}
