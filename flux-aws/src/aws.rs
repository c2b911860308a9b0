//! The common part of the clients of DynamoDB and SQS: where they come from,
//! how long they wait, and what their failures mean.

use std::time::Duration;

use aws_config::{BehaviorVersion, SdkConfig};
use aws_smithy_http_client::{Builder, tls};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_runtime_api::http::Response;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use flux_core::seams::SeamError;

/// A connection that takes longer is given up.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// A call that takes longer is given up, but for a long poll.
pub(crate) const CALL_MAX: Duration = Duration::from_secs(3);

/// Reads region, credentials and endpoints from where the AWS SDK finds them:
/// the environment (`AWS_REGION`, `AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`,
/// `AWS_ENDPOINT_URL_SQS`, …), profile files, web identity, ECS and EC2.
/// Single sign-on and credential processes are left out; an application that
/// wants them hands in clients of its own.
pub async fn from_env() -> SdkConfig {
    aws_config::defaults(BehaviorVersion::latest()).http_client(http_client()).load().await
}

/// An HTTPS client on rustls and ring.
#[must_use]
pub fn http_client() -> SharedHttpClient {
    Builder::new()
        .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
        .build_https()
}

/// No retries by the SDK, which would repeat a write without knowing what it is: ours do.
pub(crate) fn no_retries() -> RetryConfig {
    RetryConfig::disabled()
}

/// Our time-outs, which replace those of a ready-made client.
pub(crate) fn time_outs(call_max: Duration) -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(CONNECT_MAX)
        .operation_timeout(call_max)
        // Time-outs not named here would be kept.
        .disable_operation_attempt_timeout()
        .disable_read_timeout()
        .build()
}

/// Turns the failure of a call into ours. A failure that may have taken effect is
/// [`SeamError::Unknown`]; whatever was refused for the moment is
/// [`SeamError::Unavailable`]; the rest is [`SeamError::Broken`].
pub(crate) fn failure<E>(service: &'static str, error: SdkError<E, Response>) -> SeamError
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let SdkError::ServiceError(answer) = &error else {
        return match error {
            SdkError::ConstructionFailure(_) => {
                let reason = "the request could not be built; are region and credentials set?";
                SeamError::broken(service, reason).with_source(error)
            }
            error => SeamError::unknown(service).with_source(error),
        };
    };
    let code = answer.err().code().unwrap_or_default();
    if is_throttle(code) {
        return SeamError::unavailable(service).with_source(error);
    }
    if answer.raw().status().as_u16() >= 500 {
        return SeamError::unknown(service).with_source(error);
    }
    let message = answer.err().message().unwrap_or("no message");
    let reason = format!("{code}: {message}");
    SeamError::broken(service, reason).with_source(error)
}

/// Whether AWS refuses a call for the moment, without effect, by this error code: the
/// service itself, or a customer's key, whose throttling each service words in its own
/// way (`KmsThrottled` and `KMS.ThrottlingException` of SQS, `KMSThrottlingException`).
pub(crate) fn is_throttle(code: &str) -> bool {
    code.contains("Throttl")
        || matches!(
            code,
            "LimitExceededException"
                | "OverLimit"
                | "ProvisionedThroughputExceeded"
                | "ProvisionedThroughputExceededException"
                | "RequestLimitExceeded"
                | "TooManyRequestsException"
                | "TransactionConflict"
                | "TransactionConflictException"
        )
}
