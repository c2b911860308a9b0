//! Another service, with clients of its own, sells through Flux: it hands its
//! clients in and keeps its credentials, endpoints and HTTP settings.
//!
//! ```sh
//! tests/services cargo run --release --features aws --example aws_embed
//! ```

use anyhow::{Context, Result};
use flux_aws::Aws;
use flux_aws::redis::RedisSettings;
use flux_core::{Flux, ItemSpec, OrderRequest, PaymentRef};
use stage::fleet::Services;
use uuid::Uuid;

/// The service, as it was before it began to sell.
struct Service {
    sqs: aws_sdk_sqs::Client,
    dynamodb: aws_sdk_dynamodb::Client,
}

#[tokio::main]
async fn main() -> Result<()> {
    // A trial: only services on this machine, under a name of its own.
    let name = format!("flux-embed-{}", Uuid::now_v7());
    let services = Services::from_env(&name)?;

    let config = flux_aws::aws::from_env().await;
    let service = Service {
        sqs: aws_sdk_sqs::Client::new(&config),
        dynamodb: aws_sdk_dynamodb::Client::new(&config),
    };

    let aws = Aws::builder()
        .queue(&name)
        .table(&name)
        .redis(RedisSettings::url(services.get("REDIS_URL")).prefix(&name))
        .sqs(service.sqs.clone())
        .dynamodb(service.dynamodb.clone())
        .create_missing(true)
        .open()
        .await?;
    let flux = Flux::builder(aws.backend).settings(aws.settings).start();

    let tickets = ItemSpec::pool("ticket_1", 1_000)?;
    flux.put_item(tickets.clone()).await?;
    let order = flux.place(OrderRequest::units("ann", "ticket_1", 2)?).await?;
    println!("order {} is {}", order.id, order.status());
    let order = flux.confirm(order.id, PaymentRef::new("payment_1")?).await?;
    println!("order {} is {}", order.id, order.status());
    let item = flux.item(&tickets.id).await?.context("it was just put on sale")?;
    println!("{} of {} tickets are left", item.available, tickets.capacity());
    flux.shutdown().await;

    println!("the bill: {}", aws.meter.bill());

    // The service's clients are still its own.
    let tables = service.dynamodb.list_tables().send().await?;
    println!("the service has {} tables", tables.table_names().len());
    Ok(())
}
