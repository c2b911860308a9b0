//! A copy of a running server, and a server that goes on from it.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::harness::{OPERATOR, Server, Setup};

fn flux_server(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flux-server"));
    command.args(args).env("FLUX_OPERATOR_TOKEN", OPERATOR).env_remove("RUST_LOG");
    command
}

/// Asks a server for a copy by the program's own command.
fn back_up(server: &Server) -> Vec<u8> {
    let url = format!("http://{}", server.address());
    let made = flux_server(&["backup", "--url", &url]).output().expect("it runs");
    let said = String::from_utf8_lossy(&made.stderr).into_owned();
    assert!(made.status.success(), "{said}");
    assert!(said.contains("backed up"), "{said}");
    made.stdout
}

#[test]
fn a_restored_store_has_every_order_that_was_answered_before_and_goes_on() {
    let server = Server::start(&["--item", "t=500"]);
    server.put("/v1/items/hall", &json!({"seats": ["A1", "A2", "A3"]})).is(201);
    let seats = json!({"buyer_id": "ann", "item_id": "hall", "seats": ["A1", "A3"]});
    let seated = server.held(&seats);
    let mut answered = vec![seated.clone()];
    let stop = AtomicBool::new(false);
    let copy = std::thread::scope(|scope| {
        let selling = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                server.held(&json!({"buyer_id": "crowd", "item_id": "t"}));
            }
        });
        for n in 0..20 {
            answered.push(server.held(&json!({"buyer_id": format!("b{n}"), "item_id": "t"})));
        }
        let copy = back_up(&server);
        stop.store(true, Ordering::Relaxed);
        selling.join().expect("it sold");
        copy
    });
    server.post(format!("/v1/orders/{seated}/confirm"), &json!({"payment_ref": "p"})).is(200);

    let home = tempfile::tempdir().expect("a directory");
    let (file, dir) = (home.path().join("copy"), home.path().join("data"));
    std::fs::write(&file, &copy).expect("written");
    let [file, dir] = [&file, &dir].map(|path| path.to_str().expect("a path"));
    let restored = flux_server(&["restore", "--from", file, "--data-dir", dir]).output();
    let restored = restored.expect("it runs");
    assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
    let audit = flux_server(&["audit", "--data-dir", dir]).output().expect("it runs");
    assert!(audit.status.success(), "{}", String::from_utf8_lossy(&audit.stderr));

    let again = Setup::new().args(&["--data-dir", dir]).start();
    for id in &answered {
        assert_eq!(again.read_order(id)["status"], "held", "as it was then");
    }
    // What was sold is sold, and what was not goes on.
    again.order(&seats).problem(409, "seat-taken");
    again.held(&json!({"buyer_id": "eve", "item_id": "hall", "seats": ["A2"]}));
    again.get("/v1/changes?after=1").problem(410, "changes-gone");
    let twice = flux_server(&["restore", "--from", file, "--data-dir", dir]).output();
    let said = twice.expect("it runs");
    assert!(!said.status.success());
    assert!(String::from_utf8_lossy(&said.stderr).contains("has a store already"));
}

#[test]
fn a_copy_that_broke_off_makes_no_store() {
    let server = Server::start(&["--item", "t=500"]);
    server.held(&json!({"buyer_id": "ann", "item_id": "t"}));
    let copy = back_up(&server);
    let home = tempfile::tempdir().expect("a directory");
    let (file, dir) = (home.path().join("copy"), home.path().join("data"));
    let mut changed = copy.clone();
    changed[copy.len() / 2] ^= 1;
    for wrong in [&copy[..copy.len() - 1], &copy[..20], &changed[..], b"hello", b""] {
        std::fs::write(&file, wrong).expect("written");
        let [file, dir] = [&file, &dir].map(|path| path.to_str().expect("a path"));
        let refused = flux_server(&["restore", "--from", file, "--data-dir", dir]).output();
        let refused = refused.expect("it runs");
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && said.contains("no whole copy"), "{said}");
        let left = std::fs::read_dir(dir).map_or(0, Iterator::count);
        assert_eq!(left, 0, "nothing was made");
    }
}

#[test]
fn it_is_the_operators() {
    let server = Server::start(&["--item", "t=5"]);
    server.call("GET", "/v1/backup").bearer("wrong").send().problem(403, "forbidden");
    let url = format!("http://{}", server.address());
    let mut wrong = flux_server(&["backup", "--url", &url]);
    let wrong = wrong.env("FLUX_OPERATOR_TOKEN", "wrong").output().expect("it runs");
    assert!(!wrong.status.success() && wrong.stdout.is_empty());
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("403"));
}

#[test]
fn a_copy_whose_holds_have_ended_since_is_sound() {
    let server = Server::start(&[]);
    server.put("/v1/items/t", &json!({"capacity": 5, "hold_seconds": 2})).is(201);
    server.held(&json!({"buyer_id": "ann", "item_id": "t"}));
    let copy = back_up(&server);
    let home = tempfile::tempdir().expect("a directory");
    let [from, to] = ["copy", "restored"].map(|name| home.path().join(name));
    std::fs::write(&from, copy).expect("written");
    let [from, to] = [&from, &to].map(|path| path.to_str().expect("a path"));
    let restored = flux_server(&["restore", "--from", from, "--data-dir", to]).status();
    assert!(restored.expect("it runs").success());
    // Two seconds more are no fault.
    std::thread::sleep(Duration::from_millis(4_100));
    let counted = flux_server(&["audit", "--data-dir", to]).output().expect("it runs");
    let said = String::from_utf8_lossy(&counted.stdout).into_owned();
    assert!(counted.status.success(), "{said}");
    assert!(said.contains("1 holds or more have ended"), "{said}");
    assert!(said.contains("audit: 0 faults"), "{said}");
}
