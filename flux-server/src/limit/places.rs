//! Places: what there is a bounded number of, and what part of it one peer may have.
//! Each is a count or two, so that a request takes one without a lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use metrics::Counter;

use crate::limit::Peer;

/// What a place is for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Use {
    /// A connection.
    Connection,
    /// A connection beyond those, which is told so.
    TurnedAway,
    /// A connection to the address of health and metrics.
    Operations,
    /// A request whose body has not come yet.
    Body,
    /// A batch of orders, with its body.
    Batch,
    /// A request that is answered.
    Request,
    /// A stream.
    Stream,
    /// The seats of a whole hall, until they are read.
    Hall,
    /// The list of all owners, until it is read.
    Inventory,
    /// A copy of the store, until it is read.
    Backup,
    /// A recount of the store.
    Audit,
    /// An archive, until it is made.
    Archive,
}

impl Use {
    pub(super) const COUNT: usize = Self::Archive as usize + 1;

    /// Its name in the figures.
    const fn name(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::TurnedAway => "turned_away",
            Self::Operations => "operations",
            Self::Body => "body",
            Self::Batch => "batch",
            Self::Request => "request",
            Self::Stream => "stream",
            Self::Hall => "seats",
            Self::Inventory => "inventory",
            Self::Backup => "backup",
            Self::Audit => "audit",
            Self::Archive => "archive",
        }
    }
}

/// The part of the places that one peer may have.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Share {
    /// So many, but for a trusted proxy, which speaks for many.
    AtMost(usize),
    /// No more than it leaves free: half of them where it is alone, less where others
    /// have some, and always some for who comes next (Choudhury and Hahne, "Dynamic
    /// queue length thresholds for shared-memory packet switches", 1998).
    AsManyAsAreFree,
    /// The same, and at most so many, but for a trusted proxy.
    AsManyAsAreFreeUpTo(usize),
}

/// A bounded number of places.
#[derive(Debug)]
pub(crate) struct Places {
    for_what: Use,
    max: usize,
    share: Share,
    taken: AtomicUsize,
    refused: Counter,
}

/// One of the places, given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    peer: Peer,
}

impl Places {
    /// So many places, all of them free.
    #[must_use]
    pub(crate) fn new(for_what: Use, max: usize, share: Share) -> Self {
        let refused = metrics::counter!("flux_http_no_place_total", "what" => for_what.name());
        // A series begins before its first event.
        refused.increment(0);
        Self { for_what, max, share, taken: AtomicUsize::new(0), refused }
    }

    /// Places that are taken.
    #[must_use]
    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Ordering::Acquire)
    }

    /// Counts one more place as taken by `peer`; what counts is [left](Self::leave)
    /// even where the answer is that there was none for it.
    #[must_use]
    pub(crate) fn enter(&self, peer: &Peer) -> bool {
        let all = self.taken.fetch_add(1, Ordering::Relaxed);
        let own = peer.count(self.for_what).fetch_add(1, Ordering::Relaxed);
        let at_most = |most| own < most || peer.is_proxy();
        let as_many_as_are_free = own < self.max.saturating_sub(all);
        let its_share = match self.share {
            Share::AtMost(most) => at_most(most),
            Share::AsManyAsAreFree => as_many_as_are_free,
            Share::AsManyAsAreFreeUpTo(most) => as_many_as_are_free && at_most(most),
        };
        let entered = all < self.max && its_share;
        if !entered {
            self.refused.increment(1);
        }
        entered
    }

    /// Counts a place of `peer`'s as free again, and says how many are taken now.
    pub(crate) fn leave(&self, peer: &Peer) -> usize {
        peer.count(self.for_what).fetch_sub(1, Ordering::Relaxed);
        self.taken.fetch_sub(1, Ordering::AcqRel) - 1
    }

    /// A place for `peer`, if there is one and it is within its share.
    #[must_use]
    pub(crate) fn take(self: &Arc<Self>, peer: &Peer) -> Option<Place> {
        let entered = self.enter(peer);
        let place = Place { places: Arc::clone(self), peer: peer.clone() };
        entered.then_some(place)
    }
}

impl Place {
    /// Whose it is.
    #[must_use]
    pub(crate) fn peer(&self) -> &Peer {
        &self.peer
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.leave(&self.peer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::Peers;

    fn as_many_as_there_are(places: &Arc<Places>, peer: &Peer) -> Vec<Place> {
        std::iter::from_fn(|| places.take(peer)).collect()
    }

    fn peers<const N: usize>() -> [Peer; N] {
        let peers = Arc::new(Peers::new(Vec::new()));
        std::array::from_fn(|n| peers.of(std::net::IpAddr::from([192, 0, 2, n as u8])))
    }

    #[test]
    fn one_peer_leaves_others_as_many_places_as_it_has() {
        let places = Arc::new(Places::new(Use::Stream, 64, Share::AsManyAsAreFree));
        let taken = peers::<4>().map(|peer| as_many_as_there_are(&places, &peer));
        assert_eq!(taken.each_ref().map(Vec::len), [32, 16, 8, 4]);
        drop(taken);
        assert_eq!(places.taken(), 0);
    }

    #[test]
    fn the_last_place_is_for_who_has_none() {
        for (max, first) in [(1, 1), (2, 1), (3, 2), (4, 2)] {
            let places = Arc::new(Places::new(Use::Hall, max, Share::AsManyAsAreFree));
            let [hog, other] = peers();
            let hogs = as_many_as_there_are(&places, &hog);
            assert_eq!(hogs.len(), first, "of {max}");
            assert_eq!(places.take(&other).is_some(), max > 1, "of {max}");
        }
    }

    #[test]
    fn a_share_in_numbers_is_kept_and_ends_where_all_is_taken() {
        let places = Arc::new(Places::new(Use::Connection, 5, Share::AtMost(2)));
        let taken = peers::<4>().map(|peer| as_many_as_there_are(&places, &peer));
        assert_eq!(taken.each_ref().map(Vec::len), [2, 2, 1, 0]);
    }

    #[test]
    fn a_share_of_both_kinds_is_the_smaller_one() {
        let places = Arc::new(Places::new(Use::Stream, 20, Share::AsManyAsAreFreeUpTo(8)));
        let taken = peers::<4>().map(|peer| as_many_as_there_are(&places, &peer));
        assert_eq!(taken.each_ref().map(Vec::len), [8, 6, 3, 2]);
    }

    #[test]
    fn a_trusted_proxy_has_all_connections_and_a_share_of_the_rest() {
        let peers = Arc::new(Peers::new(vec!["10.0.0.0/8".parse().expect("a network")]));
        let proxy = peers.of([10, 1, 2, 3].into());
        let connections = Arc::new(Places::new(Use::Connection, 8, Share::AtMost(2)));
        assert_eq!(as_many_as_there_are(&connections, &proxy).len(), 8);
        let streams = Arc::new(Places::new(Use::Stream, 8, Share::AsManyAsAreFree));
        assert_eq!(as_many_as_there_are(&streams, &proxy).len(), 4);
    }
}
