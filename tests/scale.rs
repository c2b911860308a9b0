//! More workers decide more orders, and those who are well notice nothing of one who is
//! not: in a modelled region, in virtual time.

use std::time::Duration;

use stage::region::{Course, Market, Rush, Steady, Takeover, Trouble, Waits, number};

/// A smaller region: transactions at once, and items. Each worker has a few more items
/// than it can write at once.
const SMALL: (usize, usize) = (8, 40);

async fn rate(market: Market, orders: usize) -> f64 {
    let figures = Rush { market, orders }.run().await.expect("the region takes it");
    if market.has_locks {
        assert_eq!(figures.counts.refused, 0, "nobody takes another's items");
    }
    figures.rate()
}

/// What a rush and a killed worker come to, with everything that could be told apart.
fn told(seed: u64) -> String {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().expect("a runtime");
    runtime.block_on(async {
        let market = Market { pairs: 0.1, seed, ..small() };
        let figures = Rush { market, orders: 3_000 }.run().await.expect("the region takes it");
        let troubles = vec![
            (Duration::from_millis(1_000), Trouble::Freeze),
            (Duration::from_millis(7_000), Trouble::Thaw),
            (Duration::from_millis(7_500), Trouble::LocksAway),
        ];
        let lasts = Duration::from_secs(8);
        let steady = Steady { market, rate: 300.0, lasts, from_item: 0, troubles };
        let course = course(steady).await;
        let takeover = course.takeover();
        format!("{figures:?} {:?} {takeover:?} {:?}", course.counts, Waits::of(course.troubled()))
    })
}

#[test]
fn the_same_seed_gives_the_same_figures_each_time() {
    let first = told(1);
    assert!((0..4).all(|_| told(1) == first), "{first}");
    assert_ne!(told(2), first, "and another gives others");
}

fn market(workers: usize, items: usize) -> Market {
    Market { workers, items, ..Market::default() }
}

fn small() -> Market {
    let (at_once, items) = SMALL;
    Market { at_once, ..market(4, items) }
}

async fn course(steady: Steady) -> Course {
    let course = steady.run().await.expect("the region takes it");
    assert_eq!(course.wrong(), 0, "orders are lost, or decided twice");
    course
}

async fn troubled(rate: f64, troubles: &[(u64, Trouble)]) -> Course {
    let at = |&(ms, trouble)| (Duration::from_millis(ms), trouble);
    let troubles = troubles.iter().map(at).collect();
    let lasts = Duration::from_secs(10);
    course(Steady { market: small(), rate, lasts, from_item: 0, troubles }).await
}

#[tokio::test(start_paused = true)]
async fn workers_add_speed() {
    let one = rate(market(1, 300), 100_000).await;
    assert!(one > 60_000.0, "one worker decided {one:.0} orders a second");
    let four = rate(market(4, 300), 100_000).await;
    assert!(four > 2.0 * one, "four workers decided {four:.0}, one {one:.0}");
}

#[tokio::test(start_paused = true)]
async fn an_item_is_no_slower_with_more_workers() {
    let rates = [rate(market(1, 1), 20_000).await, rate(market(8, 1), 20_000).await];
    assert!(rates.iter().all(|rate| *rate > 4_400.0), "{rates:?}");
}

#[tokio::test(start_paused = true)]
async fn orders_over_two_items_are_gathered() {
    let rate = rate(Market { pairs: 0.1, ..market(1, 300) }, 60_000).await;
    // In the order of arrival they are some 42,000.
    assert!(rate > 75_000.0, "one worker decided {rate:.0} orders a second");
}

#[tokio::test(start_paused = true)]
async fn workers_lend_each_other_items_for_orders_over_two() {
    for workers in [4, 8] {
        let rate = rate(Market { pairs: 0.1, ..market(workers, 300) }, 60_000).await;
        // In the order of arrival they are some 25,000; taking them from each other, 200.
        assert!(rate > 65_000.0, "{workers} workers decided {rate:.0} orders a second");
    }
}

#[tokio::test(start_paused = true)]
async fn orders_over_two_items_and_those_they_borrow_from_wait_for_a_second_at_most() {
    let market = Market { pairs: 0.1, ..market(4, 300) };
    let (lasts, troubles) = (Duration::from_secs(8), Vec::new());
    let course = course(Steady { market, rate: 15_000.0, lasts, from_item: 0, troubles }).await;
    let waits = Waits::of(course.usual());
    assert!(waits.p99 <= Duration::from_millis(400), "{waits:?}");
    assert!(waits.max <= Duration::from_secs(1), "{waits:?}");
}

#[tokio::test(start_paused = true)]
async fn an_order_waits_for_little_more_than_its_calls() {
    let rate = 0.6 * rate(small(), 30_000).await;
    let (lasts, troubles) = (Duration::from_millis(1_700), Vec::new());
    let course = course(Steady { market: small(), rate, lasts, from_item: 0, troubles }).await;
    let least = small().times.queue + small().times.commit;
    let waits = Waits::of(course.usual());
    assert!(waits.p50 <= 2 * least && waits.p99 <= 4 * least, "{waits:?}");
    assert_eq!(course.counts.refused, 0);
    assert!(course.counts.claims_per_1000() <= 5.0, "{:?}", course.counts);
}

#[tokio::test(start_paused = true)]
async fn others_take_over_from_a_worker_that_is_killed() {
    let takeover = troubled(2_000.0, &[(2_000, Trouble::Kill)]).await.takeover();
    assert!(takeover.lost > 0, "{takeover:?}");
    assert!(takeover.served_after <= Duration::from_secs(5), "{takeover:?}");
    assert!(takeover.without_answer <= Duration::from_secs(5), "{takeover:?}");
    hardly_noticed(takeover);
}

#[tokio::test(start_paused = true)]
async fn others_take_over_from_a_worker_that_stands_still() {
    let troubles = [(2_000, Trouble::Freeze), (9_000, Trouble::Thaw)];
    let takeover = troubled(2_000.0, &troubles).await.takeover();
    assert!(takeover.served_after <= Duration::from_secs(5), "{takeover:?}");
    hardly_noticed(takeover);
}

#[tokio::test(start_paused = true)]
async fn others_take_over_from_a_worker_that_cannot_write() {
    let troubles = [(2_000, Trouble::StoreAway)];
    let takeover = troubled(2_000.0, &troubles).await.takeover();
    assert!(takeover.lost > 0, "{takeover:?}");
    assert!(takeover.served_after <= Duration::from_secs(6), "{takeover:?}");
    assert!(takeover.stayed_slowest <= Duration::from_secs(1), "{takeover:?}");
    assert!(takeover.slowest <= Duration::from_secs(12), "{takeover:?}");
}

/// Checks that whoever asked for other items had his answer about as soon as ever.
fn hardly_noticed(takeover: Takeover) {
    let longest = 2 * takeover.others_usual.p999;
    assert!(takeover.stayed_slowest <= longest, "{takeover:?}");
    // Where a partition moved, what one had in hand comes to the other by way of the queue.
    let by_queue = 2 * small().times.queue;
    assert!(takeover.moved_slowest <= longest + by_queue, "{takeover:?}");
}

#[tokio::test(start_paused = true)]
async fn orders_are_decided_without_a_lock_service() {
    let without = Market { has_locks: false, ..small() };
    assert!(rate(without, 10_000).await > 1_000.0);
    let course = troubled(500.0, &[(1_000, Trouble::LocksAway)]).await;
    assert!(Waits::of(course.troubled()).p50 < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn cold_items_notice_nothing_of_hot_ones() {
    let hot = 4;
    // The hottest has three fifths of what one item can have, or nearly twice as much.
    for (workers, items, rate) in [(4, 100, 12_000.0), (1, 300, 40_000.0)] {
        let market = Market { skew: 1.1, ..market(workers, items) };
        let mut p99 = Vec::new();
        for from_item in [hot, 0] {
            let (lasts, troubles) = (Duration::from_secs(5), Vec::new());
            let course = course(Steady { market, rate, lasts, from_item, troubles }).await;
            let cold = course.usual().filter(|decided| number(&decided.item) >= hot);
            p99.push(Waits::of(cold).p99.as_secs_f64());
        }
        assert!(p99[1] <= 1.5 * p99[0], "{workers} workers, {rate} a second: {p99:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn stripes_multiply_the_rate_of_one_item() {
    let one = rate(market(4, 1), 10_000).await;
    let striped = rate(Market { stripes: 8, ..market(4, 1) }, 40_000).await;
    assert!(striped >= 6.0 * one, "{one:.0}, of 8 stripes {striped:.0}");
}
