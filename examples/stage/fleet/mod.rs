//! `flux-server` as it runs on AWS: an api and workers, each a process, and a
//! crowd that comes over HTTP.

mod bills;
mod crowd;
mod process;
mod program;
mod services;

pub use bills::Bills;
pub use crowd::{Answer, Crowd, Told};
pub use process::Process;
pub use program::flux_server;
pub use services::{Services, loopback};
