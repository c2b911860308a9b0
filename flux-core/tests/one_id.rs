//! An order id stands for one request: while it is queued, while the worker
//! has it, and while two callers bring it in at the same time.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use flux_core::clock::TokioClock;
use flux_core::layers::Operation;
use flux_core::protocol::Message;
use flux_core::seams::{
    DeadLetter, Delivery, OrderQueue, QueueDepth, Recalled, Receipt, SeamError,
};
use flux_core::{
    Backend, BuyerId, Error, Flux, IdempotencyKey, ItemId, ItemSpec, Order, OrderId, OrderRequest,
    OrderStatus, Role, Timestamp,
};
use tokio::task::yield_now;
use tokio::time::{advance, timeout};
use uuid::Uuid;

mod ill_store;
mod troubles;

use ill_store::IllStore;
use troubles::{Trouble, Troubles};

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;
type Answer = std::result::Result<Order, Error>;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// A way to bring an order in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Submit,
    Place,
    /// Too short for a slow backend: it is queued as well.
    PlaceShortly,
}

const WAYS: [Way; 3] = [Way::Submit, Way::Place, Way::PlaceShortly];

impl Way {
    async fn bring(self, flux: &Flux, request: OrderRequest) -> Answer {
        match self {
            Self::Submit => flux.submit(request).await,
            Self::Place => flux.place(request).await,
            Self::PlaceShortly => flux.place_within(request, SECOND / 5).await,
        }
    }
}

fn id(n: u128) -> OrderId {
    OrderId::from_uuid(Uuid::from_u128(n))
}

/// One unit for a buyer, always under the same id.
fn one(buyer: &str) -> OrderRequest {
    OrderRequest::units(buyer, "a", 1).expect("a request").with_id(id(1))
}

async fn start(troubles: &Troubles, spec: ItemSpec) -> Result<Flux> {
    let backend = Backend::memory().layered(troubles.clone());
    let clock = Arc::new(TokioClock::starting_at(START));
    let flux = Flux::builder(backend).clock(clock).start();
    flux.put_item(spec).await?;
    Ok(flux)
}

async fn sale(capacity: u64) -> Result<(Flux, Troubles)> {
    let troubles = Troubles::default();
    Ok((start(&troubles, ItemSpec::pool("a", capacity)?).await?, troubles))
}

#[track_caller]
fn assert_reused(answer: &Answer) {
    assert!(matches!(answer, Err(Error::IdReused(reused)) if *reused == id(1)), "{answer:?}");
}

/// Checks that nobody else gets anywhere under the id.
async fn assert_taken(flux: &Flux) {
    for way in WAYS {
        assert_reused(&way.bring(flux, one("bob")).await);
    }
}

async fn assert_sold(flux: &Flux, taken: u32) -> Result {
    let item = flux.item(&ItemId::new("a")?).await?.expect("the item is there");
    assert_eq!(item.held + item.sold, taken);
    let audit = flux.audit().await?;
    assert!(audit.is_clean(), "{audit}");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_queued_order_keeps_its_id_and_its_time() -> Result {
    for way in [Way::Place, Way::PlaceShortly] {
        let troubles = Troubles::default();
        troubles.set(Operation::Receive, Trouble::Slow(MINUTE));
        let closes_at = START + 5 * SECOND;
        let spec = ItemSpec::builder().id("a").capacity(5).closes_at(closes_at).build()?;
        let flux = start(&troubles, spec).await?;
        let queued = flux.submit(one("ann")).await?;
        assert_eq!(queued.status(), OrderStatus::Queued);
        assert_taken(&flux).await;

        // Closed by now, but it was placed in time.
        advance(10 * SECOND).await;
        let decided = way.bring(&flux, one("ann")).await?;
        assert_eq!(decided.status(), OrderStatus::Held);
        assert_eq!(decided.placed_at, queued.placed_at);
        assert_taken(&flux).await;
        advance(2 * MINUTE).await;
        assert_eq!(flux.submit(one("ann")).await?, decided);
        assert_sold(&flux, 1).await?;
    }
    Ok(())
}

/// What may be slow while two requests are on their way.
const SLOW: [Operation; 7] = [
    Operation::Send,
    Operation::Find,
    Operation::Recall,
    Operation::Announce,
    Operation::Orders,
    Operation::Known,
    Operation::Commit,
];

#[tokio::test(start_paused = true)]
async fn of_two_requests_at_once_one_is_accepted() -> Result {
    for slow in SLOW {
        for first in WAYS {
            for second in WAYS {
                let (flux, troubles) = sale(5).await?;
                troubles.set(slow, Trouble::Slow(SECOND));
                let (one, other) =
                    tokio::join!(first.bring(&flux, one("ann")), second.bring(&flux, one("bob")));
                let case = format!("{slow:?} {first:?} {second:?}: {one:?}, {other:?}");
                let [accepted, refused] = if one.is_ok() { [one, other] } else { [other, one] };
                assert!(matches!(refused, Err(Error::IdReused(_))), "{case}");
                let decided = flux.wait(id(1), MINUTE).await?;
                assert_eq!(decided.buyer, accepted?.buyer, "{case}");
                assert_sold(&flux, 1).await?;
            }
        }
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn repeats_at_once_are_the_first_ones_order() -> Result {
    for slow in SLOW {
        for first in WAYS {
            for second in WAYS {
                let (flux, troubles) = sale(5).await?;
                troubles.set(slow, Trouble::Slow(SECOND));
                let late = async {
                    tokio::time::sleep(SECOND / 10).await;
                    second.bring(&flux, one("ann")).await
                };
                let (one, other) = tokio::join!(first.bring(&flux, one("ann")), late);
                let decided = flux.wait(id(1), MINUTE).await?;
                for answer in [one?, other?] {
                    let case = format!("{slow:?} {first:?} {second:?}: {answer:?}");
                    assert_eq!(answer.placed_at, START, "{case}");
                    assert!(answer.status() == OrderStatus::Queued || answer == decided, "{case}");
                }
                assert_sold(&flux, 1).await?;
            }
        }
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_dropped_call_leaves_its_id_taken_while_the_worker_has_its_order() -> Result {
    let (flux, troubles) = sale(5).await?;
    troubles.set(Operation::Commit, Trouble::Slow(10 * SECOND));
    // The batch before, so that the order is in the inbox for a while.
    let before = flux.clone();
    let before =
        tokio::spawn(async move { before.place(OrderRequest::units("eve", "a", 1)?).await });
    yield_now().await;
    assert!(timeout(SECOND, flux.place(one("ann"))).await.is_err());
    assert_taken(&flux).await;
    assert!(flux.order(id(1)).await?.is_none(), "only the worker has it");
    before.await??;
    // The worker has taken it up.
    advance(SECOND).await;
    assert_taken(&flux).await;
    assert!(flux.order(id(1)).await?.is_none());

    let decided = flux.place(one("ann")).await?;
    assert_eq!(decided.status(), OrderStatus::Held);
    assert_eq!(decided.placed_at, START);
    assert_taken(&flux).await;
    assert_sold(&flux, 2).await
}

#[tokio::test(start_paused = true)]
async fn a_sale_that_ends_meanwhile_does_not_change_what_is_known() -> Result {
    let (flux, troubles) = sale(1).await?;
    troubles.set(Operation::Commit, Trouble::Slow(SECOND));
    let (winner, queued) = (flux.clone(), flux.clone());
    let winner =
        tokio::spawn(async move { winner.place(OrderRequest::units("eve", "a", 1)?).await });
    yield_now().await;
    let first = tokio::spawn(async move { queued.place(one("ann")).await });
    winner.await??;
    // The gate is shut, and the worker has the order.
    let fresh = flux.place(one("zoe").with_id(id(2))).await;
    assert!(matches!(fresh, Err(Error::SoldOut(_))), "{fresh:?}");
    assert_taken(&flux).await;
    let repeat = flux.place(one("ann")).await?;
    assert_eq!(repeat.status(), OrderStatus::Rejected);
    assert_eq!(repeat, first.await??);

    // In the queue it is as well known, and decided when that is asked for.
    let troubles = Troubles::default();
    troubles.set(Operation::Receive, Trouble::Slow(MINUTE));
    let flux = start(&troubles, ItemSpec::pool("a", 1)?).await?;
    let queued = flux.submit(one("ann")).await?;
    flux.place(OrderRequest::units("eve", "a", 1)?).await?;
    assert_taken(&flux).await;
    let decided = flux.place(one("ann")).await?;
    assert_eq!((decided.status(), decided.placed_at), (OrderStatus::Rejected, queued.placed_at));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_wrong_request_keeps_no_repeat_from_its_order() -> Result {
    let (flux, troubles) = sale(5).await?;
    let decided = flux.place(one("ann")).await?;
    troubles.set(Operation::Commit, Trouble::Slow(SECOND));
    for way in WAYS {
        let (wrong, right) = tokio::join!(flux.place(one("bob")), way.bring(&flux, one("ann")));
        assert_reused(&wrong);
        assert_eq!(right?, decided);
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_call_that_failed_leaves_its_id_free() -> Result {
    let finds = [Operation::Recall, Operation::Announce];
    let cases = [(finds.as_slice(), WAYS.as_slice()), (&[Operation::Send], &[Way::Submit])];
    for (all, ways) in cases {
        for way in ways {
            let (flux, troubles) = sale(5).await?;
            for away in all {
                troubles.set(*away, Trouble::Away(SECOND / 10));
            }
            let failed = way.bring(&flux, one("ann")).await;
            assert!(matches!(failed, Err(Error::Backend(_))), "{way:?}: {failed:?}");
            troubles.clear();
            assert_eq!(way.bring(&flux, one("bob")).await?.buyer.as_str(), "bob");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_buyer_gets_the_id_however_many_try() -> Result {
    #[cfg(feature = "embedded")]
    let dir = tempfile::tempdir()?;
    let sales = [
        (Flux::builder(Backend::memory()).start(), 400),
        #[cfg(feature = "embedded")]
        (Flux::open(dir.path()).await?, 100),
    ];
    for (flux, rounds) in sales {
        flux.put_item(ItemSpec::pool("a", 100_000)?).await?;
        for round in 0..rounds {
            let id = OrderId::from_uuid(Uuid::from_u128(1_000 + round));
            let barrier = Arc::new(tokio::sync::Barrier::new(4));
            let calls: Vec<_> = (0..4)
                .map(|n| {
                    let (flux, barrier) = (flux.clone(), Arc::clone(&barrier));
                    let request = one(&format!("buyer_{n}")).with_id(id);
                    // Every mix of the ways comes up.
                    let way = [Way::Submit, Way::Place][(round as usize >> n) % 2];
                    tokio::spawn(async move {
                        barrier.wait().await;
                        way.bring(&flux, request).await
                    })
                })
                .collect();
            let mut accepted = Vec::new();
            for call in calls {
                match call.await? {
                    Ok(order) => accepted.push(order.buyer),
                    Err(error) => assert!(matches!(error, Error::IdReused(_)), "{error}"),
                }
            }
            let decided = flux.wait(id, MINUTE).await?;
            assert_eq!(accepted, [decided.buyer], "round {round}");
        }
        flux.shutdown().await;
        assert_sold(&flux, u32::try_from(rounds)?).await?;
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn without_a_worker_what_is_queued_is_asked_for_once() -> Result {
    let backend = Backend::memory();
    let front = Flux::builder(backend.clone()).role(Role::AcceptOnly).start();
    front.put_item(ItemSpec::pool("a", 5)?).await?;
    let queued = front.submit(one("ann")).await?;
    assert_taken(&front).await;
    let pending = front.place(one("ann")).await;
    assert!(matches!(pending, Err(Error::OutcomePending(_))), "{pending:?}");
    assert_eq!(front.depth().await?.waiting, 1);

    let _worker = Flux::builder(backend).start();
    let decided = front.place(one("ann")).await?;
    assert_eq!((decided.status(), decided.placed_at), (OrderStatus::Held, queued.placed_at));
    assert_sold(&front, 1).await
}

/// One unit for a buyer under the key that is Ann's own.
fn keyed(buyer: &str) -> OrderRequest {
    let key = IdempotencyKey::new("click").expect("a key");
    OrderRequest::units(buyer, "a", 1).expect("a request").with_idempotency_key(key)
}

/// The id that Ann's key stands for, as anybody can compute it.
fn anns() -> OrderId {
    let ann = BuyerId::new("ann").expect("a name");
    OrderId::from_idempotency_key(&ann, "click").expect("a key")
}

#[track_caller]
fn assert_kept_for_the_key(answer: &Answer) {
    let field = match answer {
        Err(Error::Invalid(wrong)) => wrong.field(),
        answer => panic!("{answer:?}"),
    };
    assert_eq!(field, "order_id");
}

/// Checks that Ann's order is found by its id, and is nobody else's.
async fn assert_anns(flux: &Flux, expected: &Order) {
    for way in WAYS {
        let repeat = way.bring(flux, one("ann").with_id(anns())).await;
        assert_eq!(repeat.expect("a repeat").placed_at, expected.placed_at);
        let other = way.bring(flux, one("bob").with_id(anns())).await;
        assert!(matches!(other, Err(Error::IdReused(_))), "{other:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_keys_id_waits_for_the_key() -> Result {
    for way in WAYS {
        let (flux, _) = sale(5).await?;
        for buyer in ["bob", "ann"] {
            assert_kept_for_the_key(&way.bring(&flux, one(buyer).with_id(anns())).await);
        }
        let nowhere = OrderRequest::units("bob", "nowhere", 1)?.with_id(anns());
        assert_kept_for_the_key(&way.bring(&flux, nowhere).await);
        assert_sold(&flux, 0).await?;
        let order = way.bring(&flux, keyed("ann")).await?;
        assert_eq!((order.id, order.buyer.as_str()), (anns(), "ann"));
        assert_ne!(way.bring(&flux, keyed("bob")).await?.id, anns());
        flux.wait(anns(), MINUTE).await?;
        assert_anns(&flux, &order).await;
        assert_eq!(way.bring(&flux, keyed("ann")).await?.placed_at, order.placed_at);
        flux.release(anns()).await?;
        assert_anns(&flux, &order).await;
        assert_sold(&flux, 1).await?;
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_keys_order_that_is_on_its_way_or_queued_is_known_by_its_id() -> Result {
    let (flux, troubles) = sale(1).await?;
    troubles.set(Operation::Commit, Trouble::Slow(MINUTE));
    let placing = flux.clone();
    let placing = tokio::spawn(async move { placing.place(keyed("ann")).await });
    yield_now().await;
    let other = flux.submit(one("bob").with_id(anns())).await;
    assert!(matches!(other, Err(Error::IdReused(_))), "{other:?}");
    let repeat = flux.submit(one("ann").with_id(anns())).await?;
    assert_eq!(placing.await??.placed_at, repeat.placed_at);
    // The gate, which is shut by now, has no say.
    let (held, other) =
        (flux.order(anns()).await?.expect("it is held"), one("bob").with_id(anns()));
    assert!(matches!(flux.place(other).await, Err(Error::IdReused(_))));
    assert_anns(&flux, &held).await;

    let troubles = Troubles::default();
    troubles.set(Operation::Receive, Trouble::Slow(10 * MINUTE));
    let flux = start(&troubles, ItemSpec::pool("a", 5)?).await?;
    let queued = flux.submit(keyed("ann")).await?;
    assert_eq!(queued.status(), OrderStatus::Queued);
    assert_anns(&flux, &queued).await;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn an_id_beside_a_key_is_refused() -> Result {
    let (flux, _) = sale(1).await?;
    for way in WAYS {
        for id in [id(1), anns()] {
            assert_kept_for_the_key(&way.bring(&flux, keyed("ann").with_id(id)).await);
        }
    }
    assert_sold(&flux, 0).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_owner_of_a_key_wins_against_strangers_with_its_id() -> Result {
    let flux = Flux::builder(Backend::memory()).start();
    flux.put_item(ItemSpec::pool("a", 100_000)?).await?;
    for round in 0..300_usize {
        let key = format!("click_{round}");
        let id = OrderId::from_idempotency_key(&BuyerId::new("ann")?, &key)?;
        let barrier = Arc::new(tokio::sync::Barrier::new(4));
        let calls: Vec<_> = (0..4)
            .map(|n| {
                let (flux, barrier) = (flux.clone(), Arc::clone(&barrier));
                let request = match n {
                    0 => keyed("ann").with_idempotency_key(IdempotencyKey::new(&key).ok()),
                    _ => one("eve").with_id(id),
                };
                let way = [Way::Submit, Way::Place][(round >> n) % 2];
                tokio::spawn(async move {
                    barrier.wait().await;
                    way.bring(&flux, request).await
                })
            })
            .collect();
        for (n, call) in calls.into_iter().enumerate() {
            match (n, call.await?) {
                (0, answer) => assert_eq!(answer?.buyer.as_str(), "ann"),
                (_, Err(Error::Invalid(_) | Error::IdReused(_))) => {}
                (_, answer) => panic!("round {round}: {answer:?}"),
            }
        }
        assert_eq!(flux.wait(id, MINUTE).await?.buyer.as_str(), "ann");
    }
    flux.shutdown().await;
    assert_sold(&flux, 300).await
}

/// A queue that can't look inside.
struct Blind(Arc<dyn OrderQueue>, Recalled);

type Sent<T = ()> = std::result::Result<T, SeamError>;

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl OrderQueue for Blind {
    async fn send(&self, messages: &[Message]) -> Sent {
        self.0.send(messages).await
    }
    async fn receive(&self, max: usize, wait: Duration) -> Sent<Vec<Delivery>> {
        self.0.receive(max, wait).await
    }
    async fn ack(&self, receipts: &[Receipt]) -> Sent {
        self.0.ack(receipts).await
    }
    async fn retry(&self, receipts: &[Receipt], delay: Duration) -> Sent {
        self.0.retry(receipts, delay).await
    }
    async fn extend(&self, receipts: &[Receipt]) -> Sent {
        self.0.extend(receipts).await
    }
    async fn bury(&self, receipts: &[(Receipt, String)]) -> Sent {
        self.0.bury(receipts).await
    }
    async fn dead_letters(&self, max: usize) -> Sent<Vec<DeadLetter>> {
        self.0.dead_letters(max).await
    }
    async fn redrive(&self, max: usize) -> Sent<usize> {
        self.0.redrive(max).await
    }
    async fn find(&self, _: OrderId) -> Sent<Option<Order>> {
        Ok(None)
    }
    async fn recall(&self, _: OrderId) -> Sent<Recalled> {
        Ok(self.1.clone())
    }
    async fn announce(&self, _: OrderId) -> Sent<Option<Order>> {
        Ok(None)
    }
    fn finds_all(&self) -> bool {
        false
    }
    fn tells_of(&self, _: OrderId) -> bool {
        false
    }
    async fn depth(&self) -> Sent<QueueDepth> {
        self.0.depth().await
    }
}

/// A clash that only the store can decide is told to those who wait for the
/// decision.
#[tokio::test(start_paused = true)]
async fn with_a_queue_that_cannot_look_inside_one_engine_still_accepts_one_at_a_time() -> Result {
    let troubles = Troubles::default();
    let mut backend = Backend::memory();
    backend.queue = Arc::new(Blind(backend.queue, Recalled::Unknown));
    let front = Flux::builder(backend.clone().layered(troubles.clone()));
    let front = front.role(Role::AcceptOnly).start();
    front.put_item(ItemSpec::pool("a", 5)?).await?;
    troubles.set(Operation::Send, Trouble::Slow(SECOND));
    let (queued, at_once) = tokio::join!(front.submit(one("ann")), front.submit(one("bob")));
    assert_eq!(queued?.status(), OrderStatus::Queued);
    assert_reused(&at_once);

    // The call is over, and nobody can know until the order is decided.
    let late = front.clone();
    let late = tokio::spawn(async move { late.place(one("bob")).await });
    yield_now().await;
    assert_reused(&front.submit(one("eve")).await);
    let _worker = Flux::builder(backend).start();
    assert_reused(&late.await?);
    assert_taken(&front).await;
    assert_eq!(front.place(one("ann")).await?.status(), OrderStatus::Held);
    assert_sold(&front, 1).await
}

/// An order was decided a moment ago, and a read that may lag does not show it.
#[tokio::test(start_paused = true)]
async fn only_what_nobody_heard_of_is_looked_for_by_a_read_that_may_lag() -> Result {
    let clock = || Arc::new(TokioClock::starting_at(START));
    let shared = Backend::memory();
    let worker = Flux::builder(shared.clone()).clock(clock()).start();
    worker.put_item(ItemSpec::pool("a", 2)?).await?;
    let of_7 = |at: Timestamp| {
        let at = uuid::Timestamp::from_unix(uuid::NoContext, at.as_millis() / 1_000, 0);
        OrderId::from_uuid(Uuid::new_v7(at))
    };
    let (other, fresh) = (id(1), of_7(START));
    for id in [other, fresh] {
        worker.place(one("ann").with_id(id)).await?;
    }
    let (store, illness) = IllStore::around(Arc::clone(&shared.store));
    illness.of_lag();
    for recalled in [Recalled::Unknown, Recalled::Unheard] {
        let is_unheard = recalled == Recalled::Unheard;
        let queue = Arc::new(Blind(Arc::clone(&shared.queue), recalled));
        let backend = Backend { queue, store: store.clone(), ..shared.clone() };
        let gate = Flux::builder(backend).clock(clock()).role(Role::AcceptOnly).start();
        // Nobody announces an id that an engine makes; it tells its age itself.
        assert_eq!(gate.submit(one("ann").with_id(fresh)).await?.status(), OrderStatus::Held);
        let again = gate.submit(one("ann").with_id(other)).await;
        match is_unheard {
            true => assert!(matches!(again, Err(Error::SoldOut(_))), "{again:?}"),
            false => assert_eq!(again?.status(), OrderStatus::Held),
        }
        for latecomer in [id(2), of_7(START)] {
            let late = gate.submit(one("bob").with_id(latecomer)).await;
            assert!(matches!(late, Err(Error::SoldOut(_))), "{late:?}");
        }
    }
    illness.heal();
    // What a read that may lag does show is read again as it is now.
    let queue = Arc::new(Blind(Arc::clone(&shared.queue), Recalled::Unheard));
    let troubles = Troubles::default();
    let backend = Backend { queue, store, ..shared }.layered(troubles.clone());
    let gate = Flux::builder(backend).clock(clock()).role(Role::AcceptOnly).start();
    assert_eq!(gate.submit(one("ann").with_id(other)).await?.status(), OrderStatus::Held);
    assert_eq!(troubles.calls(Operation::Known), 2);
    Ok(())
}
