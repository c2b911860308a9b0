//! Traps that kill a worker at one step of the protocol: when its call is on
//! the way, or when the answer is. They lie in proxies before SQS, DynamoDB
//! and Redis.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use stage::fleet::{Services, loopback};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::proxy::{Answer, Call, Meddler, Proxy, Server};
use crate::sale::signal;

/// The side of a call at which the worker dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// The call is not made.
    Before,
    /// The call took effect, and the worker does not hear so.
    After,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    /// The beginning of an operation's or a command's name.
    pub(crate) operation: &'static str,
    pub(crate) side: Side,
    /// The number of the call among these, from 1.
    pub(crate) nth: u32,
}

/// Set for one worker.
pub(crate) struct Trap {
    step: Step,
    seen: AtomicU32,
    aim: watch::Sender<Option<u32>>,
    sprung: watch::Sender<bool>,
}

impl Trap {
    fn new(step: Step) -> Self {
        let (aim, sprung) = (watch::Sender::new(None), watch::Sender::new(false));
        Self { step, seen: AtomicU32::new(0), aim, sprung }
    }

    /// Sets the process it is for.
    pub(crate) fn aim_at(&self, pid: u32) {
        self.aim.send_replace(Some(pid));
    }

    pub(crate) fn has_sprung(&self) -> bool {
        *self.sprung.borrow()
    }

    /// Whether this is the call to die at. To be asked once for each.
    fn is_hit(&self, operation: &str) -> bool {
        operation.starts_with(self.step.operation)
            && self.seen.fetch_add(1, Ordering::SeqCst) + 1 >= self.step.nth
    }

    async fn spring(&self) {
        let mut aim = self.aim.subscribe();
        let Ok(Some(pid)) = aim.wait_for(Option::is_some).await.map(|pid| *pid) else { return };
        if !self.sprung.send_replace(true) {
            signal("KILL", pid);
        }
    }
}

/// The proxies of one worker.
pub(crate) struct Traps {
    pub(crate) trap: Arc<Trap>,
    proxies: [Proxy; 2],
    redis: String,
    _listening: JoinSet<()>,
}

impl Traps {
    pub(crate) async fn set(step: Step, services: &Services) -> Self {
        let trap = Arc::new(Trap::new(step));
        let [sqs, dynamodb] = ["AWS_ENDPOINT_URL_SQS", "AWS_ENDPOINT_URL_DYNAMODB"]
            .map(|name| Proxy::before(services.get(name), Arc::new(Calls(Arc::clone(&trap)))));
        let (redis, listening) = before_redis(services.get("REDIS_URL"), Arc::clone(&trap)).await;
        Self { trap, proxies: [sqs.await, dynamodb.await], redis, _listening: listening }
    }

    /// The services with the traps before them.
    pub(crate) fn services(&self, services: &Services) -> Services {
        let [sqs, dynamodb] = &self.proxies;
        let services = services.clone().with("AWS_ENDPOINT_URL_SQS", sqs.url());
        services.with("AWS_ENDPOINT_URL_DYNAMODB", dynamodb.url()).with("REDIS_URL", &self.redis)
    }
}

struct Calls(Arc<Trap>);

#[async_trait]
impl Meddler for Calls {
    async fn meddle(&self, call: Call, server: &mut Server) -> Option<Answer> {
        let Self(trap) = self;
        if trap.step.side == Side::Before && trap.is_hit(&call.operation) {
            trap.spring().await;
            return None;
        }
        let answer = server.make(&call).await?;
        // A call that was refused, or brought nothing, took no effect.
        let had_effect = answer.status.is_success()
            && (call.operation != "ReceiveMessage" || has(&answer.body, b"\"Body\""));
        if trap.step.side == Side::After && had_effect && trap.is_hit(&call.operation) {
            trap.spring().await;
            return None;
        }
        Some(answer)
    }
}

async fn before_redis(url: &str, trap: Arc<Trap>) -> (String, JoinSet<()>) {
    let upstream = loopback(url).expect("a Redis on this machine").to_owned();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let url = format!("redis://{}", listener.local_addr().expect("an address"));
    let mut listening = JoinSet::new();
    listening.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let (client, _) = accepted.expect("a connection");
                    let server = TcpStream::connect(&upstream).await.expect("Redis is there");
                    connections.spawn(pass(client, server, Arc::clone(&trap)));
                }
                Some(_) = connections.join_next() => {}
            }
        }
    });
    (url, listening)
}

/// Passes bytes on, whole commands as they are read at once: the worker sends
/// its commands in one write each.
async fn pass(mut client: TcpStream, mut server: TcpStream, trap: Arc<Trap>) {
    let (mut asked, mut said) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    let mut waits_for_reply = false;
    loop {
        tokio::select! {
            read = client.read(&mut asked) => {
                let Ok(count @ 1..) = read else { return };
                let bytes = &asked[..count];
                // Of scripts, those on leases: a membership is renewed all the time.
                let is_command = commands(bytes)
                    .any(|command| command.starts_with(trap.step.operation))
                    && (trap.step.operation != "EVAL" || has(bytes, b"flux:lock:"));
                if is_command && trap.step.side == Side::Before && trap.is_hit(trap.step.operation) {
                    return trap.spring().await;
                }
                waits_for_reply |= is_command;
                if server.write_all(&asked[..count]).await.is_err() {
                    return;
                }
            }
            read = server.read(&mut said) => {
                let Ok(count @ 1..) = read else { return };
                // A script that Redis does not know yet is sent again.
                let is_reply = std::mem::take(&mut waits_for_reply) && said[0] != b'-';
                if is_reply && trap.step.side == Side::After && trap.is_hit(trap.step.operation) {
                    return trap.spring().await;
                }
                if client.write_all(&said[..count]).await.is_err() {
                    return;
                }
            }
        }
    }
}

fn has(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// The names of the commands that begin in there: `*3\r\n$7\r\nPUBLISH\r\n…`.
fn commands(bytes: &[u8]) -> impl Iterator<Item = String> {
    let mut lines = bytes.split(|byte| *byte == b'\n').peekable();
    std::iter::from_fn(move || {
        loop {
            let line = lines.next()?;
            if line.starts_with(b"*") && lines.peek().is_some_and(|next| next.starts_with(b"$")) {
                lines.next();
                let name = lines.next()?.trim_ascii_end();
                return Some(String::from_utf8_lossy(name).to_uppercase());
            }
        }
    })
}
