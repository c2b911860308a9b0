use tokio::time::Instant;

use super::*;
use crate::backends::Backend;
use crate::layers::testing::{Fake, backend, commit, deliveries};

const MINUTE: Duration = Duration::from_secs(60);

fn scripted(fake: &Arc<Fake>, operation: Operation, fault: Fault) -> (Backend, Faults) {
    let faults = Faults::script([(operation, 1, fault)]).expect("it fits");
    (backend(fake).layered(faults.clone()), faults)
}

#[test]
fn rates_and_scripts_are_checked() {
    for bad in [-0.1, 1.1, f64::NAN] {
        let error = Faults::builder().seed(1).lost(bad).build().expect_err("no rate");
        assert_eq!(error.field(), "lost");
    }
    assert!(Faults::builder().seed(1).lost(0.0).late(1.0).build().is_ok());
    assert!(Faults::script([(Operation::Commit, 0, Fault::Delay)]).is_err(), "calls count from 1");
    assert!(
        Faults::script([(Operation::Commit, 1, Fault::Lost)]).is_err(),
        "only outcomes are lost"
    );
    for (i, fault) in Fault::ALL.iter().enumerate() {
        assert_eq!(*fault as usize, i);
        for operation in Operation::ALL {
            let fits = match fault {
                Fault::Reorder | Fault::Redeliver => *operation == Operation::Receive,
                Fault::Lost => *operation == Operation::Publish,
                Fault::Blurred | Fault::Late => *operation == Operation::Commit,
                _ => true,
            };
            let script = Faults::script([(*operation, 1, *fault)]);
            assert_eq!(script.is_ok(), fits, "{fault:?} of {operation}");
        }
    }
}

/// The answers to a run of mixed calls through `faults`.
async fn run(faults: &Faults) -> (Vec<String>, Vec<Operation>) {
    let fake = Fake::answering([]);
    let layered = backend(&fake).layered(faults.clone());
    let mut answers = vec![];
    for n in 0..300 {
        answers.push(format!("{:?}", layered.queue.receive(10, MINUTE).await));
        answers.push(format!("{:?}", layered.store.commit(&[commit(n)]).await));
        answers.push(format!("{:?}", layered.bus.publish(Arc::default()).await));
    }
    (answers, fake.calls())
}

#[tokio::test(start_paused = true)]
async fn a_seed_brings_the_same_faults_and_another_seed_others() {
    let (first, again, other) = (Faults::harsh(7), Faults::harsh(7), Faults::harsh(8));
    let answers = run(&first).await;
    assert_eq!(answers, run(&again).await);
    assert_eq!(first.injected(), again.injected());
    assert_ne!(answers, run(&other).await);
}

#[tokio::test(start_paused = true)]
async fn the_faults_of_one_operation_do_not_hang_on_calls_of_another() {
    let answers = async |others: usize| {
        let faults = Faults::harsh(7);
        let layered = backend(&Fake::answering([])).layered(faults);
        let mut answers = vec![];
        for _ in 0..100 {
            answers.push(format!("{:?}", layered.store.claim(&[]).await));
            for _ in 0..others {
                let _ = layered.queue.ack(&[]).await;
            }
        }
        answers
    };
    assert_eq!(answers(0).await, answers(3).await);
}

#[tokio::test(start_paused = true)]
async fn harsh_injects_every_fault_at_about_its_rate() {
    let faults = Faults::harsh(7);
    run(&faults).await;
    let injected = faults.injected();
    for fault in Fault::ALL {
        assert!(injected.contains_key(fault), "{fault:?} in {injected:?}");
    }
    // 900 calls at 0.1, less those that were lost or late before it.
    let errors = injected[&Fault::ErrorBefore];
    assert!((50..=110).contains(&errors), "{injected:?}");

    let none = Faults::builder().seed(7).build().expect("no rates");
    run(&none).await;
    assert!(none.injected().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_nth_call_is_the_one_that_fails() {
    let fake = Fake::answering([]);
    let faults = Faults::script([
        (Operation::Claim, 2, Fault::ErrorBefore),
        (Operation::Claim, 3, Fault::ErrorAfter),
        (Operation::Claim, 4, Fault::NoAnswer),
    ]);
    let store = backend(&fake).layered(faults.expect("it fits")).store;
    assert!(store.claim(&[]).await.is_ok());

    let before = store.claim(&[]).await.expect_err("the second");
    assert!(matches!(before, SeamError::Unavailable { .. }), "{before:?}");
    assert_eq!(fake.calls().len(), 1, "not made");

    let after = store.claim(&[]).await.expect_err("the third");
    assert!(after.may_have_applied());
    assert_eq!(fake.calls().len(), 2, "made");

    let silent = store.claim(&[]).await.expect_err("the fourth");
    assert!(silent.may_have_applied());
    assert_eq!(fake.calls().len(), 2, "not made");

    assert!(store.claim(&[]).await.is_ok());
}

#[tokio::test]
async fn a_duplicate_is_made_twice_and_either_answer_may_come() {
    let (mut firsts, mut seconds) = (0, 0);
    for seed in 0..20 {
        let fake = Fake::answering([]);
        let faults = Faults::builder().seed(seed).duplicate(1.0).build().expect("a rate");
        let store = backend(&fake).layered(faults).store;
        let answer = store.commit(&[commit(1)]).await.expect("both go well");
        assert_eq!(fake.committed(), [1, 1]);
        match answer[0] {
            CommitOutcome::Applied => firsts += 1,
            _ => seconds += 1,
        }
    }
    assert!(firsts >= 4 && seconds >= 4, "{firsts} firsts, {seconds} seconds");
}

#[tokio::test(start_paused = true)]
async fn a_delay_is_bounded_and_a_freeze_long() {
    for seed in 0..20 {
        let delay_max = Duration::from_millis(80);
        let faults = Faults::builder().seed(seed).delay(1.0).delay_max(delay_max).build();
        let layered = backend(&Fake::answering([])).layered(faults.expect("a rate"));
        let started = Instant::now();
        assert!(layered.store.claim(&[]).await.is_ok());
        // The timer counts whole milliseconds.
        assert!(started.elapsed() <= delay_max + Duration::from_millis(1));
    }

    let (frozen, _) = scripted(&Fake::answering([]), Operation::Commit, Fault::Freeze);
    let started = Instant::now();
    assert!(frozen.store.commit(&[]).await.is_ok());
    assert!(started.elapsed() >= MINUTE);
}

#[tokio::test(start_paused = true)]
async fn stopping_wakes_the_frozen_and_ends_all_faults() {
    let fake = Fake::answering([]);
    let faults = Faults::builder().seed(7).freeze(1.0).error_after(1.0).late(1.0).build();
    let faults = faults.expect("rates");
    let store = backend(&fake).layered(faults.clone()).store;
    assert!(store.commit(&[commit(1)]).await.is_err(), "late");

    let started = Instant::now();
    let asleep = async { store.claim(&[]).await };
    let stop = async {
        tokio::task::yield_now().await;
        faults.stop();
    };
    let (claim, ()) = tokio::join!(asleep, stop);
    assert!(claim.is_err(), "this one was doomed before");
    assert!(started.elapsed() < MINUTE);

    let before = faults.injected();
    assert!(store.commit(&[commit(2)]).await.is_ok());
    assert_eq!(fake.committed(), [2], "the late one is forgotten");
    assert_eq!(faults.injected(), before);
}

#[test]
fn deliveries_are_shuffled_and_listed_twice_but_none_is_lost() {
    let receipts = |deliveries: &[Delivery]| -> Vec<String> {
        deliveries.iter().map(|delivery| delivery.receipt.0.clone()).collect()
    };
    for seed in 0..20 {
        let faults = Faults::builder().seed(seed).reorder(1.0).redeliver(1.0).build();
        let faults = faults.expect("rates");
        let all = receipts(&deliveries(8));

        let mut received = deliveries(8);
        faults.received(&mut received, 10);
        let mut listed = receipts(&received);
        assert_ne!(listed[..8], all, "seed {seed}");
        listed.sort();
        assert_eq!(listed.len(), 9);
        listed.dedup();
        assert_eq!(listed, all);

        let mut full = deliveries(8);
        faults.received(&mut full, 8);
        assert_eq!(full.len(), 8, "never more than asked for");
        assert_eq!(faults.injected()[&Fault::Redeliver], 1);
        assert_eq!(faults.injected()[&Fault::Reorder], 2);
    }
}

#[tokio::test]
async fn lost_outcomes_are_never_published_and_nobody_is_told() {
    let fake = Fake::answering([]);
    let (layered, faults) = scripted(&fake, Operation::Publish, Fault::Lost);
    assert!(layered.bus.publish(Arc::default()).await.is_ok());
    assert!(fake.calls().is_empty());
    assert_eq!(faults.injected(), BTreeMap::from([(Fault::Lost, 1)]));
}

#[tokio::test]
async fn of_a_blurred_commit_at_least_one_outcome_is_unknown() {
    let fake = Fake::answering([]);
    let (layered, _) = scripted(&fake, Operation::Commit, Fault::Blurred);
    let outcomes = layered.store.commit(&[commit(1), commit(2)]).await.expect("an answer");
    assert!(outcomes.contains(&CommitOutcome::Unknown));
    assert_eq!(fake.committed(), [1, 2]);
}

#[tokio::test]
async fn a_late_commit_reaches_the_store_ahead_of_the_next() {
    let fake = Fake::answering([]);
    let (layered, _) = scripted(&fake, Operation::Commit, Fault::Late);
    let error = layered.store.commit(&[commit(1)]).await.expect_err("nobody knows");
    assert!(error.may_have_applied());
    assert!(fake.committed().is_empty());

    let outcomes = layered.store.commit(&[commit(2)]).await.expect("in time");
    assert_eq!(outcomes, [CommitOutcome::Applied]);
    assert_eq!(fake.committed(), [1, 2]);
}
