//! Messages that nobody can read, and messages that were given up.

use aws_sdk_sqs::types::Message;
use tokio::time::{Duration, Instant, sleep};

use crate::sale::{Queue, SMALL, Sale, Size};

const JUNK: &str = "no pack of anybody's";
const PATIENCE: Duration = Duration::from_secs(30);
/// Orders that are given up before a worker has seen them.
const GIVEN_UP: u32 = 3;

impl Queue {
    async fn url(&self, name: &str) -> String {
        let found = self.client.get_queue_url().queue_name(name).send().await;
        found.expect("the queue is there").queue_url.expect("it has a URL")
    }

    async fn send(&self, url: &str, body: impl Into<String>) {
        let sent = self.client.send_message().queue_url(url).message_body(body).send().await;
        sent.expect("it is sent");
    }

    /// The messages that can be received there at once; they stay in sight.
    async fn look(&self, url: &str) -> Vec<Message> {
        let look = self.client.receive_message().queue_url(url).visibility_timeout(0);
        let look = look.max_number_of_messages(10).message_attribute_names("All");
        look.send().await.expect("a look").messages.unwrap_or_default()
    }

    async fn delete(&self, url: &str, message: &Message) {
        let delete = self.client.delete_message().queue_url(url);
        let delete = delete.set_receipt_handle(message.receipt_handle.clone());
        delete.send().await.expect("it is deleted");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn goes_to_the_dead_letters_with_its_reason_and_what_can_be_read_comes_back() {
    // One queue, with no number behind its name.
    let sale = Sale::open(Size { partitions: Some(1), ..SMALL }).await;
    let queue = &sale.queue;
    let url = queue.url(&queue.name).await;
    let dead = queue.url(&format!("{}-dead", queue.name)).await;

    // Orders of the crowd's first, given up as SQS does by its own count.
    sale.send_ahead(0..GIVEN_UP).await;
    let end = Instant::now() + PATIENCE;
    let mut packs = 0;
    loop {
        let messages = queue.look(&url).await;
        if messages.is_empty() {
            break;
        }
        assert!(Instant::now() < end, "the queue does not get empty");
        for message in messages {
            let body = message.body.clone().expect("a pack");
            queue.send(&dead, &body).await;
            queue.delete(&url, &message).await;
            if packs == 0 {
                let strange = body.replacen("\"v\":1", "\"v\":99", 1);
                assert_ne!(strange, body, "a pack says its format");
                queue.send(&url, strange).await;
                queue.send(&url, JUNK).await;
            }
            packs += 1;
        }
        if packs >= GIVEN_UP {
            break;
        }
    }

    let _workers = ["one", "the other"].map(|name| sale.worker(name, &sale.services));
    let storm = sale.storm();
    let mut reasons = Vec::new();
    while reasons.len() < 2 {
        assert!(Instant::now() < end, "only {reasons:?} of two are with the dead letters");
        sleep(Duration::from_millis(50)).await;
        let letters = queue.look(&dead).await;
        let reason = |letter: &Message| {
            let value = letter.message_attributes.as_ref()?.get("reason")?.string_value.clone()?;
            Some((letter.body.clone()?, value))
        };
        reasons = letters.iter().filter_map(reason).collect();
        reasons.sort();
    }
    println!("{reasons:?}");
    assert_eq!(reasons[0].0, JUNK);
    assert!(reasons[0].1.contains("not"), "{reasons:?}");
    assert!(reasons[1].1.contains("a pack of format 99"), "{reasons:?}");
    // The rest goes on.
    sale.until_held(SMALL.stock / 2).await;

    let letters = sale.run("dead-letters");
    assert!(letters.ends_with(&format!("\n{GIVEN_UP} dead letters\n")), "{letters}");
    for buyer in 0..GIVEN_UP {
        let id = sale.crowd.order_id(buyer).to_string();
        let listed = letters.lines().find(|line| line.contains(&id));
        let listed = listed.unwrap_or_else(|| panic!("{id} is not listed:\n{letters}"));
        assert!(listed.contains("place") && listed.contains("SQS gave it up"), "{listed}");
    }
    assert_eq!(sale.run("redrive"), format!("{GIVEN_UP} dead letters put back in the queue\n"));
    sale.finish(storm).await;
}
