//! A sale: what is on sale, where, and the buyers.

use std::sync::Arc;
use std::time::Duration;

use flux_core::backends::memory::MemoryStore;
use flux_core::clock::{Clock, TokioClock};
use flux_core::conformance::history::{History, Recorded};
use flux_core::layers::{BrokenLocks, YesLocks};
use flux_core::seams::{CommitMax, InventoryStore};
use flux_core::{
    Backend, Error, Flux, ItemSpec, Line, Lines, Money, Order, OrderId, OrderRequest, OrderStatus,
    PaymentRef, RefundRef, Role, Timestamp,
};
use tokio::time::sleep;
use uuid::Uuid;

use crate::Result;
use crate::dice::Dice;
use crate::fleet::Fleet;
use crate::volatile::Volatile;

/// A sale and the engines that sell.
pub(crate) struct Sale {
    pub(crate) backend: Backend,
    pub(crate) clock: Arc<TokioClock>,
    pub(crate) fleet: Arc<Fleet>,
    /// Sees the store and the queue as they are.
    pub(crate) control: Flux,
    pub(crate) history: History,
}

/// The kinds of sales there are, by the dice.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    partitions: u64,
    max: CommitMax,
    /// Whether the store may lose what is not on its disk.
    is_volatile: bool,
    locks: Locks,
}

#[derive(Debug, Clone, Copy)]
enum Locks {
    Well,
    Yes,
    Broken,
}

impl Terms {
    /// One queue, and writes of any size.
    pub(crate) const PLAIN: Self =
        Self { partitions: 1, max: CommitMax::UNLIMITED, is_volatile: false, locks: Locks::Well };

    pub(crate) fn by(dice: &mut Dice) -> Self {
        let bound = CommitMax::builder().parts(14);
        let striped = CommitMax::builder().parts(10).side_by_side(3);
        let (bound, striped) = (bound.build(), striped.build());
        Self {
            partitions: dice.pick(&[1, 2, 4, 8]),
            max: dice.pick(&[CommitMax::UNLIMITED, bound, bound, striped]),
            is_volatile: dice.roll(4) == 0,
            locks: match dice.roll(10) {
                0 => Locks::Yes,
                1 => Locks::Broken,
                _ => Locks::Well,
            },
        }
    }
}

impl Sale {
    pub(crate) async fn open(terms: Terms, seed: u64) -> Result<Arc<Self>> {
        let clock = Arc::new(TokioClock::starting_at(Timestamp::from_millis(1_700_000_000_000)));
        let dating: Arc<dyn Clock> = Arc::clone(&clock) as _;
        let history = History::new();
        let volatile = terms.is_volatile.then(|| Volatile::new(seed, terms.max));
        let store: Arc<dyn InventoryStore> = match &volatile {
            Some(volatile) => Arc::new(volatile.clone()),
            None => {
                let store = Arc::new(MemoryStore::with_commit_max(terms.max));
                Arc::new(Recorded::new(store, history.clone()))
            }
        };
        let memory = || Backend::memory_with().clock(Arc::clone(&dating)).build();
        let partitions = (0..terms.partitions).map(|_| memory().queue).collect();
        let mut backend = Backend { store, partitions, ..memory() };
        match terms.locks {
            Locks::Well => {}
            Locks::Yes => backend.locks = Arc::new(YesLocks),
            Locks::Broken => backend.locks = Arc::new(BrokenLocks),
        }
        let control = Flux::builder(backend.clone()).clock(dating).role(Role::AcceptOnly).start();
        let item = |id: &str| ItemSpec::builder().id(id.to_owned()).hold_seconds(30);
        control.put_item(item("a").capacity(60).max_per_buyer(3).build()?).await?;
        control.put_item(item("b").capacity(25).build()?).await?;
        let seats = (0..12).map(|n| format!("S{n}"));
        control.put_item(item("h").seats(seats).build()?).await?;
        let fleet = Fleet::new(backend.clone(), Arc::clone(&clock), volatile);
        Ok(Arc::new(Self { backend, clock, fleet, control, history }))
    }

    fn lines(dice: &mut Dice) -> Vec<Line> {
        let pool = |item: &str, n: u64| Line::units(item, n).expect("a line");
        let seat = |n: u64| Line::seats("h", [format!("S{n}")]).expect("a line");
        match dice.roll(6) {
            0 | 1 => vec![pool("a", 1 + dice.roll(2))],
            2 => vec![pool("b", 1 + dice.roll(2))],
            3 => vec![seat(dice.roll(12))],
            4 => vec![pool("a", 1), pool("b", 1)],
            _ => vec![seat(dice.roll(12)), pool("a", 1)],
        }
    }

    /// Places an order, or hands it in and waits for it.
    async fn place(&self, dice: &mut Dice, request: OrderRequest, id: OrderId) -> Placed {
        if dice.roll(2) == 0 {
            let place = |flux: Flux| {
                let request = request.clone();
                async move { flux.place(request).await }
            };
            return self.fleet.insist(dice, place).await;
        }
        let submit = |flux: Flux| {
            let request = request.clone();
            async move { flux.submit(request).await }
        };
        match self.fleet.insist(dice, submit).await {
            (Ok(queued), _) => {
                self.history.answered(&queued);
                let wait = |flux: Flux| async move {
                    let order = flux.wait(id, Duration::from_secs(60)).await?;
                    match order.status() {
                        OrderStatus::Queued => Err(Error::OutcomePending(id)),
                        _ => Ok(order),
                    }
                };
                self.fleet.insist(dice, wait).await
            }
            refused => refused,
        }
    }

    /// A buyer comes, buys, and thinks better of it or pays.
    pub(crate) async fn buy(self: Arc<Self>, seed: u64) -> Result {
        let mut dice = Dice(seed);
        let id = OrderId::from_uuid(Uuid::from_u128(u128::from(seed / 2)));
        // Two buyers in a row share an id, and so must ask for the same.
        let mut same = Dice(seed / 2);
        let lines = Self::lines(&mut same);
        // Some come often, against the cap.
        let buyer = format!("buyer-{}", same.roll(25));
        let asked = Lines::new(lines.clone())?;
        let request = OrderRequest::builder().id(id).buyer(buyer.clone()).lines(lines).build()?;
        sleep(Duration::from_millis(dice.roll(20_000))).await;
        self.history.asked(&Order::queued(id, buyer.parse()?, asked, self.clock.now()));
        let order = match self.place(&mut dice, request, id).await {
            (Ok(order), _) => order,
            (Err(Error::SoldOut(_)), true) => {
                self.history.turned_away(id);
                return Ok(());
            }
            // An earlier call may have been taken.
            (Err(Error::SoldOut(_)), false) => {
                self.history.failed(id);
                return Ok(());
            }
            (Err(error), _) => return Err(format!("{id}: {error}").into()),
        };
        self.history.answered(&order);
        let pay = PaymentRef::new(format!("pay-{seed}"))?;
        let then = dice.roll(5);
        if then == 4 {
            // Late, perhaps too late.
            sleep(Duration::from_secs(25 + dice.roll(20))).await;
        }
        let confirm = |flux: Flux| {
            let pay = pay.clone();
            async move { flux.confirm(id, pay).await }
        };
        let (followed, _) = match then {
            0 => return Ok(()),
            1 => match self.fleet.insist(&mut dice, |f| async move { f.release(id).await }).await {
                // The money is on its way all the same.
                (Ok(released), _) if dice.roll(2) == 0 => {
                    self.history.answered(&released);
                    self.fleet.insist(&mut dice, confirm).await
                }
                answer => answer,
            },
            _ => match self.fleet.insist(&mut dice, confirm).await {
                (Ok(paid), _) if then == 2 => {
                    self.history.answered(&paid);
                    let cancel = |flux: Flux| async move { flux.cancel(id).await };
                    self.fleet.insist(&mut dice, cancel).await
                }
                answer => answer,
            },
        };
        let order = match followed {
            Ok(order) => order,
            Err(
                Error::NotHeld(order)
                | Error::AlreadyPaid(order)
                | Error::NotConfirmed(order)
                | Error::RefundDue(order),
            ) => *order,
            Err(error) => return Err(format!("{id}: {error}").into()),
        };
        self.history.answered(&order);
        if then > 1 && order.payment_ref().is_none() {
            return Err(format!("money came for {id}, and none is noted: {order:?}").into());
        }
        if order.money() == Money::Owed && dice.roll(4) > 0 {
            self.refund(&mut dice, id, seed).await?;
        }
        Ok(())
    }

    /// Returns the money of an order, as the other who shares it may do too.
    async fn refund(&self, dice: &mut Dice, id: OrderId, seed: u64) -> Result {
        let reference = RefundRef::new(format!("back-{seed}"))?;
        let refund = |flux: Flux| {
            let reference = reference.clone();
            async move { flux.refunded(id, reference).await }
        };
        match self.fleet.insist(dice, refund).await.0 {
            Ok(order) => self.history.answered(&order),
            Err(Error::AlreadyRefunded(order)) => self.history.answered(&order),
            Err(error) => return Err(format!("{id}: {error}").into()),
        }
        Ok(())
    }
}

type Placed = (Result<Order, Error>, bool);
