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
    last_beat_ms: AtomicU64,
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
    /// A worker that is starting; it counts as unhealthy when Redis has not answered for `stale_after`.
    #[must_use]
    pub fn new(stale_after: Duration) -> Self {
        Self {
            started: Instant::now(),
            phase: AtomicU8::new(Phase::Starting as u8),
            last_beat_ms: AtomicU64::new(0),
            stale_after,
        }
    }

    /// Moves to another phase.
    pub fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// Redis has just answered.
    pub fn beat(&self) {
        self.last_beat_ms
            .store(self.elapsed_ms(), Ordering::Relaxed);
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
        let silent = self
            .elapsed_ms()
            .saturating_sub(self.last_beat_ms.load(Ordering::Relaxed));
        Duration::from_millis(silent) <= self.stale_after
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
    handle.run_upkeep();
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
        let health = Health::new(Duration::from_secs(60));
        assert_eq!(health.report().1, "starting\n");
        health.enter(Phase::Serving);
        health.beat();
        assert_eq!(health.report(), (StatusCode::OK, "serving\n"));
        health.enter(Phase::Draining);
        assert_eq!(health.report().0, StatusCode::SERVICE_UNAVAILABLE);
    }
}
