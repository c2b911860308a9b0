//! The parts on an order's way in, by thousands of schedules: nobody waits for a wake-up
//! that was lost.
//!
//! The gate is left out: it wakes nobody. What it knows is in atomics and in a map without
//! locks, which shuttle can't stop in the middle of a call, and those who have an item read
//! again wait for each other at tokio's mutex.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::Span;

use super::id_guard::GuardedIds;
use super::inbox::{Answer, ENOUGH, Inbox, Taken};
use super::sweep_alarm::SweepAlarm;
use crate::backends::Backend;
use crate::clock::SystemClock;
use crate::engine::core::{Core, from_now};
use crate::engine::{Error, Role, Settings};
use crate::protocol::{
    BuyerId, Commit, Expect, Line, Lines, Message, Order, OrderId, OrderState, OrderStatus,
    OrderWrite, Reason, Timestamp,
};
use crate::random::Random;
use crate::seams::Outcomes;
use crate::sync::Notify;
use crate::sync::stand_ins::{explore, pass, spawn};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

fn id(n: u128) -> OrderId {
    OrderId::from_uuid(uuid::Uuid::from_u128(n))
}

fn order(buyer: &str) -> Order {
    let lines = Lines::new(vec![Line::units("a", 1).expect("a line")]).expect("lines");
    Order::queued(id(1), BuyerId::new(buyer).expect("a buyer"), lines, Timestamp::default())
}

/// Asks for order `n`, and sees to it that the answer is this order's.
async fn ask(inbox: Arc<Inbox>, n: u128) {
    let answer = inbox.ask(Message::Expire(id(n)), None, &Span::none()).await;
    assert!(matches!(&answer, Err(Error::NotFound(asked)) if *asked == id(n)), "{answer:?}");
}

/// Answers what waits; returns how many asked.
fn answer(inbox: &Inbox) -> usize {
    let Some(Taken { messages, callers, .. }) = inbox.take() else { return 0 };
    let answers = messages.iter().map(|message| Answer::NotFound(message.order_id()));
    answers.enumerate().for_each(|(at, answer)| callers.answer(at, answer));
    callers.wake();
    messages.len()
}

#[test]
fn every_caller_hears_the_answer_to_its_own_message() {
    explore(|| async {
        let inbox = Arc::new(Inbox::new(2, 9));
        let callers = [1, 2, 3].map(|n| spawn(ask(Arc::clone(&inbox), n)));
        let mut left = callers.len();
        while left > 0 {
            inbox.filled().await;
            left -= answer(&inbox);
        }
        for caller in callers {
            caller.await.expect("it is answered");
        }
    });
}

#[test]
fn a_worker_that_lingers_goes_on_when_enough_have_asked() {
    explore(|| async {
        let inbox = Arc::new(Inbox::new(ENOUGH, 2 * ENOUGH));
        let callers: Vec<_> =
            (0..ENOUGH as u128).map(|n| spawn(ask(Arc::clone(&inbox), n))).collect();
        inbox.filled().await;
        inbox.full_enough().await;
        assert_eq!(answer(&inbox), ENOUGH);
        for caller in callers {
            caller.await.expect("it is answered");
        }
    });
}

#[test]
fn nobody_is_left_in_an_inbox_that_is_abandoned() {
    explore(|| async {
        let inbox = Arc::new(Inbox::new(2, 9));
        let guarded_ids = Arc::new(GuardedIds::default());
        let callers = ["ann", "bob"].map(|buyer| {
            let (inbox, guarded_ids) = (Arc::clone(&inbox), Arc::clone(&guarded_ids));
            spawn(async move {
                let guard = guarded_ids.take(&order(buyer));
                let message = Message::Place(guard.order().clone());
                let answer = inbox.ask(message, Some(guard), &Span::none()).await;
                assert!(matches!(answer, Err(Error::ShuttingDown)), "{answer:?}");
            })
        });
        inbox.abandon();
        for caller in callers {
            caller.await.expect("it is sent away");
        }
        assert!(guarded_ids.get(id(1)).is_none());
    });
}

#[test]
fn a_worker_sees_both_an_earlier_sweep_and_what_is_in_the_inbox() {
    explore(|| async {
        let (inbox, alarm) = (Arc::new(Inbox::new(2, 9)), Arc::new(SweepAlarm::new()));
        assert!(alarm.begin());
        alarm.plan(from_now(HOUR));
        let callers = [1, 2].map(|n| spawn(ask(Arc::clone(&inbox), n)));
        let hearing = Arc::clone(&alarm);
        let hearing = spawn(async move { hearing.expect(Instant::now()) });
        let (mut left, mut sweeps) = (callers.len(), 1);
        while left + sweeps > 0 {
            // Each look drops the wait for the other thing.
            tokio::select! {
                biased;
                () = inbox.filled() => left -= answer(&inbox),
                () = alarm.due() => {
                    assert!(alarm.begin());
                    alarm.plan(from_now(HOUR));
                    sweeps -= 1;
                }
            }
        }
        for caller in callers {
            caller.await.expect("it is answered");
        }
        hearing.await.expect("it is heard");
    });
}

#[test]
fn a_sweep_is_brought_forward_to_the_earliest_end_that_was_heard_of() {
    explore(|| async {
        let (alarm, start) = (Arc::new(SweepAlarm::new()), Instant::now());
        assert!(alarm.begin());
        alarm.plan(start + HOUR);
        let waiting = Arc::clone(&alarm);
        let waiting = spawn(async move {
            waiting.due().await;
            start.elapsed()
        });
        let hearing = [5, 3].map(|seconds| {
            let alarm = Arc::clone(&alarm);
            spawn(async move { alarm.expect(start + seconds * SECOND) })
        });
        for hearing in hearing {
            hearing.await.expect("it is heard");
        }
        pass(3 * SECOND).await;
        assert_eq!(waiting.await.expect("it is due"), 3 * SECOND);
    });
}

#[test]
fn whoever_waits_for_an_order_hears_that_it_is_decided() {
    explore(|| async {
        let (backend, clock) = (Backend::memory(), Arc::new(SystemClock));
        let core =
            Core::new(backend, clock, Settings::default(), Role::AcceptOnly, Random::seeded(1));
        let (core, order) = (Arc::new(core), order("ann"));
        let message = Message::Place(order.clone());
        core.backend.queue.send(&[message]).await.expect("it is sent");
        let wait = |longest| {
            let core = Arc::clone(&core);
            spawn(async move { core.wait(id(1), longest).await.expect("it is there").status() })
        };
        let (patient, impatient) = ([wait(HOUR), wait(HOUR)], wait(Duration::ZERO));
        let rejected = OrderState::Rejected(Timestamp::now(), Reason::SoldOut);
        let order = order.with_state(rejected);
        let write = OrderWrite { order: order.clone(), expect: Expect::Absent };
        let commit = Commit { claims: Vec::new(), writes: vec![write] };
        core.backend.store.commit(&[commit]).await.expect("it is decided");
        core.waiters.tell(&Outcomes { orders: vec![order], availability: Vec::new() });
        for patient in patient {
            assert_eq!(patient.await.expect("it is told"), OrderStatus::Rejected);
        }
        impatient.await.expect("it looks once");
    });
}

#[test]
fn an_id_has_one_guard_at_a_time() {
    explore(|| async {
        let guarded_ids = Arc::new(GuardedIds::default());
        let calls = ["ann", "bob", "eve"].map(|buyer| {
            let guarded_ids = Arc::clone(&guarded_ids);
            spawn(async move {
                for _ in 0..2 {
                    let guard = guarded_ids.take(&order(buyer));
                    let again = guarded_ids.get(id(1));
                    assert!(again.is_some_and(|again| Arc::ptr_eq(&again, &guard)), "let go");
                }
            })
        });
        for call in calls {
            call.await.expect("its guard stands");
        }
        assert!(guarded_ids.get(id(1)).is_none());
    });
}

/// The stand-in for [`Notify`] does what the parts rely on: a call to wake one is kept, one
/// to wake all is not, and whoever is woken and leaves wakes the next.
#[test]
fn a_wake_up_goes_to_whom_tokio_would_give_it() {
    explore(|| async {
        let notify = Arc::new(Notify::new());
        notify.notify_waiters();
        let waiting = Arc::clone(&notify);
        let waiting = spawn(async move { waiting.notified().await });
        {
            let mut leaving = pin!(notify.notified());
            leaving.as_mut().enable();
            notify.notify_one();
        }
        waiting.await.expect("it is woken");
        assert!(!pin!(notify.notified()).as_mut().enable());
    });
}
