//! A small sale that leaves something of every kind: orders in every state, rejected
//! ones for several reasons, items of both kinds, messages of all sorts, dead letters.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use flux_core::backends::Backend;
use flux_core::backends::embedded::Embedded;
use flux_core::clock::Clock;
use flux_core::protocol::{Commit, CommitOutcome, Message, OverCap, Verdict, View};
use flux_core::seams::{ConfirmOutcome, DeadLetter, OrderFilter, Payment};
use flux_core::{Item, ItemId, ItemSpec, Line, Lines, Order, OrderId, PaymentRef, Timestamp};

const T0: Timestamp = Timestamp::from_millis(1_790_000_000_000);
const HOLD: Duration = Duration::from_secs(600);
/// Rejected orders that are kept where others are to be forgotten.
const REJECTED_KEPT: u64 = 2;

/// Everything there is to see.
#[derive(Debug, PartialEq)]
pub(crate) struct Seen {
    items: Vec<Item>,
    orders: Vec<Order>,
    messages: Vec<Message>,
    dead: Vec<DeadLetter>,
}

impl Seen {
    /// The same, without what those versions did not write.
    pub(crate) fn without_later_fields(mut self) -> Self {
        for order in &mut self.orders {
            (order.failed_line, order.debt) = (None, None);
        }
        self
    }
}

/// A clock that stands.
#[derive(Debug)]
struct Standing;

impl Clock for Standing {
    fn now(&self) -> Timestamp {
        T0
    }
}

fn id(n: u128) -> OrderId {
    OrderId::from_uuid(uuid::Uuid::from_u128(n))
}

fn payment(n: u128) -> PaymentRef {
    PaymentRef::new(format!("pay-{n}")).expect("a reference")
}

fn units(item: &str, units: u64) -> Line {
    Line::units(item, units).expect("a line")
}

fn seats(names: &[&str]) -> Line {
    Line::seats("hall", names).expect("a line")
}

fn order(n: u128, buyer: &str, lines: Vec<Line>) -> Order {
    let buyer = buyer.parse().expect("a buyer");
    Order::queued(id(n), buyer, Lines::new(lines).expect("lines"), T0)
}

fn specs() -> [ItemSpec; 4] {
    let spec = |id: &str| ItemSpec::builder().id(id.to_owned());
    let names = (1..=20).map(|n| format!("A{n}"));
    [
        spec("ticket").name("A ticket").capacity(100).max_per_buyer(4).build().expect("a pool"),
        ItemSpec::hall("hall", names).expect("a hall"),
        spec("later").capacity(10).opens_at(T0 + HOLD).hold_seconds(60).build().expect("a pool"),
        spec("few").capacity(1).closes_at(T0 + HOLD).build().expect("a pool"),
    ]
}

/// Decides messages one by one, as a worker does.
async fn decide(backend: &Backend, messages: impl IntoIterator<Item = Message>, now: Timestamp) {
    for message in messages {
        let mut told = Vec::new();
        while let Err(over) = try_decide(backend, &message, now, &told).await {
            told.push(over);
        }
    }
}

/// Decides a message, knowing of some buyers; fails with another over the cap.
async fn try_decide(
    backend: &Backend,
    message: &Message,
    now: Timestamp,
    told: &[OverCap],
) -> Result<(), OverCap> {
    let items: Vec<ItemId> = specs().into_iter().map(|spec| spec.id).collect();
    let mut commit = Commit::default();
    let mut view = View::default();
    for claim in backend.store.claim(&items).await.expect("claimed").into_iter().flatten() {
        commit.claims.push((claim.spec.id.clone(), claim.token));
        view.insert(claim);
    }
    told.iter().cloned().for_each(|over| view.learn(over));
    let found = backend.store.orders(&[message.order_id()]).await.expect("read").remove(0);
    let Verdict::Write(write) = view.decide(message, found.as_ref(), now) else {
        panic!("{message:?} is to be decided")
    };
    commit.writes.push(write);
    match backend.store.commit(&[commit]).await.expect("committed").remove(0) {
        CommitOutcome::Applied => Ok(()),
        CommitOutcome::Conflict { mut over_cap, .. } => Err(over_cap.remove(0)),
        outcome => panic!("{outcome:?}"),
    }
}

async fn pay(backend: &Backend, n: u128) {
    let paid = backend.store.confirm(&[Payment::new(id(n), payment(n), T0)]).await;
    assert!(matches!(paid.expect("paid")[..], [ConfirmOutcome::Settled(_)]));
}

/// Tells the story in a directory, and what is left at its end. With `gaps`, some
/// rejected orders are forgotten.
pub(crate) async fn tell(dir: &Path, gaps: bool) -> Seen {
    let rejected_max = if gaps { REJECTED_KEPT } else { 1_000 };
    let opened = Embedded::builder(dir).clock(Arc::new(Standing)).rejected_max(rejected_max).open();
    let backend = opened.expect("it opens").backend();
    for spec in specs() {
        backend.store.put_item(&spec).await.expect("put");
    }
    let place = |n, buyer, lines| Message::Place(order(n, buyer, lines));
    let placed = [
        place(1, "ann", vec![units("ticket", 2)]),
        place(2, "ben", vec![units("ticket", 1), seats(&["A1", "A2"])]),
        place(3, "cem", vec![seats(&["A3"])]),
        place(4, "dee", vec![units("ticket", 3)]),
        place(5, "eve", vec![units("few", 1)]),
        place(6, "fay", vec![seats(&["A4", "A5"])]),
        place(7, "gus", vec![units("ticket", 1)]),
        // Turned down, each for a reason of its own.
        place(20, "ann", vec![units("ticket", 3)]),
        place(21, "hal", vec![seats(&["A6", "A1"])]),
        place(22, "hal", vec![units("later", 1)]),
        place(23, "hal", vec![units("few", 1), units("ticket", 1)]),
        place(24, "hal", vec![units("nothing", 1)]),
    ];
    decide(&backend, placed, T0).await;
    for n in [2, 6] {
        pay(&backend, n).await;
    }
    let ended = [Message::Release(id(3)), Message::Cancel(id(6))];
    decide(&backend, ended, T0 + HOLD / 2).await;
    let expired = [4, 5].map(|n| Message::Expire(id(n)));
    decide(&backend, expired, T0 + HOLD).await;
    // Its unit goes to another before its money comes.
    decide(&backend, [place(8, "ivy", vec![units("few", 1)])], T0 + HOLD).await;
    decide(&backend, [Message::LatePayment(id(5), payment(5))], T0 + HOLD * 2).await;

    let queued = [
        place(40, "jan", vec![units("ticket", 1)]),
        place(41, "kim", vec![units("ticket", 1), seats(&["A7", "A8"])]),
        Message::Release(id(1)),
        Message::Cancel(id(2)),
        Message::Expire(id(7)),
        Message::LatePayment(id(4), payment(4)),
        place(42, "lea", vec![units("later", 2)]),
        place(43, "max", vec![units("few", 1)]),
    ];
    backend.queue.send(&queued[..2]).await.expect("sent");
    backend.queue.send(&queued[2..]).await.expect("sent");
    let taken = backend.queue.receive(queued.len(), Duration::ZERO).await.expect("taken");
    let buried = taken.iter().filter(|taken| [42, 43].map(id).contains(&taken.message.order_id()));
    let buried: Vec<_> =
        buried.map(|taken| (taken.receipt.clone(), "it was poison".into())).collect();
    assert_eq!(buried.len(), 2);
    backend.queue.bury(&buried).await.expect("buried");
    drop(backend);
    // As whoever opens it next will see it.
    let again = Embedded::builder(dir).clock(Arc::new(Standing)).rejected_max(rejected_max).open();
    see(&again.expect("it opens again").backend()).await
}

/// Looks at everything, and leaves it as it is.
pub(crate) async fn see(backend: &Backend) -> Seen {
    let page = backend.store.list_orders(&OrderFilter::default(), None, 100).await.expect("listed");
    assert_eq!(page.next, None);
    let taken = backend.queue.receive(100, Duration::ZERO).await.expect("taken");
    let receipts: Vec<_> = taken.iter().map(|taken| taken.receipt.clone()).collect();
    backend.queue.retry(&receipts, Duration::ZERO).await.expect("handed back");
    Seen {
        items: backend.store.list_items(None, 100).await.expect("listed"),
        orders: page.orders,
        messages: taken.into_iter().map(|taken| taken.message).collect(),
        dead: backend.queue.dead_letters(100).await.expect("listed"),
    }
}
