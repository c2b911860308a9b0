//! The call, as a handler takes it.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

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

    /// Reads the JSON body, of at most so many bytes. Who waits for it waits beside
    /// the requests that are answered, which have theirs.
    pub(crate) async fn body_of_at_most(
        self,
        bytes_max: usize,
    ) -> Result<(RequestPermit, Parts, Bytes), Problem> {
        let Self { app, parts, body } = self;
        let time_max = app.bounds.body;
        let (app, read) = {
            let mut reading = pin!(body::read(&parts.headers, body, bytes_max, time_max));
            // It nearly always comes with the head.
            match poll_fn(|context| Poll::Ready(reading.as_mut().poll(context))).await {
                Poll::Ready(read) => (app, read?),
                Poll::Pending => {
                    let waiting = app.wait_for_body()?;
                    let read = reading.await?;
                    (waiting.go_on()?, read)
                }
            }
        };
        Ok((app, parts, read))
    }
}
