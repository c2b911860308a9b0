//! How far a reader came in a stream: a position in each shard it is in. As text it is the
//! feed's cursor.

use std::collections::BTreeMap;

use flux_core::seams::{Cursor, SeamError};

use super::super::rows::SERVICE;

/// Most shards a reader is in at once: as many as a table of 40,000 write units has, ten times.
const SHARDS_MAX: usize = 512;
/// Longest name of a shard or a stream.
const NAME_MAX: usize = 65;

/// A position in a shard.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Position {
    /// Before its first record.
    Start,
    /// Behind the record of that sequence number.
    After(String),
    /// Behind all that was there when a reader asked for the newest. The process that was
    /// asked knows where that is; any other goes by the millisecond.
    Newest {
        /// A moment before.
        since: u64,
        /// Who asked.
        nonce: u64,
    },
    /// Among what was there already when a reader asked for the newest: it goes by the
    /// millisecond, and comes to nothing of which it is to be told before.
    Skipping {
        /// The millisecond.
        since: u64,
        /// The record it came to, by its sequence number; none before the first.
        after: Option<String>,
    },
}

impl Position {
    /// Where a reader who is there begins in a child of the shard.
    pub(super) fn of_child(&self) -> Self {
        match self {
            Self::Skipping { since, .. } => Self::Skipping { since: *since, after: None },
            _ => Self::Start,
        }
    }

    /// The same place, for a reader who does not know where the newest was.
    pub(super) fn by_the_time(self) -> Self {
        match self {
            Self::Newest { since, .. } => Self::Skipping { since, after: None },
            position => position,
        }
    }

    /// Behind a record of that sequence number, read from here, which is told or skipped.
    pub(super) fn behind(&self, sequence: String, is_told: bool) -> Self {
        match self {
            Self::Skipping { since, .. } if !is_told => {
                Self::Skipping { since: *since, after: Some(sequence) }
            }
            _ => Self::After(sequence),
        }
    }

    /// The millisecond before which nothing is told.
    pub(super) fn since(&self) -> u64 {
        match self {
            Self::Skipping { since, .. } => *since,
            _ => 0,
        }
    }

    fn write(&self) -> String {
        match self {
            Self::Start => "s".to_owned(),
            Self::After(sequence) => format!("a{sequence}"),
            Self::Newest { since, nonce } => format!("n{since}.{nonce}"),
            Self::Skipping { since, after: None } => format!("k{since}"),
            Self::Skipping { since, after: Some(sequence) } => format!("k{since}.{sequence}"),
        }
    }

    fn read(text: &str) -> Option<Self> {
        let digits = |text: &str| {
            let all = text.bytes().all(|byte| byte.is_ascii_digit());
            (all && (1..=NAME_MAX).contains(&text.len())).then(|| text.to_owned())
        };
        if text == "s" {
            return Some(Self::Start);
        }
        if let Some(sequence) = text.strip_prefix('a') {
            return digits(sequence).map(Self::After);
        }
        if let Some(skipping) = text.strip_prefix('k') {
            let (since, after) = match skipping.split_once('.') {
                Some((since, sequence)) => (since, Some(digits(sequence)?)),
                None => (skipping, None),
            };
            return Some(Self::Skipping { since: digits(since)?.parse().ok()?, after });
        }
        let (since, nonce) = text.strip_prefix('n')?.split_once('.')?;
        Some(Self::Newest { since: digits(since)?.parse().ok()?, nonce: nonce.parse().ok()? })
    }
}

/// The positions of a reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frontier {
    /// The stream, by the label that tells it from others of the table.
    pub(super) stream: String,
    pub(super) shards: BTreeMap<String, Position>,
}

impl Frontier {
    pub(super) fn cursor(&self) -> Cursor {
        let mut text = self.stream.clone();
        for (shard, position) in &self.shards {
            text.push('~');
            text.push_str(shard);
            text.push('=');
            text.push_str(&position.write());
        }
        Cursor(text)
    }

    pub(super) fn read(cursor: &Cursor) -> Result<Self, SeamError> {
        Self::parse(&cursor.0).ok_or(SeamError::UnknownCursor { service: SERVICE })
    }

    fn parse(text: &str) -> Option<Self> {
        let name = |text: &str| {
            let ours = |byte: u8| byte.is_ascii_alphanumeric() || b"-_:.".contains(&byte);
            ((1..=NAME_MAX).contains(&text.len()) && text.bytes().all(ours))
                .then(|| text.to_owned())
        };
        let mut parts = text.split('~');
        let stream = name(parts.next()?)?;
        let mut shards = BTreeMap::new();
        for part in parts {
            let (shard, position) = part.split_once('=')?;
            shards.insert(name(shard)?, Position::read(position)?);
        }
        let is_whole = (1..=SHARDS_MAX).contains(&shards.len());
        is_whole.then_some(Self { stream, shards })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_as_it_was_written_and_no_other_does() {
        let shards = BTreeMap::from([
            ("shardId-00000001414576573621-f55eea83".to_owned(), Position::Start),
            ("shardId-1".to_owned(), Position::After("300000000000000499659".to_owned())),
            ("shardId-2".to_owned(), Position::Newest { since: 1_700_000_000_000, nonce: 7 }),
            ("shardId-3".to_owned(), Position::Skipping { since: 8, after: None }),
            ("shardId-4".to_owned(), Position::Skipping { since: 8, after: Some("9".to_owned()) }),
        ]);
        let frontier = Frontier { stream: "2026-12-01T10:00:00.123".to_owned(), shards };
        assert_eq!(Frontier::read(&frontier.cursor()).expect("ours"), frontier);
        let foreign = ["", "a", "7", "a~", "a~b", "a~b=", "a b~c=s", "~b=s"];
        let foreign_positions = ["a~b=x", "a~b=a", "a~b=n1", "a~b=k", "a~b=k1.", "a~b=k.1"];
        for foreign in foreign.into_iter().chain(foreign_positions) {
            let read = Frontier::read(&Cursor(foreign.to_owned()));
            assert!(matches!(read, Err(SeamError::UnknownCursor { .. })), "{foreign:?}");
        }
    }
}
