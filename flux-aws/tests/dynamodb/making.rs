//! Making a table whose rejected orders DynamoDB deletes, as DynamoDB answers: it refuses to
//! turn on what is on.

use std::sync::Arc;

use aws_sdk_dynamodb::types::TimeToLiveStatus;
use flux_aws::bill::Meter;
use flux_aws::dynamodb::DynamoStore;
use flux_core::seams::SeamError;

use crate::table::{client, store, table_name};
use crate::wire::{Fate, wired};

/// A store whose calls to have rows deleted meet this fate.
async fn meeting(table: &str, fate: Fate) -> Arc<DynamoStore> {
    let client = wired(&client().await, move |operation, _| match operation {
        "UpdateTimeToLive" => fate.clone(),
        _ => Fate::Well,
    });
    store(&client, table, 1, &Meter::default()).await
}

async fn forgets(table: &str) -> bool {
    let described = client().await.describe_time_to_live().table_name(table).send().await;
    let ttl = described.expect("described").time_to_live_description.expect("a description");
    ttl.time_to_live_status == Some(TimeToLiveStatus::Enabled)
}

#[tokio::test]
async fn a_table_that_forgets_is_left_as_it_is() {
    let table = table_name();
    meeting(&table, Fate::Well).await.create_table().await.expect("made");
    let on = meeting(&table, Fate::failure(400, "ValidationException")).await;
    on.create_table().await.expect("it is there, and forgets");
}

#[tokio::test]
async fn a_table_that_another_has_made_to_forget_meanwhile_is_as_good() {
    let table = table_name();
    // It is turned on, and this process hears of a failure.
    meeting(&table, Fate::Lost).await.create_table().await.expect("made");
    assert!(forgets(&table).await);
}

#[tokio::test]
async fn a_table_that_can_not_be_made_to_forget_is_not_said_to_be_made() {
    let table = table_name();
    let denied = meeting(&table, Fate::failure(400, "AccessDeniedException")).await;
    let error = denied.create_table().await.expect_err("it would keep all rejected orders");
    assert!(matches!(error, SeamError::Broken { .. }), "{error:?}");
    assert!(!forgets(&table).await);
    meeting(&table, Fate::Well).await.create_table().await.expect("allowed by now");
    assert!(forgets(&table).await);
}
