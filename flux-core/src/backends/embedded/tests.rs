//! The embedded backend by itself; the conformance suite tests the rest.

use std::num::NonZeroU32;
use std::time::Duration;

use redb::Database;
use tempfile::TempDir;

use super::*;
use crate::backends::state::ledger::tests::{T0, hold, item, order, release, units};
use crate::clock::ClockReference;
use crate::protocol::{
    BuyerRules, Commit, CommitOutcome, Expect, ItemSpec, Message, Order, OrderState, OrderStatus,
    OrderWrite, PaymentRef, PutItemError, Reason, Timestamp,
};
use crate::seams::{
    ConfirmOutcome, Consumer, Cursor, KeptClock, OrderFilter, OrderPage, Payment, PutOutcome,
    SeamError,
};

fn dir() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

fn open(dir: &TempDir) -> Backend {
    Embedded::open(dir.path()).expect("opens").backend()
}

async fn put(backend: &Backend, spec: ItemSpec) {
    backend.store.put_item(&spec).await.expect("put");
}

async fn commit(backend: &Backend, items: &[&str], writes: Vec<OrderWrite>) -> CommitOutcome {
    let items: Vec<_> = items.iter().map(|id| item(id)).collect();
    let claims = backend.store.claim(&items).await.expect("claim");
    let tokens = claims.into_iter().map(|claim| claim.expect("there").token);
    let commit = Commit { claims: items.into_iter().zip(tokens).collect(), writes };
    backend.store.commit(&[commit]).await.expect("commit").remove(0)
}

async fn numbers(backend: &Backend, id: &str) -> (u32, u32, u32) {
    let items = backend.store.items(&[item(id)]).await.expect("items");
    let item = items[0].as_ref().expect("there");
    (item.available, item.held, item.sold)
}

fn one(n: u128, buyer: &str, item: &str) -> Order {
    order(n, buyer, vec![units(item, 1)])
}

#[tokio::test]
async fn everything_is_there_after_a_reopen() {
    let dir = dir();
    let backend = open(&dir);
    let capped = ItemSpec::builder().id("a").name("A").capacity(9).max_per_buyer(2);
    put(&backend, capped.build().expect("pool")).await;
    put(&backend, ItemSpec::hall("h", ["x", "y", "z"]).expect("hall")).await;
    let seat = order(4, "ann", vec![crate::Line::seats("h", ["y"]).expect("line")]);
    let rejected = one(5, "bob", "a");
    let rejected = OrderWrite {
        order: rejected.with_state(OrderState::Rejected(T0, Reason::SoldOut)),
        expect: Expect::Absent,
    };
    let orders = [one(1, "ann", "a"), one(2, "ann", "a"), one(3, "bob", "a"), seat];
    let mut writes: Vec<_> = orders.iter().map(hold).collect();
    writes.push(rejected.clone());
    assert_eq!(commit(&backend, &["a", "h"], writes).await, CommitOutcome::Applied);
    let outcome = commit(&backend, &["a"], vec![release(&orders[2])]).await;
    assert_eq!(outcome, CommitOutcome::Applied);
    let payment = PaymentRef::new("pay").expect("ref");
    let payment = Payment { order: orders[0].id, payment, at: T0 };
    let twice = [payment.clone(), payment];
    let paid = backend.store.confirm(&twice).await.expect("confirm");
    assert!(
        matches!(&paid[..], [ConfirmOutcome::Settled(a), ConfirmOutcome::Settled(b)] if a == b)
    );

    let ids: Vec<_> = orders.iter().map(|order| order.id).chain([rejected.order.id]).collect();
    let before = backend.store.orders(&ids).await.expect("orders");
    let token =
        backend.store.claim(&[item("a")]).await.expect("claim")[0].clone().expect("a").token;
    drop(backend);

    let backend = open(&dir);
    assert_eq!(backend.store.orders(&ids).await.expect("orders"), before);
    let statuses: Vec<_> = before.iter().flatten().map(Order::status).collect();
    use OrderStatus::{Confirmed, Held, Rejected, Released};
    assert_eq!(statuses, [Confirmed, Held, Released, Held, Rejected]);
    assert_eq!(numbers(&backend, "a").await, (7, 1, 1));
    assert_eq!(numbers(&backend, "h").await, (2, 1, 0));
    let claim = backend.store.claim(&[item("h")]).await.expect("claim")[0].clone().expect("h");
    assert!(claim.token > token, "tokens never repeat");
    let due = Timestamp::from_millis(u64::MAX);
    let due = backend.store.due_holds(due, 9).await.expect("due").due;
    assert_eq!(due.len(), 2, "{due:?}");

    let third = commit(&backend, &["a"], vec![hold(&one(9, "ann", "a"))]).await;
    assert!(matches!(third, CommitOutcome::Conflict { over_cap, .. } if over_cap[0].live == 2));
    let taken = order(10, "bob", vec![crate::Line::seats("h", ["y"]).expect("line")]);
    assert_eq!(
        commit(&backend, &["h"], vec![hold(&taken)]).await,
        CommitOutcome::Fenced(vec![item("h")])
    );
    let filter = OrderFilter { item: Some(item("a")), ..OrderFilter::default() };
    let page = backend.store.list_orders(&filter, None, 2).await.expect("list");
    assert_eq!(page.orders.len(), 2);
    let rest = backend.store.list_orders(&filter, page.next.as_ref(), 9).await.expect("list");
    assert_eq!((rest.orders.len(), rest.next), (2, None));
    let none = backend.store.list_orders(&filter, None, 0).await.expect("list");
    assert_eq!(none, OrderPage::default(), "it ends");
}

#[tokio::test]
async fn a_definition_that_could_not_be_read_again_is_never_written() {
    let dir = dir();
    let backend = open(&dir);
    let good = ItemSpec::builder().id("a").capacity(9).opens_at(T0).build().expect("pool");
    put(&backend, good.clone()).await;
    let closed = ItemSpec { closes_at: Some(T0), ..good.clone() };
    let new = ItemSpec { id: item("b"), ..closed.clone() };
    for bad in [closed, new] {
        let refused = backend.store.put_item(&bad).await.expect("put");
        let PutOutcome::Refused(PutItemError::Invalid(why)) = refused else {
            panic!("{refused:?}")
        };
        assert_eq!(why.field(), "closes_at");
    }
    drop(backend);
    let items = open(&dir).store.list_items(None, 9).await.expect("items");
    assert_eq!(items.iter().map(|item| &*item.spec).collect::<Vec<_>>(), [&good]);
}

#[tokio::test]
async fn a_cap_that_comes_later_counts_what_is_on_disk() {
    let dir = dir();
    let backend = open(&dir);
    put(&backend, ItemSpec::pool("a", 9).expect("pool")).await;
    let orders: Vec<_> = (1..=3).map(|n| one(n, "ann", "a")).collect();
    commit(&backend, &["a"], orders.iter().map(hold).collect()).await;
    commit(&backend, &["a"], vec![release(&orders[0])]).await;
    let capped = ItemSpec::builder().id("a").capacity(9).max_per_buyer(2).build().expect("pool");
    assert_eq!(backend.store.put_item(&capped).await.expect("put"), PutOutcome::Changed);
    assert_eq!(backend.store.put_item(&capped).await.expect("put"), PutOutcome::Unchanged);
    let more = commit(&backend, &["a"], vec![hold(&one(4, "ann", "a"))]).await;
    assert!(matches!(more, CommitOutcome::Conflict { over_cap, .. } if over_cap[0].live == 2));
}

#[tokio::test]
async fn rules_about_buyers_go_by_what_is_on_disk() {
    /// Right after the orders were decided, so all of them are of late.
    #[derive(Debug)]
    struct At(Timestamp);
    impl Clock for At {
        fn now(&self) -> Timestamp {
            self.0
        }
    }
    const PAUSE: Duration = Duration::from_secs(60);
    let dir = dir();
    let open_with = |rules: BuyerRules, now| {
        let embedded = Embedded::builder(dir.path()).buyer_rules(rules).clock(Arc::new(At(now)));
        embedded.open().expect("opens").backend()
    };
    let holds = BuyerRules::builder().holds_max(NonZeroU32::new(2).expect("2")).build();
    let pause = BuyerRules::builder().hold_again_after(PAUSE).build();
    // Before there were rules: two live holds, and of what ended one was paid.
    let backend = open(&dir);
    put(&backend, ItemSpec::pool("a", 99).expect("pool")).await;
    put(&backend, ItemSpec::pool("b", 99).expect("pool")).await;
    let orders: Vec<_> = (1..=4).map(|n| one(n, "ann", "a")).collect();
    commit(&backend, &["a"], orders.iter().map(hold).collect()).await;
    let ended = release(&orders[0]);
    let at = ended.order.hold().expect("it had one").expires_at;
    commit(&backend, &["a"], vec![ended]).await;
    let payment = PaymentRef::new("pay").expect("ref");
    let payment = Payment { order: orders[1].id, payment, at: T0 };
    backend.store.confirm(&[payment]).await.expect("confirm");
    drop(backend);

    let barred = |n| CommitOutcome::Conflict {
        moved: vec![],
        over_cap: vec![],
        barred: vec![one(n, "ann", "a").id],
    };
    let hold_at = |n, item: &str, decided_at| {
        let expires_at = decided_at + PAUSE;
        let state = OrderState::Held(crate::Hold { decided_at, expires_at });
        OrderWrite { order: one(n, "ann", item).with_state(state), expect: Expect::Absent }
    };
    let backend = open_with(holds, T0);
    assert_eq!(commit(&backend, &["b"], vec![hold(&one(9, "ann", "b"))]).await, barred(9));
    commit(&backend, &["a"], vec![release(&orders[2])]).await;
    let two = vec![hold(&one(9, "ann", "b")), hold(&one(10, "ann", "b"))];
    assert_eq!(commit(&backend, &["b"], two).await, barred(10));
    drop(backend);

    let backend = open_with(pause, at);
    let over = at + PAUSE;
    let early = hold_at(11, "a", Timestamp::from_millis(over.as_millis() - 1));
    assert_eq!(commit(&backend, &["a"], vec![early]).await, barred(11));
    for write in [hold_at(11, "a", over), hold_at(12, "b", at)] {
        let item = write.order.lines[0].item.to_string();
        assert_eq!(commit(&backend, &[&item], vec![write]).await, CommitOutcome::Applied);
    }
    drop(backend);
    // Another rule at each open, and none at all.
    let backend = open(&dir);
    let many = (20..60).map(|n| hold(&one(n, "ann", "a"))).collect();
    assert_eq!(commit(&backend, &["a"], many).await, CommitOutcome::Applied);
    drop(backend);
    let backend = open_with(holds, T0);
    assert_eq!(commit(&backend, &["a"], vec![hold(&one(70, "ann", "a"))]).await, barred(70));
}

#[tokio::test]
async fn messages_outlive_the_process() {
    let dir = dir();
    let queue = open(&dir).queue;
    let messages: Vec<_> = (1..=4).map(|n| Message::Place(one(n, "ann", "a"))).collect();
    queue.send(&messages).await.expect("send");
    queue.send(&[Message::Expire(messages[0].order_id())]).await.expect("send");
    let got = queue.receive(5, Duration::ZERO).await.expect("receive");
    assert_eq!(got.len(), 5);
    queue.ack(&[got[4].receipt.clone()]).await.expect("ack");
    queue.bury(&[(got[1].receipt.clone(), "poison".to_owned())]).await.expect("bury");
    drop(queue);

    let queue = open(&dir).queue;
    assert_eq!(queue.find(messages[2].order_id()).await.expect("find").map(|o| o.id), {
        Some(messages[2].order_id())
    });
    let got = queue.receive(9, Duration::ZERO).await.expect("receive");
    let seen: Vec<_> = got.iter().map(|d| (d.message.clone(), d.attempt)).collect();
    let expected = [&messages[0], &messages[2], &messages[3]].map(|m| (m.clone(), 1));
    assert_eq!(seen, expected);
    let receipts: Vec<_> = got.iter().map(|d| d.receipt.clone()).collect();
    queue.ack(&receipts).await.expect("ack");
    assert_eq!(queue.redrive(9).await.expect("redrive"), 1);
    drop(queue);

    let queue = open(&dir).queue;
    let got = queue.receive(9, Duration::ZERO).await.expect("receive");
    assert_eq!(got.len(), 1, "the row of the acknowledged messages is gone");
    assert_eq!((&got[0].message, got[0].attempt), (&messages[1], 1));
    assert!(queue.dead_letters(9).await.expect("dead").is_empty());
}

#[tokio::test]
async fn a_directory_is_open_once() {
    let dir = dir();
    let first = open(&dir);
    let second = Embedded::open(dir.path()).expect_err("in use");
    assert!(matches!(second, OpenError::InUse { .. }), "{second}");
    drop(first);
    open(&dir);
}

#[tokio::test]
async fn every_backend_of_one_open_shares_locks_and_bus() {
    let dir = dir();
    let embedded = Embedded::open(dir.path()).expect("opens");
    let (one, two) = (embedded.backend(), embedded.backend());
    let lease = async |backend: &Backend| {
        let ttl = Duration::from_secs(60);
        backend.locks.acquire(&[item("a")], ttl, Duration::ZERO).await.expect("acquire")
    };
    assert!(lease(&one).await.is_some());
    assert!(lease(&two).await.is_none());
    assert!(Arc::ptr_eq(&one.bus, &two.bus));
}

#[tokio::test]
async fn what_is_not_ours_is_refused_and_left_alone() {
    let dir = dir();
    let file = dir.path().join(FILE_NAME);
    std::fs::write(&file, [7; 10_000]).expect("written");
    let error = Embedded::open(dir.path()).expect_err("no database");
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
    assert_eq!(std::fs::read(&file).expect("read"), [7; 10_000]);

    std::fs::remove_file(&file).expect("removed");
    let db = Database::create(&file).expect("created");
    let txn = db.begin_write().expect("begun");
    txn.open_table(redb::TableDefinition::<u64, u64>::new("theirs")).expect("made");
    txn.commit().expect("committed");
    drop(db);
    let error = Embedded::open(dir.path()).expect_err("another program's");
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");

    let inside_a_file = Embedded::open(file.join("sub")).expect_err("no directory");
    assert!(matches!(inside_a_file, OpenError::Io { .. }), "{inside_a_file}");
}

#[tokio::test]
async fn another_format_is_refused_with_both_numbers() {
    let dir = dir();
    drop(open(&dir));
    let db = Database::create(dir.path().join(FILE_NAME)).expect("opens");
    let txn = db.begin_write().expect("begun");
    txn.open_table(journal::META).expect("there").insert("format", 9).expect("written");
    txn.commit().expect("committed");
    drop(db);
    let error = Embedded::open(dir.path()).expect_err("newer");
    assert!(matches!(error, OpenError::Version { found: 9, expected: 3 }), "{error}");
}

fn rejected(n: u128) -> OrderWrite {
    let order = one(n, "ann", "a").with_state(OrderState::Rejected(T0, Reason::SeatTaken));
    OrderWrite { order, expect: Expect::Absent }
}

fn open_with(dir: &TempDir, rejected_max: u64) -> Backend {
    let builder = Embedded::builder(dir.path()).rejected_max(rejected_max).changes_max(2_000);
    builder.open().expect("it opens").backend()
}

/// What the file says of itself.
fn meta(dir: &TempDir, name: &str) -> Option<u64> {
    let db = Database::open(dir.path().join(FILE_NAME)).expect("opens");
    let txn = redb::ReadableDatabase::begin_read(&db).expect("begun");
    let meta = txn.open_table(journal::META).expect("there");
    let number = meta.get(name).expect("read");
    number.map(|number| number.value())
}

async fn listed(backend: &Backend) -> Vec<u128> {
    let page = backend.store.list_orders(&OrderFilter::default(), None, 1_000).await;
    let orders = page.expect("list").orders;
    orders.iter().map(|order| order.id.as_uuid().as_u128()).collect()
}

#[tokio::test]
async fn what_is_forgotten_leaves_the_file_and_its_id_is_free() {
    let dir = dir();
    let backend = open_with(&dir, 3);
    put(&backend, ItemSpec::pool("a", 9).expect("pool")).await;
    for n in 1..=4 {
        assert_eq!(commit(&backend, &[], vec![rejected(n)]).await, CommitOutcome::Applied);
        let held = vec![hold(&one(10 + n, "bob", "a"))];
        assert_eq!(commit(&backend, &["a"], held).await, CommitOutcome::Applied);
    }
    let first = one(1, "ann", "a");
    assert_eq!(backend.store.orders(&[first.id]).await.expect("orders"), [None]);
    let conflict = commit(&backend, &[], vec![rejected(2)]).await;
    assert!(matches!(conflict, CommitOutcome::Conflict { .. }), "{conflict:?}");
    assert_eq!(commit(&backend, &["a"], vec![hold(&first)]).await, CommitOutcome::Applied);
    let now = [11, 2, 12, 3, 13, 4, 14, 1];
    assert_eq!(listed(&backend).await, now);
    drop(backend);

    let backend = open_with(&dir, 3);
    assert_eq!(listed(&backend).await, now);
    // They are forgotten in the order of their decisions, before a crash or after.
    for (n, gone) in [(5, 2), (6, 3), (7, 4), (8, 5)] {
        commit(&backend, &[], vec![rejected(n)]).await;
        let gone = one(gone, "ann", "a").id;
        assert_eq!(backend.store.orders(&[gone]).await.expect("orders"), [None], "{n}");
    }
    drop(backend);
    // Fewer may stay than there are: they go with the next sweep.
    let backend = open_with(&dir, 1);
    backend.store.due_holds(T0, 9).await.expect("due");
    // The next write that somebody waits for takes that along.
    put(&backend, ItemSpec::pool("b", 9).expect("pool")).await;
    assert_eq!(listed(&backend).await, [11, 12, 13, 14, 1, 8]);
}

#[tokio::test]
async fn numbers_go_on_where_they_were_when_all_is_forgotten() {
    let dir = dir();
    let backend = open(&dir);
    put(&backend, ItemSpec::pool("a", 9).expect("pool")).await;
    commit(&backend, &[], (1..=9).map(rejected).collect()).await;
    backend.store.due_holds(T0, 9).await.expect("due");
    drop(backend);
    assert_eq!((meta(&dir, "format"), meta(&dir, "forgotten")), (Some(3), Some(0)));
    let backend = open(&dir);
    assert_eq!(listed(&backend).await.len(), 9);
    let much_later = T0 + Duration::from_secs(2 * 86_400);
    backend.store.due_holds(much_later, 9).await.expect("due");
    put(&backend, ItemSpec::pool("b", 9).expect("pool")).await;
    assert_eq!(listed(&backend).await, [0; 0]);
    drop(backend);
    assert_eq!(meta(&dir, "forgotten"), Some(9));
    let backend = open(&dir);
    commit(&backend, &["a"], vec![hold(&one(1, "ann", "a"))]).await;
    drop(backend);
    assert_eq!(listed(&open(&dir)).await, [1], "numbers go on where they were");
}

#[tokio::test]
async fn an_order_that_is_missing_is_told_from_those_forgotten() {
    for row in [3, 9] {
        let dir = dir();
        let backend = open_with(&dir, 2);
        put(&backend, ItemSpec::pool("a", 50).expect("pool")).await;
        for n in 1..=5 {
            let held = hold(&one(10 + n, "bob", "a"));
            commit(&backend, &["a"], vec![rejected(n), held]).await;
        }
        drop(backend);
        let db = Database::create(dir.path().join(FILE_NAME)).expect("opens");
        let txn = db.begin_write().expect("begun");
        let mut orders = txn.open_table(journal::ORDERS).expect("there");
        assert!(orders.remove(row).expect("done").is_some(), "{row}");
        drop(orders);
        txn.commit().expect("committed");
        drop(db);
        let error = Embedded::open(dir.path()).expect_err("an order is missing");
        assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
    }
}

#[tokio::test]
async fn under_a_flood_of_rejections_the_file_stays_as_large_as_it_is() {
    const ROUND: u128 = 2_000;
    let dir = dir();
    let backend = open_with(&dir, ROUND as u64);
    put(&backend, ItemSpec::pool("a", 9).expect("pool")).await;
    let mut bytes = Vec::new();
    for round in 0..30 {
        for part in 0..4 {
            let first = round * ROUND + part * (ROUND / 4);
            let writes = (first..first + ROUND / 4).map(rejected).collect();
            assert_eq!(commit(&backend, &[], writes).await, CommitOutcome::Applied);
        }
        bytes.push(std::fs::metadata(dir.path().join(FILE_NAME)).expect("there").len());
    }
    assert!(bytes[29] <= bytes[9], "{bytes:?}");
    let page = backend.store.list_orders(&OrderFilter::default(), None, 9_999).await;
    assert_eq!(page.expect("list").orders.len() as u128, ROUND);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_order_forgotten_while_it_is_read_is_not_there() {
    let dir = dir();
    let backend = open_with(&dir, 1);
    let store = backend.store.clone();
    let reading = tokio::spawn(async move {
        let ids: Vec<_> = (0..300).map(|n| one(n, "ann", "a").id).collect();
        for _ in 0..300 {
            store.orders(&ids).await.expect("nothing is broken");
            store.orders(&ids[..20]).await.expect("nothing is broken");
        }
    });
    let mut n = 0;
    while !reading.is_finished() {
        commit(&backend, &[], vec![rejected(n % 300)]).await;
        n += 1;
    }
    reading.await.expect("it read");
}

#[tokio::test]
async fn a_cursor_of_another_store_is_refused() {
    let dir = dir();
    let store = open(&dir).store;
    let cursor = crate::seams::Cursor("x".to_owned());
    let error = store.list_orders(&OrderFilter::default(), Some(&cursor), 1).await;
    assert!(matches!(error, Err(SeamError::UnknownCursor { .. })));
}

#[test]
fn rows_take_as_many_bytes_as_the_design_page_says() {
    let at = Timestamp::from_millis(1_790_000_000_000);
    let lines = crate::Lines::new(vec![units("ticket_1", 2)]).expect("lines");
    let id = crate::OrderId::from_uuid(uuid::Uuid::from_u128(u128::MAX));
    let queued = Order::queued(id, crate::BuyerId::new("buyer_0001").expect("a buyer"), lines, at);
    let hold = crate::Hold {
        decided_at: Timestamp::from_millis(at.as_millis() + 40),
        expires_at: Timestamp::from_millis(at.as_millis() + 40 + 600_000),
    };
    let mut row = Vec::new();
    rows::put_order(&queued.with_state(OrderState::Held(hold)), &mut row);
    assert_eq!(row.len(), 55);
    let messages = vec![Message::Place(queued); 256];
    let sent = |count: usize| rows::sent_row(0, at, &messages[..count]).len();
    assert_eq!((sent(1), (sent(256) - sent(1)) / 255), (60, 47));
}

#[cfg(unix)]
#[tokio::test]
async fn what_is_made_is_its_owners_alone_and_an_open_file_is_closed() {
    use std::fs::{Permissions, metadata, set_permissions};
    use std::os::unix::fs::PermissionsExt;

    let mode = |path: &Path| metadata(path).expect("there").permissions().mode() & 0o777;
    let home = dir();
    let path = home.path().join("new").join("data");
    let file = path.join(FILE_NAME);
    drop(Embedded::open(&path).expect("opens"));
    assert_eq!((mode(&path), mode(&file)), (0o700, 0o600));
    // As an older version left them. The directory may be shared on purpose.
    set_permissions(&file, Permissions::from_mode(0o644)).expect("opened to all");
    set_permissions(&path, Permissions::from_mode(0o755)).expect("opened to all");
    drop(Embedded::open(&path).expect("opens"));
    assert_eq!((mode(&path), mode(&file)), (0o755, 0o600));
}

#[tokio::test]
async fn the_position_of_the_clock_is_there_after_a_reopen() {
    let dir = dir();
    let backend = open(&dir);
    put(&backend, ItemSpec::pool("a", 9).expect("pool")).await;
    assert_eq!(backend.store.kept_clock(), KeptClock::default());
    backend.store.keep_clock(ClockReference::new(u64::MAX, T0));
    drop(backend);

    let backend = open(&dir);
    let reference = Some(ClockReference::new(u64::MAX, T0));
    assert_eq!(backend.store.kept_clock(), KeptClock::new(reference, false));
    commit(&backend, &["a"], vec![hold(&one(1, "ann", "a"))]).await;
    drop(backend);

    assert_eq!(open(&dir).store.kept_clock(), KeptClock::new(reference, true));
}

fn open_with_feed(dir: &TempDir, keep: Duration) -> Backend {
    Embedded::builder(dir.path()).keep_changes(keep).open().expect("it opens").backend()
}

async fn follow(backend: &Backend, after: &Cursor) -> Result<usize, SeamError> {
    let feed = backend.store.feed().expect("a feed");
    Ok(feed.changes(Some(after), 1_000, Duration::ZERO).await?.changes.len())
}

#[tokio::test]
async fn who_was_at_the_newest_change_hears_of_those_that_no_feed_had() {
    let week = Duration::from_secs(7 * 86_400);
    for changes_before in [0, 3] {
        let dir = dir();
        let backend = open_with_feed(&dir, week);
        for n in 0..changes_before {
            put(&backend, ItemSpec::pool(format!("a{n}"), 9).expect("pool")).await;
        }
        let newest = backend.store.feed().expect("a feed").newest().await.expect("newest");
        drop(backend);
        let without = open_with_feed(&dir, Duration::ZERO);
        assert!(without.store.feed().is_none());
        put(&without, ItemSpec::pool("unseen", 9).expect("pool")).await;
        drop(without);
        let backend = open_with_feed(&dir, week);
        let late = follow(&backend, &newest).await;
        assert!(matches!(late, Err(SeamError::ChangesGone { .. })), "{late:?}");
        let newest = backend.store.feed().expect("a feed").newest().await.expect("newest");
        put(&backend, ItemSpec::pool("seen", 9).expect("pool")).await;
        assert_eq!(follow(&backend, &newest).await.expect("it goes on"), 1);
    }
}

#[tokio::test]
async fn a_damaged_feed_begins_anew_and_the_rest_is_there() {
    let dir = dir();
    let backend = open(&dir);
    put(&backend, ItemSpec::pool("a", 9).expect("pool")).await;
    commit(&backend, &["a"], vec![hold(&one(1, "ann", "a"))]).await;
    let newest = backend.store.feed().expect("a feed").newest().await.expect("newest");
    drop(backend);
    let db = Database::create(dir.path().join(FILE_NAME)).expect("opens");
    let txn = db.begin_write().expect("begun");
    txn.open_table(feed::CHANGES).expect("there").insert(2, &b"damage"[..]).expect("written");
    txn.commit().expect("committed");
    drop(db);
    let backend = open(&dir);
    assert_eq!(listed(&backend).await, [1]);
    let late = follow(&backend, &newest).await;
    assert!(matches!(late, Err(SeamError::ChangesGone { .. })), "{late:?}");
}

#[tokio::test]
async fn consumers_of_a_restored_store_are_told_that_changes_are_gone() {
    let dirs = dir();
    let embedded = Embedded::open(dirs.path().join("store")).expect("it opens");
    let backend = embedded.backend();
    put(&backend, ItemSpec::pool("a", 9).expect("pool")).await;
    let feed = backend.store.feed().expect("a feed");
    let name: crate::ConsumerName = "books".parse().expect("a name");
    let done = feed.newest().await.expect("newest");
    feed.keep_cursor(&Consumer::new(name.clone(), done)).await.expect("kept");
    let mut copy = Vec::new();
    embedded.backup(&mut copy).expect("a copy");
    let mut cursors = Vec::new();
    for n in 0..2 {
        let path = dirs.path().join(n.to_string());
        Embedded::restore(&copy[..], &path).expect("restored");
        let restored = Embedded::open(path).expect("it opens").backend();
        let feed = restored.store.feed().expect("a feed");
        let known = feed.cursor_of(&name).await.expect("read").expect("it is known");
        let late = follow(&restored, &known).await;
        assert!(matches!(late, Err(SeamError::ChangesGone { .. })), "{late:?}");
        put(&restored, ItemSpec::pool("b", 9).expect("pool")).await;
        cursors.push(feed.newest().await.expect("newest"));
        std::thread::sleep(Duration::from_millis(2));
    }
    assert_ne!(cursors[0], cursors[1], "two that are restored have no cursor in common");
}

#[tokio::test]
async fn a_restored_store_fences_whoever_worked_on_the_one_before() {
    let dirs = dir();
    let store = dirs.path().join("store");
    let embedded = Embedded::open(&store).expect("it opens");
    put(&embedded.backend(), ItemSpec::pool("a", 9).expect("pool")).await;
    let mut copy = Vec::new();
    embedded.backup(&mut copy).expect("a copy");
    drop(embedded);
    let claim = async |path: &std::path::Path| {
        let backend = Embedded::open(path).expect("it opens").backend();
        backend.store.claim(&[item("a")]).await.expect("claimed").remove(0).expect("there").token
    };
    // It went on for a while after the copy, and its workers may be about still.
    let mut lost = claim(&store).await;
    for _ in 0..5 {
        lost = claim(&store).await;
    }
    let restored = dirs.path().join("restored");
    Embedded::restore(&copy[..], &restored).expect("restored");
    assert!(claim(&restored).await > lost, "a token of the lost store would pass");
}

#[tokio::test]
async fn a_copy_with_numbers_of_no_store_is_refused() {
    let dirs = dir();
    let embedded = Embedded::open(dirs.path().join("store")).expect("it opens");
    let mut copy = Vec::new();
    embedded.backup(&mut copy).expect("a copy");
    // The numbers are the first frame: their bytes are changed, and the checksum with them.
    let start = b"flux backup\n".len() + 1;
    let length = u32::from_le_bytes(copy[start + 1..start + 5].try_into().expect("4 bytes"));
    let end = start + 5 + length as usize;
    for (name, number) in [("generation", u64::MAX), ("generation", 1 << 23), ("numbered", 1 << 62)]
    {
        let body: Vec<(String, u64)> = postcard::from_bytes(&copy[start + 5..end]).expect("M");
        let change = |(known, old): (String, u64)| match known == name {
            true => (known, number),
            false => (known, old),
        };
        let body: Vec<_> = body.into_iter().map(change).collect();
        let body = postcard::to_stdvec(&body).expect("numbers");
        let mut frame = vec![b'M'];
        frame.extend((body.len() as u32).to_le_bytes());
        frame.extend(body);
        frame.extend(crc32fast::hash(&frame).to_le_bytes());
        let wrong = [&copy[..start], &frame, &copy[end + 4..]].concat();
        let refused = Embedded::restore(&wrong[..], dirs.path().join("new"));
        assert!(matches!(refused, Err(RestoreError::Damaged(_))), "{name}: {refused:?}");
    }
    let without = [&copy[..start], &copy[end + 4..]].concat();
    assert!(Embedded::restore(&without[..], dirs.path().join("new")).is_err());
}
