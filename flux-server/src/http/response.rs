//! Answers, and their bodies: bytes, JSON, or a stream.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Either, Full};
use hyper::body::{Frame, SizeHint};
use serde::Serialize;

/// Bytes of a long body that are handed over at once.
pub(crate) const PIECE: usize = 64 * 1024;

/// A body that is there, or one that comes by and by.
pub(crate) type Body = Either<Full<Bytes>, Stream>;

/// The reason that a stream broke off.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A response.
pub(crate) type Answer = Response<Body>;

/// A body from bytes.
pub(crate) fn body(bytes: impl Into<Bytes>) -> Body {
    Either::Left(Full::new(bytes.into()))
}

/// An answer of bytes of a type.
pub(crate) fn bytes(content_type: &'static str, content: impl Into<Bytes>) -> Answer {
    of_type(content_type, body(content))
}

/// An answer with a body of a type.
pub(crate) fn of_type(content_type: &'static str, body: Body) -> Answer {
    let mut answer = Response::new(body);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

/// An answer of long JSON, handed over as it is taken; `permit` is kept until it all is.
pub(crate) fn long_json(value: &impl Serialize, permit: impl Send + 'static) -> Answer {
    let content = serde_json::to_vec(value).expect("answers are made of strings and numbers");
    of_type("application/json", Either::Right(Stream::new(Pieces(content.into()), permit)))
}

/// A body that is there, handed over piece by piece: of one that is handed over
/// whole nobody knows when it is gone.
struct Pieces(Bytes);

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let length = self.0.len().min(PIECE);
        Poll::Ready((length > 0).then(|| Ok(Frame::data(self.0.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.len() as u64)
    }
}

/// An answer of JSON.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    // An order fits without growing.
    let mut content = Vec::with_capacity(512);
    serde_json::to_writer(&mut content, value).expect("answers are made of strings and numbers");
    let mut answer = bytes("application/json", content);
    *answer.status_mut() = status;
    answer
}

/// An answer that says nothing but that it is done.
pub(crate) fn no_content() -> Answer {
    let mut answer = Response::new(body(Bytes::new()));
    *answer.status_mut() = StatusCode::NO_CONTENT;
    answer
}

/// A body that comes by and by, and its permit to stream.
pub(crate) struct Stream {
    parts: UnsyncBoxBody<Bytes, Failure>,
    _permit: Box<dyn Send>,
    kept: Option<Box<dyn Send>>,
}

impl Stream {
    /// Streams `parts`.
    pub(crate) fn new<B>(parts: B, permit: impl Send + 'static) -> Self
    where
        B: hyper::body::Body<Data = Bytes, Error: Into<Failure>> + Send + 'static,
    {
        let parts = parts.map_err(Into::into).boxed_unsync();
        Self { parts, _permit: Box::new(permit), kept: None }
    }

    /// Keeps `guard` as long as this body goes on.
    pub(crate) fn keep(&mut self, guard: impl Send + 'static) {
        self.kept = Some(Box::new(guard));
    }
}

impl hyper::body::Body for Stream {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        Pin::new(&mut self.parts).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.parts.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.parts.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn a_long_answer_keeps_its_permit_until_the_last_piece_is_taken() {
        let permits = Arc::new(Semaphore::new(1));
        let permit = Arc::clone(&permits).try_acquire_owned().expect("a permit");
        let long = "x".repeat(3 * PIECE);
        let mut body = long_json(&long, permit).into_body();
        let whole = hyper::body::Body::size_hint(&body).exact().expect("a length") as usize;
        let mut taken = 0;
        while taken < whole {
            assert_eq!(permits.available_permits(), 0);
            let frame = body.frame().await.expect("more").expect("no error");
            let piece = frame.into_data().expect("data").len();
            assert!((1..=PIECE).contains(&piece));
            taken += piece;
        }
        assert!(hyper::body::Body::is_end_stream(&body));
        assert!(body.frame().await.is_none(), "and it ends");
        drop(body);
        assert_eq!(permits.available_permits(), 1);
    }
}
