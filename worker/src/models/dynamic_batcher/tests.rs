//! Tests of the call bookkeeping, without a server and without a clock.

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::*;

fn batcher(concurrency: u32, max_batch: u32, batch_wait_ms: u64) -> DynamicBatcher {
    let text = format!(
        "concurrency = {concurrency}\nmax_batch = {max_batch}\nbatch_wait_ms = {batch_wait_ms}\n\
         [server]\nstyle = \"python\"\nmodel = \"m:M\"\nmethod = \"f\"\nbatched = [\"f\", \"g\"]\n"
    );
    DynamicBatcher::new(&toml::from_str(&text).unwrap())
}

fn pending(
    method: &str,
    exclusive: bool,
    now: Instant,
) -> (PendingCall, UnboundedReceiver<CallEvent>) {
    let (events, inbox) = unbounded_channel();
    let pending = PendingCall {
        call: Call::Method {
            name: method.to_owned(),
            batched: true,
        },
        input: Value::from(method),
        size: 1,
        stream: false,
        exclusive,
        timeout: Duration::from_secs(1),
        chunk_bytes_left: 4,
        arrived: now,
        events,
    };
    (pending, inbox)
}

fn sent(next: BatcherAction) -> (u64, Vec<Value>) {
    match next {
        BatcherAction::Send(ToServer::Call { id, inputs, .. }) => (id, inputs),
        other => panic!("no call: {other:?}"),
    }
}

#[tokio::test]
async fn jobs_of_one_method_are_gathered_and_each_is_told_its_own() {
    let now = Instant::now();
    let mut batcher = batcher(1, 3, 5);
    let mut inbox = Vec::new();
    for method in ["f", "g", "f", "f", "f"] {
        let (pending, receiver) = pending(method, false, now);
        batcher.push(pending);
        inbox.push(receiver);
    }
    let (id, inputs) = sent(batcher.next(now));
    assert_eq!(inputs, ["f", "f", "f"], "a full batch does not wait");
    assert!(
        matches!(batcher.next(now), BatcherAction::Nothing),
        "the server is busy"
    );

    let exception = Exception {
        name: "E".to_owned(),
        message: String::new(),
        traceback: String::new(),
    };
    let value = |index, value: i32| FromServer::Result {
        id,
        index,
        value: value.into(),
    };
    assert!(!batcher.handle_message(value(2, 2), now).unwrap());
    assert!(
        !batcher
            .handle_message(
                FromServer::Error {
                    id,
                    index: 0,
                    exception
                },
                now
            )
            .unwrap()
    );
    assert!(
        batcher.handle_message(value(2, 2), now).is_err(),
        "answered before"
    );
    assert!(
        batcher.handle_message(value(9, 2), now).is_err(),
        "no such input"
    );
    assert!(
        batcher
            .handle_message(FromServer::Done { id }, now)
            .unwrap()
    );
    assert!(
        batcher
            .handle_message(FromServer::Done { id }, now)
            .is_err()
    );
    let mut last = |place: usize| {
        let receiver: &mut UnboundedReceiver<CallEvent> = &mut inbox[place];
        assert!(matches!(receiver.try_recv(), Ok(CallEvent::Started)));
        receiver.try_recv().unwrap()
    };
    assert!(matches!(last(0), CallEvent::Answer(Err(_))));
    assert!(matches!(last(2), CallEvent::Lost(_)), "never answered");
    assert!(matches!(last(3), CallEvent::Answer(Ok(_))));

    match batcher.next(now) {
        BatcherAction::At(when) => assert_eq!(when, now + Duration::from_millis(5)),
        other => panic!("it should wait for company: {other:?}"),
    }
    let (_, inputs) = sent(batcher.next(now + Duration::from_millis(5)));
    assert_eq!(inputs, ["g"]);
}

#[tokio::test]
async fn a_job_that_was_lost_before_is_asked_alone_and_one_that_left_not_at_all() {
    let now = Instant::now();
    let mut batcher = batcher(2, 8, 0);
    let mut inbox = Vec::new();
    for exclusive in [false, true, false] {
        let (pending, receiver) = pending("f", exclusive, now);
        batcher.push(pending);
        inbox.push(receiver);
    }
    inbox.remove(2);
    assert_eq!(sent(batcher.next(now)).1.len(), 1, "one left, one is alone");
    let (id, inputs) = sent(batcher.next(now));
    assert_eq!(inputs.len(), 1);
    assert!(batcher.abandoned_calls().is_empty());
    inbox.remove(1);
    assert_eq!(batcher.abandoned_calls(), [id]);
    assert!(batcher.abandoned_calls().is_empty(), "said once");
    batcher.server_lost("died");
    assert!(batcher.is_empty());
    assert!(matches!(inbox[0].try_recv(), Ok(CallEvent::Started)));
    assert!(matches!(inbox[0].try_recv(), Ok(CallEvent::Lost(_))));
}

#[tokio::test]
async fn pieces_beyond_what_is_kept_are_cut_at_a_character() {
    let now = Instant::now();
    let mut batcher = batcher(1, 1, 0);
    let (pending, mut inbox) = pending("f", false, now);
    batcher.push(pending);
    let (id, _) = sent(batcher.next(now));
    for text in ["aé", "éé"] {
        batcher
            .handle_message(
                FromServer::Chunk {
                    id,
                    text: text.to_owned(),
                },
                now,
            )
            .unwrap();
    }
    let mut pieces = Vec::new();
    let mut cut = 0;
    while let Ok(events) = inbox.try_recv() {
        match events {
            CallEvent::Chunk(text) => pieces.push(text),
            CallEvent::Truncated => cut += 1,
            _ => {}
        }
    }
    assert_eq!((pieces, cut), (vec!["aé".to_owned(), String::new()], 1));
}

#[tokio::test]
async fn who_comes_alone_waits_only_after_company() {
    let now = Instant::now();
    let later = now + Duration::from_millis(5);
    let mut batcher = batcher(1, 8, 5);
    let mut inbox = Vec::new();
    let mut come = |batcher: &mut DynamicBatcher| {
        let (pending, receiver) = pending("f", false, later);
        batcher.push(pending);
        inbox.push(receiver);
    };
    come(&mut batcher);
    assert!(
        matches!(batcher.next(later), BatcherAction::At(_)),
        "it is not known yet whether others come"
    );
    let (id, _) = sent(batcher.next(later + Duration::from_millis(5)));
    assert!(
        batcher
            .handle_message(FromServer::Done { id }, later)
            .unwrap()
    );
    come(&mut batcher);
    let (id, inputs) = sent(batcher.next(later));
    assert_eq!(inputs.len(), 1, "the last one was alone too");
    come(&mut batcher);
    assert!(
        matches!(batcher.next(later), BatcherAction::Nothing),
        "others may still join it"
    );
    assert!(
        batcher
            .handle_message(FromServer::Done { id }, later)
            .unwrap()
    );
    assert!(
        matches!(batcher.next(later), BatcherAction::At(_)),
        "two came at a time"
    );
}

#[tokio::test]
async fn a_full_batch_goes_ahead_and_costs_nothing_until_it_begins() {
    let now = Instant::now();
    let mut batcher = batcher(1, 2, 5);
    let mut inbox = Vec::new();
    for _ in 0..5 {
        let (pending, receiver) = pending("f", false, now);
        batcher.push(pending);
        inbox.push(receiver);
    }
    let (first, _) = sent(batcher.next(now));
    let (ahead, inputs) = sent(batcher.next(now));
    assert_eq!(inputs, ["f", "f"]);
    assert!(
        matches!(batcher.next(now), BatcherAction::Nothing),
        "one is enough"
    );
    assert_eq!((batcher.running(), batcher.waiting()), (2, 3));
    assert!(inbox[2].try_recv().is_err(), "its time does not run yet");

    batcher.server_lost("died");
    assert!(matches!(inbox[0].try_recv(), Ok(CallEvent::Started)));
    assert!(matches!(inbox[0].try_recv(), Ok(CallEvent::Lost(_))));
    assert!(inbox[2].try_recv().is_err(), "it had not begun");
    assert_eq!((batcher.running(), batcher.waiting()), (0, 3));

    let (second, inputs) = sent(batcher.next(now));
    assert!(second > ahead && ahead > first);
    assert_eq!(inputs, ["f", "f"], "put again with what they asked");
    assert!(matches!(inbox[2].try_recv(), Ok(CallEvent::Started)));
    assert!(
        inbox[4].try_recv().is_err(),
        "the last one waits for company"
    );
    let (pending, receiver) = pending("f", false, now);
    batcher.push(pending);
    inbox.push(receiver);
    let (third, _) = sent(batcher.next(now));
    assert!(
        batcher
            .handle_message(FromServer::Done { id: second }, now)
            .unwrap()
    );
    assert!(
        matches!(inbox[4].try_recv(), Ok(CallEvent::Started)),
        "its turn"
    );
    drop(inbox);
    assert_eq!(batcher.abandoned_calls(), [third]);
}

#[tokio::test]
async fn a_call_that_was_answered_is_not_cancelled() {
    let now = Instant::now();
    let mut batcher = batcher(1, 1, 0);
    let (pending, inbox) = pending("f", false, now);
    batcher.push(pending);
    let (id, _) = sent(batcher.next(now));
    let value = Value::Null;
    let answer = FromServer::Result {
        id,
        index: 0,
        value,
    };
    assert!(!batcher.handle_message(answer, now).unwrap());
    drop(inbox);
    assert!(
        batcher.abandoned_calls().is_empty(),
        "there is nothing to end"
    );
}
