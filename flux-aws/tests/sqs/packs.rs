//! Packing as those see it who send and receive, and its savings.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use crate::{Emulator, Kind, created, fresh, name, order, receipts, receive};
use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::QueueAttributeName;
use flux_aws::bill::Meter;
use flux_aws::sqs::SqsQueue;
use flux_core::protocol::Message;
use flux_core::seams::{Delivery, OrderQueue, SeamError};
use flux_core::{Line, Lines};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

const VISIBILITY: Duration = Duration::from_secs(30);

/// An open queue with its client, URL and meter, for a look behind it.
struct Open {
    queue: Arc<SqsQueue>,
    client: Client,
    name: String,
    url: String,
    meter: Meter,
}

impl Open {
    async fn new(emulator: Emulator, kind: Kind) -> Self {
        let (client, name) = created(emulator, kind, VISIBILITY).await;
        let url = url(&client, &name).await;
        let meter = Meter::default();
        let queue = SqsQueue::open(client.clone(), &name, &meter).await.expect("the queue opens");
        Self { queue: Arc::new(queue), client, name, url, meter }
    }

    /// SQS messages that wait and that are in flight, as SQS counts them.
    async fn counts(&self) -> (u64, u64) {
        let request = self.client.get_queue_attributes().queue_url(&self.url);
        let found = request.attribute_names(QueueAttributeName::All).send().await.expect("known");
        let found: HashMap<_, _> = found.attributes.expect("attributes");
        let count = |name| found[&name].parse().expect("a number");
        let waiting = count(QueueAttributeName::ApproximateNumberOfMessages);
        (waiting, count(QueueAttributeName::ApproximateNumberOfMessagesNotVisible))
    }

    async fn put(&self, body: impl Into<String>) {
        let request = self.client.send_message().queue_url(&self.url).message_body(body);
        request.send().await.expect("sent");
    }
}

async fn url(client: &Client, name: &str) -> String {
    let answer = client.get_queue_url().queue_name(name).send().await;
    answer.expect("it is there").queue_url.expect("a URL")
}

fn messages(deliveries: &[Delivery]) -> Vec<&Message> {
    deliveries.iter().map(|delivery| &delivery.message).collect()
}

/// Sends so many by 512 tasks at once, receives and acks them all, and returns the SQS
/// requests billed for it.
async fn billed(emulator: Emulator, count: usize) -> u64 {
    let open = Open::new(emulator, Kind::Standard).await;
    let before = open.meter.bill();
    let mut senders = JoinSet::new();
    for task in 0..512 {
        let queue = Arc::clone(&open.queue);
        senders.spawn(async move {
            let item = format!("item-{}", task % 20);
            for _ in (task..count).step_by(512) {
                queue.send(&[order(&item)]).await.expect("sent");
            }
        });
    }
    senders.join_all().await;
    let mut seen = HashSet::new();
    while seen.len() < count {
        let wait = Duration::from_secs(20);
        let deliveries = open.queue.receive(1_000, wait).await.expect("a receive");
        seen.extend(deliveries.iter().map(|delivery| delivery.message.order_id()));
        open.queue.ack(&receipts(&deliveries)).await.expect("settled");
    }
    let bill = open.meter.bill() - &before;
    println!("{}", bill.for_orders(count as u64));
    bill.sqs_requests
}

#[tokio::test]
async fn an_order_costs_a_twentieth_of_a_request_at_most() {
    let requests = billed(Emulator::Fauxqs, 10_000).await;
    println!("{} billed requests for each of 10,000 orders", requests as f64 / 10_000.0);
    assert!(requests <= 500, "{requests}");
}

#[tokio::test]
async fn an_order_costs_as_little_on_another_emulator() {
    let requests = billed(Emulator::Ministack, 2_000).await;
    assert!(requests <= 100, "{requests}");
}

#[tokio::test]
async fn an_idle_worker_costs_one_call_in_twenty_seconds() {
    let open = Open::new(Emulator::Fauxqs, Kind::Standard).await;
    let (before, since) = (open.meter.bill(), Instant::now());
    let came = open.queue.receive(100, Duration::from_secs(20)).await.expect("a receive");
    assert!(came.is_empty());
    assert!(since.elapsed() >= Duration::from_millis(19_500), "{:?}", since.elapsed());
    let used = open.meter.bill() - &before;
    assert_eq!(used.calls.values().sum::<u64>(), 1, "{used:?}");
}

#[tokio::test]
async fn many_who_wait_share_one_poll() {
    let open = Open::new(Emulator::Fauxqs, Kind::Standard).await;
    let before = open.meter.bill();
    let waiting: JoinSet<_> = (0..20)
        .map(|_| {
            let queue = Arc::clone(&open.queue);
            async move { queue.receive(1, Duration::from_secs(3)).await.expect("a receive") }
        })
        .collect();
    let sent: Vec<Message> = (0..20).map(|_| order("a")).collect();
    open.queue.send(&sent).await.expect("sent");
    let came: Vec<Delivery> = waiting.join_all().await.into_iter().flatten().collect();
    assert_eq!(came.len(), 20);
    let used = open.meter.bill() - &before;
    assert_eq!(used.calls.values().sum::<u64>(), 2, "a poll and a batch: {used:?}");
}

#[tokio::test]
async fn the_largest_order_makes_the_trip() {
    for emulator in [Emulator::Fauxqs, Emulator::Ministack] {
        let queue = fresh(emulator, Kind::Standard, VISIBILITY).await;
        let line = |line: u32| {
            let seats = (0..100).map(|seat| format!("{line:04}-{seat:0>123}"));
            Line::seats(format!("hall-{line}"), seats).expect("a line")
        };
        let Message::Place(mut large) = order("a") else { unreachable!("it is an order") };
        large.lines = Lines::new((0..10).map(line).collect()).expect("lines");
        let sent = [order("b"), Message::Place(large), order("c")];
        queue.send(&sent).await.expect("sent");
        let came = receive(&*queue, 3).await;
        assert!(sent.iter().all(|message| messages(&came).contains(&message)), "{emulator:?}");
        queue.bury(&[(came[0].receipt.clone(), "x".repeat(5_000))]).await.expect("given up");
        queue.ack(&receipts(&came[1..])).await.expect("settled");
    }
}

#[tokio::test]
async fn a_pack_partly_handed_back_is_sent_again_without_the_rest() {
    for kind in [Kind::Standard, Kind::Fifo] {
        let open = Open::new(Emulator::Fauxqs, kind).await;
        let sent = [order("a"), order("a"), order("a")];
        open.queue.send(&sent).await.expect("sent");
        let came = receive(&*open.queue, 3).await;
        let given = receipts(&came);
        open.queue.ack(&given[..1]).await.expect("settled");
        assert_eq!(open.counts().await, (0, 1), "{kind:?}: the pack is still out");
        let since = Instant::now();
        open.queue.retry(&given[1..], Duration::from_secs(2)).await.expect("handed back");
        let again = receive(&*open.queue, 2).await;
        assert_eq!(messages(&again), messages(&came[1..]), "{kind:?}");
        assert!(again.iter().all(|delivery| delivery.attempt == 2), "{kind:?}: {again:?}");
        let late = since.elapsed() >= Duration::from_millis(1_500);
        assert_eq!(late, kind == Kind::Standard, "FIFO queues delay no message");
        open.queue.ack(&receipts(&again)).await.expect("settled");
        assert_eq!(open.counts().await, (0, 0), "{kind:?}");
    }
}

#[tokio::test]
async fn a_pack_that_comes_the_third_time_is_taken_apart() {
    for kind in [Kind::Standard, Kind::Fifo] {
        let open = Open::new(Emulator::Fauxqs, kind).await;
        // Each on its own item, lest FIFO keep them back; and two on one.
        let mut sent: Vec<Message> = (0..4).map(|n| order(&format!("item-{n}"))).collect();
        sent.push(order("item-0"));
        open.queue.send(&sent).await.expect("sent");
        for attempt in 1..=2 {
            let came = receive(&*open.queue, 5).await;
            assert!(came.iter().all(|delivery| delivery.attempt == attempt), "{came:?}");
            open.queue.retry(&receipts(&came), Duration::ZERO).await.expect("handed back");
        }
        let came = receive(&*open.queue, 4).await;
        assert!(came.iter().all(|delivery| delivery.attempt == 3), "{kind:?}: {came:?}");
        let (waiting, out) = open.counts().await;
        assert_eq!(waiting + out, 5, "{kind:?}: each is an SQS message now");
        open.queue.ack(&receipts(&came)).await.expect("settled");
        let last = receive(&*open.queue, 5 - came.len()).await;
        open.queue.ack(&receipts(&last)).await.expect("settled");
        assert_eq!(open.counts().await, (0, 0), "{kind:?}");
    }
}

#[tokio::test]
async fn what_waited_too_long_here_is_asked_for_anew() {
    let visibility = Duration::from_secs(2);
    let queue = fresh(Emulator::Fauxqs, Kind::Standard, visibility).await;
    queue.send(&[order("a"), order("b")]).await.expect("sent");
    let first = receive(&*queue, 1).await;
    // More than half of its time: the rest is renewed as it is handed out.
    sleep(Duration::from_millis(1_300)).await;
    let second = receive(&*queue, 1).await;
    sleep(Duration::from_millis(1_300)).await;
    queue.ack(&receipts(&second)).await.expect("settled in time");
    queue.ack(&receipts(&first)).await.expect("settled in time");
    let more = queue.receive(10, Duration::from_secs(3)).await.expect("a receive");
    assert_eq!(more, []);
}

#[tokio::test]
async fn one_workers_messages_on_an_item_come_in_order_from_fifo() {
    for emulator in [Emulator::Fauxqs, Emulator::Ministack] {
        let queue = fresh(emulator, Kind::Fifo, VISIBILITY).await;
        let sent: Vec<Message> =
            (0..60).map(|n| order(if n % 3 == 0 { "x" } else { "y" })).collect();
        for some in sent.chunks(7) {
            queue.send(some).await.expect("sent");
        }
        let mut came = Vec::new();
        while came.len() < sent.len() {
            let some = receive(&*queue, 1).await;
            queue.ack(&receipts(&some)).await.expect("settled");
            came.extend(some.into_iter().map(|delivery| delivery.message));
        }
        for item in ["x", "y"] {
            let on = |messages: &[Message]| -> Vec<Message> {
                let is_on = |message: &&Message| {
                    matches!(message, Message::Place(order)
                    if order.lines[0].item.as_str() == item)
                };
                messages.iter().filter(is_on).cloned().collect()
            };
            assert_eq!(on(&came), on(&sent), "{emulator:?}");
        }
    }
}

#[tokio::test]
async fn a_full_queue_refuses_until_it_is_worked_off() {
    let (client, name) = created(Emulator::Fauxqs, Kind::Standard, VISIBILITY).await;
    let queue = SqsQueue::builder(client, &name, &Meter::default()).messages_max(300).open().await;
    let queue = queue.expect("the queue opens");
    let some: Vec<Message> = (0..100).map(|_| order("a")).collect();
    let (end, mut sent) = (Instant::now() + Duration::from_secs(10), 0);
    loop {
        assert!(Instant::now() < end, "{sent} messages, and never refused");
        match queue.send(&some).await {
            Ok(()) => sent += 100,
            Err(SeamError::Overloaded { retry_after, .. }) => {
                assert!(!retry_after.is_zero());
                break;
            }
            Err(error) => panic!("{error}"),
        }
        sleep(Duration::from_millis(200)).await;
    }
    let came = receive(&queue, sent).await;
    // Long enough for the depth to be read once more.
    let since = Instant::now();
    while since.elapsed() < Duration::from_millis(1_300) {
        assert!(queue.send(&some).await.is_err(), "what is worked on counts");
        sleep(Duration::from_millis(100)).await;
    }
    queue.ack(&receipts(&came)).await.expect("settled");
    while queue.send(&some).await.is_err() {
        assert!(Instant::now() < end, "nothing can be sent though nothing waits");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn poison_is_put_aside_with_its_reason_and_holds_nobody_up() {
    let open = Open::new(Emulator::Fauxqs, Kind::Standard).await;
    let good = serde_json::to_string(&order("good")).expect("JSON");
    let poison = ["hello".to_owned(), format!(r#"{{"v":9,"m":[[0,{good}]]}}"#)];
    for body in &poison {
        open.put(body).await;
    }
    open.put(format!(r#"{{"v":1,"m":[[4,{good}],[0,{{"Dance":1}}]]}}"#)).await;
    let sent = order("after");
    open.queue.send(std::slice::from_ref(&sent)).await.expect("sent");
    let came = receive(&*open.queue, 2).await;
    let attempts = |message: &Message| {
        came.iter().find(|delivery| delivery.message == *message).map(|delivery| delivery.attempt)
    };
    assert_eq!(attempts(&sent), Some(1));
    assert_eq!(attempts(&serde_json::from_str(&good).expect("a message")), Some(5));
    let reason = "does not go down".to_owned();
    open.queue.bury(&[(came[0].receipt.clone(), reason.clone())]).await.expect("given up");
    open.queue.ack(&receipts(&came[1..])).await.expect("settled");
    assert_eq!(open.counts().await, (0, 0));

    let letters = open.queue.dead_letters(10).await.expect("a look");
    assert_eq!(letters.len(), 1, "what can't be read is not listed");
    assert_eq!((&letters[0].message, &letters[0].reason), (&came[0].message, &reason));
    assert_eq!(open.queue.depth().await.expect("a depth").dead, 4);
    assert_eq!(open.queue.redrive(10).await.expect("redriven"), 1);
    let back = receive(&*open.queue, 1).await;
    assert_eq!((&back[0].message, back[0].attempt), (&came[0].message, 1));
    open.queue.ack(&receipts(&back)).await.expect("settled");

    // The poison is still there as it was, with its reason.
    let dead = url(&open.client, &format!("{}-dead", open.name)).await;
    let request = open.client.receive_message().queue_url(dead).max_number_of_messages(10);
    let left = request.message_attribute_names("All").send().await.expect("a receive");
    let reasons: HashMap<&str, &str> = left
        .messages()
        .iter()
        .map(|message| {
            let attributes = message.message_attributes().expect("a reason");
            let reason = attributes["reason"].string_value().expect("a string");
            (message.body().expect("a body"), reason)
        })
        .collect();
    assert_eq!(reasons.len(), 3);
    assert!(reasons[poison[0].as_str()].contains("not a pack"), "{reasons:?}");
    assert!(reasons[poison[1].as_str()].contains("format 9"), "{reasons:?}");
    assert!(reasons[r#"{"v":1,"m":[[0,{"Dance":1}]]}"#].contains("Dance"), "{reasons:?}");
}

#[tokio::test]
async fn what_sqs_gave_up_by_itself_is_a_dead_letter_too() {
    let (client, name) = (Emulator::Fauxqs.client().await, name(Kind::Standard));
    let dead = client.create_queue().queue_name(format!("{name}-other")).send().await;
    let dead = dead.expect("a queue").queue_url.expect("a URL");
    let request = client.get_queue_attributes().queue_url(dead);
    let found = request.attribute_names(QueueAttributeName::QueueArn).send().await.expect("known");
    let arn = &found.attributes.expect("attributes")[&QueueAttributeName::QueueArn];
    let policy = format!(r#"{{"deadLetterTargetArn":"{arn}","maxReceiveCount":1}}"#);
    let request = client.create_queue().queue_name(&name);
    let request = request.attributes(QueueAttributeName::RedrivePolicy, policy);
    let request = request.attributes(QueueAttributeName::VisibilityTimeout, "1");
    request.send().await.expect("a queue");

    let queue = SqsQueue::open(client, &name, &Meter::default()).await.expect("it opens");
    let sent = [order("a"), order("b")];
    queue.send(&sent).await.expect("sent");
    receive(&queue, 2).await;
    let more = queue.receive(2, Duration::from_secs(3)).await.expect("a receive");
    assert_eq!(more, [], "it came once, and once is all");
    let letters = queue.dead_letters(10).await.expect("a look");
    assert_eq!(letters.len(), 2);
    assert!(letters[0].reason.contains("SQS gave it up"), "{letters:?}");
    assert_eq!(queue.redrive(10).await.expect("redriven"), 2);
    let came = receive(&queue, 2).await;
    assert!(sent.iter().all(|message| messages(&came).contains(&message)));
}
