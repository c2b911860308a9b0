//! An address that leads to one Redis and then to another, or takes its time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use flux_core::seams::{LockManager, SeamError};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::server::Server;
use crate::{LONG, eventually, item, open, prefix};

/// An address of its own, in front of a server.
struct Detour {
    url: String,
    /// The server's port, for connections from now on.
    leads_to: Arc<AtomicU16>,
    _ways: JoinSet<()>,
}

impl Detour {
    /// Lets nothing pass on a connection for so long.
    async fn to(server: &Server, takes: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("redis://{}", listener.local_addr().expect("an address"));
        let leads_to = Arc::new(AtomicU16::new(server.port));
        let (port, mut ways) = (Arc::clone(&leads_to), JoinSet::new());
        ways.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                let port = port.load(Ordering::SeqCst);
                open.spawn(async move {
                    sleep(takes).await;
                    let mut far = TcpStream::connect(("127.0.0.1", port)).await?;
                    copy_bidirectional(&mut near, &mut far).await
                });
            }
        });
        Self { url, leads_to, _ways: ways }
    }
}

#[tokio::test]
async fn a_primary_that_became_a_replica_is_left_for_the_new_one() {
    let (old, new) = (Server::start().await, Server::start().await);
    let detour = Detour::to(&old, Duration::ZERO).await;
    let locks = open(&detour.url, &prefix()).locks();
    let take = |name| {
        let (locks, key) = (&locks, [item(name)]);
        async move { locks.acquire(&key, LONG, Duration::ZERO).await }
    };
    assert!(take("a").await.expect("up").is_some());
    // A failover: the old one still answers on the connection there is.
    old.ask(&["REPLICAOF", "127.0.0.1", &new.port.to_string()]).await;
    detour.leads_to.store(new.port, Ordering::SeqCst);
    let refused = take("b").await;
    assert!(matches!(refused, Err(SeamError::Unavailable { .. })), "{refused:?}");
    eventually(|| take("b"), |taken| matches!(taken, Ok(Some(_)))).await;
}

#[tokio::test]
async fn a_call_at_the_start_waits_for_a_connection_that_takes_its_time() {
    let server = Server::start().await;
    // More than a command may take, and less than a connection may.
    let detour = Detour::to(&server, Duration::from_millis(700)).await;
    for _ in 0..10 {
        // Anew each time, as one try may meet a busy machine.
        let locks = open(&detour.url, &prefix()).locks();
        let lease = locks.acquire(&[item("a")], LONG, Duration::ZERO).await;
        if lease.is_ok_and(|lease| lease.is_some()) {
            return;
        }
    }
    panic!("no call got through");
}
