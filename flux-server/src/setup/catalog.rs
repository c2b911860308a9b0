//! Items to have on sale from the start: `--item` and `--catalog`.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::{Path, PathBuf};

use flux_core::{Error, Flux, Hall, InvalidInput, ItemId, ItemKind, ItemSpec, PutItemError};

use crate::http::requests::ItemBody;

/// The reason that the catalogue can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CatalogError {
    /// It can't be read.
    #[error("can't read the catalog {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: std::io::Error,
    },
    /// It is not TOML.
    #[error("the catalog {} is not as it should be: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The line or item, and the field.
        reason: String,
    },
    /// An item is given twice, and one of the two would be passed over.
    #[error("{item} is given twice, by {first} and by {second}: leave one of them out")]
    Twice {
        /// The item.
        item: ItemId,
        /// Where it is given.
        first: String,
        /// Where it is given again.
        second: String,
    },
    /// An item can't be made.
    #[error(transparent)]
    Put(#[from] Error),
}

/// An item to have on sale, and where it says so.
#[derive(Debug)]
pub struct Wanted {
    spec: ItemSpec,
    place: Place,
}

/// The place where an item is given.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// `--item`, which says nothing but the capacity.
    Flag,
    /// This table of the catalogue, from 1.
    Table(usize),
}

impl Place {
    fn name(self) -> String {
        match self {
            Self::Flag => "--item".to_owned(),
            Self::Table(number) => format!("item {number} of the catalog"),
        }
    }
}

/// The items of `--item`, then those of the catalogue's file.
///
/// # Errors
/// [`CatalogError`], which names the file and the field, or the item that comes twice.
pub fn wanted(flags: &[ItemSpec], catalog: Option<&Path>) -> Result<Vec<Wanted>, CatalogError> {
    let tables = catalog.map_or_else(|| Ok(Vec::new()), read)?;
    let flags = flags.iter().map(|spec| Wanted { spec: spec.clone(), place: Place::Flag });
    let tables = (1..).zip(tables).map(|(at, spec)| Wanted { spec, place: Place::Table(at) });
    let wanted: Vec<_> = flags.chain(tables).collect();
    let mut places = HashMap::new();
    for Wanted { spec, place } in &wanted {
        match places.entry(&spec.id) {
            Entry::Vacant(free) => {
                free.insert(*place);
            }
            Entry::Occupied(first) => {
                let (first, second) = (first.get().name(), place.name());
                return Err(CatalogError::Twice { item: spec.id.clone(), first, second });
            }
        }
    }
    Ok(wanted)
}

/// Reads a file of `[[item]]` tables.
fn read(path: &Path) -> Result<Vec<ItemSpec>, CatalogError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| CatalogError::Read { path: path.to_owned(), error })?;
    parse(&text).map_err(|reason| CatalogError::Malformed { path: path.to_owned(), reason })
}

pub(crate) fn parse(text: &str) -> Result<Vec<ItemSpec>, String> {
    let mut file: toml::Table = text.parse().map_err(|wrong: toml::de::Error| wrong.to_string())?;
    let tables = file.remove("item").unwrap_or_else(|| toml::Value::Array(Vec::new()));
    if let Some(key) = file.keys().next() {
        return Err(format!("{key} is not known; items are [[item]] tables"));
    }
    let toml::Value::Array(tables) = tables else {
        return Err("write [[item]], in double brackets".to_owned());
    };
    let spec = |(number, table)| item(table).map_err(|wrong| format!("item {number}: {wrong}"));
    (1..).zip(tables).map(spec).collect()
}

fn item(table: toml::Value) -> Result<ItemSpec, String> {
    let toml::Value::Table(mut table) = table else { return Err("must be a table".to_owned()) };
    let id = match table.remove("item_id") {
        Some(toml::Value::String(id)) => ItemId::new(id),
        _ => Err(InvalidInput::new("item_id", "must be given, as a string")),
    };
    // TOML has times of its own; the contract writes them as strings.
    for (_, value) in &mut table {
        if let toml::Value::Datetime(time) = value {
            *value = toml::Value::String(time.to_string());
        }
    }
    let body: ItemBody = table.try_into().map_err(|wrong: toml::de::Error| wrong.to_string())?;
    id.and_then(|id| body.spec(id)).map_err(|wrong| wrong.to_string())
}

/// Puts on sale those items that are not there yet. One that is there stays as it is, and
/// what is different about it is said.
///
/// # Errors
/// [`CatalogError::Put`].
pub async fn put_missing(flux: &Flux, items: Vec<Wanted>) -> Result<(), CatalogError> {
    for Wanted { spec, place } in items {
        match flux.item(&spec.id).await? {
            None => {
                let (item, capacity) = (spec.id.clone(), spec.capacity());
                match flux.put_item(spec).await {
                    Ok(_) => tracing::info!(%item, capacity, "put on sale"),
                    Err(Error::PutItem(why @ PutItemError::Archived { .. })) => {
                        tracing::warn!(%item, "{why}; it stays away, take it from {}", place.name());
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            Some(item) => {
                for (field, on_sale, wanted) in differences(&item.spec, &spec, place) {
                    tracing::warn!(
                        item = %spec.id,
                        "{field} is {on_sale} on sale and {wanted} by {}; what is on sale stays as it is",
                        place.name()
                    );
                }
            }
        }
    }
    Ok(())
}

/// Each field that differs: its name, its value on sale, and the one that is wanted.
fn differences(
    on_sale: &ItemSpec,
    wanted: &ItemSpec,
    place: Place,
) -> Vec<(&'static str, String, String)> {
    let (there, here) = (&on_sale.kind, &wanted.kind);
    let mut fields = vec![match (there, here) {
        (ItemKind::Pool(there), ItemKind::Pool(here)) => {
            ("capacity", there.get().to_string(), here.get().to_string())
        }
        (ItemKind::Seats(there), ItemKind::Seats(here)) => {
            let pairs = there.names().iter().zip(here.names());
            let first = pairs.take_while(|(there, here)| there == here).count();
            ("seats", seats(there, first), seats(here, first))
        }
        _ => ("kind", kind(there), kind(here)),
    }];
    if let Place::Table(_) = place {
        type Value = fn(&ItemSpec) -> Option<String>;
        let values: [(&str, Value); 5] = [
            ("name", |spec| spec.name.as_ref().map(|name| format!("{name:?}"))),
            ("hold_seconds", |spec| Some(spec.hold.get().to_string())),
            ("max_per_buyer", |spec| spec.max_per_buyer.map(|cap| cap.get().to_string())),
            ("opens_at", |spec| spec.opens_at.map(|time| time.to_string())),
            ("closes_at", |spec| spec.closes_at.map(|time| time.to_string())),
        ];
        for (field, value) in values {
            let or_none = |spec| value(spec).unwrap_or_else(|| "none".to_owned());
            fields.push((field, or_none(on_sale), or_none(wanted)));
        }
    }
    fields.retain(|(_, there, here)| there != here);
    fields
}

fn kind(kind: &ItemKind) -> String {
    match kind {
        ItemKind::Pool(capacity) => format!("a pool of {}", capacity.get()),
        ItemKind::Seats(hall) => format!("a hall of {} seats", hall.names().len()),
    }
}

/// A hall by its size, and by the seat at which it is not like another.
fn seats(hall: &Hall, at: usize) -> String {
    match hall.names().get(at) {
        Some(seat) => format!("{} with {seat} as number {}", hall.names().len(), at + 1),
        None => hall.names().len().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_catalogue_has_the_fields_of_put() {
        let items = parse(
            r#"
            [[item]]
            item_id = "pool"
            capacity = 10
            opens_at = 2026-12-01T10:00:00Z
            closes_at = "2026-12-02T10:00:00+01:00"

            [[item]]
            item_id = "hall"
            name = "Great Hall"
            seats = ["A1", "A2"]
            max_per_buyer = 2
            "#,
        )
        .expect("a catalogue");
        assert_eq!(items.iter().map(ItemSpec::capacity).collect::<Vec<_>>(), [10, 2]);
        assert!(items[0].opens_at < items[0].closes_at);
    }

    #[test]
    fn what_is_wrong_is_said_with_the_item_and_the_field() {
        for (text, says) in [
            ("[[item]]\ncapacity = 1", "item 1: item_id"),
            ("[[item]]\nitem_id = \"a\"", "item 1: capacity"),
            ("[[item]]\nitem_id = \"a\"\ncapacity = -1", "capacity"),
            ("[[item]]\nitem_id = \"a\"\ncapacity = 1\ncolour = 1", "colour"),
            ("[[item]]\nitem_id = \"a\"\ncapacity = 1\nopens_at = 2026-12-01", "opens_at"),
            (
                "[[item]]\nitem_id = \"a\"\ncapacity = 1\nopens_at = \"2026-12-01T10:00:00+24:00\"",
                "opens_at",
            ),
            (
                "[[item]]\nitem_id = \"a\"\ncapacity = 1\nopens_at = 2026-12-01T10:00:00+24:00",
                "opens_at",
            ),
            (
                "[[item]]\nitem_id = \"a\"\ncapacity = 1\ncloses_at = 2026-12-01T10:00:00+02:60",
                "closes_at",
            ),
            ("[item]\nitem_id = \"a\"", "double brackets"),
            ("[[items]]\nitem_id = \"a\"", "items is not known"),
            ("[[item", "expected"),
        ] {
            let wrong = parse(text).expect_err(text);
            assert!(wrong.contains(says), "{text}: {wrong}");
        }
    }

    #[test]
    fn an_item_that_is_given_twice_is_refused_with_both_places() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("sale.toml");
        let table = |id: &str| format!("[[item]]\nitem_id = \"{id}\"\ncapacity = 1\n");
        let flag = |id: &str| ItemSpec::pool(id, 1).expect("an item");
        for (flags, tables, says) in [
            (vec!["t", "t"], "".to_owned(), "t is given twice, by --item and by --item"),
            (vec!["u", "t"], table("t"), "by --item and by item 1 of the catalog"),
            (
                vec![],
                table("t") + &table("u") + &table("t"),
                "by item 1 of the catalog and by item 3",
            ),
        ] {
            std::fs::write(&file, tables).expect("written");
            let flags: Vec<_> = flags.into_iter().map(flag).collect();
            let wrong = wanted(&flags, Some(&file)).expect_err(says).to_string();
            assert!(wrong.contains(says), "{wrong}");
        }
        std::fs::write(&file, table("t")).expect("written");
        assert_eq!(wanted(&[flag("u"), flag("T")], Some(&file)).expect("three").len(), 3);
    }

    #[test]
    fn each_field_that_differs_is_told_with_both_values() {
        let spec = |text: &str| {
            let text = format!("[[item]]\nitem_id = \"t\"\n{text}");
            parse(&text).expect(&text).remove(0)
        };
        let said = |there: &str, here: &str, place| {
            let differences = differences(&spec(there), &spec(here), place);
            let said =
                differences.iter().map(|(field, there, here)| format!("{field} {there}/{here}"));
            said.collect::<Vec<_>>().join(", ")
        };
        let table = Place::Table(1);
        for (there, here, says) in [
            ("capacity = 5", "capacity = 5", ""),
            ("capacity = 5", "capacity = 50", "capacity 5/50"),
            ("capacity = 2", "seats = [\"A1\", \"A2\"]", "kind a pool of 2/a hall of 2 seats"),
            ("seats = [\"A1\"]", "seats = [\"A1\", \"A2\"]", "seats 1/2 with A2 as number 2"),
            (
                "seats = [\"A1\", \"A2\"]",
                "seats = [\"A2\", \"A1\"]",
                "seats 2 with A1 as number 1/2 with A2 as number 1",
            ),
            (
                "capacity = 5\nname = \"Hall\"\nhold_seconds = 60\nmax_per_buyer = 2",
                "capacity = 5\nopens_at = 2026-12-01T10:00:00Z\ncloses_at = 2026-12-02T10:00:00Z",
                "name \"Hall\"/none, hold_seconds 60/600, max_per_buyer 2/none, \
                 opens_at none/2026-12-01T10:00:00.000Z, closes_at none/2026-12-02T10:00:00.000Z",
            ),
        ] {
            assert_eq!(said(there, here, table), says);
        }
        // --item says nothing of the rest.
        let named = "capacity = 50\nname = \"changed\"";
        assert_eq!(said(named, "capacity = 5", Place::Flag), "capacity 50/5");
    }
}
