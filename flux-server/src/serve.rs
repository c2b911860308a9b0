//! The connections and the calls, put together: what comes in on a socket is
//! answered by the API.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::time::interval;

use crate::api::dispatch;
use crate::app::App;
use crate::conn::server::{self, Handler, Limits};
use crate::http::response::Answer;

/// Serves until the server drains and every connection has ended. Dropping the
/// future ends what is left.
pub async fn serve(app: Arc<App>, listener: TcpListener) {
    let forgetting = async {
        let mut second = interval(Duration::from_secs(1));
        loop {
            second.tick().await;
            app.limits.forget_the_quiet();
        }
    };
    tokio::select! {
        () = server::serve(Api(Arc::clone(&app)), limits(&app), Arc::clone(&app.shutdown), listener) => {}
        () = forgetting => {}
    }
    app.hub.finished().await;
}

/// Serves one connection to its end.
pub async fn connection<S>(app: Arc<App>, socket: S, peer: IpAddr)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (limits, shutdown) = (limits(&app), Arc::clone(&app.shutdown));
    server::connection(Api(app), limits, shutdown, socket, peer).await;
}

fn limits(app: &App) -> Limits {
    let bounds = app.bounds;
    Limits { connections_max: bounds.connections_max, head: bounds.head, idle: bounds.idle }
}

/// The API, as connections see it.
#[derive(Clone)]
struct Api(Arc<App>);

impl Handler for Api {
    async fn answer(self, peer: IpAddr, request: Request<Incoming>) -> Answer {
        dispatch::answer(self.0, peer, request).await
    }

    fn open(&self) -> impl Sized + Send {
        Arc::clone(&self.0.http).open()
    }
}
