//! The quick start of the README: one item, one order, one payment. Run it
//! again and it goes on where it stopped: `flux-data` keeps the books.

use flux_core::{Flux, ItemSpec, OrderRequest, PaymentRef};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let flux = Flux::open("flux-data").await?;
    let tickets = ItemSpec::pool("ticket_1", 1_000)?;
    flux.put_item(tickets.clone()).await?;

    let order = flux.place(OrderRequest::units("ann", "ticket_1", 2)?).await?;
    println!("order {} is {}", order.id, order.status());

    let order = flux.confirm(order.id, PaymentRef::new("payment_1")?).await?;
    println!("order {} is {}", order.id, order.status());

    let item = flux.item(&tickets.id).await?.expect("it was just put on sale");
    println!("{} of {} tickets are left", item.available, tickets.capacity());

    flux.shutdown().await;
    Ok(())
}
