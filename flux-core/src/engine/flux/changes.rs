//! The calls about the change feed.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::Flux;
use crate::engine::error::Error;
use crate::protocol::ConsumerName;
use crate::seams::{Change, ChangeFeed, ChangePage, Consumer, Cursor};

/// Changes read at once by a follower.
const PAGE: usize = 256;
/// Longest wait of one read.
const WAIT: Duration = Duration::from_secs(30);

impl Flux {
    /// The feed of every change of an order or an item, as the store keeps it.
    ///
    /// # Errors
    /// [`Error::NoFeed`] when it keeps none.
    pub fn feed(&self) -> Result<Arc<dyn ChangeFeed>, Error> {
        self.core().backend.store.feed().ok_or(Error::NoFeed)
    }

    /// Reads up to `limit` changes behind `after`, from the oldest that is kept without
    /// one. It waits for none; [`follow`](Self::follow) does.
    ///
    /// ```
    /// use flux_core::{Backend, Changed, Flux, ItemSpec};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let flux = Flux::builder(Backend::memory()).start();
    /// let spec = ItemSpec::pool("ticket_1", 100)?;
    /// flux.put_item(spec.clone()).await?;
    /// let page = flux.changes(None, 100).await?;
    /// assert_eq!(page.changes[0].changed, Changed::Item(spec));
    /// assert!(flux.changes(Some(&page.next), 100).await?.changes.is_empty());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::NoFeed`]; [`Error::Backend`], of which
    /// [`ChangesGone`](crate::SeamError::ChangesGone) tells that changes behind `after`
    /// are not kept any more, and [`UnknownCursor`](crate::SeamError::UnknownCursor) that
    /// it is no cursor of this feed.
    pub async fn changes(&self, after: Option<&Cursor>, limit: usize) -> Result<ChangePage, Error> {
        Ok(self.feed()?.changes(after, limit, Duration::ZERO).await?)
    }

    /// Follows the changes behind `after`, from the oldest that is kept without one, as
    /// they come.
    ///
    /// # Errors
    /// [`Error::NoFeed`].
    pub fn follow(&self, after: Option<Cursor>) -> Result<Follower, Error> {
        let engine = self.running().alive.clone();
        Ok(Follower { feed: self.feed()?, engine, name: None, after, read: VecDeque::new() })
    }

    /// Follows the changes as a consumer whose cursor the store keeps: from where it was
    /// [done](Follower::done), or from the oldest change that is kept where it never was.
    /// Two that follow under one name both get every change.
    ///
    /// ```
    /// use flux_core::{Backend, ConsumerName, Flux, ItemSpec};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let flux = Flux::builder(Backend::memory()).start();
    /// for id in ["ticket_1", "ticket_2"] {
    ///     flux.put_item(ItemSpec::pool(id, 100)?).await?;
    /// }
    /// let name = ConsumerName::new("mailer")?;
    /// let mut mailer = flux.consumer(name.clone()).await?;
    /// let first = mailer.next().await?.expect("the engine runs");
    /// // Its work is done here; then it won't come again.
    /// mailer.done(&first).await?;
    ///
    /// let mut later = flux.consumer(name).await?;
    /// assert_ne!(later.next().await?, Some(first));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::NoFeed`], [`Error::Backend`].
    pub async fn consumer(&self, name: ConsumerName) -> Result<Follower, Error> {
        let after = self.feed()?.cursor_of(&name).await?;
        Ok(Follower { name: Some(name), ..self.follow(after)? })
    }

    /// Lists the consumers that were [done](Follower::done) with something.
    ///
    /// # Errors
    /// [`Error::NoFeed`], [`Error::Backend`].
    pub async fn consumers(&self) -> Result<Vec<Consumer>, Error> {
        Ok(self.feed()?.consumers().await?)
    }

    /// Forgets a consumer, and tells whether there was one.
    ///
    /// # Errors
    /// [`Error::NoFeed`], [`Error::Backend`].
    pub async fn forget_consumer(&self, name: &ConsumerName) -> Result<bool, Error> {
        Ok(self.feed()?.forget_consumer(name).await?)
    }
}

/// Changes as they come, from [`Flux::follow`] and [`Flux::consumer`]. It does not keep
/// the engine running, but it does keep the store open until it is dropped.
pub struct Follower {
    feed: Arc<dyn ChangeFeed>,
    /// Fails when the engine's last task is gone.
    engine: watch::Receiver<()>,
    name: Option<ConsumerName>,
    /// The last change that was read.
    after: Option<Cursor>,
    read: VecDeque<Change>,
}

impl Follower {
    /// Waits for the next change; `None` once the engine has stopped and all was read.
    /// Cancel-safe: none is lost by dropping the future.
    ///
    /// # Errors
    /// [`Error::Backend`], of which [`ChangesGone`](crate::SeamError::ChangesGone) tells
    /// that it fell so far behind that changes it did not see are not kept any more. Other
    /// errors may pass: ask again.
    pub async fn next(&mut self) -> Result<Option<Change>, Error> {
        while self.read.is_empty() {
            let has_stopped = self.engine.has_changed().is_err();
            let wait = if has_stopped { Duration::ZERO } else { WAIT };
            let page = tokio::select! {
                page = self.feed.changes(self.after.as_ref(), PAGE, wait) => page?,
                _ = self.engine.changed(), if !has_stopped => continue,
            };
            if has_stopped && page.changes.is_empty() {
                return Ok(None);
            }
            (self.after, self.read) = (Some(page.next), page.changes.into());
        }
        Ok(self.read.pop_front())
    }

    /// Keeps that this consumer is done with a change and with all before it, durable when
    /// it returns. For many changes it is enough to say so of the last. Without a name
    /// there is nothing to keep.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub async fn done(&self, change: &Change) -> Result<(), Error> {
        let Some(name) = self.name.clone() else { return Ok(()) };
        let consumer = Consumer::new(name, change.cursor.clone());
        Ok(self.feed.keep_cursor(&consumer).await?)
    }
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, after, .. } = self;
        f.debug_struct("Follower").field("name", name).field("after", after).finish_non_exhaustive()
    }
}
