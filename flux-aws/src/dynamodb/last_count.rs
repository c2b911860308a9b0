//! The last count of what is owed, which serves for a while: each is a query of every key.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flux_core::seams::{Owed, SeamError};
use tokio::time::Instant;

/// Time for which a count serves.
const SERVES: Duration = Duration::from_secs(60);
/// A count made here serves no longer once something changed here, if it met no more.
const CHEAP: u64 = 1_000;

#[derive(Debug, Default)]
struct Known {
    last: Option<(Instant, Owed)>,
    /// Times that something changed here.
    changes: u64,
}

/// The last count, and when it was made.
#[derive(Debug, Default)]
pub(super) struct LastCount {
    known: Mutex<Known>,
    /// Held by the one who counts.
    counting: tokio::sync::Mutex<()>,
}

impl LastCount {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something changed here: a count that is cheap serves no longer, nor does one that is
    /// being made.
    pub(super) fn changed(&self) {
        let mut known = self.known();
        known.changes += 1;
        known.last.take_if(|(_, owed)| owed.orders <= CHEAP);
    }

    /// The last count while it serves, or another, made once for all who ask at once.
    pub(super) async fn or_count<F>(&self, count: impl FnOnce() -> F) -> Result<Owed, SeamError>
    where
        F: Future<Output = Result<Owed, SeamError>>,
    {
        let _counting = self.counting.lock().await;
        let changes = {
            let known = self.known();
            if let Some((at, owed)) = known.last
                && at.elapsed() < SERVES
            {
                return Ok(owed);
            }
            known.changes
        };
        let owed = count().await?;
        let mut known = self.known();
        if known.changes == changes || owed.orders > CHEAP {
            known.last = Some((Instant::now(), owed));
        }
        Ok(owed)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::oneshot;

    use super::*;

    /// A count that is not to be made.
    async fn none() -> Result<Owed, SeamError> {
        panic!("the last count serves")
    }

    async fn counted(last: &LastCount, orders: u64) -> u64 {
        let count = last.or_count(|| async move { Ok(Owed::new(orders, None)) });
        count.await.expect("counted").orders
    }

    #[tokio::test(start_paused = true)]
    async fn a_count_serves_for_a_while_or_until_something_changes() {
        let last = LastCount::default();
        assert_eq!(counted(&last, 3).await, 3);
        assert_eq!(last.or_count(none).await.expect("known").orders, 3);
        last.changed();
        assert_eq!(counted(&last, 4).await, 4);
        tokio::time::advance(SERVES).await;
        assert_eq!(counted(&last, CHEAP + 1).await, CHEAP + 1);
        last.changed();
        assert_eq!(last.or_count(none).await.expect("known").orders, CHEAP + 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_does_not_wait_for_a_count_and_has_it_made_anew() {
        let last = Arc::new(LastCount::default());
        let (go_on, wait) = oneshot::channel();
        let count = tokio::spawn({
            let last = Arc::clone(&last);
            async move {
                let count = last.or_count(|| async move {
                    wait.await.expect("told");
                    Ok(Owed::new(3, None))
                });
                count.await
            }
        });
        tokio::task::yield_now().await;
        last.changed();
        go_on.send(()).expect("it counts");
        assert_eq!(count.await.expect("no panic").expect("counted").orders, 3);
        assert_eq!(counted(&last, 4).await, 4);
    }
}
