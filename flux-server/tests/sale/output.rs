//! Outputs that nobody reads, or that take nothing, end and stop nothing.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Read, Write, pipe};
use std::net::TcpStream;
use std::process::{Child, ChildStderr, Stdio};
use std::time::Duration;

use serde_json::json;

use crate::client::Client;
use crate::crowd;
use crate::harness::{Server, Setup, until};

/// Only a hang is longer.
const PATIENCE: Duration = Duration::from_secs(60);

fn full() -> Stdio {
    OpenOptions::new().write(true).open("/dev/full").expect("it is always there").into()
}

/// A pipe whose reader has gone.
fn closed() -> Stdio {
    let (_, writer) = pipe().expect("a pipe");
    writer.into()
}

fn said(stderr: ChildStderr) -> String {
    let mut said = String::new();
    BufReader::new(stderr).read_to_string(&mut said).expect("text");
    said
}

/// How a program ended, and what it said on standard error.
fn end(mut child: Child) -> (Option<i32>, String) {
    let said = said(child.stderr.take().expect("piped"));
    (child.wait().expect("it is ours").code(), said)
}

#[test]
fn standard_output_that_takes_nothing_ends_no_server() {
    for stdout in [full(), closed()] {
        let setup = Setup::new();
        let mut child = setup.spawn_with(stdout, Stdio::piped());
        let mut log = BufReader::new(child.stderr.take().expect("piped"));
        let mut lines = String::new();
        let address = loop {
            let before = lines.len();
            let read = log.read_line(&mut lines).expect("text");
            assert!(read > 0, "it ended with {:?}: {lines}", child.wait());
            let line = lines[before..].trim_end();
            if let Some((_, address)) = line.split_once("listening on http://") {
                break address.split(' ').next().expect("a word").parse().expect("an address");
            }
        };
        assert_eq!(Client::new(address).get("/healthz", &[]).expect("an answer").status, 200);
        let sent = std::process::Command::new("kill").arg(child.id().to_string()).status();
        assert!(sent.expect("kill runs").success());
        let mut rest = String::new();
        log.read_to_string(&mut rest).expect("text");
        assert!(child.wait().expect("it is ours").success(), "{rest}");
    }
}

#[test]
fn who_has_heard_enough_of_an_answer_is_no_failure_and_a_full_disk_is() {
    for command in ["audit", "dead-letters", "redrive"] {
        let setup = Setup::new().without_listen().args(&[command]);
        let (status, said) = end(setup.spawn_with(closed(), Stdio::piped()));
        assert_eq!(status, Some(0), "{command}: {said}");
        assert!(!said.contains("standard output") && !said.contains("panicked"), "{said}");
        let (status, said) = end(setup.spawn_with(full(), Stdio::piped()));
        assert_eq!(status, Some(1), "{command}: {said}");
        assert!(said.contains("could not be written to standard output"), "{command}: {said}");
    }
}

/// Sends what is no request, and waits for the end of the connection.
fn garble(server: &Server) {
    let mut socket = TcpStream::connect(server.address()).expect("it listens");
    socket.set_read_timeout(Some(PATIENCE)).expect("a time");
    socket.write_all(b"garbled\r\n\r\n").expect("it reads");
    socket.read_to_end(&mut Vec::new()).expect("it answers, whoever reads its log");
}

/// A server whose log nobody reads, once it has lost lines.
fn unread() -> (Server, ChildStderr) {
    let setup = Setup::new().args(&["--item", "ticket=1000000"]).env("RUST_LOG", "debug");
    let (server, log) = setup.start_unread();
    let buy = json!({"buyer_id": "ann", "item_id": "ticket"});
    until("lines are lost", PATIENCE, || {
        // A line for each connection that breaks off.
        crowd(8, |_| (0..100).for_each(|_| garble(&server)));
        let answer = Client::new(server.address()).post("/v1/orders", &[], &buy);
        assert_eq!(answer.expect("no sale waits for a log").status, 202);
        let figures = server.get("/metrics").text();
        let lost = |line: &str| line.strip_prefix("flux_log_lines_lost_total ").map(str::to_owned);
        figures.lines().find_map(lost).filter(|lost| lost != "0")
    });
    (server, log)
}

#[test]
fn a_log_that_nobody_reads_stops_no_sale_and_no_stop() {
    let (mut server, log) = unread();
    server.held(&json!({"buyer_id": "bob", "item_id": "ticket"}));
    server.signal("TERM");
    assert!(server.end().success());
    drop(log);
}

#[test]
fn a_reader_of_the_log_that_comes_back_is_told_how_much_it_missed() {
    let (mut server, log) = unread();
    let reading = std::thread::spawn(move || said(log));
    until("what waits is read", PATIENCE, || {
        let figures = || -> Option<String> {
            let text = server.get("/metrics").text();
            text.lines()
                .find(|line| line.starts_with("flux_log_lines_lost_total"))
                .map(str::to_owned)
        };
        let before = figures();
        (figures() == before).then_some(())
    });
    server.signal("TERM");
    assert!(server.end().success());
    let said = reading.join().expect("no panic");
    let told = |line: &&str| line.contains("lines of the log were lost");
    let told = said.lines().find(told).unwrap_or_else(|| panic!("{} bytes", said.len()));
    let lost =
        told.split_once(" lines of the log").and_then(|(before, _)| before.rsplit(' ').next());
    assert!(lost.is_some_and(|lost| lost.parse::<u64>().is_ok_and(|lost| lost > 0)), "{told}");
    assert!(said.lines().last().is_some_and(|line| line.contains("stopped")), "{told}");
}
