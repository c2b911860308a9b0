//! Redis: the script of a flash sale, on a server with an append-only file.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo, Pipeline, cmd};
use anyhow::{Result, ensure};
use async_trait::async_trait;
use tempfile::TempDir;
use uuid::Uuid;

use super::Way;
use super::rush::{Books, ITEM, Rush, Seller, Told, UNITS};
use super::service::{Service, find, scratch};

const LEFT: &str = "left:item-0";

/// When Redis has its file written to the disk.
#[derive(Clone, Copy)]
pub(super) enum Fsync {
    /// Before it answers, once for all calls that came together.
    Always,
    /// Once a second: what it answered since can be lost.
    EverySecond,
}

/// How a pack of orders is sent.
#[derive(Clone, Copy)]
pub(super) enum Pack {
    /// A script for each order, all in one pipeline.
    Pipeline,
    /// One script for all.
    Script,
}

/// A server of its own for each measurement, and how it is called.
pub(super) struct Scripted {
    program: PathBuf,
    dir: PathBuf,
    fsync: Fsync,
    pack: Pack,
    connections: usize,
}

/// The ways to call it one by one; the fastest is compared.
pub(super) fn one_by_one(dir: &Path, fsync: Fsync) -> Result<Vec<Box<dyn Way>>> {
    let ways = [1, 4, 16, 64].map(|connections| (Pack::Pipeline, connections));
    scripted(dir, fsync, &ways)
}

/// The ways to call it with many orders at a time.
pub(super) fn in_packs(dir: &Path, fsync: Fsync, callers: usize) -> Result<Vec<Box<dyn Way>>> {
    let packs = [Pack::Pipeline, Pack::Script];
    let ways = packs.into_iter().flat_map(|pack| [(pack, 1), (pack, callers)]);
    scripted(dir, fsync, &ways.collect::<Vec<_>>())
}

fn scripted(dir: &Path, fsync: Fsync, ways: &[(Pack, usize)]) -> Result<Vec<Box<dyn Way>>> {
    let program = find("redis-server", &[], "redis-server")?;
    let way = |&(pack, connections)| {
        let (program, dir) = (program.clone(), dir.to_owned());
        Box::new(Scripted { program, dir, fsync, pack, connections }) as Box<dyn Way>
    };
    Ok(ways.iter().map(way).collect())
}

#[async_trait(?Send)]
impl Way for Scripted {
    fn note(&self) -> String {
        let pack = match self.pack {
            Pack::Pipeline => "a script for each order",
            Pack::Script => "one script for the pack",
        };
        format!("{pack}, multiplexed connections: {}", self.connections)
    }

    async fn measure(&self, rush: Rush) -> Result<Told> {
        let mut server = self.start()?;
        let mut first = server.connect().await?;
        cmd("SET").arg(LEFT).arg(UNITS).exec_async(&mut first).await?;
        let one = load(&mut first, include_str!("place.lua")).await?;
        let pack = load(&mut first, include_str!("place_pack.lua")).await?;
        let mut sellers = Vec::new();
        for _ in 0..self.connections {
            let connection = server.connect().await?;
            let (one, pack) = (one.clone(), pack.clone());
            sellers.push(Connection { connection, one, pack, packed: self.pack });
        }
        let told = rush.run(&sellers).await?;
        let left: i64 = cmd("GET").arg(LEFT).query_async(&mut first).await?;
        let keys: u64 = cmd("DBSIZE").query_async(&mut first).await?;
        ensure!((0..=i64::from(UNITS)).contains(&left), "{left} are left");
        told.verify(&Books { held: keys - 1, gone: u64::from(UNITS) - left as u64 })?;
        Ok(told)
    }
}

impl Scripted {
    fn start(&self) -> Result<Server> {
        let dir = scratch(&self.dir, "redis", None)?;
        // The name of a socket may not be long, that of the directory may.
        let sockets = scratch(&std::env::temp_dir(), "redis", None)?;
        let socket = sockets.path().join("socket");
        let fsync = match self.fsync {
            Fsync::Always => "always",
            Fsync::EverySecond => "everysec",
        };
        // No rewrite of the file comes in between, as it would on a busy day.
        let args = format!(
            "--port 0 --save  --appendonly yes --appendfsync {fsync} --auto-aof-rewrite-percentage 0 \
             --unixsocket {}",
            socket.display()
        );
        let args: Vec<_> = args.split(' ').map(str::to_owned).collect();
        let service =
            Service::start(&self.program, &args, None, "redis-server", "KILL", dir.path())?;
        Ok(Server { service, socket, _dirs: [dir, sockets] })
    }
}

/// Ends before its directories are removed.
struct Server {
    service: Service,
    socket: PathBuf,
    _dirs: [TempDir; 2],
}

impl Server {
    async fn connect(&mut self) -> Result<MultiplexedConnection> {
        let info = ConnectionAddr::Unix(self.socket.clone()).into_connection_info()?;
        let client = Client::open(info)?;
        // All that are in flight may be under way at once, for as long as it takes.
        let config = AsyncConnectionConfig::new()
            .set_response_timeout(None)
            .set_pipeline_buffer_size(1_024)
            .set_write_backpressure_boundary(1 << 20);
        self.service.answers(|| client.get_multiplexed_async_connection_with_config(&config)).await
    }
}

/// Has Redis remember a script, and returns the hash it is called by.
async fn load(connection: &mut MultiplexedConnection, script: &str) -> Result<String> {
    Ok(cmd("SCRIPT").arg("LOAD").arg(script).query_async(connection).await?)
}

#[derive(Clone)]
struct Connection {
    connection: MultiplexedConnection,
    one: String,
    pack: String,
    packed: Pack,
}

impl Seller for Connection {
    async fn place(&mut self, buyer: &str, ids: &[Uuid]) -> Result<()> {
        let now = SystemTime::UNIX_EPOCH.elapsed()?.as_millis() as u64;
        let key = |id: &Uuid| format!("order:{id}");
        let one = |id| {
            let mut call = cmd("EVALSHA");
            call.arg(&self.one).arg(2).arg(LEFT).arg(key(id)).arg(buyer).arg(ITEM).arg(1).arg(now);
            call
        };
        let answers: Vec<String> = match (ids, self.packed) {
            ([id], _) => vec![one(id).query_async(&mut self.connection).await?],
            (_, Pack::Pipeline) => {
                let mut pipeline = Pipeline::with_capacity(ids.len());
                for id in ids {
                    pipeline.add_command(one(id));
                }
                pipeline.query_async(&mut self.connection).await?
            }
            (_, Pack::Script) => {
                let mut call = cmd("EVALSHA");
                call.arg(&self.pack).arg(1 + ids.len()).arg(LEFT);
                for id in ids {
                    call.arg(key(id));
                }
                call.arg(buyer).arg(ITEM).arg(now).query_async(&mut self.connection).await?
            }
        };
        ensure!(answers.len() == ids.len(), "{} answers", answers.len());
        ensure!(answers.iter().all(|answer| answer == "held"), "{answers:?}");
        Ok(())
    }
}
