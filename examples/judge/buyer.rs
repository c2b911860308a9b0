//! A client that buys: it repeats its orders, hangs up, pays in time, late or
//! twice, gives back, cancels, or forgets.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use flux_core::conformance::history::Answer;
use flux_core::{BuyerId, Order, OrderId, OrderState, OrderStatus, PaymentRef, Timestamp};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use tokio::time::{Instant, sleep};
use uuid::Builder;

use super::goods::Goods;
use super::teller::{Manner, Teller};

/// Seconds that a client asks the server to wait for the decision.
const WAIT_SECONDS: u64 = 10;
/// Attempts of an order that is turned away each time.
const ATTEMPTS: u32 = 3;
/// Time after the end of a hold at which a client sends its order again.
const COMES_BACK_AFTER: Duration = Duration::from_secs(6);

/// A client, with a second connection for what it does twice at once.
#[derive(Debug)]
pub(super) struct Buyer {
    pub(super) chance: StdRng,
    pub(super) goods: Arc<Goods>,
    pub(super) tellers: [Teller; 2],
    /// Buyers in all: few, so that one has several orders at once.
    pub(super) buyers: u32,
    pub(super) hold: Duration,
    /// Orders of long ago, the newest last, and whether each was placed by a key.
    pub(super) past: VecDeque<(Instant, Order, bool)>,
}

impl Buyer {
    /// Places any order and does with it what buyers do.
    pub(super) async fn shop(&mut self) {
        let lines = self.goods.any_lines(&mut self.chance);
        let buyer = format!("buyer-{}", self.chance.random_range(0..self.buyers));
        let buyer = BuyerId::new(buyer).expect("a good name");
        let order = Order::queued(any_id(&mut self.chance), buyer, lines, Timestamp::now());
        let by_key = self.chance.random_ratio(1, 5);
        if self.chance.random_ratio(1, 8) {
            let mut rival = order.clone();
            rival.id = any_id(&mut self.chance);
            self.rush(&order, &rival).await;
            return;
        }
        let bought = if self.chance.random_ratio(1, 6) {
            let [one, other] = &mut self.tellers;
            let mut chance = StdRng::seed_from_u64(self.chance.random());
            let (bought, _) = tokio::join!(
                buy(one, &order, by_key, &mut self.chance),
                buy(other, &order, by_key, &mut chance),
            );
            bought
        } else {
            buy(&mut self.tellers[0], &order, by_key, &mut self.chance).await
        };
        match bought {
            Some(order) if order.status() == OrderStatus::Held => self.after(&order).await,
            Some(_) => self.pause(20).await,
            None => self.pause(50).await,
        }
        if self.chance.random_ratio(1, 5) {
            // Once more, whatever became of it.
            buy(&mut self.tellers[1], &order, by_key, &mut self.chance).await;
        }
        self.past.push_back((Instant::now(), order, by_key));
        self.come_back().await;
    }

    /// Two orders for the same at once; who gets it lets it go.
    async fn rush(&mut self, order: &Order, rival: &Order) {
        let [one, other] = &mut self.tellers;
        let mut chance = StdRng::seed_from_u64(self.chance.random());
        let (_, held) = tokio::join!(
            buy(one, order, false, &mut self.chance),
            buy(other, rival, false, &mut chance),
        );
        if let Some(held) = held.filter(|held| held.status() == OrderStatus::Held) {
            self.pay(&held).await;
        }
    }

    /// Sends an order of long ago once more.
    async fn come_back(&mut self) {
        let long_ago = self.hold + COMES_BACK_AFTER;
        if self.past.front().is_some_and(|(at, ..)| at.elapsed() > long_ago)
            && let Some((_, order, by_key)) = self.past.pop_front()
            && self.chance.random_ratio(1, 2)
        {
            buy(&mut self.tellers[1], &order, by_key, &mut self.chance).await;
        }
    }

    /// What becomes of a hold.
    async fn after(&mut self, order: &Order) {
        let hold = self.hold.as_millis() as u64;
        match self.chance.random_range(0..100) {
            0..40 => {
                self.pause(hold / 2).await;
                self.pay(order).await;
                if self.chance.random_ratio(3, 4) {
                    self.pause(hold).await;
                    self.tellers[0].cancel(order.id).await;
                }
            }
            // At the end of the hold, and later.
            40..45 => {
                sleep(self.hold.saturating_sub(Duration::from_millis(200))).await;
                self.pause(400).await;
                self.pay(order).await;
            }
            45..52 => {
                sleep(self.hold).await;
                self.pause(3_000).await;
                self.pay(order).await;
            }
            52..75 => {
                self.pause(hold / 2).await;
                self.tellers[0].release(order.id).await;
            }
            _ => {}
        }
    }

    async fn pay(&mut self, order: &Order) {
        let payment = PaymentRef::new(format!("pay-{}", order.id)).expect("a good name");
        let [one, other] = &mut self.tellers;
        match self.chance.random_range(0..10) {
            // Twice at once, with the same money or with other.
            0 => {
                tokio::join!(one.confirm(order.id, &payment), other.confirm(order.id, &payment));
            }
            1 => {
                let again = PaymentRef::new(format!("again-{}", order.id)).expect("a good name");
                tokio::join!(one.confirm(order.id, &payment), other.confirm(order.id, &again));
            }
            2 | 3 => {
                one.confirm(order.id, &payment).await;
                other.confirm(order.id, &payment).await;
            }
            _ => {
                one.confirm(order.id, &payment).await;
            }
        }
    }

    async fn pause(&mut self, millis_max: u64) {
        sleep(Duration::from_millis(self.chance.random_range(0..=millis_max))).await;
    }
}

/// Sends an order until it is decided, or turned away several times.
pub(super) async fn buy(
    teller: &mut Teller,
    order: &Order,
    by_key: bool,
    chance: &mut StdRng,
) -> Option<Order> {
    let mut accepted: Option<OrderId> = None;
    let mut turned_away = 0;
    loop {
        let wait = chance.random_ratio(3, 5).then_some(WAIT_SECONDS);
        let patience = chance.random_ratio(1, 12);
        let patience = patience.then(|| Duration::from_micros(chance.random_range(100..20_000)));
        let answer = match accepted {
            Some(id) => teller.look(id, Manner { wait: Some(WAIT_SECONDS), patience }).await,
            None => teller.place(order, by_key, Manner { wait, patience }).await,
        };
        match answer {
            Answer::Shown(shown) if shown.state == OrderState::Queued => {
                accepted = Some(shown.id).filter(|_| chance.random_ratio(9, 10));
            }
            Answer::Shown(shown) => return Some(shown),
            Answer::TurnedAway(_) => {
                turned_away += 1;
                if turned_away == ATTEMPTS || chance.random_bool(0.5) {
                    return None;
                }
                sleep(Duration::from_millis(chance.random_range(1..40))).await;
            }
            Answer::Nothing if patience.is_some() => {}
            Answer::Nothing => sleep(Duration::from_millis(chance.random_range(20..80))).await,
            _ => return None,
        }
    }
}

/// An id as a client may choose it.
pub(super) fn any_id(chance: &mut impl Rng) -> OrderId {
    let bytes: [u8; 16] = chance.random();
    OrderId::from_uuid(Builder::from_random_bytes(bytes).into_uuid())
}
