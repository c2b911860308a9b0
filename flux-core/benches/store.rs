//! Deciding, and writing decisions down: the embedded store beside its limit,
//! a bare log that appends and syncs the same rows in the same batches.
//!
//! `cargo bench -p flux-core`

use std::fs::File;
use std::hint::black_box;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use flux_core::backends::embedded::Embedded;
use flux_core::protocol::{
    Claim, Commit, CommitOutcome, FencingToken, Message, OrderWrite, Stock, Verdict, View,
};
use flux_core::{BuyerId, ItemSpec, Line, Lines, Order, OrderId, Timestamp};
use uuid::Uuid;

/// About what a one-line order takes on disk.
const ROW_BYTES: usize = 60;

fn spec() -> ItemSpec {
    ItemSpec::pool("item", 10_000_000).expect("a pool")
}

fn order() -> Message {
    let lines = Lines::new(vec![Line::units("item", 1).expect("a line")]).expect("lines");
    let buyer = BuyerId::new("buyer-1234").expect("a buyer");
    let now = Timestamp::from(SystemTime::now());
    Message::Place(Order::queued(OrderId::from_uuid(Uuid::now_v7()), buyer, lines, now))
}

fn fresh_view(token: FencingToken) -> View {
    let spec = Arc::new(spec());
    let mut view = View::default();
    view.insert(Claim { token, stock: Stock::full(&spec), spec });
    view
}

fn decided(view: &mut View, batch: usize) -> Vec<OrderWrite> {
    let now = Timestamp::from(SystemTime::now());
    let decide = |_| match view.decide(&order(), None, now) {
        Verdict::Write(write) => write,
        Verdict::Nothing => unreachable!("a new order is decided"),
    };
    (0..batch).map(decide).collect()
}

fn deciding(c: &mut Criterion) {
    let mut group = c.benchmark_group("decide");
    group.throughput(Throughput::Elements(1));
    let (message, now) = (order(), Timestamp::from(SystemTime::now()));
    let mut view = fresh_view(FencingToken(1));
    let mut decided = 0;
    group.bench_function("one order", |b| {
        b.iter(|| {
            decided += 1;
            if decided % 5_000_000 == 0 {
                view = fresh_view(FencingToken(1));
            }
            black_box(view.decide(&message, None, now))
        });
    });
    group.finish();
}

fn committing(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_time()
        .build()
        .expect("a runtime");
    let dir = tempfile::tempdir().expect("a directory");
    let mut group = c.benchmark_group("commit");
    group.sample_size(20).measurement_time(Duration::from_secs(3));
    for batch in [1, 16, 128, 512, 1024] {
        group.throughput(Throughput::Elements(batch as u64));
        let path = dir.path().join(batch.to_string());
        let store = Embedded::open(path).expect("opens").backend().store;
        let (claim, id) = (spec(), spec().id);
        runtime.block_on(store.put_item(&claim)).expect("put");
        let mut token = FencingToken(0);
        let mut left = 0;
        group.bench_function(BenchmarkId::new("embedded", batch), |b| {
            b.iter_batched(
                || {
                    if left < batch {
                        let claims = runtime.block_on(store.claim(std::slice::from_ref(&id)));
                        let claim = claims.expect("answers").remove(0).expect("is there");
                        (token, left) = (claim.token, claim.stock.available() as usize);
                    }
                    left -= batch;
                    let writes = decided(&mut fresh_view(token), batch);
                    [Commit { claims: vec![(id.clone(), token)], writes }]
                },
                |commits| {
                    let outcomes = runtime.block_on(store.commit(&commits)).expect("answers");
                    assert_eq!(outcomes, [CommitOutcome::Applied]);
                },
                criterion::BatchSize::LargeInput,
            );
        });
        let mut log = File::create(dir.path().join("bare.log")).expect("a file");
        let bytes = vec![7; batch * ROW_BYTES];
        group.bench_function(BenchmarkId::new("bare log", batch), |b| {
            b.iter(|| {
                log.write_all(&bytes).expect("written");
                log.sync_data().expect("synced");
            });
        });
    }
    group.finish();
}

criterion_group!(benches, deciding, committing);
criterion_main!(benches);
