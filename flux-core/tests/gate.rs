//! The gate, as callers meet it in one process while another one sells.

use std::sync::Arc;
use std::time::Duration;

use flux_core::backends::memory::MemoryBus;
use flux_core::{Backend, Error, Flux, ItemSpec, OrderRequest, OrderStatus, Role};
use tokio::time::sleep;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

/// More than are read again in one call.
const ITEMS: usize = 2_500;

/// The other process makes room, and nothing of that is heard.
#[tokio::test(start_paused = true)]
async fn however_many_items_are_sold_out_each_opens_again_within_a_second() -> Result {
    let backend = Backend::memory();
    let elsewhere = Flux::builder(backend.clone()).start();
    let deaf = Backend { bus: Arc::new(MemoryBus::default()), ..backend };
    let here = Flux::builder(deaf).role(Role::AcceptOnly).start();
    let items: Vec<String> = (0..ITEMS).map(|n| format!("item-{n}")).collect();
    let one = |item: &String| OrderRequest::units("ann", item, 1);
    for item in &items {
        elsewhere.put_item(ItemSpec::pool(item, 0)?).await?;
        let refused = here.submit(one(item)?).await;
        assert!(matches!(refused, Err(Error::SoldOut(_))), "{refused:?}");
    }
    for item in &items {
        elsewhere.put_item(ItemSpec::pool(item, 1)?).await?;
    }
    sleep(Duration::from_secs(1)).await;
    let mut shut = Vec::new();
    for item in &items {
        match here.submit(one(item)?).await {
            Ok(order) => assert_eq!(order.status(), OrderStatus::Queued),
            Err(Error::SoldOut(item)) => shut.push(item),
            Err(error) => return Err(error.into()),
        }
    }
    assert!(shut.is_empty(), "{} of {ITEMS} have stock and are shut", shut.len());
    Ok(())
}
