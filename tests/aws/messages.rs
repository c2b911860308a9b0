//! Every message delivered twice, and out of order.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use crate::proxy::{Answer, Call, Meddler, Proxy, Server};
use crate::sale::{SMALL, Sale};

/// SQS gives no more at once.
const MESSAGES_MAX: usize = 10;

/// Stands before SQS for all workers: hands out half of what it receives only
/// with a later poll, and all of it once more with another.
struct Muddle {
    chance: Mutex<StdRng>,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    messages: Vec<Value>,
    received: u32,
    handed_out: u32,
}

impl Muddle {
    /// The answer to a poll that SQS answered with `received`.
    fn mix(&self, received: Vec<Value>) -> Vec<Value> {
        let (mut chance, mut kept) =
            (self.chance.lock().expect("no panic"), self.kept.lock().expect("no panic"));
        kept.received += received.len() as u32;
        let room = MESSAGES_MAX - received.len();
        let earlier = kept.messages.len().min(room);
        let mut handed_out: Vec<Value> = kept.messages.drain(..earlier).collect();
        for message in received {
            kept.messages.push(message.clone());
            match chance.random_bool(0.5) {
                true => kept.messages.push(message),
                false => handed_out.push(message),
            }
        }
        kept.messages.shuffle(&mut *chance);
        handed_out.shuffle(&mut *chance);
        kept.handed_out += handed_out.len() as u32;
        handed_out
    }
}

#[async_trait]
impl Meddler for Muddle {
    async fn meddle(&self, mut call: Call, server: &mut Server) -> Option<Answer> {
        if call.operation != "ReceiveMessage" {
            return server.make(&call).await;
        }
        if !self.kept.lock().expect("no panic").messages.is_empty() {
            let mut asked: Value = serde_json::from_slice(&call.body).expect("calls are JSON");
            asked["WaitTimeSeconds"] = json!(0);
            call.body = asked.to_string().into();
        }
        let mut answer = server.make(&call).await?;
        let mut said = answer.json();
        let received = said["Messages"].as_array().cloned().unwrap_or_default();
        said["Messages"] = self.mix(received).into();
        answer.set_json(&said);
        Some(answer)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_twice_and_out_of_order() {
    let sale = Sale::open(SMALL).await;
    let seed = rand::random();
    println!("seed {seed}");
    let chance = Mutex::new(StdRng::seed_from_u64(seed));
    let muddle = Arc::new(Muddle { chance, kept: Mutex::default() });
    let url = sale.services.get("AWS_ENDPOINT_URL_SQS");
    let proxy = Proxy::before(url, Arc::clone(&muddle)).await;
    let services = sale.services.clone().with("AWS_ENDPOINT_URL_SQS", proxy.url());
    let _workers = ["one", "the other"].map(|name| sale.worker(name, &services));
    let storm = sale.storm();
    storm.await.expect("no buyer panics");
    crate::sale::until("each was handed out twice", || {
        let kept = muddle.kept.lock().expect("no panic");
        kept.messages.is_empty() && kept.handed_out == 2 * kept.received
    })
    .await;
    println!("{} messages, each twice", muddle.kept.lock().expect("no panic").received);
    sale.finish(tokio::spawn(async {})).await;
}
