//! Adaptive batching: calls that come while the last batch is on its way go
//! together in the next. An idle caller waits for nobody; a crowd shares.

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

/// The reason that a call was not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotBatched {
    /// Too many wait already.
    Full,
    /// The batch failed by a panic, or the runtime is going down.
    Lost,
}

type Call<T, R> = (T, oneshot::Sender<R>);

/// Collects calls into batches. Dropping it ends its task, and with it the
/// batches on their way.
#[derive(Debug)]
pub(crate) struct Batcher<T, R> {
    calls: mpsc::Sender<Call<T, R>>,
    _task: JoinSet<()>,
}

impl<T: Send + 'static, R: Send + 'static> Batcher<T, R> {
    /// At most `waiting_max` calls wait, `batch_max` go together, and
    /// `batches_max` batches are on their way at once. `work` answers each of
    /// a batch's calls, in order. Must be called within a tokio runtime.
    pub(crate) fn new<W, F>(
        waiting_max: usize,
        batch_max: usize,
        batches_max: usize,
        work: W,
    ) -> Self
    where
        W: Fn(Vec<T>) -> F + Send + Sync + 'static,
        F: Future<Output = Vec<R>> + Send + 'static,
    {
        let (calls, mut waiting) = mpsc::channel::<Call<T, R>>(waiting_max);
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut on_their_way = JoinSet::new();
            loop {
                let mut batch = Vec::new();
                tokio::select! {
                    count = waiting.recv_many(&mut batch, batch_max),
                        if on_their_way.len() < batches_max =>
                    {
                        if count == 0 {
                            break;
                        }
                        let (asked, callers): (Vec<T>, Vec<_>) = batch.into_iter().unzip();
                        let working = work(asked);
                        on_their_way.spawn(async move {
                            for (caller, answer) in callers.into_iter().zip(working.await) {
                                // A caller that went away hears nothing.
                                let _ = caller.send(answer);
                            }
                        });
                    }
                    Some(_) = on_their_way.join_next() => {}
                }
            }
            while on_their_way.join_next().await.is_some() {}
        });
        Self { calls, _task: task }
    }

    /// Hands in a call that nobody waits for. `false` when too many wait.
    #[cfg(feature = "redis")]
    pub(crate) fn tell(&self, asked: T) -> bool {
        let (caller, _) = oneshot::channel();
        self.calls.try_send((asked, caller)).is_ok()
    }

    /// Makes one call, together with others that wait. A dropped call may
    /// still be made.
    pub(crate) async fn call(&self, asked: T) -> Result<R, NotBatched> {
        let (caller, answer) = oneshot::channel();
        self.calls.try_send((asked, caller)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => NotBatched::Full,
            mpsc::error::TrySendError::Closed(_) => NotBatched::Lost,
        })?;
        answer.await.map_err(|_| NotBatched::Lost)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use super::*;

    type Sizes = Arc<Mutex<Vec<usize>>>;

    fn doubling(waiting_max: usize, batch_max: usize) -> (Arc<Batcher<u32, u32>>, Sizes) {
        let sizes = Sizes::default();
        let seen = Arc::clone(&sizes);
        let batcher = Batcher::new(waiting_max, batch_max, 1, move |batch: Vec<u32>| {
            seen.lock().expect("no panic").push(batch.len());
            async move {
                tokio::time::sleep(Duration::from_millis(10)).await;
                batch.into_iter().map(|n| n * 2).collect()
            }
        });
        (Arc::new(batcher), sizes)
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_while_a_batch_is_away_goes_together() {
        let (batcher, sizes) = doubling(100, 8);
        let first = tokio::spawn({
            let batcher = Arc::clone(&batcher);
            async move { batcher.call(1).await }
        });
        tokio::time::sleep(Duration::from_millis(5)).await;
        let rest = (2..12).map(|n| batcher.call(n));
        let answers = futures_util::future::join_all(rest).await;
        assert_eq!(first.await.expect("no panic"), Ok(2));
        assert_eq!(answers, (2..12).map(|n| Ok(n * 2)).collect::<Vec<_>>());
        assert_eq!(*sizes.lock().expect("no panic"), [1, 8, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn too_many_hear_so_at_once() {
        let (batcher, _) = doubling(2, 1);
        let calls = (0..20).map(|n| batcher.call(n));
        let answers = futures_util::future::join_all(calls).await;
        assert!(answers.contains(&Err(NotBatched::Full)), "{answers:?}");
        assert!(answers.iter().filter(|answer| answer.is_ok()).count() >= 2, "{answers:?}");
    }

    #[tokio::test]
    async fn a_batch_that_panics_takes_only_its_own_with_it() {
        let batcher = Batcher::new(8, 1, 1, |batch: Vec<u32>| async move {
            assert_ne!(batch, [1], "told to");
            batch
        });
        assert_eq!(batcher.call(1).await, Err(NotBatched::Lost));
        assert_eq!(batcher.call(2).await, Ok(2));
    }
}
