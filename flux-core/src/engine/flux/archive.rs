//! Archiving: items and their orders leave the store for files.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tracing::{info, warn};

use super::Flux;
use crate::archive::{Archive, ArchiveError, ArchiveProgress, Archived, Draft};
use crate::engine::error::Error;
use crate::protocol::{InvalidInput, Item, ItemId, Message, Money, Order};
use crate::seams::{ArchiveId, Digest, Leaving, OrderFilter, RemovalRefused, Sealing};

/// Most items of one archive.
const ITEMS_MAX: usize = 1_000;
/// Orders read from the store at a time.
const PAGE: usize = 1_000;
/// Orders that leave the store at once.
const TAKEN_AT_ONCE: usize = 1_024;
/// Time for which an order that was placed just before the end may take into the queue.
const SENT_WITHIN: Duration = Duration::from_secs(5);
/// Most dead letters that are looked through.
const DEAD_MAX: usize = 10_000;

impl Flux {
    /// Moves items whose sale is over, and all of their orders, out of the store into files
    /// in `dir`, which is made if it is missing; [`archive`](crate::archive) tells what they
    /// look like. An order over several items goes with all of them together: those that
    /// share orders which own units are archived in one call.
    ///
    /// The files are in their place and on disk before the first order leaves, and what
    /// leaves is what is read from them. After a crash at whatever moment the same call goes
    /// on where it was, with no order lost and none in two archives; so does a repeat after
    /// the end. What is being archived stays as it is: nobody can put or order the items, or
    /// cancel an order on them.
    ///
    /// It takes no more memory for more orders; a tombstone is kept of each item, so that
    /// nobody puts another under its id by mistake.
    ///
    /// ```
    /// # use flux_core::*;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let dir = dir.path();
    /// # let flux = Flux::builder(Backend::memory()).start();
    /// let ticket = ItemSpec::pool("ticket", 2)?;
    /// flux.put_item(ticket.clone()).await?;
    /// let order = flux.place(OrderRequest::units("ann", "ticket", 2)?).await?;
    /// flux.confirm(order.id, PaymentRef::new("payment_1")?).await?;
    ///
    /// let mut over = ticket.clone();
    /// over.closes_at = Some(flux.now());
    /// flux.put_item(over).await?;
    /// let archived = flux.archive(&[ticket.id], dir).await?;
    /// assert_eq!(archived.orders, 1);
    /// assert_eq!(flux.order(order.id).await?, None);
    /// # Ok(()) }
    /// ```
    ///
    /// Cancel safety: a dropped call leaves the items half-way; call it again.
    ///
    /// # Errors
    /// [`Error::CantLeave`] with the reason, [`Error::UnknownItem`], [`Error::Archive`] when
    /// the files can't be written or read, [`Error::NothingLeaves`], [`Error::Overloaded`],
    /// [`Error::Backend`].
    pub async fn archive(
        &self,
        items: &[ItemId],
        dir: impl Into<PathBuf>,
    ) -> Result<Archived, Error> {
        self.archive_telling(items, dir, |_| {}).await
    }

    /// As [`archive`](Self::archive), and tells how far it came, each thousand orders or so.
    ///
    /// # Errors
    /// As [`archive`](Self::archive).
    pub async fn archive_telling(
        &self,
        items: &[ItemId],
        dir: impl Into<PathBuf>,
        mut tell: impl FnMut(ArchiveProgress) + Send,
    ) -> Result<Archived, Error> {
        if items.is_empty() || items.len() > ITEMS_MAX {
            let rule = format!("must be 1 to {ITEMS_MAX}, were {}", items.len());
            return Err(InvalidInput::new("items", rule).into());
        }
        let (dir, removals) = (dir.into(), self.removals()?);
        // Two at once would write one file.
        let _alone = self.engine.archiving.lock().await;
        self.nothing_waits(items).await?;
        let (fresh, now) = (ArchiveId::new(), self.core().clock.now());
        let leaving = match removals.seal(items, fresh, now).await? {
            Sealing::Sealed(leaving) => leaving,
            Sealing::Refused(why) => return Err(why.into()),
            Sealing::Archived(mut tombstones) => {
                let first = tombstones.remove(0);
                if let Some(other) = tombstones.into_iter().find(|t| t.archive != first.archive) {
                    return Err(RemovalRefused::Archived(other).into());
                }
                let (archive, archived_at) = (first.archive, first.archived_at);
                let (items, orders) = (items.to_vec(), first.orders);
                return Ok(Archived { archive, archived_at, items, orders });
            }
        };
        let archive = leaving.archive;
        let files = match self.write_files(&leaving, &dir, &mut tell).await {
            Ok(files) => files,
            Err(error) => {
                // Files in their place are gone on with. Where orders have begun to leave,
                // this does nothing.
                if !dir.join(archive.to_string()).exists()
                    && let Err(error) = removals.unseal(archive).await
                {
                    warn!(%error, %archive, "items stay sealed; archive them again");
                }
                return Err(error);
            }
        };
        removals.file(archive, files.digest()).await?;
        let orders = files.manifest().order_count();
        self.take_out(archive, files, &mut tell).await?;
        removals.bury(archive, orders).await?;
        leaving.items.iter().for_each(|item| self.core().gate.forget(item));
        info!(%archive, orders, items = leaving.items.len(), "archived");
        Ok(Archived { archive, archived_at: leaving.since, items: leaving.items, orders })
    }

    /// Makes sure that nothing in the queue concerns items whose sale is over: whatever was
    /// placed in time is older than their end.
    async fn nothing_waits(&self, items: &[ItemId]) -> Result<(), Error> {
        let backend = &self.core().backend;
        let depth = backend.depth().await?;
        if depth.waiting + depth.in_flight > 0 {
            for item in backend.store.items(items).await?.into_iter().flatten() {
                let closed_for = item.spec.closes_at.map(|end| self.core().clock.now().since(end));
                if closed_for.is_some_and(|long| depth.oldest + SENT_WITHIN >= long) {
                    return Err(RemovalRefused::Waiting(item.spec.id.clone()).into());
                }
            }
        }
        if depth.dead == 0 {
            return Ok(());
        }
        let dead = backend.dead_letters(DEAD_MAX).await?;
        if depth.dead > dead.len() as u64 {
            return Err(RemovalRefused::DeadLetters(items[0].clone()).into());
        }
        for part in dead.chunks(PAGE) {
            let ids: Vec<_> = part.iter().map(|(_, letter)| letter.message.order_id()).collect();
            let known = backend.store.orders(&ids).await?;
            let placed = part.iter().map(|(_, letter)| match &letter.message {
                Message::Place(order) => Some(order),
                _ => None,
            });
            for order in known.iter().map(Option::as_ref).chain(placed).flatten() {
                if let Some(line) = order.lines.iter().find(|line| items.contains(&line.item)) {
                    return Err(RemovalRefused::DeadLetters(line.item.clone()).into());
                }
            }
        }
        Ok(())
    }

    /// The files of an archive, as they are in their place: those of an earlier try, or new
    /// ones.
    async fn write_files(
        &self,
        leaving: &Leaving,
        dir: &Path,
        tell: &mut (impl FnMut(ArchiveProgress) + Send),
    ) -> Result<Archive, Error> {
        let archive = leaving.archive;
        let place = dir.join(archive.to_string());
        let is_there = place.exists();
        if !is_there && leaving.filed.is_some() {
            let dir = dir.to_owned();
            return Err(failed(ArchiveError::Elsewhere { archive, dir }));
        }
        let written = match is_there {
            true => leaving.filed,
            false => Some(self.write(leaving, dir, tell).await?),
        };
        let files = aside(move || Archive::open(place)).await?;
        // What is on disk now is compared with what was written.
        match written {
            Some(digest) if digest != files.digest() => {
                let (path, what) = (dir.join(archive.to_string()), "its manifest has changed");
                Err(failed(ArchiveError::Damaged { path, what: what.to_owned() }))
            }
            _ => Ok(files),
        }
    }

    /// Writes the orders of sealed items to files, and puts these in their place.
    async fn write(
        &self,
        leaving: &Leaving,
        dir: &Path,
        tell: &mut (impl FnMut(ArchiveProgress) + Send),
    ) -> Result<Digest, Error> {
        let (archive, at, dir) = (leaving.archive, leaving.since, dir.to_owned());
        let read = self.core().backend.store.items(&leaving.items).await?;
        let items: Vec<Item> = read.into_iter().flatten().collect();
        let mut draft = aside(move || Draft::begin(&dir, archive)).await?;
        // One item's orders may be looked up; those of several are picked from all.
        let item = (leaving.items.len() == 1).then(|| leaving.items[0].clone());
        let filter = OrderFilter { item, ..OrderFilter::default() };
        let mut after = None;
        loop {
            let page = self.core().backend.store.list_orders(&filter, after.as_ref(), PAGE).await;
            let page = match page {
                Ok(page) => page,
                Err(error) => {
                    draft.give_up();
                    return Err(error.into());
                }
            };
            let mut orders = page.orders;
            orders.retain(|order| goes(order, leaving));
            if let Some(why) = orders.iter().find_map(|order| stays(order, leaving)) {
                draft.give_up();
                return Err(why.into());
            }
            let (back, added) = aside_with(draft, move |draft| {
                orders.iter().try_for_each(|order| draft.add(order))
            })
            .await;
            draft = back;
            if let Err(error) = added {
                draft.give_up();
                return Err(failed(error));
            }
            tell(ArchiveProgress::Written(draft.count()));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        aside(move || draft.finish(&items, at)).await
    }

    /// Takes the orders out of the store, as they are read from the files.
    async fn take_out(
        &self,
        archive: ArchiveId,
        files: Archive,
        tell: &mut (impl FnMut(ArchiveProgress) + Send),
    ) -> Result<(), Error> {
        let removals = self.removals()?;
        let mut orders = aside(move || files.orders()).await?;
        let mut count = 0;
        loop {
            let (back, part) = aside_with(orders, |orders| orders.part(TAKEN_AT_ONCE)).await;
            orders = back;
            let part = part.map_err(failed)?;
            if part.is_empty() {
                return Ok(());
            }
            removals.take_out(archive, &part).await?;
            count += part.len() as u64;
            tell(ArchiveProgress::TakenOut(count));
        }
    }
}

/// Whether an order is on an item that is leaving.
fn goes(order: &Order, leaving: &Leaving) -> bool {
    order.lines.iter().any(|line| leaving.items.binary_search(&line.item).is_ok())
}

/// The reason why an order can't go, and so its items can't.
fn stays(order: &Order, leaving: &Leaving) -> Option<RemovalRefused> {
    let goes = |item: &&ItemId| leaving.items.binary_search(item).is_ok();
    let items = || order.lines.iter().map(|line| &line.item);
    let item = items().find(goes)?;
    // G9: a debt is not filed away.
    if order.money() == Money::Owed {
        return Some(RemovalRefused::Owed { item: item.clone(), order: order.id });
    }
    if !order.status().owns_stock() {
        return None;
    }
    let other = items().find(|item| !goes(item))?;
    Some(RemovalRefused::Shared { item: item.clone(), other: other.clone(), order: order.id })
}

fn failed(error: ArchiveError) -> Error {
    Error::Archive(Arc::new(error))
}

/// Works on files, on a thread that may block.
async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ArchiveError> + Send + 'static,
) -> Result<T, Error> {
    let worked = spawn_blocking(work).await;
    worked.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic())).map_err(failed)
}

/// As [`aside`], with what is given back.
async fn aside_with<S: Send + 'static, T: Send + 'static>(
    mut with: S,
    work: impl FnOnce(&mut S) -> T + Send + 'static,
) -> (S, T) {
    let worked = spawn_blocking(move || {
        let done = work(&mut with);
        (with, done)
    });
    worked.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}
