//! Authorization: judged before the body is read and before anything is
//! looked up.

use std::net::IpAddr;

use flux_core::{BuyerId, Order};
use hmac::{Hmac, KeyInit, Mac};
use http::header::{AUTHORIZATION, FORWARDED, HOST, ORIGIN, VIA};
use http::uri::Authority;
use http::{HeaderMap, HeaderName};
use jsonwebtoken::crypto::{CryptoProvider, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::http::problem::Problem;
use crate::http::requests::buyer_of;

/// The secrets that callers must know.
pub(crate) struct Auth {
    operator: Option<[u8; 32]>,
    buyers: Option<(DecodingKey, Validation)>,
}

/// A caller, as its token names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Caller {
    /// The holder of the operator's token.
    Operator,
    /// The buyer a token was made out to.
    Buyer(BuyerId),
    /// Anybody: buyers need no token here.
    Anyone,
}

#[derive(Deserialize)]
struct Claims {
    sub: BuyerId,
}

impl Auth {
    /// Checks callers by these secrets; without one, see
    /// [`operator`](Self::operator) and [`buyer`](Self::buyer).
    #[must_use]
    pub(crate) fn new(operator_token: Option<&str>, buyer_jwt_secret: Option<&str>) -> Self {
        // Somebody else may have installed it before: one is as good as the other.
        let _ = HMAC_SHA_256.install_default();
        let buyers = buyer_jwt_secret.map(|secret| {
            let mut rules = Validation::new(Algorithm::HS256);
            rules.leeway = 0;
            rules.validate_nbf = true;
            rules.validate_aud = false;
            rules.set_required_spec_claims(&["exp", "sub"]);
            (DecodingKey::from_secret(secret.as_bytes()), rules)
        });
        Self { operator: operator_token.map(fingerprint), buyers }
    }

    /// Lets the operator pass. Without a configured token, that is whoever
    /// calls from this machine, by one of its own names, and is no proxy and no
    /// other site's page in a browser.
    pub(crate) fn operator(&self, headers: &HeaderMap, peer: IpAddr) -> Result<(), Problem> {
        if self.operator.is_none() {
            return match peer.to_canonical().is_loopback() && is_local(headers) {
                true => Ok(()),
                false => Err(Problem::forbidden(
                    "no operator token is configured, so this call is for callers on the server's own machine, by a name without dots or a loopback address, and without a proxy",
                )),
            };
        }
        match bearer(headers) {
            None => {
                Err(Problem::unauthorized("send the operator's token: Authorization: Bearer …"))
            }
            Some(token) if self.is_operators(token) => Ok(()),
            Some(_) => Err(Problem::forbidden("this is not the operator's token")),
        }
    }

    /// Lets a buyer pass, with a token if buyers need one.
    pub(crate) fn buyer(&self, headers: &HeaderMap) -> Result<Caller, Problem> {
        let Some((key, rules)) = &self.buyers else { return Ok(Caller::Anyone) };
        let token = bearer(headers).ok_or_else(|| {
            Problem::unauthorized("send a buyer's token: Authorization: Bearer …")
        })?;
        match jsonwebtoken::decode::<Claims>(token, key, rules) {
            // A claim that the token declares critical and nobody here understands is
            // not to be passed over (RFC 7515, 4.1.11).
            Ok(read) if read.header.crit.is_none() => Ok(Caller::Buyer(read.claims.sub)),
            Err(wrong) if matches!(wrong.kind(), ErrorKind::ExpiredSignature) => {
                Err(Problem::unauthorized("the token has ended; get a fresh one"))
            }
            _ => Err(Problem::unauthorized("the token is not valid here")),
        }
    }

    /// Lets a buyer pass, or the operator.
    pub(crate) fn buyer_or_operator(&self, headers: &HeaderMap) -> Result<Caller, Problem> {
        match bearer(headers) {
            Some(token) if self.is_operators(token) => Ok(Caller::Operator),
            _ => self.buyer(headers),
        }
    }

    /// Lets the operator pass, or a buyer where buyers have tokens.
    pub(crate) fn operator_or_buyer(
        &self,
        headers: &HeaderMap,
        peer: IpAddr,
    ) -> Result<Caller, Problem> {
        match bearer(headers) {
            Some(token) if self.buyers.is_some() && !self.is_operators(token) => {
                self.buyer(headers)
            }
            _ => self.operator(headers, peer).map(|()| Caller::Operator),
        }
    }

    /// Whether buyers need tokens.
    #[must_use]
    pub(crate) fn knows_buyers(&self) -> bool {
        self.buyers.is_some()
    }

    fn is_operators(&self, token: &str) -> bool {
        self.operator.is_some_and(|known| known.ct_eq(&fingerprint(token)).into())
    }
}

impl Caller {
    /// Whether this caller may act as `buyer`.
    pub(crate) fn acts_for(&self, buyer: &BuyerId) -> Result<(), Problem> {
        match self {
            Self::Buyer(own) if own != buyer => {
                Err(Problem::forbidden("the token is made out to another buyer"))
            }
            _ => Ok(()),
        }
    }

    /// Chooses the answer to a body in which something is `wrong`: that it is
    /// another buyer's comes first.
    pub(crate) fn judge(&self, body: &[u8], wrong: Problem) -> Problem {
        let forbidden = buyer_of(body).and_then(|buyer| self.acts_for(&buyer).err());
        forbidden.unwrap_or(wrong)
    }

    /// Whether this caller may see `order`.
    #[must_use]
    pub(crate) fn may_see(&self, order: &Order) -> bool {
        match self {
            Self::Buyer(own) => *own == order.buyer,
            Self::Operator | Self::Anyone => true,
        }
    }
}

/// Whether a request from this machine was meant for it. A page may have its
/// own name resolve to a loopback address, and a proxy passes on what comes from
/// elsewhere.
fn is_local(headers: &HeaderMap) -> bool {
    let passed_on = |name: &HeaderName| {
        *name == FORWARDED || *name == VIA || name.as_str().starts_with("x-forwarded-")
    };
    let Some(host) = only(headers, HOST) else { return false };
    let own_page = match headers.contains_key(ORIGIN) {
        true => only(headers, ORIGIN)
            .and_then(|origin| origin.strip_prefix("http://"))
            .is_some_and(|origin| origin.eq_ignore_ascii_case(host)),
        false => true,
    };
    own_page && is_a_local_name(host) && !headers.keys().any(passed_on)
}

fn is_a_local_name(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host();
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    // No page of another site has a name without a dot.
    let plain = !name.is_empty() && !name.contains(['.', ':']);
    plain || address.is_ok_and(|address| address.to_canonical().is_loopback())
}

/// The value of a header that stands there once.
fn only(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// A hash of the token: of one length, so that comparing takes one time.
fn fingerprint(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// HS256 and no more: the providers that come with the crate bring every
/// algorithm there is.
static HMAC_SHA_256: CryptoProvider = CryptoProvider {
    signer_factory: |_, _| Err(ErrorKind::InvalidAlgorithm.into()),
    verifier_factory: |algorithm, key| match algorithm {
        Algorithm::HS256 => {
            let secret = key.try_get_as_bytes()?;
            let keyed =
                Hmac::<Sha256>::new_from_slice(secret).map_err(|_| ErrorKind::InvalidKeyFormat)?;
            Ok(Box::new(Verifier(keyed)))
        }
        _ => Err(ErrorKind::InvalidAlgorithm.into()),
    },
    key_utils: KeyUtils::new_unimplemented(),
};

struct Verifier(Hmac<Sha256>);

impl signature::Verifier<Vec<u8>> for Verifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        let mac = self.0.clone().chain_update(message);
        mac.verify_slice(signature).map_err(|_| signature::Error::new())
    }
}

impl JwtVerifier for Verifier {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS256
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn may(peer: &str, headers: &[(&str, &str)]) -> bool {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
            map.append(name, value.parse().expect("a value"));
        }
        let ruled = Auth::new(None, None).operator(&map, peer.parse().expect("an address"));
        ruled.map_err(|refused| assert_eq!(refused.status(), http::StatusCode::FORBIDDEN)).is_ok()
    }

    #[test]
    fn without_a_token_only_this_machine_is_the_operator() {
        let host = [("host", "localhost:5000")];
        for here in ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"] {
            assert!(may(here, &host), "{here}");
        }
        for elsewhere in ["192.0.2.1", "10.0.0.1", "0.0.0.0", "::", "fe80::1", "::ffff:192.0.2.1"] {
            assert!(!may(elsewhere, &host), "{elsewhere}");
        }
    }

    #[test]
    fn without_a_token_neither_a_proxy_nor_a_page_is_the_operator() {
        for host in
            ["localhost", "LOCALHOST:80", "box", "127.0.0.1:5000", "127.1.2.3", "[::1]:5000"]
        {
            assert!(may("127.0.0.1", &[("host", host)]), "{host}");
            let own = [("host", host), ("origin", &format!("http://{host}"))];
            assert!(may("::1", &own), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example", "192.0.2.1", "", "[::2]", "a@b.c"] {
            assert!(!may("127.0.0.1", &[("host", host)]), "{host}");
        }
        assert!(!may("127.0.0.1", &[]));
        assert!(!may("127.0.0.1", &[("host", "localhost"), ("host", "localhost")]));
        for more in [
            ("forwarded", "for=192.0.2.1"),
            ("x-forwarded-for", "127.0.0.1"),
            ("x-forwarded-host", "localhost"),
            ("via", "1.1 proxy"),
            ("origin", "null"),
            ("origin", "https://evil.example"),
            ("origin", "http://localhost:3000"),
        ] {
            assert!(!may("127.0.0.1", &[("host", "localhost:5000"), more]), "{more:?}");
        }
    }
}
