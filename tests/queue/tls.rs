//! Encrypted connections: they carry a job's whole lifecycle, and errors say what is wrong with a
//! certificate.

use std::path::PathBuf;

use sandhog_config::RedisSettings;
use sandhog_core::outcome::Outcome;
use sandhog_core::submission::Routing;
use sandhog_queue::{Queue, QueueError};
use sandhog_testkit::certificates::Certificates;
use sandhog_testkit::private_redis::{PrivateRedis, free_port};

use crate::fixture::{QueueFixture, WAIT_TIMEOUT, success, worker};

/// A server that accepts only encrypted connections of clients with a known certificate.
struct EncryptedRedis {
    redis: PrivateRedis,
    certificates: Certificates,
    port: u16,
}

impl EncryptedRedis {
    fn start() -> Self {
        let certificates = Certificates::make("localhost");
        let port = free_port();
        let arguments = certificates.server_arguments(port);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        Self {
            redis: PrivateRedis::start(&arguments),
            certificates,
            port,
        }
    }

    fn settings(&self) -> RedisSettings {
        self.certificates
            .settings(&format!("rediss://localhost:{}", self.port))
    }
}

#[tokio::test]
async fn a_job_goes_its_whole_way_encrypted() {
    let encrypted = EncryptedRedis::start();
    let mut fixture = QueueFixture::on(&encrypted.redis, "tls").await;
    fixture.queue = Queue::connect(&encrypted.settings(), fixture.space.namespace())
        .await
        .unwrap();
    fixture.queue.check().await.unwrap();
    let id = fixture.ready(&Routing::default()).await;
    let lease = fixture.bound(&worker("one")).await.lease;
    let mut waiter = fixture.queue.result_waiter().await.unwrap();
    let clients: String = fixture.plain(&["CLIENT", "LIST"]).await;
    let ours = clients
        .lines()
        .filter(|line| line.contains(&format!("laddr=127.0.0.1:{} ", encrypted.port)))
        .count();
    assert!(ours >= 2, "shared and waiting connections: {clients}");
    let waiting = tokio::spawn({
        let id = id.clone();
        async move { waiter.wait(&id, WAIT_TIMEOUT).await }
    });
    let _settled = fixture.queue.finish(&lease, success(&id)).await.unwrap();
    assert!(waiting.await.unwrap().unwrap().is_some());
    assert_eq!(fixture.result(&id).await.outcome, Outcome::Succeeded);
}

#[tokio::test]
async fn what_is_wrong_with_a_certificate_is_said() {
    let encrypted = EncryptedRedis::start();
    let others = Certificates::make("localhost");
    let good = encrypted.settings();
    let empty = encrypted.certificates.file("names");
    let connect = async |settings: RedisSettings| {
        Queue::connect(&settings, &"default".parse().unwrap())
            .await
            .unwrap_err()
    };
    for (case, settings) in [
        (
            "another authority",
            RedisSettings {
                tls_ca: Some(others.file("ca.crt")),
                ..good.clone()
            },
        ),
        (
            "the machine's authorities",
            RedisSettings {
                tls_ca: None,
                ..good.clone()
            },
        ),
        (
            "a name the certificate does not hold",
            RedisSettings {
                url: Some(format!("rediss://127.0.0.1:{}", encrypted.port)),
                ..good.clone()
            },
        ),
        (
            "no certificate of our own",
            RedisSettings {
                tls_cert: None,
                tls_key: None,
                ..good.clone()
            },
        ),
    ] {
        let error = connect(settings).await;
        assert!(
            matches!(error, QueueError::Connect { .. }),
            "case {case}: {error}"
        );
        let hint = error.hint().unwrap_or_default();
        assert!(hint.contains("redis.tls_ca"), "case {case}: {error:?}");
    }
    for (case, settings, want) in [
        (
            "no such file",
            RedisSettings {
                tls_ca: Some(PathBuf::from("/nonexistent/ca.crt")),
                ..good.clone()
            },
            "cannot read \"/nonexistent/ca.crt\"".to_owned(),
        ),
        (
            "a file without a certificate",
            RedisSettings {
                tls_ca: Some(empty.clone()),
                ..good.clone()
            },
            format!("{empty:?} holds no CERTIFICATE in PEM form"),
        ),
        (
            "certificate and key the wrong way round",
            RedisSettings {
                tls_key: good.tls_cert.clone(),
                tls_cert: good.tls_key.clone(),
                ..good.clone()
            },
            format!(
                "{:?} holds no CERTIFICATE in PEM form",
                encrypted.certificates.file("client.key")
            ),
        ),
    ] {
        let error = connect(settings).await;
        assert_eq!(error.to_string(), want, "case {case}");
        assert!(!error.is_transient(), "case {case}");
        assert!(error.hint().is_some(), "case {case}");
    }
}
