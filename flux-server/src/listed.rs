//! The list of items from a copy: where each look at it is a call that costs, the
//! crowd's requests share one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flux_core::{Error, Flux, Item, ItemId};

use crate::recent::Recent;

/// Items of the copy: those of the largest page, and one to tell whether more follow. What
/// lies beyond is read for each request.
const ITEMS_MAX: usize = 1_001;

/// The list of items.
#[derive(Debug, Default)]
pub(crate) struct Listed {
    first: Recent<First>,
    /// Changes made by this process.
    changes: AtomicU64,
}

/// The first items, or why they can't be read.
#[derive(Debug, Clone)]
struct First {
    /// The changes that it shows.
    changes: u64,
    items: Result<Arc<[Item]>, Error>,
}

impl Listed {
    /// Has what this process changed shown by every later page.
    pub(crate) fn changed(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
    }

    /// The items after `after`, at most `limit`, as [`Flux::items`] lists them. Cancel-safe.
    pub(crate) async fn page(
        &self,
        flux: &Flux,
        after: Option<&ItemId>,
        limit: usize,
    ) -> Result<Vec<Item>, Error> {
        let read = |after: Option<ItemId>, limit| {
            let flux = flux.clone();
            async move { flux.items(after.as_ref(), limit).await }
        };
        self.page_of(after, limit, read).await
    }

    async fn page_of<R>(
        &self,
        after: Option<&ItemId>,
        limit: usize,
        read: impl Fn(Option<ItemId>, usize) -> R,
    ) -> Result<Vec<Item>, Error>
    where
        R: Future<Output = Result<Vec<Item>, Error>>,
    {
        let asked = self.changes.load(Ordering::Acquire);
        let make = async {
            let changes = self.changes.load(Ordering::Acquire);
            First { changes, items: read(None, ITEMS_MAX).await.map(Arc::from) }
        };
        let first = self.first.get_if(|first| first.changes >= asked, make).await.items?;
        let start = after.map_or(0, |after| first.partition_point(|item| item.spec.id <= *after));
        let page = &first[start..first.len().min(start + limit)];
        if page.len() == limit || first.len() < ITEMS_MAX {
            return Ok(page.to_vec());
        }
        read(after.cloned(), limit).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use flux_core::{ItemSpec, SeamError};
    use tokio::time::{advance, sleep};

    use super::*;

    /// A backend that counts its calls; each takes a while.
    #[derive(Default)]
    struct Backend {
        calls: AtomicUsize,
        items: AtomicUsize,
        is_away: bool,
    }

    impl Backend {
        async fn read(&self, after: Option<ItemId>, limit: usize) -> Result<Vec<Item>, Error> {
            self.calls.fetch_add(1, Ordering::SeqCst);
            let count = self.items.load(Ordering::SeqCst);
            sleep(Duration::from_millis(300)).await;
            if self.is_away {
                return Err(SeamError::unavailable("test").into());
            }
            let item = |n: usize| {
                let spec = ItemSpec::pool(format!("item-{n:05}"), 1).expect("an item");
                Item::builder().spec(Arc::new(spec)).available(1).held(0).sold(0).build()
            };
            let items = (0..count).map(item);
            let later = |item: &Item| after.as_ref().is_none_or(|after| item.spec.id > *after);
            Ok(items.filter(later).take(limit).collect())
        }
    }

    async fn page(
        listed: &Listed,
        backend: &Backend,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, Error> {
        let after = after.map(|id| ItemId::new(id).expect("an id"));
        let read = |after, limit| backend.read(after, limit);
        let page = listed.page_of(after.as_ref(), limit, read).await?;
        Ok(page.iter().map(|item| item.spec.id.to_string()).collect())
    }

    /// A crowd that asks at once, each for another page.
    async fn crowd(
        listed: &Arc<Listed>,
        backend: &Arc<Backend>,
    ) -> Vec<Result<Vec<String>, Error>> {
        let ask = |n: usize| {
            let (listed, backend) = (Arc::clone(listed), Arc::clone(backend));
            tokio::spawn(async move {
                let after = n.checked_sub(1).map(|last| format!("item-{last:05}"));
                page(&listed, &backend, after.as_deref(), n % 11 + 1).await
            })
        };
        let asked: Vec<_> = (0..100).map(ask).collect();
        let mut answers = Vec::new();
        for answer in asked {
            answers.push(answer.await.expect("no panic"));
        }
        answers
    }

    fn backend(items: usize) -> Backend {
        Backend { items: AtomicUsize::new(items), ..Backend::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_crowd_costs_one_call_a_second_whatever_it_asks_for() {
        let (listed, backend) = (Arc::default(), Arc::new(backend(25)));
        let pages = crowd(&listed, &backend).await;
        let page_of = |n: usize| pages[n].as_ref().expect("read");
        assert_eq!(*page_of(0), ["item-00000"]);
        assert_eq!(*page_of(3), ["item-00003", "item-00004", "item-00005", "item-00006"]);
        assert_eq!((page_of(24).len(), page_of(26).len()), (1, 0));
        assert_eq!(backend.calls.load(Ordering::SeqCst), 1);
        advance(Duration::from_millis(999)).await;
        crowd(&listed, &backend).await;
        assert_eq!(backend.calls.load(Ordering::SeqCst), 1, "it is not a second old");
        advance(Duration::from_millis(1)).await;
        crowd(&listed, &backend).await;
        assert_eq!(backend.calls.load(Ordering::SeqCst), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn what_this_process_puts_is_seen_at_once_even_while_a_copy_is_being_read() {
        let (listed, backend) = (Listed::default(), backend(1));
        let early = page(&listed, &backend, None, 10);
        let put_and_look = async {
            sleep(Duration::from_millis(100)).await;
            backend.items.store(2, Ordering::SeqCst);
            listed.changed();
            page(&listed, &backend, None, 10).await
        };
        let (early, late) = tokio::join!(early, put_and_look);
        assert_eq!((early.expect("read").len(), late.expect("read").len()), (1, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn what_lies_beyond_the_copy_is_read_and_the_copy_stays_within_its_bound() {
        let (listed, backend) = (Listed::default(), backend(2_500));
        let get = async |after, limit| page(&listed, &backend, after, limit).await.expect("read");
        assert_eq!(get(None, ITEMS_MAX).await.len(), ITEMS_MAX);
        assert_eq!(backend.calls.load(Ordering::SeqCst), 1);
        let beyond = get(Some("item-00999"), 5).await;
        assert_eq!((beyond.len(), &*beyond[0]), (5, "item-01000"));
        assert_eq!(get(Some("item-02495"), 50).await.len(), 4);
        assert_eq!(backend.calls.load(Ordering::SeqCst), 3);
        let kept = listed.first.get(std::future::pending()).await.items.expect("read");
        assert_eq!(kept.len(), ITEMS_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn a_backend_that_is_away_is_asked_once_for_all_who_wait() {
        let away = Backend { is_away: true, ..Backend::default() };
        let (listed, backend) = (Arc::default(), Arc::new(away));
        assert!(crowd(&listed, &backend).await.iter().all(Result::is_err));
        assert_eq!(backend.calls.load(Ordering::SeqCst), 1);
        advance(Duration::from_secs(1)).await;
        crowd(&listed, &backend).await;
        assert_eq!(backend.calls.load(Ordering::SeqCst), 2, "it may be back");
    }
}
