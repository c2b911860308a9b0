//! The address of Redis, checked before anything connects.

use std::fmt;

use bon::bon;
use flux_core::InvalidInput;
use redis::{Client, ConnectionAddr, IntoConnectionInfo, ProtocolVersion};

const PREFIX_BYTES_MAX: usize = 64;
const PORT: u16 = 6379;

/// The address of Redis, and the prefix of our keys and channels. Its
/// `Debug` shows no password.
#[derive(Clone)]
pub struct RedisSettings {
    node: Node,
    prefix: String,
}

#[derive(Clone)]
enum Node {
    Url(String),
    Client(Box<Client>),
    Server { host: String, port: u16, user: Option<String>, password: Option<String>, tls: bool },
}

#[bon]
impl RedisSettings {
    /// `redis://[user][:password@]host[:port][/database]`, or `rediss://…` for
    /// TLS. The certificate must be one that the system trusts;
    /// `SSL_CERT_FILE` names another authority.
    #[must_use]
    pub fn url(url: impl Into<String>) -> Self {
        Self::at(Node::Url(url.into()))
    }

    /// A ready-made client, with certificates of its own for example. Its
    /// address and login are used, over connections of ours.
    #[must_use]
    pub fn client(client: Client) -> Self {
        Self::at(Node::Client(Box::new(client)))
    }

    /// A server by its host, for settings that come one by one.
    ///
    /// ```
    /// use flux_aws::redis::RedisSettings;
    ///
    /// let password = None::<String>;
    /// let _ = RedisSettings::server("localhost").port(6380).maybe_password(password).build();
    /// ```
    #[builder(finish_fn = build, builder_type = RedisServerBuilder)]
    pub fn server(
        #[builder(start_fn, into)] host: String,
        /// The port: 6379 unless told.
        #[builder(default = PORT)]
        port: u16,
        /// The user; Redis calls its first one `default`.
        #[builder(into)]
        user: Option<String>,
        /// The password; none for a server that asks for none.
        #[builder(into)]
        password: Option<String>,
        /// Whether to connect by TLS; see [`url`](Self::url).
        #[builder(default)]
        tls: bool,
    ) -> Self {
        Self::at(Node::Server { host, port, user, password, tls })
    }

    /// Keeps this sale apart from others on the same Redis: `flux` unless
    /// told. Every process of a sale must have the same.
    #[must_use]
    pub fn prefix(self, prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into(), ..self }
    }

    fn at(node: Node) -> Self {
        Self { node, prefix: "flux".into() }
    }

    /// A client that speaks the protocol our connections do, and the prefix.
    pub(super) fn check(self) -> Result<(Client, String), InvalidInput> {
        let allowed = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'{' | b'}');
        let prefix = self.prefix;
        if !(1..=PREFIX_BYTES_MAX).contains(&prefix.len()) || !prefix.bytes().all(allowed) {
            let rule = format!(
                "must be 1 to {PREFIX_BYTES_MAX} bytes of visible ASCII without braces, \
                 was {prefix:?}"
            );
            return Err(InvalidInput::new("redis_prefix", rule));
        }
        // The client's own words on what is wrong name no secret.
        let (info, field) = match self.node {
            Node::Url(url) => (url.into_connection_info(), "redis_url"),
            Node::Client(client) => (Ok(client.get_connection_info().clone()), "redis_client"),
            Node::Server { host, port, user, password, tls } => {
                if host.is_empty() || !host.bytes().all(|byte| byte.is_ascii_graphic()) {
                    let rule = format!("must be a name or an address, was {host:?}");
                    return Err(InvalidInput::new("redis_host", rule));
                }
                let address = if tls {
                    ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
                } else {
                    ConnectionAddr::Tcp(host, port)
                };
                let info = address.into_connection_info().map(|info| {
                    let mut login = info.redis_settings().clone();
                    if let Some(user) = user {
                        login = login.set_username(user);
                    }
                    if let Some(password) = password {
                        login = login.set_password(password);
                    }
                    info.set_redis_settings(login)
                });
                (info, "redis_host")
            }
        };
        let refuse = |error: redis::RedisError| {
            let rule = format!("must be like redis://:password@host:6379/0 ({error})");
            InvalidInput::new(field, rule)
        };
        let info = info.map_err(refuse)?;
        let login = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP2);
        let client = Client::open(info.set_redis_settings(login)).map_err(refuse)?;
        Ok((client, prefix))
    }
}

impl From<&str> for RedisSettings {
    fn from(url: &str) -> Self {
        Self::url(url)
    }
}

impl From<String> for RedisSettings {
    fn from(url: String) -> Self {
        Self::url(url)
    }
}

impl From<Client> for RedisSettings {
    fn from(client: Client) -> Self {
        Self::client(client)
    }
}

impl fmt::Debug for RedisSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut settings = f.debug_struct("RedisSettings");
        match &self.node {
            Node::Url(url) => settings.field("host", &url.rsplit('@').next().unwrap_or_default()),
            Node::Client(client) => settings.field("client", client),
            Node::Server { host, port, tls, .. } => {
                settings.field("host", host).field("port", port).field("tls", tls)
            }
        };
        settings.field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(settings: RedisSettings) -> InvalidInput {
        settings.check().expect_err("refused")
    }

    #[test]
    fn what_is_wrong_is_named_and_no_secret_is_told() {
        for url in
            ["", "http://localhost", "redis://:hush@", "redis://:hush@a:b", "redis://:hush@h/x"]
        {
            let error = refused(url.into());
            assert_eq!(error.field(), "redis_url", "{url}");
            assert!(!error.to_string().contains("hush"), "{error}");
        }
        for prefix in ["", "a b", "{a}", &"a".repeat(65)] {
            let settings = RedisSettings::url("redis://localhost").prefix(prefix);
            assert_eq!(refused(settings).field(), "redis_prefix", "{prefix}");
        }
        assert_eq!(refused(RedisSettings::server(" ").build()).field(), "redis_host");
        let secret = [
            RedisSettings::url("redis://ann:hush@localhost"),
            RedisSettings::server("localhost").password("hush").build(),
            Client::open("redis://:hush@localhost").expect("a client").into(),
        ];
        for settings in secret {
            let shown = format!("{settings:?}");
            assert!(shown.contains("localhost") && !shown.contains("hush"), "{shown}");
        }
    }

    #[test]
    fn a_url_and_its_parts_are_the_same_place() {
        let by_parts = RedisSettings::server("::1").user("ann").password("x@y").tls(true).build();
        let (by_parts, _) = by_parts.prefix("spring").check().expect("a place");
        let by_url = RedisSettings::url("rediss://ann:x%40y@[::1]/?protocol=resp3");
        let (by_url, prefix) = by_url.check().expect("a place");
        let [parts, url] = [by_parts, by_url].map(|client| client.get_connection_info().clone());
        assert_eq!(parts.addr(), url.addr());
        let login = |info: &redis::ConnectionInfo| {
            let login = info.redis_settings();
            (login.username().map(str::to_owned), login.password().map(str::to_owned))
        };
        assert_eq!(login(&parts), login(&url));
        assert_eq!(url.redis_settings().protocol(), ProtocolVersion::RESP2);
        assert_eq!(prefix, "flux");
    }
}
