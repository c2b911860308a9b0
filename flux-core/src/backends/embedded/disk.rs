//! A disk for tests that loses power and fills up. It keeps what was written
//! and, apart, what was synced; power loss keeps of the rest any sectors or none.

use std::io::{Error, ErrorKind, Result};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use redb::StorageBackend;

const SECTOR: usize = 512;

/// Numbers that look random, the same for the same seed (splitmix64).
#[derive(Debug, Clone)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}

#[derive(Debug)]
enum Unsynced {
    Write(u64, Vec<u8>),
    SetLen(u64),
}

/// A way for changes to fail.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// The power goes: this change and all that follow fail.
    PowerLoss,
    /// Changes fail with this kind of error from here on, syncs too.
    Fails(ErrorKind),
}

#[derive(Debug, Default)]
struct State {
    live: Vec<u8>,
    synced: Vec<u8>,
    unsynced: Vec<Unsynced>,
    changes_left: Option<u64>,
    fault: Option<Fault>,
    /// Whether syncs wait for the disk to be unstuck.
    stuck: bool,
}

/// A disk that loses power and fills up. Clones are the same disk.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk(Arc<(Mutex<State>, Condvar)>);

/// A disk whose syncs do not end.
pub(crate) struct Stuck(Disk);

impl Drop for Stuck {
    fn drop(&mut self) {
        self.0.lock().stuck = false;
        self.0.0.1.notify_all();
    }
}

fn resize(image: &mut Vec<u8>, len: u64) {
    image.resize(usize::try_from(len).expect("a small disk"), 0);
}

fn put(image: &mut Vec<u8>, offset: u64, data: &[u8]) {
    let start = usize::try_from(offset).expect("a small disk");
    if image.len() < start + data.len() {
        image.resize(start + data.len(), 0);
    }
    image[start..start + data.len()].copy_from_slice(data);
}

impl Disk {
    /// A disk with these contents, all synced.
    pub(crate) fn holding(image: Vec<u8>) -> Self {
        let state = State { live: image.clone(), synced: image, ..State::default() };
        Self(Arc::new((Mutex::new(state), Condvar::new())))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().expect("nothing panics under this lock")
    }

    /// Arms a fault that strikes after so many changes.
    pub(crate) fn fail_after(&self, changes: u64, fault: Fault) {
        let mut state = self.lock();
        state.changes_left = Some(changes);
        state.fault = Some(fault);
    }

    /// Lets all changes succeed again.
    pub(crate) fn mend(&self) {
        self.lock().changes_left = None;
    }

    /// Makes syncs wait until the answer is dropped.
    pub(crate) fn stick(&self) -> Stuck {
        self.lock().stuck = true;
        Stuck(self.clone())
    }

    /// Whether the fault struck.
    pub(crate) fn failed(&self) -> bool {
        self.lock().changes_left == Some(0)
    }

    /// The contents as the program last saw them.
    pub(crate) fn live(&self) -> Vec<u8> {
        self.lock().live.clone()
    }

    /// Contents that may be found after the power went.
    pub(crate) fn after_power_loss(&self, dice: &mut Dice) -> Vec<u8> {
        let state = self.lock();
        let mut image = state.synced.clone();
        // Some disks lose nearly all of their cache, some nearly nothing.
        let odds = 1 + dice.roll(8);
        for change in &state.unsynced {
            match change {
                Unsynced::SetLen(len) if dice.roll(8) < odds => resize(&mut image, *len),
                Unsynced::SetLen(_) => {}
                Unsynced::Write(offset, data) => {
                    for (index, sector) in data.chunks(SECTOR).enumerate() {
                        if dice.roll(8) < odds {
                            put(&mut image, offset + (index * SECTOR) as u64, sector);
                        }
                    }
                }
            }
        }
        image
    }
}

impl State {
    fn change(&mut self) -> Result<()> {
        if let Some(left) = &mut self.changes_left {
            if *left == 0 {
                return Err(match self.fault {
                    Some(Fault::Fails(kind)) => Error::from(kind),
                    _ => Error::other("the power is off"),
                });
            }
            *left -= 1;
        }
        Ok(())
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> Result<u64> {
        Ok(self.lock().live.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        let state = self.lock();
        let start = usize::try_from(offset).expect("a small disk");
        let found = state.live.get(start..start + out.len());
        out.copy_from_slice(found.ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        let mut state = self.lock();
        state.change()?;
        resize(&mut state.live, len);
        state.unsynced.push(Unsynced::SetLen(len));
        Ok(())
    }

    fn sync_data(&self) -> Result<()> {
        let state = self.0.1.wait_while(self.lock(), |state| state.stuck);
        let mut state = state.expect("nothing panics under this lock");
        state.change()?;
        let state = &mut *state;
        for change in state.unsynced.drain(..) {
            match change {
                Unsynced::SetLen(len) => resize(&mut state.synced, len),
                Unsynced::Write(offset, data) => put(&mut state.synced, offset, &data),
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        let mut state = self.lock();
        state.change()?;
        put(&mut state.live, offset, data);
        state.unsynced.push(Unsynced::Write(offset, data.to_vec()));
        Ok(())
    }
}
