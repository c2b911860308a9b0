//! Definitions: new ones, changed ones, and the count of a cap that comes
//! where there was none.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_sdk_dynamodb::types::{Put, TransactWriteItem, Update};
use flux_core::backoff::Backoff;
use flux_core::protocol::{FencingToken, Stock, revise};
use flux_core::seams::{PutOutcome, SeamError};
use flux_core::{BuyerId, Hall, ItemId, ItemKind, ItemSpec, PutItemError};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::DynamoStore;
use super::list::Walk;
use super::rows::{Key, Row, SERVICE, number, string};
use super::stock_row::{Head, HeadKind, Known, StockRow};
use super::table::{GET_MAX, Transacted, Written, values};

/// Tries of a change while workers write the item's stock.
const TRIES_MAX: u32 = 20;
const PAUSE: Backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(500));
/// An item is closed to claims for so long while its buyers are counted; the
/// count goes on to say so.
const COUNTING: Duration = Duration::from_secs(15);
/// The time between two such renewals.
const COUNTING_RENEWED: Duration = Duration::from_secs(5);
/// Seats' names in one row: well under DynamoDB's 400 KB.
const NAMES_BYTES_MAX: usize = 300_000;

impl DynamoStore {
    pub(super) async fn put(&self, spec: &ItemSpec) -> Result<PutOutcome, SeamError> {
        let mut new_hall = None;
        for tries in 0..TRIES_MAX {
            if tries > 0 {
                sleep(PAUSE.full_jitter(tries)).await;
            }
            let outcome = match self.read_item(&spec.id).await? {
                Some(old) => self.change(&old, spec, &mut new_hall).await?,
                None => self.create(spec).await?,
            };
            if let Some(outcome) = outcome {
                return Ok(outcome);
            }
        }
        Err(SeamError::unavailable(SERVICE))
    }

    /// Creates an item. `None` when somebody else was quicker.
    async fn create(&self, spec: &ItemSpec) -> Result<Option<PutOutcome>, SeamError> {
        if let Err(invalid) = spec.check() {
            return Ok(Some(PutOutcome::Refused(invalid.into())));
        }
        let version = self.put_hall(spec).await?;
        let head = Head::of(spec, version, self.stripes, 0);
        let stocks = share_out(Stock::full(spec), head.stripes);
        let mut actions = vec![self.put_new(Key::directory(&spec.id).into_row(), false)];
        for (stripe, stock) in stocks.into_iter().enumerate() {
            let stock_row = StockRow::new(FencingToken(1), stock);
            let mut row = Key::stock_row(&spec.id, stripe).into_row();
            row.extend(stock_row.attributes().into_iter().map(|(name, v)| (name.to_owned(), v)));
            if stripe == 0 {
                for (name, value) in head.attributes() {
                    row.extend(value.map(|value| (name.to_owned(), value)));
                }
            }
            actions.push(self.put_new(row, true));
        }
        Ok(self.all_or_nothing(actions).await?.then_some(PutOutcome::Created))
    }

    /// Changes an item. `None` when it is no longer as it was read.
    async fn change(
        &self,
        old: &Known,
        spec: &ItemSpec,
        new_hall: &mut Option<String>,
    ) -> Result<Option<PutOutcome>, SeamError> {
        if *old.spec == *spec {
            return Ok(Some(PutOutcome::Unchanged));
        }
        // Stripes are read one by one, so what is taken shows under the claim.
        let is_sure = |refused: &PutItemError| {
            old.stock_rows.len() == 1 || !matches!(refused, PutItemError::CapacityInUse { .. })
        };
        if let Some(refused) = revise(&old.spec, &old.stock(), spec).err().filter(is_sure) {
            return Ok(Some(PutOutcome::Refused(refused)));
        }
        // Written before the claim: it takes a while, and workers would claim
        // the item back meanwhile.
        if hall_version(old, spec).is_none() && new_hall.is_none() {
            *new_hall = Some(self.put_hall(spec).await?);
        }
        // Claimed first, so that workers don't write the stock in between.
        let until = must_count(old, spec).then(|| self.clock.now() + COUNTING);
        let Some(claimed) = self.claim_one(&spec.id, until).await? else { return Ok(None) };
        let changed =
            self.change_claimed(&claimed, spec, new_hall.as_deref(), until.is_some()).await;
        if until.is_some() && !matches!(changed, Ok(Some(PutOutcome::Changed))) {
            self.stop_counting(&spec.id, claimed.stock_rows[0].token).await;
        }
        changed
    }

    async fn change_claimed(
        &self,
        old: &Known,
        spec: &ItemSpec,
        new_hall: Option<&str>,
        may_count: bool,
    ) -> Result<Option<PutOutcome>, SeamError> {
        let token = old.stock_rows[0].token;
        let stock = match revise(&old.spec, &old.stock(), spec) {
            Ok(stock) => stock,
            Err(refused) => return Ok(Some(PutOutcome::Refused(refused))),
        };
        // A sale or a change may have come before the claim.
        let counts = must_count(old, spec);
        if counts && !(may_count && self.count_buyers(&spec.id, token).await?) {
            return Ok(None);
        }
        let cap_comes = cap_comes(old, spec);
        let version = match (hall_version(old, spec), new_hall) {
            (Some(version), _) | (None, Some(version)) => version.to_owned(),
            // The hall was changed since it was looked at.
            (None, None) => return Ok(None),
        };
        let since = if cap_comes { token.0 } else { old.head.capped_since };
        let head = Head::of(spec, version, old.head.stripes, since);
        let stocks = share_out(stock, head.stripes);
        let mut actions = Vec::with_capacity(head.stripes);
        for (stripe, (before, stock)) in old.stock_rows.iter().zip(stocks).enumerate() {
            let after = StockRow { revision: before.revision + 1, stock, ..before.clone() };
            let head = (stripe == 0).then_some(&head);
            actions.push(self.replace(&spec.id, stripe, before, &after, head));
        }
        self.forget(&spec.id);
        Ok(self.all_or_nothing(actions).await?.then_some(PutOutcome::Changed))
    }

    /// Writes all the actions or none. `false` when a condition did not hold.
    async fn all_or_nothing(&self, actions: Vec<TransactWriteItem>) -> Result<bool, SeamError> {
        match self.table.transact(actions).await? {
            Transacted::Applied => Ok(true),
            Transacted::Cancelled(_) => Ok(false),
            Transacted::Unknown(error) => Err(error),
        }
    }

    fn put_new(&self, row: Row, is_new: bool) -> TransactWriteItem {
        let put = Put::builder().table_name(&self.table.name).set_item(Some(row));
        let put = if is_new { put.condition_expression("attribute_not_exists(pk)") } else { put };
        let put = put.build().expect("table and row are set");
        TransactWriteItem::builder().put(put).build()
    }

    fn replace(
        &self,
        item: &ItemId,
        stripe: usize,
        before: &StockRow,
        after: &StockRow,
        head: Option<&Head>,
    ) -> TransactWriteItem {
        let mut named = values([
            (":was_epoch", number(before.token.0)),
            (":was_revision", number(before.revision)),
        ]);
        let (mut set, mut remove) = (Vec::new(), vec!["counting"]);
        let stock_row = after.attributes().into_iter().map(|(name, value)| (name, Some(value)));
        for (name, value) in stock_row.chain(head.iter().flat_map(|head| head.attributes())) {
            match value {
                Some(value) => {
                    set.push(format!("{name} = :{name}"));
                    named.insert(format!(":{name}"), value);
                }
                None => remove.push(name),
            }
        }
        let update = Update::builder()
            .table_name(&self.table.name)
            .set_key(Some(Key::stock_row(item, stripe).into_row()))
            .update_expression(format!("SET {} REMOVE {}", set.join(", "), remove.join(", ")))
            .condition_expression("epoch = :was_epoch AND revision = :was_revision")
            .set_expression_attribute_values(Some(named));
        let update = update.build().expect("table, key and expression are set");
        TransactWriteItem::builder().update(update).build()
    }

    /// Writes a hall's seats under a version of their own, and returns that version;
    /// a pool has none.
    async fn put_hall(&self, spec: &ItemSpec) -> Result<String, SeamError> {
        let ItemKind::Seats(hall) = &spec.kind else { return Ok(String::new()) };
        let version = Uuid::now_v7().simple().to_string();
        let rows = parts(hall).into_iter().enumerate().map(|(part, names)| {
            let mut row = Key::hall(&spec.id, &version, part).into_row();
            row.insert("names".to_owned(), string(names));
            row
        });
        // One by one: together they may be larger than a batch.
        for row in rows.collect::<Vec<_>>() {
            self.table.put_all(vec![row]).await?;
        }
        Ok(version)
    }

    /// Counts the units that each buyer holds or owns and writes the counts under the token.
    /// `false` when somebody claimed the item meanwhile after all.
    async fn count_buyers(&self, item: &ItemId, token: FencingToken) -> Result<bool, SeamError> {
        let mut renewed = Instant::now();
        let mut live: BTreeMap<BuyerId, u32> = BTreeMap::new();
        let mut walk = Walk::of_item(item);
        while walk.is_among_the_kept() {
            for order in self.walk_on(&mut walk, None, GET_MAX).await? {
                let owns = order.status().owns_stock();
                for line in order.lines.iter().filter(|line| owns && line.item == *item) {
                    *live.entry(order.buyer.clone()).or_default() += line.ask.units();
                }
            }
            if renewed.elapsed() >= COUNTING_RENEWED {
                if !self.go_on_counting(item, token).await? {
                    return Ok(false);
                }
                renewed = Instant::now();
            }
        }
        let rows = live.into_iter().map(|(buyer, live)| {
            let mut row = Key::buyer(item, token.0, &buyer).into_row();
            row.insert("live".to_owned(), number(live));
            row
        });
        let rows: Vec<Row> = rows.collect();
        for rows in rows.chunks(1_000) {
            self.table.put_all(rows.to_vec()).await?;
            if !self.go_on_counting(item, token).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn go_on_counting(&self, item: &ItemId, token: FencingToken) -> Result<bool, SeamError> {
        let until = self.clock.now() + COUNTING;
        let update = self
            .table
            .update(Key::stock_row(item, 0))
            .update_expression("SET counting = :until")
            .condition_expression("epoch = :token")
            .expression_attribute_values(":until", number(until.as_millis()))
            .expression_attribute_values(":token", number(token.0));
        Ok(matches!(self.table.write(update).await?, Written::Row(_)))
    }

    /// Lets others claim the item again at once. Should this fail, they wait.
    async fn stop_counting(&self, item: &ItemId, token: FencingToken) {
        let update = self
            .table
            .update(Key::stock_row(item, 0))
            .update_expression("REMOVE counting")
            .condition_expression("epoch = :token")
            .expression_attribute_values(":token", number(token.0));
        if let Err(error) = self.table.write(update).await {
            tracing::warn!(%item, %error, "nobody can claim the item for {COUNTING:?}");
        }
    }
}

/// Whether the change caps buyers who had no cap.
fn cap_comes(old: &Known, spec: &ItemSpec) -> bool {
    spec.max_per_buyer.is_some() && old.spec.max_per_buyer.is_none()
}

/// Whether the units that buyers own already must be counted.
fn must_count(old: &Known, spec: &ItemSpec) -> bool {
    cap_comes(old, spec) && old.stock().available() < old.spec.capacity()
}

/// The version under which the seats of `spec` are written already; none
/// for a pool.
fn hall_version<'o>(old: &'o Known, spec: &ItemSpec) -> Option<&'o str> {
    match (&old.head.kind, &old.spec.kind, &spec.kind) {
        (HeadKind::Hall { version }, ItemKind::Seats(was), ItemKind::Seats(is)) => {
            (was == is).then_some(version)
        }
        _ => Some(""),
    }
}

/// Divides the stock into equal parts, larger ones first; a hall's is in one.
fn share_out(stock: Stock, stripes: usize) -> Vec<Stock> {
    let Stock::Pool { available } = stock else { return vec![stock] };
    // A store makes at most `STRIPES_MAX` of them.
    let (each, more) = (available / stripes as u32, available % stripes as u32);
    let part = |stripe| Stock::Pool { available: each + u32::from(stripe < more) };
    (0..stripes as u32).map(part).collect()
}

/// The seats' names, each part small enough for a row. No name has a space.
fn parts(hall: &Hall) -> Vec<String> {
    let mut parts = vec![String::new()];
    for name in hall.names() {
        let last = parts.last_mut().expect("there is one from the start");
        if last.is_empty() {
            last.push_str(name.as_str());
        } else if last.len() + name.as_str().len() < NAMES_BYTES_MAX {
            last.push(' ');
            last.push_str(name.as_str());
        } else {
            parts.push(name.as_str().to_owned());
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stock_is_shared_out_whole() {
        for (available, stripes, parts) in
            [(10, 1, vec![10]), (10, 4, vec![3, 3, 2, 2]), (2, 3, vec![1, 1, 0])]
        {
            let shared = share_out(Stock::Pool { available }, stripes);
            assert_eq!(shared.iter().map(Stock::available).collect::<Vec<_>>(), parts);
        }
    }

    #[test]
    fn a_large_hall_is_kept_in_parts() {
        let names: Vec<String> = (0..100_000).map(|seat| format!("seat-{seat:0>30}")).collect();
        let spec = ItemSpec::hall("hall", names.clone()).expect("a hall");
        let ItemKind::Seats(hall) = &spec.kind else { unreachable!("it has seats") };
        let parts = parts(hall);
        assert!(parts.iter().all(|part| part.len() <= NAMES_BYTES_MAX));
        assert_eq!(parts.join(" ").split(' ').collect::<Vec<_>>(), names);
    }
}
