//! `/v1/archives`: sales that are over leave the store for files.

use bytes::Bytes;
use flux_core::archive::Archived;
use flux_core::{Error, Flux};
use http::StatusCode;
use hyper::body::Body;
use serde::Serialize;
use tracing::warn;

use crate::api::call::Call;
use crate::api::orders::refuse_while_draining;
use crate::http::problem::Problem;
use crate::http::requests::{ArchiveBody, read};
use crate::http::response::{self, Answer, Failure};

#[derive(Serialize)]
struct Made<'a> {
    #[serde(flatten)]
    archived: &'a Archived,
    directory: String,
}

/// `POST /v1/archives`.
pub(crate) async fn make<B>(call: Call<B>) -> Result<Answer, Problem>
where
    B: Body<Data = Bytes, Error: Into<Failure>>,
{
    call.app.auth.operator(&call.parts.headers)?;
    let (app, _, body) = call.body().await?;
    let ArchiveBody { items } = read(&body)?;
    // It would hold up the stop, or be cut short by it.
    refuse_while_draining(&app)?;
    let permit = app.archive()?;
    let (flux, dir, listed) = (app.flux.clone(), app.archive_dir.clone(), app.listed.clone());
    // Half-way, no item could be sold or read: so it is made to its end, whoever hangs up.
    let archived = app.finish(async move {
        let _permit = permit;
        let archived = flux.archive(&items, &dir).await;
        listed.iter().for_each(|listed| listed.changed());
        archived.map(|archived| (dir.join(archived.archive.to_string()), archived))
    });
    match archived.await {
        Ok((dir, archived)) => {
            let directory = dir.display().to_string();
            Ok(response::json(StatusCode::OK, &Made { archived: &archived, directory }))
        }
        Err(Error::Archive(why)) => {
            warn!(error = &*why as &dyn std::error::Error, "an archive was not made");
            let detail = "the files could not be written or read, and nothing is lost: the server\'s log says why; then send it again";
            Err(Problem::internal(detail))
        }
        Err(error) => Err(error.into()),
    }
}

/// Adds to the problem of what is not there where else it may be.
pub(crate) async fn or_archived(flux: &Flux, error: Error) -> Problem {
    let told = error.to_string();
    if !matches!(error, Error::NotFound(_) | Error::UnknownItem(_)) {
        return error.into();
    }
    match flux.buried().await {
        Ok((count @ 1.., Some(last))) => Problem::not_found(format!(
            "{told}; it may be in an archive: {count} items are, the last of {}",
            last.archived_at
        )),
        _ => error.into(),
    }
}
