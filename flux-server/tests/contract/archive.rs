//! Sales that are over leave a running server for files, and one that never sold anything goes
//! for nowhere.

use std::process::Command;
use std::time::Duration;

use flux_core::archive::Archive;
use serde_json::{Value, json};

use crate::harness::{OPERATOR, Server, Setup, until};

fn flux_server(args: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flux-server"));
    command.args(args).env("FLUX_OPERATOR_TOKEN", OPERATOR).env_remove("RUST_LOG");
    let ran = command.output().expect("it runs");
    (ran.status.success(), String::from_utf8_lossy(&ran.stderr).into_owned())
}

fn delete(server: &Server, item: &str) -> crate::harness::Answer {
    server.call("DELETE", format!("/v1/items/{item}")).bearer(OPERATOR).send()
}

/// Has an item's sale be over.
fn close(server: &Server, item: &str) {
    let over = json!({"capacity": 5, "closes_at": "2026-01-01T00:00:00Z"});
    server.put(format!("/v1/items/{item}"), &over).is(200);
}

fn archive(server: &Server, items: &Value) -> crate::harness::Answer {
    server.post("/v1/archives", &json!({"items": items}))
}

#[test]
fn what_is_archived_is_in_files_and_gone_and_said_to_be() {
    let server = Server::start(&["--item", "t=5", "--item", "other=5"]);
    let id = server.held(&json!({"buyer_id": "ann", "item_id": "t"}));
    server.get(format!("/v1/orders/{}", uuid::Uuid::now_v7())).problem(404, "not-found");
    archive(&server, &json!(["t"])).problem(409, "cant-leave");
    close(&server, "t");
    let held = archive(&server, &json!(["t"])).problem(409, "cant-leave");
    assert!(held.field("detail").contains("1 units of t are held"), "{}", held.text());
    server.post(format!("/v1/orders/{id}/confirm"), &json!({"payment_ref": "p"})).is(200);
    archive(&server, &json!([])).problem(400, "invalid-request");
    archive(&server, &json!(["nothing"])).problem(404, "not-found");

    let url = format!("http://{}", server.address());
    let (done, said) = flux_server(&["archive", "--url", &url, "--item", "t"]);
    assert!(done && said.contains("archived 1 orders on t to "), "{said}");
    let again = archive(&server, &json!(["t"])).is(200).json();
    assert_eq!((&again["orders"], &again["items"]), (&json!(1), &json!(["t"])));
    let place = server.home().join(again["directory"].as_str().expect("a path"));
    let files = Archive::open(place).expect("whole");
    let orders: Vec<_> = files.orders().expect("opened").collect::<Result<_, _>>().expect("read");
    assert_eq!(orders[0].id.to_string(), id);

    for path in [format!("/v1/orders/{id}"), "/v1/items/t".to_owned()] {
        let gone = server.get(path).problem(404, "not-found");
        let told = gone.field("detail");
        assert!(told.contains("it may be in an archive: 1 items are, the last of 20"), "{told}");
    }
    server.put("/v1/items/t", &json!({"capacity": 9})).problem(409, "archived");
    server.order(&json!({"buyer_id": "ann", "item_id": "t"})).problem(404, "not-found");
    let changes = server.get("/v1/changes").is(200).json();
    let last = changes["changes"].as_array().and_then(|all| all.last()).expect("a change").clone();
    assert_eq!(last["removed"]["archived"]["archive"], again["archive"]);

    delete(&server, "t").is(204);
    server.put("/v1/items/t", &json!({"capacity": 9})).is(201);
}

#[test]
fn none_is_begun_by_a_server_that_stops() {
    let mut server = Server::start(&["--item", "t=5"]);
    close(&server, "t");
    let body = r#"{"items":["t"]}"#;
    let mut connection = server.connect();
    connection.send(format!(
        "POST /v1/archives HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer {OPERATOR}\r\n\
         Expect: 100-continue\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    ));
    // Asked for its body, its head has been read.
    assert_eq!(connection.head().expect("an interim answer").status, 100);
    server.signal("TERM");
    until("no new connection is accepted", Duration::from_secs(5), || {
        std::net::TcpStream::connect(server.address()).is_err().then_some(())
    });
    connection.send(body);
    connection.checked("POST", "/v1/archives").problem(503, "unavailable");
    assert!(server.end().success(), "{}", server.log());
    let server = server.crash().start();
    assert_eq!(server.item("t")["capacity"], 5);
}

#[test]
fn only_what_never_sold_anything_is_deleted() {
    let server = Server::start(&["--item", "t=5", "--item", "typo=5"]);
    let id = server.held(&json!({"buyer_id": "ann", "item_id": "t"}));
    delete(&server, "t").problem(409, "cant-leave");
    server.post(format!("/v1/orders/{id}/confirm"), &json!({"payment_ref": "p"})).is(200);
    let sold = delete(&server, "t").problem(409, "cant-leave");
    assert!(sold.field("detail").contains("archive it instead"), "{}", sold.text());
    delete(&server, "typo").is(204);
    delete(&server, "typo").problem(404, "not-found");
    server.get("/v1/items/typo").problem(404, "not-found");
    let items = server.get("/v1/items").is(200).json();
    assert_eq!(items["items"].as_array().map(Vec::len), Some(1));
}

#[test]
fn without_a_server_the_command_archives_and_gives_back_the_room() {
    let home = tempfile::tempdir().expect("a directory");
    let [data, files] = ["data", "files"].map(|name| home.path().join(name));
    let [data, files] = [&data, &files].map(|path| path.to_str().expect("a path"));
    let server = Setup::new().args(&["--data-dir", data, "--item", "t=5"]).start();
    let id = server.held(&json!({"buyer_id": "ann", "item_id": "t"}));
    server.post(format!("/v1/orders/{id}/confirm"), &json!({"payment_ref": "p"})).is(200);
    close(&server, "t");
    let command = ["archive", "--data-dir", data, "--item", "t", "--to", files];
    let (done, said) = flux_server(&command);
    assert!(!done && said.contains("in use"), "{said}");
    drop(server);
    for _ in 0..2 {
        let (done, said) = flux_server(&command);
        assert!(done && said.contains("archived 1 orders on t"), "{said}");
        assert!(said.contains("bytes before"), "{said}");
    }
    assert_eq!(std::fs::read_dir(files).expect("a directory").count(), 1);
    let (done, said) = flux_server(&["audit", "--data-dir", data]);
    assert!(done, "{said}");
    // What is put on sale at each start may be archived since.
    drop(Setup::new().args(&["--data-dir", data, "--item", "t=5", "--item", "u=5"]).start());
    let (done, said) = flux_server(&["archive", "--data-dir", data, "--to", files]);
    assert!(!done && said.contains("--item"), "{said}");
}
