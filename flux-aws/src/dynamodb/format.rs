//! The format row: the mark of a table that is ours, and how its index of holds is spread.
//!
//! The index is spread over a number of keys, lest one take every write. Which of them an
//! order has is a keyed hash of its id, as clients choose ids and could aim at one key. The
//! number and the secret are made with the table and stay.

use std::fmt;
use std::ops::Range;

use flux_core::OrderId;
use flux_core::seams::SeamError;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tokio::sync::OnceCell;
use uuid::Uuid;

use super::rows::{Key, Row, SERVICE, bytes, damaged, get_number, number, opt_bytes};
use super::table::{Table, Written};

/// The format of a new table, whose orders' rows may be notes: an older store would take
/// one for a decision.
const FORMAT: u64 = 3;
/// The format without notes. An older store does not look into all keys of its index.
const FORMAT_OF_SECRET: u64 = 2;
/// The format whose index has 8 keys, by the remainder of the id.
const FORMAT_OF_REMAINDERS: u64 = 1;
/// Keys in the index of a new table: 32,000 changes a second. That is twice what a table's
/// quota of 40,000 write units leaves for holds, which take 5 units for two changes; and
/// each search of the index is a query of each.
const DUE_KEYS: u64 = 32;
/// The most keys a table can have, so that a search stays one.
const DUE_KEYS_MAX: u64 = 1_024;

/// The keys of a table's index of holds.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct DueKeys {
    count: u64,
    /// None in a table of the older format.
    secret: Option<Vec<u8>>,
}

impl fmt::Debug for DueKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DueKeys").field("count", &self.count).finish_non_exhaustive()
    }
}

impl DueKeys {
    /// Those of a table of the older format.
    pub(super) const REMAINDERS: Self = Self { count: 8, secret: None };

    fn new() -> Self {
        let secret = [Uuid::new_v4(), Uuid::new_v4()];
        let secret = secret.iter().flat_map(Uuid::as_bytes).copied().collect();
        Self { count: DUE_KEYS, secret: Some(secret) }
    }

    fn read(row: &Row) -> Result<Self, SeamError> {
        let count = get_number(row, "due_keys")?;
        if !(1..=DUE_KEYS_MAX).contains(&count) {
            return Err(damaged(row, "due_keys"));
        }
        let secret = opt_bytes(row, "due_secret")?.ok_or_else(|| damaged(row, "due_secret"))?;
        Ok(Self { count, secret: Some(secret.to_vec()) })
    }

    /// That of an order while its money is owed: in the same index, under keys below 0, which
    /// no search for holds looks at.
    pub(super) fn of_debt(&self, order: OrderId) -> i64 {
        -1 - self.of(order) as i64
    }

    /// All of those.
    pub(super) fn of_debts(&self) -> impl Iterator<Item = i64> {
        self.all().map(|key| -1 - key as i64)
    }

    /// The number of them.
    pub(super) fn count(&self) -> usize {
        self.count as usize
    }

    /// All of them.
    pub(super) fn all(&self) -> Range<u64> {
        0..self.count
    }

    /// That of an order.
    pub(super) fn of(&self, order: OrderId) -> u64 {
        let id = order.as_uuid();
        let hash = match &self.secret {
            None => id.as_u128(),
            Some(secret) => {
                let mac = Hmac::<Sha256>::new_from_slice(secret).expect("it takes any length");
                let mac = mac.chain_update(id.as_bytes()).finalize().into_bytes();
                u128::from_le_bytes(mac[..16].try_into().expect("32 bytes"))
            }
        };
        (hash % u128::from(self.count)) as u64
    }
}

/// The format row of a table, read once.
#[derive(Debug)]
pub(super) struct Format {
    table: Table,
    known: OnceCell<Known>,
}

/// What the format row says.
#[derive(Debug, Clone)]
struct Known {
    due_keys: DueKeys,
    has_notes: bool,
}

impl Format {
    pub(super) fn new(table: Table) -> Self {
        Self { table, known: OnceCell::new() }
    }

    /// The keys of the index. The first time they are read, and a new table is marked as
    /// ours.
    ///
    /// # Errors
    /// [`SeamError::Broken`]: a store like this one does not know the table's format.
    pub(super) async fn due_keys(&self) -> Result<&DueKeys, SeamError> {
        Ok(&self.known().await?.due_keys)
    }

    /// Whether accepted orders may be noted in the table. In one that was made before there
    /// were notes processes may be at work that would lose what is noted.
    pub(super) async fn has_notes(&self) -> Result<bool, SeamError> {
        Ok(self.known().await?.has_notes)
    }

    async fn known(&self) -> Result<&Known, SeamError> {
        self.known.get_or_try_init(|| self.read_or_mark()).await
    }

    async fn read_or_mark(&self) -> Result<Known, SeamError> {
        if let Some(row) = self.table.get(Key::format()).await? {
            return self.read(&row);
        }
        let keys = DueKeys::new();
        let secret = keys.secret.clone().unwrap_or_default();
        let mark = self
            .table
            .update(Key::format())
            .update_expression("SET version = :version, due_keys = :keys, due_secret = :secret")
            .condition_expression("attribute_not_exists(pk)")
            .expression_attribute_values(":version", number(FORMAT))
            .expression_attribute_values(":keys", number(keys.count))
            .expression_attribute_values(":secret", bytes(secret));
        match self.table.write(mark).await? {
            Written::Row(_) => Ok(Known { due_keys: keys, has_notes: true }),
            // Somebody else was quicker, and the table has that secret.
            Written::Not(Some(row)) => self.read(&row),
            Written::Not(None) => Err(SeamError::unavailable(SERVICE)),
        }
    }

    fn read(&self, row: &Row) -> Result<Known, SeamError> {
        let known = |due_keys, has_notes| Known { due_keys, has_notes };
        match get_number(row, "version")? {
            FORMAT => Ok(known(DueKeys::read(row)?, true)),
            FORMAT_OF_SECRET => Ok(known(DueKeys::read(row)?, false)),
            FORMAT_OF_REMAINDERS => Ok(known(DueKeys::REMAINDERS, false)),
            other => {
                let name = &self.table.name;
                let reason = format!(
                    "table {name:?} is of format {other}, this reads up to format {FORMAT}"
                );
                Err(SeamError::broken(SERVICE, reason))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn id(n: u128) -> OrderId {
        OrderId::from_uuid(Uuid::from_u128(n))
    }

    #[test]
    fn ids_that_aim_at_one_key_are_spread_by_a_secret_of_the_table() {
        let (keys, others) = (DueKeys::new(), DueKeys::new());
        let aimed: Vec<OrderId> = (0..1_000).map(|n| id(n * 8 * 32)).collect();
        let met: HashSet<u64> = aimed.iter().map(|id| keys.of(*id)).collect();
        assert_eq!(met, keys.all().collect(), "all of them");
        assert!(aimed.iter().any(|id| keys.of(*id) != others.of(*id)));
        assert_ne!(keys, others);
    }

    #[test]
    fn an_older_table_keeps_its_eight_keys() {
        let keys = DueKeys::REMAINDERS;
        assert_eq!(keys.all(), 0..8);
        for n in [0, 7, 8, 21, u128::MAX] {
            assert_eq!(u128::from(keys.of(id(n))), n % 8);
        }
    }

    #[test]
    fn no_log_shows_the_secret() {
        let keys = DueKeys { count: 32, secret: Some(vec![77; 32]) };
        assert!(!format!("{keys:?}").contains("77"));
    }
}
