//! DynamoDB throttles, and answers that never arrive.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::proxy::{Answer, Call, Meddler, Proxy, Server};
use crate::sale::{SMALL, Sale};

#[derive(Debug)]
struct Trouble {
    /// Whether there is trouble. Starting is no part of the sale: whoever can't is started again.
    is_on: AtomicBool,
    chance: Mutex<StdRng>,
    done: Mutex<[u32; 3]>,
}

#[async_trait]
impl Meddler for Trouble {
    async fn meddle(&self, call: Call, server: &mut Server) -> Option<Answer> {
        if !self.is_on.load(Ordering::SeqCst) {
            return server.make(&call).await;
        }
        let die = self.chance.lock().expect("no panic").random_range(0..100);
        let what = usize::from(die < 25) + usize::from(die < 20);
        self.done.lock().expect("no panic")[what] += 1;
        match what {
            0 => server.make(&call).await,
            1 => {
                server.make(&call).await;
                None
            }
            _ => Some(Answer::refusal("ThrottlingException")),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fifth_throttled_and_a_twentieth_of_the_answers_lost() {
    let seed = rand::random();
    println!("seed {seed}");
    let chance = Mutex::new(StdRng::seed_from_u64(seed));
    let trouble =
        Arc::new(Trouble { is_on: AtomicBool::new(false), chance, done: Mutex::default() });
    let url = std::env::var("AWS_ENDPOINT_URL_DYNAMODB")
        .unwrap_or_else(|_| panic!("start the services: tests/services cargo nextest run …"));
    let proxy = Proxy::before(&url, Arc::clone(&trouble)).await;
    let through =
        |services: stage::fleet::Services| services.with("AWS_ENDPOINT_URL_DYNAMODB", proxy.url());
    let sale = Sale::open_with(SMALL, through).await;
    let _workers =
        ["one", "the other"].map(|name| sale.worker(name, &through(sale.services.clone())));
    trouble.is_on.store(true, Ordering::SeqCst);
    let storm = sale.storm();
    storm.await.expect("no buyer panics");
    // The audit is no part of it either.
    trouble.is_on.store(false, Ordering::SeqCst);
    let [made, lost, throttled] = *trouble.done.lock().expect("no panic");
    println!("{made} calls made, {lost} answers lost, {throttled} calls throttled");
    assert!(lost > 0 && throttled > lost, "too little went wrong");
    sale.finish(tokio::spawn(async {})).await;
}
