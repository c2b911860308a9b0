//! The partitions of a queue: made, counted, opened, and refused where their number is
//! another; and an engine over them.

use std::time::Duration;

use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::QueueAttributeName;
use flux_aws::bill::Meter;
use flux_aws::sqs::{self, CreateOptions, PARTITIONS, open_partitions};
use flux_core::seams::{OrderQueue, SeamError, partition_of};
use flux_core::{Backend, Flux, ItemId, ItemSpec, OrderRequest, OrderStatus, Role};

use crate::meddler::{self, Act};
use crate::{Emulator, Kind, name, order, receive};

async fn create(client: &Client, name: &str, partitions: Option<u16>) -> Result<(), SeamError> {
    let options = CreateOptions { partitions, ..CreateOptions::default() };
    sqs::create(client, name, &options).await
}

async fn count(client: &Client, queue: &str, told: Option<u16>) -> Result<usize, SeamError> {
    open_partitions(client.clone(), queue, told, &Meter::default()).await.map(|all| all.len())
}

/// What is said to a process that was told another number.
async fn refusal(client: &Client, queue: &str, told: u16) -> String {
    let error = count(client, queue, Some(told)).await.expect_err("another number");
    assert!(!error.can_retry(), "{error}");
    error.to_string()
}

async fn url(client: &Client, name: &str) -> String {
    let found = client.get_queue_url().queue_name(name).send().await;
    found.expect("it is there").queue_url.expect("it has a URL")
}

async fn sixteen_by_default(emulator: Emulator) {
    let (client, name) = (emulator.client().await, name(Kind::Standard));
    let missing = count(&client, &name, None).await.expect_err("no queue").to_string();
    assert!(missing.contains(&name) && missing.contains("--create"), "{missing}");
    create(&client, &name, None).await.expect("the queues are made");
    create(&client, &name, Some(PARTITIONS)).await.expect("they are there");
    let by_url = url(&client, &format!("{name}-0")).await;
    let by_url = by_url.strip_suffix("-0").expect("a number behind the URL");
    for queue in [&name, by_url] {
        for told in [None, Some(16)] {
            assert_eq!(count(&client, queue, told).await.expect("they open"), 16);
        }
        for told in [1, 8, 15, 17, 40] {
            let said = refusal(&client, queue, told).await;
            assert!(
                said.contains("16 partitions") && said.contains(&format!("not {told}:")),
                "{said}"
            );
        }
    }
    let refused = create(&client, &name, Some(4)).await.expect_err("another number");
    assert!(refused.to_string().contains("16 partitions"), "{refused}");

    let last = url(&client, &format!("{name}-15")).await;
    let policy = QueueAttributeName::RedrivePolicy;
    let asked = client.get_queue_attributes().queue_url(last).attribute_names(policy.clone());
    let found = asked.send().await.expect("it is there").attributes.expect("attributes");
    let found: serde_json::Value = serde_json::from_str(&found[&policy]).expect("JSON");
    let dead = found["deadLetterTargetArn"].as_str().expect("an ARN");
    assert!(dead.ends_with(&format!("{name}-15-dead")), "{found}");
    let most = &found["maxReceiveCount"];
    assert_eq!(most.to_string().trim_matches('"'), "1000", "the most that SQS allows");
}

#[tokio::test]
async fn sixteen_by_default_on_fauxqs() {
    sixteen_by_default(Emulator::Fauxqs).await;
}

#[tokio::test]
async fn sixteen_by_default_on_ministack() {
    sixteen_by_default(Emulator::Ministack).await;
}

#[tokio::test]
async fn a_queue_of_this_very_name_is_one_partition() {
    for kind in [Kind::Standard, Kind::Fifo] {
        let (client, name) = (Emulator::Fauxqs.client().await, name(kind));
        create(&client, &name, Some(1)).await.expect("the queue is made");
        let by_url = url(&client, &name).await;
        for queue in [&name, &by_url] {
            for told in [None, Some(1)] {
                assert_eq!(count(&client, queue, told).await.expect("it opens"), 1);
            }
            assert!(refusal(&client, queue, 16).await.contains("has 1 partition,"));
        }
        create(&client, &name, None).await.expect("it is there");
        create(&client, &name, Some(16)).await.expect_err("another number");
        assert_eq!(count(&client, &name, None).await.expect("it opens"), 1, "nothing was made");
    }
}

#[tokio::test]
async fn an_old_queue_beside_its_partitions_is_not_left_unread() {
    let (client, name) = (Emulator::Fauxqs.client().await, name(Kind::Standard));
    create(&client, &name, Some(2)).await.expect("the queues are made");
    client.create_queue().queue_name(&name).send().await.expect("an old queue");
    for told in [None, Some(1), Some(2)] {
        let refused = count(&client, &name, told).await.expect_err("which of them?");
        assert!(refused.to_string().contains("only one of them would be read"), "{refused}");
    }
}

#[tokio::test]
async fn fifo_queues_have_the_number_before_their_end() {
    let (client, name) = (Emulator::Fauxqs.client().await, name(Kind::Fifo));
    create(&client, &name, Some(2)).await.expect("the queues are made");
    url(&client, &name.replace(".fifo", "-1.fifo")).await;
    url(&client, &name.replace(".fifo", "-1-dead.fifo")).await;
    let partitions = open_partitions(client, &name, Some(2), &Meter::default()).await;
    for partition in partitions.expect("they open") {
        partition.send(&[order("a")]).await.expect("sent");
        assert_eq!(receive(&partition, 1).await.len(), 1);
    }
}

#[tokio::test]
async fn a_partition_that_nobody_may_look_at_is_not_there() {
    let (client, name) = (Emulator::Fauxqs.client().await, name(Kind::Standard));
    create(&client, &name, Some(3)).await.expect("the queues are made");
    let stem = url(&client, &format!("{name}-0")).await;
    let stem = stem.strip_suffix("-0").expect("a number behind the URL").to_owned();
    // A policy that names each queue there is, and no other.
    let allowed: Vec<String> = (0..3).map(|n| format!("{name}-{n}")).collect();
    let strict = meddler::client(Emulator::Fauxqs, move |_, asked| {
        let told = asked["QueueUrl"].as_str().or(asked["QueueName"].as_str()).unwrap_or_default();
        let queue = told.rsplit('/').next().unwrap_or_default();
        match allowed.iter().any(|name| queue == name || queue == format!("{name}-dead")) {
            true => Act::Pass,
            false => Act::Refuse("AccessDenied"),
        }
    })
    .await;
    for queue in [&name, &stem] {
        assert_eq!(count(&strict, queue, Some(3)).await.expect("they open"), 3);
        assert_eq!(count(&strict, queue, None).await.expect("they open"), 3);
        assert!(refusal(&strict, queue, 2).await.contains("has 3 partitions"));
        assert!(refusal(&strict, queue, 5).await.contains("has 3 partitions"));
    }
}

#[tokio::test]
async fn a_policy_that_allows_nothing_is_told_from_a_missing_queue() {
    let client = meddler::client(Emulator::Fauxqs, |_, _| Act::Refuse("AccessDenied")).await;
    let error = count(&client, "orders", Some(16)).await.expect_err("nobody knows");
    assert!(!error.can_retry() && error.to_string().contains("AccessDenied"), "{error}");
}

#[tokio::test]
async fn an_outage_is_no_number() {
    let client = meddler::client(Emulator::Fauxqs, |_, _| Act::Refuse("RequestThrottled")).await;
    let error = count(&client, "orders", None).await.expect_err("nobody knows");
    assert!(error.can_retry(), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_serves_counts_and_redrives_all_partitions() {
    const COUNT: usize = 4;
    let (client, name) = (Emulator::Fauxqs.client().await, name(Kind::Standard));
    create(&client, &name, Some(COUNT as u16)).await.expect("the queues are made");
    let opened = open_partitions(client, &name, None, &Meter::default()).await.expect("they open");
    let partitions: Vec<_> =
        opened.into_iter().map(|queue| std::sync::Arc::new(queue) as std::sync::Arc<_>).collect();
    let backend = Backend { partitions, ..Backend::memory() };
    let api = Flux::builder(backend.clone()).role(Role::AcceptOnly).start();
    // One item at least for each partition.
    let items: Vec<String> = (0..24).map(|n| format!("item-{n}")).collect();
    let mut waiting = [0; COUNT];
    let mut queued = Vec::new();
    for item in &items {
        waiting[partition_of(&ItemId::new(item).expect("a name"), COUNT)] += 1;
        api.put_item(ItemSpec::pool(item, 9).expect("an item")).await.expect("on sale");
        let request = OrderRequest::units("ann", item, 1).expect("a request");
        queued.push(api.submit(request).await.expect("accepted"));
    }
    assert!(waiting.iter().all(|waiting| *waiting > 0), "{waiting:?}: other names are needed");
    for (queue, waiting) in backend.partitions.iter().zip(waiting) {
        for delivery in receive(&**queue, waiting).await {
            queue.bury(&[(delivery.receipt, "a test".into())]).await.expect("given up");
        }
    }
    assert_eq!(api.depth().await.expect("a depth").dead, 24);
    let letters = api.dead_letters(100).await.expect("letters");
    assert!(letters.is_sorted_by_key(|letter| letter.buried_at));
    assert_eq!(letters.len(), 24);
    assert_eq!(api.dead_letters(5).await.expect("letters"), letters[..5]);
    assert_eq!(api.redrive(5).await.expect("put back"), 5);
    assert_eq!(api.dead_letters(100).await.expect("letters"), letters[5..], "the oldest first");
    assert_eq!(api.redrive(100).await.expect("put back"), 19);
    assert_eq!(api.redrive(100).await.expect("nothing is left"), 0);

    let workers = [(); 2].map(|()| Flux::builder(backend.clone()).start());
    for order in queued {
        let held = api.wait(order.id, Duration::from_secs(60)).await.expect("decided");
        assert_eq!(held.status(), OrderStatus::Held);
    }
    assert_eq!(api.depth().await.expect("a depth").dead, 0);
    for worker in workers {
        worker.shutdown().await;
    }
}
