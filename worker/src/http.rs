//! Health and metrics over HTTP, for load balancers and Prometheus.
//!
//! Jobs cannot be submitted here; they come only through Redis.
//!
//! Every local process can connect to the port, so connections are bounded in number, in the time
//! for their request header, and in their total lifetime. Each connection carries one request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Limits of the connections to the port.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    /// Concurrent connections. Further ones wait in the kernel's backlog, where they use no file
    /// descriptor of this process.
    connections: usize,
    /// Time within which a request's header must be complete.
    header: Duration,
    /// Time after which a connection is closed, for clients that never read the response.
    life: Duration,
}

const BOUNDS: Bounds = Bounds {
    connections: 64,
    header: Duration::from_secs(5),
    life: Duration::from_secs(10),
};

/// Delay after a failed accept, for example because no file descriptor is free.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Time after a scrape for which metrics of the whole queue are kept fresh.
const SCRAPE_LIFE: Duration = Duration::from_secs(120);

/// Time that open connections get to finish when the worker stops.
const CLOSING_GRACE: Duration = Duration::from_secs(1);

/// Health of a worker, for `/health`.
#[derive(Debug)]
pub struct Health {
    started: Instant,
    phase: AtomicU8,
    /// Time of the last response of each namespace's Redis, in milliseconds after the start.
    last_beats_ms: Vec<AtomicU64>,
    /// Milliseconds after the start at which the metrics were last read, plus one; zero before
    /// that.
    last_scrape_ms: AtomicU64,
    stale_after: Duration,
}

/// Phase of a worker's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Not yet claiming jobs.
    Starting,
    /// Claiming and running jobs.
    Serving,
    /// Finishing its running jobs.
    Draining,
}

impl Health {
    /// Creates the health of a starting worker with this number of namespaces. It is unhealthy if
    /// the Redis of one of them has not answered for `stale_after`.
    #[must_use]
    pub fn new(stale_after: Duration, namespaces: usize) -> Self {
        Self {
            started: Instant::now(),
            phase: AtomicU8::new(Phase::Starting as u8),
            last_beats_ms: (0..namespaces).map(|_| AtomicU64::new(0)).collect(),
            last_scrape_ms: AtomicU64::new(0),
            stale_after,
        }
    }

    /// Returns whether the metrics were scraped recently, so that it is worth asking Redis for the
    /// metrics of the whole queue.
    pub(crate) fn is_scraped(&self) -> bool {
        let last = self.last_scrape_ms.load(Ordering::Relaxed);
        let silent = self.elapsed_ms().saturating_sub(last);
        last > 0 && Duration::from_millis(silent) <= SCRAPE_LIFE
    }

    /// Moves to another phase.
    pub fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// Returns the handle that records responses of the Redis of namespace number `n`.
    #[must_use]
    pub fn pulse(self: &Arc<Self>, n: usize) -> Pulse {
        Pulse(Arc::clone(self), n)
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Returns the current phase.
    #[must_use]
    pub fn phase(&self) -> Phase {
        [Phase::Starting, Phase::Serving, Phase::Draining]
            .into_iter()
            .find(|phase| *phase as u8 == self.phase.load(Ordering::Relaxed))
            .unwrap_or(Phase::Starting)
    }

    fn redis_answers(&self) -> bool {
        let now = self.elapsed_ms();
        self.last_beats_ms.iter().all(|last| {
            let silent = now.saturating_sub(last.load(Ordering::Relaxed));
            Duration::from_millis(silent) <= self.stale_after
        })
    }

    fn report(&self) -> (StatusCode, &'static str) {
        match (self.phase(), self.redis_answers()) {
            (Phase::Serving, true) => (StatusCode::OK, "serving\n"),
            (Phase::Serving, false) => (StatusCode::SERVICE_UNAVAILABLE, "redis does not answer\n"),
            (Phase::Starting, _) => (StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
            (Phase::Draining, _) => (StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
        }
    }
}

/// Handle that records that a namespace's Redis answers.
#[derive(Debug, Clone)]
pub struct Pulse(Arc<Health>, usize);

impl Pulse {
    /// Records that Redis has just answered.
    pub fn beat(&self) {
        if let Some(last) = self.0.last_beats_ms.get(self.1) {
            last.store(self.0.elapsed_ms(), Ordering::Relaxed);
        }
    }
}

/// Serves `/health`, `/live` and `/metrics` until `stop`.
pub(crate) async fn serve(listener: TcpListener, health: Arc<Health>, stop: CancellationToken) {
    serve_within(BOUNDS, listener, health, stop).await;
}

async fn serve_within(
    bounds: Bounds,
    listener: TcpListener,
    health: Arc<Health>,
    stop: CancellationToken,
) {
    let app = Router::new()
        .route(
            "/health",
            get(|State(health): State<Arc<Health>>| async move { health.report() }),
        )
        .route("/live", get(|| async { "alive\n" }))
        .route("/metrics", get(metrics))
        .with_state(health);
    let service = TowerToHyperService::new(app);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(bounds.header)
        .keep_alive(false);
    let places = Arc::new(Semaphore::new(bounds.connections));
    let open = TaskTracker::new();
    let next = async || {
        (
            Arc::clone(&places).acquire_owned().await,
            listener.accept().await,
        )
    };
    while let Some((place, accepted)) = stop.run_until_cancelled(next()).await {
        match accepted {
            Ok((stream, _peer)) => {
                let answered = http.serve_connection(TokioIo::new(stream), service.clone());
                open.spawn(async move {
                    // An error is the client's fault: it closed early, did not send HTTP, or was
                    // too slow.
                    drop(timeout(bounds.life, answered).await);
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "no connection accepted for health and metrics");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    open.close();
    // A connection that is still open afterwards ends by itself within its lifetime.
    drop(timeout(CLOSING_GRACE, open.wait()).await);
}

async fn metrics(State(health): State<Arc<Health>>) -> impl IntoResponse {
    let now = health.elapsed_ms().saturating_add(1);
    health.last_scrape_ms.store(now, Ordering::Relaxed);
    let handle = crate::metrics::install();
    crate::metrics::fold();
    (
        [(
            header::CONTENT_TYPE,
            "text/plain; version=0.0.4; charset=utf-8",
        )],
        handle.render(),
    )
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;

    #[test]
    fn health_follows_the_phase_and_redis() {
        let health = Arc::new(Health::new(Duration::from_secs(60), 1));
        assert_eq!(health.report().1, "starting\n");
        health.enter(Phase::Serving);
        health.pulse(0).beat();
        assert_eq!(health.report(), (StatusCode::OK, "serving\n"));
        health.enter(Phase::Draining);
        assert_eq!(health.report().0, StatusCode::SERVICE_UNAVAILABLE);
    }

    /// Starts a server with these limits, which runs as long as the test, and returns its address.
    async fn server(bounds: Bounds) -> std::net::SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let health = Arc::new(Health::new(Duration::from_secs(60), 1));
        tokio::spawn(serve_within(
            bounds,
            listener,
            health,
            CancellationToken::new(),
        ));
        address
    }

    /// Opens a connection and sends this text.
    async fn client(address: std::net::SocketAddr, sent: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        stream
    }

    async fn answer(mut stream: TcpStream) -> String {
        let mut text = String::new();
        // The read may fail if the server closes the connection without a response.
        drop(stream.read_to_string(&mut text).await);
        text
    }

    const WHOLE: &str = "GET /live HTTP/1.1\r\nHost: x\r\n\r\n";
    const HALF: &str = "GET /live HTTP/1.1\r\nX: ";
    const LONG: Duration = Duration::from_secs(600);

    #[tokio::test]
    async fn a_half_sent_request_is_closed_and_others_are_answered() {
        let address = server(Bounds {
            connections: 2,
            header: Duration::from_millis(100),
            life: LONG,
        })
        .await;
        let mut half = Vec::new();
        for sent in [HALF, "", "G", HALF, HALF, HALF] {
            half.push(client(address, sent).await);
        }
        let whole = client(address, WHOLE).await;
        assert!(answer(whole).await.ends_with("alive\n"));
        for stream in half {
            let text = answer(stream).await;
            assert!(!text.contains("alive"), "{text}");
        }
    }

    #[tokio::test]
    async fn no_more_connections_are_held_than_there_are_places() {
        let address = server(Bounds {
            connections: 2,
            header: LONG,
            life: LONG,
        })
        .await;
        let first = client(address, HALF).await;
        let _second = client(address, HALF).await;
        let mut third = client(address, WHOLE).await;
        let mut byte = [0];
        let early = timeout(Duration::from_millis(200), third.read(&mut byte)).await;
        assert!(early.is_err(), "both places are taken");
        drop(first);
        assert!(answer(third).await.ends_with("alive\n"));
    }

    #[tokio::test]
    async fn a_connection_ends_when_its_life_is_over() {
        let address = server(Bounds {
            connections: 1,
            header: LONG,
            life: Duration::from_millis(100),
        })
        .await;
        let _never_sends = client(address, "").await;
        let whole = client(address, WHOLE).await;
        assert!(answer(whole).await.ends_with("alive\n"));
    }
}
