//! Items to have on sale from the start: `--item` and `--catalog`.

use std::path::{Path, PathBuf};

use flux_core::{Error, Flux, InvalidInput, ItemId, ItemSpec};

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
    /// An item can't be made.
    #[error(transparent)]
    Put(#[from] Error),
}

/// Reads a file of `[[item]]` tables.
///
/// # Errors
/// [`CatalogError`], which names the file and the field.
pub fn read(path: &Path) -> Result<Vec<ItemSpec>, CatalogError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| CatalogError::Read { path: path.to_owned(), error })?;
    parse(&text).map_err(|reason| CatalogError::Malformed { path: path.to_owned(), reason })
}

fn parse(text: &str) -> Result<Vec<ItemSpec>, String> {
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

/// Puts on sale those items that are not there yet.
///
/// # Errors
/// [`CatalogError::Put`].
pub async fn put_missing(flux: &Flux, items: Vec<ItemSpec>) -> Result<(), CatalogError> {
    for spec in items {
        if flux.item(&spec.id).await?.is_none() {
            tracing::info!(item = %spec.id, capacity = spec.capacity(), "put on sale");
            flux.put_item(spec).await?;
        }
    }
    Ok(())
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
            ("[item]\nitem_id = \"a\"", "double brackets"),
            ("[[items]]\nitem_id = \"a\"", "items is not known"),
            ("[[item", "expected"),
        ] {
            let wrong = parse(text).expect_err(text);
            assert!(wrong.contains(says), "{text}: {wrong}");
        }
    }
}
