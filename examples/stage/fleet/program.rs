//! The `flux-server` program, which another package builds: found beside the
//! running one, and built by cargo if it is missing, older than its sources or
//! without AWS.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

/// The program, built as the running one was. Blocks, for minutes if there is
/// much to build.
///
/// # Errors
/// When cargo can't build it.
pub fn flux_server() -> io::Result<PathBuf> {
    let odd = || io::Error::other("this program does not lie in a folder of cargo's");
    let own = std::env::current_exe()?;
    // target/PROFILE/examples/NAME or target/PROFILE/deps/NAME
    let profile = own.ancestors().nth(2).ok_or_else(odd)?;
    let target = profile.parent().ok_or_else(odd)?;
    let program = profile.join("flux-server");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    if is_current(&program, root)? {
        return Ok(program);
    }
    eprintln!("building flux-server …");
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.args(["build", "-p", "flux-server", "--features", "aws"]);
    build.current_dir(root).env("CARGO_TARGET_DIR", target);
    if profile.ends_with("release") {
        build.arg("--release");
    }
    match build.status()?.success() {
        true => Ok(program),
        false => Err(io::Error::other("cargo build -p flux-server --features aws failed")),
    }
}

fn is_current(program: &Path, root: &Path) -> io::Result<bool> {
    let Ok(built) = program.metadata().and_then(|file| file.modified()) else { return Ok(false) };
    for part in ["flux-core/src", "flux-aws/src", "flux-server/src"] {
        if newest(&root.join(part))? > built {
            return Ok(false);
        }
    }
    let version = Command::new(program).arg("--version").output()?;
    Ok(String::from_utf8_lossy(&version.stdout).contains("with aws"))
}

fn newest(folder: &Path) -> io::Result<SystemTime> {
    let mut newest = SystemTime::UNIX_EPOCH;
    for entry in folder.read_dir()? {
        let entry = entry?;
        newest = newest.max(match entry.file_type()?.is_dir() {
            true => self::newest(&entry.path())?,
            false => entry.metadata()?.modified()?,
        });
    }
    Ok(newest)
}
