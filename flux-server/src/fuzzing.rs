//! Readers for the fuzz targets of `tests/fuzz`, built with `--cfg fuzzing` alone.

use flux_core::{BuyerId, ItemId, ItemSpec, OrderRequest, PaymentRef};

use crate::conn::smuggling::Boundaries;
use crate::http::problem::Problem;
use crate::http::requests::{self, ConfirmBody, ItemBody, PlaceBody};
use crate::setup::{catalog, dotenv};

/// Lets the bytes of a connection pass, in pieces, the check for requests whose end is
/// in doubt.
pub fn pass(pieces: &mut [&mut [u8]]) {
    let mut boundaries = Boundaries::new();
    for piece in pieces {
        boundaries.pass(piece);
    }
}

/// Reads the body of `POST /v1/orders`.
pub fn place(body: &[u8]) -> Result<OrderRequest, String> {
    let body: PlaceBody = requests::read(body).map_err(|wrong| wrong.detail().to_owned())?;
    body.request().map_err(|wrong| wrong.to_string())
}

/// Reads the body of a confirmation.
pub fn confirm(body: &[u8]) -> Result<PaymentRef, String> {
    requests::read(body)
        .map(|body: ConfirmBody| body.payment_ref)
        .map_err(|wrong: Problem| wrong.detail().to_owned())
}

/// Reads the body of `PUT /v1/items/{id}`.
pub fn item(id: ItemId, body: &[u8]) -> Result<ItemSpec, String> {
    let body: ItemBody = requests::read(body).map_err(|wrong| wrong.detail().to_owned())?;
    body.spec(id).map_err(|wrong| wrong.to_string())
}

/// The buyer that a limit counts an order's body for.
pub fn buyer_of(body: &[u8]) -> Option<BuyerId> {
    requests::buyer_of(body)
}

/// Reads a catalogue.
pub fn catalogue(text: &str) -> Result<Vec<ItemSpec>, String> {
    catalog::parse(text)
}

/// Whether each of `secrets` is read from a `.env` as it is written there.
pub fn dotenv(text: &str, secrets: &[&'static str]) -> Result<(), String> {
    dotenv::check(text, secrets).map_err(|wrong| wrong.to_string())
}
