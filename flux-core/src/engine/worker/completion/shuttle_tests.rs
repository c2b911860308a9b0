//! The completer and the worker, by thousands of schedules: a worker that waits until all
//! is complete goes on, also when the completer is gone.

use shuttle::future::{JoinHandle, yield_now};

use super::*;
use crate::sync::stand_ins::{explore, spawn};

/// A completer whose task can be aborted, and what is left of its batches.
fn completer() -> (Completer, JoinHandle<()>, mpsc::Receiver<Aftermath>) {
    let (hand_over, decided) = mpsc::channel(DECIDED_MAX);
    let (left, aftermath) = mpsc::channel(TO_TELL_MAX);
    let progress = Arc::new(Progress::default());
    let completing = Completing { decided, progress: Arc::clone(&progress) };
    // Tokio's tasks don't run here.
    let tasks = [(); 2].map(|()| tokio::spawn(async {}));
    (
        Completer { hand_over: Some(hand_over), tasks, progress },
        spawn(complete(completing, left)),
        aftermath,
    )
}

fn batch() -> DecidedBatch {
    let durable = Durable::after(async {
        yield_now().await;
        Ok(())
    });
    DecidedBatch {
        started: Some(Instant::now()),
        durable: Some(durable),
        works: Vec::new(),
        outcomes: Vec::new(),
        retry_after: Duration::ZERO,
    }
}

#[test]
fn a_worker_sees_that_its_batches_are_complete() {
    explore(|| async {
        let (completer, completing, mut aftermath) = completer();
        for _ in 0..2 {
            assert!(completer.hand_over(batch()).await);
        }
        completer.completed().await;
        drop(completer);
        completing.await.expect("it ends with its worker");
        for _ in 0..2 {
            assert!(aftermath.try_recv().is_ok(), "it was complete");
        }
    });
}

#[test]
fn a_worker_does_not_wait_for_a_completer_that_is_gone() {
    explore(|| async {
        let (completer, completing, _aftermath) = completer();
        let worker = spawn(async move {
            for _ in 0..2 {
                if !completer.hand_over(batch()).await {
                    break;
                }
            }
            completer.completed().await;
        });
        completing.abort();
        worker.await.expect("it goes on");
    });
}
