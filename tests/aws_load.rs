//! The benchmark on SQS, DynamoDB and Redis, in its short form: it comes to its
//! end, tells all it measured, and no order is dearer than it may be. How fast
//! it is depends on the machine, and is not looked at.

use std::path::PathBuf;
use std::process::Command;

#[test]
fn the_short_benchmark_tells_all_and_no_order_is_dear() {
    let test = std::env::current_exe().expect("a test has a path");
    let built = test.ancestors().nth(2).expect("it lies in a folder of the build's");
    let benchmark: PathBuf = built.join("examples").join("aws_load");
    assert!(benchmark.exists(), "build it: cargo build --features aws --example aws_load");
    assert!(
        std::env::var_os("AWS_ENDPOINT_URL_SQS").is_some(),
        "start the services: tests/services cargo nextest run …"
    );
    let ran = Command::new(&benchmark).arg("--quick").output().expect("it can be started");
    let told = String::from_utf8_lossy(&ran.stdout);
    let notes = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{told}\n{notes}");
    for row in [
        "call by call, one worker",
        "one worker, one item",
        "three workers, one item",
        "the table alone, 300 items",
        "one worker, 300 items",
        "three workers, 300 items",
        "an idle worker",
        "write units, held",
        "write units, queued and rejected",
        "write units, turned away at the gate",
        "SQS requests, held",
        "SQS requests, queued and rejected",
        "Redis commands, held",
        "Redis commands, queued and rejected",
        "read units, held and waited for",
    ] {
        assert!(told.lines().any(|line| line.starts_with(row)), "no {row:?} in\n{told}\n{notes}");
    }
}
