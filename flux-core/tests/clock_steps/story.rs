//! A sale on a clock that is stepped at random, and the judgement of it: what
//! ended, when, and what time was shown, held against the rule alone. The shop
//! is the engine itself, or a server around it.
//!
//! The rule: a step of more than a second counts once the clock has stood at its
//! new place for ten seconds, and half a second more at most. Until then the
//! time goes on as it went.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use flux_core::clock::{Clock, SinceBoot};
use flux_core::{Backend, Flux, ItemSpec, Order, OrderId, OrderStatus, Settings, Timestamp};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

const NOON: i64 = 1_700_000_000_000;
const SECOND: i64 = 1_000;
/// The time for which a new place of the clock must stand.
const STANDS: i64 = 10 * SECOND;
/// The time from one look at the clock to the next, and a little.
const NOTICED: i64 = 600;
/// The time within which an ended hold is back on sale.
const RESOLD: i64 = 2 * SECOND;
/// Rounding, and changes that are not worth a look.
const SLACK: i64 = 35;

/// The item that is bought, and the one that is on sale for a time only.
pub(crate) const TICKET: &str = "ticket";
pub(crate) const WINDOW: &str = "window";
const BUYERS: u64 = 12;

/// A small generator, so that a seed means the same for ever (SplitMix64).
pub(crate) struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % sides
    }

    fn between(&mut self, from: i64, to: i64) -> i64 {
        from + self.roll((to - from) as u64) as i64
    }

    /// A step, forward or backward, of seconds, minutes or hours.
    fn step(&mut self) -> i64 {
        let reach = [10 * SECOND, 600 * SECOND, 7_200 * SECOND][self.roll(3) as usize];
        let step = self.between(2_500, reach);
        if self.roll(2) == 0 { step } else { -step }
    }
}

/// A clock that runs with tokio's and is stepped, on a machine that sleeps and is
/// booted.
#[derive(Debug)]
pub(crate) struct SteppedClock {
    since: Instant,
    ahead: AtomicI64,
    asleep: AtomicI64,
    boot: AtomicU64,
}

impl SteppedClock {
    fn new() -> Self {
        let (ahead, asleep, boot) = (AtomicI64::new(0), AtomicI64::new(0), AtomicU64::new(0));
        Self { since: Instant::now(), ahead, asleep, boot }
    }

    fn passed(&self) -> i64 {
        self.since.elapsed().as_millis() as i64
    }
}

impl Clock for SteppedClock {
    fn now(&self) -> Timestamp {
        let millis = NOON + self.passed() + self.ahead.load(Ordering::Relaxed);
        Timestamp::from_millis(millis as u64)
    }

    fn since_boot(&self) -> Option<SinceBoot> {
        let passed = NOON / 10 + self.passed() + self.asleep.load(Ordering::Relaxed);
        let boot = self.boot.load(Ordering::Relaxed);
        Some(SinceBoot::new(boot, Duration::from_millis(passed as u64)))
    }
}

/// A time in which the engine may believe that the clock is ahead by anything
/// from `least` to `most`.
#[derive(Debug, Clone, Copy)]
struct Belief {
    from: i64,
    least: i64,
    most: i64,
    /// Whether holds must end when they should.
    ends: bool,
}

/// A hold that came about.
#[derive(Debug, Clone, Copy)]
struct Held {
    at: i64,
    expires_at: i64,
}

/// What is to be judged; times are those of a clock that nobody steps.
#[derive(Debug, Default)]
struct History {
    beliefs: Vec<Belief>,
    held: HashMap<OrderId, Held>,
    ended: HashMap<OrderId, i64>,
    paid: HashMap<OrderId, (i64, OrderStatus)>,
    /// When [`WINDOW`] was looked at or asked for, when that was answered, and
    /// whether it was on sale.
    tried: Vec<(i64, i64, bool)>,
    /// Starts after which holds from before wait.
    waits: Vec<i64>,
}

impl History {
    fn believe(&mut self, from: i64, least: i64, most: i64, ends: bool) {
        self.beliefs.push(Belief { from, least, most, ends });
    }

    /// The beliefs between two moments, each with its end.
    fn beliefs(&self, from: i64, to: i64) -> impl Iterator<Item = (Belief, i64)> {
        let first = self.beliefs.partition_point(|belief| belief.from <= from).max(1) - 1;
        let within = self.beliefs[first..].iter().take_while(move |belief| belief.from <= to);
        within.enumerate().map(move |(n, belief)| {
            let end = self.beliefs.get(first + n + 1).map_or(i64::MAX, |next| next.from);
            (Belief { from: belief.from.max(from), ..*belief }, end.min(to))
        })
    }

    /// Whether this time may have been shown, or passed, between two moments.
    fn may_have_passed(&self, time: i64, from: i64, to: i64) -> bool {
        self.beliefs(from, to).any(|(belief, end)| NOON + end + belief.most + SLACK >= time)
    }

    /// The moment by which a hold was over beyond doubt for so long that it must
    /// have ended.
    fn must_end_by(&self, hold: &Held, to: i64) -> Option<i64> {
        let mut over_since = None;
        for (belief, end) in self.beliefs(hold.at, to) {
            let over = (hold.expires_at - NOON - belief.least).max(belief.from);
            over_since = match over_since {
                Some(since) if belief.ends && over == belief.from => Some(since),
                _ => (belief.ends && over < end).then_some(over),
            };
            if let Some(since) = over_since
                && since + RESOLD < end
            {
                return Some(since + RESOLD);
            }
        }
        None
    }

    fn judge(&self, end: i64) {
        for (id, hold) in &self.held {
            let ended = self.ended.get(id).copied();
            let paid = self.paid.get(id);
            if let Some(at) = ended {
                let may = self.may_have_passed(hold.expires_at, hold.at, at);
                assert!(may, "{id} ended at {at}, before its time: {hold:?}");
                for start in &self.waits {
                    let early = hold.at < *start && *start <= at && at < start + STANDS;
                    assert!(!early, "{id} ended at {at}, by a clock nothing is known of");
                }
            }
            let over = ended.or(paid.map(|(at, _)| *at)).unwrap_or(end);
            let late = self.must_end_by(hold, over);
            assert_eq!(late, None, "{id} had not ended at {over}: {hold:?}");
            if let Some((at, status)) = paid
                && !self.may_have_passed(hold.expires_at, hold.at, *at)
            {
                // G9
                assert_eq!(*status, OrderStatus::Confirmed, "{id} was paid at {at}: {hold:?}");
            }
        }
        for (from, to, is_on_sale) in &self.tried {
            let inside = |time: i64| (OPENS..CLOSES).contains(&time);
            let (mut could, mut must) = (false, true);
            for (belief, end) in self.beliefs(*from, *to) {
                let early = NOON + belief.from + belief.least - SLACK;
                let late = NOON + end + belief.most + SLACK;
                could |= early < CLOSES && late >= OPENS;
                must &= inside(early) && inside(late) && early <= late;
            }
            assert!(could || !is_on_sale, "sold between {from} and {to}, while it was not open");
            assert!(!must || *is_on_sale, "not sold between {from} and {to}, while it was open");
        }
    }
}

/// The window of the item [`WINDOW`].
const OPENS: i64 = NOON + 400 * SECOND;
const CLOSES: i64 = NOON + 4_000 * SECOND;

/// The way to an engine.
pub(crate) trait Shop: Clone + Send + Sync + 'static {
    fn open(flux: Flux) -> Self;
    /// Whether [`WINDOW`] is shown as on sale.
    fn is_open(&self) -> impl Future<Output = bool> + Send;
    /// Places an order of one unit, which nobody else has the id of.
    fn buy(
        &self,
        item: &'static str,
        buyer: u64,
        id: OrderId,
    ) -> impl Future<Output = Bought> + Send;
    /// Pays, and says what became of the order; `None` when nothing is told.
    fn pay(&self, id: OrderId) -> impl Future<Output = Option<OrderStatus>> + Send;
}

/// The answer to an order.
pub(crate) enum Bought {
    /// It is held until then.
    Held(Timestamp),
    /// There was none to be had, or none on sale.
    Not,
    /// The engine is stopping.
    Away,
}

/// One sale.
struct Sale<S> {
    clock: Arc<SteppedClock>,
    backend: Backend,
    history: Mutex<History>,
    shop: Mutex<Option<(Flux, S)>>,
    is_over: AtomicBool,
}

impl<S: Shop> Sale<S> {
    async fn open() -> Arc<Self> {
        let clock = Arc::new(SteppedClock::new());
        let sale = Self {
            backend: Backend::memory_with().clock(clock.clone()).build(),
            clock,
            history: Mutex::default(),
            shop: Mutex::default(),
            is_over: AtomicBool::new(false),
        };
        sale.history().believe(0, 0, 0, true);
        let ticket = ItemSpec::builder().id(TICKET).capacity(8).hold_seconds(20);
        let at = |millis: i64| Timestamp::from_millis(millis as u64);
        let window = ItemSpec::builder().id(WINDOW).capacity(1_000_000).hold_seconds(5);
        let window = window.opens_at(at(OPENS)).closes_at(at(CLOSES));
        for spec in [ticket.build(), window.build()] {
            sale.backend.store.put_item(&spec.expect("an item")).await.expect("it is put");
        }
        Arc::new(sale)
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().expect("no panic while noting")
    }

    fn shop(&self) -> Option<S> {
        self.shop.lock().expect("no panic").as_ref().map(|(_, shop)| shop.clone())
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// Starts an engine, and notes the holds that it ends.
    fn start(self: &Arc<Self>, tasks: &mut JoinSet<()>) {
        let flux = Flux::builder(self.backend.clone()).clock(self.clock.clone());
        // Half as often as by default, for the sake of those who run this.
        let settings = Settings::builder().sweep_every(Duration::from_millis(500)).build();
        let flux = flux.settings(settings).start();
        let mut outcomes = flux.subscribe();
        *self.shop.lock().expect("no panic") = Some((flux.clone(), S::open(flux)));
        let sale = Arc::clone(self);
        tasks.spawn(async move {
            while let Ok(outcomes) = outcomes.recv().await {
                let at = sale.clock.passed();
                let ended = |order: &&Order| order.status() == OrderStatus::Expired;
                for order in outcomes.orders.iter().filter(ended) {
                    sale.history().ended.entry(order.id).or_insert(at);
                }
            }
        });
    }

    async fn stop(&self) {
        let running = self.shop.lock().expect("no panic").take();
        if let Some((flux, _)) = running {
            flux.shutdown().await;
        }
    }

    async fn buy(self: Arc<Self>, buyer: u64, seed: u64) {
        let mut dice = Dice(seed);
        while !self.is_over() {
            let idle = [300, 3_000, 30_000][dice.roll(3) as usize];
            sleep(Duration::from_millis(dice.roll(idle))).await;
            let Some(shop) = self.shop() else { continue };
            let item = if dice.roll(4) == 0 { WINDOW } else { TICKET };
            let id = OrderId::new();
            let from = self.clock.passed();
            if item == WINDOW {
                let is_open = shop.is_open().await;
                self.history().tried.push((from, self.clock.passed(), is_open));
            }
            let bought = shop.buy(item, buyer, id).await;
            if item == WINDOW && !matches!(bought, Bought::Away) {
                let is_held = matches!(bought, Bought::Held(_));
                self.history().tried.push((from, self.clock.passed(), is_held));
            }
            let Bought::Held(expires_at) = bought else { continue };
            let expires_at = expires_at.as_millis() as i64;
            self.history().held.insert(id, Held { at: from, expires_at });
            // In time, late, or never.
            match dice.roll(4) {
                0 => continue,
                1 | 2 if item == TICKET => sleep(Duration::from_millis(dice.roll(15_000))).await,
                _ => sleep(Duration::from_millis(dice.roll(60_000))).await,
            }
            self.pay(id).await;
        }
    }

    async fn pay(&self, id: OrderId) {
        while !self.is_over() {
            let at = self.clock.passed();
            if let Some(shop) = self.shop()
                && let Some(status) = shop.pay(id).await
            {
                self.history().paid.insert(id, (at, status));
                // The ticket is handed back, so that there is something to sell.
                let running = self.shop.lock().expect("no panic").as_ref().map(|s| s.0.clone());
                if status == OrderStatus::Confirmed
                    && let Some(flux) = running
                {
                    let _ = flux.cancel(id).await;
                }
                return;
            }
            sleep(Duration::from_millis(500)).await;
        }
    }

    /// Steps the clock, so that it is ahead by so much.
    fn step(&self, ahead: i64) {
        self.clock.ahead.store(ahead, Ordering::Relaxed);
    }

    /// Notes that a step counts in ten seconds, unless it is taken back.
    fn will_count(&self, believed: i64, ahead: i64) {
        let (now, mut history) = (self.clock.passed(), self.history());
        let (least, most) = (believed.min(ahead), believed.max(ahead));
        history.believe(now + STANDS - 1, least, most, true);
        history.believe(now + STANDS + NOTICED, ahead, ahead, true);
    }

    /// Makes some steps on the way, and returns how many.
    async fn some_steps(&self, believed: &mut i64, dice: &mut Dice) -> usize {
        let millis = |millis: i64| Duration::from_millis(millis as u64);
        match dice.roll(40) {
            // For a moment.
            0..=33 => {
                self.step(*believed + dice.step());
                sleep(millis(dice.between(10, 400))).await;
                self.step(*believed);
                sleep(millis(dice.between(10, 600))).await;
                2
            }
            // For longer, one after the other.
            34..=35 => {
                let mut last = *believed;
                let steps = 1 + dice.roll(3) as usize;
                for _ in 0..steps {
                    // Never within a second of where it was seen before.
                    last += 7_500 * SECOND + dice.step();
                    self.step(last);
                    sleep(millis(dice.between(1_000, 9_000))).await;
                }
                self.step(*believed);
                sleep(millis(dice.between(500, 3_000))).await;
                steps + 1
            }
            // For good, once it was seen where it was: nobody can tell a moment between two
            // looks from none.
            36..=37 => {
                sleep(millis(NOTICED)).await;
                let ahead = *believed + dice.step();
                self.will_count(*believed, ahead);
                self.step(ahead);
                *believed = ahead;
                sleep(millis(dice.between(11_500, 30_000))).await;
                1
            }
            // A machine that sleeps.
            38 => {
                sleep(millis(NOTICED)).await;
                let asleep = dice.between(2_500, 8 * 3_600 * SECOND);
                self.will_count(*believed, *believed + asleep);
                *believed += asleep;
                self.clock.asleep.fetch_add(asleep, Ordering::Relaxed);
                self.step(*believed);
                sleep(millis(dice.between(11_500, 20_000))).await;
                1
            }
            // A small one, after a rest.
            _ => {
                sleep(millis(11_000)).await;
                *believed += dice.between(-900, 900);
                let now = self.clock.passed();
                self.history().believe(now, *believed, *believed, true);
                self.step(*believed);
                sleep(millis(11_000)).await;
                1
            }
        }
    }

    /// Stops the engine and starts it again, with steps in between or not, and
    /// returns how many.
    async fn restart(
        self: &Arc<Self>,
        believed: &mut i64,
        dice: &mut Dice,
        tasks: &mut JoinSet<()>,
    ) -> usize {
        let rest = |dice: &mut Dice| sleep(Duration::from_millis(dice.roll(20_000)));
        // Where the clock stands is kept by now.
        sleep(Duration::from_secs(1)).await;
        let now = self.clock.passed();
        self.history().believe(now, *believed, *believed, false);
        self.stop().await;
        rest(dice).await;
        let steps = match dice.roll(4) {
            0 => {
                let asleep = dice.between(2_500, 3_600 * SECOND);
                self.clock.asleep.fetch_add(asleep, Ordering::Relaxed);
                *believed += asleep;
                self.step(*believed);
                let now = self.clock.passed();
                self.history().believe(now, *believed, *believed, true);
                self.start(tasks);
                rest(dice).await;
                1
            }
            1 => {
                let ahead = *believed + dice.step();
                self.step(ahead);
                let now = self.clock.passed();
                self.history().believe(now, *believed, *believed, true);
                self.will_count(*believed, ahead);
                *believed = ahead;
                self.start(tasks);
                sleep(Duration::from_millis(11_500)).await;
                1
            }
            2 => {
                self.step(*believed + dice.step());
                let now = self.clock.passed();
                self.history().believe(now, *believed, *believed, true);
                self.start(tasks);
                sleep(Duration::from_millis(dice.roll(9_000))).await;
                self.step(*believed);
                rest(dice).await;
                2
            }
            _ => {
                self.clock.boot.fetch_add(1, Ordering::Relaxed);
                *believed += dice.step();
                self.step(*believed);
                let now = self.clock.passed();
                {
                    let mut history = self.history();
                    history.believe(now, *believed, *believed, false);
                    history.believe(now + STANDS + NOTICED, *believed, *believed, true);
                    history.waits.push(now);
                }
                self.start(tasks);
                sleep(Duration::from_millis(11_500)).await;
                1
            }
        };
        // Whatever is in doubt is settled.
        sleep(Duration::from_secs(12)).await;
        steps
    }
}

/// Tells one story of so many steps, and judges it.
pub(crate) fn tell<S: Shop>(seed: u64, steps: usize) {
    println!("seed {seed}, {steps} steps");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let sale = Sale::<S>::open().await;
        let (mut tasks, mut dice) = (JoinSet::new(), Dice(seed));
        let (mut made, mut believed) = (0, 0);
        sale.start(&mut tasks);
        for buyer in 0..BUYERS {
            tasks.spawn(Arc::clone(&sale).buy(buyer, seed * BUYERS + buyer));
        }
        while made < steps {
            made += match dice.roll(60) {
                0 => sale.restart(&mut believed, &mut dice, &mut tasks).await,
                _ => sale.some_steps(&mut believed, &mut dice).await,
            };
        }
        let end = sale.clock.passed();
        sale.is_over.store(true, Ordering::Relaxed);
        let flux = sale.shop.lock().expect("no panic").as_ref().map(|s| s.0.clone());
        let flux = flux.expect("it runs");
        let audit = flux.audit().await.expect("the store answers");
        sale.stop().await;
        drop(flux);
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap_or_else(|panic| panic!("seed {seed}: {panic}"));
        }
        let history = sale.history();
        println!(
            "  {made} steps in {} s: {} holds, {} ended, {} paid, {} of them too late",
            end / SECOND,
            history.held.len(),
            history.ended.len(),
            history.paid.len(),
            history.paid.values().filter(|(_, status)| *status == OrderStatus::RefundDue).count(),
        );
        assert!(audit.is_clean(), "{audit}");
        assert!(history.ended.len() > made / 100 && history.paid.len() > made / 100);
        history.judge(end);
    });
}
