//! Leases: a key each, with its owner as the value and its end as the expiry.
//! All keys of a lease are looked at and written by one script, so by nobody
//! else in between. Members are a sorted set, by the ends of their times.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use flux_core::ItemId;
use flux_core::backoff::Backoff;
use flux_core::seams::{Lease, LockManager, Member, SeamError, WantedReceiver};
use redis::Script;
use tokio::sync::broadcast;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::Redis;
use super::ear::{Ear, Heard, note_junk};

/// Pauses between tries of a key that somebody else holds.
const PAUSE: Backoff = Backoff::new(Duration::from_millis(5), Duration::from_millis(50));
/// Calls for keys, kept for those who are slow to hear.
const WANTED_KEPT: usize = 64;
/// A lease that lasts longer is cut to this.
const TTL_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// Leases all keys or none, and tells which. Those that are ours already count as free: the
/// answer to an earlier try may have been lost.
const ACQUIRE: &str = "
for _, key in ipairs(KEYS) do
    local owner = redis.call('GET', key)
    if owner and owner ~= ARGV[1] then return 0 end
end
for _, key in ipairs(KEYS) do redis.call('SET', key, ARGV[1], 'PX', ARGV[2]) end
return 1";

/// Leases the keys that nobody else has, and tells them by their numbers; the others'
/// owners hear that they are wanted.
const ACQUIRE_FREE: &str = "
local ours, others = {}, {}
for place, key in ipairs(KEYS) do
    local owner = redis.call('GET', key)
    if not owner or owner == ARGV[1] then
        redis.call('SET', key, ARGV[1], 'PX', ARGV[2])
        ours[#ours + 1] = place
    else
        others[#others + 1] = string.sub(key, ARGV[4] + 1)
    end
end
if #others > 0 then redis.pcall('PUBLISH', ARGV[3], table.concat(others, '\\n')) end
return ours";

/// Renews all keys or none, and tells how many are no longer ours.
const RENEW: &str = "
local lost = 0
for _, key in ipairs(KEYS) do
    if redis.call('GET', key) ~= ARGV[1] then lost = lost + 1 end
end
if lost == 0 then
    for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, ARGV[2]) end
end
return lost";

/// Frees the keys that are ours, and tells how many were not.
const RELEASE: &str = "
local lost = 0
for _, key in ipairs(KEYS) do
    if redis.call('GET', key) == ARGV[1] then redis.call('DEL', key) else lost = lost + 1 end
end
return lost";

/// Counts a member until its time, by the clock of Redis, forgets those whose time is over,
/// and tells all who are counted, and for how many milliseconds. The key lasts as long as the last of them.
const JOIN: &str = "
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
local last = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')
redis.call('PEXPIREAT', KEYS[1], last[2])
local members = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
for n = 2, #members, 2 do members[n] = members[n] - now end
return members";

type WantedSender = broadcast::Sender<Arc<[ItemId]>>;

/// A [`LockManager`] over Redis: see [`Redis::locks`].
///
/// A lease is as good as the Redis that keeps it. One that is wiped, or that
/// fails over to a replica which had not heard yet, grants it again; the store
/// then refuses whoever is late.
pub struct RedisLocks {
    redis: Redis,
    acquire: Script,
    acquire_free: Script,
    renew: Script,
    release: Script,
    join: Script,
    /// Those who hear what is wanted here, and the task that listens, once there are any.
    wanted: OnceLock<(WantedSender, JoinSet<()>)>,
}

impl RedisLocks {
    pub(super) fn new(redis: Redis) -> Self {
        let [acquire, acquire_free, renew, release, join] =
            [ACQUIRE, ACQUIRE_FREE, RENEW, RELEASE, JOIN].map(Script::new);
        Self { redis, acquire, acquire_free, renew, release, join, wanted: OnceLock::new() }
    }

    fn members(&self) -> String {
        format!("flux:members:{{{}}}", self.redis.prefix)
    }

    fn name(&self, key: &str) -> String {
        format!("flux:lock:{{{}}}:{key}", self.redis.prefix)
    }

    fn names(&self, keys: &[ItemId]) -> Vec<String> {
        keys.iter().map(|key| self.name(key.as_str())).collect()
    }

    /// The channel by which those who have keys hear that others want them.
    fn channel(&self) -> String {
        format!("flux:wanted:{}", self.redis.prefix)
    }
}

/// The keys that others want, by their names, a line each.
struct Wanted(broadcast::Sender<Arc<[ItemId]>>);

impl Heard for Wanted {
    /// They ask again.
    fn missed(&self) {}

    fn hear(&self, message: &[u8]) {
        let keys = std::str::from_utf8(message)
            .ok()
            .and_then(|lines| lines.lines().map(|line| ItemId::new(line).ok()).collect());
        match keys {
            Some(keys) => {
                // An error says that nobody listens any more.
                let _ = self.0.send(keys);
            }
            None => note_junk(message),
        }
    }
}

#[async_trait]
impl LockManager for RedisLocks {
    /// Polls while somebody else holds a key. A lease whose grant was never
    /// heard of, because the reply was lost or the future dropped, ends by
    /// itself.
    async fn acquire(
        &self,
        keys: &[ItemId],
        ttl: Duration,
        wait: Duration,
    ) -> Result<Option<Lease>, SeamError> {
        let mut keys = keys.to_vec();
        keys.sort_unstable();
        keys.dedup();
        let (names, owner, ttl) = (self.names(&keys), Uuid::now_v7().to_string(), millis(ttl));
        let since = Instant::now();
        let mut tries = 0;
        loop {
            let script = (&self.acquire, ACQUIRE);
            if self.redis.link.script(script, &names, &[&owner, &ttl]).await? {
                return Ok(Some(Lease::new(keys, owner)));
            }
            let left = wait.saturating_sub(since.elapsed());
            if left.is_zero() {
                return Ok(None);
            }
            tries += 1;
            sleep(PAUSE.equal_jitter(tries).min(left)).await;
        }
    }

    async fn acquire_free(
        &self,
        keys: &[ItemId],
        ttl: Duration,
    ) -> Result<Option<Lease>, SeamError> {
        let mut keys = keys.to_vec();
        keys.sort_unstable();
        keys.dedup();
        let (names, owner, ttl) = (self.names(&keys), Uuid::now_v7().to_string(), millis(ttl));
        let script = (&self.acquire_free, ACQUIRE_FREE);
        let (channel, start) = (self.channel(), self.name("").len().to_string());
        let arguments = [&*owner, &*ttl, &*channel, &*start];
        let ours: Vec<usize> = self.redis.link.script(script, &names, &arguments).await?;
        // The numbers count from one, and grow.
        let keys: Vec<ItemId> =
            ours.into_iter().filter_map(|at| keys.get(at.wrapping_sub(1)).cloned()).collect();
        Ok((!keys.is_empty()).then(|| Lease::new(keys, owner)))
    }

    /// Listens from the first call on, which must be made within a runtime.
    fn wanted(&self) -> WantedReceiver {
        let (sender, _) = self.wanted.get_or_init(|| {
            let sender = broadcast::channel(WANTED_KEPT).0;
            let mut listener = JoinSet::new();
            let ear = Ear {
                link: Arc::clone(&self.redis.link),
                channel: self.channel().into(),
                what: "calls for items",
                heard: Wanted(sender.clone()),
            };
            listener.spawn(ear.listen());
            (sender, listener)
        });
        sender.subscribe()
    }

    async fn join(&self, member: &str, ttl: Duration) -> Result<Vec<Member>, SeamError> {
        let script = (&self.join, JOIN);
        let key = [self.members()];
        let members = self.redis.link.script(script, &key, &[member, &millis(ttl)]).await?;
        let member =
            |(name, ends_in): (String, u64)| Member::new(name, Duration::from_millis(ends_in));
        Ok(Vec::<(String, u64)>::into_iter(members).map(member).collect())
    }

    async fn leave(&self, member: &str) -> Result<(), SeamError> {
        let mut leave = redis::cmd("ZREM");
        leave.arg(self.members()).arg(member);
        self.redis.link.command::<i64>("ZREM", &leave).await.map(drop)
    }

    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<bool, SeamError> {
        let (names, ttl) = (self.names(&lease.keys), millis(ttl));
        let script = (&self.renew, RENEW);
        let lost: u64 = self.redis.link.script(script, &names, &[&lease.owner, &ttl]).await?;
        note(lost);
        Ok(lost == 0)
    }

    async fn release(&self, lease: &Lease) -> Result<(), SeamError> {
        let names = self.names(&lease.keys);
        let script = (&self.release, RELEASE);
        note(self.redis.link.script(script, &names, &[&lease.owner]).await?);
        Ok(())
    }
}

fn note(lost: u64) {
    if lost > 0 {
        metrics::counter!("flux_redis_leases_lost_total").increment(lost);
        tracing::debug!(lost, "a lease had ended or gone to another before it was given back");
    }
}

/// The time in milliseconds, one at least: Redis knows no lease of no time.
fn millis(ttl: Duration) -> String {
    ttl.clamp(Duration::from_millis(1), TTL_MAX).as_millis().to_string()
}

impl fmt::Debug for RedisLocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisLocks").field("redis", &self.redis).finish_non_exhaustive()
    }
}
