//! The serialised forms of the public data: what others stored or sent before
//! must read as it did, and what is new must come back as it went.

use std::fmt::Debug;
use std::time::Duration;

use flux_core::protocol::Message;
use flux_core::seams::{ConfirmOutcome, Payment, PutOutcome};
use flux_core::{
    BuyerId, Cursor, DeadLetter, Hold, InvalidInput, Item, ItemSpec, ItemState, Line, Lines,
    Metadata, Order, OrderFilter, OrderId, OrderPage, OrderState, OrderStatus, PaymentRef,
    PutItemError, QueueDepth, Reason, Timestamp,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

fn id() -> OrderId {
    "018f2b6c-0000-7000-8000-00000000abcd".parse().expect("an id")
}

fn payment() -> PaymentRef {
    PaymentRef::new("pay-1").expect("a reference")
}

/// One order in each state, in the order of [`OrderStatus::ALL`].
fn orders() -> Vec<Order> {
    let lines = vec![
        Line::units("ticket_1", 2).expect("a line"),
        Line::seats("hall", ["A1", "A2"]).expect("a line"),
    ];
    let lines = Lines::new(lines).expect("lines");
    let queued = Order::queued(id(), BuyerId::new("ann").expect("a name"), lines, NOW);
    let hold = Hold::between(NOW + Duration::from_millis(5), NOW + Duration::from_secs(600));
    let states = [
        OrderState::Queued,
        OrderState::Held(hold),
        OrderState::Confirmed(hold, payment()),
        OrderState::Released(hold),
        OrderState::Expired(hold),
        OrderState::Cancelled(hold, payment()),
        OrderState::Rejected(NOW, Reason::SeatTaken),
        OrderState::RefundDue(hold, payment()),
    ];
    let orders: Vec<Order> = states.into_iter().map(|state| queued.with_state(state)).collect();
    let statuses: Vec<OrderStatus> = orders.iter().map(Order::status).collect();
    assert_eq!(statuses, OrderStatus::ALL, "an order in each state");
    orders
}

fn messages() -> Vec<Message> {
    let placed = Message::Place(orders().remove(0));
    let others = [Message::Release, Message::Cancel, Message::Expire].map(|message| message(id()));
    let late = Message::LatePayment(id(), payment());
    [placed].into_iter().chain(others).chain([late]).collect()
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("it can be written")
}

fn comes_back<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) {
    assert_eq!(serde_json::from_str::<T>(&json(value)).expect("it can be read"), *value);
}

#[test]
fn an_order_in_each_state_is_written_as_ever() {
    let hold = r#"{"decided_at":1790000000005,"expires_at":1790000600000}"#;
    let states = [
        r#""Queued""#.to_owned(),
        format!(r#"{{"Held":{hold}}}"#),
        format!(r#"{{"Confirmed":[{hold},"pay-1"]}}"#),
        format!(r#"{{"Released":{hold}}}"#),
        format!(r#"{{"Expired":{hold}}}"#),
        format!(r#"{{"Cancelled":[{hold},"pay-1"]}}"#),
        r#"{"Rejected":[1790000000000,"seat_taken"]}"#.to_owned(),
        format!(r#"{{"RefundDue":[{hold},"pay-1"]}}"#),
    ];
    for (order, state) in orders().iter().zip(states) {
        let lines = r#"[{"item":"ticket_1","ask":{"Units":2}},{"item":"hall","ask":{"Seats":["A1","A2"]}}]"#;
        let written = format!(
            r#"{{"id":"{}","buyer":"ann","lines":{lines},"placed_at":1790000000000,"state":{state}}}"#,
            order.id
        );
        assert_eq!(json(order), written);
        comes_back(order);
    }
}

#[test]
fn what_is_attached_is_written_behind_the_rest() {
    let order = orders().remove(6);
    let metadata = Metadata::new([("basket", "7")]).expect("a pair");
    let bare = json(&order);
    let order = order.with_metadata(metadata);
    let written = json(&order);
    assert_eq!(written, format!(r#"{},"metadata":{{"basket":"7"}}}}"#, &bare[..bare.len() - 1]));
    comes_back(&order);
    let mut failed = order;
    failed.failed_line = Some(1);
    comes_back(&failed);
    assert_eq!(json(&failed), format!(r#"{},"failed_line":1}}"#, &written[..written.len() - 1]));
}

#[test]
fn a_message_is_written_as_ever() {
    let id = id();
    let written = [
        format!(r#"{{"Place":{}}}"#, json(&orders()[0])),
        format!(r#"{{"Release":"{id}"}}"#),
        format!(r#"{{"Cancel":"{id}"}}"#),
        format!(r#"{{"Expire":"{id}"}}"#),
        format!(r#"{{"LatePayment":["{id}","pay-1"]}}"#),
    ];
    for (message, written) in messages().iter().zip(written) {
        assert_eq!(json(message), written);
        comes_back(message);
    }
}

#[cfg(feature = "embedded")]
#[test]
fn the_binary_forms_are_written_as_ever() {
    fn hex(value: &impl Serialize) -> String {
        let bytes = postcard::to_stdvec(value).expect("it can be written");
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
    let (id, buyer, payment) = ("10018f2b6c00007000800000000000abcd", "03616e6e", "057061792d31");
    let lines = "02087469636b65745f3100020468616c6c0102024131024132";
    // No metadata, no line that failed, and no debt.
    let nothing_more = "000000";
    let (now, hold) = ("80d8c1a28c34", "85d8c1a28c34c0a7e6a28c34");
    let states = [
        "00".to_owned(),
        format!("01{hold}"),
        format!("02{hold}{payment}"),
        format!("03{hold}"),
        format!("04{hold}"),
        format!("05{hold}{payment}"),
        format!("06{now}01"),
        format!("07{hold}{payment}"),
    ];
    for (order, state) in orders().iter().zip(states) {
        let written = format!("{id}{buyer}{lines}{now}{state}{nothing_more}");
        assert_eq!(hex(order), written, "{}", order.status());
        let read: Order =
            postcard::from_bytes(&postcard::to_stdvec(order).expect("it can be written"))
                .expect("it can be read");
        assert_eq!(read, *order);
    }
    let placed = format!("00{}", hex(&orders()[0]));
    let late = format!("04{id}{payment}");
    let ids = ["01", "02", "03"].map(|tag| format!("{tag}{id}"));
    let written = [placed].into_iter().chain(ids).chain([late]);
    for (message, written) in messages().iter().zip(written) {
        assert_eq!(hex(message), written);
    }
}

#[test]
fn what_is_logged_or_sent_comes_back_as_it_went() {
    let spec = ItemSpec::builder().id("hall").seats(["A1"]).max_per_buyer(1).closes_at(NOW);
    let spec = spec.build().expect("a hall");
    comes_back(&Item::builder().spec(spec).available(0).held(1).sold(0).build());
    comes_back(&OrderFilter::default());
    let filter = OrderFilter::builder().item("hall".parse().expect("a name"));
    comes_back(&filter.status(OrderStatus::RefundDue).build());
    comes_back(&OrderPage::new(orders(), Some(Cursor("7".into()))));
    comes_back(&OrderPage::new(vec![], None));
    comes_back(&QueueDepth::builder().dead(2).oldest(Duration::from_millis(1_500)).build());
    for message in messages() {
        comes_back(&DeadLetter::new(message, "failed 20 times", NOW));
    }
    comes_back(&Payment::new(id(), payment(), NOW));
    let invalid = InvalidInput::new("name", "must be shorter");
    let item = || "hall".parse().expect("a name");
    for refused in [
        PutItemError::CapacityInUse { item: item(), taken: 3 },
        PutItemError::KindChange { item: item() },
        PutItemError::Invalid(invalid),
    ] {
        comes_back(&PutOutcome::Refused(refused));
    }
    comes_back(&[PutOutcome::Created, PutOutcome::Changed, PutOutcome::Unchanged]);
    for order in orders() {
        comes_back(&ConfirmOutcome::Settled(order.clone()));
        comes_back(&[ConfirmOutcome::Late(order.clone()), ConfirmOutcome::NotHeld(order)]);
    }
    comes_back(&ConfirmOutcome::NotFound);
}

#[test]
fn a_filter_may_leave_out_what_it_does_not_ask_for() {
    let filter: OrderFilter = serde_json::from_str(r#"{"buyer":"ann"}"#).expect("a filter");
    assert_eq!(filter, OrderFilter::builder().buyer("ann".parse().expect("a name")).build());
}

#[test]
fn each_word_is_the_one_of_json_and_reads_back() {
    fn words<T>(all: &[T])
    where
        T: Serialize + DeserializeOwned + std::fmt::Display + std::str::FromStr + PartialEq + Debug,
        T::Err: Debug,
    {
        for member in all {
            assert_eq!(json(member), format!("\"{member}\""));
            assert_eq!(member.to_string().parse::<T>().expect("its own word"), *member);
            comes_back(member);
        }
    }
    words(OrderStatus::ALL);
    words(Reason::ALL);
    words(ItemState::ALL);
    let error = "Held".parse::<OrderStatus>().expect_err("no such word");
    assert_eq!(
        error.to_string(),
        "status: must be queued, held, confirmed, released, expired, cancelled, rejected or refund_due"
    );
    assert_eq!("gone".parse::<Reason>().expect_err("no such word").field(), "reason");
}
