//! A request through a real client, and its answer.

use std::fmt::Display;

use http::{HeaderMap, Method, Request};
use serde_json::Value;

use super::document;
use super::server::Server;

/// A request in the making.
pub(crate) struct Call<'s> {
    server: &'s Server,
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
}

impl Server {
    pub(crate) fn call(&self, method: &str, path: impl Display) -> Call<'_> {
        let (method, path) = (method.to_owned(), path.to_string());
        Call { server: self, method, path, headers: Vec::new(), body: None }
    }

    pub(crate) fn get(&self, path: impl Display) -> Answer {
        self.call("GET", path).send()
    }

    pub(crate) fn post(&self, path: impl Display, body: &Value) -> Answer {
        self.call("POST", path).json(body).send()
    }

    pub(crate) fn put(&self, path: impl Display, body: &Value) -> Answer {
        self.call("PUT", path).json(body).send()
    }

    /// Posts without a body, as the calls that need none are made.
    pub(crate) fn act(&self, path: impl Display) -> Answer {
        self.call("POST", path).send()
    }

    /// Posts an order and waits for the decision.
    pub(crate) fn order(&self, body: &Value) -> Answer {
        self.call("POST", "/v1/orders").header("prefer", "wait=10").json(body).send()
    }

    /// Posts an order that gets its stock and returns its id.
    #[track_caller]
    pub(crate) fn held(&self, body: &Value) -> String {
        let answer = self.order(body).is(201);
        assert_eq!(answer.json()["status"], "held", "{}", answer.text());
        answer.field("order_id")
    }

    #[track_caller]
    pub(crate) fn item(&self, id: &str) -> Value {
        self.get(format_args!("/v1/items/{id}")).is(200).json()
    }

    #[track_caller]
    pub(crate) fn read_order(&self, id: &str) -> Value {
        self.get(format_args!("/v1/orders/{id}")).is(200).json()
    }
}

impl Call<'_> {
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn bearer(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    pub(crate) fn json(self, body: &Value) -> Self {
        self.header("content-type", "application/json").body(body.to_string())
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// Sends it and checks the answer by the document.
    #[track_caller]
    pub(crate) fn send(self) -> Answer {
        let Self { server, method, path, mut headers, body } = self;
        let says_who = headers.iter().any(|(name, _)| name == "authorization");
        if let Some(token) = server.operator
            && !says_who
            && document::is_operators(&method, &path)
        {
            headers.push(("authorization".to_owned(), format!("Bearer {token}")));
        }
        let http_method = Method::from_bytes(method.as_bytes()).expect("a method");
        let mut request = Request::builder().method(http_method).uri(server.url(&path));
        for (name, value) in &headers {
            request = request.header(name, value);
        }
        let response = match body {
            Some(body) => server.agent.run(request.body(body).expect("a request")),
            None => server.agent.run(request.body(()).expect("a request")),
        };
        let response = response.unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        let (head, mut body) = response.into_parts();
        let body = body.with_config().limit(64 << 20).read_to_vec().expect("a whole body");
        let call = format!("{method} {path}");
        let answer = Answer { call, status: head.status.as_u16(), headers: head.headers, body };
        document::check(&method, &path, &answer);
        answer
    }
}

/// A whole answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    /// The call it answers, for messages.
    pub(crate) call: String,
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    #[track_caller]
    pub(crate) fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}: {}", self.call, self.text());
        self
    }

    /// A problem of this status and type.
    #[track_caller]
    pub(crate) fn problem(self, status: u16, kind: &str) -> Self {
        let answer = self.is(status);
        assert_eq!(answer.header("content-type"), "application/problem+json", "{}", answer.call);
        let problem = answer.json();
        let (call, text) = (&answer.call, answer.text());
        assert_eq!(problem["type"], format!("/problems/{kind}"), "{call}: {text}");
        assert_eq!(problem["status"], status, "{call}: {text}");
        answer
    }

    /// A 400 whose detail names the field.
    #[track_caller]
    pub(crate) fn names(self, field: &str) -> Self {
        let answer = self.problem(400, "invalid-request");
        let detail = answer.field("detail");
        assert!(detail.contains(field), "{}: {detail:?} does not name {field}", answer.call);
        answer
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{}: {error} in {:?}", self.call, self.text()))
    }

    /// A member that is a string.
    #[track_caller]
    pub(crate) fn field(&self, name: &str) -> String {
        let json = self.json();
        let value = json[name].as_str();
        value.unwrap_or_else(|| panic!("{}: no {name} in {json}", self.call)).to_owned()
    }

    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> &str {
        self.maybe_header(name)
            .unwrap_or_else(|| panic!("{}: no {name} in {:?}", self.call, self.headers))
    }

    pub(crate) fn maybe_header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("visible ASCII"))
    }
}
