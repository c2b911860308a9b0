//! A time limit for each call: a connection that died without a word must not
//! take the worker with it.

use std::time::Duration;

use tokio::time::timeout;

use super::{Call, Layer};
use crate::seams::SeamError;

/// Gives each call this long, and a call that waits (`receive`, `acquire`)
/// this long on top of its own wait.
///
/// A call that runs out is dropped and answered with [`SeamError::Unknown`],
/// for it may have taken effect; a read with [`SeamError::Unavailable`].
#[derive(Debug, Clone, Copy)]
pub struct TimeLimit {
    limit: Duration,
}

impl TimeLimit {
    /// Limits each call to this time.
    #[must_use]
    pub fn new(limit: Duration) -> Self {
        Self { limit }
    }
}

impl Layer for TimeLimit {
    async fn around<T, F, Fut>(&self, call: Call, run: F) -> Result<T, SeamError>
    where
        T: Send,
        F: Fn() -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, SeamError>> + Send,
    {
        let limit = self.limit.saturating_add(call.wait);
        timeout(limit, run()).await.unwrap_or_else(|_| {
            let service = call.operation.service().as_str();
            let error = if call.operation.is_read() {
                SeamError::unavailable(service)
            } else {
                SeamError::unknown(service)
            };
            Err(error.with_source(format!("{} took longer than {limit:?}", call.operation)))
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::layers::testing::{Fake, Step, backend};

    const LIMIT: Duration = Duration::from_secs(2);
    const WAIT: Duration = Duration::from_secs(20);

    #[tokio::test(start_paused = true)]
    async fn a_call_in_time_is_left_alone() {
        let fake = Fake::answering([Step::After(LIMIT - Duration::from_millis(1))]);
        let limited = backend(&fake).layered(TimeLimit::new(LIMIT));
        assert!(limited.store.claim(&[]).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_runs_out_is_unknown_and_a_read_unavailable() {
        let fake = Fake::answering([Step::Never, Step::Never]);
        let limited = backend(&fake).layered(TimeLimit::new(LIMIT));
        let started = Instant::now();

        let write = limited.store.commit(&[]).await.expect_err("no answer");
        assert!(write.may_have_applied(), "{write:?}");
        assert_eq!(started.elapsed(), LIMIT);

        let read = limited.store.orders(&[]).await.expect_err("no answer");
        assert!(matches!(read, SeamError::Unavailable { service: "store", source: Some(_) }));
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_the_caller_asked_for_does_not_count() {
        let fake = Fake::answering([Step::After(WAIT), Step::Never, Step::After(WAIT)]);
        let limited = backend(&fake).layered(TimeLimit::new(LIMIT));
        assert!(limited.queue.receive(10, WAIT).await.is_ok());

        let started = Instant::now();
        let error = limited.queue.receive(10, WAIT).await.expect_err("no answer");
        assert!(error.may_have_applied());
        assert_eq!(started.elapsed(), LIMIT + WAIT);

        assert!(limited.locks.acquire(&[], LIMIT, WAIT).await.is_ok());
    }
}
