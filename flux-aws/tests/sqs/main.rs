//! The queue against SQS as two emulators have it: their addresses, and the messages
//! that are sent.
#![cfg(feature = "sqs")]

mod conformance;
mod faults;
mod meddler;
mod packs;
mod partitions;

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_sqs::Client;
use flux_aws::bill::Meter;
use flux_aws::sqs::{self, CreateOptions, SqsQueue};
use flux_core::protocol::Message;
use flux_core::seams::{Delivery, OrderQueue, Receipt};
use flux_core::{BuyerId, Line, Lines, Order, OrderId, Timestamp};
use tokio::time::Instant;
use uuid::Uuid;

/// An emulator, by the variable that says where it is.
#[derive(Debug, Clone, Copy)]
enum Emulator {
    Fauxqs,
    Ministack,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Standard,
    Fifo,
}

fn variable(name: &str) -> String {
    let start = "start the services: tests/services cargo nextest run …";
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set; {start}"))
}

impl Emulator {
    fn url(self) -> String {
        let url = variable(match self {
            Self::Fauxqs => "AWS_ENDPOINT_URL_SQS",
            Self::Ministack => "FLUX_TEST_MINISTACK_URL",
        });
        let host = url.split("://").nth(1).unwrap_or_default();
        let is_loopback = ["127.0.0.1", "localhost", "[::1]"].iter().any(|local| {
            host.strip_prefix(local)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '/']))
        });
        assert!(is_loopback, "{url} is not on this machine");
        url
    }

    pub(crate) async fn config(self) -> aws_sdk_sqs::config::Builder {
        let from_env = flux_aws::aws::from_env().await;
        aws_sdk_sqs::config::Builder::from(&from_env).endpoint_url(self.url())
    }

    async fn client(self) -> Client {
        Client::from_conf(self.config().await.build())
    }
}

/// A name that no other test has.
fn name(kind: Kind) -> String {
    let end = if kind == Kind::Fifo { ".fifo" } else { "" };
    format!("flux-test-{}{end}", OrderId::from_uuid(Uuid::now_v7()))
}

/// A fresh queue with so long a time-out, and what is needed to open it again.
async fn created(emulator: Emulator, kind: Kind, visibility: Duration) -> (Client, String) {
    let (client, name) = (emulator.client().await, name(kind));
    let options = CreateOptions { visibility, partitions: Some(1) };
    sqs::create(&client, &name, &options).await.expect("the queue is made");
    (client, name)
}

async fn fresh(emulator: Emulator, kind: Kind, visibility: Duration) -> Arc<SqsQueue> {
    let (client, name) = created(emulator, kind, visibility).await;
    let queue = SqsQueue::open(client, &name, &Meter::default()).await;
    Arc::new(queue.expect("the queue opens"))
}

fn order(item: &str) -> Message {
    let lines = Lines::new(vec![Line::units(item, 1).expect("a line")]).expect("lines");
    let buyer = BuyerId::new("buyer-17").expect("a name");
    let placed_at = Timestamp::from_millis(1_800_000_000_000);
    Message::Place(Order::queued(OrderId::from_uuid(Uuid::now_v7()), buyer, lines, placed_at))
}

fn receipts(deliveries: &[Delivery]) -> Vec<Receipt> {
    deliveries.iter().map(|delivery| delivery.receipt.clone()).collect()
}

/// Receives until there are so many, or fails after ten seconds.
async fn receive(queue: &dyn OrderQueue, count: usize) -> Vec<Delivery> {
    let end = Instant::now() + Duration::from_secs(10);
    let mut deliveries = Vec::new();
    while deliveries.len() < count {
        assert!(Instant::now() < end, "{} of {count} messages came", deliveries.len());
        let more = queue.receive(count - deliveries.len(), Duration::from_secs(1)).await;
        deliveries.extend(more.expect("a receive"));
    }
    deliveries
}
