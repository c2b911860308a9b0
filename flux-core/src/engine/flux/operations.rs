//! The calls for those who run a sale.

use futures_util::future::try_join_all;

use super::Flux;
use crate::engine::audit::{self, Audit};
use crate::engine::error::Error;
use crate::protocol::{OrderId, Timestamp};
use crate::seams::{DeadLetter, QueueDepth};

impl Flux {
    /// Asks store and queue for something small, and returns when both have
    /// answered. Cancel-safe.
    ///
    /// ```
    /// # use flux_core::*;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let flux = Flux::builder(Backend::memory()).start();
    /// # flux.put_item(ItemSpec::pool("ticket", 2)?).await?;
    /// let ready = flux.check_backends().await.is_ok();
    /// assert!(ready);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Backend`] when one of them does not work,
    /// [`Error::Overloaded`].
    pub async fn check_backends(&self) -> Result<(), Error> {
        self.core().backend.store.check()?;
        self.core().known(OrderId::from_uuid(uuid::Uuid::nil())).await?;
        // One partition stands for all: this is asked often.
        self.core().backend.queues()[0].depth().await?;
        Ok(())
    }

    /// The time that the sale goes by: the clock's, but for a [step](crate::clock)
    /// of it that has not stood yet.
    ///
    /// ```
    /// # use flux_core::*;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let flux = Flux::builder(Backend::memory()).start();
    /// let opens = flux.now() + std::time::Duration::from_secs(3600);
    /// let item = ItemSpec::builder().id("ticket").capacity(100).opens_at(opens).build()?;
    /// flux.put_item(item).await?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.core().clock.now()
    }

    /// Counts the whole store anew and compares it with the guarantees, while it sells or
    /// at rest. It reads every order twice, more often above some 900,000, page by page, and tells faults, not movement:
    /// what looks like one is looked at again, which takes a few seconds more. Memory is
    /// bounded by the number of items. Of items that sell at that moment it finds a unit too
    /// few or too many only beyond what moved between the two readings
    /// ([`moving`](Audit::moving)). It waits for the end of an archive that this process
    /// writes. Cancel-safe.
    ///
    /// ```
    /// # use flux_core::*;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let flux = Flux::builder(Backend::memory()).start();
    /// # flux.put_item(ItemSpec::pool("ticket", 2)?).await?;
    /// flux.place(OrderRequest::units("ann", "ticket", 2)?).await?;
    /// let audit = flux.audit().await?;
    /// assert!(audit.is_clean(), "{audit}");
    /// assert_eq!((audit.available, audit.count(OrderStatus::Held)), (0, 1));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Overloaded`], [`Error::Backend`].
    pub async fn audit(&self) -> Result<Audit, Error> {
        // Between the first order that leaves and the last, its item shows both.
        let _alone = self.engine.archiving.lock().await;
        Ok(audit::run(&*self.core().backend.store, || self.core().clock.now()).await?)
    }

    /// Reads up to `max` messages that the worker gave up, oldest first, each
    /// with the reason. Cancel-safe.
    ///
    /// ```
    /// # use flux_core::*;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let flux = Flux::builder(Backend::memory()).start();
    /// # flux.put_item(ItemSpec::pool("ticket", 2)?).await?;
    /// for letter in flux.dead_letters(10).await? {
    ///     println!("{}: {}", letter.message.order_id(), letter.reason);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Overloaded`], [`Error::Backend`].
    pub async fn dead_letters(&self, max: usize) -> Result<Vec<DeadLetter>, Error> {
        let letters = self.core().backend.dead_letters(max).await?;
        Ok(letters.into_iter().map(|(_, letter)| letter).collect())
    }

    /// Puts up to `max` dead letters back in the queue and returns their number.
    /// Cancel safety: a dropped call may have put some back; an order is
    /// decided once all the same.
    ///
    /// ```
    /// # use flux_core::*;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let flux = Flux::builder(Backend::memory()).start();
    /// # flux.put_item(ItemSpec::pool("ticket", 2)?).await?;
    /// assert_eq!(flux.redrive(10).await?, 0, "nothing was given up");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Overloaded`], [`Error::Backend`].
    pub async fn redrive(&self, max: usize) -> Result<usize, Error> {
        let core = self.core();
        let queues = core.backend.queues();
        if let [queue] = queues {
            return Ok(queue.redrive(max).await?);
        }
        let mut redriven = 0;
        while redriven < max {
            let mut dead = vec![0; queues.len()];
            for (partition, _) in self.core().backend.dead_letters(max - redriven).await? {
                dead[partition] += 1;
            }
            let those = dead.iter().zip(queues).filter(|(dead, _)| **dead > 0);
            let counts = try_join_all(those.map(|(dead, queue)| queue.redrive(*dead))).await?;
            match counts.iter().sum() {
                0 => break,
                count => redriven += count,
            }
        }
        Ok(redriven)
    }

    /// Counts the messages that wait in the queue and in the inbox of this
    /// engine's worker, are being worked on, or were given up. Cancel-safe.
    ///
    /// ```
    /// # use flux_core::*;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let flux = Flux::builder(Backend::memory()).start();
    /// # flux.put_item(ItemSpec::pool("ticket", 2)?).await?;
    /// flux.place(OrderRequest::units("ann", "ticket", 1)?).await?;
    /// let depth = flux.depth().await?;
    /// assert_eq!((depth.waiting, depth.dead), (0, 0));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Overloaded`], [`Error::Backend`].
    pub async fn depth(&self) -> Result<QueueDepth, Error> {
        let mut depth = self.core().backend.depth().await?;
        depth.waiting += self.core().inbox.len() as u64;
        Ok(depth)
    }
}
