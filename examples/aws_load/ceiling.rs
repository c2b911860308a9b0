//! The most that the table takes, as far as this machine and its stand-in go: the writes of
//! as many decisions, known beforehand, with no queue, no locks and no worker.

use std::time::Instant;

use anyhow::{Result, bail, ensure};
use flux_core::protocol::{Commit, CommitOutcome, Message, Verdict, View};
use flux_core::seams::{InventoryStore, Weight};
use flux_core::{ItemId, ItemSpec, Line, Lines, Order, OrderId, Timestamp};
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::services::{Kind, Sale, Services};

/// Writes at once, as many as a worker has.
const AT_ONCE: usize = 32;

/// Decisions a second.
pub(crate) async fn decisions(
    near: &Services,
    services: &Services,
    items: u32,
    orders: u32,
) -> Result<f64> {
    let sale = Sale::new(Kind::Standard);
    // The table is made with no way to go.
    drop(near.open(&sale).await?);
    let store = services.open(&sale).await?.backend.store;
    let each = orders.div_ceil(items);
    let commits = stream::iter(0..items).map(async |n| {
        let spec = ItemSpec::pool(format!("item-{n}"), each.into())?;
        store.put_item(&spec).await?;
        writes_of(&*store, &spec.id, each).await
    });
    let commits: Vec<Vec<Commit>> = commits.buffer_unordered(AT_ONCE).try_collect().await?;
    let started = Instant::now();
    // One write at a time on an item.
    let written = stream::iter(commits).map(async |commits| {
        for commit in commits {
            let ruled = store.commit(std::slice::from_ref(&commit)).await?;
            ensure!(ruled == [CommitOutcome::Applied], "a write was refused: {ruled:?}");
        }
        Ok(())
    });
    written.buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    let took = started.elapsed();
    sale.remove(near).await?;
    Ok(f64::from(each * items) / took.as_secs_f64())
}

/// What is to be written when so many orders get a unit each, as many in a write as it takes.
async fn writes_of(store: &dyn InventoryStore, item: &ItemId, orders: u32) -> Result<Vec<Commit>> {
    let Some(Some(claim)) = store.claim(std::slice::from_ref(item)).await?.pop() else {
        bail!("{item} was put just now");
    };
    let claims = vec![(item.clone(), claim.token)];
    let mut view = View::default();
    view.insert(claim);
    let now = Timestamp::now();
    let max = store.commit_max();
    let (mut commits, mut load) = (Vec::<Commit>::new(), Weight::default());
    for n in 0..orders {
        let lines = Lines::new(vec![Line::units(item.as_str(), 1)?])?;
        let order = Order::queued(OrderId::new(), format!("buyer-{n}").parse()?, lines, now);
        let weight = max.weigh(&order, |_| false);
        let Verdict::Write(write) = view.decide(&Message::Place(order), None, now) else {
            bail!("an order of {item} came to nothing");
        };
        match commits.last_mut() {
            Some(commit) if max.fits(load + weight, 1) => commit.writes.push(write),
            _ => {
                commits.push(Commit { claims: claims.clone(), writes: vec![write] });
                load = Weight::default();
            }
        }
        load = load + weight;
    }
    Ok(commits)
}
