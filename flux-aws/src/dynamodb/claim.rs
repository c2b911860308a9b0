//! Claims of items, and the memory of those claimed.
//!
//! The token is the epoch of an item's first stock row, and minted there; then it
//! is set on the other stock rows, unless a later one is there already. So of two
//! claims at once the later has every stock row in the end.

use std::collections::HashMap;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use flux_core::backoff::Backoff;
use flux_core::protocol::{Claim, FencingToken};
use flux_core::seams::SeamError;
use flux_core::{ItemId, ItemSpec, Timestamp};
use futures_util::TryStreamExt;
use tokio::time::sleep;

use super::DynamoStore;
use super::rows::{Key, Row, SERVICE, get_number, number};
use super::stock_row::{Known, StockRow};
use super::table::{Written, in_order};

/// Tries of a claim that a later one overtakes.
const CLAIM_TRIES: u32 = 12;
const PAUSE: Backoff = Backoff::new(Duration::from_millis(4), Duration::from_millis(500));
/// Items remembered; past that all are forgotten and read again.
pub(super) const REMEMBERED_MAX: usize = 10_000;

/// The memory of one process: claimed items from one call to the next. Nothing
/// rests on it: every write compares it with the rows.
pub(super) type Memory = HashMap<ItemId, Known>;

impl DynamoStore {
    pub(super) fn memory(&self) -> MutexGuard<'_, Memory> {
        // Every write compares it with the rows, so it may be stale.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn claim_all(
        &self,
        items: &[ItemId],
    ) -> Result<Vec<Option<Claim>>, SeamError> {
        let claims = in_order(items.iter().map(|item| self.claim_one(item, None)));
        let claims = claims.map_ok(|known| {
            let known = known?;
            let (token, stock) = (known.stock_rows[0].token, known.stock());
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
                sleep(PAUSE.full_jitter(tries)).await;
            }
            let head = self.table.update(Key::stock_row(item, 0));
            let head = match counting_until {
                // G7: the token is larger than any before.
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
                    let source = format!("{item}: its buyers are being counted for a new cap");
                    return Err(SeamError::unavailable(SERVICE).with_source(source));
                }
            };
            let (head, spec) = self.items.head(&row).await?;
            let first = StockRow::read(&row, &spec)?;
            let token = first.token;
            let others =
                (1..head.stripes).map(|stripe| self.claim_stripe(item, stripe, token, &spec));
            let others: Vec<Option<StockRow>> = in_order(others).try_collect().await?;
            let others: Option<Vec<StockRow>> = others.into_iter().collect();
            if let Some(others) = others {
                let stock_rows = std::iter::once(first).chain(others).collect();
                return Ok(Some(Known { head, spec, stock_rows }));
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
    ) -> Result<Option<StockRow>, SeamError> {
        let update = self
            .table
            .update(Key::stock_row(item, stripe))
            .update_expression("SET epoch = :token")
            .condition_expression("epoch <= :token")
            .expression_attribute_values(":token", number(token.0));
        match self.table.write(update).await? {
            Written::Row(row) => StockRow::read(&row, spec).map(Some),
            Written::Not(_) => Ok(None),
        }
    }

    /// Remembers an item; a stock row of which a later write is known stays as it is.
    pub(super) fn remember(&self, mut known: Known) {
        let mut memory = self.memory();
        if let Some(old) = memory.get(&known.head.id) {
            if old.stock_rows[0].token > known.stock_rows[0].token {
                return;
            }
            for (stock_row, old) in known.stock_rows.iter_mut().zip(&old.stock_rows) {
                if old.token == stock_row.token && old.revision > stock_row.revision {
                    stock_row.clone_from(old);
                }
            }
        }
        if memory.len() >= REMEMBERED_MAX {
            memory.clear();
        }
        memory.insert(known.head.id.clone(), known);
    }

    pub(super) fn forget(&self, item: &ItemId) {
        self.memory().remove(item);
    }

    /// Looks up an item claimed under `token`.
    pub(super) fn remembered(&self, item: &ItemId, token: FencingToken) -> Option<Known> {
        let memory = self.memory();
        let known = memory.get(item)?;
        known.stock_rows.iter().all(|stock_row| stock_row.token == token).then(|| known.clone())
    }

    /// The stripes of an item that has several, the fullest first; none if it
    /// has one, or is not remembered.
    pub(super) fn fullest_stripes(&self, item: &ItemId, token: FencingToken) -> Vec<usize> {
        let Some(known) = self.remembered(item, token).filter(|known| known.stock_rows.len() > 1)
        else {
            return Vec::new();
        };
        let available = |stripe: &usize| known.stock_rows[*stripe].stock.available();
        let mut stripes: Vec<usize> = (0..known.stock_rows.len()).collect();
        stripes.sort_by_key(|stripe| std::cmp::Reverse(available(stripe)));
        stripes
    }

    /// Remembers what was written to a stock row, or found there.
    pub(super) fn remember_stock_row(&self, item: &ItemId, stripe: usize, stock_row: StockRow) {
        let mut memory = self.memory();
        let Some(known) = memory.get_mut(item) else { return };
        if let Some(known) = known.stock_rows.get_mut(stripe)
            && (known.token, known.revision) < (stock_row.token, stock_row.revision)
        {
            *known = stock_row;
        }
    }

    /// The token that a stock row has.
    pub(super) fn token_of(row: &Row) -> Result<FencingToken, SeamError> {
        get_number(row, "epoch").map(FencingToken)
    }
}
