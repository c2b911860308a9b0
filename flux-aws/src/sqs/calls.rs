//! The calls to SQS: each counted, each entry of a batch's reply checked.

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_sqs::Client;
use aws_sdk_sqs::error::SdkError;
use aws_sdk_sqs::types::{
    ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry,
    MessageAttributeValue, MessageSystemAttributeName, QueueAttributeName,
    SendMessageBatchRequestEntry,
};
use aws_smithy_runtime_api::http::Response;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use flux_core::Timestamp;
use flux_core::seams::SeamError;
use futures_util::FutureExt;
use uuid::Uuid;

use super::SERVICE;
use super::batch::{ENTRIES_MAX, Results, in_calls, replies};
use crate::aws;
use crate::bill::Meter;

/// The longest that SQS keeps a poll open.
pub(super) const POLL_MAX: Duration = Duration::from_secs(20);
/// The attribute that says why a body is in the dead-letter queue as it was.
const REASON: &str = "reason";

/// An SQS message to send.
#[derive(Debug, Clone, Default)]
pub(super) struct Outgoing {
    pub(super) body: String,
    /// The group in a FIFO queue.
    pub(super) group: Option<String>,
    pub(super) delay: Duration,
    /// The reason, for the dead-letter queue.
    pub(super) reason: Option<String>,
}

/// An SQS message that came.
#[derive(Debug, Clone)]
pub(super) struct Received {
    pub(super) id: String,
    pub(super) handle: String,
    pub(super) body: String,
    pub(super) receives: u32,
    pub(super) sent_at: Timestamp,
}

#[derive(Debug, Clone)]
pub(super) struct Calls {
    client: Client,
    /// The client for long polls, with a longer time-out.
    poller: Client,
    meter: Meter,
}

impl Calls {
    pub(super) fn new(client: &Client, meter: &Meter) -> Self {
        let with = |call_max| {
            let config = client.config().to_builder();
            let config = config.retry_config(aws::no_retries());
            Client::from_conf(config.timeout_config(aws::time_outs(call_max)).build())
        };
        let (client, poller) = (with(aws::CALL_MAX), with(POLL_MAX + aws::CALL_MAX));
        Self { client, poller, meter: meter.clone() }
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn count(&self, operation: &'static str, payload_bytes: usize) {
        self.meter.sqs(operation, payload_bytes);
    }

    /// Sends messages; each has its own result.
    pub(super) async fn send(&self, url: &str, messages: Vec<Outgoing>) -> Results {
        let entries = messages.into_iter().map(entry).collect();
        let bytes = |entry: &SendMessageBatchRequestEntry| entry.message_body.len();
        let call = |mut entries: Vec<SendMessageBatchRequestEntry>| {
            let (this, url) = (self.clone(), url.to_owned());
            let call = async move {
                let (count, payload) = (entries.len(), entries.iter().map(bytes).sum());
                this.count("SendMessageBatch", payload);
                for (index, entry) in entries.iter_mut().enumerate() {
                    entry.id = index.to_string();
                }
                let request = this.client.send_message_batch().queue_url(&url);
                let answer = request.set_entries(Some(entries)).send().await;
                let answer = answer.map_err(|error| failure(&url, error))?;
                let done = answer.successful.iter().map(|entry| entry.id.as_str());
                Ok(replies(count, done, &answer.failed))
            };
            call.boxed()
        };
        in_calls(entries, bytes, call).await
    }

    /// Deletes messages; each has its own result.
    pub(super) async fn delete(&self, url: &str, handles: Vec<String>) -> Results {
        let call = |handles: Vec<String>| {
            let (this, url) = (self.clone(), url.to_owned());
            let call = async move {
                let count = handles.len();
                this.count("DeleteMessageBatch", 0);
                let entries = handles.into_iter().enumerate().map(|(index, handle)| {
                    let entry = DeleteMessageBatchRequestEntry::builder().id(index.to_string());
                    entry.receipt_handle(handle).build().expect("id and handle are set")
                });
                let request = this.client.delete_message_batch().queue_url(&url);
                let answer = request.set_entries(Some(entries.collect())).send().await;
                let answer = answer.map_err(|error| failure(&url, error))?;
                let done = answer.successful.iter().map(|entry| entry.id.as_str());
                Ok(replies(count, done, &answer.failed))
            };
            call.boxed()
        };
        in_calls(handles, |_| 0, call).await
    }

    /// Lets messages be seen again after the given time; each has its own result.
    pub(super) async fn change_visibility(
        &self,
        url: &str,
        handles: Vec<(String, Duration)>,
    ) -> Results {
        let call = |handles: Vec<(String, Duration)>| {
            let (this, url) = (self.clone(), url.to_owned());
            let call = async move {
                let count = handles.len();
                this.count("ChangeMessageVisibilityBatch", 0);
                let entries = handles.into_iter().enumerate().map(|(index, (handle, time))| {
                    let entry = ChangeMessageVisibilityBatchRequestEntry::builder();
                    let entry = entry.id(index.to_string()).receipt_handle(handle);
                    let entry = entry.visibility_timeout(seconds(time)).build();
                    entry.expect("id and handle are set")
                });
                let request = this.client.change_message_visibility_batch().queue_url(&url);
                let answer = request.set_entries(Some(entries.collect())).send().await;
                let answer = answer.map_err(|error| failure(&url, error))?;
                let done = answer.successful.iter().map(|entry| entry.id.as_str());
                Ok(replies(count, done, &answer.failed))
            };
            call.boxed()
        };
        in_calls(handles, |_| 0, call).await
    }

    /// One poll of up to `wait`, in whole seconds.
    pub(super) async fn receive(
        &self,
        url: &str,
        wait: Duration,
        visibility: Duration,
    ) -> Result<Vec<Received>, SeamError> {
        let request = self.poller.receive_message().queue_url(url);
        let request = request
            .max_number_of_messages(ENTRIES_MAX as i32)
            .wait_time_seconds(wait.min(POLL_MAX).as_secs() as i32)
            .visibility_timeout(seconds(visibility))
            .message_system_attribute_names(MessageSystemAttributeName::ApproximateReceiveCount)
            .message_system_attribute_names(MessageSystemAttributeName::SentTimestamp);
        let answer = request.send().await;
        let messages = answer.map(|answer| answer.messages.unwrap_or_default());
        let bodies = messages.iter().flatten().filter_map(|message| message.body());
        self.count("ReceiveMessage", bodies.map(str::len).sum());
        let messages = messages.map_err(|error| failure(url, error))?;
        Ok(messages.into_iter().filter_map(received).collect())
    }

    pub(super) async fn attributes(
        &self,
        url: &str,
        names: &[QueueAttributeName],
    ) -> Result<HashMap<QueueAttributeName, String>, SeamError> {
        self.count("GetQueueAttributes", 0);
        let request = self.client.get_queue_attributes().queue_url(url);
        let answer = request.set_attribute_names(Some(names.to_vec())).send().await;
        Ok(answer.map_err(|error| failure(url, error))?.attributes.unwrap_or_default())
    }

    /// Whether there is a queue of this name or URL that we may look at.
    pub(super) async fn exists(&self, queue: &str) -> Result<bool, SeamError> {
        if is_url(queue) {
            self.count("GetQueueAttributes", 0);
            let request = self.client.get_queue_attributes().queue_url(queue);
            let request = request.attribute_names(QueueAttributeName::VisibilityTimeout);
            return seen(queue, request.send().await);
        }
        self.count("GetQueueUrl", 0);
        seen(queue, self.client.get_queue_url().queue_name(queue).send().await)
    }

    /// The URL of a queue, if there is one of this name.
    pub(super) async fn url(
        &self,
        name: &str,
        account: Option<&str>,
    ) -> Result<Option<String>, SeamError> {
        self.count("GetQueueUrl", 0);
        let request = self.client.get_queue_url().queue_name(name);
        let request = request.set_queue_owner_aws_account_id(account.map(str::to_owned));
        match request.send().await {
            Ok(answer) => Ok(answer.queue_url),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(failure(name, error)),
        }
    }
}

fn entry(message: Outgoing) -> SendMessageBatchRequestEntry {
    let Outgoing { body, group, delay, reason } = message;
    let entry = SendMessageBatchRequestEntry::builder().id("0").message_body(body);
    // Retries of the entry carry the same, so that a FIFO queue takes one.
    let once = group.is_some().then(|| Uuid::now_v7().to_string());
    let entry = entry.set_message_group_id(group).set_message_deduplication_id(once);
    let entry = entry.set_delay_seconds((!delay.is_zero()).then(|| seconds(delay)));
    let reason = reason.map(|reason| {
        let value = MessageAttributeValue::builder().data_type("String").string_value(reason);
        HashMap::from([(REASON.to_owned(), value.build().expect("the type is set"))])
    });
    entry.set_message_attributes(reason).build().expect("id and body are set")
}

fn received(message: aws_sdk_sqs::types::Message) -> Option<Received> {
    let mut attributes = message.attributes.unwrap_or_default();
    let mut number = |name| attributes.remove(&name)?.parse::<u64>().ok();
    let receives = number(MessageSystemAttributeName::ApproximateReceiveCount).unwrap_or(1);
    let sent_at = number(MessageSystemAttributeName::SentTimestamp).unwrap_or_default();
    Some(Received {
        // Without a handle nothing can be done with it: it comes again.
        handle: message.receipt_handle?,
        id: message.message_id.unwrap_or_default(),
        body: message.body.unwrap_or_default(),
        receives: u32::try_from(receives).unwrap_or(u32::MAX).max(1),
        sent_at: Timestamp::from_millis(sent_at),
    })
}

/// The time in whole seconds, as SQS takes it; never earlier than asked.
fn seconds(time: Duration) -> i32 {
    let begun = u64::from(time.subsec_nanos() > 0);
    i32::try_from(time.as_secs() + begun).unwrap_or(i32::MAX)
}

/// Whether the queue is told by its URL, and not by its name.
pub(super) fn is_url(queue: &str) -> bool {
    queue.starts_with("http") && queue.contains("://")
}

fn code<E: ProvideErrorMetadata>(error: &SdkError<E, Response>) -> &str {
    error.as_service_error().and_then(ProvideErrorMetadata::code).unwrap_or_default()
}

fn is_missing<E: ProvideErrorMetadata>(error: &SdkError<E, Response>) -> bool {
    let code = code(error);
    code.ends_with("NonExistentQueue") || code.ends_with("QueueDoesNotExist")
}

/// Whether a look at a queue was answered, or why it can't be.
fn seen<T, E>(queue: &str, answer: Result<T, SdkError<E, Response>>) -> Result<bool, SeamError>
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    match answer {
        Ok(_) => Ok(true),
        Err(error) if is_missing(&error) => Ok(false),
        // Policies name the partitions there are, and not the next.
        Err(error) if matches!(code(&error), "AccessDenied" | "AccessDeniedException") => Ok(false),
        Err(error) => Err(failure(queue, error)),
    }
}

/// Turns the failure of a call on a queue into ours.
pub(super) fn failure<E>(queue: &str, error: SdkError<E, Response>) -> SeamError
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    if is_missing(&error) {
        return SeamError::broken(SERVICE, missing(queue)).with_source(error);
    }
    aws::failure(SERVICE, error)
}

pub(super) fn missing(queue: &str) -> String {
    format!("there is no queue {queue}; create it, for a trial with --create, or name another")
}
