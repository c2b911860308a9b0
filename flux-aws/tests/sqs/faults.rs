//! Calls that go wrong, in some of their entries or in all.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use crate::meddler::{self, Act, Fault};
use crate::{Emulator, Kind, created, name, order, receipts, receive};
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use flux_aws::bill::Meter;
use flux_aws::sqs::SqsQueue;
use flux_core::protocol::Message;
use flux_core::seams::{OrderQueue, SeamError};
use futures_util::future::join_all;
use serde_json::Value;

const VISIBILITY: Duration = Duration::from_secs(30);

/// A queue whose calls are meddled with, and its meter.
async fn meddled(
    kind: Kind,
    rule: impl Fn(&str, &Value) -> Act + Send + Sync + 'static,
) -> (SqsQueue, Meter) {
    let (_, name) = created(Emulator::Fauxqs, kind, VISIBILITY).await;
    let (client, meter) = (meddler::client(Emulator::Fauxqs, rule).await, Meter::default());
    let queue = SqsQueue::open(client, &name, &meter).await.expect("the queue opens");
    (queue, meter)
}

fn calls(meter: &Meter, operation: &str) -> u64 {
    let key = ("sqs".to_owned(), operation.to_owned());
    meter.bill().calls.get(&key).copied().unwrap_or_default()
}

/// The entries of a batch whose body speaks of the item.
fn entries_on(asked: &Value, item: &str, fault: Fault) -> Vec<(usize, Fault)> {
    let entries = asked["Entries"].as_array().expect("a batch");
    let item = format!("\"item\":\"{item}\"");
    let is_on = |entry: &Value| entry["MessageBody"].as_str().is_some_and(|b| b.contains(&item));
    let failing = entries.iter().enumerate().filter(|(_, entry)| is_on(entry));
    failing.map(|(index, _)| (index, fault)).collect()
}

async fn send_each(queue: &SqsQueue, messages: &[Message]) -> Vec<Result<(), SeamError>> {
    join_all(messages.iter().map(|message| queue.send(std::slice::from_ref(message)))).await
}

#[tokio::test]
async fn of_a_batch_with_mixed_results_each_caller_hears_its_own() {
    let (queue, meter) = meddled(Kind::Fifo, |operation, asked| match operation {
        "SendMessageBatch" => {
            let mut faults = entries_on(asked, "away", Fault::Service);
            faults.extend(entries_on(asked, "wrong", Fault::Sender));
            faults.extend(entries_on(asked, "unheard-of", Fault::Silence));
            if faults.is_empty() { Act::Pass } else { Act::FailEntries(faults) }
        }
        _ => Act::Pass,
    })
    .await;
    let sent =
        [order("good"), order("away"), order("wrong"), order("good-too"), order("unheard-of")];
    let results = send_each(&queue, &sent).await;
    assert!(matches!(results[4], Err(SeamError::Unknown { .. })), "{results:?}");
    assert!(results[0].is_ok() && results[3].is_ok(), "{results:?}");
    assert!(matches!(results[1], Err(SeamError::Unavailable { .. })), "{results:?}");
    assert!(matches!(results[2], Err(SeamError::Broken { .. })), "{results:?}");
    assert_eq!(calls(&meter, "SendMessageBatch"), 3, "one call, and two tries of one entry");
    let came = receive(&queue, 2).await;
    assert!(came.iter().all(|delivery| [&sent[0], &sent[3]].contains(&&delivery.message)));
    assert!(queue.receive(10, Duration::from_secs(1)).await.expect("a receive").is_empty());
    let found = |index: usize| queue.find(sent[index].order_id());
    assert!(found(0).await.expect("a look").is_some());
    assert!(found(1).await.expect("a look").is_none(), "what was not sent is not there");
}

#[tokio::test]
async fn an_entry_that_fails_once_is_sent_again() {
    let failed = AtomicBool::new(false);
    let (queue, meter) = meddled(Kind::Fifo, move |operation, asked| {
        if operation == "SendMessageBatch" && !failed.swap(true, SeqCst) {
            return Act::FailEntries(entries_on(asked, "away", Fault::Service));
        }
        Act::Pass
    })
    .await;
    let results = send_each(&queue, &[order("good"), order("away")]).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    assert_eq!(calls(&meter, "SendMessageBatch"), 2);
    receive(&queue, 2).await;
}

#[tokio::test]
async fn what_could_not_be_deleted_is_deleted_later() {
    let deletions = Arc::new(AtomicU32::new(0));
    let counting = Arc::clone(&deletions);
    let (queue, _) = meddled(Kind::Fifo, move |operation, _| match operation {
        // The first call and both of its retries.
        "DeleteMessageBatch" if counting.fetch_add(1, SeqCst) < 3 => {
            Act::FailEntries(vec![(0, Fault::Service)])
        }
        _ => Act::Pass,
    })
    .await;
    let items: Vec<Message> = (0..5).map(|n| order(&format!("item-{n}"))).collect();
    queue.send(&items).await.expect("sent");
    let receipts = receipts(&receive(&queue, 5).await);
    let error = queue.ack(&receipts).await.expect_err("an entry failed three times");
    assert!(matches!(error, SeamError::Unavailable { .. }), "{error:?}");
    assert_eq!(deletions.load(SeqCst), 3);
    queue.ack(&receipts).await.expect("the same receipts again");
    assert_eq!(deletions.load(SeqCst), 4);
    queue.ack(&receipts).await.expect("nothing is left to do");
    assert_eq!(deletions.load(SeqCst), 4);
    let depth = queue.depth().await.expect("a depth");
    assert_eq!((depth.waiting, depth.in_flight), (0, 0));
}

/// A queue that hands out again after two seconds, to which no order for `a` can be sent
/// while told so; and a client that is not meddled with, and the queue's name.
async fn unsendable() -> (SqsQueue, Arc<AtomicBool>, aws_sdk_sqs::Client, String) {
    let (client, name) = created(Emulator::Fauxqs, Kind::Standard, Duration::from_secs(2)).await;
    let fails = Arc::new(AtomicBool::new(false));
    let now = Arc::clone(&fails);
    let meddled = meddler::client(Emulator::Fauxqs, move |operation, asked| {
        let is_sent =
            operation == "SendMessageBatch" && !entries_on(asked, "a", Fault::Service).is_empty();
        match is_sent && now.load(SeqCst) {
            true => Act::Refuse("RequestThrottled"),
            false => Act::Pass,
        }
    });
    let queue = SqsQueue::open(meddled.await, &name, &Meter::default()).await;
    (queue.expect("the queue opens"), fails, client, name)
}

#[tokio::test]
async fn a_pack_whose_rest_can_not_be_sent_again_is_not_deleted() {
    let (queue, fails, ..) = unsendable().await;
    let sent = [order("a"), order("a"), order("a")];
    queue.send(&sent).await.expect("sent");
    let came = receive(&queue, 3).await;
    let given = receipts(&came);
    queue.ack(&given[..1]).await.expect("settled");
    fails.store(true, SeqCst);
    let error = queue.retry(&given[1..], Duration::ZERO).await.expect_err("it can't be sent");
    assert!(error.can_retry(), "{error:?}");
    fails.store(false, SeqCst);
    let again = receive(&queue, 3).await;
    for rest in &came[1..] {
        assert!(again.iter().any(|delivery| delivery.message == rest.message), "{again:?}");
    }
}

#[tokio::test]
async fn a_pack_that_can_not_be_taken_apart_is_not_deleted() {
    let (queue, fails, ..) = unsendable().await;
    let sent = [order("a"), order("a"), order("a")];
    queue.send(&sent).await.expect("sent");
    for _ in 1..=2 {
        let came = receive(&queue, 3).await;
        queue.retry(&receipts(&came), Duration::ZERO).await.expect("handed back");
    }
    fails.store(true, SeqCst);
    assert_eq!(queue.receive(3, Duration::from_secs(1)).await.expect("a receive"), []);
    fails.store(false, SeqCst);
    let came = receive(&queue, 3).await;
    assert!(sent.iter().all(|sent| came.iter().any(|came| came.message == *sent)), "{came:?}");
}

#[tokio::test]
async fn a_pack_with_poison_whose_rest_can_not_be_sent_again_is_not_deleted() {
    let (queue, fails, client, name) = unsendable().await;
    let url = client.get_queue_url().queue_name(&name).send().await.expect("it is there");
    let good = order("a");
    let json = serde_json::to_string(&good).expect("JSON");
    let body = format!(r#"{{"v":1,"m":[[0,{json}],[0,{{"Dance":1}}]]}}"#);
    fails.store(true, SeqCst);
    let put = client.send_message().set_queue_url(url.queue_url).message_body(body);
    put.send().await.expect("sent");
    assert_eq!(queue.receive(3, Duration::from_secs(1)).await.expect("a receive"), []);
    fails.store(false, SeqCst);
    let came = receive(&queue, 1).await;
    assert_eq!(came[0].message, good);
}

#[tokio::test]
async fn throttling_has_no_effect_and_says_so() {
    let is_throttled = Arc::new(AtomicBool::new(false));
    let now = Arc::clone(&is_throttled);
    let (queue, _) = meddled(Kind::Standard, move |_, _| match now.load(SeqCst) {
        true => Act::Refuse("RequestThrottled"),
        false => Act::Pass,
    })
    .await;
    let one = [order("a")];
    queue.send(&one).await.expect("sent");
    let given = receipts(&receive(&queue, 1).await);
    is_throttled.store(true, SeqCst);
    let results = [
        queue.send(&one).await,
        queue.receive(1, Duration::ZERO).await.map(drop),
        queue.extend(&given).await,
        queue.bury(&[(given[0].clone(), "why".into())]).await,
        queue.ack(&given).await,
        queue.depth().await.map(drop),
    ];
    for result in results {
        assert!(matches!(result, Err(SeamError::Unavailable { .. })), "{result:?}");
    }
    is_throttled.store(false, SeqCst);
    queue.ack(&given).await.expect("settled at last");
}

#[tokio::test]
async fn a_lost_reply_leaves_it_open() {
    let loses = Arc::new(AtomicBool::new(true));
    let now = Arc::clone(&loses);
    let (queue, _) = meddled(Kind::Standard, move |operation, _| {
        let loses = now.load(SeqCst) && operation.ends_with("MessageBatch");
        if loses { Act::Lose } else { Act::Pass }
    })
    .await;
    let one = [order("a")];
    let error = queue.send(&one).await.expect_err("the reply is lost");
    assert!(error.may_have_applied() && error.can_retry(), "{error:?}");
    assert_eq!(queue.find(one[0].order_id()).await.expect("a look"), None);
    let given = receipts(&receive(&queue, 1).await);
    let error = queue.ack(&given).await.expect_err("the reply is lost");
    assert!(error.may_have_applied() && error.can_retry(), "{error:?}");
    loses.store(false, SeqCst);
    queue.ack(&given).await.expect("what is deleted can be deleted");
    assert!(queue.receive(1, Duration::from_secs(1)).await.expect("a receive").is_empty());
}

#[tokio::test]
async fn a_poll_that_fails_is_told_to_all_who_wait_for_it() {
    let (queue, meter) = meddled(Kind::Standard, |operation, _| match operation {
        "ReceiveMessage" => Act::Refuse("RequestThrottled"),
        _ => Act::Pass,
    })
    .await;
    let wait = Duration::from_secs(1);
    let results = join_all((0..5).map(|_| queue.receive(10, wait))).await;
    assert!(results.iter().all(Result::is_err), "{results:?}");
    assert_eq!(calls(&meter, "ReceiveMessage"), 1);
}

#[tokio::test]
async fn a_missing_queue_is_named_with_what_to_do() {
    let (client, missing) = (Emulator::Fauxqs.client().await, name(Kind::Standard));
    let error = SqsQueue::open(client, &missing, &Meter::default()).await.expect_err("no queue");
    let said = error.to_string();
    assert!(!error.can_retry() && said.contains(&missing) && said.contains("--create"), "{said}");

    let (client, name) = created(Emulator::Fauxqs, Kind::Standard, VISIBILITY).await;
    let url = client.get_queue_url().queue_name(&name).send().await.expect("it is there");
    let url = url.queue_url.expect("a URL");
    let queue = SqsQueue::open(client.clone(), &url, &Meter::default()).await.expect("by URL");
    client.delete_queue().queue_url(&url).send().await.expect("it goes");
    let error = queue.send(&[order("a")]).await.expect_err("it is gone");
    assert!(!error.can_retry() && error.to_string().contains("--create"), "{error}");
}

#[tokio::test]
async fn without_a_dead_letter_queue_only_giving_up_fails() {
    let (client, name) = (Emulator::Fauxqs.client().await, name(Kind::Standard));
    client.create_queue().queue_name(&name).send().await.expect("a queue alone");
    let queue = SqsQueue::open(client, &name, &Meter::default()).await.expect("it opens");
    queue.send(&[order("a")]).await.expect("sent");
    let given = receipts(&receive(&queue, 1).await);
    let error = queue.bury(&[(given[0].clone(), "why".into())]).await.expect_err("nowhere to go");
    assert!(error.to_string().contains(&format!("{name}-dead")), "{error}");
    queue.ack(&given).await.expect("the delivery is still good");
    assert_eq!(queue.depth().await.expect("a depth").dead, 0);
}

#[tokio::test]
async fn a_ready_made_clients_retries_and_time_outs_are_put_aside() {
    let (_, name) = created(Emulator::Fauxqs, Kind::Standard, VISIBILITY).await;
    let refused = Arc::new(AtomicU32::new(0));
    let counting = Arc::clone(&refused);
    let client = meddler::client(Emulator::Fauxqs, move |operation, _| match operation {
        "SendMessageBatch" => {
            counting.fetch_add(1, SeqCst);
            Act::Refuse("RequestThrottled")
        }
        _ => Act::Pass,
    })
    .await;
    let hasty = Duration::from_millis(500);
    let time_outs = TimeoutConfig::builder().read_timeout(hasty).operation_timeout(hasty).build();
    let config = client.config().to_builder().timeout_config(time_outs);
    let config = config.retry_config(RetryConfig::standard().with_max_attempts(5)).build();
    let client = aws_sdk_sqs::Client::from_conf(config);
    let queue = SqsQueue::open(client, &name, &Meter::default()).await.expect("the queue opens");
    queue.send(&[order("a")]).await.expect_err("throttled");
    assert_eq!(refused.load(SeqCst), 1);
    let came = queue.receive(1, Duration::from_secs(2)).await.expect("a long poll");
    assert_eq!(came, []);
}

#[tokio::test]
async fn a_dead_letter_queue_that_can_not_be_asked_after_for_now_is_not_missing() {
    let (_, name) = created(Emulator::Fauxqs, Kind::Standard, VISIBILITY).await;
    let fails = Arc::new(AtomicBool::new(true));
    let now = Arc::clone(&fails);
    let client = meddler::client(Emulator::Fauxqs, move |operation, asked| {
        let is_dead = asked["QueueName"].as_str().is_some_and(|name| name.ends_with("-dead"));
        match operation == "GetQueueUrl" && is_dead && now.load(SeqCst) {
            true => Act::Refuse("RequestThrottled"),
            false => Act::Pass,
        }
    })
    .await;
    let opened = SqsQueue::open(client.clone(), &name, &Meter::default()).await;
    let error = opened.expect_err("nothing could be given up");
    assert!(error.can_retry(), "{error:?}");
    fails.store(false, SeqCst);
    let queue = SqsQueue::open(client, &name, &Meter::default()).await.expect("the queue opens");
    queue.send(&[order("a")]).await.expect("sent");
    let given = receipts(&receive(&queue, 1).await);
    queue.bury(&[(given[0].clone(), "why".into())]).await.expect("given up");
}

#[tokio::test]
async fn a_short_wait_is_no_flood_of_calls() {
    let (queue, meter) = meddled(Kind::Standard, |_, _| Act::Pass).await;
    let came = queue.receive(10, Duration::from_millis(800)).await.expect("a receive");
    assert_eq!(came, []);
    // SQS waits whole seconds, so it is asked ten times a second, and once more.
    let asked = calls(&meter, "ReceiveMessage");
    assert!((2..=9).contains(&asked), "{asked} calls");
}

#[tokio::test]
async fn what_one_process_sent_is_found_there_and_nowhere_else() {
    let (client, name) = created(Emulator::Fauxqs, Kind::Standard, VISIBILITY).await;
    let meter = Meter::default();
    let open = || SqsQueue::open(client.clone(), &name, &meter);
    let (here, elsewhere) = (open().await.expect("it opens"), open().await.expect("it opens"));
    let sent = order("a");
    here.send(std::slice::from_ref(&sent)).await.expect("sent");
    assert!(here.find(sent.order_id()).await.expect("a look").is_some());
    assert!(elsewhere.find(sent.order_id()).await.expect("a look").is_none());
    assert!(!here.tells_of(sent.order_id()) && !here.finds_all(), "and it says so");
}
