//! What an order's row may have behind what all rows have: fields, each under a number
//! and with its length. So later versions can add some without another format.
//!
//! | number | field |
//! |---|---|
//! | 1 | the line that a rejected order failed on |
//! | 2 | metadata |
//! | 4 | its debt |
//!
//! A field of an odd number is passed over by a program that does not know it. One of
//! an even number must be known: without it the order would be another.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::rows::RowError;
use crate::protocol::{Debt, Metadata, Order};

const FAILED_LINE: u8 = 1;
const METADATA: u8 = 2;
const DEBT: u8 = 4;

/// The fields of an order.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Fields {
    pub(super) failed_line: Option<u8>,
    pub(super) metadata: Metadata,
    pub(super) debt: Option<Box<Debt>>,
}

impl Fields {
    pub(super) fn of(order: &Order) -> Self {
        Self {
            failed_line: order.failed_line,
            metadata: order.metadata.clone(),
            debt: order.debt.clone(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Appends the fields that there are.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let Self { failed_line, metadata, debt } = self;
        if let Some(line) = failed_line {
            put(FAILED_LINE, line, out);
        }
        if !metadata.is_empty() {
            let pairs: Vec<(&str, &str)> = metadata.iter().collect();
            put(METADATA, &pairs, out);
        }
        if let Some(debt) = debt {
            put(DEBT, debt, out);
        }
    }

    /// Reads what [`write`](Self::write) wrote, or a later version did.
    pub(super) fn read(mut from: &[u8]) -> Result<Self, RowError> {
        let mut fields = Self::default();
        while !from.is_empty() {
            let ((number, bytes), rest) = postcard::take_from_bytes::<(u8, &[u8])>(from)?;
            match number {
                FAILED_LINE => fields.failed_line = Some(get(bytes)?),
                METADATA => fields.metadata = Metadata::new(get::<Vec<(String, String)>>(bytes)?)?,
                DEBT => fields.debt = Some(get(bytes)?),
                passed_over if passed_over % 2 == 1 => {}
                unknown => return Err(RowError::Field(unknown)),
            }
            from = rest;
        }
        Ok(fields)
    }
}

fn put(number: u8, field: &(impl Serialize + ?Sized), out: &mut Vec<u8>) {
    let bytes = postcard::to_stdvec(field).expect("a field has nothing postcard can't say");
    let field = postcard::to_stdvec(&(number, &bytes[..]));
    out.extend(field.expect("a field has nothing postcard can't say"));
}

/// Reads a field. Bytes behind it are a later version's.
fn get<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, RowError> {
    Ok(postcard::from_bytes(bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Refund, RefundRef, Timestamp};

    fn fields() -> Fields {
        let metadata = Metadata::new([("basket", "7"), ("note", "ü")]).expect("pairs");
        let refund = Refund::new(RefundRef::new("re").expect("a name"), Timestamp::default());
        let debt = Debt { refund: Some(refund), ..Debt::since(Timestamp::from_millis(7)) };
        Fields { failed_line: Some(3), metadata, debt: Some(Box::new(debt)) }
    }

    #[test]
    fn fields_are_read_as_they_are_written() {
        for fields in [Fields::default(), fields(), Fields { debt: None, ..fields() }] {
            let mut written = Vec::new();
            fields.write(&mut written);
            assert_eq!(written.is_empty(), fields.is_empty());
            assert_eq!(Fields::read(&written).expect("whole"), fields);
        }
    }

    #[test]
    fn what_a_later_version_adds_is_passed_over_unless_it_must_be_known() {
        let mut written = Vec::new();
        put(101, "something new", &mut written);
        fields().write(&mut written);
        put(103, &7_u64, &mut written);
        assert_eq!(Fields::read(&written).expect("passed over"), fields());
        put(104, &7_u64, &mut written);
        assert!(matches!(Fields::read(&written), Err(RowError::Field(104))));
    }

    #[test]
    fn fields_cut_short_are_told() {
        let mut written = Vec::new();
        fields().write(&mut written);
        for cut in 1..written.len() {
            // Between two fields the first may stand alone.
            let read = Fields::read(&written[..cut]);
            assert!(read.is_err() || read.is_ok_and(|read| read != fields()), "{cut}");
        }
    }
}
