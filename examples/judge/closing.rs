//! The end of a round: buyers for all that is left, who pay at once, and a last
//! look at each order.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use flux_core::conformance::history::{Answer, Call, Told};
use flux_core::{
    BuyerId, ItemId, ItemKind, ItemSpec, Line, Lines, Order, OrderId, OrderState, OrderStatus,
    PaymentRef, Timestamp,
};
use futures_util::future::join_all;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::time::{Instant, sleep};

use super::buyer::{any_id, buy};
use super::round::Round;
use super::teller::{Manner, Teller};

const PAUSE: Duration = Duration::from_millis(200);
const LOOKERS: usize = 8;
const BUYERS: usize = 8;
/// Of so many orders that were turned away one is looked for.
const TURNED_AWAY_SHARE: usize = 20;
/// Longest time for which the decision of one order is waited for at the end, besides
/// that of a recovery.
const DECISION_MAX: Duration = Duration::from_secs(60);

/// Sells what is left of each item, then looks at each order once more.
pub(super) async fn sell_out(round: &Round) {
    // Whatever the clients let go is on sale again by then.
    let over = round.notes.now() + round.court.options.hold();
    let seeds = round.court.seed.wrapping_sub(u64::from(round.number) << 32)..;
    join_all(round.goods.items.iter().zip(seeds).map(|(item, seed)| sell(round, item, over, seed)))
        .await;
    look_at_all(round).await;
}

/// Buys all of an item: a hall by several buyers at once, as each seat takes an order.
async fn sell(round: &Round, item: &ItemSpec, over: Duration, seed: u64) {
    let wanted: Vec<Line> = match &item.kind {
        ItemKind::Seats(hall) => hall
            .names()
            .iter()
            .map(|seat| Line::seats(&item.id, [seat]).expect("a seat of the hall"))
            .collect(),
        ItemKind::Pool(_) => vec![Line::units(&item.id, 1).expect("a good line")],
    };
    let share = wanted.len().div_ceil(BUYERS).max(1);
    let shares = wanted.chunks(share).zip(0_u64..);
    let shares = shares.map(|(wanted, n)| buy_all(round, item, wanted, over, seed ^ (n << 48)));
    join_all(shares).await;
}

/// Buys these lines of an item, of a pool again and again, and stops when all of it is
/// sold, or nothing was to be had though all that was let go before `over` must be back.
async fn buy_all(round: &Round, item: &ItemSpec, wanted: &[Line], over: Duration, seed: u64) {
    let mut teller = Teller::new(&round.court.site, &round.notes);
    let mut chance = StdRng::seed_from_u64(seed);
    let mut wanted = wanted.to_vec();
    while !wanted.is_empty() && sold(&round.notes.told(), &item.id) < item.capacity() {
        let last = round.notes.now() > round.terms().returned_by(over);
        let mut left = Vec::new();
        for line in wanted {
            let is_pool = matches!(item.kind, ItemKind::Pool(_));
            let mut is_sold = buy_and_pay(&mut teller, &line, &mut chance).await;
            while is_pool && is_sold {
                is_sold = buy_and_pay(&mut teller, &line, &mut chance).await;
            }
            if !is_sold && !last {
                left.push(line);
            }
        }
        wanted = left;
        sleep(PAUSE).await;
    }
}

/// Units of an item that were told to be paid for, by the last answer to each order.
fn sold(told: &[Told], item: &ItemId) -> u32 {
    let mut last: HashMap<OrderId, (Duration, &Order)> = HashMap::new();
    for told in told {
        if let Answer::Shown(order) = &told.answer {
            let known = last.entry(order.id).or_insert((told.asked_at, order));
            if told.asked_at >= known.0 {
                *known = (told.asked_at, order);
            }
        }
    }
    let paid = last.values().filter(|(_, order)| order.status() == OrderStatus::Confirmed);
    let lines = paid.flat_map(|(_, order)| order.lines.iter());
    lines.filter(|line| line.item == *item).map(|line| line.ask.units()).sum()
}

/// Whether a buyer got it, and paid.
async fn buy_and_pay(teller: &mut Teller, line: &Line, chance: &mut StdRng) -> bool {
    let id = any_id(chance);
    let buyer = BuyerId::new(format!("last-{id}")).expect("a good name");
    let lines = Lines::new(vec![line.clone()]).expect("one line");
    let order = Order::queued(id, buyer, lines, Timestamp::now());
    match buy(teller, &order, false, chance).await {
        Some(held) if held.status() == OrderStatus::Held => {
            let payment = PaymentRef::new(format!("pay-{id}")).expect("a good name");
            teller.confirm(id, &payment).await;
            true
        }
        _ => false,
    }
}

/// Asks for each order until it is decided; of those that were turned away, for some.
async fn look_at_all(round: &Round) {
    let (mut known, mut turned_away) = (BTreeSet::new(), BTreeSet::new());
    for told in round.notes.told() {
        match (&told.call, &told.answer) {
            (_, Answer::Shown(shown)) => known.insert(shown.id),
            // The id that a key was given is not known.
            (Call::PlaceByKey(_), _) => false,
            (call, Answer::TurnedAway(_)) => turned_away.insert(call.order()),
            (call, _) => known.insert(call.order()),
        };
    }
    let accepted = &accepted(&round.notes.told());
    known.extend(turned_away.into_iter().step_by(TURNED_AWAY_SHARE));
    let known: Vec<OrderId> = known.into_iter().collect();
    let decision_max = DECISION_MAX + round.court.options.recovery();
    let share = known.len().div_ceil(LOOKERS).max(1);
    join_all(known.chunks(share).map(|ids| async move {
        let mut teller = Teller::new(&round.court.site, &round.notes);
        for id in ids {
            look(&mut teller, *id, accepted.contains(id), decision_max).await;
        }
    }))
    .await;
}

/// Orders that were told to be queued, and of which nothing else is known.
fn accepted(told: &[Told]) -> BTreeSet<OrderId> {
    let (mut accepted, mut decided) = (BTreeSet::new(), BTreeSet::new());
    for told in told {
        if let Answer::Shown(order) = &told.answer {
            let is_queued = order.state == OrderState::Queued;
            if is_queued { &mut accepted } else { &mut decided }.insert(order.id);
        }
    }
    accepted.retain(|id| !decided.contains(id));
    accepted
}

/// Asks for an order until it is decided; one that was accepted, even if it is not known.
async fn look(teller: &mut Teller, id: OrderId, is_accepted: bool, longest: Duration) {
    let end = Instant::now() + longest;
    while Instant::now() < end {
        let answer = teller.look(id, Manner { wait: Some(10), patience: None }).await;
        match answer {
            Answer::Shown(order) if order.state == OrderState::Queued => {}
            Answer::Nothing => sleep(PAUSE).await,
            Answer::NotFound if is_accepted => sleep(PAUSE).await,
            _ => return,
        }
    }
}
