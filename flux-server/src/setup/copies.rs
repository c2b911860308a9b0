//! The commands about copies of a store: `backup` asks a running server for one, `restore`
//! makes a store of it. Neither opens a store that sells.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Read, Write};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use flux_core::backends::embedded::{BackupCounts, Embedded, verify_backup};
use http::header::{AUTHORIZATION, HOST};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::spawn_blocking;

use crate::setup::config::{Command, Config};
use crate::setup::operator_token;

const PATH: &str = "/v1/backup";
/// Most bytes of an answer that is no copy.
const PROBLEM_MAX: usize = 64 * 1024;
/// Pieces that wait to be written.
const PIECES_MAX: usize = 16;

/// Does what the command asks for; `None` if it asks for something else.
pub async fn run(config: &Config) -> Option<Result<()>> {
    Some(match config.command {
        Command::Backup => backup(config).await,
        Command::Restore => {
            let (from, dir) = (config.from.clone(), config.data_dir.clone());
            let restoring = spawn_blocking(move || restore(&from, &dir));
            restoring.await.unwrap_or_else(|panic| Err(panic.into()))
        }
        _ => return None,
    })
}

async fn backup(config: &Config) -> Result<()> {
    ensure!(!io::stdout().is_terminal(), "a copy is bytes: write it to a file, as in `> file`");
    let authority = authority(&config.url)?;
    let token = operator_token::known(config)?;
    let asking = || format!("can't reach {authority}; is the server running, and is it --url?");
    let socket = TcpStream::connect(&authority).await.with_context(asking)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(socket)).await.with_context(asking)?;
    let connection = tokio::spawn(connection);
    let request = Request::get(PATH)
        .header(HOST, &authority)
        .header(AUTHORIZATION, format!("Bearer {}", token.reveal()))
        .body(Empty::<Bytes>::new())?;
    let answer = sender.send_request(request).await.with_context(asking)?;
    let (status, mut body) = (answer.status(), answer.into_body());
    if status != StatusCode::OK {
        let said = Limited::new(body, PROBLEM_MAX).collect().await;
        let said = said.map(|said| String::from_utf8_lossy(&said.to_bytes()).into_owned());
        bail!("the server answers {status}: {}", said.unwrap_or_default());
    }
    // What comes is written and checked side by side.
    let (to_write, pieces) = tokio::sync::mpsc::channel::<Bytes>(PIECES_MAX);
    let writing = spawn_blocking(move || -> Result<BackupCounts> {
        let mut tee = Tee { pieces, piece: Bytes::new(), out: BufWriter::new(io::stdout()) };
        let counts =
            verify_backup(&mut tee).context("what came is no whole copy; throw it away")?;
        tee.out.flush().context("the copy could not be written; throw it away")?;
        Ok(counts)
    });
    while let Some(frame) = body.frame().await {
        let frame = frame.context("the copy broke off")?;
        if let Ok(piece) = frame.into_data()
            && to_write.send(piece).await.is_err()
        {
            break;
        }
    }
    drop(to_write);
    let counts = writing.await??;
    drop(sender);
    connection.abort();
    eprintln!("backed up {counts}");
    Ok(())
}

/// Hands pieces to who checks them, and writes them on the way.
struct Tee<W> {
    pieces: tokio::sync::mpsc::Receiver<Bytes>,
    piece: Bytes,
    out: W,
}

impl<W: Write> Read for Tee<W> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.piece.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => {
                    self.out.write_all(&piece)?;
                    self.piece = piece;
                }
                None => return Ok(0),
            }
        }
        let taken = self.piece.len().min(into.len());
        into[..taken].copy_from_slice(&self.piece.split_to(taken));
        Ok(taken)
    }
}

/// Host and port of the server.
pub(super) fn authority(url: &Uri) -> Result<String> {
    ensure!(
        url.scheme_str() == Some("http") && matches!(url.path(), "" | "/"),
        "--url: must be like http://127.0.0.1:5000; through TLS use curl"
    );
    let authority = url.authority().context("--url: must name a host")?;
    Ok(format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(80)))
}

fn restore(from: &Path, dir: &Path) -> Result<()> {
    let counts = if from == Path::new("-") {
        ensure!(!io::stdin().is_terminal(), "name the copy with --from, or write it to this");
        Embedded::restore(io::stdin().lock(), dir)
    } else {
        let copy = File::open(from).with_context(|| format!("can't read {}", from.display()))?;
        Embedded::restore(copy, dir)
    };
    let counts = counts.with_context(|| format!("{} was not made", dir.display()))?;
    eprintln!("restored {counts} to {}; count them anew: flux-server audit", dir.display());
    Ok(())
}
