//! More workers decide more orders: in a modelled region, in virtual time.

use stage::region::Rush;

async fn rate(workers: usize, items: usize, orders: usize) -> f64 {
    let rush = Rush { workers, items, orders, ..Rush::default() };
    let figures = rush.run().await.expect("the region takes it");
    assert_eq!(figures.counts.refused, 0, "nobody takes another's items");
    figures.rate()
}

#[tokio::test(start_paused = true)]
async fn workers_add_speed() {
    let one = rate(1, 300, 100_000).await;
    assert!(one > 60_000.0, "one worker decided {one:.0} orders a second");
    let four = rate(4, 300, 100_000).await;
    assert!(four > 2.0 * one, "four workers decided {four:.0}, one {one:.0}");
}

#[tokio::test(start_paused = true)]
async fn an_item_is_no_slower_with_more_workers() {
    let rates = [rate(1, 1, 20_000).await, rate(8, 1, 20_000).await];
    assert!(rates.iter().all(|rate| *rate > 4_400.0), "{rates:?}");
}

#[tokio::test(start_paused = true)]
async fn workers_lend_each_other_items_for_orders_over_two() {
    let rush = Rush { workers: 4, pairs: 0.1, orders: 30_000, ..Rush::default() };
    let figures = rush.run().await.expect("the region takes it");
    let (rate, refused) = (figures.rate(), figures.counts.refused);
    // Taking them from each other they decide some 200.
    assert!(rate > 10_000.0, "four workers decided {rate:.0} orders a second");
    assert_eq!(refused, 0, "nobody takes another's items");
}
