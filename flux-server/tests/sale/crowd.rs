//! A sale among connections that are idle and others whose heads never end.

use serde_json::json;

use crate::client::Client;
use crate::crowd;
use crate::harness::{Connection, Server};

const IDLE: usize = 500;
const SLOW: usize = 100;
const GET: &str = "GET /healthz HTTP/1.1\r\nHost: flux\r\n\r\n";

fn each(connections: &mut [Connection], status: u16) {
    for connection in connections {
        connection.answer("GET").expect("an answer").is(status);
    }
}

#[test]
fn a_crowd_that_only_holds_connections_keeps_nobody_from_buying() {
    // Time enough for the whole test, on any machine.
    let server = Server::start(&["--item", "ticket=400", "--head-timeout", "300"]);
    let mut idle: Vec<Connection> = (0..IDLE).map(|_| server.connect()).collect();
    let mut slow: Vec<Connection> = (0..SLOW).map(|_| server.connect()).collect();
    idle.iter_mut().for_each(|connection| connection.send(GET));
    each(&mut idle, 200);
    slow.iter_mut().for_each(|connection| connection.send("GET /healthz HTTP/1.1\r\nHost: fl"));

    let held: usize = crowd(16, |n| {
        let mut client = Client::new(server.address());
        let mut held = 0;
        for turn in 0.. {
            let body = json!({"buyer_id": format!("buyer-{n}-{turn}"), "item_id": "ticket"});
            let answer = client.post("/v1/orders", &[("Prefer", "wait=20")], &body);
            match answer.expect("an answer").status {
                201 => held += 1,
                409 => break,
                status => panic!("{status}"),
            }
        }
        held
    })
    .into_iter()
    .sum();
    assert_eq!(held, 400);

    // They are all still there.
    idle.iter_mut().for_each(|connection| connection.send(GET));
    each(&mut idle, 200);
    slow.iter_mut().for_each(|connection| connection.send("ux\r\n\r\n"));
    each(&mut slow, 200);
}
