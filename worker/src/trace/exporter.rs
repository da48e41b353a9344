//! Sends spans as OTLP over HTTP, encoded as protobuf, with or without TLS.
//!
//! The library sends from its own thread, which is not part of a Tokio runtime. The connection
//! lives in the worker's runtime, and each request is passed to it. The library itself reads the
//! standard variables for headers, timeouts, batches and sampling.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use tokio::runtime::Handle;

use super::error::TraceError;

/// The path that spans are sent to, below a receiver's address.
const SPANS_PATH: &str = "/v1/traces";

/// Maximum size of a response.
const MAX_RESPONSE_BYTES: usize = 64 << 10;

/// Timeout of one request, regardless of the library's own limit: a receiver that does not answer
/// must not delay the next batch.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Creates the exporter for the receiver at `endpoint`.
pub(super) fn exporter(endpoint: &str) -> Result<SpanExporter, TraceError> {
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_provider_and_native_roots(rustls::crypto::ring::default_provider())
        .map_err(|source| TraceError::Certificates { source })?
        .https_or_http()
        .enable_http1()
        .build();
    let sender = SpanSender {
        client: Client::builder(TokioExecutor::new()).build(connector),
        runtime: Handle::current(),
    };
    SpanExporter::builder()
        .with_http()
        .with_http_client(sender)
        .with_endpoint(address(endpoint))
        .build()
        .map_err(|source| TraceError::Exporter {
            endpoint: endpoint.to_owned(),
            source,
        })
}

/// Returns a receiver's address with the path of spans, which is added only if it is missing.
fn address(endpoint: &str) -> String {
    let base = endpoint.trim_end_matches('/');
    if base.ends_with(SPANS_PATH) {
        base.to_owned()
    } else {
        format!("{base}{SPANS_PATH}")
    }
}

/// Sends requests from the worker's runtime, on behalf of any thread.
struct SpanSender {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    runtime: Handle,
}

impl fmt::Debug for SpanSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpanSender").finish_non_exhaustive()
    }
}

#[async_trait]
impl HttpClient for SpanSender {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let exchange = async move {
            let answer = client.request(request.map(Full::new)).await?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, MAX_RESPONSE_BYTES)
                .collect()
                .await?
                .to_bytes();
            Ok::<_, HttpError>(Response::from_parts(head, body))
        };
        // A Tokio timer must be created inside a runtime, and this thread has none.
        let exchange = async move { tokio::time::timeout(REQUEST_TIMEOUT, exchange).await? };
        self.runtime.spawn(exchange).await?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_spans_is_added_once() {
        for (endpoint, want) in [
            ("http://h:4318", "http://h:4318/v1/traces"),
            ("http://h:4318/", "http://h:4318/v1/traces"),
            ("https://h/otlp", "https://h/otlp/v1/traces"),
            ("http://h/v1/traces", "http://h/v1/traces"),
        ] {
            assert_eq!(address(endpoint), want);
        }
    }
}
