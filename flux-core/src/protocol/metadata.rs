//! What a buyer, or whoever sells to one, attaches to an order: a few words that Flux
//! keeps and shows and never reads.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::limits::{
    InvalidInput, METADATA_BYTES_MAX, METADATA_NAME_BYTES_MAX, METADATA_PAIRS_MAX,
};

const FIELD: &str = "metadata";

/// Up to 16 pairs of a name and a text: names of 1–64 visible ASCII characters, texts of
/// any kind, 2 KiB in all. They are part of what a repeat of the order must match.
///
/// Cheap to clone.
///
/// ```
/// use flux_core::{Metadata, OrderRequest};
///
/// let metadata = Metadata::new([("basket", "7"), ("campaign", "early bird")])?;
/// assert_eq!(metadata.get("basket"), Some("7"));
/// let request = OrderRequest::units("ann", "ticket_1", 2)?.with_metadata(metadata);
///
/// assert_eq!(Metadata::new([("", "nameless")]).expect_err("a name").field(), "metadata");
/// # Ok::<(), flux_core::InvalidInput>(())
/// ```
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Metadata(Option<Arc<BTreeMap<String, String>>>);

impl Metadata {
    /// Checks the pairs.
    ///
    /// # Errors
    /// [`InvalidInput`] naming `metadata`, and the rule that a pair breaks.
    pub fn new<N: Into<String>, T: Into<String>>(
        pairs: impl IntoIterator<Item = (N, T)>,
    ) -> Result<Self, InvalidInput> {
        let mut checked = BTreeMap::new();
        let mut bytes = 0;
        for (name, text) in pairs {
            let (name, text) = (name.into(), text.into());
            if name.is_empty()
                || name.len() > METADATA_NAME_BYTES_MAX
                || !name.bytes().all(|byte| byte.is_ascii_graphic())
            {
                let rule = format!(
                    "names must be 1 to {METADATA_NAME_BYTES_MAX} visible ASCII characters"
                );
                return Err(InvalidInput::new(FIELD, rule));
            }
            bytes += name.len() + text.len();
            if bytes > METADATA_BYTES_MAX {
                let rule = format!("must have at most {METADATA_BYTES_MAX} bytes in all");
                return Err(InvalidInput::new(FIELD, rule));
            }
            if checked.len() == METADATA_PAIRS_MAX {
                let rule = format!("must have at most {METADATA_PAIRS_MAX} pairs");
                return Err(InvalidInput::new(FIELD, rule));
            }
            if let Some(text) = checked.insert(name, text) {
                return Err(InvalidInput::new(
                    FIELD,
                    format!("has a name twice, once of {text:?}"),
                ));
            }
        }
        Ok(Self((!checked.is_empty()).then(|| Arc::new(checked))))
    }

    /// Whether there is nothing attached.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The text under a name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.as_ref()?.get(name).map(String::as_str)
    }

    /// The pairs, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().flat_map(|pairs| pairs.iter()).map(|(name, text)| (&**name, &**text))
    }

    /// Bytes of all names and texts.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.iter().map(|(name, text)| name.len() + text.len()).sum()
    }
}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl Serialize for Metadata {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Some(pairs) => pairs.serialize(to),
            None => to.serialize_map(Some(0))?.end(),
        }
    }
}

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Metadata;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("pairs of a name and a text")
            }
            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Metadata, M::Error> {
                // One more than there may be is enough to refuse it.
                let mut pairs: Vec<(String, String)> = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                    if pairs.len() > METADATA_PAIRS_MAX {
                        break;
                    }
                }
                Metadata::new(pairs).map_err(M::Error::custom)
            }
        }
        from.deserialize_map(Pairs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(n: usize, text: usize) -> Result<Metadata, InvalidInput> {
        Metadata::new((0..n).map(|n| (format!("name-{n}"), "x".repeat(text))))
    }

    #[test]
    fn it_has_16_pairs_of_64_bytes_names_and_2_kib_at_most() {
        assert_eq!(pairs(16, 1).expect("16").iter().count(), 16);
        assert!(pairs(17, 1).is_err());
        let name = |bytes| Metadata::new([("n".repeat(bytes), "x")]);
        assert_eq!((name(1).is_ok(), name(64).is_ok()), (true, true));
        assert_eq!((name(0).is_err(), name(65).is_err()), (true, true));
        for wrong in ["a b", "a\n", "é"] {
            assert!(Metadata::new([(wrong, "x")]).is_err(), "{wrong:?}");
        }
        let one = |text: usize| Metadata::new([("name", "x".repeat(text))]);
        assert_eq!(one(2_044).expect("2 KiB").bytes(), 2_048);
        assert!(one(2_045).is_err());
        assert!(pairs(2, 1_019).is_err(), "the sum counts");
        assert_eq!(Metadata::new([("a", "ü \n\u{1f3ab}")]).expect("any text").bytes(), 9);
        assert!(Metadata::new([("a", "1"), ("a", "1")]).is_err(), "a name twice");
    }

    #[test]
    fn it_is_read_as_it_is_written_and_checked_on_the_way() {
        let written = serde_json::to_string(&pairs(3, 2).expect("pairs")).expect("JSON");
        assert_eq!(written, r#"{"name-0":"xx","name-1":"xx","name-2":"xx"}"#);
        assert_eq!(serde_json::from_str::<Metadata>(&written).ok(), pairs(3, 2).ok());
        assert_eq!(serde_json::from_str::<Metadata>("{}").ok(), Some(Metadata::default()));
        for wrong in [r#"{"a":1}"#, r#"{"a":null}"#, r#"["a"]"#, r#"{"a":"1","a":"2"}"#, "null"] {
            assert!(serde_json::from_str::<Metadata>(wrong).is_err(), "{wrong}");
        }
    }
}
