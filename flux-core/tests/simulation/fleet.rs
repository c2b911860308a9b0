//! The engines of a sale: they come, stop, crash, freeze, and lose their power all at
//! once, by the dice.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use flux_core::clock::{Clock, TokioClock};
use flux_core::layers::{Faults, Retry, TimeLimit};
use flux_core::{Backend, Error, Flux};
use tokio::time::sleep;

use crate::dice::Dice;
use crate::power::Power;
use crate::volatile::Volatile;

/// Most engines at work at once.
const ENGINES_MAX: usize = 8;
const CALLS_MAX: usize = 300;

/// An engine, with a network of its own that fails.
#[derive(Debug, Clone)]
struct Engine {
    flux: Flux,
    power: Power,
}

/// Where the engines are.
#[derive(Debug)]
pub(crate) struct Fleet {
    backend: Backend,
    clock: Arc<TokioClock>,
    engines: Mutex<Vec<Engine>>,
    /// The power of those that were told to stop.
    stopping: Mutex<Vec<Power>>,
    faults: Mutex<Vec<Faults>>,
    /// Why engines could not go on that nobody stopped.
    failures: Mutex<Vec<String>>,
    /// The store, if it can lose its power.
    volatile: Option<Volatile>,
}

impl Fleet {
    pub(crate) fn new(
        backend: Backend,
        clock: Arc<TokioClock>,
        volatile: Option<Volatile>,
    ) -> Arc<Self> {
        let (engines, stopping, faults, failures) = Default::default();
        Arc::new(Self { backend, clock, engines, stopping, faults, failures, volatile })
    }

    fn engines(&self) -> MutexGuard<'_, Vec<Engine>> {
        self.engines.lock().expect("nothing panics under this lock")
    }

    fn stopping(&self) -> MutexGuard<'_, Vec<Power>> {
        self.stopping.lock().expect("nothing panics under this lock")
    }

    fn faults(&self) -> MutexGuard<'_, Vec<Faults>> {
        self.faults.lock().expect("nothing panics under this lock")
    }

    pub(crate) fn start(&self, faults: Faults) {
        let power = Power::on();
        let backend = self.backend.clone();
        let backend = backend
            .layered(faults.clone())
            .layered(TimeLimit::new(Duration::from_secs(3)))
            .layered(Retry::builder().seed(1).build())
            .layered(power.clone());
        let clock: Arc<dyn Clock> = Arc::clone(&self.clock) as _;
        let flux = Flux::builder(backend).clock(clock).start();
        self.faults().push(faults);
        self.engines().push(Engine { flux, power });
    }

    /// Takes an engine out of those that are called.
    fn take(&self, one: usize) -> Engine {
        let engine = self.engines().remove(one);
        self.note_failure(&engine);
        engine
    }

    fn note_failure(&self, engine: &Engine) {
        let failure = engine.flux.failure().map(|failure| failure.to_string());
        self.failures.lock().expect("nothing panics under this lock").extend(failure);
    }

    /// Why engines could not go on; whatever the services do, none has a reason.
    pub(crate) fn failures(&self) -> Vec<String> {
        self.engines().iter().for_each(|engine| self.note_failure(engine));
        self.failures.lock().expect("nothing panics under this lock").clone()
    }

    /// Faults that were done so far.
    pub(crate) fn injected(&self) -> u64 {
        self.faults().iter().flat_map(|faults| faults.injected().into_values()).sum()
    }

    /// Ends all faults.
    pub(crate) fn heal(&self) {
        self.faults().iter().for_each(Faults::stop);
        self.engines().iter().for_each(|engine| engine.power.thaw());
    }

    /// Lets engines come and go, until this is dropped.
    pub(crate) async fn live(self: Arc<Self>, seed: u64) {
        let mut dice = Dice(seed);
        for more in 1.. {
            sleep(Duration::from_millis(200 + dice.roll(3_000))).await;
            let count = self.engines().len();
            let one = dice.roll(count as u64) as usize;
            match dice.roll(8) {
                0 | 1 if count < ENGINES_MAX => self.start(Faults::harsh(seed + more)),
                2 => {
                    let engine = self.take(one);
                    self.stopping().push(engine.power.clone());
                    tokio::spawn(async move { engine.flux.shutdown().await });
                }
                3 | 4 => self.take(one).power.cut(),
                5 => {
                    let power = self.engines()[one].power.clone();
                    let long = Duration::from_millis(dice.roll(15_000));
                    power.freeze();
                    tokio::spawn(async move {
                        sleep(long).await;
                        power.thaw();
                    });
                }
                6 => {
                    if let Some(volatile) = &self.volatile {
                        // Nobody works on what the store forgets.
                        (0..count).for_each(|_| self.take(0).power.cut());
                        self.stopping().drain(..).for_each(|power| power.cut());
                        volatile.fail();
                    }
                }
                _ => {}
            }
            while self.engines().len() < 2 {
                let made = self.faults().len() as u64;
                self.start(Faults::harsh(seed + (more << 32) + made));
            }
        }
    }

    /// Calls until there is an answer, each time at any of the engines; the answer, and
    /// whether it is the first call's.
    pub(crate) async fn insist<F, T>(
        &self,
        dice: &mut Dice,
        call: impl Fn(Flux) -> F,
    ) -> (Result<T, Error>, bool)
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut last = None;
        for n in 0..CALLS_MAX {
            let engine = {
                let engines = self.engines();
                engines[dice.roll(engines.len() as u64) as usize].clone()
            };
            let answer = tokio::select! {
                biased;
                // Whoever called it hangs up.
                () = engine.power.is_cut() => None,
                answer = call(engine.flux.clone()) => Some(answer),
            };
            match answer {
                None | Some(Err(Error::ShuttingDown)) => {}
                Some(Err(
                    error @ (Error::Backend(_)
                    | Error::OutcomePending(_)
                    | Error::Overloaded { .. }),
                )) => last = Some(error),
                Some(answer) => return (answer, n == 0),
            }
            sleep(Duration::from_millis(dice.roll(400))).await;
        }
        (Err(last.expect("it was called")), false)
    }

    /// The engines that are well.
    pub(crate) fn well(&self) -> Vec<Flux> {
        let engines = self.engines();
        let well = engines.iter().filter(|engine| engine.power.is_on());
        well.map(|engine| engine.flux.clone()).collect()
    }
}
