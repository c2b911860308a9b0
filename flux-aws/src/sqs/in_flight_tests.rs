//! The end of a pack as its messages are settled.

use flux_core::OrderId;
use uuid::Uuid;

use super::*;

const VISIBILITY: Duration = Duration::from_secs(30);

fn message(n: u128) -> Message {
    Message::Release(OrderId::from_uuid(Uuid::from_u128(n)))
}

/// One pack of so many messages in flight, received for the second time, and
/// its receipts.
fn with_pack(messages: u128) -> (InFlight, Vec<Receipt>) {
    let mut in_flight = InFlight::new(VISIBILITY, u64::MAX);
    let messages = (0..messages).map(|n| (3, message(n))).collect();
    in_flight.add("handle".into(), Timestamp::from_millis(5), 2, messages, Instant::now());
    let (deliveries, _) = in_flight.take(usize::MAX, Instant::now());
    assert!(deliveries.iter().all(|delivery| delivery.attempt == 5));
    (in_flight, deliveries.into_iter().map(|delivery| delivery.receipt).collect())
}

fn ends(in_flight: &mut InFlight, receipts: &[Receipt], how: Settle) -> Vec<End> {
    let (_, ended) = in_flight.settle(receipts, how, Instant::now());
    ended.into_iter().map(|(_, _, end)| end).collect()
}

#[tokio::test(start_paused = true)]
async fn a_pack_ends_when_its_last_message_is_settled() {
    let (mut in_flight, receipts) = with_pack(3);
    assert_eq!(ends(&mut in_flight, &receipts[..2], Settle::Done), []);
    assert_eq!(ends(&mut in_flight, &receipts[..2], Settle::Done), []);
    assert_eq!(ends(&mut in_flight, &receipts[2..], Settle::Done), [End::Delete]);
    // Until the delete went well it is tried again.
    assert_eq!(ends(&mut in_flight, &receipts[..1], Settle::Done), [End::Delete]);
    in_flight.forget(u64::MAX);
    assert_eq!(ends(&mut in_flight, &receipts, Settle::Done), []);
}

#[tokio::test(start_paused = true)]
async fn what_is_handed_back_goes_back_whole_or_is_sent_again() {
    let (short, long) = (Duration::from_secs(1), Duration::from_secs(2));
    let (mut in_flight, receipts) = with_pack(2);
    assert_eq!(ends(&mut in_flight, &receipts[..1], Settle::Back(long)), []);
    assert_eq!(ends(&mut in_flight, &receipts[1..], Settle::Back(short)), [End::Return(long)]);

    let (mut in_flight, receipts) = with_pack(3);
    assert_eq!(ends(&mut in_flight, &receipts[..2], Settle::Back(short)), []);
    let again = vec![(5, message(0)), (5, message(1))];
    assert_eq!(ends(&mut in_flight, &receipts[2..], Settle::Done), [End::Resend(again, short)]);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_handed_out_holds_the_pack() {
    let mut in_flight = InFlight::new(VISIBILITY, 1);
    let messages = vec![(0, message(1)), (0, message(2))];
    in_flight.add("handle".into(), Timestamp::default(), 1, messages, Instant::now());
    let (first, _) = in_flight.take(1, Instant::now());
    assert_eq!(ends(&mut in_flight, &[first[0].receipt.clone()], Settle::Done), []);
    let counts = in_flight.counts(Instant::now());
    assert_eq!((counts.packs, counts.buffered, counts.out), (1, 1, 0));
    let (second, _) = in_flight.take(9, Instant::now());
    assert_eq!(second[0].message, message(2));
    assert!(!in_flight.has_buffered());
}

#[tokio::test(start_paused = true)]
async fn a_receipt_is_good_until_its_time_runs_out() {
    let (mut in_flight, receipts) = with_pack(1);
    tokio::time::advance(VISIBILITY - Duration::from_secs(1)).await;
    let now = Instant::now();
    assert_eq!(in_flight.out(&receipts, now).len(), 1);
    in_flight.extended(u64::MAX, now);
    tokio::time::advance(VISIBILITY - Duration::from_secs(1)).await;
    assert!(in_flight.message(&receipts[0], Instant::now()).is_some());
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(in_flight.message(&receipts[0], Instant::now()).is_none());
    assert_eq!(ends(&mut in_flight, &receipts, Settle::Done), []);
    assert_eq!(in_flight.counts(Instant::now()), Counts::default());
}

#[tokio::test(start_paused = true)]
async fn what_waited_here_is_renewed_or_dropped() {
    let add = |in_flight: &mut InFlight| {
        let messages = vec![(0, message(1))];
        in_flight.add("handle".into(), Timestamp::default(), 1, messages, Instant::now());
    };
    let mut in_flight = InFlight::new(VISIBILITY, 1);
    add(&mut in_flight);
    tokio::time::advance(VISIBILITY * 2 / 3).await;
    let (deliveries, ageing) = in_flight.take(9, Instant::now());
    assert_eq!((deliveries.len(), ageing), (1, vec![(1, "handle".into())]));
    add(&mut in_flight);
    tokio::time::advance(VISIBILITY).await;
    let (deliveries, ageing) = in_flight.take(9, Instant::now());
    assert!(deliveries.is_empty() && ageing.is_empty());
}

#[tokio::test(start_paused = true)]
async fn strange_receipts_and_too_many_packs_do_no_harm() {
    let (mut in_flight, _) = with_pack(1);
    for strange in ["", ".", "x", "ffffffffffffffff", "ffffffffffffffff.9", "1.0", "zz.0"] {
        assert_eq!(ends(&mut in_flight, &[Receipt(strange.into())], Settle::Done), []);
    }
    for _ in 0..PACKS_MAX {
        let messages = vec![(0, message(1))];
        in_flight.add("handle".into(), Timestamp::default(), 1, messages, Instant::now());
    }
    assert_eq!(in_flight.counts(Instant::now()).packs, PACKS_MAX);
}
