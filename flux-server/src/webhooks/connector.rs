//! Connections to receivers: TCP to an address that may be asked, and TLS by the roots that
//! the system trusts.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::rt::TokioIo;
use rustls::crypto::ring;
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::Semaphore;
use tokio::task::spawn;
use tokio::time::timeout;
use tower_service::Service;

use crate::setup::public_address::is_public;

/// Time for a name to be looked up, and for a connection with its TLS to be made.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// Look-ups of names at once. One goes on without who waited for it, on a thread of its own,
/// for as long as the system asks.
const LOOKUPS_MAX: usize = 8;

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
        Ok(Self(tls.enable_http1().wrap_connector(Dial::new(reach))))
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
#[derive(Debug, Clone)]
struct Dial {
    reach: Reach,
    lookups: Arc<Semaphore>,
}

impl Dial {
    fn new(reach: Reach) -> Self {
        Self { reach, lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)) }
    }
}

impl Service<Uri> for Dial {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Connecting<Self::Response, io::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(dial(self.clone(), uri))
    }
}

async fn dial(Dial { reach, lookups }: Dial, uri: Uri) -> io::Result<TokioIo<TcpStream>> {
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 });
    let may = |address: &SocketAddr| reach == Reach::Anywhere || is_public(address.ip());
    let mut failed = io::Error::other(
        "it stands for no address that may be asked; --webhook-private allows private ones",
    );
    for address in look_up(lookups, host, port).await?.into_iter().filter(may) {
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

async fn look_up(lookups: Arc<Semaphore>, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![(address, port).into()]);
    }
    let host = (host.to_owned(), port);
    one_of(lookups, async move { Ok(lookup_host(host).await?.collect()) }).await
}

/// Does `work` as one of so many at once; what has begun counts until it ends, whoever waits
/// for it no more.
async fn one_of<T: Send + 'static>(
    places: Arc<Semaphore>,
    work: impl Future<Output = io::Result<T>> + Send + 'static,
) -> io::Result<T> {
    let place = places.acquire_owned().await.map_err(io::Error::other)?;
    let working = spawn(async move {
        let _place = place;
        work.await
    });
    working.await?
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn a_name_of_this_machine_is_connected_to_only_where_that_is_allowed() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        for host in ["localhost", "127.0.0.1", "[::ffff:127.0.0.1]"] {
            let uri = || format!("https://{host}:{port}/").parse::<Uri>().expect("a URI");
            let refused =
                dial(Dial::new(Reach::Public), uri()).await.expect_err("private").to_string();
            assert!(refused.contains("--webhook-private"), "{host}: {refused}");
            assert!(dial(Dial::new(Reach::Anywhere), uri()).await.is_ok(), "{host}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_up_that_nobody_waits_for_has_its_place_until_it_ends() {
        let places = Arc::new(Semaphore::new(1));
        let (end, ended) = oneshot::channel();
        let hanging = async move { ended.await.map_err(io::Error::other) };
        let short = Duration::from_secs(1);
        timeout(short, one_of(Arc::clone(&places), hanging)).await.expect_err("it hangs");
        let next = || timeout(short, one_of(Arc::clone(&places), async { Ok(()) }));
        next().await.expect_err("there is no place");
        // An address needs none.
        let address = look_up(Arc::clone(&places), "127.0.0.1", 1).await.expect("an address");
        assert_eq!(address, [([127, 0, 0, 1], 1).into()]);
        end.send(()).expect("it goes on");
        next().await.expect("a place").expect("done");
    }
}
