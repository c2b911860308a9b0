//! Bytes that no client would send, into the code that serves a connection, in
//! process: whatever comes, nothing panics and no answer is a server error.
//! `FLUX_FUZZ_CASES` says how many cases each test tries.

#[allow(dead_code, unused_imports, reason = "the contract's tests use the rest")]
#[path = "../harness/mod.rs"]
mod harness;
mod inputs;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Once, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use clap::Parser as _;
use flux_core::{Backend, Flux, ItemSpec};
use flux_server::api::route::Route;
use flux_server::app::App;
use flux_server::serve;
use flux_server::setup::config::{Config, LogFormat};
use flux_server::setup::secret::Secret;
use flux_server::telemetry::{Figures, Http, Telemetry};
use harness::{Answer, check};
use http::{HeaderMap, HeaderName, HeaderValue};
use inputs::{Asked, OPERATOR, TOKENS, apply, asked, changes, pieces, sound_requests};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config as Runs, TestCaseError, TestError, TestRunner};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Runtime;

/// Some 20 seconds of an unoptimised build.
const CASES_DEFAULT: u32 = 6_000;
/// Orders pile up, so each shop serves so many cases.
const CASES_OF_A_SHOP: usize = 500;

/// Longer than any wait that is granted.
const ENDS_WITHIN: Duration = Duration::from_secs(60);

static PANICS: AtomicUsize = AtomicUsize::new(0);

/// Panics of tasks that nobody joins count too.
fn count_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICS.fetch_add(1, Ordering::SeqCst);
            before(panic);
        }));
    });
}

/// A server without sockets, on a clock that jumps: what waits for time waits
/// no longer than it takes to find that nothing else is to be done.
struct Shop {
    runtime: Runtime,
    app: Arc<App>,
    served: usize,
    /// The number of answers of each status.
    seen: BTreeMap<u16, usize>,
}

impl Shop {
    fn open() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime");
        let app = runtime.block_on(async {
            let flux = Flux::builder(Backend::memory()).start();
            let hall = ItemSpec::hall("hall", ["A1", "A2", "B1", "B2"]).expect("a hall");
            let pool = |id, capacity| ItemSpec::pool(id, capacity).expect("a pool");
            for spec in [pool("t", 20), pool("many", 10_000_000), pool("none", 0), hall] {
                flux.put_item(spec).await.expect("put");
            }
            let args = "flux-server --head-timeout 0.05 --body-timeout 0.05 --idle-timeout 0.1";
            let mut config = Config::parse_from(args.split(' '));
            config.operator_token = Some(Secret::new("operator", OPERATOR).expect("a token"));
            Arc::new(App::new(flux, &config, figures(), Http::new(Route::ALL.map(Route::name))))
        });
        Self { runtime, app, served: 0, seen: BTreeMap::new() }
    }

    /// Sends these pieces on one connection and returns all that came back.
    fn exchange(&mut self, pieces: &[&[u8]], patient: bool) -> Vec<u8> {
        if self.served == CASES_OF_A_SHOP {
            let seen = std::mem::take(&mut self.seen);
            *self = Self { seen, ..Self::open() };
        }
        self.served += 1;
        let app = Arc::clone(&self.app);
        let heard = self.runtime.block_on(async {
            let (client, socket) = tokio::io::duplex(16 * 1024);
            let (mut hears, mut says) = tokio::io::split(client);
            let talking = async move {
                let saying = async {
                    for piece in pieces {
                        says.write_all(piece).await?;
                        tokio::task::yield_now().await;
                    }
                    std::io::Result::Ok(())
                };
                // The server may have heard enough, or be busy with a stream.
                let _ = tokio::time::timeout(Duration::from_secs(1), saying).await;
                if patient {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                let _ = says.shutdown().await;
                // Streams go on until nobody hears them.
                tokio::time::sleep(Duration::from_secs(1)).await;
            };
            let mut heard = Vec::new();
            let client = async {
                tokio::select! {
                    () = talking => {}
                    ended = hears.read_to_end(&mut heard) => drop(ended.expect("in memory")),
                }
                drop(hears);
            };
            let peer = IpAddr::V4(Ipv4Addr::LOCALHOST);
            let serving = tokio::time::timeout(ENDS_WITHIN, serve::connection(app, socket, peer));
            let (ended, ()) = tokio::join!(serving, client);
            ended.expect("a connection ends when the client is gone");
            heard
        });
        statuses(&heard).iter().for_each(|status| *self.seen.entry(*status).or_default() += 1);
        heard
    }
}

/// A process has one recorder.
fn figures() -> Figures {
    static ONE: OnceLock<Figures> = OnceLock::new();
    let start = || Telemetry::start(LogFormat::Text).expect("the first").figures();
    ONE.get_or_init(start).clone()
}

/// Runs `case` as often as asked, on one shop after the other.
fn fuzz<S: Strategy>(
    strategy: &S,
    case: impl Fn(&mut Shop, S::Value) -> Result<(), TestCaseError>,
) {
    count_panics();
    let cases = std::env::var("FLUX_FUZZ_CASES").ok();
    let cases = cases.map_or(CASES_DEFAULT, |cases| cases.parse().expect("a number of cases"));
    let shop = RefCell::new(Shop::open());
    let mut runner = TestRunner::new(Runs { cases, failure_persistence: None, ..Runs::default() });
    let ran = runner.run(strategy, |input| {
        let before = PANICS.load(Ordering::SeqCst);
        case(&mut shop.borrow_mut(), input)?;
        prop_assert_eq!(PANICS.load(Ordering::SeqCst), before, "a task panicked");
        Ok(())
    });
    let seen = shop.into_inner().seen;
    match ran {
        Ok(()) => println!("{cases} cases, answered {seen:?}"),
        Err(TestError::Fail(why, input)) => panic!("{why}\nfor {input:?}"),
        Err(abort) => panic!("{abort}"),
    }
    // A test that no longer gets anywhere finds nothing either.
    if cases >= CASES_DEFAULT {
        for status in [200, 201, 202, 400, 404, 405, 409, 415] {
            assert!(seen.contains_key(&status), "never {status}: {seen:?}");
        }
    }
}

/// The statuses of every answer among these bytes.
fn statuses(heard: &[u8]) -> Vec<u16> {
    let line = b"HTTP/1.1 ";
    let starts = heard.windows(line.len()).enumerate().filter(|(_, window)| *window == line);
    let status = |at: usize| std::str::from_utf8(heard.get(at..at + 3)?).ok()?.parse().ok();
    starts.filter_map(|(at, _)| status(at + line.len())).collect()
}

fn no_server_error(heard: &[u8]) -> Result<(), TestCaseError> {
    let shown = || String::from_utf8_lossy(&heard[..heard.len().min(2_000)]).into_owned();
    prop_assert!(heard.is_empty() || heard.starts_with(b"HTTP/1."), "{}", shown());
    for status in statuses(heard) {
        prop_assert!(status < 500 || status == 503 || status == 505, "{}", shown());
    }
    Ok(())
}

#[test]
fn no_bytes_break_a_connection() {
    let requests = vec(select(sound_requests()), 1..4).prop_map(|requests| requests.concat());
    let bytes = prop_oneof![
        1 => vec(any::<u8>(), 0..600),
        1 => vec(select(&TOKENS[..]), 0..60).prop_map(|tokens| tokens.concat()),
        12 => requests,
    ]
    .prop_map(Bytes::from);
    let strategy = (bytes, changes(8), vec(any::<Index>(), 0..4), prop::bool::weighted(0.9));
    fuzz(&strategy, |shop, (bytes, changes, cuts, patient)| {
        let mut bytes = bytes.to_vec();
        apply(&mut bytes, &changes);
        let heard = shop.exchange(&pieces(&bytes, &cuts), patient);
        no_server_error(&heard)?;
        // And the shop is still there for others.
        let next = shop
            .exchange(&[b"GET /v1/items/t HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"], true);
        prop_assert_eq!(statuses(&next), [200]);
        Ok(())
    });
}

/// Reads the one answer there must be.
fn read(asked: &Asked, heard: &[u8]) -> Answer {
    let end = heard.windows(4).position(|window| window == b"\r\n\r\n").expect("a head");
    let head = std::str::from_utf8(&heard[..end]).expect("an ASCII head");
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.get(9..12)?.parse().ok()).expect("a status");
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(": ").expect("a header");
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
        headers.append(name, HeaderValue::from_str(value).expect("a value"));
    }
    let mut body = heard[end + 4..].to_vec();
    if headers.contains_key("transfer-encoding") {
        body = joined(&body);
    }
    Answer { call: format!("{} {}", asked.method, asked.path), status, headers, body }
}

/// The contents of chunks; a stream of events may break off.
fn joined(mut chunks: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = chunks.windows(2).position(|window| window == b"\r\n") {
        let size = std::str::from_utf8(&chunks[..end]).expect("a size");
        let size = usize::from_str_radix(size, 16).expect("a size");
        chunks = &chunks[end + 2..];
        body.extend_from_slice(&chunks[..size]);
        chunks = &chunks[size + 2..];
    }
    body
}

#[test]
fn every_request_is_answered_as_documented() {
    fuzz(&asked(), |shop, asked| {
        let heard = shop.exchange(&[&asked.bytes()], true);
        no_server_error(&heard)?;
        let answer = read(&asked, &heard);
        // A call that is no request is not in the document.
        if answer.status != 400 || answer.maybe_header("x-request-id").is_some() {
            check(asked.method, &asked.path, &answer);
        }
        Ok(())
    });
}
