//! A hall of named seats: friends go for the same seats at once, a family
//! wants four in a row, and a seat with a parking space is sold together with
//! it or not at all.
//!
//! ```sh
//! cargo run --release --example seats
//! ```

use std::collections::HashMap;

use flux_core::seams::OrderFilter;
use flux_core::{Ask, SeatId, SeatState};
use flux_core::{Error, Flux, ItemSpec, Line, Order, OrderRequest, OrderStatus};
use tokio::task::JoinSet;

const ROWS: [&str; 5] = ["A", "B", "C", "D", "E"];
const SEATS_PER_ROW: usize = 8;
const HALL: &str = "hall";
const PARKING: &str = "parking";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let flux = Flux::open(dir.path()).await?;

    let names = ROWS.iter().flat_map(|row| (1..=SEATS_PER_ROW).map(move |n| format!("{row}{n}")));
    let hall = ItemSpec::builder().id(HALL).seats(names).max_per_buyer(4).build()?;
    flux.put_item(hall).await?;
    flux.put_item(ItemSpec::pool(PARKING, 1)?).await?;

    println!("Everybody wants the middle of row C, at once:");
    together(
        &flux,
        vec![
            OrderRequest::seats("ann", HALL, ["C4", "C5"])?,
            OrderRequest::seats("bob", HALL, ["C3", "C4"])?,
            OrderRequest::seats("cleo", HALL, ["C5", "C6"])?,
            OrderRequest::seats("dan", HALL, ["C4"])?,
            OrderRequest::seats("eve", HALL, ["A1", "A2", "A3", "A4"])?,
        ],
    )
    .await?;

    println!("\nWhoever lost takes other seats; eve has four already, and that is the cap:");
    together(
        &flux,
        vec![
            OrderRequest::seats("dan", HALL, ["D4"])?,
            OrderRequest::seats("fay", HALL, ["B7", "B8"])?,
            OrderRequest::seats("eve", HALL, ["A5"])?,
        ],
    )
    .await?;

    println!(
        "\nA seat and the last parking space, together or not at all; the loser's seat stays free:"
    );
    let with_parking = |buyer: &str, seat: &str| -> anyhow::Result<OrderRequest> {
        let lines = vec![Line::seats(HALL, [seat])?, Line::units(PARKING, 1)?];
        Ok(OrderRequest::builder().buyer(buyer).lines(lines).build()?)
    };
    together(&flux, vec![with_parking("gus", "E1")?, with_parking("hal", "E8")?]).await?;

    println!("\nThe hall, with the first letter of whoever has the seat:\n");
    print_map(&flux).await?;

    let audit = flux.audit().await?;
    println!("\n{audit}");
    flux.shutdown().await;
    anyhow::ensure!(audit.is_clean(), "the books are wrong");
    Ok(())
}

/// Places all orders at once and prints what became of each.
async fn together(flux: &Flux, requests: Vec<OrderRequest>) -> anyhow::Result<()> {
    let mut placing = JoinSet::new();
    for request in requests {
        let flux = flux.clone();
        placing.spawn(async move {
            let (buyer, wish) = (request.buyer.clone(), wish(&request.lines));
            (buyer, wish, flux.place(request).await)
        });
    }
    let mut answers = Vec::new();
    while let Some(answer) = placing.join_next().await {
        answers.push(answer?);
    }
    answers.sort_by(|(one, ..), (other, ..)| one.cmp(other));
    for (buyer, wish, answer) in answers {
        let answer = match answer {
            Ok(order) => describe(&order),
            // The gate knew before anybody was asked.
            Err(Error::SoldOut(item)) => format!("no, {item} is sold out"),
            Err(error) => return Err(error.into()),
        };
        println!("  {:<5} {wish:<14} {answer}", buyer.as_str());
    }
    Ok(())
}

fn describe(order: &Order) -> String {
    match order.reason() {
        Some(reason) => format!("no, {reason}"),
        None => order.status().to_string(),
    }
}

fn wish(lines: &[Line]) -> String {
    let line = |line: &Line| match &line.ask {
        Ask::Units(_) => line.item.to_string(),
        Ask::Seats(seats) => seats.iter().map(SeatId::as_str).collect::<Vec<_>>().join(" "),
    };
    lines.iter().map(line).collect::<Vec<_>>().join(" + ")
}

async fn print_map(flux: &Flux) -> anyhow::Result<()> {
    let mut owners = HashMap::new();
    let filter = OrderFilter::builder().status(OrderStatus::Held).build();
    let page = flux.orders(&filter, None, 100).await?;
    for order in page.orders {
        for line in order.lines.iter() {
            let Ask::Seats(seats) = &line.ask else { continue };
            let letter = order.buyer.as_str()[..1].to_owned();
            owners.extend(seats.iter().map(|seat| (seat.clone(), letter.clone())));
        }
    }
    let hall = flux.seats(&HALL.parse()?).await?.expect("the hall has seats");
    println!("      1 2 3 4 5 6 7 8");
    for (row, seats) in ROWS.iter().zip(hall.chunks(SEATS_PER_ROW)) {
        let states = seats.iter().map(|seat| match seat.state {
            SeatState::Free => "·",
            _ => owners.get(&seat.id).map_or("?", String::as_str),
        });
        println!("    {row} {}", states.collect::<Vec<_>>().join(" "));
    }
    Ok(())
}
