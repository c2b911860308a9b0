//! The calls by which items leave: into an archive, or for nowhere.

use super::Flux;
use crate::engine::error::Error;
use crate::protocol::ItemId;
use crate::seams::{Deletion, RemovalRefused, Removals, Tombstone};

impl Flux {
    pub(super) fn removals(&self) -> Result<&dyn Removals, Error> {
        self.engine.started.backend.store.removals().ok_or(Error::NothingLeaves)
    }

    /// Deletes an item of which nothing is held and nothing was ever sold; or what is kept of
    /// an archived one, and returns that: its id may be used anew then. Cancel safety: a
    /// dropped call may have deleted it.
    ///
    /// ```
    /// # use flux_core::*;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let flux = Flux::builder(Backend::memory()).start();
    /// let item = ItemSpec::pool("tikcet", 2)?;
    /// flux.put_item(item.clone()).await?;
    /// assert_eq!(flux.delete_item(&item.id).await?, None);
    /// assert_eq!(flux.item(&item.id).await?, None);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::UnknownItem`], [`Error::CantLeave`] for one that sold something or of which
    /// units are held, [`Error::NothingLeaves`], [`Error::Overloaded`], [`Error::Backend`].
    pub async fn delete_item(&self, id: &ItemId) -> Result<Option<Tombstone>, Error> {
        match self.removals()?.delete(id).await? {
            Deletion::Deleted => {
                self.core().gate.forget(id);
                Ok(None)
            }
            Deletion::Forgotten(tombstone) => Ok(Some(tombstone)),
            Deletion::Refused(why) => Err(why.into()),
        }
    }

    /// Lists what is kept of archived items, by item, those after `after`, at most `limit`.
    /// Cancel-safe.
    ///
    /// # Errors
    /// [`Error::NothingLeaves`], [`Error::Overloaded`], [`Error::Backend`].
    pub async fn tombstones(
        &self,
        after: Option<&ItemId>,
        limit: usize,
    ) -> Result<Vec<Tombstone>, Error> {
        Ok(self.removals()?.tombstones(after, limit).await?)
    }

    /// Tells of how many archived items something is kept, and of which one was archived
    /// last: whoever asks for an order that is not there may want to look in the archives.
    /// Nothing where nothing leaves. Cancel-safe.
    ///
    /// # Errors
    /// [`Error::Overloaded`], [`Error::Backend`].
    pub async fn buried(&self) -> Result<(usize, Option<Tombstone>), Error> {
        match self.core().backend.store.removals() {
            Some(removals) => Ok(removals.buried().await?),
            None => Ok((0, None)),
        }
    }
}

impl From<RemovalRefused> for Error {
    fn from(refused: RemovalRefused) -> Self {
        match refused {
            RemovalRefused::UnknownItem(item) => Self::UnknownItem(item),
            refused => Self::CantLeave(refused),
        }
    }
}
