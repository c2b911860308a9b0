//! The benchmark beside Redis and PostgreSQL, in a short form: it measures all of them,
//! finds their books right, and leaves nothing behind. How fast they are depends on the
//! machine, and is not looked at.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn benchmark() -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let built = test.ancestors().nth(2).expect("it lies in a folder of the build's");
    let benchmark = built.join("examples").join("load");
    assert!(benchmark.exists(), "build it: cargo build --example load");
    benchmark
}

fn told(ran: &Output) -> String {
    String::from_utf8_lossy(&ran.stdout).into_owned() + &String::from_utf8_lossy(&ran.stderr)
}

/// Processes that work somewhere in `dir`.
fn at_work_in(dir: &Path) -> Vec<PathBuf> {
    let processes = fs::read_dir("/proc").expect("there is one").flatten();
    let cwd = processes.filter_map(|process| fs::read_link(process.path().join("cwd")).ok());
    cwd.filter(|cwd| cwd.starts_with(dir)).collect()
}

#[test]
fn redis_and_postgresql_are_measured_beside_flux_with_their_books_right() {
    let dir = tempfile::tempdir().expect("a directory can be made");
    // PostgreSQL, as a user of its own, has to find its part of it.
    fs::set_permissions(dir.path(), Permissions::from_mode(0o711)).expect("it is ours");
    let ran = Command::new(benchmark())
        .args(["--beside", "redis,postgres", "--seconds", "0.2", "--turns", "1", "--data-dir"])
        .arg(dir.path())
        .output()
        .expect("it can be started");
    let told = told(&ran);
    assert!(ran.status.success(), "{told}");
    for row in [
        "Flux, one hot item",
        "Flux, place_all, packs of 100",
        "Redis, script  ",
        "Redis, script, packs of 100",
        "Redis everysec, script",
        "Redis everysec, packs of 100",
        "PostgreSQL, counter  ",
        "PostgreSQL, SKIP LOCKED tickets",
        "PostgreSQL, counter, packs of 100",
        "in each of 9 runs as many orders were answered as recorded and as units gone",
        "one hot item runs at",
        "place_all runs at",
    ] {
        assert!(told.lines().any(|line| line.starts_with(row)), "no {row:?} in\n{told}");
    }
    let left: Vec<_> = fs::read_dir(dir.path()).expect("it is there").flatten().collect();
    assert!(left.iter().all(|left| left.file_name() == "store"), "{left:?}");
    assert_eq!(at_work_in(dir.path()), Vec::<PathBuf>::new());
}

#[test]
fn a_service_that_is_missing_comes_with_the_command_that_installs_it() {
    let ran = Command::new(benchmark())
        .args(["--beside", "redis"])
        .env("PATH", "")
        .output()
        .expect("it can be started");
    assert!(!ran.status.success());
    let told = told(&ran);
    assert!(told.contains("apt-get install redis-server"), "{told}");
}
