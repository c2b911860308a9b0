//! The operator's token where none is configured: made at the first start, and kept in a
//! file of the data directory.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tracing::{info, warn};

use crate::setup::config::{Command, Config};
use crate::setup::secret::{BYTES_MAX, Secret};

const FILE_NAME: &str = "operator-token";
/// 256 bits.
const RANDOM_BYTES: usize = 32;
const OWNER_ALONE: u32 = 0o600;

/// Gives `serve` the operator's token of its data directory if it has none, and says where
/// that is. Blocks for some disk accesses.
///
/// # Errors
/// When the file can't be made, or has what no request can carry.
pub fn provide(config: &mut Config) -> Result<()> {
    match config.command {
        Command::Serve if config.operator_token.is_none() => {
            let file = config.data_dir.join(FILE_NAME);
            let token = read_or_make(&config.data_dir, &file).with_context(|| {
                let file = file.display();
                format!("FLUX_OPERATOR_TOKEN is not set, and there can be no token in {file}")
            })?;
            info!("operator calls need the token in {}", file.display());
            config.operator_token = Some(token);
        }
        Command::Api if config.operator_token.is_none() => {
            warn!("FLUX_OPERATOR_TOKEN is not set: every operator call is answered 401");
        }
        _ => {}
    }
    Ok(())
}

/// The operator's token, configured or in the data directory.
///
/// # Errors
/// When there is none.
pub fn known(config: &Config) -> Result<Secret> {
    if let Some(token) = &config.operator_token {
        return Ok(token.clone());
    }
    let file = config.data_dir.join(FILE_NAME);
    read(&file).with_context(|| {
        let file = file.display();
        format!("FLUX_OPERATOR_TOKEN is not set, and there is no token in {file}")
    })
}

fn read_or_make(dir: &Path, file: &Path) -> Result<Secret> {
    if !fs::exists(file)? {
        make(dir, file)?;
    }
    read(file)
}

fn read(file: &Path) -> Result<Secret> {
    let found = fs::metadata(file)?;
    // Else one that is a pipe would be waited for.
    ensure!(found.is_file(), "it is no file");
    let mode = found.permissions().mode();
    if mode & 0o077 != 0 {
        let kept = fs::set_permissions(file, Permissions::from_mode(OWNER_ALONE));
        let now = if kept.is_ok() { "it is its owner's alone now" } else { "close it to them" };
        warn!(
            "{} was open to others ({:03o}); {now}, and delete it for a new token if they may have read it",
            file.display(),
            mode & 0o777
        );
    }
    let mut line = String::new();
    File::open(file)?.take(BYTES_MAX as u64 + 2).read_to_string(&mut line)?;
    let token = line.strip_suffix('\n').unwrap_or(&line);
    Secret::new(FILE_NAME, token).context("delete it, and a new one is made at the next start")
}

/// Makes the file whole or not at all. If another process made it meanwhile, that one stays.
fn make(dir: &Path, file: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let mut random = [0; RANDOM_BYTES];
    getrandom::fill(&mut random)?;
    // Its owner's alone from the start.
    let mut draft = tempfile::Builder::new().prefix("operator-token.").tempfile_in(dir)?;
    writeln!(draft, "{}", URL_SAFE_NO_PAD.encode(random))?;
    draft.as_file().sync_all()?;
    match draft.persist_noclobber(file) {
        Err(there) if there.error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(failed) => Err(failed.error),
        // The name must outlive a power loss as well as the contents.
        Ok(_) => File::open(dir)?.sync_all(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(dir: &Path) -> Result<String> {
        read_or_make(dir, &dir.join(FILE_NAME)).map(|token| token.reveal().to_owned())
    }

    #[test]
    fn it_is_made_once_for_its_owner_alone_and_read_from_then_on() {
        let home = tempfile::tempdir().expect("a directory");
        let dir = home.path().join("new").join("data");
        let made = token(&dir).expect("a token");
        let url_safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        assert!(made.len() >= 43 && made.bytes().all(url_safe), "{made}");
        let file = dir.join(FILE_NAME);
        assert_eq!(fs::read_to_string(&file).expect("kept"), format!("{made}\n"));
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(&file), mode(&dir)), (0o600, 0o700));
        assert_eq!(token(&dir).expect("a token"), made);
        assert_eq!(fs::read_dir(&dir).expect("a directory").count(), 1, "no draft is left");
        let other = tempfile::tempdir().expect("a directory");
        assert_ne!(token(other.path()).expect("a token"), made);
    }

    #[test]
    fn many_that_start_at_once_have_one_token() {
        let dir = tempfile::tempdir().expect("a directory");
        let tokens: Vec<_> = std::thread::scope(|scope| {
            let starting: Vec<_> = (0..8).map(|_| scope.spawn(|| token(dir.path()))).collect();
            starting.into_iter().map(|one| one.join().expect("no panic").expect("one")).collect()
        });
        assert!(tokens.iter().all(|token| *token == tokens[0]), "{tokens:?}");
    }

    #[test]
    fn one_that_is_there_is_used_if_it_can_be() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join(FILE_NAME);
        fs::write(&file, "mine").expect("written");
        fs::set_permissions(&file, Permissions::from_mode(0o644)).expect("opened to all");
        assert_eq!(token(dir.path()).expect("a token"), "mine");
        assert_eq!(fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o600);
        for (text, says) in [
            ("", "operator-token: is empty"),
            ("\n", "operator-token: is empty"),
            ("s3cret \n", "white space at its end"),
            ("s3cret\n\n", "a line end at its end"),
            ("s3cret\ntwo\n", "a line end within it"),
            ("\u{feff}s3cret\n", "without width at its start"),
        ] {
            fs::write(&file, text).expect("written");
            let wrong = format!("{:#}", token(dir.path()).expect_err(text));
            assert!(wrong.contains(says) && wrong.contains("delete it"), "{text:?}: {wrong}");
            assert!(!wrong.contains("s3cret"), "{wrong}");
        }
        fs::remove_file(&file).expect("removed");
        fs::create_dir(&file).expect("made");
        assert!(token(dir.path()).expect_err("a directory").to_string().contains("no file"));
    }
}
