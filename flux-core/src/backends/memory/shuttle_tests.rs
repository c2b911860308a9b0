//! The queue and the leases in memory, by thousands of schedules: nobody waits for a
//! wake-up that was lost. The embedded backend's queue waits in the same code.

use std::sync::Arc;
use std::time::Duration;

use super::{MemoryLocks, MemoryQueue, VISIBILITY};
use crate::protocol::{ItemId, Message, OrderId};
use crate::seams::{Delivery, LockManager, OrderQueue};
use crate::sync::stand_ins::{explore, pass, spawn};
use crate::sync::{Mutex, Notify};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

fn message(n: u128) -> Message {
    Message::Expire(OrderId::from_uuid(uuid::Uuid::from_u128(n)))
}

async fn receive(queue: Arc<MemoryQueue>) -> Delivery {
    let mut deliveries = queue.receive(1, HOUR).await.expect("it can be read");
    deliveries.pop().expect("it came within the hour")
}

#[test]
fn each_of_two_receivers_gets_one_of_two_messages_that_came_at_once() {
    explore(|| async {
        let queue = Arc::new(MemoryQueue::default());
        let receivers = [(); 2].map(|()| spawn(receive(Arc::clone(&queue))));
        queue.send(&[message(1), message(2)]).await.expect("they are sent");
        for receiver in receivers {
            assert_eq!(receiver.await.expect("it receives").attempt, 1);
        }
    });
}

#[test]
fn what_nobody_acknowledged_comes_to_whoever_waits_when_its_time_is_up() {
    explore(|| async {
        let (queue, received) = (Arc::new(MemoryQueue::default()), Arc::new(Notify::new()));
        let receivers = [(); 2].map(|()| {
            let (queue, received) = (Arc::clone(&queue), Arc::clone(&received));
            spawn(async move {
                let attempt = receive(queue).await.attempt;
                received.notify_one();
                attempt
            })
        });
        queue.send(&[message(1)]).await.expect("it is sent");
        received.notified().await;
        pass(VISIBILITY).await;
        let mut attempts = Vec::new();
        for receiver in receivers {
            attempts.push(receiver.await.expect("it receives"));
        }
        attempts.sort_unstable();
        assert_eq!(attempts, [1, 2]);
    });
}

#[test]
fn what_was_put_off_comes_to_whoever_waits_though_another_leaves() {
    explore(|| async {
        let (queue, leave) = (Arc::new(MemoryQueue::default()), Arc::new(Notify::new()));
        queue.send(&[message(1)]).await.expect("it is sent");
        let delivery = receive(Arc::clone(&queue)).await;
        let staying = spawn(receive(Arc::clone(&queue)));
        let leaving = {
            let (queue, leave) = (Arc::clone(&queue), Arc::clone(&leave));
            spawn(async move {
                tokio::select! {
                    biased;
                    _ = receive(queue) => panic!("it is not time"),
                    () = leave.notified() => {}
                }
            })
        };
        let told = spawn(async move { leave.notify_one() });
        queue.retry(&[delivery.receipt], 5 * SECOND).await.expect("it is put off");
        for left in [leaving, told] {
            left.await.expect("it leaves");
        }
        pass(5 * SECOND).await;
        assert_eq!(staying.await.expect("it receives").attempt, 2);
    });
}

#[test]
fn one_at_a_time_has_a_lease_and_each_in_its_turn() {
    explore(|| async {
        let (locks, inside) = (Arc::new(MemoryLocks::default()), Arc::new(Mutex::new(())));
        let workers = [(); 3].map(|()| {
            let (locks, inside) = (Arc::clone(&locks), Arc::clone(&inside));
            spawn(async move {
                let key = ItemId::new("a").expect("a name");
                let lease = locks.acquire(&[key], HOUR, HOUR).await.expect("it can be had");
                drop(inside.try_lock().expect("it is alone"));
                locks.release(&lease.expect("it is had")).await.expect("it is released");
            })
        });
        for worker in workers {
            worker.await.expect("its turn came");
        }
    });
}

#[test]
fn a_lease_that_is_released_goes_to_the_one_who_waits_for_it() {
    explore(|| async {
        let locks = Arc::new(MemoryLocks::default());
        let [a, b] = ["a", "b"].map(|key| [ItemId::new(key).expect("a name")]);
        let first = locks.acquire(&a, HOUR, HOUR).await.expect("it can be had").expect("it is");
        let second = locks.acquire(&b, HOUR, HOUR).await.expect("it can be had").expect("it is");
        let wait = |key: [ItemId; 1]| {
            let locks = Arc::clone(&locks);
            spawn(async move { locks.acquire(&key, HOUR, HOUR).await.expect("it can be had") })
        };
        let waiting = [wait(a), wait(b)];
        for lease in [second, first] {
            locks.release(&lease).await.expect("it is released");
        }
        for waiting in waiting {
            assert!(waiting.await.expect("it is woken").is_some());
        }
    });
}
