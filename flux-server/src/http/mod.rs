//! Requests as they are read, and answers as they are written.

pub(crate) mod body;
pub(crate) mod cursor;
pub(crate) mod forwarded;
pub(crate) mod head;
pub(crate) mod prefer;
pub(crate) mod problem;
pub(crate) mod query;
pub(crate) mod requests;
pub(crate) mod response;
