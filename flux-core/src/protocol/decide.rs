//! The decisions. A [`View`] is what a worker knows under its claims; deciding
//! changes the view, and the commit makes the store agree or refuses.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::commit::{Effect, Expect, FencingToken, OrderWrite, OverCap};
use super::ids::{BuyerId, ItemId, OrderId};
use super::item::ItemSpec;
use super::limits::Timestamp;
use super::message::Message;
use super::order::{Hold, Line, Order, OrderState, Reason};
use super::payment::{late, stray};
use super::stock::Stock;

/// An item taken over in the store: its definition and stock at that moment,
/// and the token that fences everybody who claimed it before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The token to send with every commit.
    pub token: FencingToken,
    /// The definition.
    pub spec: Arc<ItemSpec>,
    /// The stock.
    pub stock: Stock,
}

/// The decision on a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Write this.
    Write(OrderWrite),
    /// Write nothing: the order is past that, or was never there.
    Nothing,
}

/// The claimed items of one batch, and what is known of its buyers.
#[derive(Debug, Default)]
pub struct View {
    claims: HashMap<ItemId, Claim, RandomState>,
    /// The least number of units of a capped item that the buyer holds or owns.
    live: HashMap<(ItemId, BuyerId), u32, RandomState>,
    /// Orders that the rules about buyers bar from a hold.
    barred: HashSet<OrderId, RandomState>,
}

impl View {
    /// Adds a claim, or replaces the item's older one.
    pub fn insert(&mut self, claim: Claim) {
        self.claims.insert(claim.spec.id.clone(), claim);
    }

    /// Adds the claims of another view, which replace older ones.
    pub fn merge(&mut self, other: Self) {
        self.claims.extend(other.claims);
    }

    /// Forgets an item.
    pub fn remove(&mut self, item: &ItemId) -> Option<Claim> {
        self.claims.remove(item)
    }

    /// The claim of an item, if there is one.
    #[must_use]
    pub fn get(&self, item: &ItemId) -> Option<&Claim> {
        self.claims.get(item)
    }

    /// Adds what a commit's refusal told of a buyer.
    pub fn learn(&mut self, over: OverCap) {
        let live = self.live.entry((over.item, over.buyer)).or_default();
        *live = over.live.max(*live);
    }

    /// Bars an order from a hold, as a commit's refusal told.
    pub fn bar(&mut self, order: OrderId) {
        self.barred.insert(order);
    }

    /// Forgets all buyers: what is known of them is as old as the batch.
    pub fn forget_buyers(&mut self) {
        self.live.clear();
        self.barred.clear();
    }

    /// Decides a message at `now`. `found` is the order as the store has it.
    ///
    /// A [`Message::Place`] of an order that is already there is
    /// [`Verdict::Nothing`]: it is decided once, and every repeat gets that.
    pub fn decide(&mut self, message: &Message, found: Option<&Order>, now: Timestamp) -> Verdict {
        let (order, state) = match (message, found) {
            (Message::Place(order), None) => return Verdict::Write(self.place(order, now)),
            (Message::Place(_), Some(_)) | (_, None) => return Verdict::Nothing,
            // Its item is gone, or about to go with it, so it frees nothing.
            (_, Some(order)) if order.status().owns_stock() && !self.has_all(order) => {
                return Verdict::Nothing;
            }
            (_, Some(order)) => match self.follow_up(message, order, now) {
                Some(state) => (order, state),
                None => return owed(message, order, now),
            },
        };
        let expect = Expect::Status(order.status());
        let order = match &state {
            OrderState::Cancelled(..) | OrderState::RefundDue(..) => order.owing(state, now),
            _ => order.with_state(state),
        };
        Verdict::Write(OrderWrite { order, expect })
    }

    /// Undoes what decisions took and gave back, if their commit was refused. Of the orders
    /// that `moved`, one may have given something back before, and then the claim showed
    /// that already: its items are forgotten.
    pub fn undo(&mut self, writes: &[OrderWrite], moved: &[OrderId]) {
        // Backwards, as a later order may have taken what an earlier one gave back.
        for write in writes.iter().rev() {
            match write.effect() {
                Effect::Takes => self.give_back(&write.order),
                Effect::GivesBack => {
                    let is_sure = !moved.contains(&write.order.id);
                    for line in write.order.lines.iter() {
                        let claim = self.claims.get_mut(&line.item).filter(|_| is_sure);
                        let again = claim.map(|claim| claim.stock.take(&claim.spec, &line.ask));
                        if !matches!(again, Some(Ok(()))) {
                            self.claims.remove(&line.item);
                        }
                    }
                }
                Effect::None => {}
            }
        }
    }

    fn has_all(&self, order: &Order) -> bool {
        order.lines.iter().all(|line| self.claims.contains_key(&line.item))
    }

    fn place(&mut self, order: &Order, now: Timestamp) -> OrderWrite {
        let order = match self.try_place(order, now) {
            Ok(hold) => order.with_state(OrderState::Held(hold)),
            Err((reason, line)) => Order {
                // An order has 10 lines at most.
                failed_line: line.map(|line| line as u8),
                ..order.with_state(OrderState::Rejected(now, reason))
            },
        };
        OrderWrite { order, expect: Expect::Absent }
    }

    /// Takes what an order asks for, or tells why not, and for which line.
    fn try_place(
        &mut self,
        order: &Order,
        now: Timestamp,
    ) -> Result<Hold, (Reason, Option<usize>)> {
        let mut expires_at = Timestamp::from_millis(u64::MAX);
        for (index, line) in order.lines.iter().enumerate() {
            let of_line = |reason| (reason, Some(index));
            let claim = self.claims.get(&line.item).ok_or(of_line(Reason::UnknownItem))?;
            let spec = &claim.spec;
            if spec.opens_at.is_some_and(|opens| order.placed_at < opens) {
                return Err(of_line(Reason::NotOpen));
            }
            if spec.closes_at.is_some_and(|closes| order.placed_at >= closes) {
                return Err(of_line(Reason::Closed));
            }
            expires_at = expires_at.min(now + spec.hold.as_duration());
        }
        if self.barred.contains(&order.id) {
            return Err((Reason::BuyerLimit, None));
        }
        self.take(order).map_err(|(reason, index)| (reason, Some(index)))?;
        Ok(Hold { decided_at: now, expires_at })
    }

    fn follow_up(
        &mut self,
        message: &Message,
        order: &Order,
        now: Timestamp,
    ) -> Option<OrderState> {
        match (message, &order.state) {
            (Message::Release(_), OrderState::Held(hold)) => {
                self.give_back(order);
                Some(if now < hold.expires_at {
                    let released_at = now.max(hold.decided_at);
                    OrderState::Released(Hold { expires_at: released_at, ..*hold })
                } else {
                    OrderState::Expired(*hold)
                })
            }
            (Message::Expire(_), OrderState::Held(hold)) if now >= hold.expires_at => {
                self.give_back(order);
                Some(OrderState::Expired(*hold))
            }
            (Message::Cancel(_), OrderState::Confirmed(hold, payment)) => {
                self.give_back(order);
                Some(OrderState::Cancelled(*hold, payment.clone()))
            }
            (Message::LatePayment(_, payment), _) => late(order, payment, || self.take(order)),
            _ => None,
        }
    }

    /// Takes every line of the order, or none, and tells which of them failed.
    fn take(&mut self, order: &Order) -> Result<(), (Reason, usize)> {
        // G5: the first line that gets nothing gives back what those before took.
        for (index, line) in order.lines.iter().enumerate() {
            if let Err(reason) = self.take_line(&order.buyer, line) {
                for line in &order.lines[..index] {
                    self.give_line_back(&order.buyer, line);
                }
                return Err((reason, index));
            }
        }
        Ok(())
    }

    fn take_line(&mut self, buyer: &BuyerId, line: &Line) -> Result<(), Reason> {
        let claim = self.claims.get_mut(&line.item).ok_or(Reason::UnknownItem)?;
        let Some(cap) = claim.spec.max_per_buyer else {
            return claim.stock.take(&claim.spec, &line.ask);
        };
        let live = self.live.entry((line.item.clone(), buyer.clone())).or_default();
        let live_after = *live + line.ask.units();
        if live_after > cap.get() {
            return Err(Reason::BuyerLimit);
        }
        claim.stock.take(&claim.spec, &line.ask)?;
        *live = live_after;
        Ok(())
    }

    fn give_back(&mut self, order: &Order) {
        for line in order.lines.iter() {
            self.give_line_back(&order.buyer, line);
        }
    }

    fn give_line_back(&mut self, buyer: &BuyerId, line: &Line) {
        let Some(claim) = self.claims.get_mut(&line.item) else { return };
        claim.stock.give_back(&claim.spec, &line.ask);
        if let Some(live) = self.live.get_mut(&(line.item.clone(), buyer.clone())) {
            // A lower bound stays one.
            *live = live.saturating_sub(line.ask.units());
        }
    }
}

/// Money that came for an order which went another way meanwhile.
fn owed(message: &Message, order: &Order, now: Timestamp) -> Verdict {
    match message {
        Message::LatePayment(_, payment) => {
            stray(order, payment, now).map_or(Verdict::Nothing, Verdict::Write)
        }
        _ => Verdict::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::protocol::{ConfirmRuling, Lines, OrderId, OrderStatus, PaymentRef, confirm};

    const T0: Timestamp = Timestamp::from_millis(1_000_000);

    fn view(specs: &[ItemSpec]) -> View {
        let mut view = View::default();
        for spec in specs {
            let (token, stock) = (FencingToken(1), Stock::full(spec));
            view.insert(Claim { token, spec: Arc::new(spec.clone()), stock });
        }
        view
    }

    fn order(n: u128, buyer: &str, lines: Vec<Line>) -> Order {
        let id = OrderId::from_uuid(uuid::Uuid::from_u128(n));
        let buyer = BuyerId::new(buyer).expect("buyer");
        Order::queued(id, buyer, Lines::new(lines).expect("lines"), T0)
    }

    fn units(item: &str, n: u64) -> Line {
        Line::units(item, n).expect("line")
    }

    fn place(view: &mut View, order: &Order) -> Order {
        match view.decide(&Message::Place(order.clone()), None, T0) {
            Verdict::Write(write) => {
                assert_eq!(write.expect, Expect::Absent);
                write.order
            }
            Verdict::Nothing => panic!("a new order is decided"),
        }
    }

    fn follow(view: &mut View, message: &Message, order: &Order, now: Timestamp) -> Option<Order> {
        match view.decide(message, Some(order), now) {
            Verdict::Write(write) => Some(write.order),
            Verdict::Nothing => None,
        }
    }

    fn left(view: &View, item: &str) -> u32 {
        view.get(&ItemId::new(item).expect("item")).expect("claimed").stock.available()
    }

    #[test]
    fn an_order_takes_all_its_lines_or_none() {
        let pool = |id, n| ItemSpec::pool(id, n).expect("pool");
        let mut view = view(&[pool("a", 5), pool("b", 1)]);
        let both = place(&mut view, &order(1, "ann", vec![units("a", 3), units("b", 2)]));
        assert_eq!(both.reason(), Some(Reason::SoldOut));
        assert_eq!((left(&view, "a"), left(&view, "b")), (5, 1));

        let summed = place(&mut view, &order(2, "ann", vec![units("a", 3), units("a", 3)]));
        assert_eq!(summed.reason(), Some(Reason::SoldOut));
        assert_eq!(left(&view, "a"), 5);

        let unknown = place(&mut view, &order(3, "ann", vec![units("a", 1), units("c", 1)]));
        assert_eq!(unknown.reason(), Some(Reason::UnknownItem));
        assert_eq!(left(&view, "a"), 5);
    }

    #[test]
    fn an_order_that_is_turned_down_names_the_line() {
        let spec = |id: &str| ItemSpec::builder().id(id.to_owned()).capacity(5);
        let mut view = view(&[
            spec("a").build().expect("a"),
            spec("capped").max_per_buyer(1).build().expect("capped"),
            spec("later").opens_at(T0 + Duration::from_millis(1)).build().expect("later"),
            spec("over").closes_at(T0).build().expect("over"),
        ]);
        let mut failed = |second: Line| {
            let order = order(1, "ann", vec![units("a", 1), second]);
            let placed = place(&mut view, &order);
            (placed.reason(), placed.failed_line)
        };
        for (second, reason) in [
            (units("a", 5), Reason::SoldOut),
            (units("capped", 2), Reason::BuyerLimit),
            (units("later", 1), Reason::NotOpen),
            (units("over", 1), Reason::Closed),
            (units("nothing", 1), Reason::UnknownItem),
        ] {
            assert_eq!(failed(second), (Some(reason), Some(1)), "{reason}");
        }
        assert_eq!(failed(units("a", 1)), (None, None));
        let barred = order(2, "ben", vec![units("a", 1)]);
        view.bar(barred.id);
        let placed = place(&mut view, &barred);
        assert_eq!((placed.reason(), placed.failed_line), (Some(Reason::BuyerLimit), None));
    }

    #[test]
    fn a_seat_has_one_owner_and_comes_back() {
        let mut view = view(&[ItemSpec::hall("h", ["A1", "A2"]).expect("hall")]);
        let seat = |n, seat: &str| order(n, "ann", vec![Line::seats("h", [seat]).expect("line")]);
        let first = place(&mut view, &seat(1, "A1"));
        assert_eq!(first.status(), OrderStatus::Held);
        assert_eq!(place(&mut view, &seat(2, "A1")).reason(), Some(Reason::SeatTaken));
        assert_eq!(place(&mut view, &seat(3, "Z9")).reason(), Some(Reason::SeatTaken));
        follow(&mut view, &Message::Release(first.id), &first, T0).expect("released");
        assert_eq!(place(&mut view, &seat(4, "A1")).status(), OrderStatus::Held);
    }

    #[test]
    fn the_shortest_hold_counts_and_times_are_judged_by_acceptance() {
        let spec = |id: &str| ItemSpec::builder().id(id.to_owned()).capacity(9);
        let mut view = view(&[
            spec("a").hold_seconds(60).build().expect("a"),
            spec("b").hold_seconds(30).build().expect("b"),
            spec("later").opens_at(T0 + Duration::from_millis(1)).build().expect("later"),
            spec("over").closes_at(T0).build().expect("over"),
        ]);
        let held = place(&mut view, &order(1, "ann", vec![units("a", 1), units("b", 1)]));
        assert_eq!(held.hold().expect("held").expires_at, T0 + Duration::from_secs(30));
        let reason =
            |view: &mut View, item| place(view, &order(2, "ann", vec![units(item, 1)])).reason();
        assert_eq!(reason(&mut view, "later"), Some(Reason::NotOpen));
        assert_eq!(reason(&mut view, "over"), Some(Reason::Closed));
    }

    #[test]
    fn a_cap_counts_the_batch_and_what_the_store_told() {
        let capped = ItemSpec::builder().id("a").capacity(9).max_per_buyer(2).build().expect("a");
        let mut view = view(&[capped]);
        let one = |n, buyer| order(n, buyer, vec![units("a", 1)]);
        assert_eq!(place(&mut view, &one(1, "ann")).status(), OrderStatus::Held);
        assert_eq!(place(&mut view, &one(2, "ann")).status(), OrderStatus::Held);
        assert_eq!(place(&mut view, &one(3, "ann")).reason(), Some(Reason::BuyerLimit));
        let (item, buyer) = (ItemId::new("a").expect("a"), BuyerId::new("bob").expect("bob"));
        view.learn(OverCap { item, buyer, live: 2 });
        assert_eq!(place(&mut view, &one(4, "bob")).reason(), Some(Reason::BuyerLimit));
        assert_eq!(left(&view, "a"), 7);
    }

    #[test]
    fn a_late_payment_ends_in_a_ticket_or_one_refund() {
        let mut view = view(&[ItemSpec::pool("a", 1).expect("pool")]);
        let held = place(&mut view, &order(1, "ann", vec![units("a", 1)]));
        let end = held.hold().expect("held").expires_at;
        let payment = PaymentRef::new("pay-1").expect("ref");
        assert!(matches!(confirm(&held, &payment, T0), ConfirmRuling::Write(_)));
        assert_eq!(confirm(&held, &payment, end), ConfirmRuling::Late);

        assert_eq!(follow(&mut view, &Message::Expire(held.id), &held, T0), None, "too early");
        let expired = follow(&mut view, &Message::Expire(held.id), &held, end).expect("due");
        assert_eq!((expired.status(), left(&view, "a")), (OrderStatus::Expired, 1));

        let late = Message::LatePayment(held.id, payment.clone());
        let other = place(&mut view, &order(2, "bob", vec![units("a", 1)]));
        let owed = follow(&mut view, &late, &expired, end).expect("ruled");
        assert_eq!(owed.status(), OrderStatus::RefundDue);
        assert_eq!(confirm(&owed, &payment, end), ConfirmRuling::Repeat);
        assert_eq!(follow(&mut view, &late, &owed, end), None, "one refund");

        follow(&mut view, &Message::Release(other.id), &other, T0).expect("released");
        let paid = follow(&mut view, &late, &expired, end).expect("ruled");
        assert_eq!((paid.status(), left(&view, "a")), (OrderStatus::Confirmed, 0));
        let cancelled =
            follow(&mut view, &Message::Cancel(paid.id), &paid, end).expect("cancelled");
        assert_eq!((cancelled.status(), left(&view, "a")), (OrderStatus::Cancelled, 1));
        assert_eq!(confirm(&cancelled, &payment, end), ConfirmRuling::NotHeld);
    }

    #[test]
    fn what_a_buyer_gives_back_counts_for_its_cap_no_more() {
        let capped = ItemSpec::builder().id("a").capacity(9).max_per_buyer(2).build().expect("a");
        let mut view = view(&[capped]);
        let two = |n| order(n, "ann", vec![units("a", 2)]);
        let held = place(&mut view, &two(1));
        assert_eq!(place(&mut view, &two(2)).reason(), Some(Reason::BuyerLimit));
        follow(&mut view, &Message::Release(held.id), &held, T0).expect("released");
        assert_eq!(place(&mut view, &two(3)).status(), OrderStatus::Held);
        assert_eq!(left(&view, "a"), 7);
    }

    #[test]
    fn what_is_told_of_buyers_counts_until_it_is_forgotten() {
        let capped = ItemSpec::builder().id("a").capacity(9).max_per_buyer(2).build().expect("a");
        let mut view = view(&[capped]);
        let (item, buyer) = (ItemId::new("a").expect("a"), BuyerId::new("bob").expect("bob"));
        let one = |n, buyer| order(n, buyer, vec![units("a", 1)]);
        for live in [2, 1] {
            view.learn(OverCap { item: item.clone(), buyer: buyer.clone(), live });
        }
        view.bar(one(2, "ann").id);
        let reasons = |view: &mut View| {
            [one(1, "bob"), one(2, "ann")].map(|order| place(view, &order).reason())
        };
        assert_eq!(reasons(&mut view), [Some(Reason::BuyerLimit); 2], "the most that was told");
        view.forget_buyers();
        assert_eq!(reasons(&mut view), [None; 2]);
    }

    #[test]
    fn what_is_undone_leaves_the_stock_as_it_was_or_unknown() {
        let hall = ItemSpec::hall("h", ["A1", "A2", "A3"]).expect("hall");
        let mut view = view(&[ItemSpec::pool("a", 3).expect("pool"), hall]);
        let seat = |name: &str| Line::seats("h", [name]).expect("line");
        let first = place(&mut view, &order(1, "ann", vec![units("a", 2), seat("A1")]));
        let stocks = |view: &View| {
            ["a", "h"].map(|item| view.get(&item.parse().expect("item")).map(|c| c.stock.clone()))
        };
        let before = stocks(&view);
        let decide = |view: &mut View, message: &Message, found: Option<&Order>| {
            let Verdict::Write(write) = view.decide(message, found, T0) else { panic!("decided") };
            write
        };
        let next = |n, lines| Message::Place(order(n, "bob", lines));
        let news =
            [(2, vec![units("a", 1), seat("A2")]), (3, vec![seat("A2")]), (4, vec![seat("A3")])];
        let placed = news.clone().map(|(n, lines)| decide(&mut view, &next(n, lines), None));
        let mut writes = placed.to_vec();
        view.undo(&writes, &[]);
        assert_eq!(stocks(&view), before);

        // What is given back, one that comes later takes.
        let last = next(5, vec![units("a", 3), seat("A1")]);
        let release = Message::Release(first.id);
        let all = |view: &mut View| -> Vec<OrderWrite> {
            let placed = news.iter().map(|(n, lines)| (next(*n, lines.clone()), None));
            let released = [(release.clone(), Some(&first)), (last.clone(), None)];
            placed.chain(released).map(|(message, found)| decide(view, &message, found)).collect()
        };
        let [held, rejected] = [OrderStatus::Held, OrderStatus::Rejected];
        writes = all(&mut view);
        let states: Vec<OrderStatus> = writes.iter().map(|write| write.order.status()).collect();
        assert_eq!(states, [held, rejected, held, OrderStatus::Released, rejected]);
        view.undo(&writes, &[]);
        assert_eq!(stocks(&view), before);
        writes = vec![decide(&mut view, &release, Some(&first)), decide(&mut view, &last, None)];
        assert_eq!(writes[1].order.status(), held);
        view.undo(&writes, &[]);
        assert_eq!(stocks(&view), before);
        writes = all(&mut view);
        view.undo(&writes, &[first.id]);
        assert_eq!(stocks(&view), [None, None]);
    }

    #[test]
    fn a_release_ends_the_hold_when_it_comes() {
        let mut view = view(&[ItemSpec::pool("a", 9).expect("pool")]);
        let held = place(&mut view, &order(1, "ann", vec![units("a", 1)]));
        let hold = held.hold().expect("held");
        let release = Message::Release(held.id);
        let before = Timestamp::from_millis(1);
        let last = Timestamp::from_millis(hold.expires_at.as_millis() - 1);
        for (now, ended) in [(last, last), (T0, T0), (before, hold.decided_at)] {
            let released = follow(&mut view, &release, &held, now).expect("released");
            assert_eq!(released.status(), OrderStatus::Released);
            assert_eq!(released.hold(), Some(Hold { expires_at: ended, ..hold }));
        }
        let late = follow(&mut view, &release, &held, hold.expires_at).expect("over");
        assert_eq!(late.state, OrderState::Expired(hold), "it was over before");
    }
}
