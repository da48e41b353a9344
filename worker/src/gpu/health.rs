//! Health checks of the GPUs: a periodic sample of each, and the driver's own events in between.
//!
//! A GPU has failed if the driver has lost it, if three samples in a row fail, if its memory has
//! uncorrected errors, or if the driver raises an Xid that no program causes. It stays failed until
//! the worker is restarted: a GPU that answers again after such a failure cannot be trusted.
//!
//! The driver's calls may block, so they run on a thread of their own.

use std::time::Duration;

use nvml_wrapper::Device;
use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enum_wrappers::device::{EccCounter, MemoryError};
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::event::EventSet;
use sandhog_core::units::ByteCount;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_util::sync::CancellationToken;

use super::discover::{FoundGpu, NvmlLibrary};

/// Number of failed samples in a row, for a reason that may be temporary, after which a GPU has
/// failed.
const MAX_MISSED_SAMPLES: u32 = 3;

/// Xids that a program causes, by an invalid access or an endless kernel. NVIDIA's device plugin
/// for Kubernetes also leaves a GPU in service after these.
const PROGRAM_XIDS: [u64; 6] = [13, 31, 43, 45, 68, 109];

/// Measurements of one GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct GpuSample {
    pub(super) memory_used: ByteCount,
    pub(super) utilisation_percent: Option<u32>,
}

/// Message of the health thread.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HealthEvent {
    /// The measurements of the GPU at this index.
    Sampled(usize, GpuSample),
    /// The GPU at this index has failed, with the reason.
    Failed(usize, String),
}

/// Watches these GPUs on a separate thread until `stop`. Events from this call on are noticed. If
/// the returned channel closes before `stop`, the thread has died. May block for a moment.
///
/// # Errors
/// If the thread cannot be created.
pub(super) fn watch(
    library: NvmlLibrary,
    gpus: &[FoundGpu],
    every: Duration,
    stop: CancellationToken,
) -> std::io::Result<UnboundedReceiver<HealthEvent>> {
    let (events, received) = unbounded_channel();
    let watch = HealthWatch::new(library, gpus, events);
    std::thread::Builder::new()
        .name("gpu-health".to_owned())
        .spawn(move || watch.run(every, &stop))?;
    Ok(received)
}

/// One GPU under watch.
struct WatchedGpu {
    uuid: String,
    device: Result<Device<'static>, NvmlError>,
    /// Uncorrected memory errors when the watch began; `None` if the GPU does not count them.
    errors: Option<u64>,
    misses: u32,
}

struct HealthWatch {
    gpus: Vec<WatchedGpu>,
    alarms: Option<EventSet<'static>>,
    events: UnboundedSender<HealthEvent>,
}

impl HealthWatch {
    fn new(library: NvmlLibrary, gpus: &[FoundGpu], events: UnboundedSender<HealthEvent>) -> Self {
        let gpu = |gpu: &FoundGpu| {
            let device = library.nvml.device_by_uuid(gpu.uuid.clone());
            WatchedGpu {
                errors: device.as_ref().ok().and_then(uncorrected),
                uuid: gpu.uuid.clone(),
                device,
                misses: 0,
            }
        };
        let gpus: Vec<WatchedGpu> = gpus.iter().map(gpu).collect();
        Self {
            alarms: alarms(library, &gpus),
            gpus,
            events,
        }
    }

    fn run(mut self, every: Duration, stop: &CancellationToken) {
        let every_ms = u32::try_from(every.as_millis()).unwrap_or(u32::MAX);
        while !stop.is_cancelled() && !self.events.is_closed() {
            for (index, gpu) in self.gpus.iter_mut().enumerate() {
                // Sending fails if the worker has stopped listening; the loop then ends.
                drop(self.events.send(gpu.next_event(index)));
            }
            match self.alarms.as_ref().map(|alarms| alarms.wait(every_ms)) {
                Some(Ok(event)) => {
                    let uuid = event.device.uuid().unwrap_or_default();
                    self.alarm(&uuid, event.event_data.as_ref());
                }
                Some(Err(NvmlError::Timeout)) => {}
                Some(Err(_)) | None => std::thread::sleep(every),
            }
        }
        // Freeing the event set may fail, and aborts the process if the library lacks the call.
        std::mem::forget(self.alarms);
    }

    fn alarm(&self, uuid: &str, xid: Option<&XidError>) {
        let Some(why) = xid.and_then(failure_of) else {
            return;
        };
        for (index, gpu) in self.gpus.iter().enumerate() {
            // An event without a known uuid may belong to any GPU; the next sample tells.
            if gpu.uuid == uuid {
                drop(self.events.send(HealthEvent::Failed(index, why.clone())));
            }
        }
    }
}

impl WatchedGpu {
    fn next_event(&mut self, index: usize) -> HealthEvent {
        match self.sample() {
            Ok(sample) => {
                self.misses = 0;
                HealthEvent::Sampled(index, sample)
            }
            Err(SampleError::Failed(why)) => HealthEvent::Failed(index, why),
            Err(SampleError::Missed(why)) => {
                self.misses += 1;
                if self.misses < MAX_MISSED_SAMPLES {
                    HealthEvent::Sampled(index, GpuSample::default())
                } else {
                    HealthEvent::Failed(
                        index,
                        format!("it could not be read {MAX_MISSED_SAMPLES} times: {why}"),
                    )
                }
            }
        }
    }

    fn sample(&self) -> Result<GpuSample, SampleError> {
        let device = self.device.as_ref().map_err(sample_error)?;
        let memory = device.memory_info().map_err(|error| sample_error(&error))?;
        let utilisation = match device.utilization_rates() {
            Ok(rates) => Some(rates.gpu),
            Err(error @ (NvmlError::GpuLost | NvmlError::ResetRequired)) => {
                return Err(sample_error(&error));
            }
            Err(_not_supported) => None,
        };
        let errors = uncorrected(device);
        if let (Some(before), Some(now)) = (self.errors, errors)
            && now > before
        {
            let more = now - before;
            return Err(SampleError::Failed(format!(
                "its memory has {more} uncorrected errors"
            )));
        }
        Ok(GpuSample {
            memory_used: ByteCount(memory.used),
            utilisation_percent: utilisation,
        })
    }
}

/// Reason why a sample failed.
enum SampleError {
    Failed(String),
    /// Possibly temporary: the next sample may succeed.
    Missed(String),
}

fn sample_error(error: &NvmlError) -> SampleError {
    match error {
        NvmlError::GpuLost => SampleError::Failed("the driver has lost it".to_owned()),
        NvmlError::ResetRequired => SampleError::Failed("it needs a reset".to_owned()),
        other => SampleError::Missed(other.to_string()),
    }
}

/// Returns the number of uncorrected memory errors since the driver was loaded; `None` if the GPU
/// does not count them.
fn uncorrected(device: &Device<'_>) -> Option<u64> {
    device
        .total_ecc_errors(MemoryError::Uncorrected, EccCounter::Volatile)
        .ok()
}

/// Returns the failure that an Xid means; `None` if it means none.
fn failure_of(xid: &XidError) -> Option<String> {
    match xid {
        XidError::Value(number) if PROGRAM_XIDS.contains(number) => None,
        XidError::Value(number) => Some(format!("the driver raised Xid {number}")),
        XidError::Unknown => Some("the driver raised an unknown Xid".to_owned()),
    }
}

/// Registers for the driver's events of every GPU that supports them; returns `None` if no GPU
/// does. If registering one GPU invalidates the set, a new set is made without that GPU.
fn alarms(library: NvmlLibrary, gpus: &[WatchedGpu]) -> Option<EventSet<'static>> {
    let mut able: Vec<&Device<'static>> = Vec::new();
    able.extend(gpus.iter().filter_map(|gpu| gpu.device.as_ref().ok()));
    while !able.is_empty() {
        let set = library.nvml.create_event_set().ok()?;
        let grown = able.iter().enumerate().try_fold(set, |set, (at, device)| {
            let grown = device.register_events(EventTypes::CRITICAL_XID_ERROR, set);
            grown.map_err(|error| (at, error))
        });
        match grown {
            Ok(set) => return Some(set),
            Err((at, error)) => {
                tracing::debug!(%error, "a gpu raises no alarms");
                able.remove(at);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_no_program_causes_is_a_failure() {
        for (xid, fails) in [
            (13, false),
            (31, false),
            (43, false),
            (48, true),
            (79, true),
        ] {
            let why = failure_of(&XidError::Value(xid));
            assert_eq!(why.is_some(), fails, "Xid {xid}");
        }
        assert!(failure_of(&XidError::Unknown).is_some());
    }
}
