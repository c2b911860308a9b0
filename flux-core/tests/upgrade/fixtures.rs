//! The fixtures: one file of each version, compressed.

use std::fs::File;
use std::io::copy;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use tempfile::TempDir;

/// Each fixture's name, and whether rejected orders were forgotten in it.
pub(crate) const FIXTURES: &[(&str, bool)] = &[("format-1", false), ("format-2", true)];

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/upgrade/{name}.redb.gz"))
}

/// A directory with the fixture in it, as the version before left it.
pub(crate) fn unpack(name: &str) -> TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    let mut file = File::create(dir.path().join("flux.redb")).expect("a file");
    let packed = File::open(path(name)).expect(name);
    copy(&mut GzDecoder::new(packed), &mut file).expect("it is whole");
    dir
}

/// Keeps the file of a directory as a fixture.
pub(crate) fn pack(dir: &Path, name: &str) {
    let mut file = File::open(dir.join("flux.redb")).expect("a file");
    let packed = File::create(path(name)).expect("a file");
    let mut packed = GzEncoder::new(packed, Compression::best());
    copy(&mut file, &mut packed).expect("it is written");
    packed.finish().and_then(|packed| packed.sync_all()).expect("it is written");
}
