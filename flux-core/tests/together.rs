//! Many orders in one call: each is answered as the single call would have answered it.

use std::time::Duration;

use flux_core::{
    Backend, Error, Flux, IdempotencyKey, ItemSpec, Order, OrderId, OrderRequest, OrderStatus,
    Reason, Settings,
};

fn one(buyer: &str, item: &str) -> OrderRequest {
    OrderRequest::units(buyer, item, 1).expect("a request")
}

async fn shop(settings: Settings) -> Flux {
    let flux = Flux::builder(Backend::memory()).settings(settings).start();
    for (id, capacity) in [("few", 2), ("many", 10_000)] {
        flux.put_item(ItemSpec::pool(id, capacity).expect("an item")).await.expect("put");
    }
    let capped = ItemSpec::builder().id("capped").capacity(9).max_per_buyer(1);
    flux.put_item(capped.build().expect("an item")).await.expect("put");
    flux
}

fn status(answer: &Result<Order, Error>) -> Option<OrderStatus> {
    answer.as_ref().ok().map(Order::status)
}

#[tokio::test]
async fn each_is_answered_in_its_place_as_if_it_came_alone() {
    let flux = shop(Settings::default()).await;
    let known = flux.place(one("ann", "many").with_id(OrderId::new())).await.expect("placed");
    let (id, key) = (OrderId::new(), IdempotencyKey::new("basket_7").expect("a key"));
    let placed = flux
        .place_all(vec![
            one("ann", "capped"),
            one("ann", "capped"),
            one("ann", "nothing"),
            one("ann", "many").with_id(known.id),
            one("bob", "many").with_id(known.id),
            one("cyd", "few").with_id(id),
            one("cyd", "few").with_id(id),
            one("cyd", "many").with_idempotency_key(key.clone()),
            OrderRequest::units("dee", "few", 3).expect("a request"),
        ])
        .await;
    assert_eq!(status(&placed[0]), Some(OrderStatus::Held));
    let turned_down = placed[1].as_ref().expect("decided");
    assert_eq!(turned_down.reason(), Some(Reason::BuyerLimit));
    assert!(matches!(placed[2], Err(Error::UnknownItem(_))), "{:?}", placed[2]);
    assert_eq!(placed[3].as_ref().ok(), Some(&known), "a repeat");
    assert!(matches!(placed[4], Err(Error::IdReused(_))), "{:?}", placed[4]);
    assert_eq!(status(&placed[5]), Some(OrderStatus::Held));
    assert_eq!(placed[5].as_ref().ok(), placed[6].as_ref().ok(), "the same one twice");
    assert_eq!(status(&placed[7]), Some(OrderStatus::Held));
    assert!(matches!(placed[8], Err(Error::SoldOut(_))), "{:?}", placed[8]);

    let again = flux.place_all(vec![one("cyd", "many").with_idempotency_key(key)]).await;
    assert_eq!(again[0].as_ref().ok(), placed[7].as_ref().ok());
    assert!(flux.place_all(Vec::new()).await.is_empty());
    let few = flux.item(&"few".parse().expect("an id")).await.expect("read").expect("there");
    assert_eq!(few.available, 1, "one id is one order");
    assert!(flux.audit().await.expect("counted").is_clean());
    flux.shutdown().await;
    let late = flux.place_all(vec![one("ann", "many")]).await;
    assert!(matches!(late[0], Err(Error::ShuttingDown)), "{late:?}");
}

#[tokio::test]
async fn what_finds_no_room_is_refused_and_the_others_are_decided() {
    let flux = shop(Settings::builder().calls_max(64).build()).await;
    let requests = (0..200).map(|n| one(&format!("b{n}"), "many")).collect();
    let placed = flux.place_all(requests).await;
    let held = placed.iter().filter(|placed| status(placed) == Some(OrderStatus::Held)).count();
    let refused = placed.iter().filter(|p| matches!(p, Err(Error::Overloaded { .. }))).count();
    assert_eq!(held + refused, 200, "{placed:?}");
    assert_eq!(held, 64);
    assert!(placed[..64].iter().all(Result::is_ok), "the first find room");
}

#[tokio::test(start_paused = true)]
async fn those_not_decided_in_time_are_accepted() {
    let backend = Backend::memory();
    let seller = Flux::builder(backend.clone()).role(flux_core::Role::AcceptOnly).start();
    seller.put_item(ItemSpec::pool("many", 100).expect("an item")).await.expect("put");
    let requests = || vec![one("ann", "many"), one("bob", "many").with_id(OrderId::new())];
    for longest in [Duration::ZERO, Duration::from_secs(1)] {
        for answer in seller.place_all_within(requests(), longest).await {
            assert_eq!(status(&answer), Some(OrderStatus::Queued), "nobody decides: {answer:?}");
        }
    }
    let worker = Flux::builder(backend).start();
    let placed = worker.place_all_within(requests(), Duration::from_secs(5)).await;
    assert!(placed.iter().all(|answer| status(answer) == Some(OrderStatus::Held)), "{placed:?}");
    while seller.depth().await.expect("told").waiting > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let many = worker.item(&"many".parse().expect("an id")).await.expect("read").expect("there");
    assert_eq!(many.held, 6, "each is decided once");
}
