//! Webhooks as they are configured: where they go, and what they are signed with.

use std::fmt;
use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flux_core::{ConsumerName, InvalidInput};
use hmac::{Hmac, KeyInit, Mac};
use http::Uri;
use sha2::{Digest, Sha256};
use url::{Host, Url};

use crate::setup::public_address::is_public;

/// The prefix of a secret, by the Standard Webhooks scheme.
const PREFIX: &str = "whsec_";
/// Bytes of a key, by that scheme.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// Secrets at once: the new one, and the one that receivers may still know.
const SECRETS_MAX: usize = 2;
/// Bytes of the hash in a name.
const NAME_BYTES: usize = 8;
/// The beginning of the names that webhooks have among the consumers of the feed.
pub(crate) const NAME_PREFIX: &str = "webhook-";

/// The address of a receiver.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookUrl {
    url: Url,
    uri: Uri,
}

impl WebhookUrl {
    /// Takes an address like `https://shop.example/hooks`; else says what to write.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let url = Url::parse(text)
            .map_err(|wrong| format!("must be like https://shop.example/hooks ({wrong})"))?;
        if !matches!(url.scheme(), "https" | "http") {
            return Err("must begin with https://".to_owned());
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("must have no user or password: messages are signed".to_owned());
        }
        if url.fragment().is_some() {
            return Err("must have no part after a #: it would never be sent".to_owned());
        }
        if url.port() == Some(0) {
            return Err("must have a port that can be connected to".to_owned());
        }
        let uri = url.as_str().parse().map_err(|wrong| format!("can't be asked ({wrong})"))?;
        Ok(Self { url, uri })
    }

    /// The reason that it is not for the public internet by TLS, if it is not as far as its
    /// text shows.
    pub(super) fn is_private(&self) -> Option<&'static str> {
        let literal = match self.url.host() {
            Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
            Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
            _ => None,
        };
        match literal {
            _ if self.url.scheme() == "http" => Some("is without TLS"),
            Some(address) if !is_public(address) => Some("is at a private address"),
            _ => None,
        }
    }

    /// Its name, by which the feed knows how far it came: the same for the same text.
    pub(crate) fn name(&self) -> ConsumerName {
        let hash = Sha256::digest(self.url.as_str());
        let hash = hash[..NAME_BYTES].iter().map(|byte| format!("{byte:02x}"));
        let name = format!("{NAME_PREFIX}{}", hash.collect::<String>());
        ConsumerName::new(name).expect("a short name of letters and digits")
    }

    /// The address to ask.
    pub(crate) fn uri(&self) -> &Uri {
        &self.uri
    }

    /// Scheme, host and port, without what may be a secret.
    pub(crate) fn origin(&self) -> String {
        self.url.origin().ascii_serialization()
    }
}

impl fmt::Debug for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WebhookUrl").field(&self.origin()).finish_non_exhaustive()
    }
}

/// The keys that messages are signed with: one, or two while receivers change over.
#[derive(Clone)]
pub struct SigningKeys(Vec<Vec<u8>>);

impl SigningKeys {
    /// Reads secrets such as `whsec_…` with white space or a comma between them.
    ///
    /// # Errors
    /// Names the `field` and what is wrong with its text, without a part of it.
    pub fn parse(field: &'static str, text: &str) -> Result<Self, InvalidInput> {
        let wrong = |rule: &str| {
            let rule = format!("{rule}; make one as: echo \"whsec_$(openssl rand -base64 32)\"");
            Err(InvalidInput::new(field, rule))
        };
        let between = |letter: char| letter == ',' || letter.is_ascii_whitespace();
        let secrets = text.split(between).filter(|secret| !secret.is_empty());
        let mut keys = Vec::new();
        for secret in secrets {
            let Some(key) = secret.strip_prefix(PREFIX) else {
                return wrong("has a secret that does not begin with whsec_");
            };
            match STANDARD.decode(key) {
                Ok(key) if KEY_BYTES.contains(&key.len()) => keys.push(key),
                Ok(_) => return wrong("has a key that is not 24 to 64 bytes long"),
                Err(_) => return wrong("has a key that is not base64 with its padding"),
            }
        }
        match keys.len() {
            0 => wrong("is empty"),
            1..=SECRETS_MAX => Ok(Self(keys)),
            _ => wrong("has more than two secrets"),
        }
    }

    pub(super) fn from_environment(name: &'static str) -> Result<Option<Self>, InvalidInput> {
        std::env::var(name).ok().map(|text| Self::parse(name, &text)).transpose()
    }

    /// Signs a message, as the header `webhook-signature` has it: by each key, HMAC-SHA256 of
    /// id, time in seconds since 1970 and body.
    pub(crate) fn sign(&self, id: &str, seconds: u64, body: &[u8]) -> String {
        let signatures = self.0.iter().map(|key| {
            let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("it takes keys of any size");
            mac.update(format!("{id}.{seconds}.").as_bytes());
            mac.update(body);
            format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
        });
        signatures.collect::<Vec<_>>().join(" ")
    }
}

impl fmt::Debug for SigningKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKeys(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "FLUX_WEBHOOK_SECRET";

    fn secret(bytes: usize, fill: u8) -> String {
        format!("whsec_{}", STANDARD.encode(vec![fill; bytes]))
    }

    #[test]
    fn a_message_is_signed_as_the_schemes_own_example_is() {
        // Of its specification's test vectors.
        let keys = SigningKeys::parse(NAME, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let signed = keys.expect("a key").sign(
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            br#"{"test": 2432232314}"#,
        );
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn each_of_two_secrets_signs() {
        let (old, new) = (secret(24, 1), secret(64, 2));
        let sign = |text: &str| SigningKeys::parse(NAME, text).expect("keys").sign("m", 1, b"{}");
        for between in [" ", ",", ", ", "\n"] {
            let both = sign(&format!("{new}{between}{old}"));
            assert_eq!(both, format!("{} {}", sign(&new), sign(&old)));
        }
    }

    #[test]
    fn a_secret_that_is_none_is_described_and_not_shown() {
        for (text, says) in [
            (String::new(), "empty"),
            (" , ".to_owned(), "empty"),
            ("hunter2".to_owned(), "whsec_"),
            (secret(23, 7), "24 to 64"),
            (secret(65, 7), "24 to 64"),
            ("whsec_".to_owned(), "24 to 64"),
            ("whsec_hunter2hunter2hunter2hunter2hunter2!".to_owned(), "base64"),
            (secret(32, 7).trim_end_matches('=').to_owned(), "base64"),
            ([secret(32, 1), secret(32, 2), secret(32, 3)].join(" "), "more than two"),
        ] {
            let wrong = SigningKeys::parse(NAME, &text).expect_err(&text).to_string();
            assert!(wrong.starts_with(NAME) && wrong.contains(says), "{wrong}");
            assert!(!wrong.contains("hunter2") && !wrong.contains("BwcH"), "{wrong}");
        }
        let keys = SigningKeys::parse(NAME, &secret(32, 7)).expect("a key");
        assert_eq!(format!("{keys:?}"), "SigningKeys(…)");
    }

    #[test]
    fn an_address_is_taken_or_refused_with_what_to_write() {
        for sound in ["https://shop.example", "https://shop.example:8443/a?b=c", "http://[::1]:1/"]
        {
            assert!(WebhookUrl::parse(sound).is_ok(), "{sound}");
        }
        for (wrong, says) in [
            ("", "like https://"),
            ("shop.example", "like https://"),
            ("ftp://shop.example", "begin with https://"),
            ("https://ann@shop.example", "no user"),
            ("https://:s3cret@shop.example", "no user"),
            ("https://shop.example/#a", "after a #"),
            ("https://shop.example:0/", "port"),
            ("https://", "like https://"),
        ] {
            let said = WebhookUrl::parse(wrong).expect_err(wrong);
            assert!(said.contains(says) && !said.contains("s3cret"), "{wrong}: {said}");
        }
    }

    #[test]
    fn one_that_is_near_is_told_by_its_text_where_that_shows_it() {
        let private = |text: &str| WebhookUrl::parse(text).expect(text).is_private().is_some();
        for near in [
            "http://shop.example",
            "https://127.0.0.1",
            "https://2130706433",
            "https://0x7f.1",
            "https://[::ffff:10.0.0.1]",
        ] {
            assert!(private(near), "{near}");
        }
        // What a name stands for is seen when it is connected to.
        for far in ["https://shop.example", "https://1.1.1.1", "https://localhost"] {
            assert!(!private(far), "{far}");
        }
    }

    #[test]
    fn a_name_is_of_one_address_and_shows_nothing_of_it() {
        let url = |text: &str| WebhookUrl::parse(text).expect(text);
        let name = url("https://shop.example/hooks?token=s3cret").name();
        assert_eq!(name, url("https://shop.example/hooks?token=s3cret").name());
        assert_ne!(name, url("https://shop.example/hooks").name());
        let debug = format!("{:?}", url("https://shop.example/s3cret?token=s3cret"));
        assert!(debug.contains("shop.example") && !debug.contains("s3cret"), "{debug}");
    }
}
