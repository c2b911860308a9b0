//! Where a listing goes on, as clients carry it: opaque, and checked, so that
//! nonsense is told from a page that is empty.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use flux_core::InvalidInput;

/// What `place` is called by clients; `list` is the listing it belongs to.
pub(crate) fn encode(list: &str, place: &str) -> String {
    let mut bytes = checksum(list, place.as_bytes()).to_be_bytes().to_vec();
    bytes.extend_from_slice(place.as_bytes());
    BASE64.encode(bytes)
}

/// The place a client means.
pub(crate) fn decode(list: &str, cursor: &str) -> Result<String, InvalidInput> {
    let bytes = BASE64.decode(cursor).map_err(|_| wrong())?;
    let (sum, place) = bytes.split_first_chunk::<4>().ok_or_else(wrong)?;
    if *sum != checksum(list, place).to_be_bytes() {
        return Err(wrong());
    }
    String::from_utf8(place.to_vec()).map_err(|_| wrong())
}

/// What is said of a cursor that is none.
pub(crate) fn wrong() -> InvalidInput {
    InvalidInput::new("cursor", "must be a next_cursor of this listing")
}

fn checksum(list: &str, place: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(list.as_bytes());
    sum.update(&[0]);
    sum.update(place);
    sum.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_belongs_to_its_listing() {
        let cursor = encode("items", "a/b&c");
        assert_eq!(decode("items", &cursor).expect("its own"), "a/b&c");
        assert!(decode("orders", &cursor).is_err());
        for nonsense in ["", "nonsense", "ticket_1", "AAAA", "AAAAAAAA"] {
            assert!(decode("items", nonsense).is_err(), "{nonsense}");
        }
    }
}
