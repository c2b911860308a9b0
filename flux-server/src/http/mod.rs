//! What is read of a request and written of an answer.

pub(crate) mod body;
pub(crate) mod cursor;
pub(crate) mod prefer;
pub(crate) mod problem;
pub(crate) mod query;
pub(crate) mod requests;
pub(crate) mod response;
pub(crate) mod rfc3339;
