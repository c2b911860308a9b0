//! Listings of orders, from the logs of the items they are for. Nothing
//! scans: a listing reads an item's log, its tail on the stock row, then the next
//! stock row or item, and last the strays, and may stop anywhere.

use std::collections::HashMap;
use std::time::Duration;

use flux_core::backoff::Backoff;
use flux_core::seams::{Cursor, OrderFilter, OrderPage, SeamError};
use flux_core::{BuyerId, ItemId, Order, OrderId, OrderStatus};
use tokio::time::sleep;

use super::DynamoStore;
use super::rows::{
    Entry, Key, Row, SERVICE, damaged, get_number, opt_number, read_order, string, text,
};
use super::stock_row::Head;
use super::table::{GET_MAX, values};

/// Rows of a log read in one call.
const LOG_ROWS: i32 = 20;
/// Looks at what one transaction wrote, until all of it is to be seen.
const LOOKS_MAX: u32 = 6;
/// The same where it may just as well be forgotten.
const LOOKS_MAX_REJECTED: u32 = 3;
/// The first pause between them; it doubles.
const PAUSE: Backoff = Backoff::new(Duration::from_millis(20), Duration::from_millis(500));
/// Calls made for one page; what was found by then is the page.
const STEPS_MAX: usize = 20;

/// One of the two lists of a stripe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum List {
    /// Orders that are kept for good. What is named there is there.
    Kept,
    /// Orders that were turned down, and are forgotten in time, as are the rows that
    /// name them. What is missing was forgotten.
    Rejected,
}

/// The position of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
enum At {
    /// In the log of a stripe, or past it in its tail: those of its orders whose
    /// number is less than `seen` were seen.
    Log {
        item: ItemId,
        list: List,
        stripe: usize,
        seen: u64,
    },
    /// Done with the items up to this one, or before the first.
    Items(Option<ItemId>),
    /// Among the strays, after this key and so many orders of the next.
    Strays {
        after: String,
        seen: usize,
    },
    End,
}

/// A listing on its way.
#[derive(Debug, Clone)]
pub(super) struct Walk {
    item: Option<ItemId>,
    at: At,
}

impl Walk {
    pub(super) fn of_item(item: &ItemId) -> Self {
        let at = At::Log { item: item.clone(), list: List::Kept, stripe: 0, seen: 0 };
        Self { item: Some(item.clone()), at }
    }

    fn new(filter: &OrderFilter, after: Option<&Cursor>) -> Result<Self, SeamError> {
        let start = match &filter.item {
            Some(item) => Self::of_item(item),
            None => Self { item: None, at: At::Items(None) },
        };
        let Some(cursor) = after else { return Ok(start) };
        let at = read_cursor(&cursor.0).ok_or(SeamError::UnknownCursor { service: SERVICE })?;
        Ok(Self { at, ..start })
    }

    /// Whether there may be more orders of the item that hold or own stock.
    pub(super) fn is_among_the_kept(&self) -> bool {
        matches!(self.at, At::Log { list: List::Kept, .. })
    }

    fn cursor(&self) -> Option<Cursor> {
        let text = match &self.at {
            At::Log { item, list: List::Kept, stripe, seen } => {
                format!("log.{stripe}.{seen}.{item}")
            }
            At::Log { item, list: List::Rejected, stripe, seen } => {
                format!("rejected.{stripe}.{seen}.{item}")
            }
            At::Items(None) => "items".to_owned(),
            At::Items(Some(item)) => format!("items.{item}"),
            At::Strays { after, seen } => format!("stray.{seen}.{after}"),
            At::End => return None,
        };
        Some(Cursor(text))
    }
}

fn read_cursor(text: &str) -> Option<At> {
    let (kind, rest) = text.split_once('.').unwrap_or((text, ""));
    Some(match kind {
        "log" | "rejected" => {
            let list = if kind == "log" { List::Kept } else { List::Rejected };
            let (stripe, rest) = rest.split_once('.')?;
            let (seen, item) = rest.split_once('.')?;
            let item = ItemId::new(item).ok()?;
            At::Log { item, list, stripe: stripe.parse().ok()?, seen: seen.parse().ok()? }
        }
        "items" if text == "items" => At::Items(None),
        "items" => At::Items(Some(ItemId::new(rest).ok()?)),
        "stray" => {
            let (seen, after) = rest.split_once('.')?;
            let seen = seen.parse().ok()?;
            let is_ours = |byte: u8| byte.is_ascii_hexdigit() || byte == b'-';
            after.bytes().all(is_ours).then(|| At::Strays { after: after.to_owned(), seen })?
        }
        _ => return None,
    })
}

/// Orders that a row of a log or the tail of a stock row names, the number of the first
/// of them, and how many were seen before.
struct Named {
    first: u64,
    entries: Vec<Entry>,
    seen: usize,
}

impl DynamoStore {
    pub(super) async fn page_of_orders(
        &self,
        filter: &OrderFilter,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<OrderPage, SeamError> {
        let mut walk = Walk::new(filter, after)?;
        let mut orders = Vec::new();
        for _ in 0..STEPS_MAX {
            if walk.at == At::End || orders.len() >= limit {
                break;
            }
            let room = (limit - orders.len()).min(GET_MAX);
            let found = self.walk_on(&mut walk, filter.buyer.as_ref(), room).await?;
            orders.extend(found.into_iter().filter(|order| filter.matches(order)));
        }
        Ok(OrderPage::new(orders, walk.cursor()))
    }

    /// One step: at most `limit` orders, maybe none; those of `buyer` are
    /// among them.
    pub(super) async fn walk_on(
        &self,
        walk: &mut Walk,
        buyer: Option<&BuyerId>,
        limit: usize,
    ) -> Result<Vec<Order>, SeamError> {
        let everything = walk.item.is_none();
        let wanted = |entry: &Entry| {
            (!everything || entry.is_home) && buyer.is_none_or(|buyer| entry.may_be_of(buyer))
        };
        let mut ids = Vec::new();
        let list = if walk.is_among_the_kept() { List::Kept } else { List::Rejected };
        match walk.at.clone() {
            At::End => {}
            At::Items(after) => {
                walk.at = match self.item_ids(after.as_ref(), 1).await?.into_iter().next() {
                    Some(item) => At::Log { item, list: List::Kept, stripe: 0, seen: 0 },
                    None => At::Strays { after: String::new(), seen: 0 },
                };
            }
            At::Log { item, list, stripe, seen } => {
                let (rows, stripes) = self.read_log(&item, list, stripe, seen).await?;
                let mut now_seen = seen;
                let has_more = rows.is_some();
                for Named { first, entries, seen } in rows.into_iter().flatten() {
                    for (number, entry) in (first..).zip(entries).skip(seen) {
                        if ids.len() == limit {
                            break;
                        }
                        now_seen = number + 1;
                        ids.extend(wanted(&entry).then_some(entry.id));
                    }
                }
                walk.at = if has_more {
                    At::Log { item, list, stripe, seen: now_seen }
                } else if stripe + 1 < stripes {
                    At::Log { item, list, stripe: stripe + 1, seen: 0 }
                } else if list == List::Kept && stripes > 0 {
                    At::Log { item, list: List::Rejected, stripe: 0, seen: 0 }
                } else if everything {
                    At::Items(Some(item))
                } else {
                    At::Strays { after: String::new(), seen: 0 }
                };
            }
            At::Strays { after, seen } => {
                let rows = self.read_strays(&after).await?;
                walk.at = if rows.is_empty() { At::End } else { At::Strays { after, seen } };
                let mut seen = seen;
                'rows: for row in rows {
                    let is_meant = walk.item.as_ref().is_none_or(|item| {
                        text(&row, "item").is_ok_and(|stray| stray == item.as_str())
                    });
                    let entries = Entry::read_all(&row, "orders")?;
                    let after = text(&row, "sk")?.to_owned();
                    for (at, entry) in entries.iter().enumerate().skip(seen) {
                        if ids.len() == limit {
                            seen = at;
                            if let At::Strays { seen: before, .. } = &mut walk.at {
                                *before = seen;
                            }
                            break 'rows;
                        }
                        ids.extend((is_meant && wanted(entry)).then_some(entry.id));
                    }
                    seen = 0;
                    walk.at = At::Strays { after, seen: 0 };
                }
            }
        }
        let mut orders = self.named_orders(&ids, list).await?;
        // One that was forgotten and came again is named where it belongs now.
        orders.retain(|order| list == List::Kept || order.status() == OrderStatus::Rejected);
        Ok(orders)
    }

    /// Orders that a list names. One transaction wrote both, but a reader may
    /// see one of its rows for a while before another.
    async fn named_orders(&self, ids: &[OrderId], list: List) -> Result<Vec<Order>, SeamError> {
        let mut rows: HashMap<Key, Row> = HashMap::new();
        let looks_max = if list == List::Kept { LOOKS_MAX } else { LOOKS_MAX_REJECTED };
        for looks in 0..looks_max {
            let keys = ids.iter().map(|id| Key::order(*id));
            let unseen: Vec<Key> = keys.filter(|key| !rows.contains_key(key)).collect();
            if unseen.is_empty() {
                break;
            }
            if looks > 0 {
                sleep(PAUSE.full_jitter(looks)).await;
            }
            rows.extend(self.table.get_all(unseen).await?);
        }
        let order = |id: &OrderId| match (rows.get(&Key::order(*id)), list) {
            (Some(row), _) => Some(read_order(row)),
            (None, List::Rejected) => None,
            (None, List::Kept) => {
                Some(Err(unseen(&format!("order {id} is named in a log and not there"))))
            }
        };
        ids.iter().filter_map(order).collect()
    }

    /// The orders of a stripe from the `seen`th on, as far as one call goes;
    /// `None` when there are no more. And how many stripes there are.
    async fn read_log(
        &self,
        item: &ItemId,
        list: List,
        stripe: usize,
        seen: u64,
    ) -> Result<(Option<Vec<Named>>, usize), SeamError> {
        let (head, stock_row) = (Key::stock_row(item, 0), Key::stock_row(item, stripe));
        for looks in 1..=LOOKS_MAX {
            if looks > 1 {
                sleep(PAUSE.full_jitter(looks - 1)).await;
            }
            let rows = self.table.get_all(vec![head.clone(), stock_row.clone()]).await?;
            let (Some(head), Some(row)) = (rows.get(&head), rows.get(&stock_row)) else {
                return Ok((None, 0));
            };
            let stripes = Head::read(head)?.stripes;
            let (tail, first) = match list {
                List::Kept => ("tail", get_number(row, "logged")?),
                List::Rejected => ("rejected", opt_number(row, "rejected_logged")?.unwrap_or(0)),
            };
            if seen < first {
                let rows = self.read_log_rows(item, list, stripe, seen).await?;
                if !rows.is_empty() {
                    return Ok((Some(rows), stripes));
                }
                let until = opt_number(row, "rejected_until")?.unwrap_or(0);
                let is_past = until <= self.clock.now().as_millis() / 1_000;
                let is_forgotten = is_past || looks >= LOOKS_MAX_REJECTED;
                if list == List::Kept || !is_forgotten {
                    continue;
                }
            }
            let entries = Entry::read_all(row, tail)?;
            let seen = usize::try_from(seen.saturating_sub(first)).unwrap_or(usize::MAX);
            let is_new = seen < entries.len();
            return Ok((is_new.then(|| vec![Named { first, entries, seen }]), stripes));
        }
        Err(unseen(&format!("the log of {item} goes on at {seen}, and that is not there")))
    }

    async fn read_log_rows(
        &self,
        item: &ItemId,
        list: List,
        stripe: usize,
        seen: u64,
    ) -> Result<Vec<Named>, SeamError> {
        let key = match list {
            List::Kept => Key::log(item, stripe, seen),
            List::Rejected => Key::rejected_log(item, stripe, seen),
        };
        let query = self.table.query().consistent_read(true);
        let named = values([(":pk", string(&key.pk)), (":sk", string(&key.sk))]);
        let query = query.set_expression_attribute_values(Some(named));
        // The row that has it begins there or before.
        let back = query.clone().key_condition_expression("pk = :pk AND sk <= :sk");
        let (mut rows, _) = self.table.page(back.scan_index_forward(false).limit(1)).await?;
        let on = query.key_condition_expression("pk = :pk AND sk > :sk").limit(LOG_ROWS);
        rows.extend(self.table.page(on).await?.0);
        let mut next = seen;
        let mut named = Vec::with_capacity(rows.len());
        for row in &rows {
            let first: u64 = text(row, "sk")?.parse().map_err(|_| damaged(row, "sk"))?;
            let entries = Entry::read_all(row, "orders")?;
            let end = first + entries.len() as u64;
            // Of those turned down, rows in between may be forgotten.
            if end > next && (first <= next || list == List::Rejected) {
                let seen = usize::try_from(next.saturating_sub(first)).unwrap_or(usize::MAX);
                named.push(Named { first, entries, seen });
                next = end;
            }
        }
        Ok(named)
    }

    async fn read_strays(&self, after: &str) -> Result<Vec<Row>, SeamError> {
        let first = Key::stray("");
        // Not even the earliest key comes before a space.
        let after = if after.is_empty() { " " } else { after };
        let query = self
            .table
            .query()
            .consistent_read(true)
            .key_condition_expression("pk = :pk AND sk > :sk")
            .set_expression_attribute_values(Some(values([
                (":pk", string(first.pk)),
                (":sk", string(after)),
            ])))
            .limit(LOG_ROWS);
        Ok(self.table.page(query).await?.0)
    }

    /// Ids of items, those after `after`, at most `limit`.
    pub(super) async fn item_ids(
        &self,
        after: Option<&ItemId>,
        limit: usize,
    ) -> Result<Vec<ItemId>, SeamError> {
        let after = after.map_or(" ", ItemId::as_str);
        let query = self
            .table
            .query()
            .consistent_read(true)
            .key_condition_expression("pk = :pk AND sk > :sk")
            .set_expression_attribute_values(Some(values([
                (":pk", string("items")),
                (":sk", string(after)),
            ])));
        let (mut ids, mut next) = (Vec::new(), None);
        while ids.len() < limit {
            let page = i32::try_from(limit - ids.len()).unwrap_or(i32::MAX);
            let query = query.clone().set_exclusive_start_key(next).limit(page);
            let (rows, more) = self.table.page(query).await?;
            for row in &rows {
                ids.push(ItemId::new(text(row, "sk")?).map_err(|_| damaged(row, "sk"))?);
            }
            next = more;
            if next.is_none() {
                break;
            }
        }
        Ok(ids)
    }
}

/// The failure to see an order that must be there, yet.
fn unseen(what: &str) -> SeamError {
    SeamError::unavailable(SERVICE).with_source(what)
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::super::answered;
    use super::*;

    #[test]
    fn a_cursor_reads_as_it_was_written_and_no_other_does() {
        let item = || ItemId::new("a.b~").expect("a name");
        for at in [
            At::Log { item: item(), list: List::Kept, stripe: 3, seen: 71 },
            At::Log { item: item(), list: List::Rejected, stripe: 0, seen: 7 },
            At::Items(None),
            At::Items(Some(item())),
            At::Strays { after: String::new(), seen: 0 },
            At::Strays { after: "0192-ab".into(), seen: 4 },
        ] {
            let walk = Walk { item: None, at: at.clone() };
            let cursor = walk.cursor().expect("not at the end");
            assert_eq!(read_cursor(&cursor.0), Some(at), "{cursor:?}");
        }
        for foreign in ["", "7", "log", "log.0", "log.0.1.", "log.x.1.a", "stray.0.a b", "items."] {
            assert_eq!(read_cursor(foreign), None, "{foreign:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn orders_that_are_there_wait_for_nothing() {
        let id = OrderId::from_uuid(uuid::Uuid::nil());
        let row = format!(
            r#"{{"pk":{{"S":"order {id}"}},"sk":{{"S":"order"}},"buyer":{{"S":"ann"}},
                "lines":{{"L":[{{"M":{{"item":{{"S":"a"}},"units":{{"N":"1"}}}}}}]}},
                "placed":{{"N":"7"}},"status":{{"S":"rejected"}},"decided":{{"N":"8"}},
                "reason":{{"S":"sold_out"}}}}"#
        );
        let client = answered::client(format!(r#"{{"Responses":{{"t":[{row}]}}}}"#));
        let store = DynamoStore::builder().client(&client).table("t").build();
        let began = Instant::now();
        let orders = store.named_orders(&[id], List::Kept).await.expect("read");
        assert_eq!((orders.len(), began.elapsed()), (1, Duration::ZERO));
    }
}
