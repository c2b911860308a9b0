//! The common part of the examples and the whole-story tests: a sale that can be told
//! by its numbers, a crowd that storms it, a memory of what every buyer was
//! told, a seller that is killed while it sells, and a client over HTTP. With the
//! feature `aws` also a fleet of `flux-server` processes and a crowd that comes
//! over HTTP.

mod crowd;
#[cfg(feature = "aws")]
pub mod fleet;
mod http;
pub mod region;
mod sale;
mod seller;
mod tally;
mod witness;

pub use crowd::{Heard, storm};
pub use http::{Client, Reply};
pub use sale::{Sale, Stock};
pub use seller::{Death, Job, Moment};
pub use tally::{Outcome, Tally};
pub use witness::Witness;
