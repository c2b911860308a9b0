//! Peers: the addresses that limits count. One that has nothing is forgotten, so
//! there are never more than connections and requests.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use http::HeaderMap;
use ipnet::IpNet;

use crate::http::forwarded;
use crate::limit::Use;

/// The peers there are at the moment.
pub(crate) struct Peers {
    proxies: Vec<IpNet>,
    known: Mutex<HashMap<Who, Weak<Known>>>,
}

/// A peer; it is known until the last clone is dropped.
#[derive(Debug, Clone)]
pub(crate) struct Peer(Arc<Known>);

/// Those who count as one. An IPv6 subscriber has a /64 to choose addresses from; a
/// proxy has neighbours that are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Who {
    Proxy(IpAddr),
    Subscriber(IpAddr),
}

struct Known {
    who: Who,
    /// The places it has, by their use.
    taken: [AtomicUsize; Use::COUNT],
    peers: Arc<Peers>,
}

impl Peers {
    /// Nobody yet; peers in these networks are proxies to be believed.
    #[must_use]
    pub(crate) fn new(proxies: Vec<IpNet>) -> Self {
        Self { proxies, known: Mutex::default() }
    }

    /// The peer at an address.
    #[must_use]
    pub(crate) fn of(self: &Arc<Self>, address: IpAddr) -> Peer {
        let address = address.to_canonical();
        let who = match address {
            _ if self.trusts(address) => Who::Proxy(address),
            IpAddr::V6(own) => {
                let network = Ipv6Addr::from_bits(own.to_bits() & !u128::from(u64::MAX));
                Who::Subscriber(network.into())
            }
            IpAddr::V4(_) => Who::Subscriber(address),
        };
        let mut all = self.all();
        let known = all.get(&who).and_then(Weak::upgrade).unwrap_or_else(|| {
            let new = Arc::new(Known { who, taken: Default::default(), peers: Arc::clone(self) });
            all.insert(who, Arc::downgrade(&new));
            new
        });
        drop(all);
        Peer(known)
    }

    /// The peer that a request counts for: who sent it, or, if that is a trusted
    /// proxy, whom it names.
    #[must_use]
    pub(crate) fn asking(self: &Arc<Self>, from: Peer, headers: &HeaderMap) -> Peer {
        if !from.is_proxy() {
            return from;
        }
        match forwarded::origin(headers, |address| self.trusts(address)) {
            Some(address) => self.of(address),
            None => from,
        }
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.proxies.iter().any(|network| network.contains(&address))
    }

    fn all(&self) -> MutexGuard<'_, HashMap<Who, Weak<Known>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Peer {
    /// Its address, or the first of its network.
    #[must_use]
    pub(crate) fn address(&self) -> IpAddr {
        match self.0.who {
            Who::Proxy(address) | Who::Subscriber(address) => address,
        }
    }

    /// Whether it is a proxy to be believed.
    #[must_use]
    pub(crate) fn is_proxy(&self) -> bool {
        matches!(self.0.who, Who::Proxy(_))
    }

    pub(super) fn count(&self, of: Use) -> &AtomicUsize {
        &self.0.taken[of as usize]
    }
}

impl Drop for Known {
    fn drop(&mut self) {
        let mut all = self.peers.all();
        // Somebody with that address may be here anew.
        if all.get(&self.who).is_some_and(|known| known.strong_count() == 0) {
            all.remove(&self.who);
        }
    }
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Known").field("who", &self.who).field("taken", &self.taken).finish()
    }
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peers").field("proxies", &self.proxies).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn peers(proxies: &[&str]) -> Arc<Peers> {
        let proxies = proxies.iter().map(|network| network.parse().expect("a network"));
        Arc::new(Peers::new(proxies.collect()))
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_network_of_ipv6_is_one_peer_and_a_mapped_address_is_its_own() {
        let peers = peers(&[]);
        let one = |a: &str, b: &str| peers.of(ip(a)).address() == peers.of(ip(b)).address();
        assert!(one("2001:db8::1", "2001:db8::ffff:1:2:3"));
        assert!(!one("2001:db8::1", "2001:db8:0:1::1"));
        assert!(one("::ffff:192.0.2.1", "192.0.2.1"));
        assert!(!one("192.0.2.1", "192.0.2.2"));
    }

    #[test]
    fn who_has_nothing_is_forgotten() {
        let peers = peers(&[]);
        let first = peers.of(ip("192.0.2.1"));
        let again = peers.of(ip("192.0.2.1"));
        assert!(Arc::ptr_eq(&first.0, &again.0));
        drop(first);
        assert_eq!(peers.all().len(), 1);
        drop(again);
        assert_eq!(peers.all().len(), 0);
        for n in 0..100_000_u32 {
            drop(peers.of(std::net::Ipv4Addr::from(n).into()));
        }
        assert_eq!(peers.all().len(), 0);
    }

    #[test]
    fn only_a_trusted_proxy_speaks_for_others() {
        let peers = peers(&["10.0.0.0/8", "2001:db8::5/128"]);
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", HeaderValue::from_static("192.0.2.7"));
        let asking = |from: &str| peers.asking(peers.of(ip(from)), &headers).address();
        assert_eq!(asking("10.1.1.1"), ip("192.0.2.7"));
        assert_eq!(asking("::ffff:10.1.1.1"), ip("192.0.2.7"));
        assert_eq!(asking("2001:db8::5"), ip("192.0.2.7"));
        // Its neighbours are others.
        assert_eq!(asking("2001:db8::6"), ip("2001:db8::"));
        assert_eq!(asking("11.1.1.1"), ip("11.1.1.1"));
    }
}
