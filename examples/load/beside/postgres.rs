//! PostgreSQL: the counter of an item, and a row for each ticket, on a cluster of its own.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, NoTls, Statement};
use uuid::Uuid;

use super::Way;
use super::rush::{Books, ITEM, Rush, Seller, Told, UNITS};
use super::service::{Service, are_we_root, as_user, find, scratch};

/// Rows that are made for each second of a measurement of tickets: more than are sold.
const TICKETS_A_SECOND: f64 = 60_000.0;

/// A running cluster, which ends before its directories are removed.
pub(super) struct Cluster {
    _service: Service,
    config: Config,
    _dirs: [TempDir; 2],
}

/// How an order takes its unit.
#[derive(Clone, Copy, PartialEq)]
enum Takes {
    Count,
    Ticket,
    PackOfCount,
}

/// How the cluster is called.
struct Called {
    cluster: Arc<Cluster>,
    takes: Takes,
    connections: usize,
    commit_delay_us: u32,
}

impl Cluster {
    /// Makes and starts one in `within`.
    pub(super) async fn start(within: &Path) -> Result<Arc<Self>> {
        let places = installed()?;
        let initdb = find("initdb", &places, "postgresql")?;
        let program = find("postgres", &places, "postgresql")?;
        // It refuses to run as root; the package made a user for it.
        let user = are_we_root()?.then_some("postgres");
        let dir = scratch(within, "postgres", user)?;
        let sockets = scratch(&std::env::temp_dir(), "postgres", user)?;
        let data = dir.path().join("data");
        let made = as_user(&initdb, user, &[])
            .args(["--username=flux", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"])
            .arg(&data)
            .current_dir("/")
            .output()
            .context("initdb can't be started")?;
        let said = String::from_utf8_lossy(&made.stderr);
        ensure!(made.status.success(), "initdb failed, in {}: {said}", dir.path().display());
        let mut args = vec!["-D".to_owned(), data.display().to_string()];
        let sockets_are = format!("unix_socket_directories={}", sockets.path().display());
        for setting in [
            "listen_addresses=",
            &sockets_are,
            "fsync=on",
            "synchronous_commit=on",
            "shared_buffers=256MB",
            "max_connections=100",
            // No checkpoint comes in between, as it would on a busy day.
            "max_wal_size=16GB",
            "checkpoint_timeout=1h",
        ] {
            args.extend(["-c".to_owned(), setting.to_owned()]);
        }
        let mut service = Service::start(&program, &args, user, "postgres", "QUIT", dir.path())?;
        let mut config = Config::new();
        config.host_path(sockets.path()).user("flux").dbname("postgres");
        let (client, connection) = service.answers(|| config.connect(NoTls)).await?;
        let connection = tokio::spawn(connection);
        client.batch_execute(include_str!("schema.sql")).await?;
        drop(client);
        connection.await??;
        Ok(Arc::new(Self { _service: service, config, _dirs: [dir, sockets] }))
    }

    /// Calls one transaction an order, which counts the item down.
    pub(super) fn by_count(self: &Arc<Self>) -> Vec<Box<dyn Way>> {
        self.ways(Takes::Count, &[16, 32, 64])
    }

    /// Calls one transaction an order, which takes the first ticket that is free.
    pub(super) fn by_ticket(self: &Arc<Self>) -> Vec<Box<dyn Way>> {
        self.ways(Takes::Ticket, &[16, 32, 64])
    }

    /// Calls one transaction for many orders, which counts the item down.
    pub(super) fn in_packs(self: &Arc<Self>, callers: usize) -> Vec<Box<dyn Way>> {
        self.ways(Takes::PackOfCount, &[callers])
    }

    fn ways(self: &Arc<Self>, takes: Takes, connections: &[usize]) -> Vec<Box<dyn Way>> {
        let mut ways = Vec::new();
        for &connections in connections {
            for commit_delay_us in [0, 200] {
                let cluster = Arc::clone(self);
                let way = Called { cluster, takes, connections, commit_delay_us };
                ways.push(Box::new(way) as Box<dyn Way>);
            }
        }
        ways
    }
}

/// Debian has the programs of each version in a directory of its own; newest first.
fn installed() -> Result<Vec<PathBuf>> {
    let Ok(versions) = std::fs::read_dir("/usr/lib/postgresql") else { return Ok(Vec::new()) };
    let mut versions = versions.map(|version| Ok(version?.path())).collect::<Result<Vec<_>>>()?;
    let number = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
    versions.sort_by_key(|path| std::cmp::Reverse(number(path)));
    Ok(versions.into_iter().map(|path| path.join("bin")).collect())
}

#[async_trait(?Send)]
impl Way for Called {
    fn note(&self) -> String {
        let Self { connections, commit_delay_us, .. } = self;
        format!("{connections} connections, commit_delay {commit_delay_us} µs")
    }

    async fn measure(&self, rush: Rush) -> Result<Told> {
        let mut pool = Pool::default();
        let first = pool.connect(&self.cluster.config).await?;
        let tickets = match self.takes {
            Takes::Ticket => (rush.seconds * TICKETS_A_SECOND) as u32 + 10_000,
            Takes::Count | Takes::PackOfCount => 0,
        };
        first
            .batch_execute(&format!(
                "TRUNCATE items, orders, tickets;
                 INSERT INTO items VALUES ('{ITEM}', {UNITS});
                 INSERT INTO tickets SELECT n, '{ITEM}' FROM generate_series(1, {tickets}) AS n;"
            ))
            .await?;
        first.batch_execute("VACUUM ANALYZE items, orders, tickets").await?;
        first.batch_execute("CHECKPOINT").await?;
        let mut sellers = Vec::new();
        for _ in 0..self.connections {
            let client = pool.connect(&self.cluster.config).await?;
            let delay = format!("SET commit_delay = {}", self.commit_delay_us);
            client.batch_execute(&delay).await?;
            let statement = client.prepare(self.takes.statement()).await?;
            sellers.push(Connection { client: Arc::new(client), statement, takes: self.takes });
        }
        let told = rush.run(&sellers).await?;
        let gone = match self.takes {
            Takes::Ticket => "SELECT count(DISTINCT order_id) FROM tickets".to_owned(),
            _ => format!("SELECT {UNITS} - available::bigint FROM items WHERE id = '{ITEM}'"),
        };
        let held = "SELECT count(*) FROM orders WHERE status = 'held'";
        let books = format!("SELECT ({held}), ({gone})");
        let books = first.query_one(&books, &[]).await?;
        let (held, gone) = (books.get::<_, i64>(0) as u64, books.get::<_, i64>(1) as u64);
        told.verify(&Books { held, gone })?;
        drop((first, sellers));
        pool.close().await?;
        Ok(told)
    }
}

/// The tasks that serve the connections.
#[derive(Default)]
struct Pool(Vec<JoinHandle<Result<(), tokio_postgres::Error>>>);

impl Pool {
    async fn connect(&mut self, config: &Config) -> Result<Client> {
        let (client, connection) = config.connect(NoTls).await?;
        self.0.push(tokio::spawn(connection));
        Ok(client)
    }

    /// Waits for the end of connections whose clients are gone.
    async fn close(self) -> Result<()> {
        for connection in self.0 {
            connection.await??;
        }
        Ok(())
    }
}

impl Takes {
    fn statement(self) -> &'static str {
        match self {
            Self::Count => "SELECT place_by_count($1, $2, $3, 1)",
            Self::Ticket => "SELECT place_by_ticket($1, $2, $3)",
            Self::PackOfCount => "SELECT place_pack($1, $2, $3)",
        }
    }
}

/// A connection that its callers share: it has the next call when one is answered, so that
/// none of it is ever idle.
#[derive(Clone)]
struct Connection {
    client: Arc<Client>,
    statement: Statement,
    takes: Takes,
}

impl Seller for Connection {
    async fn place(&mut self, buyer: &str, ids: &[Uuid]) -> Result<()> {
        let Self { client, statement, takes } = self;
        let answers = match (takes, ids) {
            (Takes::PackOfCount, _) => client.query(statement, &[&ids, &buyer, &ITEM]).await?,
            (Takes::Count | Takes::Ticket, [id]) => {
                client.query(statement, &[id, &buyer, &ITEM]).await?
            }
            _ => unreachable!("one by one, by the rush that it is given"),
        };
        ensure!(answers.len() == ids.len(), "{} answers", answers.len());
        let held = answers.iter().all(|answer| answer.get::<_, &str>(0) == "held");
        ensure!(held, "an order is not held");
        Ok(())
    }
}
