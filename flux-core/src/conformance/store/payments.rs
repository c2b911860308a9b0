//! G9: a payment ends in a ticket or in one refund.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::shop::{
    HOLD, Shop, T0, after, cancelled, confirmed, expired, held, owing, payment, place, pool,
    refund_due, rejected, released, turn, units,
};
use crate::conformance::check::{Checked, Failure, ensure, same};
use crate::protocol::{CommitOutcome, Order, OrderStatus, Timestamp};
use crate::seams::{ConfirmOutcome, InventoryStore, Payment};

fn one(n: u128) -> Order {
    held(n, "ann", &[units("a", 1)])
}

pub(super) async fn a_payment_is_ruled_on_by_the_orders_state<S>(store: Arc<S>) -> Checked
where
    S: InventoryStore + ?Sized,
{
    let shop = Shop::open(store, &[pool("a", 20)]).await?;
    let a = shop.claim("a").await?;
    let [live, freed, over, owed, back, due] = [1, 2, 3, 4, 5, 6].map(one);
    let no = rejected(7, "ann", &[units("a", 1)]);
    shop.apply(&[&a], &[&live, &freed, &over, &owed, &back, &due, &no].map(place)).await?;
    shop.apply(&[&a], &[turn(&freed, &released(&freed))]).await?;
    shop.apply(&[&a], &[turn(&over, &expired(&over)), turn(&owed, &expired(&owed))]).await?;
    let refund = refund_due(&owed, "p4");
    shop.apply(&[&a], &[turn(&expired(&owed), &refund)]).await?;
    let back = shop.pay(&back, "p5").await?;
    shop.apply(&[&a], &[turn(&back, &cancelled(&back, "p5"))]).await?;

    let rule = async |order: &Order, by, at, should_be| {
        let what = format!("payment {by} for order {}", order.id);
        same(&what, &shop.confirm(order, by, at).await?, &should_be)
    };
    let end = after(HOLD);
    let just_before = Timestamp::from_millis(end.as_millis() - 1);
    use ConfirmOutcome::{Late, NotFound, NotHeld, Settled};
    rule(&one(99), "p1", T0, NotFound).await?;
    let paid = confirmed(&live, "p1");
    rule(&live, "p1", just_before, Settled(paid.clone())).await?;
    rule(&live, "p1", just_before, Settled(paid.clone())).await?;
    // The repeat of a payment is known as one however late it comes.
    rule(&live, "p1", after(HOLD * 2), Settled(paid.clone())).await?;
    rule(&live, "other", T0, NotHeld(paid.clone())).await?;
    let late = |order: &Order, by| owing(order, by, after(HOLD));
    let freed_owing = late(&released(&freed), "p2");
    rule(&freed, "p2", after(HOLD), NotHeld(freed_owing.clone())).await?;
    rule(&over, "p3", T0, Late(expired(&over))).await?;
    rule(&owed, "p4", end, Settled(refund.clone())).await?;
    rule(&owed, "other", end, NotHeld(refund.clone())).await?;
    rule(&back, "p5", T0, NotHeld(cancelled(&back, "p5"))).await?;
    rule(&due, "p6", end, Late(due.clone())).await?;
    rule(&due, "p6", after(HOLD * 2), Late(due.clone())).await?;
    let no_owing = late(&no, "p7");
    rule(&no, "p7", after(HOLD), NotHeld(no_owing.clone())).await?;
    // Noted once; another payment is its caller's to return.
    rule(&freed, "p2", after(HOLD * 2), NotHeld(freed_owing.clone())).await?;
    rule(&no, "other", after(HOLD * 2), NotHeld(no_owing.clone())).await?;
    shop.stored(&[&paid, &freed_owing, &expired(&over), &refund, &due, &no_owing]).await?;
    shop.numbers("a", (18, 1, 1)).await
}

pub(super) async fn payments_of_one_call_are_answered_in_order<S>(store: Arc<S>) -> Checked
where
    S: InventoryStore + ?Sized,
{
    let shop = Shop::open(store, &[pool("a", 20)]).await?;
    let (one, two) = (one(1), one(2));
    shop.sell(&["a"], &[place(&one), place(&two)]).await?;
    let pay = |order: &Order, by| Payment { order: order.id, payment: payment(by), at: T0 };
    let payments = [pay(&two, "p2"), pay(&self::one(9), "p9"), pay(&one, "p1"), pay(&two, "p2")];
    let outcomes = shop.store.confirm(&payments).await?;
    let settled = |order, by| ConfirmOutcome::Settled(confirmed(order, by));
    let should_be = vec![
        settled(&two, "p2"),
        ConfirmOutcome::NotFound,
        settled(&one, "p1"),
        settled(&two, "p2"),
    ];
    same("payments, in the order asked", &outcomes, &should_be)?;
    shop.numbers("a", (18, 0, 2)).await?;
    same("payments of nothing", &shop.store.confirm(&[]).await?, &vec![])
}

pub(super) async fn a_payment_needs_no_claim_and_fences_nobody<S>(store: Arc<S>) -> Checked
where
    S: InventoryStore + ?Sized,
{
    let shop = Shop::open(store, &[pool("a", 20)]).await?;
    let a = shop.claim("a").await?;
    let (one, two) = (one(1), one(2));
    shop.apply(&[&a], &[place(&one)]).await?;
    shop.pay(&one, "p1").await?;
    shop.apply(&[&a], &[place(&two)]).await?;
    shop.claim("a").await?;
    shop.pay(&two, "p2").await?;
    shop.numbers("a", (18, 0, 2)).await
}

/// A payment against the end of its hold: the order's own condition lets one win.
pub(super) async fn a_payment_and_the_end_of_its_hold_race<S>(store: Arc<S>) -> Checked
where
    S: InventoryStore + ?Sized,
{
    const ROUNDS: u128 = 60;
    let shop = Shop::open(store, &[pool("a", 1_000)]).await?;
    let mut sold = 0;
    for n in 1..=ROUNDS {
        let order = one(n);
        shop.sell(&["a"], &[place(&order)]).await?;
        let ended = if n % 2 == 0 { expired(&order) } else { released(&order) };
        let claim = shop.claim("a").await?;
        let (payer, worker, write) = (shop.clone(), shop.clone(), turn(&order, &ended));
        let held = order.clone();
        let paying = tokio::spawn(async move { payer.confirm(&held, "p", T0).await });
        let ending = tokio::spawn(async move { worker.write(&[&claim], &[write]).await });
        let paid = paying.await.map_err(|error| Failure::new(error.to_string()))??;
        let end = ending.await.map_err(|error| Failure::new(error.to_string()))??;
        let winner = match (&paid, &end) {
            (ConfirmOutcome::Settled(paid), CommitOutcome::Conflict { moved, .. }) => {
                same("the order that moved", moved, &vec![order.id])?;
                sold += 1;
                paid
            }
            (ConfirmOutcome::Late(_), CommitOutcome::Applied) => &ended,
            (ConfirmOutcome::NotHeld(owing), CommitOutcome::Applied) => {
                same("an order whose money is owed", owing, &self::owing(&ended, "p", T0))?;
                owing
            }
            _ => return Err(Failure::new(format!("not one winner: {paid:?} and {end:?}"))),
        };
        shop.stored(&[winner]).await?;
    }
    shop.numbers("a", (1_000 - sold, 0, sold)).await
}

pub(super) async fn of_two_payments_at_once_one_is_taken<S>(store: Arc<S>) -> Checked
where
    S: InventoryStore + ?Sized,
{
    const ROUNDS: u128 = 30;
    let shop = Shop::open(store, &[pool("a", 1_000)]).await?;
    for n in 1..=ROUNDS {
        let order = one(n);
        shop.sell(&["a"], &[place(&order)]).await?;
        let mut tasks = JoinSet::new();
        for by in ["p1", "p2", "p1"] {
            let (shop, order) = (shop.clone(), order.clone());
            tasks.spawn(async move { Checked::Ok((by, shop.confirm(&order, by, T0).await?)) });
        }
        let mut answers = Vec::new();
        while let Some(result) = tasks.join_next().await {
            answers.push(result.map_err(|error| Failure::new(error.to_string()))??);
        }
        let stored = shop.find(order.id).await?;
        let stored = stored.ok_or_else(|| Failure::new("a paid order is gone"))?;
        same("a paid order", &stored.status(), &OrderStatus::Confirmed)?;
        for (by, answer) in answers {
            let ours = stored.payment_ref() == Some(&payment(by));
            let fits = match &answer {
                ConfirmOutcome::Settled(order) => ours && *order == stored,
                ConfirmOutcome::NotHeld(order) => !ours && *order == stored,
                _ => false,
            };
            ensure!(fits, "{by} was answered {answer:?}, the order is {stored:?}");
        }
    }
    shop.numbers("a", (1_000 - ROUNDS as u32, 0, ROUNDS as u32)).await
}
