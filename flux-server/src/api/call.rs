//! The call, as a handler takes it.

use std::net::IpAddr;

use bytes::Bytes;
use http::request::Parts;
use hyper::body::Body;

use crate::app::RequestPermit;
use crate::http::body;
use crate::http::problem::Problem;
use crate::http::response::Failure;

/// One call on its way to its handler.
pub(crate) struct Call<B> {
    /// The server, and the permit to be answered.
    pub(crate) app: RequestPermit,
    /// The caller's address, as far as the network knows.
    pub(crate) peer: IpAddr,
    /// The head.
    pub(crate) parts: Parts,
    /// The body, unread.
    pub(crate) body: B,
}

impl<B> Call<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Failure>,
{
    /// Reads the JSON body.
    pub(crate) fn body(
        self,
    ) -> impl Future<Output = Result<(RequestPermit, Parts, Bytes), Problem>> {
        self.body_of_at_most(body::BODY_MAX)
    }

    /// Reads the JSON body, of at most so many bytes.
    pub(crate) async fn body_of_at_most(
        self,
        bytes_max: usize,
    ) -> Result<(RequestPermit, Parts, Bytes), Problem> {
        let Self { app, parts, body, .. } = self;
        let read = body::read(&parts.headers, body, bytes_max, app.bounds.body).await?;
        Ok((app, parts, read))
    }
}
