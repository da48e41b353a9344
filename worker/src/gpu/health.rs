//! Whether the GPUs are well: a look at each every so often, and the driver's own alarms in between.
//!
//! A GPU has failed when the driver has lost it, when it cannot be read three times in a row, when its memory has errors
//! that were not corrected, or when the driver raises an Xid that no program causes. It stays failed until the worker is
//! started anew: what such a GPU computes is not to be trusted because it answers again.
//!
//! The driver's calls may block, so they have a thread of their own.

use std::time::Duration;

use nvml_wrapper::Device;
use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enum_wrappers::device::{EccCounter, MemoryError};
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::event::EventSet;
use sandhog_common::units::ByteCount;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_util::sync::CancellationToken;

use super::discover::{FoundGpu, Library};

/// How often in a row a GPU may not be readable for a reason that may pass.
const MISSES: u32 = 3;

/// Xids that a program causes, by a bad access or an endless kernel: NVIDIA's device plugin for Kubernetes leaves a GPU
/// in service after these too.
const OF_PROGRAMS: [u64; 6] = [13, 31, 43, 45, 68, 109];

/// What was seen of one GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Reading {
    pub(super) memory_used: ByteCount,
    pub(super) utilisation_percent: Option<u32>,
}

/// What the thread that watches has to say.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Report {
    /// How the GPU at this place is.
    Read(usize, Reading),
    /// That it has failed, and why.
    Failed(usize, String),
}

/// Watches these GPUs from a thread of its own until `stop`; what happens from this call on is noticed. When the answer
/// ends before, the thread has died. May block for a moment.
///
/// # Errors
/// When there is no thread to be had.
pub(super) fn watch(
    library: Library,
    gpus: &[FoundGpu],
    every: Duration,
    stop: CancellationToken,
) -> std::io::Result<UnboundedReceiver<Report>> {
    let (say, heard) = unbounded_channel();
    let watch = Watch::new(library, gpus, say);
    std::thread::Builder::new()
        .name("gpu-health".to_owned())
        .spawn(move || watch.run(every, &stop))?;
    Ok(heard)
}

/// One GPU under watch.
struct Patient {
    uuid: String,
    device: Result<Device<'static>, NvmlError>,
    /// Uncorrected memory errors when the watch began; none where they are not counted.
    errors: Option<u64>,
    misses: u32,
}

struct Watch {
    patients: Vec<Patient>,
    alarms: Option<EventSet<'static>>,
    say: UnboundedSender<Report>,
}

impl Watch {
    fn new(library: Library, gpus: &[FoundGpu], say: UnboundedSender<Report>) -> Self {
        let patient = |gpu: &FoundGpu| {
            let device = library.nvml.device_by_uuid(gpu.uuid.clone());
            Patient {
                errors: device.as_ref().ok().and_then(uncorrected),
                uuid: gpu.uuid.clone(),
                device,
                misses: 0,
            }
        };
        let patients: Vec<Patient> = gpus.iter().map(patient).collect();
        Self {
            alarms: alarms(library, &patients),
            patients,
            say,
        }
    }

    fn run(mut self, every: Duration, stop: &CancellationToken) {
        let every_ms = u32::try_from(every.as_millis()).unwrap_or(u32::MAX);
        while !stop.is_cancelled() && !self.say.is_closed() {
            for (place, patient) in self.patients.iter_mut().enumerate() {
                // Nobody listens any more: the worker has stopped.
                drop(self.say.send(patient.report(place)));
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
        // Ending a set of events may fail, and takes the process with it where the library lacks the call.
        std::mem::forget(self.alarms);
    }

    fn alarm(&self, uuid: &str, xid: Option<&XidError>) {
        let Some(why) = xid.and_then(failure_of) else {
            return;
        };
        for (place, patient) in self.patients.iter().enumerate() {
            // One that does not even say which it is may be any of them; the next look tells.
            if patient.uuid == uuid {
                drop(self.say.send(Report::Failed(place, why.clone())));
            }
        }
    }
}

impl Patient {
    fn report(&mut self, place: usize) -> Report {
        match self.look() {
            Ok(reading) => {
                self.misses = 0;
                Report::Read(place, reading)
            }
            Err(Look::Failed(why)) => Report::Failed(place, why),
            Err(Look::Missed(why)) => {
                self.misses += 1;
                if self.misses < MISSES {
                    Report::Read(place, Reading::default())
                } else {
                    Report::Failed(place, format!("it could not be read {MISSES} times: {why}"))
                }
            }
        }
    }

    fn look(&self) -> Result<Reading, Look> {
        let device = self.device.as_ref().map_err(judge)?;
        let memory = device.memory_info().map_err(|error| judge(&error))?;
        let utilisation = match device.utilization_rates() {
            Ok(rates) => Some(rates.gpu),
            Err(error @ (NvmlError::GpuLost | NvmlError::ResetRequired)) => {
                return Err(judge(&error));
            }
            Err(_not_told) => None,
        };
        let errors = uncorrected(device);
        if let (Some(before), Some(now)) = (self.errors, errors)
            && now > before
        {
            let more = now - before;
            return Err(Look::Failed(format!(
                "its memory has {more} uncorrected errors"
            )));
        }
        Ok(Reading {
            memory_used: ByteCount(memory.used),
            utilisation_percent: utilisation,
        })
    }
}

/// Why a look told nothing good.
enum Look {
    Failed(String),
    /// It may tell next time.
    Missed(String),
}

fn judge(error: &NvmlError) -> Look {
    match error {
        NvmlError::GpuLost => Look::Failed("the driver has lost it".to_owned()),
        NvmlError::ResetRequired => Look::Failed("it needs a reset".to_owned()),
        other => Look::Missed(other.to_string()),
    }
}

/// Memory errors since the driver was loaded that were not corrected; none where they are not counted.
fn uncorrected(device: &Device<'_>) -> Option<u64> {
    device
        .total_ecc_errors(MemoryError::Uncorrected, EccCounter::Volatile)
        .ok()
}

/// Why a GPU that raises this has failed; none when it has not.
fn failure_of(xid: &XidError) -> Option<String> {
    match xid {
        XidError::Value(number) if OF_PROGRAMS.contains(number) => None,
        XidError::Value(number) => Some(format!("the driver raised Xid {number}")),
        XidError::Unknown => Some("the driver raised an unknown Xid".to_owned()),
    }
}

/// The driver's alarms for every GPU that has some; none when none has. A set that one of them spoils is made anew
/// without it.
fn alarms(library: Library, patients: &[Patient]) -> Option<EventSet<'static>> {
    let mut able: Vec<&Device<'static>> = Vec::new();
    able.extend(
        patients
            .iter()
            .filter_map(|patient| patient.device.as_ref().ok()),
    );
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
