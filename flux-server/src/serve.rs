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
use crate::api::door::Door;
use crate::app::App;
use crate::conn::server::{self, Handler, Limits};
use crate::http::response::Answer;
use crate::limit::{Peer, Places, Share, Use};
use crate::shutdown::Shutdown;

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
    let api = Api { app: Arc::clone(&app), door: Door::Public };
    let limits = limits(&app);
    tokio::select! {
        () = server::serve(api, limits, Arc::clone(&app.shutdown), listener) => {}
        () = forgetting => {}
    }
    app.hub.finished().await;
}

/// Answers health and metrics, also while the server drains, until dropped.
pub async fn operations(app: Arc<App>, listener: TcpListener) {
    let limits = Limits {
        connections: Arc::clone(&app.ops_connections),
        // What the other address keeps free for health is not for here.
        turned_away: Arc::new(Places::new(Use::TurnedAway, 0, Share::AsManyAsAreFree)),
        ..limits(&app)
    };
    let never = Arc::new(Shutdown::default());
    server::serve(Api { app, door: Door::Operations }, limits, never, listener).await;
}

/// Serves one connection to its end.
pub async fn connection<S>(app: Arc<App>, socket: S, peer: IpAddr)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (limits, shutdown) = (limits(&app), Arc::clone(&app.shutdown));
    let peer = app.peers.of(peer);
    let api = Api { app, door: Door::Public };
    server::connection(api, limits.patience(), shutdown, socket, peer).await;
}

fn limits(app: &App) -> Limits {
    Limits {
        peers: Arc::clone(&app.peers),
        connections: Arc::clone(&app.connections),
        turned_away: Arc::clone(&app.turned_away),
        head: app.bounds.head,
        idle: app.bounds.idle,
    }
}

/// The API, as connections see it.
#[derive(Clone)]
struct Api {
    app: Arc<App>,
    door: Door,
}

impl Handler for Api {
    async fn answer(self, peer: Peer, request: Request<Incoming>) -> Answer {
        dispatch::answer(self.app, self.door, peer, request).await
    }

    fn turning_away(self) -> Self {
        Self { door: Door::TurnedAway, ..self }
    }

    fn open(&self) -> impl Sized + Send {
        Arc::clone(&self.app.http).open()
    }
}
