//! Money and time: holds that end, stock that is sold again, money that comes
//! late and still gets a ticket, money that comes too late and is owed back
//! once, and a sale that is taken back.
//!
//! ```sh
//! cargo run --release --example payments
//! ```

use anyhow::ensure;
use flux_core::seams::OrderFilter;
use flux_core::{
    Error, Flux, ItemId, ItemSpec, Order, OrderId, OrderRequest, OrderStatus, Subscription,
};
use tokio::sync::broadcast::error::RecvError;

const TICKET: &str = "ticket_1";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let flux = Flux::open(dir.path()).await?;
    // Two tickets, set aside for one second each time.
    flux.put_item(ItemSpec::builder().id(TICKET).capacity(2).hold_seconds(1).build()?).await?;
    let mut outcomes = flux.subscribe();

    println!("Ann and Bob hold the two tickets. Bob pays, Ann doesn't:");
    let ann = hold(&flux, "ann").await?;
    let bob = hold(&flux, "bob").await?;
    pay(&flux, &bob, "bob-1").await?;
    stock(&flux).await?;

    println!("\nAnn's hold ends by itself and her ticket is on sale again:");
    ended(&flux, &mut outcomes, ann.id).await?;
    stock(&flux).await?;

    println!("\nAnn's money comes late. Her ticket is still there, so she gets it:");
    pay(&flux, &ann, "ann-1").await?;
    stock(&flux).await?;

    println!("\nBob takes his back, and Cleo holds it. Her hold ends too:");
    told(&flux.cancel(bob.id).await?);
    let cleo = hold(&flux, "cleo").await?;
    ended(&flux, &mut outcomes, cleo.id).await?;

    println!("\nDan buys it before Cleo's money comes. She is owed hers back, and");
    println!("her bank's repeating itself changes nothing:");
    let dan = hold(&flux, "dan").await?;
    pay(&flux, &dan, "dan-1").await?;
    for _ in 0..3 {
        pay(&flux, &cleo, "cleo-1").await?;
    }
    let owed = OrderFilter::builder().status(OrderStatus::RefundDue).build();
    let owed = flux.orders(&owed, None, 10).await?.orders;
    println!("  refunds due: {}", owed.len());
    stock(&flux).await?;

    let audit = flux.audit().await?;
    println!("\n{audit}");
    flux.shutdown().await;
    ensure!(owed.len() == 1 && audit.is_clean(), "the books are wrong");
    Ok(())
}

async fn hold(flux: &Flux, buyer: &str) -> anyhow::Result<Order> {
    let order = flux.place(OrderRequest::units(buyer, TICKET, 1)?).await?;
    told(&order);
    Ok(order)
}

async fn pay(flux: &Flux, order: &Order, payment: &str) -> anyhow::Result<()> {
    match flux.confirm(order.id, payment.parse()?).await {
        Ok(order) => told(&order),
        // Not a failure of the sale: the money is there, and must go back.
        Err(Error::RefundDue(order)) => told(&order),
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// Waits until the hold has ended. Outcomes may be lost, so a receiver that fell
/// behind, or hears of a gap, looks for itself.
async fn ended(flux: &Flux, outcomes: &mut Subscription, id: OrderId) -> anyhow::Result<()> {
    loop {
        let order = match outcomes.recv().await {
            Ok(outcomes) if outcomes.is_gap() => flux.order(id).await?,
            Ok(outcomes) => outcomes.orders.iter().find(|order| order.id == id).cloned(),
            Err(RecvError::Lagged(_)) => flux.order(id).await?,
            Err(RecvError::Closed) => anyhow::bail!("the engine has stopped"),
        };
        if let Some(order) = order.filter(|order| order.status() == OrderStatus::Expired) {
            told(&order);
            return Ok(());
        }
    }
}

fn told(order: &Order) {
    println!("  {:<4} is {}", order.buyer.as_str(), order.status());
}

async fn stock(flux: &Flux) -> anyhow::Result<()> {
    let item = flux.item(&ItemId::new(TICKET)?).await?.expect("it is on sale");
    println!("  available {}, held {}, sold {}", item.available, item.held, item.sold);
    Ok(())
}
