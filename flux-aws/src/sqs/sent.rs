//! A memory of what this process sent, as SQS can't be looked into. It lasts a
//! while.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use flux_core::protocol::Message;
use flux_core::{Order, OrderId};
use tokio::time::Instant;

/// Orders remembered; of more, the oldest are forgotten.
const ORDERS_MAX: usize = 100_000;
/// The longest that an order is remembered: another process may decide it.
const AGE_MAX: Duration = Duration::from_secs(15 * 60);

#[derive(Debug, Default)]
pub(super) struct Sent {
    orders: HashMap<OrderId, Vec<(u64, Order)>>,
    ages: VecDeque<(Instant, OrderId, u64)>,
    next: u64,
}

impl Sent {
    pub(super) fn remember(&mut self, messages: &[Message], now: Instant) {
        for message in messages {
            let Message::Place(order) = message else { continue };
            let known = self.orders.entry(order.id).or_default();
            if !known.iter().any(|(_, one)| one == order) {
                known.push((self.next, order.clone()));
                self.ages.push_back((now, order.id, self.next));
                self.next += 1;
            }
        }
        self.tidy(now);
    }

    /// Forgets the messages, which were not sent or are done.
    pub(super) fn forget(&mut self, messages: &[Message]) {
        for message in messages {
            let Message::Place(order) = message else { continue };
            self.retain(order.id, |_, one| one != order);
        }
    }

    /// The first that was sent under this id.
    pub(super) fn find(&mut self, id: OrderId, now: Instant) -> Option<Order> {
        self.tidy(now);
        self.orders.get(&id)?.first().map(|(_, order)| order.clone())
    }

    fn tidy(&mut self, now: Instant) {
        while let Some((since, id, number)) = self.ages.front().copied() {
            let is_known = |known: &Vec<(u64, Order)>| known.iter().any(|(one, _)| *one == number);
            let in_time = self.ages.len() <= ORDERS_MAX && now - since < AGE_MAX;
            if in_time && self.orders.get(&id).is_some_and(is_known) {
                return;
            }
            self.ages.pop_front();
            self.retain(id, |one, _| one != number);
        }
    }

    fn retain(&mut self, id: OrderId, keep: impl Fn(u64, &Order) -> bool) {
        if let Some(known) = self.orders.get_mut(&id) {
            known.retain(|(number, order)| keep(*number, order));
            if known.is_empty() {
                self.orders.remove(&id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use flux_core::{BuyerId, Line, Lines, Timestamp};
    use uuid::Uuid;

    use super::*;

    fn order(id: OrderId, buyer: &str) -> Message {
        let lines = Lines::new(vec![Line::units("a", 1).expect("a line")]).expect("lines");
        let buyer = BuyerId::new(buyer).expect("a name");
        Message::Place(Order::queued(id, buyer, lines, Timestamp::default()))
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_under_an_id_is_found_until_it_is_done_or_old() {
        let (mut sent, id) = (Sent::default(), OrderId::from_uuid(Uuid::now_v7()));
        let both = [order(id, "ann"), order(id, "bob")];
        let found = |sent: &mut Sent| sent.find(id, Instant::now()).map(Message::Place);
        sent.remember(&both, Instant::now());
        sent.remember(&both, Instant::now());
        assert_eq!(found(&mut sent).as_ref(), Some(&both[0]));
        sent.forget(&both[..1]);
        assert_eq!(found(&mut sent).as_ref(), Some(&both[1]));
        tokio::time::advance(AGE_MAX).await;
        assert_eq!(found(&mut sent), None);
        assert!(sent.orders.is_empty() && sent.ages.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn of_too_many_the_oldest_are_forgotten() {
        let mut sent = Sent::default();
        let ids: Vec<OrderId> =
            (0..=ORDERS_MAX).map(|_| OrderId::from_uuid(Uuid::now_v7())).collect();
        for id in &ids {
            sent.remember(&[order(*id, "ann")], Instant::now());
        }
        assert_eq!(sent.find(ids[0], Instant::now()), None);
        assert!(sent.find(ids[1], Instant::now()).is_some());
        assert_eq!(sent.orders.len(), ORDERS_MAX);
    }
}
