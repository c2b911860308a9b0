//! The wire between a store and the emulator, which fails as told: what no
//! emulator does by itself.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use tokio::sync::watch;

/// The fate of a call.
#[derive(Debug, Clone)]
pub(crate) enum Fate {
    /// It arrives and is answered.
    Well,
    /// It is answered so much later.
    Slow(Duration),
    /// It is answered, with a date that is off by so many seconds.
    Dated(i64),
    /// It does not arrive; this status and body come back.
    Answer(u16, String),
    /// It arrives, and its answer is lost.
    Lost,
    /// The caller gives up; it arrives once this is true, and is counted then.
    Late(watch::Receiver<bool>, Arc<AtomicUsize>),
    /// It arrives once this is true.
    Held(watch::Receiver<bool>),
}

impl Fate {
    /// The answer that DynamoDB gives with such a failure.
    pub(crate) fn failure(status: u16, code: &str) -> Self {
        let kind = format!("com.amazonaws.dynamodb.v20120810#{code}");
        Self::Answer(status, format!(r#"{{"__type":"{kind}","message":"as told"}}"#))
    }

    pub(crate) fn throttle() -> Self {
        Self::failure(400, "ProvisionedThroughputExceededException")
    }
}

/// Decides by the operation and the body.
type Decide = dyn Fn(&str, &str) -> Fate + Send + Sync;

#[derive(Clone)]
struct Wire {
    decide: Arc<Decide>,
    network: SharedHttpClient,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wire")
    }
}

/// A client whose calls meet the fates that `decide` gives them.
pub(crate) fn wired(
    client: &Client,
    decide: impl Fn(&str, &str) -> Fate + Send + Sync + 'static,
) -> Client {
    let wire = Wire { decide: Arc::new(decide), network: flux_aws::aws::http_client() };
    Client::from_conf(client.config().to_builder().http_client(wire).build())
}

impl HttpClient for Wire {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        let network = self.network.http_connector(settings, components);
        SharedHttpConnector::new(Wired { decide: Arc::clone(&self.decide), network })
    }
}

struct Wired {
    decide: Arc<Decide>,
    network: SharedHttpConnector,
}

impl fmt::Debug for Wired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wired")
    }
}

impl HttpConnector for Wired {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let target = request.headers().get("x-amz-target").unwrap_or_default();
        let operation = target.rsplit('.').next().unwrap_or_default().to_owned();
        let body = String::from_utf8_lossy(request.body().bytes().unwrap_or_default());
        let fate = (self.decide)(&operation, &body);
        let network = self.network.clone();
        HttpConnectorFuture::new(async move {
            match fate {
                Fate::Well => network.call(request).await,
                Fate::Dated(off) => {
                    let mut answer = network.call(request).await?;
                    let date = answer.headers().get("date").expect("it is dated");
                    let date = DateTime::from_str(date, Format::HttpDate).expect("a date");
                    let date = DateTime::from_secs(date.secs() + off).fmt(Format::HttpDate);
                    answer.headers_mut().insert("date", date.expect("a date"));
                    Ok(answer)
                }
                Fate::Slow(time) => {
                    tokio::time::sleep(time).await;
                    network.call(request).await
                }
                Fate::Answer(status, body) => {
                    let status = status.try_into().expect("a status");
                    Ok(HttpResponse::new(status, body.into()))
                }
                Fate::Lost => {
                    let answer = network.call(request).await;
                    assert!(answer.is_ok_and(|answer| !answer.status().is_server_error()));
                    Err(ConnectorError::io("the answer was lost".into()))
                }
                Fate::Late(mut goes, landed) => {
                    tokio::spawn(async move {
                        goes.wait_for(|goes| *goes).await.expect("the test tells");
                        let answer = network.call(request).await;
                        landed.fetch_add(1, Ordering::SeqCst);
                        answer
                    });
                    Err(ConnectorError::timeout("nobody answered".into()))
                }
                Fate::Held(mut goes) => {
                    goes.wait_for(|goes| *goes).await.expect("the test tells");
                    network.call(request).await
                }
            }
        })
    }
}
