//! A region's distance, in front of a service that is near: every
//! answer comes so much later. Requests pass at once, so any number of them may
//! be on their way.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// Pieces of answers that wait on one connection.
const PIECES_MAX: usize = 1_024;

/// Listens in front of `host:port` and says where, until the runtime ends.
pub(crate) async fn in_front_of(upstream: &str, delay: Duration) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let upstream = upstream.to_owned();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let upstream = upstream.clone();
            tokio::spawn(async move {
                if let Err(error) = pass_on(near, &upstream, delay).await {
                    eprintln!("a connection to {upstream} broke: {error:#}");
                }
            });
        }
    });
    Ok(address)
}

async fn pass_on(near: TcpStream, upstream: &str, delay: Duration) -> Result<()> {
    let far = TcpStream::connect(upstream).await.context("no connection")?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let ((from_near, to_near), (from_far, to_far)) = (near.into_split(), far.into_split());
    // Either side may hang up at any time.
    let (_, _) =
        tokio::join!(late(from_near, to_far, Duration::ZERO), late(from_far, to_near, delay));
    Ok(())
}

async fn late(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: Duration) {
    let (sender, mut pieces) = mpsc::channel::<(Instant, Vec<u8>)>(PIECES_MAX);
    let reading = async move {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            let due = Instant::now() + delay;
            if sender.send((due, buffer[..count].to_vec())).await.is_err() {
                break;
            }
        }
    };
    let writing = async move {
        while let Some((due, piece)) = pieces.recv().await {
            if !delay.is_zero() {
                sleep_until(due).await;
            }
            if to.write_all(&piece).await.is_err() {
                break;
            }
        }
    };
    tokio::join!(reading, writing);
}
