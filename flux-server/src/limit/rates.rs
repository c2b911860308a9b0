//! Rate limits of buyers and of peers.

use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;

use flux_core::BuyerId;
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use crate::http::problem::Problem;
use crate::limit::Peer;

/// Requests a second, each for themselves.
pub(crate) struct Limits {
    buyers: Option<DefaultKeyedRateLimiter<BuyerId>>,
    peers: Option<DefaultKeyedRateLimiter<IpAddr>>,
}

impl Limits {
    /// Limits by second; `None` is no limit.
    #[must_use]
    pub(crate) fn new(per_buyer: Option<NonZeroU32>, per_peer: Option<NonZeroU32>) -> Self {
        let limiter = |rate| Quota::per_second(rate);
        Self {
            buyers: per_buyer.map(|rate| RateLimiter::keyed(limiter(rate))),
            peers: per_peer.map(|rate| RateLimiter::keyed(limiter(rate))),
        }
    }

    /// Counts a request of `buyer`.
    pub(crate) fn buyer(&self, buyer: &BuyerId) -> Result<(), Problem> {
        check(self.buyers.as_ref(), buyer, "this buyer sends too many requests")
    }

    /// Counts a request of `peer`'s.
    pub(crate) fn peer(&self, peer: &Peer) -> Result<(), Problem> {
        check(self.peers.as_ref(), &peer.address(), "this address sends too many requests")
    }

    /// Forgets those who have been quiet for a second: called once a second, it
    /// bounds what is remembered by what that second brings.
    pub(crate) fn forget_the_quiet(&self) {
        forget_quiet(self.buyers.as_ref());
        forget_quiet(self.peers.as_ref());
    }
}

fn forget_quiet<K: Hash + Eq + Clone>(limiter: Option<&DefaultKeyedRateLimiter<K>>) {
    if let Some(limiter) = limiter {
        limiter.retain_recent();
    }
}

fn check<K: Hash + Eq + Clone>(
    limiter: Option<&DefaultKeyedRateLimiter<K>>,
    key: &K,
    detail: &'static str,
) -> Result<(), Problem> {
    let Some(limiter) = limiter else { return Ok(()) };
    let ruling = limiter.check_key(key);
    ruling.map_err(|until| {
        Problem::too_many_requests(detail, until.wait_time_from(DefaultClock::default().now()))
    })
}
