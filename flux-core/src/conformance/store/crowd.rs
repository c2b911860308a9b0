//! All guarantees at once: workers, payers and repeats without a lock between
//! them, judged by the history they leave.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::{JoinSet, yield_now};
use tokio::time::sleep;

use super::shop::{
    HOLD, Shop, T0, after, capped, commit, hall, id, order, payment, pool, refund, seats, units,
};
use crate::conformance::check::{Checked, Failure, ensure, eventually};
use crate::conformance::history::{Demand, EndState, History, Recorded};
use crate::protocol::{
    CommitOutcome, Message, Order, OrderId, OrderStatus, OverCap, Timestamp, Verdict, View,
};
use crate::seams::{ConfirmOutcome, InventoryStore, Payment, RefundOutcome, Repayment};

const WORKERS: usize = 4;
const ORDERS: u128 = 240;
const BATCH: usize = 6;
const ATTEMPTS_MAX: u64 = 2_000;
const SEATS: [&str; 8] = ["a1", "a2", "a3", "a4", "b1", "b2", "b3", "b4"];

struct Crowd<S: ?Sized> {
    store: Recorded<S>,
    history: History,
    messages: Mutex<VecDeque<Message>>,
}

/// A mix of everything, by number.
fn wish(n: u128) -> Order {
    let who = format!("buyer-{}", n % 37);
    let seat = SEATS[(n % 8) as usize];
    let few = (n % 3 + 1) as u64;
    match n % 7 {
        0 => order(n, &who, &[seats("h", &[seat])]),
        1 => order(n, &who, &[units("b", few), units("a", 1)]),
        2 => order(n, &who, &[units("a", 1), seats("h", &[seat]), units("a", 1)]),
        3 => order(n, &who, &[units("b", few)]),
        _ => order(n, &who, &[units("a", few)]),
    }
}

/// The time at which a message is worked on: the ends of holds lie in the future
/// of orders.
fn now_of(message: &Message) -> Timestamp {
    match message {
        Message::Expire(_) | Message::LatePayment(..) => after(HOLD),
        Message::Place(_) | Message::Release(_) | Message::Cancel(_) => T0,
    }
}

impl<S: InventoryStore + ?Sized> Crowd<S> {
    fn send(&self, message: Message) {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner).push_back(message);
    }

    fn place(&self, order: Order) {
        self.history.asked(&order);
        self.send(Message::Place(order));
    }

    /// A batch that names each order once.
    fn receive(&self) -> Vec<Message> {
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut batch, mut ids) = (Vec::new(), BTreeSet::<OrderId>::new());
        while let Some(message) = messages.pop_front() {
            if ids.insert(message.order_id()) && batch.len() < BATCH {
                batch.push(message);
            } else {
                messages.push_front(message);
                break;
            }
        }
        batch
    }

    async fn work(&self) -> Checked {
        loop {
            let batch = self.receive();
            if batch.is_empty() {
                return Ok(());
            }
            self.decide(&batch).await?;
        }
    }

    async fn decide(&self, batch: &[Message]) -> Checked {
        let ids: Vec<_> = batch.iter().map(Message::order_id).collect();
        let mut learned: Vec<OverCap> = Vec::new();
        for attempt in 0..ATTEMPTS_MAX {
            let mut items = BTreeSet::new();
            for (message, found) in batch.iter().zip(self.store.orders(&ids).await?) {
                let order = match (message, &found) {
                    (Message::Place(order), _) => Some(order),
                    (_, found) => found.as_ref(),
                };
                items.extend(
                    order.iter().flat_map(|order| order.lines.iter()).map(|l| &l.item).cloned(),
                );
            }
            let items: Vec<_> = items.into_iter().collect();
            let claims: Vec<_> = self.store.claim(&items).await?.into_iter().flatten().collect();
            let found = self.store.orders(&ids).await?;
            let mut view = View::default();
            for claim in &claims {
                view.insert(claim.clone());
            }
            for over in &learned {
                view.learn(over.clone());
            }
            let mut writes = Vec::new();
            for (message, found) in batch.iter().zip(&found) {
                match view.decide(message, found.as_ref(), now_of(message)) {
                    Verdict::Write(write) => writes.push(write),
                    Verdict::Nothing => {}
                }
            }
            if writes.is_empty() {
                return Ok(());
            }
            // So that others come between even on one thread.
            yield_now().await;
            let write = commit(&claims.iter().collect::<Vec<_>>(), &writes);
            match self.store.commit(&[write]).await?.pop() {
                Some(CommitOutcome::Applied) => {
                    for write in writes {
                        self.history.answered(&write.order);
                        self.follow_up(&write.order).await?;
                    }
                    return Ok(());
                }
                Some(CommitOutcome::Conflict { over_cap, .. }) => learned.extend(over_cap),
                // Somebody else is at it: step aside, each for another time.
                _ => sleep(Duration::from_millis(1 + (attempt * 7 + ids.len() as u64) % 5)).await,
            }
        }
        Err(Failure::new(format!("a batch was not decided in {ATTEMPTS_MAX} attempts")))
    }

    async fn follow_up(&self, order: &Order) -> Checked {
        let n = order.id.as_uuid().as_u128();
        match (order.status(), n % 6) {
            _ if n > ORDERS => {}
            (OrderStatus::Held, 0) => self.pay(order.id).await?,
            (OrderStatus::Held, 1) => self.send(Message::Release(order.id)),
            (OrderStatus::Held, 2) => self.send(Message::Expire(order.id)),
            (OrderStatus::Held, 3) => {
                self.send(Message::Expire(order.id));
                self.pay(order.id).await?;
            }
            (OrderStatus::Held, 4) => {
                self.pay(order.id).await?;
                self.send(Message::Cancel(order.id));
                self.send(Message::Release(order.id));
            }
            (OrderStatus::Released | OrderStatus::Rejected, 1 | 5) => self.pay(order.id).await?,
            (OrderStatus::Cancelled | OrderStatus::RefundDue, _) => {
                self.refund(order.id, "first").await?;
                self.refund(order.id, "second").await?;
            }
            (OrderStatus::Expired, 2) => {
                for _ in 0..2 {
                    self.send(Message::LatePayment(order.id, payment("late")));
                }
            }
            _ => {}
        }
        Ok(())
    }

    async fn refund(&self, order: OrderId, by: &str) -> Checked {
        let told = Repayment::new(order, refund(by, after(HOLD)));
        match self.store.refund(&[told]).await?.pop() {
            Some(RefundOutcome::Refunded(order) | RefundOutcome::ByAnother(order)) => {
                self.history.answered(&order);
                Ok(())
            }
            other => Err(Failure::new(format!("a refund was answered {other:?}"))),
        }
    }

    async fn pay(&self, order: OrderId) -> Checked {
        let paid = Payment { order, payment: payment("paid"), at: T0 };
        match self.store.confirm(&[paid]).await?.pop() {
            Some(ConfirmOutcome::Settled(order) | ConfirmOutcome::NotHeld(order)) => {
                self.history.answered(&order);
            }
            Some(ConfirmOutcome::Late(order)) => {
                self.history.answered(&order);
                self.send(Message::LatePayment(order.id, payment("paid")));
            }
            other => return Err(Failure::new(format!("a payment was answered {other:?}"))),
        }
        Ok(())
    }
}

async fn work_off<S>(crowd: &Arc<Crowd<S>>) -> Checked
where
    S: InventoryStore + ?Sized,
{
    let mut tasks = JoinSet::new();
    for _ in 0..WORKERS {
        let crowd = crowd.clone();
        tasks.spawn(async move { crowd.work().await });
    }
    while let Some(result) = tasks.join_next().await {
        result.map_err(|error| Failure::new(error.to_string()))??;
    }
    Ok(())
}

pub(super) async fn a_crowd_of_workers_leaves_no_fault<S>(store: Arc<S>) -> Checked
where
    S: InventoryStore + ?Sized,
{
    let specs = [capped("a", 90, 4), pool("b", 50), hall("h", &SEATS)];
    let shop = Shop::open(store, &specs).await?;
    let history = History::new();
    let crowd = Arc::new(Crowd {
        store: Recorded::new(shop.store.clone(), history.clone()),
        history: history.clone(),
        messages: Mutex::default(),
    });
    for n in 1..=ORDERS {
        crowd.place(wish(n));
        // A client that lost its answer asks again.
        if n % 10 == 0 {
            crowd.place(wish(n - n % 9));
        }
    }
    work_off(&crowd).await?;
    // Then buyers for whatever is left or came back, one unit each.
    for n in 1..=90 {
        crowd.place(order(1_000 + n, &format!("late-{n}"), &[units("a", 1)]));
        crowd.place(order(2_000 + n, &format!("late-{n}"), &[units("b", 1)]));
    }
    for (n, seat) in (3_000..).zip(SEATS) {
        crowd.place(order(n, "late", &[seats("h", &[seat])]));
    }
    work_off(&crowd).await?;
    ensure!(shop.find(id(1)).await?.is_some(), "the first order was not decided");

    let asked = history.events().iter().fold(BTreeSet::new(), |mut ids, event| {
        if let crate::conformance::history::Event::Asked(order) = event {
            ids.insert(order.id);
        }
        ids
    });
    let (store, history) = (&*shop.store, &history);
    eventually(|| async {
        let end = EndState::read(store, T0).await?.with_demand(Demand::CoversStock);
        ensure!(end.orders.len() == asked.len(), "{} orders of {}", end.orders.len(), asked.len());
        ensure!(end.items.iter().all(|item| item.available == 0), "left over: {:?}", end.items);
        let faults = history.check(&end);
        let lines: Vec<_> = faults.iter().map(ToString::to_string).collect();
        ensure!(faults.is_empty(), "{}", lines.join("; "));
        Ok(())
    })
    .await
}
