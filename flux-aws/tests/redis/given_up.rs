//! What a queue gave up, where its accepted orders are noted.

use std::time::Duration;

use flux_core::Backend;
use flux_core::protocol::Message;
use flux_core::seams::OrderQueue;

use crate::accepted::order;
use crate::{open, prefix, shared_url};

#[tokio::test]
async fn what_was_given_up_is_listed_and_put_back_as_without_notes() {
    let queue = open(&shared_url(), &prefix()).remember(Backend::memory().queue);
    let sent = ["ann", "bob", "cleo"].map(|buyer| Message::Place(order(buyer)));
    queue.send(&sent).await.expect("it is sent");
    let came = queue.receive(10, Duration::ZERO).await.expect("received");
    let buried: Vec<_> = came.into_iter().map(|one| (one.receipt, "a test".to_owned())).collect();
    assert_eq!(buried.len(), 3);
    queue.bury(&buried).await.expect("given up");
    let letters = queue.dead_letters(10).await.expect("letters");
    assert!(letters.iter().all(|letter| sent.contains(&letter.message)));
    assert_eq!(letters.len(), 3);
    assert_eq!(queue.redrive(10).await.expect("put back"), 3);
    assert_eq!(queue.redrive(10).await.expect("nothing is left"), 0);
    assert_eq!(queue.receive(10, Duration::ZERO).await.expect("received").len(), 3);
}
