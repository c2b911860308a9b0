//! What is configured and can't work: it stops the start with its name, and what
//! has no effect is said.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use serde_json::json;

use crate::harness::Setup;

/// What a server without buyers' tokens says once all else of its start is said.
const STARTED: &str = "FLUX_BUYER_JWT_SECRET is not set";
const SECRETS: [&str; 2] = ["FLUX_OPERATOR_TOKEN", "FLUX_BUYER_JWT_SECRET"];

#[track_caller]
fn refused(setup: Setup, says: &str) {
    let (status, log) = setup.run_to_end();
    assert!(!status.success(), "it started: {log}");
    assert!(log.contains(says), "{log:?} does not say {says}");
    assert!(!log.contains("s3cret") && !log.contains("panicked"), "{log}");
}

#[test]
fn a_secret_that_no_request_can_carry_stops_the_start() {
    for name in SECRETS {
        for (value, says) in [
            ("", "empty"),
            ("s3cret\n", "line end"),
            ("s3cret\r\n", "line end"),
            (" s3cret", "white space"),
            ("s3cret ", "white space"),
            ("s3cret word", "white space"),
            ("s3cret\u{a0}", "white space"),
            ("\u{201c}s3cret\u{201d}", "quotation mark"),
            ("s3cret\u{200b}", "without width"),
            ("\u{feff}s3cret", "without width"),
            ("s3crét", "beyond ASCII"),
        ] {
            refused(Setup::new().env(name, value), &format!("{name}: "));
            refused(Setup::new().env(name, value), says);
        }
        // From the file too.
        for (line, says) in [
            ("", "empty"),
            ("''", "empty"),
            ("\"s3cret word\"", "white space"),
            ("'\u{201c}s3cret\u{201d}'", "quotation mark"),
        ] {
            let setup = Setup::new().without_operator();
            refused(setup.file(".env", &format!("{name}={line}\n")), says);
        }
    }
}

#[test]
fn an_origin_that_no_browser_sends_stops_the_start_with_what_to_write() {
    for (origin, write) in [
        ("https://Shop.Example", "https://shop.example"),
        ("https://shop.example:443", "https://shop.example"),
        ("https://shop.example/", "https://shop.example"),
        ("https://shop.example/buy", "https://shop.example"),
        ("https://münchen.example", "https://xn--mnchen-3ya.example"),
        ("https://ann@shop.example", "https://shop.example"),
        ("http://[0:0::1]:3000", "http://[::1]:3000"),
        ("https://a.example,https://b.example", "one --cors-origin for each"),
        ("https://*.example", "without wildcards"),
        ("shop.example", "https://shop.example"),
        ("*", "https://shop.example"),
        ("null", "https://shop.example"),
    ] {
        refused(Setup::new().args(&["--cors-origin", origin]), "--cors-origin");
        refused(Setup::new().args(&["--cors-origin", origin]), write);
    }
    refused(Setup::new().args(&["--cors-origin", "http://a", "--cors-origin", "b"]), "'b'");
}

#[test]
fn an_item_that_is_given_twice_stops_the_start() {
    let args = |args: &[&str]| Setup::new().args(args);
    refused(args(&["--item", "t=5", "--item", "t=7"]), "t is given twice");
    refused(args(&["--item", "t=5", "--item", "t=5"]), "t is given twice");
    let catalog = |text: &str| Setup::new().file("c.toml", text).args(&["--catalog", "c.toml"]);
    let table = "[[item]]\nitem_id = \"hall\"\nseats = [\"A1\"]\n";
    refused(catalog(&table.repeat(2)), "hall is given twice");
    refused(catalog(table).args(&["--item", "hall=5"]), "hall is given twice");
}

#[test]
fn what_differs_from_what_is_on_sale_is_said_and_changes_nothing() {
    let table = |fields: &str| format!("[[item]]\nitem_id = \"pass\"\n{fields}\n");
    let server = Setup::new()
        .file("c.toml", &table("capacity = 30\nname = \"Day pass\""))
        .args(&["--item", "t=5", "--catalog", "c.toml"])
        .start();
    server.put("/v1/items/t", &json!({"capacity": 50, "name": "changed"})).is(200);
    let before = (server.item("t"), server.item("pass"));
    let same = server.crash();
    let server = same.args(&["--catalog", "c.toml"]).start();
    let log = server.logged(STARTED);
    assert!(!log.contains("on sale and"), "{log}");

    let changed = "seats = [\"A1\", \"A2\"]\nhold_seconds = 60\ncloses_at = 2030-01-01T00:00:00Z";
    let again = server.crash().file("c.toml", &table(changed));
    let server = again.args(&["--item", "t=5", "--catalog", "c.toml"]).start();
    let log = server.logged(STARTED);
    for said in [
        "capacity is 50 on sale and 5 by --item",
        "kind is a pool of 30 on sale and a hall of 2 seats by item 1 of the catalog",
        "name is \"Day pass\" on sale and none",
        "hold_seconds is 600 on sale and 60",
        "closes_at is none on sale and 2030-01-01T00:00:00.000Z",
    ] {
        let said = said.replace('"', "\\\"");
        assert!(log.replace('"', "\\\"").contains(&said), "{said} in {log}");
    }
    assert_eq!((server.item("t"), server.item("pass")), before);
}

#[test]
fn a_limit_of_nothing_stops_the_start() {
    for flag in [
        "--connections-max",
        "--requests-max",
        "--streams-max",
        "--limit-per-buyer",
        "--limit-per-peer",
        "--head-timeout",
        "--body-timeout",
        "--idle-timeout",
        "--drain",
        "--stripes",
        "--max",
        "--partitions",
    ] {
        refused(Setup::new().args(&[flag, "0"]), flag);
    }
}

#[test]
fn a_value_that_can_never_work_stops_the_start() {
    let env = |name: &str, value: &str| Setup::new().env(name, value);
    refused(env("FLUX_CREATE", "treu"), "--create");
    refused(env("FLUX_DATA_DIR", "data\n"), "--data-dir");
    refused(env("FLUX_DATA_DIR", " data"), "--data-dir");
    refused(env("DYNAMODB_TABLE", "flux\n"), "DYNAMODB_TABLE");
    refused(env("SQS_QUEUE_URL", "http://127.0.0.1:1/q "), "SQS_QUEUE_URL");
    // It would check nothing.
    for name in ["FLUX_BUYER_JWT_AUDIENCE", "FLUX_BUYER_JWT_ISSUER"] {
        refused(env(name, "the-shop"), "FLUX_BUYER_JWT_SECRET");
        for bad in ["", " ", "the-shop\n"] {
            let flag = name.replace("FLUX_", "--").replace('_', "-").to_ascii_lowercase();
            refused(env(name, bad).env("FLUX_BUYER_JWT_SECRET", "key"), &flag);
        }
    }
}

#[test]
fn a_webhook_that_could_never_be_told_stops_the_start() {
    const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
    let bare = |args: &[&str]| Setup::new().args(args);
    let told = |args: &[&str]| bare(args).env("FLUX_WEBHOOK_SECRET", SECRET);
    let url = "https://shop.example/s3cret";
    for (wrong, says) in [
        ("shop.example", "like https://shop.example"),
        ("ftp://shop.example", "begin with https://"),
        ("https://ann@shop.example", "no user"),
        ("https://ann:s3cret@shop.example", "--webhook: must have no user"),
        ("https://shop.example:s3cret/", "--webhook: must be like https://"),
        ("https://shop.example#a", "after a #"),
        ("http://shop.example/s3cret", "http://shop.example is without TLS; --webhook-private"),
        ("https://127.0.0.1:9/s3cret", "https://127.0.0.1:9 is at a private address"),
        ("https://[::1]", "is at a private address"),
        ("https://169.254.169.254", "is at a private address"),
        ("https://10.1.2.3", "is at a private address"),
        ("https://[::ffff:192.168.0.1]", "is at a private address"),
    ] {
        refused(told(&["--webhook", wrong]), says);
    }
    refused(
        told(&["--webhook", url, "--webhook", url]),
        "one at https://shop.example is given twice",
    );
    refused(told(&["api", "--webhook", url]), "is sent by `serve` alone");
    refused(told(&["worker", "--webhook", url]), "is sent by `serve` alone");
    refused(told(&["--webhook", url, "--keep-changes", "0"]), "--keep-changes 0");
    refused(told(&["--webhook", url, "--backend", "aws"]), "needs the embedded backend");
    refused(told(&["--webhook", url, "--webhook-give-up-after", "0"]), "--webhook-give-up-after");
    refused(bare(&["--webhook", url]), "FLUX_WEBHOOK_SECRET: must be set");
    for (value, says) in [
        ("", "empty"),
        ("s3cret", "does not begin with whsec_"),
        ("whsec_s3cret", "base64"),
        ("whsec_c2hvcnQ=", "24 to 64"),
        ("whsec_s3cret whsec_s3cret", "base64"),
    ] {
        let setup = || bare(&["--webhook", url]).env("FLUX_WEBHOOK_SECRET", value);
        refused(setup(), "FLUX_WEBHOOK_SECRET: ");
        refused(setup(), says);
    }
    let many: Vec<String> =
        (0..17).map(|n| format!("--webhook=https://shop.example/{n}")).collect();
    refused(told(&many.iter().map(String::as_str).collect::<Vec<_>>()), "16 times");
}

#[test]
fn what_has_no_effect_is_said() {
    let server = Setup::new()
        .env("FLUX_WEBHOOK_SECRET", "whsec_s3crets3crets3crets3crets3crets3cret")
        .env("FLUX_OPERATER_TOKEN", "s3cret")
        .env("DYNAMODB_TABLE", "flux")
        .env("REDIS_URL", "redis://:s3cret@127.0.0.1:1")
        .args(&["--backend", "embedded", "--stripes", "4"])
        .start();
    let log = server.logged(STARTED);
    for said in [
        "FLUX_OPERATER_TOKEN is set, and nothing here reads it",
        "DYNAMODB_TABLE is set and SQS_QUEUE_URL is not",
        "REDIS_URL is set",
        "FLUX_WEBHOOK_SECRET is set and has no effect without --webhook",
        "--partitions and --stripes have no effect",
    ] {
        assert!(log.contains(said), "{said} in {log}");
    }
    assert!(!log.contains("s3cret"), "{log}");
}

#[test]
fn the_data_directory_is_its_owners_alone() {
    let server = Setup::new().args(&["--data-dir", "sale/data"]).without_operator().start();
    let mode = |name: &str| std::fs::metadata(server.file(name)).expect("there").mode() & 0o777;
    assert_eq!(mode("sale/data"), 0o700);
    let files = std::fs::read_dir(server.file("sale/data")).expect("a directory");
    let files: Vec<_> = files.map(|file| file.expect("an entry").file_name()).collect();
    assert_eq!(files.len(), 2, "{files:?}");
    for file in files {
        let name = format!("sale/data/{}", file.to_string_lossy());
        assert_eq!(mode(&name), 0o600, "{name}");
    }
    let log = server.logged(STARTED);
    assert!(!log.contains("open to others"), "{log}");

    // One that was there already stays as it is, and that it is open is said.
    let dir = server.file("sale/data");
    std::fs::set_permissions(&dir, Permissions::from_mode(0o755)).expect("opened to all");
    let server = server.crash().args(&["--data-dir", "sale/data"]).start();
    server.logged("is open to others (755)");
    assert_eq!(std::fs::metadata(&dir).expect("there").mode() & 0o777, 0o755);
}
