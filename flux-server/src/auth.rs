//! Authorization: judged before the body is read and before anything is
//! looked up.

use flux_core::{BuyerId, Order};
use hmac::{Hmac, KeyInit, Mac};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use jsonwebtoken::crypto::{CryptoProvider, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::http::head::only;
use crate::http::problem::Problem;
use crate::http::requests::buyer_of;

/// The tokens that buyers must bring.
pub(crate) struct BuyerTokens<'c> {
    /// The key they are signed with.
    pub(crate) secret: &'c str,
    /// The audience they must be made out for; any, if `None`.
    pub(crate) audience: Option<&'c str>,
    /// Who must have made them; anybody who knows the key, if `None`.
    pub(crate) issuer: Option<&'c str>,
}

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
    /// Checks callers by these secrets. Without the first nobody is the
    /// operator; without the second buyers need no token.
    #[must_use]
    pub(crate) fn new(operator_token: Option<&str>, buyers: Option<BuyerTokens<'_>>) -> Self {
        // Somebody else may have installed it before: one is as good as the other.
        let _ = HMAC_SHA_256.install_default();
        let buyers = buyers.map(|BuyerTokens { secret, audience, issuer }| {
            let mut rules = Validation::new(Algorithm::HS256);
            rules.leeway = 0;
            rules.validate_nbf = true;
            rules.validate_aud = audience.is_some();
            let mut required = vec!["exp", "sub"];
            if let Some(audience) = audience {
                rules.set_audience(&[audience]);
                required.push("aud");
            }
            if let Some(issuer) = issuer {
                rules.set_issuer(&[issuer]);
                required.push("iss");
            }
            rules.set_required_spec_claims(&required);
            (DecodingKey::from_secret(secret.as_bytes()), rules)
        });
        Self { operator: operator_token.map(fingerprint), buyers }
    }

    /// Lets the operator pass.
    pub(crate) fn operator(&self, headers: &HeaderMap) -> Result<(), Problem> {
        if self.operator.is_none() {
            return Err(Problem::unauthorized(
                "this server was started without FLUX_OPERATOR_TOKEN, so no operator call is answered",
            ));
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
    pub(crate) fn operator_or_buyer(&self, headers: &HeaderMap) -> Result<Caller, Problem> {
        match bearer(headers) {
            Some(token) if self.is_operators(token) => Ok(Caller::Operator),
            _ if self.buyers.is_some() => self.buyer(headers),
            _ => self.operator(headers).map(|()| Caller::Operator),
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

/// The token, where there is one: of two nobody can say whose request it is.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = only(headers, &AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
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
    use http::StatusCode;
    use http::header::{FORWARDED, HOST, HeaderName, HeaderValue, ORIGIN};

    use super::*;

    #[test]
    fn without_a_token_no_call_is_the_operators_wherever_it_seems_to_come_from() {
        let name = HeaderName::from_static;
        let value = HeaderValue::from_static;
        for headers in [
            vec![],
            vec![(HOST, value("localhost:5000"))],
            vec![(HOST, value("[::1]:5000")), (ORIGIN, value("http://[::1]:5000"))],
            vec![(HOST, value("flux_backend"))],
            vec![(FORWARDED, value("for=127.0.0.1")), (name("x-forwarded-for"), value("::1"))],
            vec![(AUTHORIZATION, value("Bearer operator"))],
            vec![(AUTHORIZATION, value("Bearer e30.e30."))],
        ] {
            let headers: HeaderMap = headers.into_iter().collect();
            let auth = Auth::new(None, None);
            let refused = auth.operator(&headers).expect_err("no operator");
            assert_eq!(refused.status(), StatusCode::UNAUTHORIZED, "{headers:?}");
            assert!(auth.operator_or_buyer(&headers).is_err(), "{headers:?}");
            let caller = auth.buyer_or_operator(&headers).expect("buyers need no token");
            assert_eq!(caller, Caller::Anyone, "{headers:?}");
        }
    }
}
