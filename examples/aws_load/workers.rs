//! Workers as processes of their own, and their speed at deciding what waits.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use flux_core::{Flux, ItemSpec, OrderRequest, OrderStatus, Role};
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;

use crate::services::{Kind, Sale, Services, engine};

/// Orders sent at once.
const AT_ONCE: u32 = 1_000;
/// A measurement that takes longer has failed.
const LONGEST: Duration = Duration::from_secs(120);

/// The size of a measurement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) kind: Kind,
    pub(crate) workers: u32,
    pub(crate) items: u32,
    pub(crate) orders: u32,
}

/// A worker's process, told to end when this is dropped.
struct Worker(Child);

impl Worker {
    fn start(services: &Services, sale: &Sale) -> Result<Self> {
        let child = Command::new(std::env::current_exe()?)
            .args(["--work", &sale.queue, &sale.table])
            .envs(services.variables())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        Ok(Self(child.context("no worker could be started")?))
    }

    /// Ends it; its last words.
    fn finish(mut self) -> Result<String> {
        drop(self.0.stdin.take());
        let mut said = String::new();
        self.0.stdout.take().context("a pipe")?.read_to_string(&mut said)?;
        if !self.0.wait()?.success() {
            bail!("a worker failed");
        }
        Ok(said)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        // It may have ended already.
        let _ = self.0.wait();
    }
}

/// Runs a worker's process: decides until its standard input ends.
pub(crate) async fn work(queue: &str, table: &str) -> Result<()> {
    let sale = Sale { queue: queue.to_owned(), table: table.to_owned() };
    let aws = Services::from_env()?.open(&sale).await?;
    let flux = engine(&aws, Role::Both);
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    flux.shutdown().await;
    println!("{}", aws.meter.bill().for_orders(1_000));
    Ok(())
}

/// Decisions a second, from the first that is heard of to the last, on orders
/// that wait in the queue when the workers start.
pub(crate) async fn decisions(
    near: &Services,
    services: &Services,
    load: Load,
    tells_bills: bool,
) -> Result<f64> {
    let sale = Sale::new(load.kind);
    let aws = near.open(&sale).await?;
    let flux = engine(&aws, Role::AcceptOnly);
    put_items(&flux, load.items, load.orders).await?;
    submit_all(&flux, load.items, load.orders).await?;
    let mut outcomes = flux.subscribe();
    let workers: Vec<Worker> =
        (0..load.workers).map(|_| Worker::start(services, &sale)).collect::<Result<_>>()?;
    let started = Instant::now();
    let (mut first, mut held) = (None::<(Instant, u32)>, 0);
    let hearing = async {
        while held < load.orders {
            match outcomes.recv().await {
                Ok(outcomes) => {
                    let is_held = |order: &&_| OrderStatus::Held == flux_core::Order::status(order);
                    held += outcomes.orders.iter().filter(is_held).count() as u32;
                    if tells_bills {
                        eprint!("{held} at {} ms, ", started.elapsed().as_millis());
                    }
                    if held > 0 {
                        first.get_or_insert((Instant::now(), held));
                    }
                }
                Err(RecvError::Lagged(_)) => bail!("the outcomes came too fast"),
                Err(RecvError::Closed) => bail!("no more outcomes"),
            }
        }
        Ok(())
    };
    let heard = tokio::time::timeout(LONGEST, hearing).await;
    heard.with_context(|| format!("{held} of {} orders decided", load.orders))??;
    let (since, before) = first.context("nothing was decided")?;
    let took = since.elapsed().max(Duration::from_millis(1));
    for worker in workers {
        let bill = worker.finish()?;
        if tells_bills {
            eprintln!("{load:?}: a worker's calls, in all\n{bill}");
        }
    }
    flux.shutdown().await;
    sale.remove(near).await?;
    Ok(f64::from(load.orders - before) / took.as_secs_f64())
}

pub(crate) async fn put_items(flux: &Flux, items: u32, capacity: u32) -> Result<()> {
    let mut calls = JoinSet::new();
    for n in 0..items {
        let (flux, spec) = (flux.clone(), ItemSpec::pool(format!("item-{n}"), capacity.into())?);
        calls.spawn(async move { flux.put_item(spec).await });
    }
    while let Some(call) = calls.join_next().await {
        call??;
    }
    Ok(())
}

/// Accepts orders, many at once, so that they share messages.
pub(crate) async fn submit_all(flux: &Flux, items: u32, orders: u32) -> Result<()> {
    let mut calls = JoinSet::new();
    for n in 0..orders {
        if n >= AT_ONCE {
            calls.join_next().await.context("a call is on its way")???;
        }
        let flux = flux.clone();
        calls.spawn(async move {
            let item = format!("item-{}", n % items);
            flux.submit(OrderRequest::units(format!("buyer-{n}"), item, 1)?).await?;
            anyhow::Ok(())
        });
    }
    while let Some(call) = calls.join_next().await {
        call??;
    }
    Ok(())
}
