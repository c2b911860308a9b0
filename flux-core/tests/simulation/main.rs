//! Whole sales under seeded faults, on tokio's paused clock: three engines on
//! one store, each with a network of its own that fails before and after the
//! fact, delays, freezes for longer than any lease, repeats and reorders.
//!
//! `FLUX_SIMULATION_SEEDS=1000 cargo test -p flux-core --test simulation`

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use flux_core::clock::{Clock, TokioClock};
use flux_core::layers::{Fault, Faults, Operation, Retry, TimeLimit};
use flux_core::{
    Backend, Error, Flux, ItemSpec, Line, Order, OrderId, OrderRequest, OrderStatus, PaymentRef,
    SeatState, Settings, Timestamp,
};
use uuid::Uuid;

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Result<T = (), E = Failure> = std::result::Result<T, E>;

const CALLS_MAX: usize = 200;

/// A small generator of our own, so that a seed means the same for ever
/// (Steele, Lea, Flood: SplitMix64, 2014).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % sides
    }
}

struct Sale {
    backend: Backend,
    faults: Vec<Faults>,
    engines: Vec<Flux>,
    /// Sees the store and the queue as they are.
    control: Flux,
    answers: Mutex<HashMap<OrderId, Vec<Order>>>,
}

impl Sale {
    async fn open(faults: Vec<Faults>) -> Result<Arc<Self>> {
        let clock = Arc::new(TokioClock::starting_at(Timestamp::from_millis(1_700_000_000_000)));
        let clock: Arc<dyn Clock> = clock;
        let backend = Backend::memory_with().clock(Arc::clone(&clock)).build();
        let control = Flux::builder(backend.clone())
            .clock(Arc::clone(&clock))
            .role(flux_core::Role::AcceptOnly)
            .start();
        let item = |id: &str| ItemSpec::builder().id(id.to_owned()).hold_seconds(30);
        control.put_item(item("a").capacity(40).max_per_buyer(3).build()?).await?;
        control.put_item(item("b").capacity(25).build()?).await?;
        let seats = (0..12).map(|n| format!("S{n}"));
        control.put_item(item("h").seats(seats).build()?).await?;
        let engine = |faults: &Faults| {
            let backend = backend
                .clone()
                .layered(faults.clone())
                .layered(TimeLimit::new(Duration::from_secs(3)))
                .layered(Retry::builder().seed(1).build());
            let settings = Settings::default();
            Flux::builder(backend).clock(Arc::clone(&clock)).settings(settings).start()
        };
        let engines = faults.iter().map(engine).collect();
        let answers = Mutex::default();
        Ok(Arc::new(Self { backend, faults, engines, control, answers }))
    }

    fn request(&self, id: OrderId, dice: &mut Dice) -> OrderRequest {
        let pool = |item: &str, n: u64| Line::units(item, n).expect("a line");
        let seat = |n: u64| Line::seats("h", [format!("S{n}")]).expect("a line");
        let lines = match dice.roll(6) {
            0 | 1 => vec![pool("a", 1)],
            2 => vec![pool("b", 1 + dice.roll(2))],
            3 => vec![seat(dice.roll(12))],
            4 => vec![pool("a", 1), pool("b", 1)],
            _ => vec![seat(dice.roll(12)), pool("a", 1)],
        };
        let buyer = format!("buyer-{}", dice.roll(60));
        OrderRequest::builder().id(id).buyer(buyer).lines(lines).build().expect("a request")
    }

    /// Calls until there is an answer, each time at another engine.
    async fn insist<F, T>(&self, dice: &mut Dice, call: impl Fn(Flux) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut last = None;
        for _ in 0..CALLS_MAX {
            let engine = &self.engines[dice.roll(self.engines.len() as u64) as usize];
            match call(engine.clone()).await {
                Err(
                    error @ (Error::Backend(_)
                    | Error::OutcomePending(_)
                    | Error::Overloaded { .. }),
                ) => last = Some(error),
                answer => return answer,
            }
            tokio::time::sleep(Duration::from_millis(dice.roll(400))).await;
        }
        Err(last.expect("it was called"))
    }

    fn note(&self, order: &Order) {
        let mut answers = self.answers.lock().expect("no panic while noting");
        answers.entry(order.id).or_default().push(order.clone());
    }

    async fn buy(self: Arc<Self>, seed: u64) -> Result {
        let mut dice = Dice(seed);
        let id = OrderId::from_uuid(Uuid::from_u128(u128::from(seed / 2)));
        // Two buyers in a row share an id, and so must ask for the same.
        let request = self.request(id, &mut Dice(seed / 2));
        tokio::time::sleep(Duration::from_millis(dice.roll(20_000))).await;
        let placed = if dice.roll(2) == 0 {
            self.insist(&mut dice, |flux| {
                let request = request.clone();
                async move { flux.place(request).await }
            })
            .await
        } else {
            let queued = self.insist(&mut dice, |flux| {
                let request = request.clone();
                async move { flux.submit(request).await }
            });
            match queued.await {
                Ok(queued) => {
                    self.note(&queued);
                    let wait = |flux: Flux| async move {
                        let order = flux.wait(id, Duration::from_secs(60)).await?;
                        match order.status() {
                            OrderStatus::Queued => Err(Error::OutcomePending(id)),
                            _ => Ok(order),
                        }
                    };
                    self.insist(&mut dice, wait).await
                }
                Err(error) => Err(error),
            }
        };
        let order = match placed {
            Ok(order) => order,
            Err(Error::SoldOut(_)) => return Ok(()),
            Err(error) => return Err(format!("{id}: {error}").into()),
        };
        self.note(&order);
        let pay = PaymentRef::new(format!("pay-{seed}"))?;
        let then = dice.roll(5);
        if then == 4 {
            // Late, perhaps too late.
            tokio::time::sleep(Duration::from_secs(25 + dice.roll(20))).await;
        }
        let followed = match then {
            0 => return Ok(()),
            1 => self.insist(&mut dice, |flux| async move { flux.release(id).await }).await,
            _ => {
                let confirm = |flux: Flux| {
                    let pay = pay.clone();
                    async move { flux.confirm(id, pay).await }
                };
                match self.insist(&mut dice, confirm).await {
                    Ok(paid) if then == 2 => {
                        self.note(&paid);
                        self.insist(&mut dice, |flux| async move { flux.cancel(id).await }).await
                    }
                    answer => answer,
                }
            }
        };
        match followed {
            Ok(order) => self.note(&order),
            Err(
                Error::NotHeld(order)
                | Error::AlreadyPaid(order)
                | Error::NotConfirmed(order)
                | Error::RefundDue(order),
            ) => {
                self.note(&order);
            }
            Err(error) => return Err(format!("{id}: {error}").into()),
        }
        Ok(())
    }

    /// Lets everything come to rest, then judges.
    async fn judge(&self) -> Result {
        self.faults.iter().for_each(Faults::stop);
        let mut quiet = 0;
        for _ in 0..10_000 {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let depth = self.backend.queue.depth().await?;
            // Frozen workers thaw, holds end, deliveries come back.
            quiet = if depth.waiting + depth.in_flight == 0 { quiet + 1 } else { 0 };
            if quiet > 400 {
                break;
            }
        }
        assert!(quiet > 400, "the queue never came to rest");
        let audit = self.control.audit().await?;
        assert!(audit.is_clean(), "{audit}");
        assert_eq!(self.backend.queue.depth().await?.dead, 0, "a message was given up");

        let answers = self.answers.lock().expect("no panic while noting").clone();
        assert!(!answers.is_empty());
        for (id, shown) in answers {
            let order = self.control.order(id).await?;
            let order = order.unwrap_or_else(|| panic!("{id} was answered and is lost"));
            assert_ne!(order.status(), OrderStatus::Queued, "{id} was accepted and not decided");
            for shown in shown {
                assert!(shown.asks_the_same_as(&order), "{id} has other contents");
                assert!(may_become(shown.status(), order.status()), "{shown:?} became {order:?}");
                if shown.status() != OrderStatus::Queued {
                    assert_eq!(shown.decided_at(), order.decided_at(), "{id} was decided twice");
                    // A hold that is released ends there and then.
                    let ends = |order: &Order| order.hold().map(|hold| hold.expires_at);
                    match order.status() {
                        OrderStatus::Released => assert!(ends(&order) <= ends(&shown)),
                        _ => assert_eq!(ends(&order), ends(&shown)),
                    }
                    assert_eq!(shown.reason(), order.reason());
                }
            }
        }
        self.sell_out().await
    }

    /// Buys all that is left, to the last unit: no stock is stranded.
    async fn sell_out(&self) -> Result {
        let items = self.control.items(None, 10).await?;
        for item in items {
            let seats = self.control.seats(&item.spec.id).await?.unwrap_or_default();
            let free = seats.iter().filter(|seat| seat.state == SeatState::Free);
            let mut asks: Vec<Line> = free
                .map(|seat| Line::seats(&item.spec.id, [&seat.id]))
                .collect::<Result<_, _>>()?;
            while asks.len() < item.available as usize {
                asks.push(Line::units(&item.spec.id, 1)?);
            }
            for (n, line) in asks.into_iter().enumerate() {
                let (buyer, lines) = (format!("last-{n}"), vec![line]);
                let request = OrderRequest::builder().buyer(buyer).lines(lines).build()?;
                let order = self.engines[n % self.engines.len()].place(request).await?;
                assert_eq!(order.status(), OrderStatus::Held, "{order:?}");
            }
            let left = self.control.item(&item.spec.id).await?.expect("it is there").available;
            assert_eq!(left, 0, "{} has units that can't be bought", item.spec.id);
        }
        let audit = self.control.audit().await?;
        assert!(audit.is_clean(), "{audit}");
        Ok(())
    }
}

fn may_become(shown: OrderStatus, last: OrderStatus) -> bool {
    use OrderStatus::{Cancelled, Confirmed, Expired, Held, Queued, RefundDue, Rejected, Released};
    shown == last
        || match shown {
            Queued => true,
            Held => last != Rejected && last != Queued,
            Expired => matches!(last, Confirmed | Cancelled | RefundDue),
            Confirmed => last == Cancelled,
            Released | Cancelled | Rejected | RefundDue => false,
            new => panic!("nothing says what a {new} order may become"),
        }
}

fn seeds() -> std::ops::Range<u64> {
    let seeds = std::env::var("FLUX_SIMULATION_SEEDS").ok().and_then(|n| n.parse().ok());
    0..seeds.unwrap_or(20)
}

/// Runs one sale on a clock that jumps to whatever happens next.
fn simulate(faults: Vec<Faults>, seed: u64) {
    println!("seed {seed}");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let sale = Sale::open(faults).await.expect("opened");
        let mut buyers = tokio::task::JoinSet::new();
        for n in 0..240 {
            buyers.spawn(Arc::clone(&sale).buy(seed * 1_000 + n));
        }
        while let Some(bought) = buyers.join_next().await {
            bought.expect("no panic").unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        }
        sale.judge().await.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    });
}

#[test]
fn harsh_networks_sell_each_unit_once() {
    for seed in seeds() {
        let faults: Vec<_> = (0..3).map(|n| Faults::harsh(seed * 3 + n)).collect();
        simulate(faults.clone(), seed);
        let injected: u64 = faults.iter().flat_map(|f| f.injected().into_values()).sum();
        assert!(injected > 100, "only {injected} faults");
    }
}

#[test]
fn a_worker_may_freeze_at_any_step() {
    use Operation::{Ack, Acquire, Claim, Commit, DueHolds, Orders, Publish, Receive};
    for operation in [Receive, Acquire, Claim, Orders, Commit, Ack, Publish, DueHolds] {
        for nth in [1, 3] {
            let frozen = Faults::script([(operation, nth, Fault::Freeze)]).expect("fits");
            let well = || Faults::script([]).expect("nothing");
            let faults = vec![frozen, well(), well()];
            println!("frozen at {operation:?} {nth}");
            simulate(faults, nth);
        }
    }
}
