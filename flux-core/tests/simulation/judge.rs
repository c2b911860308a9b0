//! The judgement of a sale that came to rest.

use std::time::Duration;

use flux_core::clock::Clock;
use flux_core::conformance::history::{EndState, Event};
use flux_core::{Line, Money, OrderRequest, OrderStatus, SeatState};
use tokio::time::sleep;

use crate::Result;
use crate::sale::Sale;

/// Time without a message after which nothing more is to come: longer than a hold, a
/// delivery's time-out and the pause between an idle worker's searches, one after the
/// other.
const QUIET: Duration = Duration::from_secs(130);
/// Longest time until then.
const LONGEST: Duration = Duration::from_secs(5_000);

impl Sale {
    /// Lets everything come to rest, then judges.
    pub(crate) async fn judge(&self) -> Result {
        self.fleet.heal();
        let failures = self.fleet.failures();
        assert!(failures.is_empty(), "{failures:?}");
        let began = self.clock.now();
        let mut busy_at = began;
        while self.clock.now().since(busy_at) < QUIET {
            sleep(Duration::from_secs(1)).await;
            let depth = self.control.depth().await?;
            if depth.waiting + depth.in_flight > 0 {
                busy_at = self.clock.now();
            }
            assert!(busy_at.since(began) < LONGEST, "the queue never came to rest: {depth:?}");
        }
        assert_eq!(self.control.depth().await?.dead, 0, "a message was given up");
        let audit = self.control.audit().await?;
        assert!(audit.is_clean(), "{audit}");
        let end = EndState::read(&*self.backend.store, self.clock.now()).await?;
        let end = end.with_grace(Duration::from_secs(2));
        let owing = end.orders.iter().filter(|order| order.money() == Money::Owed);
        let (owing, owed) = (owing.count() as u64, self.control.owed().await?);
        assert_eq!(owed.orders, owing, "{owed:?}");
        let faults = self.history.check(&end);
        assert!(faults.is_empty(), "{faults:?}");
        for event in self.history.events() {
            let Event::Answered(shown) = event else { continue };
            let order = self.control.order(shown.id).await?;
            let order = order.unwrap_or_else(|| panic!("{} was answered and is lost", shown.id));
            assert_ne!(order.status(), OrderStatus::Queued, "accepted and not decided: {order:?}");
        }
        self.sell_out().await
    }

    /// Buys all that is left, to the last unit: no stock is stranded.
    async fn sell_out(&self) -> Result {
        let engines = self.fleet.well();
        for item in self.control.items(None, 10).await? {
            let seats = self.control.seats(&item.spec.id).await?.unwrap_or_default();
            let free = seats.iter().filter(|seat| seat.state == SeatState::Free);
            let mut asks: Vec<Line> = free
                .map(|seat| Line::seats(&item.spec.id, [&seat.id]))
                .collect::<Result<_, _>>()?;
            while asks.len() < item.available as usize {
                asks.push(Line::units(&item.spec.id, 1)?);
            }
            for (n, line) in asks.into_iter().enumerate() {
                let (buyer, lines) = (format!("last-{n}"), vec![line]);
                let request = OrderRequest::builder().buyer(buyer).lines(lines).build()?;
                let order = engines[n % engines.len()].place(request).await?;
                assert_eq!(order.status(), OrderStatus::Held, "{order:?}");
            }
            let left = self.control.item(&item.spec.id).await?.expect("it is there").available;
            assert_eq!(left, 0, "{} has units that can't be bought", item.spec.id);
        }
        let audit = self.control.audit().await?;
        assert!(audit.is_clean(), "{audit}");
        Ok(())
    }
}
