//! The store on DynamoDB, held to everything a store must do. It talks to an
//! emulator at `AWS_ENDPOINT_URL_DYNAMODB`; `tests/services` starts one.

mod bill;
mod conformance;
mod faults;
mod limits;
mod microburst;
mod sale;
mod stripes;
mod table;
mod wire;
