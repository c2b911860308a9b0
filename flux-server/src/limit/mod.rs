//! The shares of buyers and of peers: how often each may ask, and how much of what
//! is finite each may have at once.
//!
//! | part | file |
//! |---|---|
//! | requests a second | `rates` |
//! | who counts as one peer, behind proxies too | `peers` |
//! | places, of which there are so many, and a peer's share of them | `places` |

mod peers;
mod places;
mod rates;

pub(crate) use peers::{Peer, Peers};
pub(crate) use places::{Place, Places, Share, Use};
pub(crate) use rates::Limits;
