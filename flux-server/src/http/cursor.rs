//! Cursors of listings, as clients carry them: opaque, and checked, so that
//! nonsense is told from a page that is empty.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use flux_core::InvalidInput;

/// The cursor for `position` of the listing `list`.
pub(crate) fn encode(list: &str, position: &str) -> String {
    let mut bytes = checksum(list, position.as_bytes()).to_be_bytes().to_vec();
    bytes.extend_from_slice(position.as_bytes());
    BASE64.encode(bytes)
}

/// The position that the cursor stands for.
pub(crate) fn decode(list: &str, cursor: &str) -> Result<String, InvalidInput> {
    let bytes = BASE64.decode(cursor).map_err(|_| wrong())?;
    let (sum, position) = bytes.split_first_chunk::<4>().ok_or_else(wrong)?;
    if *sum != checksum(list, position).to_be_bytes() {
        return Err(wrong());
    }
    String::from_utf8(position.to_vec()).map_err(|_| wrong())
}

/// The error for a cursor that this server did not make.
pub(crate) fn wrong() -> InvalidInput {
    InvalidInput::new("cursor", "must be a next_cursor of this listing")
}

fn checksum(list: &str, position: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(list.as_bytes());
    sum.update(&[0]);
    sum.update(position);
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
