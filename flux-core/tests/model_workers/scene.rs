//! The fixed part of a run of the model: the items, the orders, who pays and
//! who changes his mind, and the fault put into it, if any.

use std::sync::Arc;
use std::time::Duration;

use flux_core::protocol::Message;
use flux_core::{
    BuyerId, ItemId, ItemSpec, Line, Lines, Order, OrderId, PaymentRef, RefundRef, Timestamp,
};

pub(crate) const START: Timestamp = Timestamp::from_millis(1_000_000);

/// A rule left out, to see the model notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// The store takes a commit whatever its tokens say.
    NoFencing,
    /// The store writes a new order over one that is there.
    NoAbsent,
    /// The store applies what it can of a commit, line by line.
    NotAtomic,
    /// The store confirms an order whatever has become of it.
    BlindConfirm,
    /// The store doesn't count what a buyer has.
    NoCap,
    /// The store changes a definition without fencing.
    QuietRevision,
    /// The worker acknowledges what it receives at once.
    AckFirst,
    /// The worker keeps its view when it can't tell whether a commit applied.
    KeepsView,
    /// The worker releases a hold that is over.
    ReleasesAtTheEnd,
    /// The worker gives back whatever its view has already.
    GivesBackAgain,
    /// The workers don't look for holds that ended.
    NoSweep,
    /// Money for an order that was given back is refused and not noted.
    UnnotedMoney,
    /// The store notes a refund whatever was noted before.
    BlindRefund,
}

/// Work for a worker, by number of the order (for `Late`, of the payment).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Task {
    Place(usize),
    Release(usize),
    Cancel(usize),
    Expire(usize),
    Late(usize),
}

#[derive(Clone, Debug)]
pub(crate) struct Scene {
    /// The definitions each item goes through, in order.
    pub(crate) items: Vec<Vec<Arc<ItemSpec>>>,
    pub(crate) orders: Vec<Order>,
    /// Orders that are paid for, and by what payment.
    pub(crate) payments: Vec<(usize, PaymentRef)>,
    /// Refunds of orders, each tried once money of theirs is owed.
    pub(crate) refunds: Vec<(usize, RefundRef)>,
    /// The follow-ups that buyers ask for once they can.
    pub(crate) follow_ups: Vec<Task>,
    /// The number of times the clock moves on; a hold lasts one tick.
    pub(crate) ticks: u8,
    /// Most messages a worker takes at once.
    pub(crate) batch_max: usize,
    /// Most commits under way that nobody waits for any more.
    pub(crate) late_max: usize,
    /// States that must be met, by the names of their properties.
    pub(crate) meets: &'static [&'static str],
    pub(crate) fault: Fault,
}

impl Scene {
    /// Pools `a`, `b`, … of these capacities, none capped.
    pub(crate) fn pools(capacities: &[u64]) -> Self {
        let names = ["a", "b"];
        let pool = |(n, capacity): (usize, &u64)| {
            let spec = ItemSpec::builder().id(names[n]).capacity(*capacity).hold_seconds(1);
            vec![Arc::new(spec.build().expect("pool"))]
        };
        Self {
            items: capacities.iter().enumerate().map(pool).collect(),
            orders: Vec::new(),
            payments: Vec::new(),
            refunds: Vec::new(),
            follow_ups: Vec::new(),
            ticks: 0,
            batch_max: 1,
            late_max: 0,
            meets: &[],
            fault: Fault::None,
        }
    }

    /// The one item `a`, going through these definitions.
    pub(crate) fn item(specs: Vec<ItemSpec>) -> Self {
        Self { items: vec![specs.into_iter().map(Arc::new).collect()], ..Self::pools(&[]) }
    }

    pub(crate) fn order(mut self, buyer: &str, lines: Vec<Line>) -> Self {
        let id = OrderId::from_uuid(uuid::Uuid::from_u128(self.orders.len() as u128));
        let (buyer, lines) =
            (BuyerId::new(buyer).expect("buyer"), Lines::new(lines).expect("lines"));
        self.orders.push(Order::queued(id, buyer, lines, START));
        self
    }

    pub(crate) fn paid_by(mut self, order: usize, payment: &str) -> Self {
        self.payments.push((order, PaymentRef::new(payment).expect("payment")));
        self
    }

    pub(crate) fn refunded_by(mut self, order: usize, refund: &str) -> Self {
        self.refunds.push((order, RefundRef::new(refund).expect("refund")));
        self
    }

    pub(crate) fn with(self, fault: Fault) -> Self {
        Self { fault, ..self }
    }

    pub(crate) fn time(&self, tick: u8) -> Timestamp {
        START + Duration::from_secs(tick.into())
    }

    pub(crate) fn order_of(&self, task: Task) -> usize {
        match task {
            Task::Place(n) | Task::Release(n) | Task::Cancel(n) | Task::Expire(n) => n,
            Task::Late(n) => self.payments[n].0,
        }
    }

    pub(crate) fn message(&self, task: Task) -> Message {
        let id = self.orders[self.order_of(task)].id;
        match task {
            Task::Place(n) => Message::Place(self.orders[n].clone()),
            Task::Release(_) => Message::Release(id),
            Task::Cancel(_) => Message::Cancel(id),
            Task::Expire(_) => Message::Expire(id),
            Task::Late(n) => Message::LatePayment(id, self.payments[n].1.clone()),
        }
    }

    pub(crate) fn items_of(&self, order: usize) -> impl Iterator<Item = usize> {
        self.orders[order].lines.iter().map(|line| item_number(&line.item))
    }
}

pub(crate) fn item_number(item: &ItemId) -> usize {
    usize::from(item.as_str().as_bytes()[0] - b'a')
}

pub(crate) fn order_number(id: OrderId) -> usize {
    id.as_uuid().as_u128() as usize
}
