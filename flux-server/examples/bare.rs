//! The benchmark's yardsticks: an HTTP server that keeps no stock. It parses
//! an order and answers with as many bytes as flux-server would; with `--log`
//! it first appends the order to a bare log, and answers once that is synced.

use std::convert::Infallible;
use std::error::Error;
use std::fs::File;
use std::future::poll_fn;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use clap::Parser;
use http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, CONTENT_TYPE, HeaderValue, LOCATION};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use uuid::Uuid;

/// The item that is sold out; any other never is.
const GONE: &str = "gone";
const TIME: &str = "2026-11-23T10:00:00.000Z";

#[derive(Parser)]
struct Options {
    /// Address to serve on.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// File to log every order to before it is answered.
    #[arg(long)]
    log: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let log = options.log.as_deref().map(Log::start).transpose()?;
    let listener = TcpListener::bind(options.listen).await?;
    println!("listening on http://{}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let log = log.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| answer(request, log.as_deref()));
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service);
            // The load generator hangs up when it has measured enough.
            let _ = connection.await;
        });
    }
}

#[derive(Deserialize)]
struct Asked<'a> {
    #[serde(alias = "user_id")]
    buyer_id: &'a str,
    item_id: &'a str,
    #[serde(default = "one")]
    quantity: u32,
}

fn one() -> u32 {
    1
}

#[derive(Serialize)]
struct Order<'a> {
    order_id: Uuid,
    buyer_id: &'a str,
    lines: [Line<'a>; 1],
    status: &'static str,
    reason: Option<&'a str>,
    placed_at: &'a str,
    decided_at: Option<&'a str>,
    hold_expires_at: Option<&'a str>,
    payment_ref: Option<&'a str>,
}

#[derive(Serialize)]
struct Line<'a> {
    item_id: &'a str,
    quantity: u32,
}

#[derive(Serialize)]
struct Problem {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: String,
}

#[derive(Serialize)]
struct Refused {
    error: &'static str,
}

#[derive(Serialize)]
struct Bought<'a> {
    message: &'static str,
    order: Sent<'a>,
    order_id: Uuid,
}

#[derive(Serialize)]
struct Sent<'a> {
    user_id: &'a str,
    item_id: &'a str,
}

async fn answer(
    request: Request<Incoming>,
    log: Option<&Log>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let buy = request.uri().path() == "/buy";
    let body = request.into_body().collect().await?.to_bytes();
    let Ok(asked) = serde_json::from_slice::<Asked>(&body) else {
        return Ok(reply(StatusCode::BAD_REQUEST, "text/plain", Vec::new()));
    };
    let json = "application/json";
    let mut reply = if asked.item_id == GONE && buy {
        reply(StatusCode::CONFLICT, json, to_json(&Refused { error: "Sold out" }))
    } else if asked.item_id == GONE {
        let detail = format!("{} is sold out", asked.item_id);
        let problem =
            Problem { r#type: "/problems/sold-out", title: "Sold out", status: 409, detail };
        reply(StatusCode::CONFLICT, "application/problem+json", to_json(&problem))
    } else {
        let order_id = Uuid::now_v7();
        if let Some(log) = log {
            log.append(order_id, &asked).await;
        }
        if buy {
            let order = Sent { user_id: asked.buyer_id, item_id: asked.item_id };
            let bought = Bought { message: "Order received", order, order_id };
            reply(StatusCode::OK, json, to_json(&bought))
        } else {
            held(order_id, &asked)
        }
    };
    if buy {
        let headers = reply.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    }
    Ok(reply)
}

fn held(order_id: Uuid, asked: &Asked<'_>) -> Response<Full<Bytes>> {
    let order = Order {
        order_id,
        buyer_id: asked.buyer_id,
        lines: [Line { item_id: asked.item_id, quantity: asked.quantity }],
        status: "held",
        reason: None,
        placed_at: TIME,
        decided_at: Some(TIME),
        hold_expires_at: Some(TIME),
        payment_ref: None,
    };
    let mut reply = reply(StatusCode::CREATED, "application/json", to_json(&order));
    let location = HeaderValue::try_from(format!("/v1/orders/{order_id}"));
    let headers = reply.headers_mut();
    headers.insert(LOCATION, location.expect("a UUID is a header's value"));
    headers.insert("preference-applied", HeaderValue::from_static("wait=1"));
    reply
}

fn to_json(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(512);
    serde_json::to_writer(&mut bytes, value).expect("strings and numbers are JSON");
    bytes
}

fn reply(status: StatusCode, kind: &'static str, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert("x-request-id", HeaderValue::from_static("0123456789abcdef-012345"));
    response
}

/// A log that many wait for together: whatever came while the last sync ran
/// goes to the disk with the next, and all of it is woken at once.
struct Log {
    open: Mutex<Batch>,
    more: Condvar,
}

/// The bytes that wait to be written.
#[derive(Default)]
struct Batch {
    rows: Vec<u8>,
    waiting: Vec<Waker>,
    /// Batches taken away to be written, and those of them that are on disk.
    taken: u64,
    synced: u64,
}

impl Log {
    /// Orders of a batch that is written at once; a smaller one lingers.
    const FULL: usize = 128;
    /// Time that a batch lingers: about that of one sync.
    const LINGER: Duration = Duration::from_micros(200);
    /// Bytes written beforehand, so that a sync need not record a new file length.
    const READY_BYTES: usize = 512 << 20;

    fn start(path: &Path) -> io::Result<Arc<Self>> {
        let mut file = File::create(path)?;
        let zeros = vec![0; 1 << 20];
        for _ in 0..Self::READY_BYTES / zeros.len() {
            file.write_all(&zeros)?;
        }
        file.sync_all()?;
        let log = Arc::new(Self { open: Mutex::default(), more: Condvar::new() });
        let writer = Arc::clone(&log);
        std::thread::spawn(move || {
            // An order that can't be logged must never be answered.
            let Err(error) = writer.write(&file);
            eprintln!("the log can't be written: {error}");
            std::process::exit(1);
        });
        Ok(log)
    }

    fn lock(&self) -> MutexGuard<'_, Batch> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns once the order is on disk.
    async fn append(&self, id: Uuid, asked: &Asked<'_>) {
        let mut batch = None;
        poll_fn(|context| {
            let mut open = self.lock();
            match batch {
                Some(batch) if open.synced > batch => Poll::Ready(()),
                // The waker is kept from the first poll: one task, one connection.
                Some(_) => Poll::Pending,
                None => {
                    batch = Some(open.taken);
                    push_row(&mut open.rows, id, asked);
                    open.waiting.push(context.waker().clone());
                    if open.waiting.len() == 1 || open.waiting.len() == Self::FULL {
                        self.more.notify_one();
                    }
                    Poll::Pending
                }
            }
        })
        .await;
    }

    fn write(&self, file: &File) -> io::Result<Infallible> {
        let (mut rows, mut waiting) = (Vec::new(), Vec::new());
        let (mut end, mut busy) = (0, false);
        loop {
            let open = self.lock();
            let idle = |open: &mut Batch| open.waiting.is_empty();
            let mut open = self.more.wait_while(open, idle).unwrap_or_else(PoisonError::into_inner);
            // One order alone does not wait for company.
            if busy {
                let few = |open: &mut Batch| open.waiting.len() < Self::FULL;
                let lingered = self.more.wait_timeout_while(open, Self::LINGER, few);
                open = lingered.unwrap_or_else(PoisonError::into_inner).0;
            }
            std::mem::swap(&mut rows, &mut open.rows);
            std::mem::swap(&mut waiting, &mut open.waiting);
            open.taken += 1;
            drop(open);
            file.write_all_at(&rows, end)?;
            file.sync_data()?;
            end += rows.len() as u64;
            rows.clear();
            busy = waiting.len() > 1;
            self.lock().synced += 1;
            waiting.drain(..).for_each(Waker::wake);
        }
    }
}

/// As long as flux's own row of such an order.
fn push_row(rows: &mut Vec<u8>, id: Uuid, asked: &Asked<'_>) {
    let start = rows.len();
    rows.extend_from_slice(&[0; 4]);
    rows.extend_from_slice(id.as_bytes());
    for text in [asked.buyer_id, asked.item_id] {
        rows.extend_from_slice(&(text.len() as u16).to_le_bytes());
        rows.extend_from_slice(text.as_bytes());
    }
    rows.extend_from_slice(&asked.quantity.to_le_bytes());
    rows.extend_from_slice(&[0; 12]);
    let sum = crc32fast::hash(&rows[start + 4..]);
    rows[start..start + 4].copy_from_slice(&sum.to_le_bytes());
}
