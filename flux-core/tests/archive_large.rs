//! A larger sale is archived: its room comes back, and where the process is killed at
//! whatever moment, the same call goes on, no order is lost and none is there twice.
//! `FLUX_ARCHIVE_KILLS=100` for more kills, `FLUX_ARCHIVE_ORDERS=1000000` for a larger sale.

#![cfg(all(feature = "archive", feature = "embedded"))]

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use flux_core::archive::Archive;
use flux_core::backends::embedded::Embedded;
use flux_core::{
    Flux, ItemId, ItemSpec, Line, Order, OrderFilter, OrderId, OrderRequest, OrderStatus,
    PaymentRef, RefundRef, Role,
};
use futures_util::stream::{self, StreamExt};

/// Names the directory to a child.
const CHILD: &str = "FLUX_ARCHIVE_CHILD";
const CALLERS: usize = 256;

fn number(name: &str, or: usize) -> usize {
    std::env::var(name).map_or(or, |text| text.parse().expect("a number"))
}

fn items() -> [ItemId; 2] {
    ["parking", "ticket"].map(|name| ItemId::new(name).expect("a name"))
}

fn open(dir: &Path) -> (Embedded, Flux) {
    // So that what the file's pages take is not taken for what orders do.
    let embedded = Embedded::builder(dir.join("store")).cache_bytes(4 << 20).open();
    let embedded = embedded.expect("opens");
    let flux = Flux::builder(embedded.backend()).start();
    (embedded, flux)
}

/// Sells orders over one item or two, some of which end in another way, and few that stay.
async fn sell(dir: &Path, orders: usize) -> Vec<OrderId> {
    let (embedded, flux) = open(dir);
    for name in ["parking", "ticket", "other"] {
        let spec = ItemSpec::pool(name, 10_000_000).expect("an item");
        flux.put_item(spec).await.expect("put");
    }
    let place = async |n: usize| {
        let names: &[&str] = match n % 100 {
            0 => &["other"],
            1..20 => &["ticket", "parking"],
            _ => &["ticket"],
        };
        let lines = names.iter().map(|name| Line::units(name, 1).expect("a line")).collect();
        let request = OrderRequest::builder().buyer(format!("buyer-{}", n % 5_000)).lines(lines);
        let order = flux.place(request.build().expect("a request")).await.expect("placed");
        assert_eq!(order.status(), OrderStatus::Held);
        let paid = || PaymentRef::new(format!("paid-{n}")).expect("a reference");
        match n % 10 {
            7 => drop(flux.release(order.id).await.expect("released")),
            8 => {
                flux.confirm(order.id, paid()).await.expect("paid");
                flux.cancel(order.id).await.expect("cancelled");
                let refund = RefundRef::new(format!("back-{n}")).expect("a reference");
                flux.refunded(order.id, refund).await.expect("refunded");
            }
            _ => drop(flux.confirm(order.id, paid()).await.expect("paid")),
        }
        order.id
    };
    let sold = stream::iter(0..orders).map(place).buffer_unordered(CALLERS).collect().await;
    for item in items() {
        let mut spec = ItemSpec::pool(item.as_str(), 10_000_000).expect("an item");
        spec.closes_at = Some(flux.now());
        flux.put_item(spec).await.expect("closed");
    }
    flux.shutdown().await;
    drop((flux, embedded));
    sold
}

/// What a child does, until it is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Some(dir) = std::env::var_os(CHILD).map(PathBuf::from) else { return };
    let (_embedded, flux) = open(&dir);
    println!("opened with {} bytes", memory());
    flux.archive(&items(), dir.join("files")).await.expect("archived");
    println!("archived with {} bytes", memory());
    flux.shutdown().await;
}

/// The memory that this process has.
fn memory() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let resident = pages.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
    resident.unwrap_or(0) * 4096
}

/// A child that has opened the store.
fn spawn(dir: &Path) -> Child {
    let mut child = Command::new(std::env::current_exe().expect("this test"))
        .args(["child", "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("a child");
    let mut said = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    while !line.contains("opened") {
        line.clear();
        let read = said.read_line(&mut line).expect("read");
        assert!(read > 0, "the child can't open the store");
    }
    // What else it says finds room in the pipe, which must stay open.
    child.stdout = Some(said.into_inner());
    child
}

/// Where each order is, over the store and the archives.
async fn whereabouts(dir: &Path) -> (HashMap<OrderId, Vec<&'static str>>, Vec<Order>) {
    let mut found: HashMap<OrderId, Vec<&'static str>> = HashMap::new();
    let embedded = Embedded::open(dir.join("store")).expect("opens");
    let flux = Flux::builder(embedded.backend()).role(Role::AcceptOnly).start();
    let audit = flux.audit().await.expect("counted");
    assert!(audit.is_clean(), "{audit}");
    let (mut stored, mut after) = (Vec::new(), None);
    loop {
        let page = flux.orders(&OrderFilter::default(), after.as_ref(), 1_000).await;
        let page = page.expect("listed");
        stored.extend(page.orders);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    for order in &stored {
        found.entry(order.id).or_default().push("store");
    }
    flux.shutdown().await;
    let entries = std::fs::read_dir(dir.join("files")).into_iter().flatten();
    for place in entries.map(|entry| entry.expect("an entry").path()) {
        if place.extension().is_some() {
            continue;
        }
        for order in Archive::open(place).expect("whole").orders().expect("opened") {
            found.entry(order.expect("read").id).or_default().push("archive");
        }
    }
    (found, stored)
}

/// Waits until an archive is in its place, or the child is at its end.
fn until_in_place(dir: &Path, child: &mut Child) {
    let is_there = || {
        let entries = std::fs::read_dir(dir.join("files")).into_iter().flatten();
        entries.flatten().any(|entry| entry.path().extension().is_none())
    };
    while !is_there() && child.try_wait().expect("waited").is_none() {
        std::thread::sleep(Duration::from_micros(200));
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to.join("store")).expect("made");
    for entry in std::fs::read_dir(from.join("store")).expect("a directory") {
        let entry = entry.expect("an entry");
        let to = to.join("store").join(entry.file_name());
        std::fs::copy(entry.path(), to).expect("copied");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archive_killed_at_whatever_moment_loses_no_order_and_has_none_twice() {
    let (kills, orders) = (number("FLUX_ARCHIVE_KILLS", 10), number("FLUX_ARCHIVE_ORDERS", 10_000));
    let dir = tempfile::tempdir().expect("a directory");
    let sold: HashSet<OrderId> = sell(dir.path(), orders).await.into_iter().collect();
    let undisturbed = dir.path().join("undisturbed");
    copy(dir.path(), &undisturbed);
    let mut child = spawn(&undisturbed);
    let started = Instant::now();
    until_in_place(&undisturbed, &mut child);
    let in_place = started.elapsed();
    assert!(child.wait().expect("it ends").success());
    let takes = started.elapsed();
    std::fs::remove_dir_all(undisturbed).expect("removed");

    let (mut killed, mut before, mut between) = (0, 0, 0);
    for run in 0.. {
        if killed >= kills {
            break;
        }
        let here = dir.path().join(run.to_string());
        copy(dir.path(), &here);
        // Killed again and again, until one comes to its end.
        loop {
            let mut child = spawn(&here);
            // Most of a fresh id is random.
            let random = (OrderId::new().as_uuid().as_u64_pair().1 << 2) as f64 / u64::MAX as f64;
            // One half at any moment, the other from when the files are in their place.
            if killed % 2 == 0 {
                std::thread::sleep(takes.mul_f64(random));
            } else {
                until_in_place(&here, &mut child);
                std::thread::sleep((takes - in_place).mul_f64(random));
            }
            child.kill().expect("killed");
            let ended = child.wait().expect("it ends").success();
            if !ended {
                killed += 1;
            }
            let (found, _) = whereabouts(&here).await;
            let lost: Vec<_> = sold.iter().filter(|id| !found.contains_key(id)).take(3).collect();
            assert!(lost.is_empty(), "lost: {lost:?}");
            assert_eq!(found.len(), sold.len(), "none is there that was not sold");
            let in_archive = found.values().filter(|at| at.contains(&"archive")).count();
            let only_there = found.values().filter(|at| **at == ["archive"]).count();
            before += usize::from(in_archive == 0);
            between += usize::from(in_archive > 0 && only_there < in_archive);
            let most =
                found.values().filter(|at| at.iter().filter(|at| **at == "archive").count() > 1);
            assert_eq!(most.count(), 0, "an order is in two archives");
            if ended || (in_archive > 0 && only_there == in_archive) {
                break;
            }
        }
        // Whatever was left half-way, the same call brings to its end.
        assert!(spawn(&here).wait().expect("it ends").success());
        let (found, stored) = whereabouts(&here).await;
        assert_eq!(found.len(), sold.len());
        let twice: Vec<_> = found.iter().filter(|(_, at)| at.len() != 1).take(3).collect();
        assert!(twice.is_empty(), "twice: {twice:?}");
        assert!(stored.iter().all(|order| order.lines[0].item.as_str() == "other"));
        let left = std::fs::read_dir(here.join("files")).expect("a directory").count();
        assert_eq!(left, 1, "one archive, and nothing half-made");
        std::fs::remove_dir_all(here).expect("removed");
    }
    println!(
        "{killed} kills of archives of {orders} orders that take {takes:?}: 0 lost, 0 twice \
         ({before} before the files were in their place, {between} while orders left)"
    );
    assert!(takes > Duration::ZERO);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_room_of_what_is_archived_comes_back() {
    let orders = number("FLUX_ARCHIVE_ORDERS", 10_000);
    let dir = tempfile::tempdir().expect("a directory");
    sell(dir.path(), orders).await;
    let run = || {
        let child = Command::new(std::env::current_exe().expect("this test"))
            .args(["child", "--exact", "--nocapture", "--test-threads=1"])
            .env(CHILD, dir.path())
            // Else the system's allocator keeps what it once had of this size.
            .env("MALLOC_MMAP_THRESHOLD_", "65536")
            .output()
            .expect("a child");
        assert!(child.status.success());
        String::from_utf8(child.stdout).expect("text")
    };
    let kib_when = |said: &str, what: &str| {
        let line = said.lines().find(|line| line.contains(what)).expect("it was said");
        let bytes = line.split(' ').rev().nth(1).expect("a number");
        bytes.parse::<usize>().expect("a number") >> 10
    };
    let said = run();
    let reopened = kib_when(&run(), "opened with");
    let file = dir.path().join("store/flux.redb");
    let file_bytes = || file.metadata().expect("a file").len();
    let archived = file_bytes();
    let started = Instant::now();
    let (before, after) = Embedded::compact(dir.path().join("store")).expect("compacted");
    let took = started.elapsed();
    assert_eq!((before, after), (archived, file_bytes()));
    // What is left is the feed's, which keeps its changes for a week.
    let store = dir.path().join("store");
    drop(Embedded::builder(&store).keep_changes(Duration::ZERO).open().expect("opens"));
    let (_, without_feed) = Embedded::compact(&store).expect("compacted");
    println!(
        "{orders} orders archived: memory {} KiB before, {} after, {reopened} opened anew; file {} \
         KiB before, {} after it was compacted in {took:?}, {} without the change feed",
        kib_when(&said, "opened with"),
        kib_when(&said, "archived with"),
        before >> 10,
        after >> 10,
        without_feed >> 10,
    );
    // A hundredth of the orders stays.
    assert!(without_feed < 1 << 20 || without_feed < before / 20, "{without_feed} of {before}");
    let (found, stored) = whereabouts(dir.path()).await;
    assert_eq!((found.len(), stored.len()), (orders, orders.div_ceil(100)));
}
