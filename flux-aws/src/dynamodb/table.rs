//! The calls to the table, each counted, each with its failures told apart.

use std::collections::HashMap;
use std::fmt::Display;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::types::{
    AttributeValue as Value, CancellationReason, ConsumedCapacity, KeysAndAttributes, PutRequest,
    ReturnConsumedCapacity, ReturnValue, ReturnValuesOnConditionCheckFailure, TransactWriteItem,
    WriteRequest,
};
use flux_core::backoff::Backoff;
use flux_core::seams::{SeamError, Sight};
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::rows::{DUE_INDEX, Key, Row, SERVICE, number};
use crate::aws;
use crate::bill::Meter;

/// Keys in one batch read; DynamoDB takes no more.
pub(super) const GET_MAX: usize = 100;
/// Rows in one batch write; DynamoDB takes no more.
const PUT_MAX: usize = 25;
/// Calls on their way at once for one call of the store.
const AT_ONCE: usize = 32;
/// Tries of what DynamoDB refused for the moment, or did not answer.
const TRIES_MAX: u32 = 6;
/// The first pause between such tries; it doubles.
const PAUSE: Backoff = Backoff::new(Duration::from_millis(20), Duration::from_millis(500));
/// No try begins later than this.
const TRY_FOR: Duration = Duration::from_secs(4);

/// One table.
#[derive(Debug, Clone)]
pub(super) struct Table {
    pub(super) client: Client,
    pub(super) name: String,
    pub(super) meter: Meter,
}

/// The outcome of a write under a condition.
#[derive(Debug)]
pub(super) enum Written {
    /// The write was made; the row as it is now.
    Row(Row),
    /// The condition did not hold; the row as it is, if there is one.
    Not(Option<Row>),
}

/// The outcome of a transaction.
#[derive(Debug)]
pub(super) enum Transacted {
    /// All of it was written.
    Applied,
    /// None of it was written: for each action the reason, if it is at fault.
    Cancelled(Vec<CancellationReason>),
    /// No try was answered.
    Unknown(SeamError),
}

type Failure<E> = SdkError<E, aws_smithy_runtime_api::http::Response>;

impl Table {
    /// A row as it is now.
    pub(super) async fn get(&self, key: Key) -> Result<Option<Row>, SeamError> {
        let found = self
            .client
            .get_item()
            .table_name(&self.name)
            .set_key(Some(key.into_row()))
            .consistent_read(true)
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .send()
            .await;
        self.count_read("GetItem", found.as_ref().ok().and_then(|f| f.consumed_capacity()));
        Ok(found.map_err(|error| self.failure(error))?.item)
    }

    /// The rows of those keys that are there.
    pub(super) async fn get_all(&self, keys: Vec<Key>) -> Result<HashMap<Key, Row>, SeamError> {
        self.get_all_as(keys, Sight::Now).await
    }

    /// The rows of those keys that are there, or were.
    pub(super) async fn get_all_as(
        &self,
        mut keys: Vec<Key>,
        sight: Sight,
    ) -> Result<HashMap<Key, Row>, SeamError> {
        keys.sort_unstable_by(|a, b| (&a.pk, &a.sk).cmp(&(&b.pk, &b.sk)));
        keys.dedup();
        let parts: Vec<Vec<Key>> = keys.chunks(GET_MAX).map(<[Key]>::to_vec).collect();
        let found = in_order(parts.into_iter().map(|keys| self.get_batch(keys, sight)));
        let rows: Vec<Vec<Row>> = found.try_collect().await?;
        rows.into_iter().flatten().map(|row| Ok((Key::of(&row)?, row))).collect()
    }

    async fn get_batch(&self, keys: Vec<Key>, sight: Sight) -> Result<Vec<Row>, SeamError> {
        let mut rows = Vec::with_capacity(keys.len());
        let mut left: Vec<Row> = keys.into_iter().map(Key::into_row).collect();
        for tries in 0..TRIES_MAX {
            if left.is_empty() {
                return Ok(rows);
            }
            if tries > 0 {
                sleep(PAUSE.full_jitter(tries)).await;
            }
            let keys = KeysAndAttributes::builder().set_keys(Some(left));
            let keys = keys.consistent_read(sight == Sight::Now);
            let answer = self
                .client
                .batch_get_item()
                .request_items(&self.name, keys.build().expect("keys are set"))
                .return_consumed_capacity(ReturnConsumedCapacity::Total)
                .send()
                .await;
            let capacity =
                answer.as_ref().ok().and_then(|answer| answer.consumed_capacity().first());
            self.count_read("BatchGetItem", capacity);
            let answer = answer.map_err(|error| self.failure(error))?;
            rows.extend(answer.responses.into_iter().flatten().flat_map(|(_, rows)| rows));
            let unread = answer.unprocessed_keys.into_iter().flatten();
            left = unread.flat_map(|(_, left)| left.keys).collect();
        }
        if left.is_empty() { Ok(rows) } else { Err(SeamError::unavailable(SERVICE)) }
    }

    /// Puts rows that nobody else writes, in any order.
    pub(super) async fn put_all(&self, rows: Vec<Row>) -> Result<(), SeamError> {
        let parts: Vec<Vec<Row>> = rows.chunks(PUT_MAX).map(<[Row]>::to_vec).collect();
        in_order(parts.into_iter().map(|rows| self.put_batch(rows))).try_collect().await
    }

    async fn put_batch(&self, rows: Vec<Row>) -> Result<(), SeamError> {
        let put = |row| {
            let put = PutRequest::builder().set_item(Some(row)).build().expect("a row is set");
            WriteRequest::builder().put_request(put).build()
        };
        let mut left: Vec<WriteRequest> = rows.into_iter().map(put).collect();
        for tries in 0..TRIES_MAX {
            if left.is_empty() {
                return Ok(());
            }
            if tries > 0 {
                sleep(PAUSE.full_jitter(tries)).await;
            }
            let answer = self
                .client
                .batch_write_item()
                .request_items(&self.name, left)
                .return_consumed_capacity(ReturnConsumedCapacity::Total)
                .send()
                .await;
            let capacity =
                answer.as_ref().ok().and_then(|answer| answer.consumed_capacity().first());
            self.count_write("BatchWriteItem", capacity);
            let answer = answer.map_err(|error| self.failure(error))?;
            left = answer.unprocessed_items.into_iter().flatten().flat_map(|(_, l)| l).collect();
        }
        if left.is_empty() { Ok(()) } else { Err(SeamError::unavailable(SERVICE)) }
    }

    /// A query of this table.
    pub(super) fn query(&self) -> QueryFluentBuilder {
        self.client.query().table_name(&self.name)
    }

    /// A query of one key of the index of holds, by their ends.
    pub(super) fn due_query(&self, key: impl Display) -> QueryFluentBuilder {
        self.query()
            .index_name(DUE_INDEX)
            .key_condition_expression("due = :due")
            .expression_attribute_values(":due", number(key))
    }

    /// One page of a query, and whether there may be more.
    pub(super) async fn page(
        &self,
        query: QueryFluentBuilder,
    ) -> Result<(Vec<Row>, Option<Row>), SeamError> {
        let page = query.return_consumed_capacity(ReturnConsumedCapacity::Total).send().await;
        self.count_read("Query", page.as_ref().ok().and_then(|page| page.consumed_capacity()));
        let page = page.map_err(|error| self.failure(error))?;
        Ok((page.items.unwrap_or_default(), page.last_evaluated_key))
    }

    /// All pages of a query that is known to be short.
    pub(super) async fn pages(&self, query: QueryFluentBuilder) -> Result<Vec<Row>, SeamError> {
        let (mut rows, mut next) = self.page(query.clone()).await?;
        while let Some(after) = next {
            let (more, further) =
                self.page(query.clone().set_exclusive_start_key(Some(after))).await?;
            rows.extend(more);
            next = further;
        }
        Ok(rows)
    }

    /// An update of one row of this table.
    pub(super) fn update(&self, key: Key) -> UpdateItemFluentBuilder {
        self.client.update_item().table_name(&self.name).set_key(Some(key.into_row()))
    }

    /// Makes an update, if its condition holds.
    pub(super) async fn write(
        &self,
        update: UpdateItemFluentBuilder,
    ) -> Result<Written, SeamError> {
        let written = update
            .return_values(ReturnValue::AllNew)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .send()
            .await;
        self.count_write("UpdateItem", written.as_ref().ok().and_then(|w| w.consumed_capacity()));
        match written {
            Ok(written) => Ok(Written::Row(written.attributes.unwrap_or_default())),
            Err(SdkError::ServiceError(answer))
                if answer.err().is_conditional_check_failed_exception() =>
            {
                // Billed all the same, without saying so: one unit at least.
                self.meter.dynamodb_units(0.0, 1.0);
                match answer.into_err() {
                    UpdateItemError::ConditionalCheckFailedException(failed) => {
                        Ok(Written::Not(failed.item))
                    }
                    _ => unreachable!("it was looked at"),
                }
            }
            Err(error) => Err(self.failure(error)),
        }
    }

    /// Writes all the actions or none. A try that is refused for the moment or not
    /// answered is tried again under the same request token, by which
    /// DynamoDB knows a repeat for ten minutes and applies it once.
    pub(super) async fn transact(
        &self,
        actions: Vec<TransactWriteItem>,
    ) -> Result<Transacted, SeamError> {
        let (token, began) = (Uuid::new_v4().to_string(), Instant::now());
        let count = actions.len();
        let mut last: Option<SeamError> = None;
        for tries in 0..TRIES_MAX {
            if tries > 0 {
                sleep(PAUSE.full_jitter(tries)).await;
            }
            let answer = self
                .client
                .transact_write_items()
                .set_transact_items(Some(actions.clone()))
                .client_request_token(&token)
                .return_consumed_capacity(ReturnConsumedCapacity::Total)
                .send()
                .await;
            let refused = match answer {
                Ok(answer) => {
                    let capacity = answer.consumed_capacity().first();
                    self.count_write("TransactWriteItems", capacity);
                    return Ok(Transacted::Applied);
                }
                Err(error) => error,
            };
            // A cancelled transaction is billed and doesn't say how much: at
            // least two units for each row it would have written.
            self.meter.dynamodb("TransactWriteItems", 0.0, 0.0);
            let error = match self.judge(refused) {
                Judged::Cancelled(reasons) => {
                    self.meter.dynamodb_units(0.0, 2.0 * count as f64);
                    return Ok(Transacted::Cancelled(reasons));
                }
                Judged::Final(error) => return Err(error),
                Judged::Later(error) => error,
            };
            // A refusal does not tell what became of a try before it.
            if !last.as_ref().is_some_and(SeamError::may_have_applied) {
                last = Some(error);
            }
            if began.elapsed() > TRY_FOR {
                break;
            }
        }
        let last = last.expect("it was tried");
        if last.may_have_applied() { Ok(Transacted::Unknown(last)) } else { Err(last) }
    }

    fn judge(&self, error: Failure<TransactWriteItemsError>) -> Judged {
        if let SdkError::ServiceError(answer) = &error {
            match answer.err() {
                TransactWriteItemsError::TransactionCanceledException(cancelled) => {
                    return judge_reasons(cancelled.cancellation_reasons());
                }
                TransactWriteItemsError::TransactionInProgressException(_) => {
                    return Judged::Later(SeamError::unknown(SERVICE));
                }
                _ => {}
            }
        }
        match self.failure(error) {
            error @ SeamError::Broken { .. } => Judged::Final(error),
            error => Judged::Later(error),
        }
    }

    /// As [`aws::failure`], with help for a table that is not there.
    pub(super) fn failure<E>(&self, error: Failure<E>) -> SeamError
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        if error.code() == Some("ResourceNotFoundException") {
            let reason = format!(
                "there is no table {:?} with an index {:?}; make it with `--create`, or by terraform/",
                self.name, DUE_INDEX
            );
            return SeamError::broken(SERVICE, reason).with_source(error);
        }
        aws::failure(SERVICE, error)
    }

    fn count_read(&self, operation: &'static str, capacity: Option<&ConsumedCapacity>) {
        self.meter.dynamodb(operation, units(capacity), 0.0);
    }

    fn count_write(&self, operation: &'static str, capacity: Option<&ConsumedCapacity>) {
        self.meter.dynamodb(operation, 0.0, units(capacity));
    }
}

fn units(capacity: Option<&ConsumedCapacity>) -> f64 {
    capacity.and_then(ConsumedCapacity::capacity_units).unwrap_or(0.0)
}

enum Judged {
    Cancelled(Vec<CancellationReason>),
    Final(SeamError),
    Later(SeamError),
}

/// Judges the reasons of a cancelled transaction: a condition that did not
/// hold is an answer; a conflict with another transaction, or a throttle, is
/// worth another try; anything else never goes away.
fn judge_reasons(reasons: &[CancellationReason]) -> Judged {
    let (mut failed, mut later) = (false, false);
    for reason in reasons {
        match reason.code().unwrap_or("None") {
            "None" => {}
            "ConditionalCheckFailed" => failed = true,
            code if aws::is_throttle(code) => later = true,
            // ValidationError, ItemCollectionSizeLimitExceeded, and what is new.
            code => {
                let message = reason.message().unwrap_or("no message");
                return Judged::Final(SeamError::broken(SERVICE, format!("{code}: {message}")));
            }
        }
    }
    match (failed, later) {
        (true, _) => Judged::Cancelled(reasons.to_vec()),
        (false, true) => Judged::Later(SeamError::unavailable(SERVICE)),
        (false, false) => {
            Judged::Final(SeamError::broken(SERVICE, "a transaction was cancelled for no reason"))
        }
    }
}

/// Awaits some futures, a bounded number of them at once; their answers in order.
pub(super) fn in_order<F: Future>(
    futures: impl IntoIterator<Item = F>,
) -> impl Stream<Item = F::Output> {
    // Collected, as a lazy iterator over borrows makes no `Send` future.
    stream::iter(futures.into_iter().collect::<Vec<_>>()).buffered(AT_ONCE)
}

/// A value by its name in an expression.
pub(super) fn values<const N: usize>(named: [(&str, Value); N]) -> HashMap<String, Value> {
    named.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::answered;
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_taken_at_once_waits_for_nothing() {
        let client = answered::client("{}");
        let table = Table { client, name: "t".into(), meter: Meter::default() };
        let began = Instant::now();
        table.put_all(vec![Key::format().into_row()]).await.expect("taken");
        table.get_all(vec![Key::format()]).await.expect("read");
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
