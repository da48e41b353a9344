//! Health and metrics over HTTP, for load balancers and Prometheus.
//!
//! Jobs cannot be submitted here; they come only through Redis.
//!
//! Every local process can connect to the port, so connections are bounded in number, in the time
//! for their request header, and in their total lifetime. Each connection carries one request.

use std::sync::Arc;
use std::time::Duration;

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

use crate::health::{Health, WorkerPhase};

/// Limits of the connections to the port.
#[derive(Debug, Clone, Copy)]
struct ConnectionLimits {
    /// Concurrent connections. Further ones wait in the kernel's backlog, where they use no file
    /// descriptor of this process.
    connections: usize,
    /// Time within which a request's header must be complete.
    header: Duration,
    /// Time after which a connection is closed, for clients that never read the response.
    lifetime: Duration,
}

const CONNECTION_LIMITS: ConnectionLimits = ConnectionLimits {
    connections: 64,
    header: Duration::from_secs(5),
    lifetime: Duration::from_secs(10),
};

/// Delay after a failed accept, for example because no file descriptor is free.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_secs(1);

/// Time that open connections get to finish when the worker stops.
const CLOSING_GRACE: Duration = Duration::from_secs(1);

/// Serves `/health`, `/live` and `/metrics` until `stop`.
pub(crate) async fn serve_http(
    listener: TcpListener,
    health: Arc<Health>,
    stop: CancellationToken,
) {
    serve_with_limits(CONNECTION_LIMITS, listener, health, stop).await;
}

async fn serve_with_limits(
    limits: ConnectionLimits,
    listener: TcpListener,
    health: Arc<Health>,
    stop: CancellationToken,
) {
    let app = Router::new()
        .route(
            "/health",
            get(|State(health): State<Arc<Health>>| async move { health_response(&health) }),
        )
        .route("/live", get(|| async { "alive\n" }))
        .route("/metrics", get(metrics))
        .with_state(health);
    let service = TowerToHyperService::new(app);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.header)
        .keep_alive(false);
    let permits = Arc::new(Semaphore::new(limits.connections));
    let open = TaskTracker::new();
    let next = async || {
        (
            Arc::clone(&permits).acquire_owned().await,
            listener.accept().await,
        )
    };
    while let Some((permit, accepted)) = stop.run_until_cancelled(next()).await {
        match accepted {
            Ok((stream, _peer)) => {
                let answered = http.serve_connection(TokioIo::new(stream), service.clone());
                open.spawn(async move {
                    // An error is the client's fault: it closed early, did not send HTTP, or was
                    // too slow.
                    drop(timeout(limits.lifetime, answered).await);
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "no connection accepted for health and metrics");
                tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
            }
        }
    }
    open.close();
    // A connection that is still open afterwards ends by itself within its lifetime.
    drop(timeout(CLOSING_GRACE, open.wait()).await);
}

fn health_response(health: &Health) -> (StatusCode, &'static str) {
    match (health.phase(), health.redis_answers()) {
        (WorkerPhase::Serving, true) => (StatusCode::OK, "serving\n"),
        (WorkerPhase::Serving, false) => {
            (StatusCode::SERVICE_UNAVAILABLE, "redis does not answer\n")
        }
        (WorkerPhase::Starting, _) => (StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
        (WorkerPhase::Draining, _) => (StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
    }
}

async fn metrics(State(health): State<Arc<Health>>) -> impl IntoResponse {
    health.record_scrape();
    let handle = crate::metrics::install_recorder();
    crate::metrics::drain_histograms();
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
        assert_eq!(health_response(&health).1, "starting\n");
        health.enter(WorkerPhase::Serving);
        health.redis_liveness(0).record();
        assert_eq!(health_response(&health), (StatusCode::OK, "serving\n"));
        health.enter(WorkerPhase::Draining);
        assert_eq!(health_response(&health).0, StatusCode::SERVICE_UNAVAILABLE);
    }

    /// Starts a server with these limits, which runs as long as the test, and returns its address.
    async fn server(limits: ConnectionLimits) -> std::net::SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let health = Arc::new(Health::new(Duration::from_secs(60), 1));
        tokio::spawn(serve_with_limits(
            limits,
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
        let address = server(ConnectionLimits {
            connections: 2,
            header: Duration::from_millis(100),
            lifetime: LONG,
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
        let address = server(ConnectionLimits {
            connections: 2,
            header: LONG,
            lifetime: LONG,
        })
        .await;
        let first = client(address, HALF).await;
        let _second = client(address, HALF).await;
        let mut third = client(address, WHOLE).await;
        let mut byte = [0];
        let early = timeout(Duration::from_millis(200), third.read(&mut byte)).await;
        assert!(early.is_err(), "both permits are taken");
        drop(first);
        assert!(answer(third).await.ends_with("alive\n"));
    }

    #[tokio::test]
    async fn a_connection_ends_when_its_life_is_over() {
        let address = server(ConnectionLimits {
            connections: 1,
            header: LONG,
            lifetime: Duration::from_millis(100),
        })
        .await;
        let _never_sends = client(address, "").await;
        let whole = client(address, WHOLE).await;
        assert!(answer(whole).await.ends_with("alive\n"));
    }
}
