//! The file of messages that are not taken: those that wait beside the feed, as they would
//! hold others up, and those that were given up.
//!
//! A message is in the file before the feed's cursor passes its change, so a crash repeats
//! it and never loses it. Every call blocks for disk accesses.

use std::fs::{DirBuilder, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, Result};
use bytes::Bytes;
use redb::backends::FileBackend;
use redb::{Database, ReadableDatabase, TableDefinition};
use serde::{Deserialize, Serialize};

use super::message::Head;

/// The file's name in the data directory.
pub(super) const FILE_NAME: &str = "webhooks.redb";

/// What is known of each message, by webhook and number.
const RECORDS: TableDefinition<'_, (&str, u64), &[u8]> = TableDefinition::new("records");
/// The bodies, likewise.
const BODIES: TableDefinition<'_, (&str, u64), &[u8]> = TableDefinition::new("bodies");

/// A message in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    #[serde(flatten)]
    pub(super) head: Head,
    pub(super) attempts: u32,
    /// The time it waited between its attempts.
    pub(super) waited_ms: u64,
    /// What came of the last one.
    pub(super) error: String,
    /// The time at which it was given up, in milliseconds since 1970; it waits without.
    pub(super) given_up_ms: Option<u64>,
    /// Whether it was taken: the record is there so that its change is passed over if it is
    /// read again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) taken: bool,
}

/// The file.
#[derive(Debug)]
pub(super) struct File(Database);

/// A message to be written, with its body unless that is in the file already.
pub(super) type Written = (u64, Record, Option<Bytes>);

impl File {
    /// Opens the file of a data directory, or makes it.
    pub(super) fn open(dir: &Path) -> Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let path = dir.join(FILE_NAME);
        let opened = || -> Result<Database> {
            let mut file = OpenOptions::new();
            let file = file.read(true).write(true).create(true).truncate(false).mode(0o600);
            Ok(Database::builder().create_with_backend(FileBackend::new(file.open(&path)?)?)?)
        };
        let database = opened().with_context(|| {
            let path = path.display();
            format!("can't open {path}, which has the messages of webhooks that were not taken; moved away, they are lost")
        })?;
        let txn = database.begin_write()?;
        txn.open_table(RECORDS)?;
        txn.open_table(BODIES)?;
        txn.commit()?;
        Ok(Self(database))
    }

    /// The messages of a webhook from a number on, up to `limit` that are `wanted`.
    pub(super) fn list(
        &self,
        webhook: &str,
        from: u64,
        limit: usize,
        wanted: impl Fn(&Record) -> bool,
    ) -> Result<Vec<(u64, Record)>> {
        let table = self.0.begin_read()?.open_table(RECORDS)?;
        let mut found = Vec::new();
        for entry in table.range((webhook, from)..=(webhook, u64::MAX))? {
            if found.len() == limit {
                break;
            }
            let (key, record) = entry?;
            let record: Record = serde_json::from_slice(record.value())?;
            if wanted(&record) {
                found.push((key.value().1, record));
            }
        }
        Ok(found)
    }

    /// The body of a message, if it is in the file.
    pub(super) fn body(&self, webhook: &str, number: u64) -> Result<Option<Bytes>> {
        let table = self.0.begin_read()?.open_table(BODIES)?;
        let body = table.get((webhook, number))?;
        Ok(body.map(|body| Bytes::copy_from_slice(body.value())))
    }

    /// Writes messages and removes others, in one step.
    pub(super) fn write(&self, webhook: &str, written: &[Written], gone: &[u64]) -> Result<()> {
        let txn = self.0.begin_write()?;
        {
            let mut records = txn.open_table(RECORDS)?;
            let mut bodies = txn.open_table(BODIES)?;
            for (number, record, body) in written {
                records.insert((webhook, *number), serde_json::to_vec(record)?.as_slice())?;
                if let Some(body) = body {
                    bodies.insert((webhook, *number), &**body)?;
                }
                if record.taken {
                    bodies.remove((webhook, *number))?;
                }
            }
            for number in gone {
                records.remove((webhook, *number))?;
                bodies.remove((webhook, *number))?;
            }
        }
        txn.commit()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::webhooks::message::Subject;

    #[test]
    fn what_is_written_is_there_again_and_each_webhooks_own() {
        let dir = tempfile::tempdir().expect("a directory");
        let record = |id: &str, given_up_ms| Record {
            head: Head {
                id: id.to_owned(),
                kind: "order.held".to_owned(),
                subject: Subject::OrderId("o".into()),
                at_ms: 1,
            },
            attempts: 3,
            waited_ms: 5,
            error: "answered 500".to_owned(),
            given_up_ms,
            taken: false,
        };
        let body = |text: &'static str| Some(Bytes::from_static(text.as_bytes()));
        let file = File::open(dir.path()).expect("made");
        let mode =
            std::fs::metadata(dir.path().join(FILE_NAME)).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "it is its owner's alone");
        assert!(File::open(dir.path()).is_err(), "it is open already");
        let messages = [(1, record("a", None), body("A")), (2, record("b", Some(9)), body("B"))];
        file.write("one", &messages, &[]).expect("written");
        file.write("two", &[(1, record("c", None), body("C"))], &[]).expect("written");
        file.write("one", &[(1, record("a", Some(7)), None)], &[]).expect("written");
        drop(file);

        let file = File::open(dir.path()).expect("there");
        let all = file.list("one", 0, 10, |_| true).expect("read");
        assert_eq!(all, [(1, record("a", Some(7))), (2, record("b", Some(9)))]);
        assert_eq!(file.list("one", 2, 10, |_| true).expect("read").len(), 1);
        assert_eq!(file.list("one", 0, 1, |_| true).expect("read").len(), 1);
        let waits = |record: &Record| record.given_up_ms.is_none();
        assert_eq!(file.list("two", 0, 10, waits).expect("read").len(), 1);
        assert_eq!(file.body("one", 1).expect("read"), body("A"));
        assert_eq!(file.body("two", 1).expect("read"), body("C"));
        file.write("one", &[], &[1]).expect("removed");
        assert_eq!(file.body("one", 1).expect("read"), None);
        assert_eq!(file.list("one", 0, 10, |_| true).expect("read").len(), 1);
    }
}
