//! The number that autoscalers read: the lag of the workers' consumer group on the tickets of a
//! class.

use std::collections::HashMap;

use redis::{Value, from_redis_value};
use sandhog_core::class::Class;
use sandhog_core::submission::Routing;
use sandhog_queue::{BoundJob, FinishReply};

use crate::fixture::{QueueFixture, payload, success, worker};

impl QueueFixture {
    /// Returns the lag as an exporter reads it: the field `lag` of `XINFO GROUPS`. Redis replies
    /// nil if it cannot compute it.
    async fn lag(&self) -> Option<u64> {
        let tickets = self.space.keys().tickets(&Class::default());
        let groups: Vec<HashMap<String, Value>> = self.plain(&["XINFO", "GROUPS", &tickets]).await;
        let group = groups.first().expect("the group is there");
        from_redis_value(group.get("lag").expect("the group has a lag").clone())
            .expect("a lag is a number or nil")
    }

    async fn settle(&self, job: &BoundJob) {
        let reply = self.queue.finish(&job.lease, success(&job.lease.id)).await;
        assert_eq!(reply.unwrap(), FinishReply::Settled);
    }
}

#[tokio::test]
async fn the_lag_is_what_waits_and_never_unknown() {
    let fixture = QueueFixture::shared("lag").await;
    let jobs = vec![(Routing::default(), payload()); 20];
    let ids = fixture.queue.submit_many(&jobs).await.unwrap();
    fixture.admit().await;
    assert_eq!(fixture.lag().await, Some(20));

    let one = worker("one");
    let mut running = Vec::new();
    for _ in 0..5 {
        running.push(fixture.claim(&one).await.expect("a job is ready"));
    }
    assert_eq!(fixture.lag().await, Some(15), "running jobs do not count");
    for job in running {
        fixture.settle(&job).await;
    }
    assert_eq!(fixture.lag().await, Some(15), "ended jobs do not count");

    // The ticket of a cancelled job remains until a worker reads it: the lag is then too high, but
    // still a number.
    let last = ids.last().expect("there are jobs");
    fixture.queue.cancel_now(last).await.unwrap();
    assert_eq!(fixture.lag().await, Some(15));
    while let Some(job) = fixture.claim(&one).await {
        fixture.settle(&job).await;
    }
    assert_eq!(fixture.lag().await, Some(0));
}
