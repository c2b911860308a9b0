//! A small HTTP server and worker that show how Flux is run. What it answers is
//! in `openapi.json`; what it does, an application can do through `flux-core`.
//!
//! | part | file |
//! |---|---|
//! | flags, environment, the items to start with | `config`, `dotenv`, `catalog` |
//! | where orders live, and what an operator has done there | `backend`, `chores` |
//! | connections, from the first byte to the last | `server`, `wire`, `framing`, `refusal` |
//! | one request: its id, limits, and which call it is | `service`, `route`, `app` |
//! | who may, and how often | `auth`, `limit` |
//! | the log, figures and traces | `telemetry` |
//! | the calls | `orders`, `items`, `first`, `events`, `ops` |
//! | the live page | `page` |
//! | what is read and written | `json`, `query`, `prefer`, `cursor`, `time`, `body`, `answer`, `problem` |

pub mod api;
pub mod app;
mod auth;
pub mod conn;
mod events;
mod http;
mod limit;
pub mod setup;
pub mod telemetry;
