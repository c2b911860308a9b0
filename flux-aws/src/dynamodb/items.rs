//! Reads items: their definitions, which are remembered, and their stock as
//! it is, without a claim.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flux_core::seams::SeamError;
use flux_core::{Hall, ItemId, ItemKind, ItemSpec, SeatId};
use futures_util::TryStreamExt;

use super::claim::REMEMBERED_MAX;
use super::rows::{Key, Row, SERVICE, damaged, string, text};
use super::stock_row::{Head, HeadKind, Known, StockRow};
use super::table::{Table, in_order, values};

type Specs = HashMap<ItemId, (Arc<Head>, Arc<ItemSpec>)>;

/// A reader of items; clones share its memory.
#[derive(Debug, Clone)]
pub(super) struct Items {
    table: Table,
    specs: Arc<Mutex<Specs>>,
}

impl Items {
    pub(super) fn new(table: Table) -> Self {
        Self { table, specs: Arc::default() }
    }

    fn specs(&self) -> MutexGuard<'_, Specs> {
        // An entry is used only while its row is still the same, so any may be lost.
        self.specs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads items for several callers, each item once; a failure is
    /// everybody's.
    pub(super) async fn read_together(
        &self,
        items: &[ItemId],
    ) -> Vec<Result<Option<Known>, SeamError>> {
        let mut once = items.to_vec();
        once.sort_unstable();
        once.dedup();
        match self.read(&once).await {
            Ok(known) => {
                let found = |item| once.binary_search(item).ok().and_then(|at| known[at].clone());
                items.iter().map(|item| Ok(found(item))).collect()
            }
            Err(error) => items.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    /// The items as their rows are now, each stock row for itself, in order.
    pub(super) async fn read(&self, items: &[ItemId]) -> Result<Vec<Option<Known>>, SeamError> {
        let heads = items.iter().map(|item| Key::stock_row(item, 0)).collect();
        let mut rows = self.table.get_all(heads).await?;
        let mut stripes = Vec::new();
        for item in items {
            if let Some(row) = rows.get(&Key::stock_row(item, 0)) {
                stripes.extend((1..Head::read(row)?.stripes).map(|k| Key::stock_row(item, k)));
            }
        }
        if !stripes.is_empty() {
            rows.extend(self.table.get_all(stripes).await?);
        }
        let known = in_order(items.iter().map(|item| self.put_together(item, &rows)));
        known.try_collect().await
    }

    async fn put_together(
        &self,
        item: &ItemId,
        rows: &HashMap<Key, Row>,
    ) -> Result<Option<Known>, SeamError> {
        let Some(row) = rows.get(&Key::stock_row(item, 0)) else { return Ok(None) };
        let (head, spec) = self.head(row).await?;
        let stock_row = |stripe| {
            let row = rows.get(&Key::stock_row(item, stripe));
            StockRow::read(
                row.ok_or_else(|| damaged(&Key::stock_row(item, stripe).into_row(), "all of it"))?,
                &spec,
            )
        };
        let stock_rows = (0..head.stripes).map(stock_row).collect::<Result<_, _>>()?;
        Ok(Some(Known { head, spec, stock_rows }))
    }

    /// An item's definition, with the seats it refers to.
    pub(super) async fn head(&self, row: &Row) -> Result<(Arc<Head>, Arc<ItemSpec>), SeamError> {
        let head = Head::read(row)?;
        let known = self.specs().get(&head.id).cloned();
        if let Some((known, spec)) = known
            && *known == head
        {
            return Ok((known, spec));
        }
        let hall = match &head.kind {
            HeadKind::Pool(_) => None,
            HeadKind::Hall { version } => Some(self.read_hall(&head.id, version).await?),
        };
        let spec = Arc::new(head.spec(hall)?);
        let head = Arc::new(head);
        let mut specs = self.specs();
        if specs.len() >= REMEMBERED_MAX {
            specs.clear();
        }
        specs.insert(head.id.clone(), (Arc::clone(&head), Arc::clone(&spec)));
        Ok((head, spec))
    }

    async fn read_hall(&self, item: &ItemId, version: &str) -> Result<Arc<Hall>, SeamError> {
        let known = self.specs().get(item).cloned();
        if let Some((head, spec)) = known
            && let (HeadKind::Hall { version: known }, ItemKind::Seats(hall)) =
                (&head.kind, &spec.kind)
            && known == version
        {
            return Ok(Arc::new(hall.clone()));
        }
        let query = self
            .table
            .query()
            .key_condition_expression("pk = :pk")
            .set_expression_attribute_values(Some(values([(
                ":pk",
                string(Key::hall(item, version, 0).pk),
            )])))
            .consistent_read(true);
        let mut names = Vec::new();
        for row in self.table.pages(query).await? {
            for name in text(&row, "names")?.split(' ') {
                names.push(SeatId::new(name).map_err(|_| damaged(&row, "names"))?);
            }
        }
        let hall = Hall::new(names).map_err(|error| {
            SeamError::broken(SERVICE, format!("{item}: its hall as stored breaks a rule: {error}"))
        })?;
        Ok(Arc::new(hall))
    }
}
