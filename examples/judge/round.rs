//! One round: items of its own, clients that buy them, the sell-out, and the
//! judgement.

use std::collections::{HashSet, VecDeque};
use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use flux_core::conformance::history::{Demand, OnSale, Terms, Told, judge};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::task::{JoinSet, block_in_place};
use tokio::time::{Instant, sleep_until, timeout};

use super::buyer::Buyer;
use super::closing;
use super::figures::Figures;
use super::goods::{Goods, definition};
use super::notes::Notes;
use super::teller::Teller;
use super::verdict::Court;

/// Time between two judgements of a round that goes on.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Far more than a decision takes, kills included; only a hang is longer.
const PATIENCE: Duration = Duration::from_secs(120);

/// A round of the sale.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) court: Arc<Court>,
    pub(super) notes: Arc<Notes>,
    pub(super) goods: Arc<Goods>,
    pub(super) number: u32,
    on_sale: Vec<OnSale>,
    seed: u64,
}

impl Round {
    /// Puts the items on sale.
    pub(super) async fn open(court: &Arc<Court>, number: u32) -> Result<Self> {
        let notes = Arc::new(Notes::since(court.began));
        let goods = Goods::of(&court.options, &court.sale, number)?;
        let mut teller = Teller::new(&court.site, &notes);
        let mut on_sale = Vec::new();
        for item in &goods.items {
            teller.put(&item.id, &definition(item)).await?;
            on_sale.push(OnSale::new(item.clone()).since(notes.now()));
        }
        let seed = court.seed.wrapping_add(u64::from(number) << 32);
        let (court, goods) = (Arc::clone(court), Arc::new(goods));
        Ok(Self { court, notes, goods, number, on_sale, seed })
    }

    /// Lets clients buy until then, and judges meanwhile; the clients are returned with
    /// what they have begun.
    pub(super) async fn storm(&self, until: Instant) -> JoinSet<()> {
        let mut clients = JoinSet::new();
        let options = &self.court.options;
        for client in 0..options.clients {
            let mut buyer = Buyer {
                chance: StdRng::seed_from_u64(self.seed + u64::from(client)),
                goods: Arc::clone(&self.goods),
                tellers: [0, 1].map(|_| Teller::new(&self.court.site, &self.notes)),
                buyers: options.clients.div_ceil(3),
                hold: options.hold(),
                past: VecDeque::new(),
            };
            let court = Arc::clone(&self.court);
            clients.spawn(async move {
                while Instant::now() < until && !court.is_over() {
                    buyer.shop().await;
                }
            });
        }
        while Instant::now() < until && !self.court.is_over() {
            sleep_until(until.min(Instant::now() + LOOK_EVERY)).await;
            self.judge(&self.terms());
        }
        clients
    }

    /// Waits for the clients, sells what is left, looks at each order, and judges.
    pub(super) async fn close(self, mut clients: JoinSet<()>) -> Figures {
        let storm_ended = self.notes.now();
        tokio::select! {
            () = self.settle(&mut clients) => {}
            () = self.court.over() => {}
        }
        clients.abort_all();
        let told = self.notes.told();
        let outages = self.court.outages.times();
        block_in_place(|| {
            Figures::of(&told, &self.goods.items, self.court.began_at, storm_ended, &outages)
        })
    }

    /// Writes down what was told, to be looked into.
    fn keep(&self, told: &[Told]) -> io::Result<()> {
        let file = self.court.options.logs.join(format!("round-{}.json", self.number));
        let mut file = BufWriter::new(File::create(file)?);
        for told in told {
            serde_json::to_writer(&mut file, told)?;
            file.write_all(b"\n")?;
        }
        file.flush()
    }

    async fn settle(&self, clients: &mut JoinSet<()>) {
        let leaving = async {
            while let Some(client) = clients.join_next().await {
                client.expect("a client neither panics nor is cancelled");
            }
        };
        if self.unless_stuck(leaving).await.is_none() {
            self.notes.complain(format!("clients were told nothing for {PATIENCE:?}"));
        }
        if self.unless_stuck(closing::sell_out(self)).await.is_some() {
            self.judge(&self.terms().at_rest(Demand::CoversStock));
        } else {
            self.notes.complain(format!("the sell-out was told nothing for {PATIENCE:?}"));
            self.judge(&self.terms());
        }
    }

    /// Does it, however slowly; `None` once no decision was told for long.
    async fn unless_stuck<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        let mut told = self.notes.decisions();
        loop {
            if let Ok(done) = timeout(PATIENCE, &mut work).await {
                return Some(done);
            }
            let by_now = self.notes.decisions();
            if by_now == told {
                return None;
            }
            told = by_now;
        }
    }

    /// The rules of the judgement, as far as the history goes.
    pub(super) fn terms(&self) -> Terms {
        let options = &self.court.options;
        let terms = Terms::new(self.on_sale.clone())
            .with_tolerance(options.tolerance())
            .with_clock_slack(options.clock_slack())
            .with_outages(self.court.outages.times())
            .with_began(self.court.began_at);
        if options.hidden_queue { terms.with_hidden_queue() } else { terms }
    }

    fn judge(&self, terms: &Terms) {
        let told = self.notes.told();
        let faults = block_in_place(|| judge(&told, terms));
        let said: HashSet<String> = self.notes.complaints().into_iter().collect();
        let faults = faults.iter().map(ToString::to_string).chain(said);
        if self.court.find(self.number, faults)
            && let Err(error) = self.keep(&told)
        {
            println!("  the history of round {} can't be kept: {error}", self.number);
        }
    }
}
