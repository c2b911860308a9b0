//! Sales that are over leave the store for files: what goes, what stays, and what is told.

#![cfg(all(feature = "archive", feature = "embedded"))]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use flux_core::archive::{Archive, ArchiveError, ArchiveProgress};
use flux_core::backends::embedded::Embedded;
use flux_core::clock::Clock;
use flux_core::seams::Changed;
use flux_core::{
    Backend, Error, Flux, Item, ItemId, ItemSpec, Line, Order, OrderFilter, OrderId, OrderRequest,
    OrderStatus, PaymentRef, PutItemError, RefundRef, RemovalRefused,
};

fn id(name: &str) -> ItemId {
    ItemId::new(name).expect("a name")
}

async fn put(flux: &Flux, name: &str, capacity: u64) {
    flux.put_item(ItemSpec::pool(name, capacity).expect("an item")).await.expect("put");
}

async fn close(flux: &Flux, name: &str) {
    let item = flux.item(&id(name)).await.expect("read").expect("it is there");
    let mut over = ItemSpec::clone(&item.spec);
    over.closes_at = Some(flux.now());
    flux.put_item(over).await.expect("put");
}

async fn place(flux: &Flux, items: &[&str]) -> Order {
    let lines = items.iter().map(|item| Line::units(item, 1).expect("a line"));
    let request = OrderRequest::builder().buyer("ann").lines(lines.collect());
    let order = flux.place(request.build().expect("a request")).await.expect("placed");
    assert_eq!(order.status(), OrderStatus::Held);
    order
}

async fn pay(flux: &Flux, order: &Order) -> Order {
    let payment = PaymentRef::new("paid").expect("a reference");
    flux.confirm(order.id, payment).await.expect("paid")
}

async fn refund(flux: &Flux, order: &Order) -> Order {
    let refund = RefundRef::new("back").expect("a reference");
    flux.refunded(order.id, refund).await.expect("refunded")
}

async fn all(flux: &Flux) -> Vec<Order> {
    let (mut orders, mut after) = (Vec::new(), None);
    loop {
        let page = flux.orders(&OrderFilter::default(), after.as_ref(), 1_000).await;
        let page = page.expect("listed");
        orders.extend(page.orders);
        after = page.next;
        if after.is_none() {
            return orders;
        }
    }
}

async fn is_clean(flux: &Flux) {
    let audit = flux.audit().await.expect("counted");
    assert!(audit.is_clean(), "{audit}");
}

fn archived(dir: &Path) -> Vec<Archive> {
    let entries = std::fs::read_dir(dir).expect("a directory");
    let archives = entries.map(|entry| Archive::open(entry.expect("an entry").path()));
    archives.collect::<Result<_, _>>().expect("whole archives")
}

/// Runs a story on a store in memory and on one in a file.
async fn on_each(story: impl AsyncFn(Flux, &Path)) {
    let dir = tempfile::tempdir().expect("a directory");
    let memory = Flux::builder(Backend::memory()).start();
    story(memory.clone(), &dir.path().join("memory")).await;
    memory.shutdown().await;
    let embedded = Embedded::open(dir.path().join("store")).expect("opens");
    let embedded = Flux::builder(embedded.backend()).start();
    story(embedded.clone(), &dir.path().join("embedded")).await;
    embedded.shutdown().await;
}

#[tokio::test]
async fn a_sale_that_is_over_leaves_with_its_orders_and_no_other() {
    on_each(async |flux, dir| {
        put(&flux, "ticket", 9).await;
        put(&flux, "other", 9).await;
        let paid = place(&flux, &["ticket"]).await;
        let paid = pay(&flux, &paid).await;
        let released = place(&flux, &["ticket"]).await;
        let released = flux.release(released.id).await.expect("released");
        let back = place(&flux, &["ticket"]).await;
        pay(&flux, &back).await;
        let back = flux.cancel(back.id).await.expect("cancelled");
        let back = refund(&flux, &back).await;
        let stays = place(&flux, &["other"]).await;
        close(&flux, "ticket").await;
        let newest = flux.changes(None, 1_000).await.expect("read").next;

        let (mut written, mut taken) = (0, 0);
        let tell = |progress| match progress {
            ArchiveProgress::Written(orders) => written = orders,
            ArchiveProgress::TakenOut(orders) => taken = orders,
            other => panic!("{other:?}"),
        };
        let made = flux.archive_telling(&[id("ticket")], dir, tell).await.expect("archived");
        assert_eq!((made.orders, written, taken), (3, 3, 3));
        let archive = Archive::open(dir.join(made.archive.to_string())).expect("whole");
        let mut orders: Vec<Order> =
            archive.orders().expect("opened").collect::<Result<_, _>>().expect("read");
        orders.sort_by_key(|order| order.id);
        let mut expected = vec![paid.clone(), released, back];
        expected.sort_by_key(|order| order.id);
        assert_eq!(orders, expected);
        let manifest = archive.manifest();
        let item: Item = manifest.items[0].item.clone().into_item(None).expect("an item");
        assert_eq!((item.available, item.held, item.sold), (8, 0, 1));
        assert_eq!(manifest.archived_at, made.archived_at);

        assert_eq!(all(&flux).await, [stays]);
        assert_eq!(flux.item(&id("ticket")).await.expect("read"), None);
        assert_eq!(flux.order(paid.id).await.expect("read"), None);
        let (count, last) = flux.buried().await.expect("read");
        let last = last.expect("a tombstone");
        assert_eq!(
            (count, &last.item, last.archive, last.orders),
            (1, &id("ticket"), made.archive, 3)
        );
        let changes = flux.changes(Some(&newest), 1_000).await.expect("read").changes;
        let [change] = &changes[..] else { panic!("{changes:?}") };
        let Changed::Removed(removed) = &change.changed else { panic!("{change:?}") };
        assert_eq!((&removed.item, &removed.tombstone), (&id("ticket"), &Some(last)));

        // A repeat finds it done, and nothing can be sold under its id by mistake.
        let again = flux.archive(&[id("ticket")], dir).await.expect("archived before");
        assert_eq!(again, made);
        let anew = flux.put_item(ItemSpec::pool("ticket", 1).expect("an item")).await;
        assert!(matches!(anew, Err(Error::PutItem(PutItemError::Archived { .. }))), "{anew:?}");
        let late = flux.place(OrderRequest::units("bob", "ticket", 1).expect("a request")).await;
        assert!(matches!(late, Err(Error::UnknownItem(_))), "{late:?}");
        assert!(flux.delete_item(&id("ticket")).await.expect("forgotten").is_some());
        put(&flux, "ticket", 1).await;
        is_clean(&flux).await;
    })
    .await;
}

#[tokio::test]
async fn what_is_not_over_stays_and_goes_on() {
    on_each(async |flux, dir| {
        put(&flux, "ticket", 9).await;
        let refused = async |items: &[&str]| {
            let items: Vec<ItemId> = items.iter().map(|item| id(item)).collect();
            match flux.archive(&items, dir).await {
                Err(Error::CantLeave(why)) => why,
                other => panic!("{other:?}"),
            }
        };
        let missing = flux.archive(&[id("none")], dir).await;
        assert!(matches!(missing, Err(Error::UnknownItem(_))), "{missing:?}");
        assert_eq!(refused(&["ticket"]).await, RemovalRefused::NotClosed(id("ticket")));
        let held = place(&flux, &["ticket"]).await;
        let kept = place(&flux, &["ticket"]).await;
        let kept = pay(&flux, &kept).await;
        close(&flux, "ticket").await;
        let still_held = RemovalRefused::Held { item: id("ticket"), units: 1 };
        assert_eq!(refused(&["ticket"]).await, still_held);
        // It goes on as if nobody had asked.
        pay(&flux, &held).await;
        flux.cancel(kept.id).await.expect("cancelled");
        let owed = RemovalRefused::Owed { item: id("ticket"), order: kept.id };
        assert_eq!(refused(&["ticket"]).await, owed);
        refund(&flux, &kept).await;
        assert!(archived(dir).is_empty(), "nothing half-made is left");
        flux.archive(&[id("ticket")], dir).await.expect("archived");
        is_clean(&flux).await;
    })
    .await;
}

#[tokio::test]
async fn items_that_share_orders_go_together_and_each_order_into_one_archive() {
    on_each(async |flux, dir| {
        for name in ["ticket", "parking", "shirt"] {
            put(&flux, name, 9).await;
        }
        let both = place(&flux, &["ticket", "parking"]).await;
        pay(&flux, &both).await;
        let gone = place(&flux, &["shirt", "ticket"]).await;
        let gone = flux.release(gone.id).await.expect("released");
        let shirt = place(&flux, &["shirt"]).await;
        pay(&flux, &shirt).await;
        for name in ["ticket", "parking", "shirt"] {
            close(&flux, name).await;
        }
        let alone = flux.archive(&[id("ticket")], dir).await;
        let Err(Error::CantLeave(RemovalRefused::Shared { item, other, order })) = alone else {
            panic!("{alone:?}")
        };
        assert_eq!((item, other, order), (id("ticket"), id("parking"), both.id));
        // Refused, so it is not sealed, and another definition is taken.
        close(&flux, "ticket").await;

        let together = flux.archive(&[id("parking"), id("ticket")], dir).await.expect("archived");
        // What owns nothing goes with the first of its items.
        assert_eq!(together.orders, 2);
        let rest = flux.archive(&[id("shirt")], dir).await.expect("archived");
        assert_eq!(rest.orders, 1);
        let mut orders: BTreeMap<OrderId, usize> = BTreeMap::new();
        for archive in archived(dir) {
            for order in archive.orders().expect("opened") {
                *orders.entry(order.expect("read").id).or_default() += 1;
            }
        }
        assert_eq!(orders, BTreeMap::from([(both.id, 1), (gone.id, 1), (shirt.id, 1)]));
        assert_eq!(all(&flux).await, []);
        let mixed = flux.archive(&[id("ticket"), id("shirt")], dir).await;
        let is_told = matches!(mixed, Err(Error::CantLeave(RemovalRefused::Archived(_))));
        assert!(is_told, "{mixed:?}");
        is_clean(&flux).await;
    })
    .await;
}

#[tokio::test]
async fn only_what_never_sold_anything_is_deleted() {
    on_each(async |flux, _| {
        put(&flux, "ticket", 9).await;
        put(&flux, "typo", 9).await;
        let released = place(&flux, &["typo"]).await;
        let held = flux.delete_item(&id("typo")).await;
        assert!(matches!(held, Err(Error::CantLeave(RemovalRefused::Held { .. }))), "{held:?}");
        flux.release(released.id).await.expect("released");
        assert_eq!(flux.delete_item(&id("typo")).await.expect("deleted"), None);
        let twice = flux.delete_item(&id("typo")).await;
        assert!(matches!(twice, Err(Error::UnknownItem(_))), "{twice:?}");
        // The order is there still, and nothing more comes of it.
        assert!(flux.order(released.id).await.expect("read").is_some());
        let sold = place(&flux, &["ticket"]).await;
        pay(&flux, &sold).await;
        flux.cancel(sold.id).await.expect("cancelled");
        let sold = flux.delete_item(&id("ticket")).await;
        assert!(matches!(sold, Err(Error::CantLeave(RemovalRefused::Sold(_)))), "{sold:?}");
        put(&flux, "typo", 1).await;
        is_clean(&flux).await;
    })
    .await;
}

#[tokio::test]
async fn money_that_comes_for_an_item_which_was_deleted_is_owed() {
    on_each(async |flux, _| {
        let brief = ItemSpec::builder().id("typo").capacity(9).hold_seconds(1);
        flux.put_item(brief.build().expect("an item")).await.expect("put");
        let order = place(&flux, &["typo"]).await;
        tokio::time::timeout(Duration::from_secs(60), async {
            while flux.order(order.id).await.expect("read").expect("there").status()
                != OrderStatus::Expired
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
        .expect("it ends");
        flux.delete_item(&id("typo")).await.expect("deleted");

        let payment = PaymentRef::new("paid").expect("a reference");
        let late = flux.confirm(order.id, payment).await;
        let Err(Error::RefundDue(owed)) = late else { panic!("{late:?}") };
        assert_eq!(owed.id, order.id);
        assert_eq!(flux.owed().await.expect("counted").orders, 1);
        refund(&flux, &order).await;
        is_clean(&flux).await;
    })
    .await;
}

#[tokio::test]
async fn what_was_sold_and_what_left_is_known_after_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let open = || {
        let embedded = Embedded::open(dir.path().join("store")).expect("opens");
        Flux::builder(embedded.backend()).start()
    };
    let flux = open();
    for name in ["ticket", "other"] {
        put(&flux, name, 9).await;
        let order = place(&flux, &[name]).await;
        pay(&flux, &order).await;
        flux.cancel(order.id).await.expect("cancelled");
        refund(&flux, &order).await;
    }
    close(&flux, "ticket").await;
    let made = flux.archive(&[id("ticket")], dir.path().join("files")).await.expect("archived");
    flux.shutdown().await;
    drop(flux);

    let flux = open();
    let tombstones = flux.tombstones(None, 10).await.expect("listed");
    assert_eq!(tombstones.iter().map(|t| t.archive).collect::<Vec<_>>(), [made.archive]);
    let sold = flux.delete_item(&id("other")).await;
    assert!(matches!(sold, Err(Error::CantLeave(RemovalRefused::Sold(_)))), "{sold:?}");
    is_clean(&flux).await;
    flux.shutdown().await;
}

#[tokio::test]
async fn an_archive_that_changed_is_refused_and_so_is_another_directory() {
    let dir = tempfile::tempdir().expect("a directory");
    let flux = Flux::builder(Backend::memory()).start();
    put(&flux, "ticket", 9).await;
    let order = place(&flux, &["ticket"]).await;
    pay(&flux, &order).await;
    close(&flux, "ticket").await;
    let made = flux.archive(&[id("ticket")], dir.path()).await.expect("archived");
    let place = dir.path().join(made.archive.to_string());
    for file in ["orders.ndjson.gz", "manifest.json"] {
        let file = place.join(file);
        let whole = std::fs::read(&file).expect("read");
        let mut changed = whole.clone();
        let at = changed.len() / 2;
        changed[at] ^= 1;
        std::fs::write(&file, changed).expect("written");
        let opened = Archive::open(&place).map(|archive| archive.manifest().clone());
        let is_told = match &opened {
            Err(ArchiveError::Damaged { .. }) => true,
            // What a person may read differently, the store's own checksum tells.
            Ok(_) => file.ends_with("manifest.json"),
            Err(_) => false,
        };
        assert!(is_told, "{opened:?}");
        std::fs::write(&file, whole).expect("written");
    }
    assert!(Archive::open(&place).is_ok());
    flux.shutdown().await;
}

/// A clock that stands where it is put.
#[derive(Debug, Default)]
struct Hand(std::sync::atomic::AtomicU64);

impl Clock for Hand {
    fn now(&self) -> flux_core::Timestamp {
        let millis = self.0.load(std::sync::atomic::Ordering::Relaxed);
        flux_core::Timestamp::from_millis(1_790_000_000_000 + millis)
    }
}

#[tokio::test]
async fn orders_that_wait_in_the_queue_are_decided_first() {
    let dir = tempfile::tempdir().expect("a directory");
    let backend = Backend::memory();
    let accepting = Flux::builder(backend.clone()).role(flux_core::Role::AcceptOnly);
    let hand = Arc::new(Hand::default());
    let flux = accepting.clock(hand.clone()).start();
    put(&flux, "ticket", 9).await;
    let request = OrderRequest::units("ann", "ticket", 1).expect("a request");
    let queued = flux.submit(request).await.expect("accepted");
    hand.0.store(1, std::sync::atomic::Ordering::Relaxed);
    close(&flux, "ticket").await;
    let early = flux.archive(&[id("ticket")], dir.path()).await;
    let waits = RemovalRefused::Waiting(id("ticket"));
    assert!(matches!(&early, Err(Error::CantLeave(why)) if *why == waits), "{early:?}");

    let worker = Flux::builder(backend).clock(hand).start();
    let order = worker.wait(queued.id, Duration::from_secs(10)).await.expect("decided");
    assert_eq!(order.status(), OrderStatus::Held);
    pay(&flux, &order).await;
    // Its message is acknowledged a moment later.
    let archived = loop {
        match flux.archive(&[id("ticket")], dir.path()).await {
            Err(Error::CantLeave(why)) if why == waits => tokio::task::yield_now().await,
            other => break other.expect("archived"),
        }
    };
    assert_eq!(archived.orders, 1);
    worker.shutdown().await;
    flux.shutdown().await;
}
