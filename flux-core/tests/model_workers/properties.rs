//! The guarantees, told of a state of the model.

use flux_core::protocol::Stock;
use flux_core::{Ask, ItemId, ItemKind, Money, OrderStatus, Reason};
use stateright::Property;

use super::scene::{Scene, Task, item_number};
use super::worker::Grip;
use super::world::World;

/// A state that a scene must lead to, lest it test less than it says.
type Meeting = (&'static str, fn(&Scene, &World) -> bool);

pub(crate) fn of(scene: &Scene) -> Vec<Property<Scene>> {
    let always = Property::<Scene>::always;
    let mut all = vec![
        always("G1 no oversell", |scene, world| scene.counts(world, |taken, _, all| taken <= all)),
        always("G1 one owner", one_owner),
        always("G1 nothing taken twice", |_, world| !world.store.broken.overdrawn),
        always("G2 conservation", |scene, world| {
            scene.counts(world, |taken, left, all| taken + left == all)
        }),
        always("G2 no view of more than there is", no_more_in_view),
        always("G3 one decision", |_, world| !world.store.broken.decision_changed),
        always("G4 nothing lost", |_, world| {
            let mut orders = world.store.orders.iter().enumerate();
            orders.all(|(n, order)| order.is_some() || world.queue.contains(&Task::Place(n)))
        }),
        always("G5 all or nothing", all_or_nothing),
        always("G6 limits hold", limits_hold),
        always("G7 fencing", |_, world| !world.store.broken.stale_write),
        always("G8 no false refusal", |_, world| !world.store.broken.false_refusal),
        always("G9 ticket or refund", ticket_or_refund),
        always("G9 a debt is settled once", |_, world| !world.store.broken.debt_changed),
        always("G9 an ended hold expires", |_, world| !world.store.broken.released_at_its_end),
    ];
    let meetings: [Meeting; 14] = [
        ("a fenced commit", |_, world| {
            let sent = world.workers.iter().filter_map(|worker| worker.sent.as_ref());
            sent.into_iter().any(|sent| sent.wire.is_stale())
        }),
        ("a doubt about what was written", |_, world| {
            world.workers.iter().any(|worker| worker.doubts_what_applied(&world.store))
        }),
        ("a late commit that still counts", |_, world| {
            world.late.iter().any(|wire| !wire.is_stale())
        }),
        ("a payment too late for its hold", |scene, world| {
            let paying = world.paying.iter().zip(&scene.payments);
            paying.into_iter().any(|(p, (order, _))| p.is_some() && world.is_due(scene, *order))
        }),
        ("a ticket for late money", |_, world| {
            let mut orders = world.store.orders.iter().flatten();
            world.queue.iter().any(|task| matches!(task, Task::Late(_)))
                && orders.any(|order| order.0.status() == OrderStatus::Confirmed)
        }),
        ("late money for what was given back", |scene, world| {
            let late = |task: &Task| matches!(task, Task::Late(_));
            let given_back = |order| met_in(world, order, OrderStatus::Released);
            let mut waiting = world.queue.iter().filter(|task| late(task));
            waiting.any(|task| given_back(scene.order_of(*task)))
        }),
        ("a refund", |_, world| met(world, OrderStatus::RefundDue)),
        ("money for what was given back", |_, world| {
            let mut orders = world.store.orders.iter().flatten();
            orders.any(|order| {
                order.0.status() == OrderStatus::Released && order.0.money() == Money::Owed
            })
        }),
        ("two refunds at once", |_, world| world.refunding.iter().flatten().count() > 1),
        ("money returned", |_, world| {
            let mut orders = world.store.orders.iter().flatten();
            orders.any(|order| order.0.money() == Money::Refunded)
        }),
        ("a cancellation", |_, world| met(world, OrderStatus::Cancelled)),
        ("a release", |_, world| met(world, OrderStatus::Released)),
        ("an ended hold sold again", |_, world| {
            met(world, OrderStatus::Expired)
                && (met(world, OrderStatus::Held) || met(world, OrderStatus::Confirmed))
        }),
        ("a buyer at the limit", |_, world| {
            let mut orders = world.store.orders.iter().flatten();
            orders.any(|order| order.0.reason() == Some(Reason::BuyerLimit))
        }),
    ];
    let meetings = meetings.into_iter().filter(|(name, _)| scene.meets.contains(name));
    all.extend(meetings.map(|(name, met)| Property::sometimes(name, met)));
    assert_eq!(all.len(), 14 + scene.meets.len(), "a meeting is misspelt");
    all
}

fn met_in(world: &World, order: usize, status: OrderStatus) -> bool {
    world.store.order(order).is_some_and(|order| order.status() == status)
}

fn met(world: &World, status: OrderStatus) -> bool {
    world.store.orders.iter().flatten().any(|order| order.0.status() == status)
}

impl Scene {
    /// Whether `rule` is true of each item's units taken by orders, units left as
    /// its row says, and capacity.
    fn counts(&self, world: &World, rule: impl Fn(u32, u32, u32) -> bool) -> bool {
        world.store.rows.iter().enumerate().all(|(item, row)| {
            let spec = &self.items[item][row.version];
            rule(taken(world, &spec.id), row.stock.0.available(), spec.capacity())
        })
    }
}

fn taken(world: &World, item: &ItemId) -> u32 {
    let orders = world.store.orders.iter().flatten();
    let live = orders.filter(|order| order.0.status().owns_stock());
    let lines = live.flat_map(|order| order.0.lines.iter());
    lines.filter(|line| line.item == *item).map(|line| line.ask.units()).sum()
}

/// Each seat is taken exactly if one live order names it.
fn one_owner(scene: &Scene, world: &World) -> bool {
    world.store.rows.iter().enumerate().all(|(item, row)| {
        let spec = &scene.items[item][row.version];
        let (ItemKind::Seats(hall), Stock::Seats(map)) = (&spec.kind, &row.stock.0) else {
            return true;
        };
        hall.names().iter().zip(0..).all(|(seat, place)| {
            let orders = world.store.orders.iter().flatten();
            let live = orders.filter(|order| order.0.status().owns_stock());
            let lines = live.flat_map(|order| order.0.lines.iter());
            let names = |ask: &Ask| matches!(ask, Ask::Seats(seats) if seats.contains(seat));
            let owners = lines.filter(|line| line.item == spec.id && names(&line.ask)).count();
            owners == usize::from(map.is_taken(place))
        })
    })
}

/// No worker has more units left of an item in its view than the item has.
fn no_more_in_view(scene: &Scene, world: &World) -> bool {
    world.workers.iter().flat_map(|worker| worker.view.iter().enumerate()).all(|(item, grip)| {
        let fits =
            |grip: &Grip| grip.stock.0.available() <= scene.items[item][grip.version].capacity();
        grip.as_ref().is_none_or(fits)
    })
}

/// While no order owns anything nothing is taken, and every item of an order
/// that does has units taken.
fn all_or_nothing(scene: &Scene, world: &World) -> bool {
    let orders = world.store.orders.iter().flatten();
    let mut live = orders.filter(|order| order.0.status().owns_stock());
    let is_full = |item: usize| {
        let row = &world.store.rows[item];
        row.stock.0.available() == scene.items[item][row.version].capacity()
    };
    live.all(|order| order.0.lines.iter().all(|line| !is_full(item_number(&line.item))))
}

fn limits_hold(scene: &Scene, world: &World) -> bool {
    scene.orders.iter().flat_map(|order| order.lines.iter().map(move |line| (order, line))).all(
        |(order, line)| {
            let item = item_number(&line.item);
            let spec = &scene.items[item][world.store.rows[item].version];
            let live = world.store.live(&line.item, &order.buyer);
            spec.max_per_buyer.is_none_or(|cap| live <= cap.get())
        },
    )
}

/// At rest, an order that is to be paid has taken a payment or owes it back, and what it
/// owes and somebody returns is returned.
fn ticket_or_refund(scene: &Scene, world: &World) -> bool {
    let is_settled = |(order, _): &(usize, _)| {
        world.store.order(*order).is_some_and(|order| order.payment_ref().is_some())
    };
    let is_returned = |(order, _): &(usize, _)| {
        world.store.order(*order).is_some_and(|order| order.money() != Money::Owed)
    };
    !world.is_at_rest(scene)
        || (scene.payments.iter().all(is_settled) && scene.refunds.iter().all(is_returned))
}
