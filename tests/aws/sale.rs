//! A sale of a few hundred units: an api, the crowd, and what must be true in
//! the end.

use std::ops::Range;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use flux_aws::sqs::{self, CreateOptions};
use serde_json::Value;
use stage::Client;
use stage::fleet::{Crowd, Process, Services, Told, flux_server};
use tempfile::TempDir;
use tokio::task::{JoinHandle, block_in_place};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

pub(crate) const ITEM: &str = "ticket_1";
/// Far more than any sale here takes; only a hang is longer.
const PATIENCE: Duration = Duration::from_secs(90);

/// The stock on sale, and the crowd.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) stock: u32,
    pub(crate) buyers: u32,
    pub(crate) in_flight: usize,
    /// Seconds after which a dead worker's messages come again.
    pub(crate) visibility: u64,
    /// Those of the queue: 16 unless told.
    pub(crate) partitions: Option<u16>,
}

/// A sale for a fault that happens now and then all through it.
pub(crate) const SMALL: Size =
    Size { stock: 300, buyers: 450, in_flight: 24, visibility: 2, partitions: None };

pub(crate) struct Sale {
    pub(crate) services: Services,
    pub(crate) queue: Queue,
    pub(crate) told: Arc<Told>,
    pub(crate) crowd: Crowd,
    pub(crate) api: Process,
    stock: u32,
    hands: Hands,
}

/// The queue, as somebody sees it who is no part of the fleet.
pub(crate) struct Queue {
    pub(crate) client: aws_sdk_sqs::Client,
    pub(crate) name: String,
}

/// The means to start processes.
struct Hands {
    program: PathBuf,
    home: TempDir,
}

impl Hands {
    fn start(&self, name: &str, args: &[&str], services: &Services) -> Process {
        let start = || Process::start(&self.program, name, args, services, self.home.path());
        block_in_place(start).unwrap_or_else(|error| panic!("{error}"))
    }
}

/// The partitions that a test run asks for, if it does.
pub(crate) fn partitions() -> Option<u16> {
    let told = std::env::var("FLUX_TEST_PARTITIONS").ok()?;
    Some(told.parse().expect("FLUX_TEST_PARTITIONS is a number"))
}

impl Sale {
    pub(crate) async fn open(size: Size) -> Self {
        Self::open_with(size, |services| services).await
    }

    /// Opens a sale with an api that is told something else about the services.
    pub(crate) async fn open_with(size: Size, told: impl FnOnce(Services) -> Services) -> Self {
        let sale = Uuid::now_v7();
        let name = format!("flux-test-{sale}");
        let services = Services::from_env(&name).unwrap_or_else(|error| panic!("{error}"));
        let client = aws_sdk_sqs::Client::new(&flux_aws::aws::from_env().await);
        let visibility = Duration::from_secs(size.visibility);
        let partitions = size.partitions.or_else(partitions);
        let options = CreateOptions { visibility, partitions };
        sqs::create(&client, &name, &options).await.expect("the queue is made");
        let program = block_in_place(flux_server).expect("flux-server is built");
        let hands = Hands { program, home: tempfile::tempdir().expect("a folder") };
        let stock = format!("{ITEM}={}", size.stock);
        let args = ["api", "--create", "--item", &stock];
        let api = hands.start("the api", &args, &told(services.clone()));
        let crowd = Crowd {
            api: api.address(),
            item: ITEM.to_owned(),
            sale,
            buyers: size.buyers,
            in_flight: size.in_flight,
            repeat_percent: 20,
            patience: PATIENCE,
        };
        let queue = Queue { client, name };
        Self { services, queue, told: Arc::default(), crowd, api, stock: size.stock, hands }
    }

    pub(crate) fn worker(&self, name: &str, services: &Services) -> Process {
        self.hands.start(name, &["worker"], services)
    }

    /// Lets the crowd in.
    pub(crate) fn storm(&self) -> JoinHandle<()> {
        let (crowd, told) = (self.crowd.clone(), Arc::clone(&self.told));
        tokio::spawn(async move { crowd.storm(&told).await })
    }

    /// Waits until so many buyers hold a unit.
    pub(crate) async fn until_held(&self, held: u32) {
        until(&format!("{held} buyers hold a unit"), || self.told.held() >= held).await;
    }

    /// The item as the api shows it.
    pub(crate) async fn item(&self) -> Value {
        let mut client = Client::new(self.api.address());
        client.get(&format!("/v1/items/{ITEM}"), None).await.expect("an answer").json()
    }

    /// Sends the orders of these buyers ahead, without waiting for a decision.
    pub(crate) async fn send_ahead(&self, buyers: Range<u32>) {
        let mut client = Client::new(self.api.address());
        for buyer in buyers {
            let order = self.crowd.order(buyer);
            let reply = client.post("/v1/orders", None, &order).await.expect("an answer");
            assert_eq!(reply.status, 202, "{reply:?}");
        }
    }

    /// Runs an operator's command, which must succeed.
    pub(crate) fn run(&self, command: &str) -> String {
        let hands = &self.hands;
        let run = || Process::run(&hands.program, &[command], &self.services, hands.home.path());
        let output = block_in_place(run).expect("it starts");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command}: {said}\n{errors}");
        said
    }

    /// Waits for the crowd to be answered, and checks everything that holds
    /// for any sale.
    pub(crate) async fn finish(self, storm: JoinHandle<()>) {
        storm.await.expect("no buyer panics");
        assert_eq!(self.told.faults(), Vec::<String>::new());
        assert_eq!(self.told.answered(), self.crowd.buyers);
        assert_eq!(self.told.count(Some("held")), self.stock, "exactly the stock is sold");
        let changed = self.crowd.changed(&self.told).await.expect("the api answers");
        assert_eq!(changed, Vec::<String>::new());
        let item = self.item().await;
        assert_eq!((&item["available"], &item["held"]), (&0.into(), &self.stock.into()), "{item}");
        let audit = self.run("audit");
        assert!(audit.contains("audit: 0 faults"), "{audit}");
        let letters = self.run("dead-letters");
        assert_eq!(letters, "0 dead letters\n");
    }
}

/// The sum of a metric of a process over its series.
pub(crate) async fn metric(process: &Process, name: &str) -> f64 {
    let reply = Client::new(process.address()).get("/metrics", None).await.expect("metrics");
    let text = String::from_utf8_lossy(&reply.body).into_owned();
    let of_it =
        |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']));
    let value = |line: &str| line.rsplit_once(' ').and_then(|(_, value)| value.parse::<f64>().ok());
    text.lines().filter(of_it).filter_map(value).sum::<f64>()
}

/// Waits until `is` says so.
pub(crate) async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < end, "after {PATIENCE:?} still not: {what}");
        sleep(Duration::from_millis(2)).await;
    }
}

/// Sends a signal by name, such as `STOP`.
pub(crate) fn signal(name: &str, pid: u32) {
    let sent = Command::new("kill").args([format!("-{name}"), pid.to_string()]).status();
    assert!(sent.expect("kill runs").success(), "SIG{name} to {pid}");
}
