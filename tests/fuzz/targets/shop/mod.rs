//! A server without sockets, in memory and on a clock that jumps.

pub mod answers;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use clap::Parser as _;
use flux_core::{Backend, Flux, ItemSpec};
use flux_server::api::route::Route;
use flux_server::app::App;
use flux_server::serve;
use flux_server::setup::config::{Config, LogFormat};
use flux_server::setup::secret::Secret;
use flux_server::telemetry::{Figures, Http, Telemetry};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Runtime;

/// The operator's token.
pub const TOKEN: &str = "fuzz-operator";
/// Orders pile up, so each shop serves so many inputs.
const INPUTS_OF_A_SHOP: usize = 2_000;

pub struct Shop {
    runtime: Runtime,
    app: Arc<App>,
    served: usize,
}

impl Shop {
    pub fn open() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime");
        let app = runtime.block_on(async {
            let flux = Flux::builder(Backend::memory()).start();
            let hall = ItemSpec::hall("hall", ["A1", "A2", "B1", "B2"]).expect("a hall");
            let pool = |id, capacity| ItemSpec::pool(id, capacity).expect("a pool");
            for spec in [pool("t", 20), pool("many", 10_000_000), pool("none", 0), hall] {
                flux.put_item(spec).await.expect("put");
            }
            let args = "flux-server --head-timeout 0.05 --body-timeout 0.05 --idle-timeout 0.1";
            let mut config = Config::parse_from(args.split(' '));
            config.operator_token = Some(Secret::new("token", TOKEN).expect("a token"));
            Arc::new(App::new(flux, &config, figures(), Http::new(Route::ALL.map(Route::name))))
        });
        Self { runtime, app, served: 0 }
    }

    /// Sends these pieces on one connection and returns all that came back.
    pub fn exchange(&mut self, pieces: &[&[u8]]) -> Vec<u8> {
        if self.served == INPUTS_OF_A_SHOP {
            *self = Self::open();
        }
        self.served += 1;
        let app = Arc::clone(&self.app);
        self.runtime.block_on(async {
            let (client, socket) = tokio::io::duplex(16 * 1024);
            let (mut hears, mut says) = tokio::io::split(client);
            let talking = async move {
                let saying = async {
                    for piece in pieces {
                        says.write_all(piece).await?;
                        tokio::task::yield_now().await;
                    }
                    std::io::Result::Ok(())
                };
                // The server may have heard enough, or be busy with a stream.
                let _ = tokio::time::timeout(Duration::from_secs(1), saying).await;
                tokio::time::sleep(Duration::from_millis(200)).await;
                let _ = says.shutdown().await;
                // Streams go on until nobody hears them.
                tokio::time::sleep(Duration::from_secs(1)).await;
            };
            let mut heard = Vec::new();
            let client = async {
                tokio::select! {
                    () = talking => {}
                    ended = hears.read_to_end(&mut heard) => drop(ended.expect("in memory")),
                }
                drop(hears);
            };
            let peer = IpAddr::V4(Ipv4Addr::LOCALHOST);
            let serving = serve::connection(app, socket, peer);
            let serving = tokio::time::timeout(Duration::from_secs(60), serving);
            let (ended, ()) = tokio::join!(serving, client);
            ended.expect("a connection ends when the client is gone");
            heard
        })
    }
}

/// A process has one recorder.
fn figures() -> Figures {
    static ONE: OnceLock<Figures> = OnceLock::new();
    let start = || Telemetry::start(LogFormat::Text).expect("the first").figures();
    ONE.get_or_init(start).clone()
}

/// Runs `case` on the shop of this thread.
pub fn with<T>(case: impl FnOnce(&mut Shop) -> T) -> T {
    thread_local! {
        static SHOP: std::cell::RefCell<Shop> = std::cell::RefCell::new(Shop::open());
    }
    SHOP.with_borrow_mut(case)
}
