//! TLS and passwords: trusted clients get in, no others do.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use flux_aws::bill::Meter;
use flux_aws::redis::{Redis, RedisSettings};
use flux_core::seams::{LockManager, OutcomeBus};

use crate::outcomes::hears_gap;
use crate::server::Server;
use crate::{LONG, item, prefix};

const PASSWORD: &str = "p@ss:word/1";
const ENCODED: &str = "p%40ss%3Aword%2F1";
/// The variable set where this program runs itself, told to trust the test's authority.
const URL: &str = "FLUX_TEST_TLS_URL";

fn openssl(dir: &Path, arguments: &str) {
    let made = Command::new("openssl").args(arguments.split(' ')).current_dir(dir).output();
    let made = made.expect("openssl can be run; install it");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// A Redis that speaks TLS only, asks for a password, and has a certificate
/// of an authority that nobody knows: `ca.pem` in its folder.
async fn secure() -> (Server, Vec<u8>) {
    let dir = tempfile::tempdir().expect("a folder");
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    let within = dir.path();
    openssl(within, &format!("req -x509 {key} -keyout ca.key -out ca.pem -days 2 -subj /CN=ca"));
    openssl(within, &format!("req {key} -keyout key.pem -out request.pem -subj /CN=redis"));
    std::fs::write(within.join("names"), "subjectAltName=IP:127.0.0.1").expect("written");
    let sign = "x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2";
    openssl(within, &format!("{sign} -extfile names -out cert.pem"));
    let authority = std::fs::read(within.join("ca.pem")).expect("it was made");
    let server = Server::start_in(dir, |dir, port| {
        let file = |name: &str| dir.join(name).display().to_string();
        ["--port", "0", "--tls-port", &port.to_string(), "--requirepass", PASSWORD]
            .into_iter()
            .map(str::to_owned)
            .chain(["--tls-auth-clients".into(), "no".into()])
            .chain(["--tls-cert-file".into(), file("cert.pem")])
            .chain(["--tls-key-file".into(), file("key.pem")])
            .chain(["--tls-ca-cert-file".into(), file("ca.pem")])
            .collect()
    });
    (server.await, authority)
}

fn open(settings: impl Into<RedisSettings>) -> Redis {
    Redis::open(settings.into().prefix(prefix()), Meter::default()).expect("settings")
}

async fn gets_in(redis: &Redis) -> bool {
    let lease = redis.locks().acquire(&[item("a")], LONG, Duration::ZERO).await;
    println!("{lease:?}");
    lease.is_ok_and(|lease| lease.is_some())
}

fn trusting(url: &str, authority: &[u8]) -> redis::Client {
    let root_cert = Some(authority.to_vec());
    let certificates = redis::TlsCertificates { client_tls: None, root_cert };
    redis::Client::build_with_tls(url, certificates).expect("a client")
}

#[tokio::test]
async fn a_client_that_trusts_the_authority_gets_in_and_hears() {
    let (server, authority) = secure().await;
    let at = format!("127.0.0.1:{}", server.port);
    let redis = open(trusting(&format!("rediss://:{ENCODED}@{at}"), &authority));
    assert!(gets_in(&redis).await);
    let bus = redis.bus();
    let mut receiver = bus.subscribe();
    hears_gap(&mut receiver).await;
    for wrong in [format!("rediss://{at}"), format!("rediss://:wrong@{at}")] {
        assert!(!gets_in(&open(trusting(&wrong, &authority))).await, "{wrong}");
    }
}

#[tokio::test]
async fn an_authority_that_nobody_knows_is_refused() {
    let (server, _) = secure().await;
    let by_url = format!("rediss://:{ENCODED}@127.0.0.1:{}", server.port);
    assert!(!gets_in(&open(by_url)).await);
    let by_parts = RedisSettings::server("127.0.0.1").port(server.port).password(PASSWORD);
    assert!(!gets_in(&open(by_parts.tls(true).build())).await);
}

#[tokio::test]
async fn a_url_and_parts_get_in_where_the_system_trusts_the_authority() {
    if let Ok(port) = std::env::var(URL) {
        let port: u16 = port.parse().expect("a port");
        assert!(gets_in(&open(format!("rediss://:{ENCODED}@127.0.0.1:{port}"))).await);
        let by_parts = RedisSettings::server("127.0.0.1").port(port).password(PASSWORD);
        assert!(gets_in(&open(by_parts.tls(true).build())).await);
        return;
    }
    let (server, authority) = secure().await;
    let dir = tempfile::tempdir().expect("a folder");
    let trusted = dir.path().join("ca.pem");
    std::fs::write(&trusted, authority).expect("written");
    let this = "secure::a_url_and_parts_get_in_where_the_system_trusts_the_authority";
    let run = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", this])
        .env(URL, server.port.to_string())
        .env("SSL_CERT_FILE", trusted)
        .env_remove("SSL_CERT_DIR")
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success() && said.contains("1 passed"), "{said}");
}

#[tokio::test]
async fn a_password_without_tls() {
    let dir = tempfile::tempdir().expect("a folder");
    let server = Server::start_in(dir, |_, port| {
        ["--port", &port.to_string(), "--requirepass", PASSWORD].map(str::to_owned).into()
    });
    let server = server.await;
    let right = RedisSettings::server("127.0.0.1").port(server.port).password(PASSWORD);
    assert!(gets_in(&open(right.build())).await);
    let wrong = RedisSettings::server("127.0.0.1").port(server.port).password("wrong");
    assert!(!gets_in(&open(wrong.build())).await);
    assert!(!gets_in(&open(server.url())).await);
}
