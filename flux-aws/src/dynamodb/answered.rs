//! A client that is answered at once, without a network.

use std::fmt;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{BehaviorVersion, Config, Credentials, Region};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};

use crate::aws;

/// The status and the body of each answer in turn.
type Answers = dyn Fn() -> (u16, String) + Send + Sync;

struct Answer(Box<Answers>);

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Answer").finish()
    }
}

impl HttpConnector for Answer {
    fn call(&self, _: HttpRequest) -> HttpConnectorFuture {
        let (status, body) = (self.0)();
        let status = status.try_into().expect("a status");
        HttpConnectorFuture::ready(Ok(HttpResponse::new(status, body.into())))
    }
}

/// A client to which every call is answered so.
pub(super) fn client(answer: impl Into<String>) -> Client {
    let answer = answer.into();
    client_by(move || (200, answer.clone()))
}

/// A client to which each call is answered by `answers`, and tried once.
pub(super) fn client_by(answers: impl Fn() -> (u16, String) + Send + Sync + 'static) -> Client {
    let answer = SharedHttpConnector::new(Answer(Box::new(answers)));
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .credentials_provider(Credentials::new("key", "secret", None, None, "a test"))
        .region(Region::new("nowhere"))
        .retry_config(aws::no_retries())
        .http_client(http_client_fn(move |_, _| answer.clone()));
    Client::from_conf(config.build())
}
