//! The promises of a lock manager, for it to be of use. Nothing rests on it but
//! throughput, so one that fails here sells no unit twice.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::check::{Check, Checked, Failure, PATIENCE, checks, ensure, same};
use super::store::shop::item;
use crate::protocol::ItemId;
use crate::seams::{Lease, LockManager, Member};

/// A lease that does not end during a check.
const LONG: Duration = Duration::from_secs(60);
const NONE: Duration = Duration::ZERO;

/// The manager, and the time of a lease whose end a check waits for.
pub(super) type Subject<L> = (Arc<L>, Duration);

pub(super) fn all<L>() -> Vec<Check<Subject<L>>>
where
    L: LockManager + ?Sized,
{
    checks! {
        "locks" {
            a_key_has_one_holder,
            all_keys_or_none,
            what_is_free_or_none,
            what_others_have_is_wanted,
            a_wait_is_bounded,
            a_waiter_gets_what_is_released,
            a_lease_ends,
            a_renewed_lease_lasts,
            only_what_is_ours_is_released,
            a_lost_lease_is_reported,
            a_crowd_takes_turns,
            members_are_those_who_joined_and_did_not_leave,
            a_member_that_is_not_renewed_is_forgotten,
        }
    }
}

fn keys(names: &[&str]) -> Vec<ItemId> {
    names.iter().copied().map(item).collect()
}

async fn take<L>(locks: &L, names: &[&str], ttl: Duration, wait: Duration) -> Checked<Lease>
where
    L: LockManager + ?Sized,
{
    let lease = locks.acquire(&keys(names), ttl, wait).await?;
    let lease = lease.ok_or_else(|| Failure::new(format!("no lease on {names:?}")))?;
    let mut sorted = keys(names);
    sorted.sort();
    same("the keys of a lease, sorted", &lease.keys, &sorted)?;
    Ok(lease)
}

async fn busy<L: LockManager + ?Sized>(locks: &L, names: &[&str]) -> Checked {
    let lease = locks.acquire(&keys(names), LONG, NONE).await?;
    ensure!(lease.is_none(), "{names:?} was leased twice: {lease:?}");
    Ok(())
}

async fn a_key_has_one_holder<L>((locks, _): Subject<L>) -> Checked
where
    L: LockManager + ?Sized,
{
    let first = take(&*locks, &["a"], LONG, NONE).await?;
    busy(&*locks, &["a"]).await?;
    let other = take(&*locks, &["b"], LONG, NONE).await?;
    ensure!(first.owner != other.owner, "two leases have one owner");
    locks.release(&first).await?;
    let next = take(&*locks, &["a"], LONG, NONE).await?;
    ensure!(first.owner != next.owner, "two leases have one owner");
    busy(&*locks, &["b"]).await
}

async fn all_keys_or_none<L>((locks, _): Subject<L>) -> Checked
where
    L: LockManager + ?Sized,
{
    let middle = take(&*locks, &["b"], LONG, NONE).await?;
    busy(&*locks, &["c", "b", "a"]).await?;
    // The keys that were free stayed free.
    let (a, c) =
        (take(&*locks, &["a"], LONG, NONE).await?, take(&*locks, &["c"], LONG, NONE).await?);
    for lease in [&a, &middle, &c] {
        busy(&*locks, &["c", "a", "b"]).await?;
        locks.release(lease).await?;
    }
    let all = take(&*locks, &["c", "a", "b"], LONG, NONE).await?;
    for name in ["a", "b", "c"] {
        busy(&*locks, &[name]).await?;
    }
    locks.release(&all).await?;
    for name in ["a", "b", "c"] {
        take(&*locks, &[name], LONG, NONE).await?;
    }
    Ok(())
}

async fn what_is_free_or_none<L>((locks, _): Subject<L>) -> Checked
where
    L: LockManager + ?Sized,
{
    let since = Instant::now();
    let middle = take(&*locks, &["b"], LONG, NONE).await?;
    let free = locks.acquire_free(&keys(&["c", "b", "a"]), LONG).await?;
    if let Some(free) = &free {
        same("the keys that were free, sorted", &free.keys, &keys(&["a", "c"]))?;
        ensure!(free.owner != middle.owner, "two leases have one owner");
        busy(&*locks, &["a"]).await?;
        busy(&*locks, &["c"]).await?;
        locks.release(free).await?;
    }
    busy(&*locks, &["b"]).await?;
    let none = locks.acquire_free(&keys(&["b"]), LONG).await?;
    ensure!(none.is_none(), "b was leased twice");
    locks.release(&middle).await?;
    let all = locks.acquire_free(&keys(&["c", "b", "a"]), LONG).await?;
    let all = all.ok_or_else(|| Failure::new("no lease on what is free".to_owned()))?;
    same("all keys, sorted", &all.keys, &keys(&["a", "b", "c"]))?;
    ensure!(locks.renew(&all, LONG).await?, "a lease on what was free can't be renewed");
    let took = since.elapsed();
    ensure!(took < PATIENCE, "nothing was waited for, and it took {took:?}");
    Ok(())
}

/// Unless nobody hears of it, which is no fault.
async fn what_others_have_is_wanted<L>((locks, _): Subject<L>) -> Checked
where
    L: LockManager + ?Sized,
{
    let lease = take(&*locks, &["b"], LONG, NONE).await?;
    let mut wanted = locks.wanted();
    let since = Instant::now();
    loop {
        if let Some(free) = locks.acquire_free(&keys(&["c", "b", "a"]), LONG).await? {
            locks.release(&free).await?;
        }
        match timeout(PATIENCE / 10, wanted.recv()).await {
            Ok(Ok(heard)) => {
                same("the keys that are wanted", &heard.to_vec(), &keys(&["b"]))?;
                break;
            }
            Ok(Err(RecvError::Closed)) => break,
            Ok(Err(RecvError::Lagged(_))) | Err(_) => {
                ensure!(since.elapsed() < PATIENCE, "nobody heard of a key that is wanted");
            }
        }
    }
    locks.release(&lease).await?;
    Ok(())
}

async fn a_wait_is_bounded<L>((locks, _): Subject<L>) -> Checked
where
    L: LockManager + ?Sized,
{
    let _held = take(&*locks, &["a"], LONG, NONE).await?;
    for wait in [NONE, Duration::from_millis(100)] {
        let since = Instant::now();
        let lease = locks.acquire(&keys(&["a", "b"]), LONG, wait).await?;
        let took = since.elapsed();
        ensure!(lease.is_none(), "a was leased twice");
        ensure!(took < wait + PATIENCE, "a wait of up to {wait:?} took {took:?}");
        ensure!(took >= wait * 3 / 4, "a wait of {wait:?} was given up after {took:?}");
    }
    take(&*locks, &["b"], LONG, NONE).await?;
    Ok(())
}

async fn a_waiter_gets_what_is_released<L>((locks, _): Subject<L>) -> Checked
where
    L: LockManager + ?Sized,
{
    let held = take(&*locks, &["a"], LONG, NONE).await?;
    let (waiter, since) = (locks.clone(), Instant::now());
    let waiting =
        tokio::spawn(async move { take(&*waiter, &["b", "a"], LONG, PATIENCE * 3).await });
    sleep(Duration::from_millis(20)).await;
    locks.release(&held).await?;
    waiting.await.map_err(|error| Failure::new(error.to_string()))??;
    let took = since.elapsed();
    ensure!(took < PATIENCE, "a released key was leased after {took:?}");
    busy(&*locks, &["a"]).await
}

async fn a_lease_ends<L>((locks, ttl): Subject<L>) -> Checked
where
    L: LockManager + ?Sized,
{
    let since = Instant::now();
    take(&*locks, &["a", "b"], ttl, NONE).await?;
    take(&*locks, &["b"], LONG, ttl + PATIENCE).await?;
    let took = since.elapsed();
    ensure!(took >= ttl * 3 / 4, "a lease of {ttl:?} ended after {took:?}");
    take(&*locks, &["a"], LONG, ttl + PATIENCE).await?;
    Ok(())
}

async fn a_renewed_lease_lasts<L>((locks, ttl): Subject<L>) -> Checked
where
    L: LockManager + ?Sized,
{
    // A machine that sleeps past the end can't tell; it tries again.
    for name in ["a", "b", "c", "d", "e"] {
        let mut since = Instant::now();
        let lease = take(&*locks, &[name], ttl, NONE).await?;
        for _ in 0..3 {
            sleep(ttl * 5 / 8).await;
            let renewing = Instant::now();
            let ours = locks.renew(&lease, ttl).await?;
            let late = since.elapsed() >= ttl;
            ensure!(ours || late, "a live lease could not be renewed");
            if !ours {
                break;
            }
            since = renewing;
        }
        let taken = locks.acquire(&keys(&[name]), LONG, NONE).await?;
        let late = since.elapsed() >= ttl;
        ensure!(taken.is_none() || late, "a renewed lease was given away");
        if !late {
            take(&*locks, &[name], LONG, ttl + PATIENCE).await?;
            return Ok(());
        }
    }
    Err(Failure::new("the machine was too slow for this lease; give a longer one"))
}

async fn only_what_is_ours_is_released<L>((locks, ttl): Subject<L>) -> Checked
where
    L: LockManager + ?Sized,
{
    let lost = take(&*locks, &["a", "b"], ttl, NONE).await?;
    let next = take(&*locks, &["a"], LONG, ttl + PATIENCE).await?;
    locks.release(&lost).await?;
    busy(&*locks, &["a"]).await?;
    take(&*locks, &["b"], LONG, ttl + PATIENCE).await?;
    // Nor do a stranger's name or a second release free anything.
    locks.release(&Lease { owner: "a stranger".into(), ..next.clone() }).await?;
    busy(&*locks, &["a"]).await?;
    locks.release(&next).await?;
    let last = take(&*locks, &["a"], LONG, NONE).await?;
    locks.release(&next).await?;
    busy(&*locks, &["a"]).await?;
    locks.release(&last).await?;
    take(&*locks, &["a"], LONG, NONE).await?;
    Ok(())
}

async fn a_lost_lease_is_reported<L>((locks, ttl): Subject<L>) -> Checked
where
    L: LockManager + ?Sized,
{
    let live = take(&*locks, &["z"], LONG, NONE).await?;
    same("renewing a live lease", &locks.renew(&live, LONG).await?, &true)?;
    let lost = take(&*locks, &["a", "b"], ttl, NONE).await?;
    let next = take(&*locks, &["b"], LONG, ttl + PATIENCE).await?;
    same("renewing a lease that lost a key", &locks.renew(&lost, ttl).await?, &false)?;
    busy(&*locks, &["b"]).await?;
    same("renewing what the next holds", &locks.renew(&next, LONG).await?, &true)?;
    locks.release(&next).await?;
    same("renewing a released lease", &locks.renew(&next, LONG).await?, &false)?;
    // Another has it, and its lease is live: still not ours.
    let lost = take(&*locks, &["c"], ttl, NONE).await?;
    take(&*locks, &["c"], LONG, ttl + PATIENCE).await?;
    same("renewing what another took", &locks.renew(&lost, LONG).await?, &false)?;
    take(&*locks, &["b"], LONG, NONE).await?;
    Ok(())
}

/// Overlapping keys, asked for in any order: no deadlock, no two owners.
async fn a_crowd_takes_turns<L>((locks, _): Subject<L>) -> Checked
where
    L: LockManager + ?Sized,
{
    const SETS: [&[&str]; 5] = [&["a", "b"], &["b", "c"], &["c", "a"], &["b", "a", "c"], &["c"]];
    let holders: Arc<Mutex<HashMap<ItemId, u32>>> = Arc::default();
    let mut tasks = JoinSet::new();
    for worker in 0..10 {
        let (locks, holders) = (locks.clone(), holders.clone());
        tasks.spawn(async move {
            for turn in 0..5 {
                let names = SETS[(worker + turn) % SETS.len()];
                let lease = take(&*locks, names, LONG, LONG).await?;
                let count = |change: fn(u32) -> u32| {
                    let mut holders = holders.lock().unwrap_or_else(PoisonError::into_inner);
                    let change = |key| {
                        let count = holders.entry(item(key)).or_default();
                        *count = change(*count);
                        *count
                    };
                    names.iter().copied().map(change).max().unwrap_or_default()
                };
                let most = count(|holders| holders + 1);
                ensure!(most == 1, "{most} leases on one of {names:?}");
                sleep(Duration::from_millis(1)).await;
                count(|holders| holders - 1);
                locks.release(&lease).await?;
            }
            Checked::Ok(())
        });
    }
    while let Some(result) = tasks.join_next().await {
        result.map_err(|error| Failure::new(error.to_string()))??;
    }
    Ok(())
}

async fn members<L>(locks: &L, member: &str, ttl: Duration) -> Checked<Vec<String>>
where
    L: LockManager + ?Sized,
{
    let members = locks.join(member, ttl).await?;
    for Member { name, ends_in } in &members {
        ensure!(*ends_in <= ttl.max(LONG), "{name} is a member for {ends_in:?}");
    }
    let own = members.iter().find(|counted| counted.name == member);
    let ends_in = own.map(|own| own.ends_in);
    ensure!(ends_in >= Some(ttl / 2), "who just joined for {ttl:?} is counted for {ends_in:?}");
    let mut names: Vec<String> = members.into_iter().map(|member| member.name).collect();
    names.sort();
    Ok(names)
}

async fn members_are_those_who_joined_and_did_not_leave<L>((locks, _): Subject<L>) -> Checked
where
    L: LockManager + ?Sized,
{
    let expect = |what, members: Vec<String>, expected: &[&str]| {
        same(what, &members, &expected.iter().map(ToString::to_string).collect())
    };
    expect("members, of whom the first joined", members(&*locks, "b", LONG).await?, &["b"])?;
    expect("members, joined by another", members(&*locks, "a", LONG).await?, &["a", "b"])?;
    expect("members after a renewal", members(&*locks, "b", LONG).await?, &["a", "b"])?;
    locks.leave("b").await?;
    locks.leave("b").await?;
    locks.leave("a stranger").await?;
    expect("members, left by one", members(&*locks, "a", LONG).await?, &["a"])?;
    expect("members, joined again", members(&*locks, "b", LONG).await?, &["a", "b"])?;
    // Nor are they in the way of leases, or leases in theirs.
    take(&*locks, &["a"], LONG, NONE).await?;
    Ok(())
}

async fn a_member_that_is_not_renewed_is_forgotten<L>((locks, ttl): Subject<L>) -> Checked
where
    L: LockManager + ?Sized,
{
    // A machine that sleeps past the end can't tell; it tries again.
    for name in ["a", "b", "c", "d", "e"] {
        let (mut renewed, mut late) = (Instant::now(), false);
        for _ in 0..3 {
            renewed = Instant::now();
            members(&*locks, name, ttl).await?;
            sleep(ttl * 5 / 8).await;
            let counted = members(&*locks, "another", LONG).await?.iter().any(|m| m == name);
            late = late || renewed.elapsed() >= ttl;
            ensure!(counted || late, "a member was forgotten before its time");
        }
        if late {
            continue;
        }
        while members(&*locks, "another", LONG).await?.iter().any(|m| m == name) {
            let age = renewed.elapsed();
            ensure!(age < ttl + PATIENCE, "a member for {ttl:?} is one after {age:?}");
            sleep(ttl / 8).await;
        }
        let age = renewed.elapsed();
        ensure!(age >= ttl * 3 / 4, "a member for {ttl:?} was forgotten after {age:?}");
        return same(
            "who stayed",
            &members(&*locks, "another", LONG).await?,
            &vec!["another".to_owned()],
        );
    }
    Err(Failure::new("the machine was too slow for this membership; give a longer one"))
}
