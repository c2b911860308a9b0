//! Sales over `flux-server` processes, on Redis and on stand-ins for SQS and
//! DynamoDB, while something goes wrong: whatever it is, exactly the stock is
//! sold, nobody is told two things, and the audit is clean.
//!
//! ```sh
//! tests/services cargo test --features aws --test aws
//! ```

mod engines;
mod killed;
mod messages;
mod poison;
mod proxy;
mod redis;
mod sale;
mod stopped;
mod store;
mod trap;
