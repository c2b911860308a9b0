//! The judge of `examples/judge`: over a `flux-server` that is killed while clients buy,
//! nothing they are told speaks against it; over a server that says yes to all, it
//! does.

#[expect(dead_code, reason = "the main of the example, and what only that needs")]
#[path = "../examples/judge/main.rs"]
mod judge;

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use clap::Parser;
use flux_core::views::{LineView, OrderView};
use flux_core::{Hold, Line, Lines, Order, OrderId, OrderState, Timestamp};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use judge::{Options, run};
use rand::RngExt;
use serde_json::Value;
use stage::fleet::flux_server;
use tokio::task::{block_in_place, spawn};

/// A free port below those that the system gives to whoever connects.
fn port() -> u16 {
    let any = || rand::rng().random_range(20_000..32_000);
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    std::iter::repeat_with(any).find(is_free).expect("there is a free port")
}

/// A short judgement, of a machine that may be slow.
fn options(address: SocketAddr, home: &Path, more: &[&str]) -> Options {
    let url = format!("http://{address}");
    let logs = home.display().to_string();
    let ours = ["judge", "--url", &url, "--token", "judge", "--logs", &logs, "--tolerance", "60"];
    let short = ["--seconds", "5", "--hold-seconds", "1", "--clients", "16"];
    Options::parse_from([&ours[..], &short, more].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_and_sells_well_is_judged_clean() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let program = block_in_place(flux_server).expect("flux-server is built");
    let address = SocketAddr::from(([127, 0, 0, 1], port()));
    let (program, data) = (program.display(), home.path().join("data"));
    let data = data.display();
    let server =
        format!("env -i FLUX_OPERATOR_TOKEN=judge {program} --listen {address} --data-dir {data}");
    let kills = ["--spawn", &server, "--kill-every", "2", "--freeze", "0"];
    let few = ["--units", "10", "--seats", "10"];
    let options = options(address, home.path(), &[&kills[..], &few].concat());
    let verdict = run(&options).await.expect("it is judged");
    assert!(verdict.is_clean() && verdict.kills() > 0, "{verdict}");
    assert!(verdict.to_string().contains(" confirmed\n"), "{verdict}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_says_yes_to_all_is_found_out() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let lying = spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let serving =
                http1::Builder::new().serve_connection(TokioIo::new(socket), service_fn(lie));
            // It ends when the client hangs up.
            spawn(async move { serving.await.ok() });
        }
    });
    let verdict =
        run(&options(address, home.path(), &["--units", "1"])).await.expect("it is judged");
    lying.abort();
    // Its answers take no longer than it likes, so nothing else is certain.
    assert!(verdict.to_string().contains("G4: "), "{verdict}");
}

/// Whatever is ordered is held, and nothing is ever found again.
async fn lie(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let answer = |status, body: String| {
        Response::builder().status(status).body(Full::from(body)).expect("a good answer")
    };
    let is_order = request.method() == Method::POST && request.uri().path() == "/v1/orders";
    if !is_order {
        let status = if request.uri().path().starts_with("/v1/orders") { 404 } else { 200 };
        return Ok(answer(status, "{}".to_owned()));
    }
    let body = request.into_body().collect().await.expect("the judge sends all of it").to_bytes();
    let order: Value = serde_json::from_slice(&body).expect("the judge sends JSON");
    let lines: Vec<LineView> =
        serde_json::from_value(order["lines"].clone()).expect("the judge sends lines");
    let lines = lines.into_iter().map(|line| Line::try_from(line).expect("a good line"));
    let lines = Lines::new(lines.collect()).expect("good lines");
    let buyer = order["buyer_id"].as_str().and_then(|buyer| buyer.parse().ok());
    let id = order["order_id"].as_str().and_then(|id| id.parse().ok());
    let id = id.unwrap_or_else(OrderId::new);
    let now = Timestamp::now();
    let order = Order::queued(id, buyer.expect("the judge names a buyer"), lines, now);
    let hold = Hold::between(now, now + Duration::from_secs(1));
    let order = order.with_state(OrderState::Held(hold));
    let shown = serde_json::to_string(&OrderView::from(&order)).expect("an order is JSON");
    Ok(answer(201, shown))
}

#[test]
fn the_bugs_that_the_judge_is_to_find_fit_the_sources() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let git = Command::new("git")
        .args(["apply", "--check", "examples/judge/broken/bugs.patch"])
        .current_dir(root)
        // In a copy within another repository it would skip everything.
        .env("GIT_CEILING_DIRECTORIES", root.parent().expect("a folder above"))
        .output()
        .expect("git can be run");
    assert!(git.status.success(), "build them in anew: {}", String::from_utf8_lossy(&git.stderr));
}
