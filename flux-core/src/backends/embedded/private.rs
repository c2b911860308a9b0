//! The store's directory and file, which are their owner's alone: orders name
//! buyers, and who can write there can put another store in the place of this one.

#[cfg(unix)]
use std::fs::Permissions;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
#[cfg(unix)]
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

#[cfg(unix)]
const DIR_MODE: u32 = 0o700;
#[cfg(unix)]
const FILE_MODE: u32 = 0o600;
/// Whatever the group and the rest of the world may do.
#[cfg(unix)]
const OTHERS: u32 = 0o077;

/// Makes a directory, and those above it that are missing.
pub(super) fn make_dir(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    builder.mode(DIR_MODE);
    builder.create(path)
}

/// Makes an empty file.
pub(super) fn make_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    options.mode(FILE_MODE);
    options.open(path)
}

/// Closes the store's file to others, and says so. A directory that is open to
/// them stays as it is, as somebody may share it on purpose: that is said too.
#[cfg(unix)]
pub(super) fn close_to_others(dir: &Path, file: &Path) -> io::Result<()> {
    let open = |path: &Path| -> io::Result<Option<u32>> {
        let mode = std::fs::metadata(path)?.permissions().mode() & 0o777;
        Ok((mode & OTHERS != 0).then_some(mode))
    };
    if file.is_file()
        && let Some(mode) = open(file)?
    {
        let closed = std::fs::set_permissions(file, Permissions::from_mode(FILE_MODE));
        let file = file.display();
        match closed {
            Ok(()) => {
                tracing::warn!("{file} was open to others ({mode:03o}), and is so no more");
            }
            Err(error) => {
                tracing::warn!("{file} is open to others ({mode:03o}), and stays so: {error}");
            }
        }
    }
    if let Some(mode) = open(dir)? {
        let dir = dir.display();
        tracing::warn!("{dir} is open to others ({mode:03o}); close it to them: chmod 700 {dir}");
    }
    Ok(())
}

/// Elsewhere access is ruled by what the directory inherits.
#[cfg(not(unix))]
pub(super) fn close_to_others(_dir: &Path, _file: &Path) -> io::Result<()> {
    Ok(())
}
