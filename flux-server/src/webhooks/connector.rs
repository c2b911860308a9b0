//! Connections to receivers: TCP to an address that may be asked, and TLS by the roots that
//! the system trusts.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::rt::TokioIo;
use rustls::crypto::ring;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tower_service::Service;

use crate::setup::public_address::is_public;

/// Time for a name to be looked up, and for a connection with its TLS to be made.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Connecting<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

/// Where connections may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// To the public internet, by TLS.
    Public,
    /// Anywhere, without TLS too.
    Anywhere,
}

/// Makes connections. Cheap to clone.
#[derive(Clone)]
pub(super) struct Connector(HttpsConnector<Dial>);

impl Connector {
    /// Reads the roots that the system trusts, which takes some disk accesses.
    ///
    /// # Errors
    /// When there are none.
    pub(super) fn new(reach: Reach) -> io::Result<Self> {
        let provider = Arc::new(ring::default_provider());
        let tls = HttpsConnectorBuilder::new().with_provider_and_native_roots(provider)?;
        let tls = match reach {
            Reach::Public => tls.https_only(),
            Reach::Anywhere => tls.https_or_http(),
        };
        Ok(Self(tls.enable_http1().wrap_connector(Dial(reach))))
    }
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = BoxError;
    type Future = Connecting<Self::Response, BoxError>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.0.call(uri);
        Box::pin(async move {
            match timeout(CONNECT_WITHIN, connecting).await {
                Ok(connected) => connected,
                Err(_) => Err("no connection within 5 seconds".into()),
            }
        })
    }
}

/// Makes TCP connections, and looks at each address it would connect to: a name may stand
/// for another one at any time.
#[derive(Debug, Clone, Copy)]
struct Dial(Reach);

impl Service<Uri> for Dial {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Connecting<Self::Response, io::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(dial(self.0, uri))
    }
}

async fn dial(reach: Reach, uri: Uri) -> io::Result<TokioIo<TcpStream>> {
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 });
    let may = |address: &SocketAddr| reach == Reach::Anywhere || is_public(address.ip());
    let mut failed = io::Error::other(
        "it stands for no address that may be asked; --webhook-private allows private ones",
    );
    for address in lookup_host((host, port)).await?.filter(may) {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(TokioIo::new(stream));
            }
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_name_of_this_machine_is_connected_to_only_where_that_is_allowed() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        for host in ["localhost", "127.0.0.1", "[::ffff:127.0.0.1]"] {
            let uri = || format!("https://{host}:{port}/").parse::<Uri>().expect("a URI");
            let refused = dial(Reach::Public, uri()).await.expect_err("private").to_string();
            assert!(refused.contains("--webhook-private"), "{host}: {refused}");
            assert!(dial(Reach::Anywhere, uri()).await.is_ok(), "{host}");
        }
    }
}
