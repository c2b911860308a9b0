//! Adds workers to a modelled region, in virtual time, and prints how many orders a
//! second they decide. Other modes let orders come at a steady rate, give a worker
//! trouble, take the lock service away, make some items hot, or spread one over
//! stripes: the same on any machine.

use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser};
use stage::region::{Course, Figures, Market, Rush, Steady, Times, Trouble, Waits, number};

/// Workers in the modes that do not compare numbers of them.
const WORKERS: usize = 4;

/// How many more orders do more workers decide, and how long does each wait?
#[derive(Debug, Parser)]
struct Options {
    /// Workers; a line of the table for each number
    #[arg(long, value_delimiter = ',', default_values_t = [1, 4, 8])]
    workers: Vec<usize>,
    /// Items on sale; a part of the table for each number
    #[arg(long, value_delimiter = ',', default_values_t = [1, 300, 5_000])]
    items: Vec<usize>,
    /// Orders, which come all at once
    #[arg(long, default_value_t = 300_000)]
    orders: usize,
    /// Share of the orders that are over two items, 0 to 1
    #[arg(long, default_value_t = 0.0)]
    pairs: f64,
    /// Exponent of the demand for the items (Zipf); 0: the same for all
    #[arg(long, default_value_t = 0.0)]
    skew: f64,
    /// Transactions that one worker has on their way at once
    #[arg(long, default_value_t = 32)]
    at_once: usize,
    /// Partitions of the queue
    #[arg(long, default_value_t = 16)]
    partitions: usize,
    /// Seed of all that is left to chance
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    times: TimesOptions,
    #[command(flatten)]
    mode: Mode,
}

/// The times that the services take, in milliseconds.
#[derive(Debug, Args)]
struct TimesOptions {
    /// A claim
    #[arg(long, default_value_t = 8.0)]
    claim_ms: f64,
    /// A transaction
    #[arg(long, default_value_t = 20.0)]
    commit_ms: f64,
    /// A read of the store
    #[arg(long, default_value_t = 5.0)]
    read_ms: f64,
    /// A call of the queue
    #[arg(long, default_value_t = 12.0)]
    queue_ms: f64,
    /// A call of the lock service or the bus
    #[arg(long, default_value_t = 1.0)]
    lock_ms: f64,
}

/// Instead of the table, with 4 workers and 300 items.
#[derive(Debug, Args)]
struct Mode {
    /// Orders come at this share of what the workers can decide
    #[arg(long)]
    steady: Option<f64>,
    /// Orders come at this number a second, instead of at a share
    #[arg(long)]
    rate: Option<f64>,
    /// Seconds for which they come
    #[arg(long, default_value_t = 10.0)]
    lasts: f64,
    /// A worker is killed at this second
    #[arg(long)]
    kill: Option<f64>,
    /// A worker stands still from this second on, for so many: AT:SECONDS
    #[arg(long, value_parser = freeze)]
    freeze: Option<(f64, f64)>,
    /// A worker can't reach its store from this second on, for so many: AT:SECONDS
    #[arg(long, value_parser = freeze)]
    ill: Option<(f64, f64)>,
    /// The lock service is away from this second on; 0: it never was there
    #[arg(long)]
    no_locks: Option<f64>,
    /// Exponent of the demand; the waits for the cold items, with and without the hot
    #[arg(long)]
    zipf: Option<f64>,
    /// Items, of those most asked for, that count as hot
    #[arg(long, default_value_t = 10)]
    hot: usize,
    /// Rows over which one hot item's stock is spread
    #[arg(long)]
    stripes: Option<usize>,
}

fn freeze(text: &str) -> Result<(f64, f64), String> {
    let (at, seconds) = text.split_once(':').ok_or("AT:SECONDS is meant")?;
    let seconds_of = |text: &str| text.parse().map_err(|_| format!("{text} is no number"));
    Ok((seconds_of(at)?, seconds_of(seconds)?))
}

impl Options {
    fn market(&self, workers: usize, items: usize) -> Market {
        let of = |ms: f64| Duration::from_secs_f64(ms / 1e3);
        let TimesOptions { claim_ms, commit_ms, read_ms, queue_ms, lock_ms } = self.times;
        let [claim, commit, read, queue, lock] =
            [claim_ms, commit_ms, read_ms, queue_ms, lock_ms].map(of);
        let &Self { pairs, skew, at_once, partitions, seed, .. } = self;
        let times = Times { claim, commit, read, queue, lock };
        let asked =
            Market { workers, items, pairs, skew, at_once, partitions, ..Market::default() };
        Market { times, seed, ..asked }
    }

    /// The one market of a mode.
    fn one(&self) -> Market {
        let one = |of: &[usize], usual| if let [one] = of { *one } else { usual };
        self.market(one(&self.workers, WORKERS), one(&self.items, 300))
    }

    fn rush(&self, market: Market) -> anyhow::Result<Figures> {
        let rush = Rush { market, orders: self.orders };
        Ok(virtually()?.block_on(rush.run())?)
    }

    fn steadily(&self, steady: Steady) -> anyhow::Result<Course> {
        let course = virtually()?.block_on(steady.run())?;
        anyhow::ensure!(course.wrong() == 0, "{} orders are lost or twice", course.wrong());
        Ok(course)
    }

    /// Orders a second that come.
    fn rate(&self, market: Market) -> anyhow::Result<f64> {
        if let Some(rate) = self.mode.rate {
            return Ok(rate);
        }
        let capacity = self.rush(market)?.rate();
        let share = self.mode.steady.unwrap_or(0.3);
        println!("{capacity:.0} orders a second can be decided; {share} of them come");
        Ok(capacity * share)
    }

    fn steady(&self, market: Market, rate: f64, troubles: Vec<(f64, Trouble)>) -> Steady {
        let at = |(at, trouble)| (Duration::from_secs_f64(at), trouble);
        let troubles = troubles.into_iter().map(at).collect();
        let lasts = Duration::from_secs_f64(self.mode.lasts);
        Steady { market, rate, lasts, from_item: 0, troubles }
    }

    fn table(&self) -> anyhow::Result<()> {
        println!("  items  workers   orders/s  claims/1,000  orders/write  refused  seconds");
        for &items in &self.items {
            for &workers in &self.workers {
                let figures = self.rush(self.market(workers, items))?;
                let counts = figures.counts;
                println!(
                    "{items:7} {workers:8} {:10.0} {:13.1} {:13.1} {:8} {:8.2}",
                    figures.rate(),
                    counts.claims_per_1000(),
                    counts.orders as f64 / counts.commits as f64,
                    counts.refused,
                    figures.took.as_secs_f64(),
                );
            }
        }
        Ok(())
    }

    fn show_steady(&self) -> anyhow::Result<()> {
        let course = self.steadily(self.steady(self.one(), self.rate(self.one())?, Vec::new()))?;
        let counts = course.counts;
        print_waits("all items", Waits::of(course.usual()));
        let (claims, refused) = (counts.claims_per_1000(), counts.refused);
        println!("claims for 1,000 orders {claims:.2} (wanted: 5 at most), refused {refused} (0)");
        let least = self.one().times.queue + self.one().times.commit;
        println!("wanted: p50 {:?} at most, p99 {:?}", least * 2, least * 4);
        Ok(())
    }

    fn show_takeover(&self, troubles: Vec<(f64, Trouble)>) -> anyhow::Result<()> {
        let course = self.steadily(self.steady(self.one(), self.rate(self.one())?, troubles))?;
        let takeover = course.takeover();
        let lost = takeover.lost;
        println!("its {lost} partitions served by others after {:?} (5 s)", takeover.served_after);
        println!("an item without an answer for {:?} at most", takeover.without_answer);
        println!("the slowest order of those in its hands {:?}", takeover.slowest);
        print_waits("the others, before", takeover.others_usual);
        println!("wanted: {:?} at most, from then on", takeover.others_usual.p999 * 2);
        println!("slowest where nothing moved {:?}", takeover.stayed_slowest);
        println!("slowest of {} moved partitions {:?}", takeover.moved, takeover.moved_slowest);
        println!(
            "each of {} orders was decided once; refused commits are tried again",
            course.sent
        );
        Ok(())
    }

    fn show_locks_away(&self, at: f64) -> anyhow::Result<()> {
        let market = self.one();
        let with = self.rush(market)?.rate();
        let without = self.rush(Market { has_locks: false, ..market })?;
        let (rate, counts) = (without.rate(), without.counts);
        println!("all at once: {rate:.0} orders a second, {:.2} of {with:.0}", rate / with);
        println!("claims/1,000 {:.1}, refused {}", counts.claims_per_1000(), counts.refused);
        let rate = self.mode.rate.unwrap_or(with * self.mode.steady.unwrap_or(0.3));
        let market = Market { has_locks: at > 0.0, ..market };
        let course = self.steadily(self.steady(market, rate, vec![(at, Trouble::LocksAway)]))?;
        println!("{rate:.0} orders a second, steadily:");
        print_waits("before", Waits::of(course.usual()));
        print_waits("after", Waits::of(course.troubled()));
        let counts = course.counts;
        println!("claims/1,000 {:.1}, refused {}", counts.claims_per_1000(), counts.refused);
        Ok(())
    }

    fn show_skew(&self, skew: f64) -> anyhow::Result<()> {
        let (market, hot) = (Market { skew, ..self.one() }, self.mode.hot);
        let steady = self.steady(market, self.rate(market)?, Vec::new());
        let mut p99 = Vec::new();
        for from_item in [hot, 0] {
            let course = self.steadily(Steady { from_item, ..steady.clone() })?;
            let cold = course.usual().filter(|decided| number(&decided.item) >= hot);
            let waits = Waits::of(cold);
            print_waits(if from_item == 0 { "cold, with hot" } else { "cold, alone" }, waits);
            if from_item == 0 {
                let hot = course.usual().filter(|decided| number(&decided.item) < hot);
                print_waits("hot", Waits::of(hot));
            }
            p99.push(waits.p99.as_secs_f64());
        }
        println!("p99 {:.2} times what it is alone (wanted: 1.5 at most)", p99[1] / p99[0]);
        Ok(())
    }

    fn show_stripes(&self, stripes: usize) -> anyhow::Result<()> {
        let market = Market { items: 1, ..self.one() };
        let one = self.rush(market)?.rate();
        let striped = self.rush(Market { stripes, ..market })?;
        let rate = striped.rate();
        println!("one row {one:.0} orders a second, {stripes} stripes {rate:.0}");
        println!("{:.2} times (wanted of 8 stripes: 6 at least)", rate / one);
        println!(
            "claims/1,000 {:.2}, refused {}",
            striped.counts.claims_per_1000(),
            striped.counts.refused
        );
        Ok(())
    }
}

fn print_waits(of: &str, waits: Waits) {
    let Waits { p50, p99, p999, max } = waits;
    println!("{of}: p50 {p50:?}, p99 {p99:?}, p99.9 {p999:?}, longest {max:?}");
}

/// A runtime whose clock jumps to whatever happens next.
fn virtually() -> anyhow::Result<tokio::runtime::Runtime> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().start_paused(true).build().context("no runtime")
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let Mode { steady, kill, freeze, ill, no_locks, zipf, stripes, .. } = options.mode;
    if let Some(at) = kill {
        options.show_takeover(vec![(at, Trouble::Kill)])
    } else if let Some((at, seconds)) = freeze {
        options.show_takeover(vec![(at, Trouble::Freeze), (at + seconds, Trouble::Thaw)])
    } else if let Some((at, seconds)) = ill {
        let troubles = vec![(at, Trouble::StoreAway), (at + seconds, Trouble::StoreBack)];
        options.show_takeover(troubles)
    } else if let Some(at) = no_locks {
        options.show_locks_away(at)
    } else if let Some(skew) = zipf {
        options.show_skew(skew)
    } else if let Some(stripes) = stripes {
        options.show_stripes(stripes)
    } else if steady.is_some() {
        options.show_steady()
    } else {
        options.table()
    }
}
