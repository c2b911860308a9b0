//! Flux itself, on a fresh embedded store.

use std::path::PathBuf;

use anyhow::{Result, bail, ensure};
use async_trait::async_trait;
use flux_core::{Flux, ItemSpec, Order, OrderId, OrderRequest, OrderStatus};
use uuid::Uuid;

use super::Way;
use super::rush::{Books, ITEM, Rush, Seller, Told, UNITS};

/// One engine that is called in this process.
pub(super) struct Embedded {
    /// Where its store goes.
    pub(super) dir: PathBuf,
}

#[async_trait(?Send)]
impl Way for Embedded {
    fn note(&self) -> String {
        String::new()
    }

    async fn measure(&self, rush: Rush) -> Result<Told> {
        if self.dir.exists() {
            std::fs::remove_dir_all(&self.dir)?;
        }
        let flux = Flux::open(&self.dir).await?;
        flux.put_item(ItemSpec::pool(ITEM, UNITS.into())?).await?;
        let told = rush.run(&[Engine(flux.clone())]).await?;
        let audit = flux.audit().await?;
        flux.shutdown().await;
        ensure!(audit.is_clean(), "{audit:?}");
        told.verify(&Books {
            held: audit.orders.get(&OrderStatus::Held).copied().unwrap_or_default(),
            gone: audit.capacity - audit.available,
        })?;
        Ok(told)
    }
}

#[derive(Clone)]
struct Engine(Flux);

impl Seller for Engine {
    async fn place(&mut self, buyer: &str, ids: &[Uuid]) -> Result<()> {
        let request = OrderRequest::units(buyer, ITEM, 1)?;
        let request = |id: &Uuid| request.clone().with_id(OrderId::from_uuid(*id));
        match ids {
            [id] => held(&self.0.place(request(id)).await?),
            _ => {
                let placed = self.0.place_all(ids.iter().map(request).collect()).await;
                placed.into_iter().try_for_each(|order| held(&order?))
            }
        }
    }
}

fn held(order: &Order) -> Result<()> {
    match order.status() {
        OrderStatus::Held => Ok(()),
        other => bail!("an order is {other}"),
    }
}
