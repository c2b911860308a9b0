//! A client that does to calls what emulators never do: it stands between the
//! SDK and the emulator.

use std::sync::Arc;

use aws_sdk_sqs::Client;
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::http::StatusCode;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::byte_stream::ByteStream;
use serde_json::{Value, json};

use crate::Emulator;

/// The fate of a call.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Act {
    Pass,
    /// It is made, and its answer is lost.
    Lose,
    /// It is not made, and refused with this code.
    Refuse(&'static str),
    /// These entries of the batch are not made.
    FailEntries(Vec<(usize, Fault)>),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Fault {
    /// The service's fault.
    Service,
    /// The sender's fault, says SQS.
    Sender,
    /// The reply does not speak of the entry.
    Silence,
}

/// Rules on a call by its operation and what it asks.
pub(super) type Rule = Arc<dyn Fn(&str, &Value) -> Act + Send + Sync>;

struct Meddler {
    inner: SharedHttpConnector,
    rule: Rule,
}

impl std::fmt::Debug for Meddler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Meddler")
    }
}

pub(super) async fn client(
    emulator: Emulator,
    rule: impl Fn(&str, &Value) -> Act + Send + Sync + 'static,
) -> Client {
    let (real, rule) = (flux_aws::aws::http_client(), Arc::new(rule) as Rule);
    let meddling = http_client_fn(move |settings, components| {
        use aws_smithy_runtime_api::client::http::HttpClient;
        let inner = real.http_connector(settings, components);
        SharedHttpConnector::new(Meddler { inner, rule: Arc::clone(&rule) })
    });
    Client::from_conf(emulator.config().await.http_client(meddling).build())
}

impl HttpConnector for Meddler {
    fn call(&self, mut request: HttpRequest) -> HttpConnectorFuture {
        let target = request.headers().get("x-amz-target").unwrap_or_default();
        let operation = target.rsplit('.').next().unwrap_or_default().to_owned();
        let body = request.body().bytes().expect("requests are in memory");
        let mut asked: Value = serde_json::from_slice(body).expect("requests are JSON");
        let act = (self.rule)(&operation, &asked);
        let (mut failed, mut left_out) = (Vec::new(), Vec::new());
        if let Act::FailEntries(faults) = &act {
            let entries = asked["Entries"].as_array_mut().expect("a batch");
            for (index, fault) in faults {
                let id = &entries[*index]["Id"];
                left_out.push(id.clone());
                if *fault == Fault::Silence {
                    continue;
                }
                failed.push(json!({
                    "Id": id,
                    "Code": "Meddled",
                    "Message": "told to",
                    "SenderFault": *fault == Fault::Sender,
                }));
            }
            entries.retain(|entry| !left_out.contains(&entry["Id"]));
            if entries.is_empty() {
                return answer(200, &json!({ "Successful": [], "Failed": failed }));
            }
            let body = asked.to_string();
            request.headers_mut().insert("content-length", body.len().to_string());
            *request.body_mut() = SdkBody::from(body);
        }
        if let Act::Refuse(code) = act {
            return answer(400, &json!({ "__type": code, "message": "told to" }));
        }
        let made = self.inner.call(request);
        HttpConnectorFuture::new(async move {
            let made = made.await?;
            if act == Act::Lose {
                return Err(ConnectorError::io("the answer is lost".into()));
            }
            if failed.is_empty() {
                return Ok(made);
            }
            let body = ByteStream::new(made.into_body()).collect().await.expect("an answer");
            let mut said: Value = serde_json::from_slice(&body.into_bytes()).expect("JSON");
            said["Failed"] = failed.into();
            Ok(response(200, &said))
        })
    }
}

fn response(status: u16, body: &Value) -> HttpResponse {
    let status = StatusCode::try_from(status).expect("a status");
    HttpResponse::new(status, SdkBody::from(body.to_string()))
}

fn answer(status: u16, body: &Value) -> HttpConnectorFuture {
    HttpConnectorFuture::ready(Ok(response(status, body)))
}
