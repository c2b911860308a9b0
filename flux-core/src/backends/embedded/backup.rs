//! A copy of a running store, and a store made of one.
//!
//! # The form
//!
//! A line that names it, a byte for its version, and frames: a letter, the length of what
//! follows in four bytes, that, and the CRC-32 of all three, numbers little-endian. `M` has
//! the numbers of `meta`, and comes first; `I`, `O`, `Q` and `D` have rows of the tables of
//! items, orders, queue and dead letters, as they are in the file, each behind its key, and
//! `C` consumers of the feed, and `A` items that are archived or are being; `E` is the last frame, and counts the rows of each. Rows of every version are read for as long as files
//! of that version are, so a copy is as good as the file it is of.
//!
//! The feed of changes is not in it: what consumers have seen of it may not have happened
//! in the restored store. It begins anew, and their cursors are told that changes are gone.

use std::fmt;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use redb::{Builder, Key, ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::feed::{CHANGES, CONSUMERS};
use super::journal::{
    CHANGES_FROM, CLEAN, DEAD, FORGOTTEN, FORMAT, FORMAT_WITH_CHANGES, ITEMS, META, NUMBERED,
    ORDERS, QUEUE, Shared,
};
use super::recover::{Failure, initialise};
use super::removals::DEPARTURES;
use super::{OpenError, io_error, make_dir, open_error, private, publish};
use crate::protocol::{ConsumerName, Timestamp};

const MAGIC: &[u8] = b"flux backup\n";
const VERSION: u8 = 1;
/// Time without work for each unit of time with work.
const PAUSES: u32 = 8;
/// Longest time that counts as work: more is a wait for whoever takes the copy.
const WORK_MAX: Duration = Duration::from_millis(2);
/// Most counts of a copy.
const COUNTS_MAX: usize = 16;
/// Bytes from which on a frame is full.
const FRAME_BYTES: usize = 256 << 10;
/// Most bytes of a frame: one row may be that large.
const FRAME_BYTES_MAX: usize = 64 << 20;
/// Generations that the store may have had since: opens. Tokens, messages' numbers and the
/// like begin with the generation, so those of a restored store are larger than all of the
/// store that was lost.
const GENERATIONS_APART: u64 = 1 << 14;
/// Generations that there may be at all, as tokens have room for them.
const GENERATIONS_MAX: u64 = 1 << 23;
/// Changes that the feed may have had since.
const CHANGES_APART: u64 = 1 << 40;
/// Bits that the time in milliseconds is moved by to be the number of a change: a feed had
/// no million changes in a millisecond, so two that are restored apart have none in common.
const TIME_BITS: u32 = 20;
/// Numbers beyond this are no store's.
const NUMBER_MAX: u64 = 1 << 62;

/// The numbers of `meta` that a restored store goes on with.
const KEPT: [&str; 5] = ["generation", "crashes", NUMBERED, FORGOTTEN, CHANGES_FROM];

const META_FRAME: u8 = b'M';
const ITEMS_FRAME: u8 = b'I';
const ORDERS_FRAME: u8 = b'O';
const QUEUE_FRAME: u8 = b'Q';
const DEAD_FRAME: u8 = b'D';
const CONSUMERS_FRAME: u8 = b'C';
const DEPARTURES_FRAME: u8 = b'A';
const END_FRAME: u8 = b'E';

/// What is in a copy: rows of each table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct BackupCounts {
    /// Items.
    pub items: u64,
    /// Orders.
    pub orders: u64,
    /// Sends to the queue that are not done with, of up to 256 messages each.
    pub sends: u64,
    /// Dead letters.
    pub dead_letters: u64,
    /// Consumers of the change feed.
    pub consumers: u64,
    /// Items that are archived, or are being.
    pub archived: u64,
}

impl fmt::Display for BackupCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { items, orders, sends, dead_letters, consumers: _, archived: _ } = self;
        write!(f, "{items} items, {orders} orders, {sends} sends, {dead_letters} dead letters")
    }
}

/// The failure of a [backup](super::Embedded::backup).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// The store could not be read.
    #[error("the store can't be read")]
    Store(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The copy could not be written.
    #[error("the copy can't be written")]
    Write(#[from] io::Error),
}

impl From<redb::Error> for BackupError {
    fn from(error: redb::Error) -> Self {
        Self::Store(super::cause(error))
    }
}

/// The failure of a [restore](super::Embedded::restore): nothing was made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// There is a store in the directory already.
    #[error("{} has a store already; name a new directory", .0.display())]
    NotEmpty(std::path::PathBuf),
    /// It is no copy, or not a whole one.
    #[error("this is no whole copy of a store: {0}")]
    Damaged(String),
    /// It was made by a newer version.
    #[error(
        "the copy is of version {found}, this program reads version {VERSION}; use a newer one"
    )]
    Version {
        /// The version of the copy.
        found: u8,
    },
    /// It could not be read.
    #[error("the copy can't be read")]
    Read(#[from] io::Error),
    /// The new store could not be made.
    #[error(transparent)]
    Store(#[from] OpenError),
}

/// Writes a copy of what is in the file at this moment.
pub(super) fn backup(shared: &Shared, out: &mut dyn Write) -> Result<BackupCounts, BackupError> {
    let txn = shared.read()?;
    out.write_all(MAGIC)?;
    out.write_all(&[VERSION])?;
    let numbers = numbers(&txn)?;
    write_frame(out, META_FRAME, &postcard::to_stdvec(&numbers).expect("numbers"))?;
    let counts = BackupCounts {
        items: copy(&txn, ITEMS, ITEMS_FRAME, |key| key.as_bytes().to_vec(), out)?,
        orders: copy(&txn, ORDERS, ORDERS_FRAME, numbered, out)?,
        sends: copy(&txn, QUEUE, QUEUE_FRAME, numbered, out)?,
        dead_letters: copy(&txn, DEAD, DEAD_FRAME, numbered, out)?,
        consumers: copy_consumers(&txn, out)?,
        archived: copy(&txn, DEPARTURES, DEPARTURES_FRAME, |key| key.as_bytes().to_vec(), out)?,
    };
    write_frame(out, END_FRAME, &postcard::to_stdvec(&counts).expect("numbers"))?;
    out.flush()?;
    Ok(counts)
}

fn numbered(key: u64) -> Vec<u8> {
    key.to_le_bytes().to_vec()
}

/// The numbers of `meta`, and where the feed stands.
fn numbers(txn: &ReadTransaction) -> Result<Vec<(String, u64)>, redb::Error> {
    let meta = txn.open_table(META)?;
    let mut numbers = Vec::new();
    for name in KEPT {
        if let Some(number) = meta.get(name)? {
            numbers.push((name.to_owned(), number.value()));
        }
    }
    if let Some((newest, _)) = txn.open_table(CHANGES)?.last()? {
        numbers.retain(|(name, _)| name != CHANGES_FROM);
        numbers.push((CHANGES_FROM.to_owned(), newest.value()));
    }
    Ok(numbers)
}

fn copy<K: Key + 'static>(
    txn: &ReadTransaction,
    table: TableDefinition<'_, K, &'static [u8]>,
    frame: u8,
    key_bytes: impl for<'k> Fn(K::SelfType<'k>) -> Vec<u8>,
    out: &mut dyn Write,
) -> Result<u64, BackupError> {
    let table = txn.open_table(table).map_err(redb::Error::from)?;
    let (mut rows, mut bytes) = (0, Vec::with_capacity(FRAME_BYTES * 2));
    let mut began = Instant::now();
    for row in table.iter().map_err(redb::Error::from)? {
        let (key, row) = row.map_err(redb::Error::from)?;
        put_row(&key_bytes(key.value()), row.value(), &mut bytes);
        rows += 1;
        if bytes.len() >= FRAME_BYTES {
            write_frame(out, frame, &bytes)?;
            bytes.clear();
            // The sale has the machine for most of the time.
            sleep(began.elapsed().min(WORK_MAX) * PAUSES);
            began = Instant::now();
        }
    }
    if !bytes.is_empty() {
        write_frame(out, frame, &bytes)?;
    }
    Ok(rows)
}

/// Copies how far consumers came, so that in the restored store they are told that changes
/// are gone, and don't begin with its first.
fn copy_consumers(txn: &ReadTransaction, out: &mut dyn Write) -> Result<u64, BackupError> {
    let table = txn.open_table(CONSUMERS).map_err(redb::Error::from)?;
    let (mut rows, mut bytes) = (0, Vec::new());
    for row in table.iter().map_err(redb::Error::from)? {
        let (name, after) = row.map_err(redb::Error::from)?;
        put_row(name.value().as_bytes(), &numbered(after.value()), &mut bytes);
        rows += 1;
    }
    if rows > 0 {
        write_frame(out, CONSUMERS_FRAME, &bytes)?;
    }
    Ok(rows)
}

fn put_row(key: &[u8], row: &[u8], out: &mut Vec<u8>) {
    for part in [key, row] {
        out.extend_from_slice(&(part.len() as u32).to_le_bytes());
        out.extend_from_slice(part);
    }
}

fn checksum(head: &[u8], body: &[u8]) -> [u8; 4] {
    let mut sum = crc32fast::Hasher::new();
    sum.update(head);
    sum.update(body);
    sum.finalize().to_le_bytes()
}

fn write_frame(out: &mut dyn Write, letter: u8, body: &[u8]) -> io::Result<()> {
    let mut head = [letter, 0, 0, 0, 0];
    head[1..].copy_from_slice(&(body.len() as u32).to_le_bytes());
    out.write_all(&head)?;
    out.write_all(body)?;
    out.write_all(&checksum(&head, body))
}

fn damaged(what: impl Into<String>) -> RestoreError {
    RestoreError::Damaged(what.into())
}

/// Reads exactly so many bytes; one that ends before is no whole copy.
fn take(from: &mut dyn Read, bytes: &mut [u8]) -> Result<(), RestoreError> {
    from.read_exact(bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => damaged("it ends before its end"),
        _ => RestoreError::Read(error),
    })
}

fn read_frame(from: &mut dyn Read) -> Result<(u8, Vec<u8>), RestoreError> {
    let mut head = [0; 5];
    take(from, &mut head)?;
    let [letter, length @ ..] = head;
    let length = u32::from_le_bytes(length) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(damaged("a part of it is larger than any"));
    }
    let mut body = vec![0; length];
    take(from, &mut body)?;
    let mut sum = [0; 4];
    take(from, &mut sum)?;
    if sum != checksum(&head, &body) {
        return Err(damaged("a checksum is wrong"));
    }
    Ok((letter, body))
}

/// Reads a copy to its end without keeping it, as whoever stores one may want to know that
/// it is whole.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// use flux_core::backends::embedded::{Embedded, verify_backup};
///
/// # let dir = tempfile::tempdir()?;
/// let embedded = Embedded::open(dir.path())?;
/// let mut copy = Vec::new();
/// let written = embedded.backup(&mut copy)?;
/// assert_eq!(verify_backup(&copy[..])?, written);
/// assert!(verify_backup(&copy[..copy.len() - 1]).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`RestoreError`], unless it is whole.
pub fn verify_backup(copy: impl Read) -> Result<BackupCounts, RestoreError> {
    read(copy, |_, _| Ok(()))
}

/// Reads a copy frame by frame, and checks that all of it came.
fn read(
    copy: impl Read,
    mut each: impl FnMut(u8, &[u8]) -> Result<(), RestoreError>,
) -> Result<BackupCounts, RestoreError> {
    let mut copy = BufReader::with_capacity(FRAME_BYTES, copy);
    let mut head = [0; MAGIC.len() + 1];
    take(&mut copy, &mut head)?;
    if !head.starts_with(MAGIC) {
        return Err(damaged("it does not begin as one"));
    }
    if head[MAGIC.len()] != VERSION {
        return Err(RestoreError::Version { found: head[MAGIC.len()] });
    }
    let mut counted = BackupCounts::default();
    for nth in 0.. {
        let (letter, body) = read_frame(&mut copy)?;
        if (nth == 0) != (letter == META_FRAME) {
            return Err(damaged("its numbers are not at its beginning"));
        }
        let rows = match letter {
            META_FRAME => None,
            ITEMS_FRAME => Some(&mut counted.items),
            ORDERS_FRAME => Some(&mut counted.orders),
            QUEUE_FRAME => Some(&mut counted.sends),
            DEAD_FRAME => Some(&mut counted.dead_letters),
            CONSUMERS_FRAME => Some(&mut counted.consumers),
            DEPARTURES_FRAME => Some(&mut counted.archived),
            END_FRAME => {
                // What an older copy did not count, it had none of.
                let told: BackupCounts = decode(&[&body[..], &[0; COUNTS_MAX]].concat())?;
                if told != counted {
                    return Err(damaged(format!("it has {counted}, and should have {told}")));
                }
                return Ok(counted);
            }
            other => return Err(damaged(format!("a part of it is of an unknown kind, {other}"))),
        };
        if let Some(rows) = rows {
            *rows += (rows_of(&body)?.len()) as u64;
        }
        each(letter, &body)?;
    }
    unreachable!("it returns at the last frame")
}

fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, RestoreError> {
    postcard::from_bytes(body).map_err(|error| damaged(error.to_string()))
}

type KeyAndRow<'a> = (&'a [u8], &'a [u8]);

/// The rows of a frame, each behind its key.
fn rows_of(mut body: &[u8]) -> Result<Vec<KeyAndRow<'_>>, RestoreError> {
    let mut rows = Vec::new();
    let mut part = || -> Option<&[u8]> {
        let (length, rest) = body.split_first_chunk::<4>()?;
        let (part, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        body = rest;
        Some(part)
    };
    loop {
        match (part(), part()) {
            (Some(key), Some(row)) => rows.push((key, row)),
            (None, None) => break,
            _ => return Err(damaged("a row is cut short")),
        }
    }
    if body.is_empty() { Ok(rows) } else { Err(damaged("a row is cut short")) }
}

/// Makes a store of a copy in a directory that has none.
pub(super) fn restore(
    copy: impl Read,
    dir: &Path,
    file: &Path,
) -> Result<BackupCounts, RestoreError> {
    make_dir(dir).map_err(|error| io_error(dir, error))?;
    if file.exists() {
        return Err(RestoreError::NotEmpty(dir.to_owned()));
    }
    let draft = super::draft_of(dir);
    private::make_file(&draft).map_err(|error| io_error(&draft, error))?;
    let made = fill(copy, &draft);
    let published = made.and_then(|counts| {
        if publish(&draft, file)? {
            Ok(counts)
        } else {
            Err(RestoreError::NotEmpty(dir.to_owned()))
        }
    });
    let removed = std::fs::remove_file(&draft).map_err(|error| io_error(&draft, error));
    let counts = published?;
    removed?;
    super::sync_dir(dir).map_err(|error| io_error(dir, error))?;
    Ok(counts)
}

fn fill(copy: impl Read, draft: &Path) -> Result<BackupCounts, RestoreError> {
    let store = |failure: Failure| RestoreError::Store(open_error(draft, failure));
    let db = Builder::new().create(draft).map_err(|error| store(error.into()))?;
    initialise(&db).map_err(store)?;
    let counts = read(copy, |letter, body| {
        let txn = db.begin_write().map_err(|error| store(error.into()))?;
        put(&txn, letter, body, &store)?;
        txn.commit().map_err(|error| store(error.into()))
    })?;
    db.close().map_err(|error| store(error.into()))?;
    Ok(counts)
}

fn put(
    txn: &WriteTransaction,
    letter: u8,
    body: &[u8],
    store: &dyn Fn(Failure) -> RestoreError,
) -> Result<(), RestoreError> {
    let table = |error: redb::TableError| store(error.into());
    let storage = |error: redb::StorageError| store(error.into());
    match letter {
        META_FRAME => put_numbers(txn, &decode::<Vec<_>>(body)?, store),
        ITEMS_FRAME | DEPARTURES_FRAME => {
            let definition = if letter == ITEMS_FRAME { ITEMS } else { DEPARTURES };
            let mut items = txn.open_table(definition).map_err(table)?;
            for (key, row) in rows_of(body)? {
                let key = std::str::from_utf8(key).map_err(|_| damaged("an item has no name"))?;
                items.insert(key, row).map_err(storage)?;
            }
            Ok(())
        }
        CONSUMERS_FRAME => {
            let mut consumers = txn.open_table(CONSUMERS).map_err(table)?;
            for (name, after) in rows_of(body)? {
                let name = std::str::from_utf8(name).ok().and_then(|name| name.parse().ok());
                let name: ConsumerName = name.ok_or_else(|| damaged("a consumer has no name"))?;
                let after = after.try_into().map_err(|_| damaged("a consumer has no cursor"))?;
                let after = u64::from_le_bytes(after);
                consumers.insert(name.as_str(), after).map_err(storage)?;
            }
            Ok(())
        }
        letter => {
            let definition = match letter {
                ORDERS_FRAME => ORDERS,
                QUEUE_FRAME => QUEUE,
                _ => DEAD,
            };
            let mut rows = txn.open_table(definition).map_err(table)?;
            for (key, row) in rows_of(body)? {
                let key = key.try_into().map_err(|_| damaged("a row has no number"))?;
                rows.insert(u64::from_le_bytes(key), row).map_err(storage)?;
            }
            Ok(())
        }
    }
}

fn put_numbers(
    txn: &WriteTransaction,
    numbers: &[(String, u64)],
    store: &dyn Fn(Failure) -> RestoreError,
) -> Result<(), RestoreError> {
    let mut meta = txn.open_table(META).map_err(|error| store(error.into()))?;
    let mut put = |name: &str, number: u64| {
        meta.insert(name, number).map(|_| ()).map_err(|error| store(error.into()))
    };
    let number = |name: &str| {
        let known = numbers.iter().find(|(known, _)| known == name).map(|(_, number)| *number);
        match known {
            Some(number) if number >= NUMBER_MAX => Err(damaged(format!("{name} is {number}"))),
            known => Ok(known),
        }
    };
    if let Some((other, _)) = numbers.iter().find(|(name, _)| !KEPT.contains(&name.as_str())) {
        return Err(damaged(format!("it has a number {other}, which is unknown")));
    }
    // G7: larger than any that the store before may have reached.
    let generation = number("generation")?.ok_or_else(|| damaged("its generation is missing"))?;
    let generation = generation + GENERATIONS_APART;
    if generation >= GENERATIONS_MAX {
        return Err(damaged("it was restored too often"));
    }
    put("generation", generation)?;
    for name in ["crashes", NUMBERED, FORGOTTEN] {
        put(name, number(name)?.ok_or_else(|| damaged(format!("{name} is missing")))?)?;
    }
    let by_time = Timestamp::now().as_millis() << TIME_BITS;
    put(CHANGES_FROM, (number(CHANGES_FROM)?.unwrap_or(0) + CHANGES_APART).max(by_time))?;
    put(FORMAT, FORMAT_WITH_CHANGES)?;
    put(CLEAN, 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_from_before_archives_counts_none() -> Result<(), Box<dyn std::error::Error>> {
        let mut copy = [MAGIC, &[VERSION]].concat();
        write_frame(&mut copy, META_FRAME, &[])?;
        write_frame(&mut copy, END_FRAME, &postcard::to_allocvec(&[0_u64; 5])?)?;
        assert_eq!(read(&copy[..], |_, _| Ok(()))?, BackupCounts::default());
        Ok(())
    }
}
