//! A crowd over HTTP: each buyer wants one unit, asks until there is an answer,
//! and some send the order twice. Their answers are remembered and compared
//! with what they are told later.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::{Client, Reply};

/// Seconds that a buyer asks a server to wait for the decision.
const WAIT_SECONDS: u64 = 15;
const FAULTS_MAX: usize = 10;
/// Longer times count as this long: ten minutes.
const MICROS_MAX: u64 = 600_000_000;
const PAUSE: Duration = Duration::from_millis(100);

/// The outcome of a buyer's order.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// The order as it was decided.
    Decided(Value),
    /// Sold out before it was taken; nothing is recorded.
    TurnedAway,
}

impl Answer {
    fn is(&self, status: &str) -> bool {
        matches!(self, Self::Decided(order) if order["status"] == status)
    }
}

/// The crowd that comes.
#[derive(Debug, Clone)]
pub struct Crowd {
    /// The address of the api.
    pub api: SocketAddr,
    /// The item that everybody wants one of.
    pub item: String,
    /// Names the orders; nobody else's have it.
    pub sale: Uuid,
    /// The number of buyers.
    pub buyers: u32,
    /// Buyers served at once.
    pub in_flight: usize,
    /// Buyers of a hundred who send their order twice, under its id.
    pub repeat_percent: u32,
    /// Time for which a buyer goes on asking.
    pub patience: Duration,
}

/// The crowd's answers so far.
#[derive(Debug, Default)]
pub struct Told {
    held: AtomicU32,
    answered: AtomicU32,
    notes: Mutex<Notes>,
}

#[derive(Debug)]
struct Notes {
    last: HashMap<u32, Answer>,
    faults: Vec<String>,
    repeats: u64,
    tries: u64,
    decided: Histogram<u64>,
    turned_away: Histogram<u64>,
    answered_at: Histogram<u64>,
}

impl Default for Notes {
    fn default() -> Self {
        let histogram = || Histogram::new_with_max(MICROS_MAX, 3).expect("three digits are few");
        Self {
            last: HashMap::new(),
            faults: Vec::new(),
            repeats: 0,
            tries: 0,
            decided: histogram(),
            turned_away: histogram(),
            answered_at: histogram(),
        }
    }
}

impl Crowd {
    /// The id of a buyer's order.
    #[must_use]
    pub fn order_id(&self, buyer: u32) -> Uuid {
        // Version 5 is for the keys of buyers.
        let hash = Uuid::new_v5(&self.sale, &buyer.to_be_bytes());
        uuid::Builder::from_custom_bytes(hash.into_bytes()).into_uuid()
    }

    /// The body that a buyer posts.
    #[must_use]
    pub fn order(&self, buyer: u32) -> Value {
        let (id, buyer) = (self.order_id(buyer), format!("buyer-{buyer}"));
        json!({ "order_id": id, "buyer_id": buyer, "item_id": self.item })
    }

    /// Lets everybody in, and returns when each has an answer, or has run out
    /// of patience, which is a fault.
    ///
    /// # Panics
    /// When a buyer's task does.
    pub async fn storm(&self, told: &Arc<Told>) {
        let crowd = Arc::new(self.clone());
        let next = Arc::new(AtomicU32::new(0));
        let began = Instant::now();
        let mut tills = JoinSet::new();
        for _ in 0..self.in_flight {
            let (crowd, told, next) = (Arc::clone(&crowd), Arc::clone(told), Arc::clone(&next));
            tills.spawn(async move {
                let mut clients = [Client::new(crowd.api), Client::new(crowd.api)];
                loop {
                    let buyer = next.fetch_add(1, Ordering::Relaxed);
                    if buyer >= crowd.buyers {
                        return;
                    }
                    crowd.shop(buyer, &mut clients, &told, began).await;
                }
            });
        }
        while let Some(till) = tills.join_next().await {
            till.expect("a till neither panics nor is cancelled");
        }
    }

    async fn shop(&self, buyer: u32, clients: &mut [Client; 2], told: &Told, began: Instant) {
        let mut chance = StdRng::seed_from_u64(self.sale.as_u64_pair().1 ^ u64::from(buyer));
        let repeats = chance.random_ratio(self.repeat_percent.min(100), 100);
        let together = repeats && chance.random_bool(0.5);
        let since = Instant::now();
        let [one, other] = clients;
        if together {
            let (one, other) =
                tokio::join!(self.ask(buyer, one, told), self.ask(buyer, other, told));
            told.hear(buyer, one, since, began);
            told.hear_again(buyer, other);
            return;
        }
        let answer = self.ask(buyer, one, told).await;
        told.hear(buyer, answer, since, began);
        if repeats {
            told.hear_again(buyer, self.ask(buyer, other, told).await);
        }
    }

    /// Asks until there is an answer.
    async fn ask(&self, buyer: u32, client: &mut Client, told: &Told) -> Result<Answer, String> {
        let id = self.order_id(buyer);
        let order = self.order(buyer);
        let end = Instant::now() + self.patience;
        let mut is_accepted = false;
        loop {
            told.lock().tries += 1;
            let replied = match is_accepted {
                true => client.get(&format!("/v1/orders/{id}"), Some(WAIT_SECONDS)).await,
                false => client.post("/v1/orders", Some(WAIT_SECONDS), &order).await,
            };
            let (so_far, pause) = match replied {
                Err(error) => (error.to_string(), PAUSE),
                Ok(reply) => match meaning(&reply) {
                    Meaning::Answer(answer) => return Ok(answer),
                    Meaning::Accepted => {
                        is_accepted = true;
                        ("it was accepted and not decided".to_owned(), Duration::ZERO)
                    }
                    Meaning::Unknown if is_accepted => {
                        is_accepted = false;
                        ("it was accepted and is not known".to_owned(), PAUSE)
                    }
                    Meaning::Unknown => return Err(format!("{reply:?}")),
                    Meaning::Later => (format!("{reply:?}"), reply.retry_after.unwrap_or(PAUSE)),
                },
            };
            if Instant::now() + pause >= end {
                return Err(format!("no answer in {:?}: {so_far}", self.patience));
            }
            sleep(pause).await;
        }
    }

    /// Asks for every order that was told, and says which are not as they were.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn changed(&self, told: &Told) -> io::Result<Vec<String>> {
        let last: Vec<_> = told.lock().last.clone().into_iter().collect();
        let next = AtomicUsize::new(0);
        let look = async || {
            let mut client = Client::new(self.api);
            let mut changed = Vec::new();
            while let Some((buyer, answer)) = last.get(next.fetch_add(1, Ordering::Relaxed)) {
                let Answer::Decided(order) = answer else { continue };
                let path = format!("/v1/orders/{}", self.order_id(*buyer));
                let now = client.get(&path, None).await?.json();
                if now != *order {
                    changed.push(format!("buyer {buyer} was told {order}, now it is {now}"));
                }
            }
            io::Result::Ok(changed)
        };
        let (one, two, three, four) = tokio::join!(look(), look(), look(), look());
        Ok([one?, two?, three?, four?].concat())
    }
}

enum Meaning {
    Answer(Answer),
    /// Decided later.
    Accepted,
    /// There is no such thing, or it was asked for wrongly.
    Unknown,
    Later,
}

fn meaning(reply: &Reply) -> Meaning {
    let mut json = reply.json();
    match reply.status {
        202 => Meaning::Accepted,
        200 if json["status"] == "queued" => Meaning::Accepted,
        200 | 201 => Meaning::Answer(Answer::Decided(json)),
        409 if json["order"].is_object() => Meaning::Answer(Answer::Decided(json["order"].take())),
        409 if json["type"] == "/problems/sold-out" => Meaning::Answer(Answer::TurnedAway),
        429 | 500.. => Meaning::Later,
        _ => Meaning::Unknown,
    }
}

impl Told {
    fn hear(&self, buyer: u32, answer: Result<Answer, String>, since: Instant, began: Instant) {
        let mut notes = self.lock();
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        notes.answered_at.saturating_record(micros(began.elapsed()));
        match answer {
            Ok(answer) => {
                match answer {
                    Answer::Decided(_) => &mut notes.decided,
                    Answer::TurnedAway => &mut notes.turned_away,
                }
                .saturating_record(micros(since.elapsed()));
                self.held.fetch_add(u32::from(answer.is("held")), Ordering::Relaxed);
                notes.last.insert(buyer, answer);
            }
            Err(error) => notes.fault(format!("buyer {buyer}: {error}")),
        }
        self.answered.fetch_add(1, Ordering::Relaxed);
    }

    fn hear_again(&self, buyer: u32, answer: Result<Answer, String>) {
        let mut notes = self.lock();
        notes.repeats += 1;
        match (notes.last.get(&buyer).cloned(), answer) {
            (_, Err(error)) => notes.fault(format!("buyer {buyer}, again: {error}")),
            (Some(before), Ok(now)) if before == now => {}
            // Turned away once and turned down once is the same to a buyer.
            (Some(Answer::TurnedAway), Ok(now)) if now.is("rejected") => {
                notes.last.insert(buyer, now);
            }
            (Some(before), Ok(Answer::TurnedAway)) if before.is("rejected") => {}
            (before, Ok(now)) => {
                notes.fault(format!("buyer {buyer} was told {before:?}, then {now:?}"));
            }
        }
    }

    /// Buyers with an answer.
    #[must_use]
    pub fn answered(&self) -> u32 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Buyers who hold a unit.
    #[must_use]
    pub fn held(&self) -> u32 {
        self.held.load(Ordering::Relaxed)
    }

    /// Buyers whose order has this status, or who were turned away.
    #[must_use]
    pub fn count(&self, status: Option<&str>) -> u32 {
        let is = |answer: &&Answer| match status {
            Some(status) => answer.is(status),
            None => **answer == Answer::TurnedAway,
        };
        self.lock().last.values().filter(is).count() as u32
    }

    /// Orders sent a second time, and requests in all.
    #[must_use]
    pub fn repeats_and_tries(&self) -> (u64, u64) {
        let notes = self.lock();
        (notes.repeats, notes.tries)
    }

    /// Microseconds: to a decision, to being turned away, and from the start
    /// of the storm to each answer.
    #[must_use]
    pub fn latencies(&self) -> [Histogram<u64>; 3] {
        let notes = self.lock();
        [&notes.decided, &notes.turned_away, &notes.answered_at].map(Clone::clone)
    }

    /// The first of the faults.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        self.lock().faults.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Notes> {
        // No change in here panics half-way.
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Notes {
    fn fault(&mut self, fault: String) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(fault);
        }
    }
}
