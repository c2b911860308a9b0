//! Files that earlier versions wrote, opened by this one: everything is there, and the
//! sale goes on.
//!
//! The fixtures are files as those versions left them, compressed. To add one of the
//! present version: `FLUX_WRITE_FIXTURES=1 cargo test -p flux-core --test upgrade`.

#![cfg(feature = "embedded")]

mod fixtures;
mod story;

use flux_core::backends::embedded::Embedded;

use fixtures::{FIXTURES, unpack};
use story::{see, tell};

/// Writes the story's files under the name of the present format.
#[tokio::test]
async fn fixtures_are_written_when_asked_for() {
    let Some(format) = std::env::var_os("FLUX_WRITE_FIXTURES") else { return };
    for gaps in [false, true] {
        let dir = tempfile::tempdir().expect("a directory");
        tell(dir.path(), gaps).await;
        let name = format!("{}{}", format.display(), if gaps { "-gaps" } else { "" });
        fixtures::pack(dir.path(), &name);
    }
}

/// All that the story left is found in a file of any version, as in one of today.
#[tokio::test]
async fn a_file_of_an_earlier_version_has_all_that_was_written() {
    for (name, gaps) in FIXTURES {
        let (old, new) = (unpack(name), tempfile::tempdir().expect("a directory"));
        let told = tell(new.path(), *gaps).await.without_later_fields();
        let backend = Embedded::builder(old.path()).open().expect(name).backend();
        assert_eq!(see(&backend).await, told, "{name}");
    }
}
