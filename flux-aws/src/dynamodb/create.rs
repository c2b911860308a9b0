//! Makes the table, for tests and trials. Elsewhere `terraform/` does.

use std::time::Duration;

use aws_sdk_dynamodb::operation::create_table::CreateTableError;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, KeySchemaElement, KeyType, Projection,
    ProjectionType, ScalarAttributeType, StreamSpecification, StreamViewType, TableStatus,
    TimeToLiveSpecification, TimeToLiveStatus,
};
use flux_core::seams::SeamError;
use tokio::time::{Instant, sleep};
use tracing::warn;

use super::DynamoStore;
use super::rows::{DUE_INDEX, FORGOTTEN, SERVICE};

/// Time a new table may take.
const CREATING_MAX: Duration = Duration::from_secs(120);

/// A stream with all that the change feed needs.
fn images() -> StreamSpecification {
    let stream = StreamSpecification::builder().stream_enabled(true);
    let stream = stream.stream_view_type(StreamViewType::NewAndOldImages);
    stream.build().expect("it is said whether it is on")
}

impl DynamoStore {
    /// Makes the table if it is not there, billed on demand, and waits until it
    /// can be used. Lets DynamoDB delete what is to be forgotten, and keep a stream of what
    /// changes.
    ///
    /// # Errors
    /// [`SeamError::Broken`] when it may not be made,
    /// [`SeamError::Unavailable`] when it takes longer than two minutes.
    pub async fn create_table(&self) -> Result<(), SeamError> {
        let attribute = |name: &str, kind| {
            let attribute = AttributeDefinition::builder().attribute_name(name);
            attribute.attribute_type(kind).build().expect("name and type are set")
        };
        let key = |name: &str, kind| {
            let key = KeySchemaElement::builder().attribute_name(name);
            key.key_type(kind).build().expect("name and type are set")
        };
        let takes = Projection::builder().projection_type(ProjectionType::Include);
        let index = GlobalSecondaryIndex::builder()
            .index_name(DUE_INDEX)
            .key_schema(key("due", KeyType::Hash))
            .key_schema(key("ends", KeyType::Range))
            .projection(takes.non_key_attributes("takes").build());
        let made = self
            .table
            .client
            .create_table()
            .table_name(&self.table.name)
            .billing_mode(BillingMode::PayPerRequest)
            .attribute_definitions(attribute("pk", ScalarAttributeType::S))
            .attribute_definitions(attribute("sk", ScalarAttributeType::S))
            .attribute_definitions(attribute("due", ScalarAttributeType::N))
            .attribute_definitions(attribute("ends", ScalarAttributeType::N))
            .key_schema(key("pk", KeyType::Hash))
            .key_schema(key("sk", KeyType::Range))
            .global_secondary_indexes(index.build().expect("name and keys are set"))
            .stream_specification(images())
            .send()
            .await;
        if let Err(error) = made
            && !error.as_service_error().is_some_and(CreateTableError::is_resource_in_use_exception)
        {
            return Err(self.table.failure(error));
        }
        let began = Instant::now();
        while began.elapsed() < CREATING_MAX {
            let found =
                self.table.client.describe_table().table_name(&self.table.name).send().await;
            let found = found.map_err(|error| self.table.failure(error))?.table;
            if let Some(table) = found.filter(|t| t.table_status == Some(TableStatus::Active)) {
                if table.stream_specification.is_none_or(|stream| !stream.stream_enabled) {
                    self.start_stream().await?;
                    continue;
                }
                if !self.forgets().await? {
                    self.start_forgetting().await?;
                }
                self.format.due_keys().await?;
                return self.feed.look().await;
            }
            sleep(Duration::from_millis(200)).await;
        }
        Err(SeamError::unavailable(SERVICE))
    }

    /// Looks whether the table is there and written by a store like this one;
    /// a new table is marked as ours. Warns when DynamoDB does not delete the rejected
    /// orders that are to be forgotten.
    ///
    /// # Errors
    /// [`SeamError::Broken`] says what is wrong and what to do.
    pub async fn check(&self) -> Result<(), SeamError> {
        self.format.due_keys().await?;
        let table = &self.table.name;
        match self.forgets().await {
            Ok(true) => {}
            Ok(false) => warn!(
                "rejected orders stay in table {table:?} for good; to have them deleted: aws dynamodb update-time-to-live --table-name {table} --time-to-live-specification Enabled=true,AttributeName={FORGOTTEN}"
            ),
            Err(error) => warn!(
                %error,
                "can't tell whether rejected orders are deleted from table {table:?}; allow dynamodb:DescribeTimeToLive"
            ),
        }
        if let Err(error) = self.feed.look().await {
            self.feed.warn(&error);
        }
        Ok(())
    }

    async fn start_stream(&self) -> Result<(), SeamError> {
        let update = self.table.client.update_table().table_name(&self.table.name);
        match update.stream_specification(images()).send().await {
            Ok(_) => Ok(()),
            // Of several who make one table at once, all but one are told that it changes.
            Err(error)
                if error.as_service_error().is_some_and(|error| {
                    error.is_resource_in_use_exception()
                        || error.meta().code() == Some("ValidationException")
                }) =>
            {
                sleep(Duration::from_millis(200)).await;
                Ok(())
            }
            Err(error) => Err(self.table.failure(error)),
        }
    }

    /// Whether DynamoDB deletes rows whose time has come.
    async fn forgets(&self) -> Result<bool, SeamError> {
        let described = self.table.client.describe_time_to_live().table_name(&self.table.name);
        let described = described.send().await.map_err(|error| self.table.failure(error))?;
        Ok(described.time_to_live_description.is_some_and(|ttl| {
            matches!(
                ttl.time_to_live_status,
                Some(TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling)
            ) && ttl.attribute_name.as_deref() == Some(FORGOTTEN)
        }))
    }

    async fn start_forgetting(&self) -> Result<(), SeamError> {
        let ttl = TimeToLiveSpecification::builder().enabled(true).attribute_name(FORGOTTEN);
        let ttl = ttl.build().expect("both are set");
        let update = self.table.client.update_time_to_live().table_name(&self.table.name);
        let updated = update.time_to_live_specification(ttl).send().await;
        // Of several who make one table at once, all but one are told that it changes.
        if let Err(error) = updated
            && !self.forgets().await.unwrap_or(false)
        {
            return Err(self.table.failure(error));
        }
        Ok(())
    }
}
