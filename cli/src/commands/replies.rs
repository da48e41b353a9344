//! `sandhog wait --reply`: reads the results of many jobs from one reply stream.
//!
//! A reply stream is bounded, so a late reader may miss its oldest entries. The results of named
//! jobs are then looked up by id, and `--count` includes the entries that have left the stream.

use std::collections::BTreeSet;
use std::time::Duration;

use sandhog_core::id::{JobId, ReplyName};
use sandhog_core::outcome::JobResult;
use sandhog_producer::{Client, ClientError};
use sandhog_queue::{IntakeTail, JobLookup, JobReply, ReplyReader};

use super::ids::Ids;
use super::tally::Tally;
use super::unknown_job::unknown_job;
use crate::context::AppContext;
use crate::error::CliError;
use crate::exit::Exit;

/// Time without a reply after which the results are looked up by job id.
const LOOKUP_IDLE: Duration = Duration::from_secs(2);

/// Waits for the named jobs. If no job is named, waits for `count` results, or for ever without a
/// count.
///
/// # Errors
/// If Redis cannot be reached, or if results left the stream unread and no job is named.
pub(super) async fn wait_for_replies(
    app: &AppContext,
    client: &Client,
    name: &ReplyName,
    count: Option<u64>,
    ids: &mut Ids,
) -> Result<Exit, CliError> {
    let mut reader = client.queue().reply_reader(name).await?;
    // Waiting leaves the entries in the stream, so that other readers get them too.
    reader.leave_entries();
    let mut wanted = BTreeSet::new();
    while let Some(id) = ids.next().await? {
        wanted.insert(id);
    }
    if wanted.is_empty() {
        return print_replies(app, client, name, &mut reader, count).await;
    }
    let mut tally = Tally::default();
    while !wanted.is_empty() {
        let batch = reader.next(LOOKUP_IDLE).await?;
        let is_idle = batch.replies.is_empty();
        for JobReply { id, result, .. } in batch.replies {
            if wanted.remove(&id) {
                tally.result(app, &id, &decode(&id, &result)?)?;
            }
        }
        if batch.gap || is_idle {
            look_up_results(app, client, &mut wanted, &mut tally).await?;
        }
    }
    Ok(tally.exit())
}

/// Looks up the results of jobs by id, and reports the jobs that are unknown.
async fn look_up_results(
    app: &AppContext,
    client: &Client,
    wanted: &mut BTreeSet<JobId>,
    tally: &mut Tally,
) -> Result<(), CliError> {
    let ids: Vec<JobId> = wanted.iter().cloned().collect();
    let sights = client
        .queue()
        .look_up(&ids, &mut IntakeTail::default())
        .await?;
    let have = client.queue().have_results(&ids).await?;
    for ((id, has_result), sight) in ids.into_iter().zip(have).zip(sights) {
        let result = if has_result {
            client.result(&id).await?
        } else {
            None
        };
        if let Some(result) = result {
            tally.result(app, &id, &result)?;
        } else if sight == JobLookup::Unknown {
            tally.unknown(app, &unknown_job(&id));
        } else {
            continue;
        }
        wanted.remove(&id);
    }
    Ok(())
}

/// Prints results as they arrive, until there are `count`, including those that left the stream.
async fn print_replies(
    app: &AppContext,
    client: &Client,
    name: &ReplyName,
    reader: &mut ReplyReader,
    count: Option<u64>,
) -> Result<Exit, CliError> {
    let mut tally = Tally::default();
    let left = client.queue().reply_entries_removed(name).await?;
    let missed = left.unwrap_or(0);
    let mut seen = missed;
    // `left` already counts the entries that are missing before the first one.
    let mut is_counted = left.is_some();
    while count.is_none_or(|count| seen < count) {
        let batch = reader.next(LOOKUP_IDLE).await?;
        if batch.gap && !is_counted {
            return Err(lost(name, "some"));
        }
        is_counted &= batch.replies.is_empty();
        for JobReply { id, result, .. } in batch.replies {
            tally.result(app, &id, &decode(&id, &result)?)?;
            seen += 1;
        }
    }
    if missed > 0 {
        return Err(lost(name, &missed.to_string()));
    }
    Ok(tally.exit())
}

fn decode(id: &JobId, bytes: &[u8]) -> Result<JobResult, ClientError> {
    sandhog_producer::decode(id, bytes)
}

fn lost(name: &ReplyName, results: &str) -> CliError {
    let text = format!("{results} results left reply stream {name} before they were read");
    CliError::message(Exit::Unsuccessful, text)
        .hint("name the jobs, for example with `-`; their results are then looked up by id")
}
