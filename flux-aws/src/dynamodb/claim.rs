//! Taking items over, and what is remembered of those taken.
//!
//! The token is the epoch of an item's first shelf, and minted there; then it
//! is set on the other shelves, unless a later one is there already. So of two
//! claims at once the later has every shelf in the end.

use std::collections::HashMap;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use flux_core::seams::SeamError;
use flux_core::{Claim, FencingToken, Hall, ItemId, ItemKind, ItemSpec, SeatId, Timestamp};
use futures_util::TryStreamExt;
use tokio::time::sleep;

use super::DynamoStore;
use super::rows::{Key, Row, SERVICE, damaged, get_number, number, text};
use super::shelf::{Head, HeadKind, Known, Shelf};
use super::table::{Written, in_order, values};
use crate::pause::jittered;

/// Tries of a claim that a later one overtakes.
const CLAIM_TRIES: u32 = 12;
/// Items remembered, definitions and stock; past that all are forgotten and
/// read again.
const REMEMBERED_MAX: usize = 10_000;

/// What one process knows of items from one call to the next. Nothing rests
/// on it: every write holds it against the rows.
#[derive(Debug, Default)]
pub(super) struct Memory {
    specs: HashMap<ItemId, (Arc<Head>, Arc<ItemSpec>)>,
    claimed: HashMap<ItemId, Known>,
}

impl DynamoStore {
    pub(super) fn memory(&self) -> MutexGuard<'_, Memory> {
        // Whatever is in there is held against the rows.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn claim_all(
        &self,
        items: &[ItemId],
    ) -> Result<Vec<Option<Claim>>, SeamError> {
        let claims = in_order(items.iter().map(|item| self.claim_one(item, None)));
        let claims = claims.map_ok(|known| {
            let known = known?;
            let (token, stock) = (known.shelves[0].token, known.stock());
            let claim = Claim { token, spec: Arc::clone(&known.spec), stock };
            self.remember(known);
            Some(claim)
        });
        claims.try_collect().await
    }

    /// Claims an item; with `counting_until` so that nobody else can before
    /// that time.
    pub(super) async fn claim_one(
        &self,
        item: &ItemId,
        counting_until: Option<Timestamp>,
    ) -> Result<Option<Known>, SeamError> {
        for tries in 0..CLAIM_TRIES {
            if tries > 0 {
                sleep(jittered(tries, Duration::from_millis(2))).await;
            }
            let head = self.table.update(Key::shelf(item, 0));
            let head = match counting_until {
                None => head.update_expression("ADD epoch :one"),
                Some(until) => head
                    .update_expression("ADD epoch :one SET counting = :until")
                    .expression_attribute_values(":until", number(until.as_millis())),
            };
            let head = head
                .condition_expression(
                    "attribute_exists(pk) AND (attribute_not_exists(counting) OR counting < :now)",
                )
                .expression_attribute_values(":one", number(1))
                .expression_attribute_values(":now", number(self.clock.now().as_millis()));
            let row = match self.table.write(head).await? {
                Written::Row(row) => row,
                Written::Not(None) => return Ok(None),
                Written::Not(Some(_)) => {
                    let being_counted = "its buyers are being counted for a new cap";
                    let source = Some(format!("{item}: {being_counted}").into());
                    return Err(SeamError::Unavailable { service: SERVICE, source });
                }
            };
            let (head, spec) = self.read_head(&row).await?;
            let first = Shelf::read(&row, &spec)?;
            let token = first.token;
            let others =
                (1..head.stripes).map(|stripe| self.claim_stripe(item, stripe, token, &spec));
            let others: Vec<Option<Shelf>> = in_order(others).try_collect().await?;
            let others: Option<Vec<Shelf>> = others.into_iter().collect();
            if let Some(others) = others {
                let shelves = std::iter::once(first).chain(others).collect();
                return Ok(Some(Known { head, spec, shelves }));
            }
        }
        Err(SeamError::unavailable(SERVICE))
    }

    /// `None` when a later claim has it.
    async fn claim_stripe(
        &self,
        item: &ItemId,
        stripe: usize,
        token: FencingToken,
        spec: &ItemSpec,
    ) -> Result<Option<Shelf>, SeamError> {
        let update = self
            .table
            .update(Key::shelf(item, stripe))
            .update_expression("SET epoch = :token")
            .condition_expression("epoch <= :token")
            .expression_attribute_values(":token", number(token.0));
        match self.table.write(update).await? {
            Written::Row(row) => Shelf::read(&row, spec).map(Some),
            Written::Not(_) => Ok(None),
        }
    }

    /// The item as its rows are now, without a claim: each shelf for itself.
    pub(super) async fn read_item(&self, item: &ItemId) -> Result<Option<Known>, SeamError> {
        let found = self.read_items(std::slice::from_ref(item)).await?;
        Ok(found.into_iter().flatten().next())
    }

    /// As [`read_item`](Self::read_item), for each, in order.
    pub(super) async fn read_items(
        &self,
        items: &[ItemId],
    ) -> Result<Vec<Option<Known>>, SeamError> {
        let heads = items.iter().map(|item| Key::shelf(item, 0)).collect();
        let mut rows = self.table.get_all(heads).await?;
        let mut stripes = Vec::new();
        for item in items {
            if let Some(row) = rows.get(&Key::shelf(item, 0)) {
                stripes.extend((1..Head::read(row)?.stripes).map(|k| Key::shelf(item, k)));
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
        let Some(row) = rows.get(&Key::shelf(item, 0)) else { return Ok(None) };
        let (head, spec) = self.read_head(row).await?;
        let shelf = |stripe| {
            let row = rows.get(&Key::shelf(item, stripe));
            Shelf::read(
                row.ok_or_else(|| damaged(&Key::shelf(item, stripe).into_row(), "all of it"))?,
                &spec,
            )
        };
        let shelves = (0..head.stripes).map(shelf).collect::<Result<_, _>>()?;
        Ok(Some(Known { head, spec, shelves }))
    }

    /// An item's definition, with the seats it refers to.
    pub(super) async fn read_head(
        &self,
        row: &Row,
    ) -> Result<(Arc<Head>, Arc<ItemSpec>), SeamError> {
        let head = Head::read(row)?;
        let known = self.memory().specs.get(&head.id).cloned();
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
        let mut memory = self.memory();
        if memory.specs.len() >= REMEMBERED_MAX {
            memory.specs.clear();
        }
        memory.specs.insert(head.id.clone(), (Arc::clone(&head), Arc::clone(&spec)));
        Ok((head, spec))
    }

    async fn read_hall(&self, item: &ItemId, version: &str) -> Result<Arc<Hall>, SeamError> {
        let known = self.memory().specs.get(item).cloned();
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
                super::rows::string(Key::hall(item, version, 0).pk),
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

    /// Remembers an item, but for shelves of which later news is known.
    pub(super) fn remember(&self, mut known: Known) {
        let mut memory = self.memory();
        if let Some(old) = memory.claimed.get(&known.head.id) {
            if old.shelves[0].token > known.shelves[0].token {
                return;
            }
            for (shelf, old) in known.shelves.iter_mut().zip(&old.shelves) {
                if old.token == shelf.token && old.revision > shelf.revision {
                    shelf.clone_from(old);
                }
            }
        }
        if memory.claimed.len() >= REMEMBERED_MAX {
            memory.claimed.clear();
        }
        memory.claimed.insert(known.head.id.clone(), known);
    }

    pub(super) fn forget(&self, item: &ItemId) {
        self.memory().claimed.remove(item);
    }

    /// What is remembered of an item claimed under `token`.
    pub(super) fn remembered(&self, item: &ItemId, token: FencingToken) -> Option<Known> {
        let memory = self.memory();
        let known = memory.claimed.get(item)?;
        known.shelves.iter().all(|shelf| shelf.token == token).then(|| known.clone())
    }

    /// The stripes of an item that has several, the fullest first; none if it
    /// has one, or is not remembered.
    pub(super) fn fullest_stripes(&self, item: &ItemId, token: FencingToken) -> Vec<usize> {
        let Some(known) = self.remembered(item, token).filter(|known| known.shelves.len() > 1)
        else {
            return Vec::new();
        };
        let available = |stripe: &usize| known.shelves[*stripe].stock.available();
        let mut stripes: Vec<usize> = (0..known.shelves.len()).collect();
        stripes.sort_by_key(|stripe| std::cmp::Reverse(available(stripe)));
        stripes
    }

    /// Remembers what was written to a shelf, or found there.
    pub(super) fn remember_shelf(&self, item: &ItemId, stripe: usize, shelf: Shelf) {
        let mut memory = self.memory();
        let Some(known) = memory.claimed.get_mut(item) else { return };
        if let Some(known) = known.shelves.get_mut(stripe)
            && (known.token, known.revision) < (shelf.token, shelf.revision)
        {
            *known = shelf;
        }
    }

    /// The token a shelf's row has.
    pub(super) fn token_of(row: &Row) -> Result<FencingToken, SeamError> {
        get_number(row, "epoch").map(FencingToken)
    }
}
