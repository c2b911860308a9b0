//! A copy of what is dear to find out and asked of by anybody: up to a second old,
//! and made by one at a time.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

/// Age up to which a copy is good.
const GOOD_FOR: Duration = Duration::from_secs(1);

/// The last copy, if there is one.
#[derive(Debug)]
pub(crate) struct Recent<T> {
    made: Mutex<Option<(Instant, T)>>,
}

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self { made: Mutex::const_new(None) }
    }
}

impl<T: Clone> Recent<T> {
    /// The copy, or what `make` makes now. Who asks while it is made waits for it.
    /// Cancel-safe: the next of those who wait makes it then.
    pub(crate) async fn get(&self, make: impl Future<Output = T>) -> T {
        self.get_if(|_| true, make).await
    }

    /// The same, unless the copy is not `good` in another way than by its age.
    pub(crate) async fn get_if(
        &self,
        good: impl FnOnce(&T) -> bool,
        make: impl Future<Output = T>,
    ) -> T {
        let mut made = self.made.lock().await;
        if let Some((at, copy)) = &*made
            && at.elapsed() < GOOD_FOR
            && good(copy)
        {
            return copy.clone();
        }
        let new = make.await;
        *made = Some((Instant::now(), new.clone()));
        new
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::time::{advance, sleep, timeout};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn many_who_ask_at_once_cost_one_making_a_second() {
        let (recent, count) = (Recent::default(), Cell::new(0));
        let ask = || {
            recent.get(async {
                sleep(Duration::from_millis(50)).await;
                count.set(count.get() + 1);
                count.get()
            })
        };
        let three = || async { tokio::join!(ask(), ask(), ask()) };
        assert_eq!(three().await, (1, 1, 1));
        advance(Duration::from_millis(999)).await;
        assert_eq!(three().await, (1, 1, 1));
        advance(Duration::from_millis(1)).await;
        assert_eq!(three().await, (2, 2, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_leaves_the_making_to_the_next() {
        let recent = Recent::default();
        let short = Duration::from_millis(1);
        assert!(timeout(short, recent.get(std::future::pending())).await.is_err());
        assert_eq!(recent.get(async { 7 }).await, 7);
    }
}
