//! Tests of the call bookkeeping, without a server and without a clock.

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::*;

fn calls(concurrency: u32, max_batch: u32, batch_wait_ms: u64) -> Calls {
    let text = format!(
        "concurrency = {concurrency}\nmax_batch = {max_batch}\nbatch_wait_ms = {batch_wait_ms}\n\
         [server]\nstyle = \"python\"\nmodel = \"m:M\"\nmethod = \"f\"\nbatched = [\"f\", \"g\"]\n"
    );
    Calls::new(&toml::from_str(&text).unwrap())
}

fn ask(method: &str, alone: bool, now: Instant) -> (Ask, UnboundedReceiver<Tell>) {
    let (tell, told) = unbounded_channel();
    let ask = Ask {
        call: Call::Method {
            name: method.to_owned(),
            batched: true,
        },
        input: Value::from(method),
        size: 1,
        stream: false,
        alone,
        timeout: Duration::from_secs(1),
        room: 4,
        arrived: now,
        tell,
    };
    (ask, told)
}

fn sent(next: Next) -> (u64, Vec<Value>) {
    match next {
        Next::Send(ToServer::Call { id, inputs, .. }) => (id, inputs),
        other => panic!("no call: {other:?}"),
    }
}

#[tokio::test]
async fn jobs_of_one_method_are_gathered_and_each_is_told_its_own() {
    let now = Instant::now();
    let mut calls = calls(1, 3, 5);
    let mut told = Vec::new();
    for method in ["f", "g", "f", "f", "f"] {
        let (ask, hears) = ask(method, false, now);
        calls.push(ask);
        told.push(hears);
    }
    let (id, inputs) = sent(calls.next(now));
    assert_eq!(inputs, ["f", "f", "f"], "a full batch does not wait");
    assert!(
        matches!(calls.next(now), Next::Nothing),
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
    assert!(!calls.hear(value(2, 2), now).unwrap());
    assert!(
        !calls
            .hear(
                FromServer::Error {
                    id,
                    index: 0,
                    exception
                },
                now
            )
            .unwrap()
    );
    assert!(calls.hear(value(2, 2), now).is_err(), "answered before");
    assert!(calls.hear(value(9, 2), now).is_err(), "no such input");
    assert!(calls.hear(FromServer::Done { id }, now).unwrap());
    assert!(calls.hear(FromServer::Done { id }, now).is_err());
    let mut last = |place: usize| {
        let hears: &mut UnboundedReceiver<Tell> = &mut told[place];
        assert!(matches!(hears.try_recv(), Ok(Tell::Started)));
        hears.try_recv().unwrap()
    };
    assert!(matches!(last(0), Tell::Answer(Err(_))));
    assert!(matches!(last(2), Tell::Lost(_)), "never answered");
    assert!(matches!(last(3), Tell::Answer(Ok(_))));

    match calls.next(now) {
        Next::At(when) => assert_eq!(when, now + Duration::from_millis(5)),
        other => panic!("it should wait for company: {other:?}"),
    }
    let (_, inputs) = sent(calls.next(now + Duration::from_millis(5)));
    assert_eq!(inputs, ["g"]);
}

#[tokio::test]
async fn a_job_that_was_lost_before_is_asked_alone_and_one_that_left_not_at_all() {
    let now = Instant::now();
    let mut calls = calls(2, 8, 0);
    let mut told = Vec::new();
    for alone in [false, true, false] {
        let (ask, hears) = ask("f", alone, now);
        calls.push(ask);
        told.push(hears);
    }
    told.remove(2);
    assert_eq!(sent(calls.next(now)).1.len(), 1, "one left, one is alone");
    let (id, inputs) = sent(calls.next(now));
    assert_eq!(inputs.len(), 1);
    assert!(calls.unwanted().is_empty());
    told.remove(1);
    assert_eq!(calls.unwanted(), [id]);
    assert!(calls.unwanted().is_empty(), "said once");
    calls.lose("died");
    assert!(calls.is_empty());
    assert!(matches!(told[0].try_recv(), Ok(Tell::Started)));
    assert!(matches!(told[0].try_recv(), Ok(Tell::Lost(_))));
}

#[tokio::test]
async fn pieces_beyond_what_is_kept_are_cut_at_a_character() {
    let now = Instant::now();
    let mut calls = calls(1, 1, 0);
    let (ask, mut told) = ask("f", false, now);
    calls.push(ask);
    let (id, _) = sent(calls.next(now));
    for text in ["aé", "éé"] {
        calls
            .hear(
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
    while let Ok(tell) = told.try_recv() {
        match tell {
            Tell::Piece(text) => pieces.push(text),
            Tell::Cut => cut += 1,
            _ => {}
        }
    }
    assert_eq!((pieces, cut), (vec!["aé".to_owned(), String::new()], 1));
}

#[tokio::test]
async fn who_comes_alone_waits_only_after_company() {
    let now = Instant::now();
    let later = now + Duration::from_millis(5);
    let mut calls = calls(1, 8, 5);
    let mut told = Vec::new();
    let mut come = |calls: &mut Calls| {
        let (ask, hears) = ask("f", false, later);
        calls.push(ask);
        told.push(hears);
    };
    come(&mut calls);
    assert!(
        matches!(calls.next(later), Next::At(_)),
        "nobody knows yet who comes"
    );
    let (id, _) = sent(calls.next(later + Duration::from_millis(5)));
    assert!(calls.hear(FromServer::Done { id }, later).unwrap());
    come(&mut calls);
    let (id, inputs) = sent(calls.next(later));
    assert_eq!(inputs.len(), 1, "the last one was alone too");
    come(&mut calls);
    assert!(
        matches!(calls.next(later), Next::Nothing),
        "others may still join it"
    );
    assert!(calls.hear(FromServer::Done { id }, later).unwrap());
    assert!(
        matches!(calls.next(later), Next::At(_)),
        "two came at a time"
    );
}

#[tokio::test]
async fn a_full_batch_goes_ahead_and_costs_nothing_until_it_begins() {
    let now = Instant::now();
    let mut calls = calls(1, 2, 5);
    let mut told = Vec::new();
    for _ in 0..5 {
        let (ask, hears) = ask("f", false, now);
        calls.push(ask);
        told.push(hears);
    }
    let (first, _) = sent(calls.next(now));
    let (ahead, inputs) = sent(calls.next(now));
    assert_eq!(inputs, ["f", "f"]);
    assert!(matches!(calls.next(now), Next::Nothing), "one is enough");
    assert_eq!((calls.running(), calls.waiting()), (2, 3));
    assert!(told[2].try_recv().is_err(), "its time does not run yet");

    calls.lose("died");
    assert!(matches!(told[0].try_recv(), Ok(Tell::Started)));
    assert!(matches!(told[0].try_recv(), Ok(Tell::Lost(_))));
    assert!(told[2].try_recv().is_err(), "it had not begun");
    assert_eq!((calls.running(), calls.waiting()), (0, 3));

    let (second, inputs) = sent(calls.next(now));
    assert!(second > ahead && ahead > first);
    assert_eq!(inputs, ["f", "f"], "put again with what they asked");
    assert!(matches!(told[2].try_recv(), Ok(Tell::Started)));
    assert!(
        told[4].try_recv().is_err(),
        "the last one waits for company"
    );
    let (ask, hears) = ask("f", false, now);
    calls.push(ask);
    told.push(hears);
    let (third, _) = sent(calls.next(now));
    assert!(calls.hear(FromServer::Done { id: second }, now).unwrap());
    assert!(matches!(told[4].try_recv(), Ok(Tell::Started)), "its turn");
    drop(told);
    assert_eq!(calls.unwanted(), [third]);
}

#[tokio::test]
async fn a_call_that_was_answered_is_not_cancelled() {
    let now = Instant::now();
    let mut calls = calls(1, 1, 0);
    let (ask, told) = ask("f", false, now);
    calls.push(ask);
    let (id, _) = sent(calls.next(now));
    let value = Value::Null;
    let answer = FromServer::Result {
        id,
        index: 0,
        value,
    };
    assert!(!calls.hear(answer, now).unwrap());
    drop(told);
    assert!(calls.unwanted().is_empty(), "there is nothing to end");
}
