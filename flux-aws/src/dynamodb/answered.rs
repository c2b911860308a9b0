//! A client that is answered at once, without a network.

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{BehaviorVersion, Config, Credentials, Region};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};

#[derive(Debug)]
struct Answer(String);

impl HttpConnector for Answer {
    fn call(&self, _: HttpRequest) -> HttpConnectorFuture {
        let status = 200.try_into().expect("a status");
        HttpConnectorFuture::ready(Ok(HttpResponse::new(status, self.0.clone().into())))
    }
}

/// A client to which every call is answered so.
pub(super) fn client(answer: impl Into<String>) -> Client {
    let answer = SharedHttpConnector::new(Answer(answer.into()));
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .credentials_provider(Credentials::new("key", "secret", None, None, "a test"))
        .region(Region::new("nowhere"))
        .http_client(http_client_fn(move |_, _| answer.clone()));
    Client::from_conf(config.build())
}
