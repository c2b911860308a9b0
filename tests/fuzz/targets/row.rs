//! A row of the embedded backend's file: whatever stands there is refused, or is read and
//! comes back as it went; the limits hold for what is read.

#![no_main]

use flux_core::backends::embedded::fuzzing::{self as rows, Glance};
use flux_core::protocol::Message;
use flux_core::{Ask, Order};
use libfuzzer_sys::{Corpus, fuzz_target};

/// A row with a sound head.
fn sealed(body: &[u8]) -> Vec<u8> {
    [&[1], &crc32fast::hash(body).to_le_bytes()[..], body].concat()
}

fn check_order(order: &Order) {
    assert!((1..=flux_core::LINES_MAX).contains(&order.lines.len()));
    for line in order.lines.iter() {
        match &line.ask {
            Ask::Units(units) => assert!((1..=1_000).contains(&units.get())),
            Ask::Seats(seats) => {
                assert!((1..=flux_core::SEATS_PER_LINE_MAX).contains(&seats.len()));
            }
        }
    }
    let written = rows::write_order(order);
    let (glance, again) = rows::read_order(&written).expect("it was written");
    assert_eq!(again, *order);
    assert_eq!(glance, glance_of(order));
}

/// What a glance must have seen.
fn glance_of(order: &Order) -> Glance {
    let line = |line: &flux_core::Line| {
        let seats = match &line.ask {
            Ask::Units(_) => Vec::new(),
            Ask::Seats(seats) => seats.iter().map(ToString::to_string).collect(),
        };
        (line.item.to_string(), line.ask.units(), seats)
    };
    let status = order.status();
    Glance {
        status,
        held_until: order
            .hold()
            .filter(|_| status == flux_core::OrderStatus::Held)
            .map(|hold| hold.expires_at),
        buyer: order.buyer.to_string(),
        lines: order.lines.iter().map(line).collect(),
    }
}

fn check_message(message: &Message) {
    if let Message::Place(order) = message {
        check_order(order);
    }
}

fuzz_target!(|input: &[u8]| -> Corpus {
    let Some((kind, body)) = input.split_first() else { return Corpus::Reject };
    // Half of the kinds are rows as they stand; they mostly fail their checksum.
    let row = if kind & 4 == 0 { sealed(body) } else { body.to_vec() };
    let read = match kind & 3 {
        0 => rows::read_order(&row).map(|(glance, order)| {
            assert_eq!(glance, glance_of(&order));
            check_order(&order);
        }),
        1 => rows::read_item(&row).map(|spec| {
            spec.check().expect("what is read keeps the rules");
            assert_eq!(rows::read_item(&rows::write_item(&spec)), Ok(spec));
        }),
        2 => rows::read_sent(&row).map(|(crashes, sent_at, messages)| {
            messages.iter().for_each(check_message);
            let written = rows::write_sent(crashes, sent_at, &messages);
            assert_eq!(rows::read_sent(&written), Ok((crashes, sent_at, messages)));
        }),
        _ => rows::read_dead(&row).map(|letter| {
            check_message(&letter.message);
            assert_eq!(rows::read_dead(&rows::write_dead(&letter)), Ok(letter));
        }),
    };
    if let Err(reason) = read {
        assert!(!reason.is_empty());
    }
    Corpus::Keep
});
