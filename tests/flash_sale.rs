//! A flash sale from the first buyer to the audit, at a tenth of its size:
//! whatever the crowd does, exactly the stock is sold, and nobody is told two
//! different things.

use std::sync::Arc;

use flux_core::{Backend, Flux, OrderStatus, Timestamp};
use stage::{Outcome, Sale, Stock, Witness, storm};

const SALE: Sale = Sale {
    opened_at: Timestamp::from_millis(1_700_000_000_000),
    seed: 7,
    buyers: 10_000,
    items: 1,
    stock: Stock::Units(1_000),
    in_flight: 256,
    repeat_percent: 30,
    pay_percent: 60,
};

fn in_memory() -> Flux {
    Flux::builder(Backend::memory()).start()
}

/// Sells `sale` on `flux`, checks everything that holds for any sale, and
/// returns what the buyers know.
async fn sell(flux: &Flux, sale: &Sale) -> Outcome {
    sale.put_items(flux).await.expect("the items are put on sale");
    let witness = Arc::new(Witness::new(sale));
    let hear = {
        let witness = Arc::clone(&witness);
        move |heard| witness.hear(heard)
    };
    let tally = storm(flux, sale, witness.waiting(), hear).await;
    assert_eq!((tally.faults, &tally.notes), (0, &Vec::new()));
    assert_eq!(witness.waiting(), Vec::<u32>::new(), "everybody is answered");
    assert_eq!(sale.faults(flux).await.expect("the items are read"), Vec::<String>::new());
    assert_eq!(witness.faults(flux).await.expect("the orders are read"), Vec::<String>::new());
    let audit = flux.audit().await.expect("the books are read");
    assert!(audit.is_clean(), "{audit}");
    assert_eq!(witness.outcome(), tally.outcome);
    assert_eq!(tally.outcome.buyers(), u64::from(sale.buyers));
    tally.outcome
}

fn tickets(outcome: &Outcome) -> u64 {
    outcome.count(OrderStatus::Held) + outcome.count(OrderStatus::Confirmed)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_sells_out_exactly() {
    let outcome = sell(&in_memory(), &SALE).await;
    assert_eq!(tickets(&outcome), 1_000);
    let paid = outcome.count(OrderStatus::Confirmed);
    assert!((500..700).contains(&paid), "about 60 of a hundred pay, {paid} did");
    assert!(outcome.turned_away > 0, "the gate shuts");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hall_sells_out_exactly() {
    let outcome = sell(&in_memory(), &Sale { stock: Stock::Seats(1_000), ..SALE }).await;
    assert_eq!(tickets(&outcome), 1_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_items_sell_out_exactly() {
    let sale = Sale { items: 20, stock: Stock::Units(50), ..SALE };
    assert_eq!(tickets(&sell(&in_memory(), &sale).await), 1_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_too_few_buyers_everybody_gets_a_ticket() {
    let sale = Sale { buyers: 900, ..SALE };
    assert_eq!(tickets(&sell(&in_memory(), &sale).await), 900);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sale_outlives_the_engine_and_a_second_sale_fits_beside_it() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let flux = Flux::open(dir.path()).await.expect("a fresh store opens");
    let first = sell(&flux, &SALE).await;
    assert_eq!(tickets(&first), 1_000);
    flux.shutdown().await;
    drop(flux);

    let flux = Flux::open(dir.path()).await.expect("the store opens again");
    let audit = flux.audit().await.expect("the books are read");
    assert!(audit.is_clean(), "{audit}");
    assert_eq!(audit.count(OrderStatus::Confirmed), first.count(OrderStatus::Confirmed));
    assert_eq!(audit.count(OrderStatus::Held), first.count(OrderStatus::Held));

    let opened_at = Timestamp::from_millis(SALE.opened_at.as_millis() + 1);
    let second = Sale { opened_at, stock: Stock::Seats(300), ..SALE };
    assert_eq!(tickets(&sell(&flux, &second).await), 300);
}
