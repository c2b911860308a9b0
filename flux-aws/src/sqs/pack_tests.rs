//! Messages that share a pack, and the reading of one.

use flux_core::{BuyerId, Line, Lines, Order, Timestamp};
use uuid::Uuid;

use super::*;

fn id(n: u128) -> OrderId {
    OrderId::from_uuid(Uuid::from_u128(n))
}

fn order(n: u128, item: &str) -> Message {
    let lines = Lines::new(vec![Line::units(item, 1).expect("a line")]).expect("lines");
    let buyer = BuyerId::new("ann").expect("a name");
    Message::Place(Order::queued(id(n), buyer, lines, Timestamp::default()))
}

/// An order of some 130 KB: ten lines of a hundred seats with long names.
fn large(n: u128) -> Message {
    let line = |line: u32| {
        let seats = (0..100).map(|seat| format!("{line:04}-{seat:0>123}"));
        Line::seats(format!("hall-{line}"), seats).expect("a line")
    };
    let lines = Lines::new((0..10).map(line).collect()).expect("lines");
    let buyer = BuyerId::new("ann").expect("a name");
    Message::Place(Order::queued(id(n), buyer, lines, Timestamp::default()))
}

fn packed(messages: &[Message], packing: Packing) -> Vec<Pack<usize>> {
    let entries = messages.iter().enumerate();
    let entries = entries.map(|(tag, message)| Entry::new(message, 0, tag).expect("it is small"));
    pack(entries.collect(), packing)
}

fn read(pack: &Pack<usize>) -> Vec<Message> {
    let opened = open(&pack.body).expect("a pack");
    assert_eq!(opened.bad, []);
    opened.messages.into_iter().map(|(_, message)| message).collect()
}

#[test]
fn every_message_is_in_one_pack_whose_tags_name_it() {
    let items = ["b", "a", "c"];
    let mut messages: Vec<Message> = (0..250).map(|n| order(n, items[n as usize % 3])).collect();
    messages.extend([Message::Release(id(900)), large(901), Message::Expire(id(902)), large(903)]);
    for packing in [Packing::Full, Packing::ByGroup, Packing::Alone] {
        let packs = packed(&messages, packing);
        let mut seen = vec![0; messages.len()];
        for pack in &packs {
            assert!(pack.body.len() <= BODY_BYTES_MAX || pack.tags.len() == 1);
            assert!(pack.tags.len() <= PACK_MAX);
            let inside = read(pack);
            assert_eq!(inside.len(), pack.tags.len());
            for (message, tag) in inside.iter().zip(&pack.tags) {
                assert_eq!(message, &messages[*tag]);
                seen[*tag] += 1;
            }
        }
        assert!(seen.iter().all(|count| *count == 1), "{packing:?}");
    }
}

#[test]
fn packs_are_filled_with_neighbours() {
    let messages: Vec<Message> =
        (0..200).map(|n| order(n, if n % 2 == 0 { "x" } else { "y" })).collect();
    let packs = packed(&messages, Packing::Full);
    assert_eq!(packs.len(), 2);
    let items: Vec<Group> = read(&packs[0]).iter().map(Group::of).collect();
    assert!(items.iter().all(|group| *group == items[0]), "one item in a pack");
    assert!(packs[0].tags.is_sorted(), "in the order they came");
}

#[test]
fn a_large_message_goes_alone_and_leaves_the_open_pack_to_others() {
    let messages = [order(1, "a"), large(2), order(3, "z")];
    let packs = packed(&messages, Packing::Full);
    let mut sizes: Vec<usize> = packs.iter().map(|pack| pack.tags.len()).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [1, 2]);
}

#[test]
fn a_fifo_pack_holds_one_group() {
    let mut messages: Vec<Message> =
        (0..6).map(|n| order(n, if n % 2 == 0 { "x" } else { "y" })).collect();
    messages.extend([Message::Release(id(7)), Message::Cancel(id(7)), Message::Cancel(id(8))]);
    let packs = packed(&messages, Packing::ByGroup);
    assert_eq!(packs.len(), 4);
    for pack in packs {
        assert!(read(&pack).iter().all(|message| Group::of(message) == pack.group));
        assert!(pack.tags.is_sorted());
    }
}

#[test]
fn what_is_too_large_is_refused() {
    let Message::Place(mut order) = large(1) else { unreachable!("it is an order") };
    // Names all of characters that JSON escapes: nothing else gets that large.
    let seat = |seat: u32| (0..128).map(move |bit| ['"', '\\'][(seat >> (bit % 8)) as usize & 1]);
    let line = |line: u32| {
        let seats = (0..100).map(|n| seat(n).collect::<String>());
        Line::seats(format!("hall-{line}"), seats).expect("a line")
    };
    order.lines = Lines::new((0..10).map(line).collect()).expect("lines");
    let too_large = Message::Place(order);
    let Err(error) = Entry::new(&too_large, 0, ()) else { panic!("it is over the bound") };
    assert!(!error.can_retry() && error.to_string().contains("order less"), "{error}");
}

#[test]
fn attempts_travel() {
    let entry = Entry::new(&order(1, "a"), 7, ()).expect("it is small");
    let packs = pack(vec![entry], Packing::Full);
    assert_eq!(open(&packs[0].body).expect("a pack").messages, [(7, order(1, "a"))]);
}

#[test]
fn what_cannot_be_read_is_told_apart() {
    for (body, reason) in [
        ("hello", "not a pack of messages"),
        ("[]", "names no format"),
        (r#"{"v":2,"m":[[0,{"Expire":"x"}]]}"#, "format 2; known is 1"),
        (r#"{"v":1}"#, "missing field `m`"),
        (r#"{"v":1,"m":[]}"#, "no messages"),
        (r#"{"v":1,"m":[[0,{"Dance":1}]]}"#, "unknown variant `Dance`"),
    ] {
        let error = open(body).expect_err(body);
        assert!(error.contains(reason), "{body}: {error}");
    }
    let good = serde_json::to_string(&order(1, "a")).expect("json");
    let mixed = format!(r#"{{"v":1,"m":[[2,{good}],[3,{{"Dance":1}}]]}}"#);
    let opened = open(&mixed).expect("some of it");
    assert_eq!(opened.messages, [(2, order(1, "a"))]);
    assert_eq!(opened.bad.len(), 1);
    assert_eq!(opened.bad[0].0, r#"{"v":1,"m":[[3,{"Dance":1}]]}"#);
}

/// Entries whose JSON has so many bytes, on items in the order of the alphabet.
fn sized(bytes: &[usize]) -> Vec<Entry<usize>> {
    let item = |n: usize| ItemId::new(format!("item-{n}")).expect("a name");
    let entry = |(n, bytes): (usize, &usize)| Entry {
        json: "7".repeat(*bytes),
        group: Group::Item(item(n)),
        tag: n,
    };
    bytes.iter().enumerate().map(entry).collect()
}

fn tags(bytes: &[usize]) -> Vec<Vec<usize>> {
    let mut tags: Vec<_> =
        pack(sized(bytes), Packing::Full).into_iter().map(|pack| pack.tags).collect();
    tags.sort_unstable();
    tags
}

#[test]
fn a_pack_is_filled_to_its_last_byte_and_no_further() {
    let first = 1_000;
    let rest = BODY_BYTES_MAX - HEAD.len() - first - 1 - TAIL.len();
    let full = pack(sized(&[first, rest]), Packing::Full);
    assert_eq!(full.len(), 1);
    assert_eq!(full[0].body.len(), BODY_BYTES_MAX);
    assert_eq!(tags(&[first, rest + 1]), [[0], [1]]);
}

#[test]
fn a_message_of_more_than_half_a_pack_goes_alone_where_it_does_not_fit() {
    let half = BODY_BYTES_MAX / 2;
    assert_eq!(tags(&[half, half, 9]), [vec![0], vec![1, 2]]);
    assert_eq!(tags(&[half, half + 1, 9]), [vec![0, 2], vec![1]]);
    // And one of less begins the next pack.
    assert_eq!(tags(&[BODY_BYTES_MAX - 99, 200, 9]), [vec![0], vec![1, 2]]);
}
