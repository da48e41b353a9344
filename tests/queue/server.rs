//! Accepted Redis servers, and the facts that workers announce about themselves.

use sandhog_config::RedisSettings;
use sandhog_core::gpu::GpuFacts;
use sandhog_core::id::Namespace;
use sandhog_core::units::{ByteCount, Millis, UnixMillis};
use sandhog_queue::{PoolFacts, Queue, QueueError, WorkerFacts};
use sandhog_testkit::private_redis::{PrivateRedis, free_port};

use crate::fixture::{LEASE, QueueFixture, settings, worker};

#[tokio::test]
async fn an_evicting_server_is_refused_with_a_hint() {
    let redis = PrivateRedis::start(&[]);
    let fixture = QueueFixture::on(&redis, "evicting").await;
    let facts = fixture.queue.check().await.unwrap();
    assert_eq!(facts.eviction_policy, "noeviction");
    assert!(facts.appendonly);
    let _set: String = fixture
        .plain(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"])
        .await;
    let error = fixture.queue.check().await.unwrap_err();
    assert!(matches!(error, QueueError::Evicting { .. }), "{error}");
    assert!(error.hint().unwrap().contains("noeviction"));
    assert!(!error.is_transient());
}

#[tokio::test]
async fn a_server_that_is_not_there_is_an_error_with_a_hint() {
    let namespace = Namespace::default();
    let nobody = settings(&format!("redis://127.0.0.1:{}", free_port()));
    let error = Queue::connect(&nobody, &namespace).await.unwrap_err();
    assert!(error.is_transient());
    assert!(
        error.hint().unwrap().contains("start redis-server"),
        "{error}"
    );
    let error = Queue::connect(&RedisSettings::default(), &namespace)
        .await
        .unwrap_err();
    assert!(
        error.hint().unwrap().contains("SANDHOG_REDIS_URL"),
        "{error}"
    );
    let error = Queue::connect(&settings("http://:secret@x"), &namespace)
        .await
        .unwrap_err();
    assert!(!error.to_string().contains("secret"), "{error}");
}

#[tokio::test]
async fn workers_are_known_while_they_say_so() {
    let fixture = QueueFixture::shared("workers").await;
    let facts = |name: &str, busy: u32| WorkerFacts {
        id: worker(name),
        tags: ["cpu", "gpu"]
            .iter()
            .map(|tag| tag.parse().unwrap())
            .collect(),
        slots: 4,
        busy,
        draining: false,
        version: "0.1.0".into(),
        host: "a host".into(),
        pid: 42,
        started_at: UnixMillis(5),
        models: Vec::new(),
        pool: (busy > 0).then_some(PoolFacts {
            busy,
            idle: 3,
            ..PoolFacts::default()
        }),
        max_payload: Some(ByteCount::mib(1)),
        largest: (busy > 0).then(|| "m2048c4000".parse().unwrap()),
        reserved_for: (busy > 1).then(|| "cpu~m1024c1000".parse().unwrap()),
        gpus: vec![GpuFacts {
            uuid: "GPU-a".to_owned(),
            name: "NVIDIA H100 PCIe".to_owned(),
            tag: "h100".parse().ok(),
            memory: ByteCount::mib(80 << 10),
            memory_used: ByteCount(0),
            utilisation_percent: None,
            assigned: busy,
            failure: (busy > 0).then(|| "the driver has lost it".to_owned()),
        }],
    };
    fixture.queue.announce(&facts("b", 0), LEASE).await.unwrap();
    fixture.queue.announce(&facts("a", 1), LEASE).await.unwrap();
    fixture.queue.announce(&facts("a", 2), LEASE).await.unwrap();
    let known = fixture.queue.workers().await.unwrap();
    let said: Vec<_> = known.iter().map(|record| record.facts.clone()).collect();
    assert_eq!(said, [facts("a", 2), facts("b", 0)]);
    assert!(known[0].seen_at >= known[1].seen_at);

    fixture.queue.retire(&worker("b")).await.unwrap();
    assert_eq!(fixture.queue.workers().await.unwrap().len(), 1);
    let key = fixture.queue.keys().worker(&worker("a"));
    let _expired: i64 = fixture.plain(&["DEL", &key]).await;
    assert_eq!(fixture.queue.workers().await.unwrap().len(), 0);
    assert_eq!(
        fixture.queue.snapshot().await.unwrap().workers,
        1,
        "still listed"
    );
    assert_eq!(
        fixture
            .queue
            .maintain_fully(Millis(1000), 3)
            .await
            .unwrap()
            .workers_removed,
        1
    );
    assert_eq!(fixture.queue.snapshot().await.unwrap().workers, 0);
}
