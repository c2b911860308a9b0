//! Ten thousand random steps of the clock under an engine, on tokio's paused
//! clock: forward and backward, for a moment and for good, while it runs and
//! while it doesn't, sleep and boots.
//!
//! `FLUX_CLOCK_SEEDS=200 cargo test -p flux-core --test clock_steps`

#[cfg(feature = "embedded")]
mod restart;
mod story;

use flux_core::{Error, Flux, ItemId, ItemState, OrderId, OrderRequest, OrderStatus, PaymentRef};
use story::{Bought, Shop, WINDOW, tell};

/// Steps of one seed.
const STEPS: usize = 500;

#[derive(Clone)]
struct Engine(Flux);

impl Shop for Engine {
    fn open(flux: Flux) -> Self {
        Self(flux)
    }

    async fn is_open(&self) -> bool {
        let id = ItemId::new(WINDOW).expect("a name");
        let item = self.0.item(&id).await.expect("the store answers").expect("it was put");
        item.state(self.0.now()) == ItemState::Open
    }

    async fn buy(&self, item: &'static str, buyer: u64, id: OrderId) -> Bought {
        let request = OrderRequest::units(format!("buyer-{buyer}"), item, 1).expect("a request");
        match self.0.place(request.with_id(id)).await {
            Ok(order) => order.hold().map_or(Bought::Not, |hold| Bought::Held(hold.expires_at)),
            Err(Error::ShuttingDown | Error::OutcomePending(_)) => Bought::Away,
            Err(_) => Bought::Not,
        }
    }

    async fn pay(&self, id: OrderId) -> Option<OrderStatus> {
        match self.0.confirm(id, PaymentRef::new(format!("pay-{id}")).expect("a name")).await {
            Ok(order) => Some(order.status()),
            Err(Error::RefundDue(order)) => Some(order.status()),
            Err(Error::ShuttingDown | Error::OutcomePending(_)) => None,
            Err(error) => panic!("{id}: {error}"),
        }
    }
}

#[test]
fn no_hold_ends_by_a_step_of_the_clock_that_does_not_stand() {
    let seeds = std::env::var("FLUX_CLOCK_SEEDS").ok().and_then(|n| n.parse().ok());
    for seed in 0..seeds.unwrap_or(20) {
        tell::<Engine>(seed, STEPS);
    }
}
