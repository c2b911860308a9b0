//! What can be measured from the answers: how many of each, how soon a hold that
//! ended is sold again, and who was overtaken.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Range;
use std::time::Duration;

use flux_core::conformance::history::{Answer, Call, Told};
use flux_core::{ItemId, ItemKind, ItemSpec, Order, OrderId, OrderStatus, Reason, Timestamp};

/// A moment and what was measured then.
pub(super) type Sample = (Duration, Duration);

/// The figures of some rounds.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    /// Calls that were sent.
    pub(super) calls: u64,
    /// Answers of each kind.
    pub(super) answers: BTreeMap<String, u64>,
    /// Answers of each kind, by the second.
    pub(super) by_second: BTreeMap<u64, BTreeMap<&'static str, u64>>,
    /// Orders that were decided.
    pub(super) decided: u64,
    /// From the end of each hold that ran out, of a pool of which nothing else was left, to
    /// the next buyer's hold.
    pub(super) resale: Vec<Sample>,
    /// The same, where the server was away in between.
    pub(super) resale_over_outage: Vec<Sample>,
    /// Of each order that was overtaken: from its acceptance to the moment at which the
    /// last to overtake it was sent.
    pub(super) overtaken: Vec<Sample>,
    /// Orders that were accepted before they were decided.
    pub(super) accepted: u64,
}

impl Figures {
    pub(super) fn add(&mut self, other: Self) {
        self.calls += other.calls;
        self.decided += other.decided;
        self.accepted += other.accepted;
        for (kind, many) in other.answers {
            *self.answers.entry(kind).or_default() += many;
        }
        for (second, kinds) in other.by_second {
            let here = self.by_second.entry(second).or_default();
            for (kind, many) in kinds {
                *here.entry(kind).or_default() += many;
            }
        }
        self.resale.extend(other.resale);
        self.resale_over_outage.extend(other.resale_over_outage);
        self.overtaken.extend(other.overtaken);
    }

    /// The figures of one round; what ran out when nobody came any more is left out.
    pub(super) fn of(
        told: &[Told],
        items: &[ItemSpec],
        began_at: Timestamp,
        storm_ended: Duration,
        outages: &[Range<Duration>],
    ) -> Self {
        let mut figures = Self { calls: told.len() as u64, ..Self::default() };
        for told in told {
            let kind = kind(told);
            *figures.answers.entry(kind.to_owned()).or_default() += 1;
            if matches!(told.call, Call::Place(_) | Call::PlaceByKey(_) | Call::Look(_))
                && told.answered_at < Duration::MAX
            {
                let second = figures.by_second.entry(told.answered_at.as_secs()).or_default();
                *second.entry(kind).or_default() += 1;
            }
        }
        let tales = tales(told);
        figures.decided = tales.values().filter(|tale| tale.decided.is_some()).count() as u64;
        figures.accepted = tales.values().filter(|tale| tale.accepted.is_some()).count() as u64;
        for item in items {
            figures.overtaken.extend(overtaken(&item.id, &tales));
            if matches!(item.kind, ItemKind::Seats(_)) || item.max_per_buyer.is_some() {
                // It waits for somebody who wants that seat, or who may have more.
                continue;
            }
            for (end, sold) in resales(item, &tales, began_at) {
                let [end, sold] = [end, sold].map(|time| time.since(began_at));
                if end >= storm_ended {
                    continue;
                }
                let sample = (end, sold - end);
                let over = outages.iter().any(|outage| outage.start <= sold && end <= outage.end);
                let samples = match over {
                    true => &mut figures.resale_over_outage,
                    false => &mut figures.resale,
                };
                samples.push(sample);
            }
        }
        figures
    }
}

fn kind(told: &Told) -> &'static str {
    match &told.answer {
        Answer::Shown(order) => match order.reason() {
            Some(reason) => match reason {
                Reason::SoldOut => "rejected: sold_out",
                Reason::SeatTaken => "rejected: seat_taken",
                Reason::BuyerLimit => "rejected: buyer_limit",
                Reason::NotOpen => "rejected: not_open",
                Reason::Closed => "rejected: closed",
                _ => "rejected: unknown_item",
            },
            None => order.status().as_str(),
        },
        Answer::TurnedAway(reason) => match reason {
            Reason::SoldOut => "turned away: sold_out",
            Reason::NotOpen => "turned away: not_open",
            _ => "turned away: closed",
        },
        Answer::NotFound => "not found",
        Answer::NotAllowed => "not allowed",
        Answer::Reused => "id reused",
        _ => "no answer",
    }
}

/// What became of one order, in short.
struct Tale<'t> {
    asked_at: Duration,
    order: &'t Order,
    /// The moment it was known to be accepted, while it was undecided.
    accepted: Option<Duration>,
    /// The first answer that shows a decision.
    decided: Option<(Duration, &'t Order)>,
    /// The last state that was shown.
    last: Option<(Duration, &'t Order)>,
    /// The moment it was known to have given its units back, other than by its end.
    given_back: Option<Duration>,
}

fn tales(told: &[Told]) -> HashMap<OrderId, Tale<'_>> {
    let mut tales: HashMap<OrderId, Tale<'_>> = HashMap::new();
    let mut given: HashMap<OrderId, OrderId> = HashMap::new();
    for told in told {
        if let (Call::PlaceByKey(order), Answer::Shown(shown)) = (&told.call, &told.answer) {
            given.insert(order.id, shown.id);
        }
    }
    let mut by_time: Vec<&Told> = told.iter().collect();
    by_time.sort_by_key(|told| told.asked_at);
    for told in by_time {
        let id = told.call.order();
        let id = given.get(&id).copied().unwrap_or(id);
        if let Call::Place(order) | Call::PlaceByKey(order) = &told.call {
            tales.entry(id).or_insert_with(|| Tale {
                asked_at: told.asked_at,
                order,
                accepted: None,
                decided: None,
                last: None,
                given_back: None,
            });
        }
        let Some(tale) = tales.get_mut(&id) else { continue };
        let Answer::Shown(order) = &told.answer else { continue };
        let at = told.answered_at;
        match order.status() {
            OrderStatus::Queued => {
                tale.accepted = Some(tale.accepted.map_or(at, |known| known.min(at)));
            }
            _ if tale.decided.is_none_or(|(known, _)| at < known) => {
                tale.decided = Some((at, order));
            }
            _ => {}
        }
        if matches!(order.status(), OrderStatus::Released | OrderStatus::Cancelled) {
            tale.given_back = Some(tale.given_back.map_or(at, |known| known.min(at)));
        }
        tale.last = Some((at, order));
    }
    tales
}

/// The end of each hold of a pool's that ran out while nothing else was left, and when
/// its unit was next sold, by the server's own times.
fn resales(
    pool: &ItemSpec,
    tales: &HashMap<OrderId, Tale<'_>>,
    began_at: Timestamp,
) -> Vec<(Timestamp, Timestamp)> {
    // `None`: a unit is sold. `Some`: one is back, and whether its hold ran out.
    let mut changes: Vec<(Timestamp, Option<bool>)> = Vec::new();
    for tale in tales.values() {
        let Some((_, hold)) = tale.decided.and_then(|(_, order)| Some((order, order.hold()?)))
        else {
            continue;
        };
        let last = tale.last.map(|(_, order)| order);
        let returned = last.and_then(|order| match order.status() {
            OrderStatus::Expired | OrderStatus::RefundDue => Some((hold.expires_at, true)),
            OrderStatus::Released => order.hold().map(|hold| (hold.expires_at, false)),
            OrderStatus::Cancelled => tale.given_back.map(|at| (began_at + at, false)),
            _ => None,
        });
        for line in tale.order.lines.iter().filter(|line| line.item == pool.id) {
            for _ in 0..line.ask.units() {
                changes.push((hold.decided_at, None));
                changes.extend(returned.map(|(at, ran_out)| (at, Some(ran_out))));
            }
        }
    }
    // Of one moment, what is back comes first.
    changes.sort_unstable_by_key(|(at, back)| (*at, back.is_none()));
    // Less than nothing is left when a unit was sold before its return was told.
    let mut left = i64::from(pool.capacity());
    let (mut waiting, mut found) = (VecDeque::new(), Vec::new());
    for (at, back) in changes {
        match back {
            Some(ran_out) if left == 0 => waiting.push_back((at, ran_out)),
            Some(_) => left += 1,
            // Units return in turn, and are sold in turn.
            None => match waiting.pop_front() {
                Some((end, true)) => found.push((end, at)),
                Some(_) => {}
                None => left -= 1,
            },
        }
    }
    found
}

/// Orders that were accepted, and went without a unit that an order got which was sent
/// later and decided no later.
fn overtaken(item: &ItemId, tales: &HashMap<OrderId, Tale<'_>>) -> Vec<Sample> {
    let is_alone = |tale: &&Tale<'_>| matches!(&tale.order.lines[..], [line] if line.item == *item && line.ask.units() == 1);
    let mut held: Vec<_> = tales
        .values()
        .filter(is_alone)
        .filter_map(|tale| {
            let hold = tale.decided?.1.hold()?;
            Some((hold.decided_at, tale.asked_at))
        })
        .collect();
    held.sort_unstable();
    // The last to be sent of all that were decided by then.
    let mut last = Duration::ZERO;
    for (_, asked_at) in &mut held {
        last = last.max(*asked_at);
        *asked_at = last;
    }
    let mut samples = Vec::new();
    for tale in tales.values().filter(is_alone) {
        let Some((accepted, (_, order))) = tale.accepted.zip(tale.decided) else { continue };
        if order.reason() != Some(Reason::SoldOut) {
            continue;
        }
        let before =
            held.partition_point(|(decided_at, _)| Some(*decided_at) <= order.decided_at());
        let Some((_, sent)) = before.checked_sub(1).map(|at| held[at]) else { continue };
        if sent > accepted {
            samples.push((accepted, sent - accepted));
        }
    }
    samples
}
