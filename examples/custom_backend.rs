//! A store of your own: the one seam that must not be wrong, written as simply
//! as it can be (a mutex around maps), and the suite that says whether it is
//! right.
//!
//! ```text
//! cargo run --example custom_backend
//! ```

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use flux_core::conformance;
use flux_core::protocol::{
    Claim, Commit, CommitOutcome, ConfirmRuling, Effect, Expect, FencingToken, OverCap,
    RefundRuling, Stock, confirm, refund, revise,
};
use flux_core::seams::{
    ConfirmOutcome, Cursor, DueHolds, InventoryStore, OrderFilter, OrderPage, Owed, Payment,
    PutOutcome, RefundOutcome, Repayment, SeamError,
};
use flux_core::{BuyerId, Item, ItemId, ItemSpec, Money, Order, OrderId, OrderStatus, Timestamp};

/// A store under one lock, so that each call happens at one moment.
#[derive(Default)]
pub(crate) struct MapStore {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    last_token: u64,
    rows: BTreeMap<ItemId, StockRow>,
    orders: BTreeMap<OrderId, Order>,
}

#[derive(Clone)]
struct StockRow {
    spec: Arc<ItemSpec>,
    stock: Stock,
    /// The token of the newest claim, or of the change of definition that fenced it.
    token: FencingToken,
}

impl MapStore {
    fn state(&self) -> MutexGuard<'_, State> {
        // No call leaves the maps half changed, not even one that panics.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn next_token(&mut self) -> FencingToken {
        self.last_token += 1;
        FencingToken(self.last_token)
    }

    /// Units of `item` in orders that `counts` holds for.
    fn units(&self, item: &ItemId, counts: impl Fn(&Order) -> bool) -> u32 {
        self.orders.values().filter(|order| counts(order)).map(|order| units(order, item)).sum()
    }

    fn item(&self, id: &ItemId) -> Option<Item> {
        let row = self.rows.get(id)?;
        let item = Item::builder()
            .spec(row.spec.clone())
            .available(row.stock.available())
            .held(self.units(id, |order| order.status() == OrderStatus::Held))
            .sold(self.units(id, |order| order.status() == OrderStatus::Confirmed));
        Some(item.build())
    }

    fn is_as_expected(&self, id: OrderId, expect: Expect) -> bool {
        expect.is_met_by(self.orders.get(&id).map(|order| (order.status(), order.money())))
    }

    fn commit(&mut self, commit: &Commit) -> CommitOutcome {
        match self.judge(commit) {
            Ok(rows) => {
                self.rows.extend(rows);
                let orders = commit.writes.iter().map(|write| write.order.clone());
                self.orders.extend(orders.map(|order| (order.id, order)));
                CommitOutcome::Applied
            }
            Err(refusal) => refusal,
        }
    }

    /// The stock rows as the commit would leave them, or why it may not.
    fn judge(&self, commit: &Commit) -> Result<HashMap<ItemId, StockRow>, CommitOutcome> {
        let (mut rows, mut fenced) = (HashMap::new(), Vec::new());
        for (item, token) in &commit.claims {
            match self.rows.get(item) {
                Some(row) if row.token == *token => {
                    rows.insert(item.clone(), row.clone());
                }
                _ => fenced.push(item.clone()),
            }
        }
        if !fenced.is_empty() {
            return Err(CommitOutcome::Fenced(fenced));
        }

        let moved: Vec<_> = commit
            .writes
            .iter()
            .filter(|write| !self.is_as_expected(write.order.id, write.expect))
            .map(|write| write.order.id)
            .collect();
        let over_cap = self.over_cap(commit);
        if !moved.is_empty() || !over_cap.is_empty() {
            return Err(CommitOutcome::Conflict { moved, over_cap, barred: vec![] });
        }

        for write in &commit.writes {
            for line in write.order.lines.iter().filter(|_| write.effect() != Effect::None) {
                let refusal = || CommitOutcome::Fenced(vec![line.item.clone()]);
                let StockRow { spec, stock, .. } = rows.get_mut(&line.item).ok_or_else(refusal)?;
                match write.effect() {
                    Effect::Takes => stock.take(spec, &line.ask).map_err(|_| refusal())?,
                    Effect::GivesBack => stock.give_back(spec, &line.ask),
                    Effect::None => {}
                }
            }
        }
        Ok(rows)
    }

    /// The buyers who would come to own more of a capped item than its cap.
    fn over_cap(&self, commit: &Commit) -> Vec<OverCap> {
        let mut change: BTreeMap<(&ItemId, &BuyerId), i64> = BTreeMap::new();
        for write in &commit.writes {
            for line in write.order.lines.iter() {
                *change.entry((&line.item, &write.order.buyer)).or_default() += match write.effect()
                {
                    Effect::Takes => i64::from(line.ask.units()),
                    Effect::GivesBack => -i64::from(line.ask.units()),
                    Effect::None => 0,
                };
            }
        }
        let over = |((item, buyer), change): ((&ItemId, &BuyerId), i64)| {
            let cap = self.rows.get(item)?.spec.max_per_buyer?.get();
            let owns = |order: &Order| order.buyer == *buyer && order.status().owns_stock();
            let live = self.units(item, owns);
            let breaks = change > 0 && i64::from(live) + change > i64::from(cap);
            breaks.then(|| OverCap { item: item.clone(), buyer: buyer.clone(), live })
        };
        change.into_iter().filter_map(over).collect()
    }

    fn confirm(&mut self, payment: &Payment) -> ConfirmOutcome {
        let Some(order) = self.orders.get(&payment.order).cloned() else {
            return ConfirmOutcome::NotFound;
        };
        match confirm(&order, &payment.payment, payment.at) {
            ConfirmRuling::Write(write) => {
                self.orders.insert(write.order.id, write.order.clone());
                ConfirmOutcome::Settled(write.order)
            }
            ConfirmRuling::Repeat => ConfirmOutcome::Settled(order),
            ConfirmRuling::Late => ConfirmOutcome::Late(order),
            ConfirmRuling::Owe(write) => {
                self.orders.insert(write.order.id, write.order.clone());
                ConfirmOutcome::NotHeld(write.order)
            }
            ConfirmRuling::NotHeld => ConfirmOutcome::NotHeld(order),
        }
    }

    fn refund(&mut self, repayment: &Repayment) -> RefundOutcome {
        let Some(order) = self.orders.get(&repayment.order).cloned() else {
            return RefundOutcome::NotFound;
        };
        match refund(&order, &repayment.refund) {
            RefundRuling::Write(write) => {
                self.orders.insert(write.order.id, write.order.clone());
                RefundOutcome::Refunded(write.order)
            }
            RefundRuling::Repeat => RefundOutcome::Refunded(order),
            RefundRuling::Another => RefundOutcome::ByAnother(order),
            RefundRuling::NotOwed => RefundOutcome::NotOwed(order),
        }
    }
}

fn units(order: &Order, item: &ItemId) -> u32 {
    order.lines.iter().filter(|line| line.item == *item).map(|line| line.ask.units()).sum()
}

#[async_trait]
impl InventoryStore for MapStore {
    async fn put_item(&self, spec: &ItemSpec) -> Result<PutOutcome, SeamError> {
        let mut state = self.state();
        if let Err(invalid) = spec.check() {
            return Ok(PutOutcome::Refused(invalid.into()));
        }
        let (stock, outcome) = match state.rows.get(&spec.id) {
            None => (Stock::full(spec), PutOutcome::Created),
            Some(row) if *row.spec == *spec => return Ok(PutOutcome::Unchanged),
            Some(row) => match revise(&row.spec, &row.stock, spec) {
                Ok(stock) => (stock, PutOutcome::Changed),
                Err(error) => return Ok(PutOutcome::Refused(error)),
            },
        };
        let row = StockRow { spec: Arc::new(spec.clone()), stock, token: state.next_token() };
        state.rows.insert(spec.id.clone(), row);
        Ok(outcome)
    }

    async fn claim(&self, items: &[ItemId]) -> Result<Vec<Option<Claim>>, SeamError> {
        let mut state = self.state();
        let mut claim = |item| {
            let token = state.next_token();
            let row = state.rows.get_mut(item)?;
            row.token = token;
            Some(Claim { token, spec: row.spec.clone(), stock: row.stock.clone() })
        };
        Ok(items.iter().map(&mut claim).collect())
    }

    async fn commit(&self, commits: &[Commit]) -> Result<Vec<CommitOutcome>, SeamError> {
        let mut state = self.state();
        Ok(commits.iter().map(|commit| state.commit(commit)).collect())
    }

    async fn confirm(&self, payments: &[Payment]) -> Result<Vec<ConfirmOutcome>, SeamError> {
        let mut state = self.state();
        Ok(payments.iter().map(|payment| state.confirm(payment)).collect())
    }

    async fn refund(&self, repayments: &[Repayment]) -> Result<Vec<RefundOutcome>, SeamError> {
        let mut state = self.state();
        Ok(repayments.iter().map(|repayment| state.refund(repayment)).collect())
    }

    async fn owed(&self) -> Result<Owed, SeamError> {
        let state = self.state();
        let owing = || state.orders.values().filter(|order| order.money() == Money::Owed);
        Ok(Owed::new(owing().count() as u64, owing().filter_map(Order::owed_since).min()))
    }

    async fn orders(&self, ids: &[OrderId]) -> Result<Vec<Option<Order>>, SeamError> {
        let state = self.state();
        Ok(ids.iter().map(|id| state.orders.get(id).cloned()).collect())
    }

    async fn list_orders(
        &self,
        filter: &OrderFilter,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<OrderPage, SeamError> {
        let after: Option<OrderId> = match after.map(|cursor| cursor.0.parse()) {
            Some(Err(_)) => return Err(SeamError::UnknownCursor { service: "maps" }),
            after => after.and_then(Result::ok),
        };
        let state = self.state();
        let rest = state.orders.values().filter(|order| after.is_none_or(|id| order.id > id));
        let page: Vec<Order> = rest.take(limit).cloned().collect();
        let next = page.last().filter(|_| page.len() == limit);
        let next = next.map(|order| Cursor(order.id.to_string()));
        let orders = page.into_iter().filter(|order| filter.matches(order)).collect();
        Ok(OrderPage::new(orders, next))
    }

    async fn due_holds(&self, now: Timestamp, limit: usize) -> Result<DueHolds, SeamError> {
        let state = self.state();
        let held = state.orders.values().filter(|order| order.status() == OrderStatus::Held);
        let ends = held.filter_map(|order| Some((order.hold()?.expires_at, order.id)));
        let (mut due, later): (Vec<_>, Vec<_>) = ends.partition(|(end, _)| *end <= now);
        due.sort_unstable();
        let next = later.into_iter().map(|(end, _)| end).min();
        Ok(DueHolds::new(due.into_iter().map(|(_, id)| id).take(limit).collect(), next))
    }

    async fn items(&self, ids: &[ItemId]) -> Result<Vec<Option<Item>>, SeamError> {
        let state = self.state();
        Ok(ids.iter().map(|id| state.item(id)).collect())
    }

    async fn list_items(
        &self,
        after: Option<&ItemId>,
        limit: usize,
    ) -> Result<Vec<Item>, SeamError> {
        let state = self.state();
        let rest = state.rows.keys().filter(|id| after.is_none_or(|after| *id > after));
        Ok(rest.take(limit).filter_map(|id| state.item(id)).collect())
    }

    async fn stock(&self, item: &ItemId) -> Result<Option<(Arc<ItemSpec>, Stock)>, SeamError> {
        let state = self.state();
        Ok(state.rows.get(item).map(|row| (row.spec.clone(), row.stock.clone())))
    }
}

#[tokio::main]
async fn main() {
    let report = conformance::store(|| async { Arc::new(MapStore::default()) }).await;
    print!("{report}");
    report.assert_clean();
}
