//! `/v1/backup`: a copy of the running store, streamed as it is read.

use std::io::{self, Write};
use std::sync::Arc;

use bytes::Bytes;
use flux_core::backends::embedded::Embedded;
use http::HeaderValue;
use http::header::CONTENT_DISPOSITION;
use http_body_util::Either;
use http_body_util::channel::{Channel, Sender};
use tokio::runtime::Handle;
use tracing::{info, warn};

use crate::api::call::Call;
use crate::http::problem::Problem;
use crate::http::response::{self, Answer, Failure, PIECE, Stream};

/// Pieces that wait to be sent.
const PIECES_MAX: usize = 4;

/// `GET /v1/backup`.
pub(crate) async fn get<B>(call: Call<B>) -> Result<Answer, Problem> {
    call.app.auth.operator(&call.parts.headers)?;
    let Some(embedded) = call.app.embedded.clone() else {
        let detail = "the backend's own service copies it: see DynamoDB's point-in-time recovery";
        return Err(Problem::not_found(detail));
    };
    let permit = call.app.backup()?;
    let (sender, body) = Channel::new(PIECES_MAX);
    // A transfer that broke off is no whole copy, and is refused when it is restored.
    tokio::task::spawn_blocking(move || write(&embedded, sender));
    let body = Either::Right(Stream::new(body, permit));
    let mut answer = response::of_type("application/octet-stream", body);
    let name = HeaderValue::from_static("attachment; filename=\"flux.backup\"");
    answer.headers_mut().insert(CONTENT_DISPOSITION, name);
    Ok(answer)
}

fn write(embedded: &Arc<Embedded>, sender: Sender<Bytes, Failure>) {
    let mut out = Pieces { sender, piece: Vec::with_capacity(PIECE) };
    match embedded.backup(&mut out) {
        Ok(counts) => info!("a backup was read: {counts}"),
        Err(error) => {
            warn!(error = &error as &dyn std::error::Error, "a backup broke off");
            out.sender.abort(error.into());
        }
    }
}

/// Hands on what is written, piece by piece, as fast as it is taken.
struct Pieces {
    sender: Sender<Bytes, Failure>,
    piece: Vec<u8>,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = PIECE - self.piece.len();
        let taken = bytes.len().min(room);
        self.piece.extend_from_slice(&bytes[..taken]);
        if self.piece.len() == PIECE {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        let sending = self.sender.send_data(piece.into());
        Handle::current().block_on(sending).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}
