//! The failures again as microburst words them, from the models the SDK is
//! made of, in a process between store and emulator.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use flux_aws::bill::Meter;
use flux_aws::dynamodb::DynamoStore;
use flux_core::protocol::CommitOutcome;
use flux_core::seams::{InventoryStore, SeamError};
use serde_json::{Value, json};

use crate::table::{
    available, claim, client, commit, held, id, item, new, pool, single, store, table_name,
    variable,
};

/// Killed when dropped.
struct Microburst {
    port: u16,
    child: Child,
}

impl Microburst {
    fn start() -> Self {
        for _ in 0..5 {
            let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
            let port = port.expect("a free port").port();
            let upstream = variable("AWS_ENDPOINT_URL_DYNAMODB");
            let child = Command::new(variable("FLUX_TEST_MICROBURST"))
                .args(["--upstream", &upstream, "--host", "127.0.0.1"])
                .args(["--port", &port.to_string()])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn();
            let child = child.expect("FLUX_TEST_MICROBURST is a program");
            let mut burst = Self { port, child };
            if burst.listens() {
                return burst;
            }
        }
        panic!("no port stays free");
    }

    /// `false` if it ended instead: somebody else has the port.
    fn listens(&mut self) -> bool {
        let end = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            if self.child.try_wait().expect("it is our child").is_some() {
                return false;
            }
            assert!(Instant::now() < end, "microburst does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        true
    }

    /// Replaces all rules with these.
    fn rules(&self, rules: &Value) {
        let body = rules.to_string();
        let mut wire = TcpStream::connect(("127.0.0.1", self.port)).expect("it listens");
        let head = format!(
            "POST /_microburst/rules HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        wire.write_all((head + &body).as_bytes()).expect("sent");
        let mut answer = String::new();
        wire.read_to_string(&mut answer).expect("answered");
        assert!(answer.starts_with("HTTP/1.1 20"), "{answer}");
    }

    /// A store in a new table with five tickets, by way of microburst, and one
    /// beside it.
    async fn stores(&self) -> (Arc<DynamoStore>, Arc<DynamoStore>) {
        let (well, table, meter) = (client().await, table_name(), Meter::default());
        let url = format!("http://127.0.0.1:{}", self.port);
        let config = well.config().to_builder().endpoint_url(url).build();
        let by_way = store(&aws_sdk_dynamodb::Client::from_conf(config), &table, 1, &meter).await;
        let well = store(&well, &table, 1, &meter).await;
        well.create_table().await.expect("made");
        well.put_item(&pool("a", 5)).await.expect("put");
        // Its first answer takes seconds: it reads the models.
        let end = Instant::now() + Duration::from_secs(60);
        while let Err(error) = by_way.availability(&[item("a")]).await {
            assert!(Instant::now() < end, "microburst passes nothing on: {error}");
        }
        (well, by_way)
    }
}

impl Drop for Microburst {
    fn drop(&mut self) {
        self.child.kill().and_then(|()| self.child.wait()).expect("it was ours to kill");
    }
}

fn transaction(times: u32, what: &Value) -> Value {
    let mut rule =
        json!({"service": "dynamodb", "operation": "TransactWriteItems", "times": times});
    rule.as_object_mut().expect("an object").extend(what.as_object().expect("one").clone());
    json!([rule])
}

fn cancelled(codes: &[&str]) -> Value {
    let reasons: Vec<_> =
        codes.iter().map(|code| json!({"Code": code, "Message": "told"})).collect();
    let code = "TransactionCanceledException";
    json!({"error": {"code": code, "fields": {"CancellationReasons": reasons}}})
}

#[tokio::test]
async fn each_failure_of_a_commit_means_what_it_should() {
    let burst = Microburst::start();
    let error = |code: &str| json!({"error": {"code": code}});
    let passing = [
        cancelled(&["TransactionConflict", "None"]),
        error("ProvisionedThroughputExceededException"),
        error("ThrottlingException"),
        error("TransactionInProgressException"),
        error("InternalServerError"),
        json!({"error": {"code": "ServiceUnavailable", "status": 503}}),
        json!({"response": {"abort_bytes": 0}}),
        json!({"reset": true}),
    ];
    for passes in passing {
        burst.rules(&json!([]));
        let (well, by_way) = burst.stores().await;
        let claimed = claim(&by_way, "a").await;
        burst.rules(&transaction(2, &passes));
        let commit = commit(&[&claimed], vec![new(&held(&single(1, "a")))]);
        let outcome = by_way.commit(&[commit]).await.expect("told");
        assert_eq!(outcome, [CommitOutcome::Applied], "{passes}");
        assert_eq!(available(&well, "a").await, 4, "{passes}");
    }
    let lasting = [
        cancelled(&["ValidationError", "None"]),
        error("IdempotentParameterMismatchException"),
        error("ValidationException"),
    ];
    for lasts in lasting {
        burst.rules(&json!([]));
        let (well, by_way) = burst.stores().await;
        let claimed = claim(&by_way, "a").await;
        burst.rules(&transaction(1, &lasts));
        let commit = commit(&[&claimed], vec![new(&held(&single(1, "a")))]);
        let outcome = by_way.commit(&[commit]).await;
        assert!(matches!(outcome, Err(SeamError::Broken { .. })), "{lasts}: {outcome:?}");
        assert_eq!(available(&well, "a").await, 5, "{lasts}");
    }
    // Every try arrives and none is answered: one of them was taken.
    let (well, by_way) = burst.stores().await;
    let claimed = claim(&by_way, "a").await;
    burst.rules(&transaction(100, &json!({"response": {"abort_bytes": 0}})));
    let lost = commit(&[&claimed], vec![new(&held(&single(1, "a")))]);
    assert_eq!(by_way.commit(&[lost]).await.expect("told"), [CommitOutcome::Unknown]);
    assert_eq!(available(&well, "a").await, 4);
    assert!(well.orders(&[id(1)]).await.expect("read")[0].is_some());
}

#[tokio::test]
async fn one_call_in_five_is_throttled() {
    let burst = Microburst::start();
    let (well, by_way) = burst.stores().await;
    let code = "ProvisionedThroughputExceededException";
    burst.rules(&json!([{"service": "dynamodb", "probability": 0.2, "error": {"code": code}}]));
    let mut applied = 0;
    for number in 0..100 {
        let claimed = match by_way.claim(&[item("a")]).await {
            Ok(claims) => claims.into_iter().flatten().next().expect("it is there"),
            Err(error) => {
                assert!(matches!(error, SeamError::Unavailable { .. }), "{error:?}");
                continue;
            }
        };
        let commit = commit(&[&claimed], vec![new(&held(&single(number, "a")))]);
        match by_way.commit(&[commit]).await {
            Ok(outcome) if outcome == [CommitOutcome::Applied] => applied += 1,
            Ok(outcome) => {
                assert!(matches!(outcome[..], [CommitOutcome::Fenced(_)]), "{outcome:?}");
            }
            Err(error) => assert!(matches!(error, SeamError::Unavailable { .. }), "{error:?}"),
        }
    }
    assert_eq!((applied, available(&well, "a").await), (5, 0));
}
