//! Health and metrics over HTTP, for load balancers and Prometheus.
//!
//! It refuses to do anything else: jobs come through Redis, never through here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// How a worker is, for `/health`.
#[derive(Debug)]
pub struct Health {
    started: Instant,
    phase: AtomicU8,
    /// When each namespace's Redis answered last.
    last_beats_ms: Vec<AtomicU64>,
    stale_after: Duration,
}

/// What a worker is doing with its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Not claiming yet.
    Starting,
    /// Claiming and running.
    Serving,
    /// Finishing what it has.
    Draining,
}

impl Health {
    /// A worker of so many namespaces that is starting; it counts as unhealthy when the Redis of one of them has not
    /// answered for `stale_after`.
    #[must_use]
    pub fn new(stale_after: Duration, namespaces: usize) -> Self {
        Self {
            started: Instant::now(),
            phase: AtomicU8::new(Phase::Starting as u8),
            last_beats_ms: (0..namespaces).map(|_| AtomicU64::new(0)).collect(),
            stale_after,
        }
    }

    /// Moves to another phase.
    pub fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// What tells of the Redis of namespace number `n` that it has answered.
    #[must_use]
    pub fn pulse(self: &Arc<Self>, n: usize) -> Pulse {
        Pulse(Arc::clone(self), n)
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// What the worker is doing.
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

/// Tells that a namespace's Redis answers.
#[derive(Debug, Clone)]
pub struct Pulse(Arc<Health>, usize);

impl Pulse {
    /// Redis has just answered.
    pub fn beat(&self) {
        if let Some(last) = self.0.last_beats_ms.get(self.1) {
            last.store(self.0.elapsed_ms(), Ordering::Relaxed);
        }
    }
}

/// Serves `/health`, `/live` and `/metrics` until `stop`.
pub(crate) async fn serve(listener: TcpListener, health: Arc<Health>, stop: CancellationToken) {
    let app = Router::new()
        .route(
            "/health",
            get(|State(health): State<Arc<Health>>| async move { health.report() }),
        )
        .route("/live", get(|| async { "alive\n" }))
        .route("/metrics", get(metrics))
        .with_state(health);
    let served = axum::serve(listener, app)
        .with_graceful_shutdown(async move { stop.cancelled().await })
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "health and metrics are no longer served");
    }
}

async fn metrics() -> impl IntoResponse {
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
}
