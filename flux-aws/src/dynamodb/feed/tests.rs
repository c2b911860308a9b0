//! A stream of several shards, which the emulators don't have: shards that end, their
//! children, and what was cut off.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use aws_sdk_dynamodbstreams::Client;
use aws_sdk_dynamodbstreams::config::{BehaviorVersion, Config, Credentials, Region};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use flux_core::Order;
use serde_json::{Value, json};

use super::super::answered;
use super::*;
use crate::bill::Meter;

/// A shard: its parent, its orders by sequence number, and whether it has ended.
#[derive(Debug, Default, Clone)]
struct FakeShard {
    parent: Option<&'static str>,
    orders: Vec<u64>,
    has_ended: bool,
    /// Orders up to this one were cut off.
    trimmed: u64,
}

/// A stream in memory, and the calls made to it.
#[derive(Debug, Default)]
struct Fake {
    shards: BTreeMap<&'static str, FakeShard>,
    calls: Vec<String>,
    /// Iterators given before this call are too old.
    expired: usize,
}

type Shared = Arc<Mutex<Fake>>;

impl Fake {
    fn answer(&mut self, call: &str, asked: &Value) -> Result<Value, &'static str> {
        self.calls.push(call.to_owned());
        let text = |name: &str| asked[name].as_str().unwrap_or_default().to_owned();
        Ok(match call {
            "DescribeStream" => {
                let shard = |(id, shard): (&&str, &FakeShard)| json!({"ShardId": id, "ParentShardId": shard.parent});
                let shards: Vec<Value> = self.shards.iter().map(shard).collect();
                json!({"StreamDescription": {"StreamStatus": "ENABLED", "Shards": shards}})
            }
            "GetShardIterator" => {
                let id = text("ShardId");
                let shard = self.shards.get(&*id).ok_or("ResourceNotFoundException")?;
                let after: u64 = match &*text("ShardIteratorType") {
                    "TRIM_HORIZON" => shard.trimmed,
                    "LATEST" => shard.orders.last().copied().unwrap_or(0),
                    _ => text("SequenceNumber").parse().expect("a number"),
                };
                if after < shard.trimmed {
                    return Err("TrimmedDataAccessException");
                }
                json!({"ShardIterator": format!("{id} {after} {}", self.calls.len())})
            }
            "GetRecords" => {
                let iterator = text("ShardIterator");
                let [id, after, given] = iterator.split(' ').collect::<Vec<_>>()[..] else {
                    panic!("{iterator}")
                };
                if given.parse::<usize>().expect("a number") <= self.expired {
                    return Err("ExpiredIteratorException");
                }
                let after: u64 = after.parse().expect("a number");
                let shard = &self.shards[id];
                let behind = shard.orders.iter().copied().filter(|n| *n > after);
                let limit = asked["Limit"].as_u64().expect("a limit") as usize;
                let found: Vec<u64> = behind.take(limit).collect();
                let last = found.last().copied().unwrap_or(after);
                let is_at_end = shard.has_ended && shard.orders.last().is_none_or(|n| *n == last);
                let next = format!("{id} {last} {}", self.calls.len());
                json!({
                    "Records": found.iter().map(|n| record(*n)).collect::<Vec<_>>(),
                    "NextShardIterator": (!is_at_end).then_some(next),
                })
            }
            other => panic!("{other}"),
        })
    }
}

/// The record of an order's decision.
fn record(number: u64) -> Value {
    json!({"dynamodb": {
        "SequenceNumber": number.to_string(),
        "ApproximateCreationDateTime": 1_700_000_000 + number,
        "NewImage": {
            "pk": {"S": format!("order {}", Uuid::from_u64_pair(0, number))},
            "sk": {"S": "order"}, "buyer": {"S": "ann"}, "placed": {"N": "7"},
            "lines": {"L": [{"M": {"item": {"S": "a"}, "units": {"N": "1"}}}]},
            "status": {"S": "rejected"}, "reason": {"S": "sold_out"}, "decided": {"N": "8"},
        },
    }})
}

#[derive(Debug, Clone)]
struct Connector(Shared);

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let target = request.headers().get("x-amz-target").expect("a call");
        let call = target.rsplit('.').next().expect("a name").to_owned();
        let asked = request.body().bytes().expect("in memory");
        let asked: Value = serde_json::from_slice(asked).expect("JSON");
        let answer = self.0.lock().expect("no panic").answer(&call, &asked);
        let (status, body) = match answer {
            Ok(answer) => (200, answer),
            Err(error) => (400, json!({"__type": error, "message": "as told"})),
        };
        let status = status.try_into().expect("a status");
        HttpConnectorFuture::ready(Ok(HttpResponse::new(status, body.to_string().into())))
    }
}

fn feed(shards: &[(&'static str, FakeShard)]) -> (StreamFeed, Shared) {
    let fake = Shared::default();
    fake.lock().expect("no panic").shards = shards.iter().cloned().collect();
    let connector = SharedHttpConnector::new(Connector(Arc::clone(&fake)));
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .credentials_provider(Credentials::new("key", "secret", None, None, "a test"))
        .region(Region::new("nowhere"))
        .http_client(http_client_fn(move |_, _| connector.clone()));
    let streams = Client::from_conf(config.build());
    let table =
        Table { client: answered::client("{}"), name: "t".to_owned(), meter: Meter::default() };
    (StreamFeed::new(&streams, table, "arn:stream".to_owned(), "label".to_owned()), fake)
}

fn shard(parent: Option<&'static str>, orders: &[u64], has_ended: bool) -> FakeShard {
    FakeShard { parent, orders: orders.to_vec(), has_ended, trimmed: 0 }
}

fn numbers(page: &ChangePage) -> Vec<u64> {
    let number = |change: &Change| match &change.changed {
        Changed::Order(Order { id, .. }) => id.as_uuid().as_u64_pair().1,
        other => panic!("{other:?}"),
    };
    page.changes.iter().map(number).collect()
}

/// Reads on by pages, a few looks after the last change.
async fn read_all(feed: &StreamFeed, after: Option<Cursor>, limit: usize) -> Vec<u64> {
    let (mut all, mut after, mut quiet) = (Vec::new(), after, 0);
    while quiet < 6 {
        let page = feed.changes(after.as_ref(), limit, Duration::ZERO).await.expect("read");
        quiet = if page.changes.is_empty() { quiet + 1 } else { 0 };
        all.extend(numbers(&page));
        after = Some(page.next);
        // A list of shards serves for a while.
        tokio::time::advance(Duration::from_secs(2)).await;
    }
    all
}

#[tokio::test(start_paused = true)]
async fn children_are_read_when_their_parent_is_at_its_end() {
    let (feed, _) = feed(&[
        ("p", shard(None, &[1, 4], true)),
        ("q", shard(None, &[2, 3, 9], false)),
        ("p1", shard(Some("p"), &[5, 7], true)),
        ("p2", shard(Some("p"), &[6], false)),
        ("p11", shard(Some("p1"), &[8], false)),
    ]);
    for limit in [1, 2, 100] {
        let all = read_all(&feed, None, limit).await;
        let mut sorted = all.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, [1, 2, 3, 4, 5, 6, 7, 8, 9], "each once: {all:?}");
        let at = |number| all.iter().position(|n| *n == number);
        for in_order in [[1, 4], [4, 5], [4, 6], [5, 7], [7, 8], [2, 3], [3, 9]] {
            assert!(at(in_order[0]) < at(in_order[1]), "{all:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn every_cursor_goes_on_behind_its_change() {
    let (feed, _) = feed(&[
        ("p", shard(None, &[1, 4], true)),
        ("q", shard(None, &[2, 3], false)),
        ("p1", shard(Some("p"), &[5], false)),
    ]);
    let page = feed.changes(None, 100, Duration::ZERO).await.expect("read");
    let told = numbers(&page);
    assert_eq!(told, [1, 2, 3, 4], "by their times; children come with the next look");
    for (at, change) in page.changes.iter().enumerate() {
        let mut behind = read_all(&feed, Some(change.cursor.clone()), 2).await;
        behind.sort_unstable();
        let mut should_be = told[at + 1..].to_vec();
        should_be.push(5);
        assert_eq!(behind, should_be);
    }
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_ends_later_is_left_for_children_that_are_listed_later_still() {
    let (feed, fake) = feed(&[("p", shard(None, &[1], false))]);
    let page = feed.changes(None, 9, Duration::ZERO).await.expect("read");
    assert_eq!(numbers(&page), [1]);
    fake.lock().expect("no panic").shards.insert("p", shard(None, &[1, 2], true));
    let page = feed.changes(Some(&page.next), 9, Duration::ZERO).await.expect("read");
    assert_eq!(numbers(&page), [2]);
    let page = feed.changes(Some(&page.next), 9, Duration::ZERO).await.expect("read");
    assert_eq!(page.changes, []);
    fake.lock().expect("no panic").shards.insert("c", shard(Some("p"), &[3], false));
    assert_eq!(read_all(&feed, Some(page.next), 9).await, [3]);
}

#[tokio::test(start_paused = true)]
async fn behind_the_newest_is_what_comes_after_in_every_shard() {
    let (feed, fake) = feed(&[
        ("p", shard(None, &[1], true)),
        ("p1", shard(Some("p"), &[2], false)),
        ("q", shard(None, &[], false)),
    ]);
    let newest = feed.newest().await.expect("newest");
    for (id, orders) in [("p1", [2, 3].as_slice()), ("q", &[4])] {
        let parent = (id == "p1").then_some("p");
        fake.lock().expect("no panic").shards.insert(id, shard(parent, orders, false));
    }
    assert_eq!(read_all(&feed, Some(newest), 1).await, [3, 4]);
}

#[tokio::test(start_paused = true)]
async fn what_was_cut_off_is_gone_and_an_old_iterator_is_asked_for_anew() {
    let (feed, fake) = feed(&[("p", shard(None, &[1, 2, 3], false))]);
    let page = feed.changes(None, 1, Duration::ZERO).await.expect("read");
    assert_eq!(numbers(&page), [1]);
    let all = feed.changes(None, 9, Duration::ZERO).await.expect("read");
    {
        let mut fake = fake.lock().expect("no panic");
        fake.expired = fake.calls.len();
        fake.shards.insert("p", shard(None, &[1, 2, 3, 4], false));
    }
    let more = feed.changes(Some(&all.next), 9, Duration::ZERO).await.expect("read");
    assert_eq!(numbers(&more), [4]);
    let trimmed = FakeShard { trimmed: 2, ..shard(None, &[1, 2, 3, 4], false) };
    fake.lock().expect("no panic").shards.insert("p", trimmed);
    let gone = feed.changes(Some(&page.next), 9, Duration::ZERO).await;
    assert!(matches!(gone, Err(SeamError::ChangesGone { .. })), "{gone:?}");
    fake.lock().expect("no panic").shards.remove("p");
    let gone = feed.changes(Some(&page.next), 9, Duration::ZERO).await;
    assert!(matches!(gone, Err(SeamError::ChangesGone { .. })), "{gone:?}");
}

/// Another process: nothing but the cursor is known of the reader.
fn elsewhere(feed: &StreamFeed) {
    feed.iterators().clear();
}

/// A feed whose newest was asked for in the second of record 200.
fn newest_at_200(feed: &StreamFeed) -> Cursor {
    let since = (1_700_000_000 + 200) * 1_000;
    let newest = Position::Newest { since, nonce: 7 };
    let shards = BTreeMap::from([("p".to_owned(), newest)]);
    Frontier { stream: feed.stream.label.clone(), shards }.cursor()
}

#[tokio::test(start_paused = true)]
async fn the_newest_of_another_process_skips_what_is_older_page_after_page() {
    let old: Vec<u64> = (1..=201).collect();
    for forgets in [false, true] {
        let (feed, fake) = feed(&[("p", shard(None, &old, false))]);
        let mut after = newest_at_200(&feed);
        let mut told = Vec::new();
        for _ in 0..9 {
            if forgets {
                elsewhere(&feed);
            }
            let page = feed.changes(Some(&after), 1, Duration::ZERO).await.expect("read");
            told.extend(numbers(&page));
            after = page.next;
        }
        assert_eq!(told, [200, 201], "forgets: {forgets}");
        // Then it goes on like any other.
        let more = shard(None, &(1..=203).collect::<Vec<_>>(), false);
        fake.lock().expect("no panic").shards.insert("p", more);
        assert_eq!(read_all(&feed, Some(after), 9).await, [202, 203]);
    }
}

#[tokio::test(start_paused = true)]
async fn the_newest_of_another_process_skips_what_is_older_in_children_too() {
    let (feed, _) = feed(&[
        ("p", shard(None, &[1, 2], true)),
        ("p1", shard(Some("p"), &[3], true)),
        ("p2", shard(Some("p"), &[4, 201], false)),
        ("p11", shard(Some("p1"), &[5, 202], false)),
    ]);
    let newest = newest_at_200(&feed);
    assert_eq!(read_all(&feed, Some(newest), 9).await, [201, 202]);
}

#[tokio::test(start_paused = true)]
async fn the_newest_goes_by_the_time_once_its_iterator_is_too_old() {
    let (feed, fake) = feed(&[("p", shard(None, &[1, 2], false))]);
    let newest = feed.newest().await.expect("newest");
    {
        // All of the fake's records are older than what was newest.
        let mut fake = fake.lock().expect("no panic");
        fake.expired = fake.calls.len();
    }
    assert_eq!(read_all(&feed, Some(newest), 9).await, [0_u64; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_child_that_is_listed_after_its_sibling_is_read_once() {
    let (feed, fake) = feed(&[
        ("p", shard(None, &[1], true)),
        ("p1", shard(Some("p"), &[2], true)),
        ("p11", shard(Some("p1"), &[4], false)),
    ]);
    let page = feed.changes(None, 9, Duration::ZERO).await.expect("read");
    assert_eq!(numbers(&page), [1]);
    let mut after = page.next;
    for listed in [("p2", shard(Some("p"), &[3], true)), ("p21", shard(Some("p2"), &[5], false))] {
        fake.lock().expect("no panic").shards.insert(listed.0, listed.1);
        let mut told = Vec::new();
        for _ in 0..6 {
            let page = feed.changes(Some(&after), 9, Duration::ZERO).await.expect("read");
            told.extend(numbers(&page));
            after = page.next;
            tokio::time::advance(LATE_WITHIN).await;
        }
        let expected: &[u64] = if listed.0 == "p2" { &[2, 4, 3] } else { &[5] };
        let mut sorted = told.clone();
        sorted.sort_unstable();
        let mut should_be = expected.to_vec();
        should_be.sort_unstable();
        assert_eq!(sorted, should_be, "each once: {told:?}");
    }
}
