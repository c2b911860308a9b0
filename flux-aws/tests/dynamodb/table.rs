//! A table of its own for each test.

use std::sync::Arc;

use flux_aws::bill::Meter;
use flux_aws::dynamodb::DynamoStore;
use uuid::Uuid;

/// A client of the emulator.
pub(crate) async fn client() -> aws_sdk_dynamodb::Client {
    let endpoint = std::env::var("AWS_ENDPOINT_URL_DYNAMODB").unwrap_or_else(|_| {
        panic!("no DynamoDB to test with; start the services: tests/services cargo nextest run …")
    });
    let is_loopback = ["http://127.0.0.1:", "http://localhost:"];
    assert!(
        is_loopback.iter().any(|start| endpoint.starts_with(start)),
        "tests make and fill tables; {endpoint} is not on this machine"
    );
    aws_sdk_dynamodb::Client::new(&flux_aws::aws::from_env().await)
}

/// A store in a new table, its pools on so many rows.
pub(crate) async fn fresh(stripes: usize) -> Arc<DynamoStore> {
    let table = format!("flux-{}", Uuid::new_v4().simple());
    let store = DynamoStore::builder()
        .client(&client().await)
        .table(table)
        .stripes(stripes)
        .meter(Meter::default())
        .build();
    store.create_table().await.expect("the emulator makes tables");
    Arc::new(store)
}
