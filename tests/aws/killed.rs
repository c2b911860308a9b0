//! A worker killed at every step of the protocol in turn.

use crate::sale::{Sale, Size, until};
use crate::trap::{Side, Step, Traps};

/// Enough that somebody still comes when the last worker dies.
const SIZE: Size = Size { stock: 500, buyers: 700, in_flight: 16, visibility: 2, partitions: None };

/// Receive, lease, claim, commit, acknowledge, tell.
const STEPS: [(&str, u32); 6] = [
    ("ReceiveMessage", 2),
    ("EVAL", 1),
    ("UpdateItem", 1),
    ("TransactWriteItems", 2),
    ("DeleteMessage", 1),
    ("PUBLISH", 2),
];

async fn killed(side: Side) {
    let sale = Sale::open(SIZE).await;
    let storm = sale.storm();
    for (operation, nth) in STEPS {
        let held = sale.told.held();
        let traps = Traps::set(Step { operation, side, nth }, &sale.services).await;
        let name = format!("the worker that dies at {operation}");
        let mut worker = sale.worker(&name, &traps.services(&sale.services));
        traps.trap.aim_at(worker.pid());
        until(&format!("{name}: {}", worker.log()), || traps.trap.has_sprung()).await;
        until(&format!("{name} is gone"), || !worker.is_running().expect("ours")).await;
        println!("{name}, {side:?}: {held} held when it began, {} now", sale.told.held());
    }
    assert!(sale.told.held() < SIZE.stock, "all was sold before the last one died");
    let _worker = sale.worker("the last worker", &sale.services);
    sale.finish(storm).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_each_step() {
    killed(Side::Before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_each_step_before_the_worker_hears_of_it() {
    killed(Side::After).await;
}
