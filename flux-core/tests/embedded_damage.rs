//! A file that is not what was written: cut short, or with bytes changed. It
//! opens with everything that was acknowledged, or it is refused with a reason.

#![cfg(feature = "embedded")]

use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use flux_core::backends::Backend;
use flux_core::backends::embedded::{Embedded, OpenError};
use flux_core::protocol::{Commit, CommitOutcome, Expect, Message, OrderWrite};
use flux_core::seams::{DeadLetter, OrderFilter, SeamError};
use flux_core::{
    BuyerId, Hold, Item, ItemId, ItemSpec, Line, Lines, Order, OrderId, OrderState, Timestamp,
};

const T0: Timestamp = Timestamp::from_millis(1_790_000_000_000);
const ORDERS: u128 = 600;
const MESSAGES: u128 = 300;

fn order(n: u128, item: &str) -> Order {
    let id = OrderId::from_uuid(uuid::Uuid::from_u128(n));
    let buyer = BuyerId::new(format!("buyer-{n}")).expect("buyer");
    let lines = Lines::new(vec![Line::units(item, 1).expect("line")]).expect("lines");
    Order::queued(id, buyer, lines, T0)
}

/// Everything there is to see.
#[derive(Debug, PartialEq)]
struct Seen {
    items: Vec<Item>,
    orders: Vec<Order>,
    messages: Vec<Message>,
    dead: Vec<DeadLetter>,
}

async fn see(backend: &Backend) -> Result<Seen, SeamError> {
    let mut orders = Vec::new();
    let mut next = None;
    loop {
        let page = backend.store.list_orders(&OrderFilter::default(), next.as_ref(), 100).await?;
        orders.extend(page.orders);
        next = page.next;
        if next.is_none() {
            break;
        }
    }
    let deliveries = backend.queue.receive(1_000, Duration::ZERO).await?;
    let receipts: Vec<_> = deliveries.iter().map(|delivery| delivery.receipt.clone()).collect();
    backend.queue.retry(&receipts, Duration::ZERO).await?;
    Ok(Seen {
        items: backend.store.list_items(None, 100).await?,
        orders,
        messages: deliveries.into_iter().map(|delivery| delivery.message).collect(),
        dead: backend.queue.dead_letters(100).await?,
    })
}

async fn hold(backend: &Backend, numbers: Range<u128>) {
    let items = ["a", "b"].map(|id| ItemId::new(id).expect("item"));
    let claims = backend.store.claim(&items).await.expect("claim");
    let tokens = claims.into_iter().map(|claim| claim.expect("there").token);
    let hold = Hold::between(T0, T0 + Duration::from_secs(600));
    let held = numbers.map(|n| OrderWrite {
        order: order(n, ["a", "b"][(n % 2) as usize]).with_state(OrderState::Held(hold)),
        expect: Expect::Absent,
    });
    let claims = items.iter().cloned().zip(tokens).collect();
    let commit = Commit { claims, writes: held.collect() };
    let outcome = backend.store.commit(&[commit]).await.expect("commit");
    assert_eq!(outcome, [CommitOutcome::Applied]);
}

async fn write(dir: &Path) -> Seen {
    let backend = Embedded::open(dir).expect("opens").backend();
    for id in ["a", "b"] {
        let spec = ItemSpec::pool(id, 1_000).expect("pool");
        backend.store.put_item(&spec).await.expect("put");
    }
    for n in (0..ORDERS).step_by(20) {
        hold(&backend, n..n + 20).await;
    }
    let first: Vec<_> = (0..5).map(|n| Message::Place(order(ORDERS + n, "a"))).collect();
    backend.queue.send(&first).await.expect("send");
    let first = backend.queue.receive(5, Duration::ZERO).await.expect("receive");
    let buried: Vec<_> = first.into_iter().map(|d| (d.receipt, "why".to_owned())).collect();
    backend.queue.bury(&buried).await.expect("bury");
    for n in (5..MESSAGES).step_by(10) {
        let messages = (n..n + 10).map(|n| Message::Place(order(ORDERS + n, "a")));
        backend.queue.send(&messages.collect::<Vec<_>>()).await.expect("send");
    }
    see(&backend).await.expect("a whole file can be read")
}

/// Opens a damaged file; whether all of it could be read, and still can after
/// more was written.
async fn is_whole(dir: &Path, expected: &Seen, damage: &str) -> bool {
    let embedded = match Embedded::open(dir) {
        Ok(embedded) => embedded,
        Err(OpenError::Damaged { what, .. }) => {
            println!("{damage}: {what}");
            return false;
        }
        Err(error) => panic!("{damage}: {error:?}"),
    };
    let backend = embedded.backend();
    drop(embedded);
    let seen = see(&backend).await.unwrap_or_else(|error| panic!("{damage}: late: {error}"));
    assert!(seen == *expected, "{damage}: silent loss");
    for n in (2_000..2_200).step_by(20) {
        hold(&backend, n..n + 20).await;
    }
    drop(backend);
    let again = Embedded::open(dir).unwrap_or_else(|error| panic!("{damage}: late: {error}"));
    let seen =
        see(&again.backend()).await.unwrap_or_else(|error| panic!("{damage}: late: {error}"));
    assert!(seen.orders.starts_with(&expected.orders), "{damage}: silent loss");
    assert_eq!(seen.orders.len(), expected.orders.len() + 200, "{damage}");
    true
}

fn roll(state: &mut u64, sides: usize) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) as usize % sides
}

#[tokio::test]
async fn a_changed_file_is_whole_or_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let expected = write(dir.path()).await;
    assert_eq!(
        (expected.orders.len(), expected.messages.len(), expected.dead.len()),
        (600, 300, 5)
    );
    let file = dir.path().join("flux.redb");
    let image = std::fs::read(&file).expect("read");
    assert!(is_whole(dir.path(), &expected, "no damage").await);

    let mut state = 2026;
    println!("seed {state}, {} bytes", image.len());
    let used: Vec<usize> = (0..image.len()).filter(|&at| image[at] != 0).collect();
    let mut refused = 0;
    for case in 0..120 {
        let mut changed = image.clone();
        let damage = if case < 32 {
            // The header, where each byte matters most.
            changed[case * 10] ^= 1 << roll(&mut state, 8);
            format!("byte {} of the header", case * 10)
        } else if case < 92 {
            let at = used[roll(&mut state, used.len())];
            changed[at] ^= 1 << roll(&mut state, 8);
            format!("byte {at}")
        } else if case < 106 {
            let at = used[roll(&mut state, used.len())] / 4096 * 4096;
            changed[at..(at + 4096).min(image.len())].fill(0);
            format!("a lost page at {at}")
        } else {
            let len = if case == 106 { 0 } else { roll(&mut state, image.len()) };
            changed.truncate(len);
            format!("cut to {len} bytes")
        };
        std::fs::write(&file, &changed).expect("written");
        if !is_whole(dir.path(), &expected, &damage).await {
            refused += 1;
        }
    }
    println!("{refused} refused");
    assert!(refused > 20, "damage goes unnoticed: only {refused} refused");
}

#[tokio::test]
async fn a_row_that_changes_while_it_is_open_is_not_believed() {
    let dir = tempfile::tempdir().expect("a directory");
    let expected = write(dir.path()).await;
    let embedded = Embedded::builder(dir.path()).cache_bytes(0).open().expect("opens");
    let store = embedded.backend().store;

    let file = dir.path().join("flux.redb");
    let mut image = std::fs::read(&file).expect("read");
    let name = b"buyer-17";
    let places: Vec<_> = (0..image.len()).filter(|&at| image[at..].starts_with(name)).collect();
    for at in places {
        image[at + name.len() - 1] = b'8';
    }
    std::fs::write(&file, &image).expect("written");
    let damaged = expected.orders[17].id;
    let error = store.orders(&[damaged]).await.expect_err("not what was written");
    assert!(matches!(&error, SeamError::Broken { reason, .. } if reason.contains("order 17")));
    let sound = expected.orders[300].clone();
    assert_eq!(store.orders(&[sound.id]).await.expect("sound"), [Some(sound)]);
}

#[tokio::test]
async fn a_place_nothing_can_be_written_to_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("file");
    std::fs::write(&file, "not a directory").expect("written");
    let blocked = dir.path().join("blocked");
    std::fs::create_dir_all(blocked.join("flux.redb")).expect("made");
    let mut paths = vec![file.clone(), file.join("below"), blocked];
    if cfg!(target_os = "linux") {
        // Not even root may make a directory here.
        paths.push("/proc/flux".into());
    }
    for path in paths {
        let error = Embedded::open(&path).expect_err("no place to write");
        assert!(matches!(error, OpenError::Io { .. }), "{error:?}");
        assert!(error.to_string().contains(&*path.to_string_lossy()), "names it: {error}");
    }
}
