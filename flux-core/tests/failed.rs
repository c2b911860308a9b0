//! An engine that can't go on says so: it completes [`Flux::failed`], and takes
//! nothing more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use flux_core::layers::{Call, Layer, Operation};
use flux_core::seams::{OutcomeBus, OutcomeReceiver, Outcomes, SeamError, outcome_channel};
use flux_core::{Backend, Error, Failure, Flux, ItemId, ItemSpec, OrderRequest, Role};
use tokio::time::timeout;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;
type Answer<T> = std::result::Result<T, SeamError>;

/// The time within which a failure is noticed.
const NOTICED_WITHIN: Duration = Duration::from_secs(1);

/// What a backend does wrong.
#[derive(Clone, Copy)]
enum Wrong {
    Panics,
    Stops,
    Refuses,
}

/// A backend whose calls of one kind go wrong, once that is armed.
#[derive(Clone)]
struct Fault {
    operation: Operation,
    wrong: Wrong,
    armed: Arc<AtomicBool>,
}

impl Layer for Fault {
    async fn around<T, F, Fut>(&self, call: Call, run: F) -> Answer<T>
    where
        T: Send,
        F: Fn() -> Fut + Send + Sync,
        Fut: Future<Output = Answer<T>> + Send,
    {
        if call.operation != self.operation || !self.armed.load(Ordering::Relaxed) {
            return run().await;
        }
        match self.wrong {
            Wrong::Panics => panic!("the backend has a bug"),
            Wrong::Stops => Err(SeamError::stopped("backend", "its disk is full")),
            Wrong::Refuses => Err(SeamError::broken("backend", "this can't be written")),
        }
    }
}

fn one(buyer: &str) -> OrderRequest {
    OrderRequest::units(buyer, "a", 1).expect("a request")
}

/// An engine with something to sell, and what makes its backend go wrong.
async fn sale(role: Role, operation: Operation, wrong: Wrong) -> Result<(Flux, Arc<AtomicBool>)> {
    let armed = Arc::<AtomicBool>::default();
    let fault = Fault { operation, wrong, armed: Arc::clone(&armed) };
    let flux = Flux::builder(Backend::memory().layered(fault)).role(role).start();
    flux.put_item(ItemSpec::pool("a", 100)?).await?;
    Ok((flux, armed))
}

/// The failure of an engine whose backend goes wrong in this way.
async fn failure(role: Role, operation: Operation, wrong: Wrong) -> Result<Option<Failure>> {
    let (flux, armed) = sale(role, operation, wrong).await?;
    if role == Role::Both {
        flux.place(one("ann")).await?;
    }
    // By then the worker has let go of the item.
    tokio::time::sleep(NOTICED_WITHIN).await;
    armed.store(true, Ordering::Relaxed);
    for _ in 0..2 {
        // Some faults take an order to be met, some an acknowledgement.
        let _ = timeout(NOTICED_WITHIN, flux.place(one("bob"))).await;
        let _ = timeout(NOTICED_WITHIN, flux.submit(one("eve"))).await;
    }
    let failure = timeout(NOTICED_WITHIN, flux.failed()).await.ok();
    assert_eq!(failure.is_some(), flux.failure().is_some());
    if failure.is_some() {
        let refused = [flux.place(one("bob")).await, flux.submit(one("bob")).await];
        assert!(refused.iter().all(|r| matches!(r, Err(Error::ShuttingDown))), "{refused:?}");
    }
    timeout(NOTICED_WITHIN, flux.shutdown()).await?;
    Ok(failure)
}

#[tokio::test(start_paused = true)]
async fn an_engine_whose_task_panics_has_failed() -> Result {
    use Operation::{Ack, Claim, Commit, DueHolds, Levels, Receive};
    for operation in [Commit, Claim, DueHolds, Receive, Ack] {
        let failure = failure(Role::Both, operation, Wrong::Panics).await?;
        let told = failure.ok_or_else(|| operation.to_string())?.to_string();
        assert!(told.starts_with("the engine's worker ended"), "{operation}: {told}");
    }
    for role in [Role::Both, Role::AcceptOnly] {
        let failure = failure(role, Levels, Wrong::Panics).await?.ok_or("it failed")?;
        let told = failure.to_string();
        assert!(told.contains("reader") && told.contains("the backend has a bug"), "{told}");
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn an_engine_whose_backend_has_stopped_has_failed() -> Result {
    use Operation::{Claim, Commit, DueHolds, Levels, Receive, Send};
    let of_both = [Commit, Claim, DueHolds, Receive, Levels, Send];
    let both = of_both.map(|operation| (Role::Both, operation));
    for (role, operation) in
        both.into_iter().chain([Levels, Send].map(|operation| (Role::AcceptOnly, operation)))
    {
        let failure = failure(role, operation, Wrong::Stops).await?;
        let is_told = matches!(failure, Some(Failure::Backend(SeamError::Stopped { .. })));
        assert!(is_told, "{operation}: {failure:?}");
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_call_that_can_not_be_done_is_no_failure_of_the_engine() -> Result {
    for operation in [Operation::Commit, Operation::Claim, Operation::Receive] {
        let failure = failure(Role::Both, operation, Wrong::Refuses).await?;
        assert!(failure.is_none(), "{operation}: {failure:?}");
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_was_told_to_stop_has_not_failed() -> Result {
    let (flux, _) = sale(Role::Both, Operation::Claim, Wrong::Panics).await?;
    flux.shutdown().await;
    assert!(timeout(Duration::from_secs(60), flux.failed()).await.is_err());
    assert!(flux.failure().is_none());
    Ok(())
}

/// A bus that nothing comes over any more.
struct Closed;

#[async_trait]
impl OutcomeBus for Closed {
    async fn publish(&self, _: Arc<Outcomes>) -> Answer<()> {
        Ok(())
    }

    fn subscribe(&self) -> OutcomeReceiver {
        outcome_channel(1).subscribe()
    }
}

#[tokio::test(start_paused = true)]
async fn an_engine_whose_bus_has_ended_has_failed() -> Result {
    let backend = Backend { bus: Arc::new(Closed), ..Backend::memory() };
    let flux = Flux::builder(backend).role(Role::AcceptOnly).start();
    let told = timeout(NOTICED_WITHIN, flux.failed()).await?.to_string();
    assert!(told.contains("listener"), "{told}");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn only_those_whom_the_worker_was_at_are_in_doubt_when_it_panics() -> Result {
    let (flux, armed) = sale(Role::Both, Operation::Commit, Wrong::Panics).await?;
    armed.store(true, Ordering::Relaxed);
    // More than one batch of them, all handed in before the worker looks.
    let calls: Vec<_> = (0..3_000)
        .map(|_| {
            let flux = flux.clone();
            tokio::spawn(async move { flux.place(one("ann")).await })
        })
        .collect();
    let (mut in_doubt, mut refused) = (0, 0);
    for call in calls {
        match call.await? {
            Err(Error::OutcomePending(_)) => in_doubt += 1,
            Err(Error::ShuttingDown) => refused += 1,
            answer => panic!("{answer:?}"),
        }
    }
    assert!((1..=1_024).contains(&in_doubt) && refused > 0, "{in_doubt}, {refused} refused");
    let item = flux.item(&ItemId::new("a")?).await?.expect("it was put");
    assert_eq!(item.available, 100);
    Ok(())
}

/// A backend that answers nothing to a write, and has stopped from then on.
#[derive(Clone, Default)]
struct Vanishes(Arc<AtomicBool>);

impl Layer for Vanishes {
    async fn around<T, F, Fut>(&self, call: Call, run: F) -> Answer<T>
    where
        T: Send,
        F: Fn() -> Fut + Send + Sync,
        Fut: Future<Output = Answer<T>> + Send,
    {
        if self.0.load(Ordering::Relaxed) {
            return Err(SeamError::stopped("backend", "it is gone"));
        }
        let answer = run().await;
        if call.operation == Operation::Commit {
            self.0.store(true, Ordering::Relaxed);
            return Err(SeamError::unknown("backend"));
        }
        answer
    }
}

#[tokio::test(start_paused = true)]
async fn who_was_perhaps_sold_something_is_told_so_whatever_came_after() -> Result {
    let backend = Backend::memory();
    let flux = Flux::builder(backend.clone().layered(Vanishes::default())).start();
    flux.put_item(ItemSpec::pool("a", 100)?).await?;
    let told = flux.place(one("ann")).await;
    assert!(matches!(told, Err(Error::OutcomePending(_))), "{told:?}");
    let items = backend.store.items(&[ItemId::new("a")?]).await?;
    assert_eq!(items[0].as_ref().map(|item| item.held), Some(1), "it was sold");
    Ok(())
}
