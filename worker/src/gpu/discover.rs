//! Discovery of the machine's GPUs through the driver's management library (NVML).
//!
//! The library is loaded when the worker starts, not when the program is linked, so that the same
//! program runs on machines without it. A GPU that does not report its identity or its memory is
//! left out.

use std::ffi::OsStr;
use std::path::Path;

use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};
use sandhog_common::config::{GpuChoice, GpuSettings};
use sandhog_common::id::{Tag, clip};
use sandhog_common::units::ByteCount;

use super::model;
use crate::causes::with_causes;

/// Library that the system's loader searches if the settings name none.
const LIBRARY: &str = "libnvidia-ml.so.1";

/// Maximum length of a text from the driver, in characters.
const KEPT: usize = 96;

/// NVML, loaded and initialised. It stays loaded until the process ends: unloading may fail and
/// gains nothing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Library {
    pub(super) nvml: &'static Nvml,
}

/// A GPU that may be given to jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundGpu {
    /// Its index among all GPUs of the driver.
    pub number: u32,
    /// The driver's name for it, which is stable across restarts: `GPU-…`.
    pub uuid: String,
    /// The product name given by the manufacturer.
    pub name: String,
    /// The tag of its model; `None` if the name yields none.
    pub tag: Option<Tag>,
    /// Its memory.
    pub memory: ByteCount,
}

/// Result of the discovery.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Found {
    /// The driver's version.
    pub driver: String,
    /// The GPUs to assign to jobs, in the driver's order.
    pub gpus: Vec<FoundGpu>,
    /// The GPUs that reported too little, each with the reason.
    pub left_out: Vec<String>,
    /// The number of GPUs excluded by the settings.
    pub not_chosen: u32,
}

/// Reason why no GPUs can be discovered.
#[derive(Debug, thiserror::Error)]
pub enum GpuError {
    /// The library does not exist: no driver is installed.
    #[error("no {library} to load")]
    NoLibrary {
        /// The library.
        library: String,
        /// The loader's error.
        #[source]
        source: Cause,
    },
    /// The library exists but does not work, for example because the driver is not loaded or has
    /// another version.
    #[error("{library} failed to {step}")]
    Broken {
        /// The library.
        library: String,
        /// The operation that failed.
        step: &'static str,
        /// The library's error.
        #[source]
        source: Cause,
    },
    /// A setting names a GPU that does not exist.
    #[error("gpu.devices names {name:?}, which the driver does not know")]
    Unknown {
        /// The uuid or number.
        name: String,
    },
}

/// An error of another library, kept only for display.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

impl GpuError {
    /// Returns advice for the operator.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::NoLibrary { .. } => {
                "install NVIDIA's driver, or set gpu.library to its libnvidia-ml.so.1"
            }
            Self::Broken { .. } => {
                "check that `nvidia-smi` works; restart the machine after a driver update"
            }
            Self::Unknown { .. } => "`nvidia-smi -L` lists uuids and numbers",
        }
    }
}

/// Loads NVML and queries every GPU. May block for seconds, because drivers wake up slowly.
///
/// # Errors
/// If there is no library, it does not work, or a configured GPU does not exist.
pub(super) fn discover(settings: &GpuSettings) -> Result<(Library, Found), GpuError> {
    let library = load(settings.library.as_deref())?;
    let shown = name(settings.library.as_deref());
    let broken = |step| {
        move |source: NvmlError| GpuError::Broken {
            library: shown.clone(),
            step,
            source: source.into(),
        }
    };
    let nvml = library.nvml;
    let count = nvml.device_count().map_err(broken.clone()("count GPUs"))?;
    let driver = nvml
        .sys_driver_version()
        .map_err(broken("report its version"))?;
    let mut found = Found {
        driver: clip(&driver, KEPT),
        ..Found::default()
    };
    let mut seen: Vec<(u32, String)> = Vec::new();
    for number in 0..count {
        match nvml
            .device_by_index(number)
            .and_then(|device| look(number, &device))
        {
            Ok(gpu) => {
                seen.push((number, gpu.uuid.clone()));
                if settings.devices.takes(&gpu.uuid, number) {
                    found.gpus.push(gpu);
                } else {
                    found.not_chosen += 1;
                }
            }
            Err(error) => {
                seen.push((number, String::new()));
                found
                    .left_out
                    .push(format!("gpu {number}: {}", with_causes(&error)));
            }
        }
    }
    match &settings.devices {
        GpuChoice::All | GpuChoice::None => {}
        GpuChoice::Some(names) => {
            let known = |name: &&String| {
                !seen
                    .iter()
                    .any(|(number, uuid)| *name == uuid || **name == number.to_string())
            };
            if let Some(name) = names.iter().find(known) {
                return Err(GpuError::Unknown { name: name.clone() });
            }
        }
    }
    Ok((library, found))
}

fn look(number: u32, device: &Device<'_>) -> Result<FoundGpu, NvmlError> {
    let name = clip(&device.name()?, KEPT);
    Ok(FoundGpu {
        number,
        uuid: clip(&device.uuid()?, KEPT),
        tag: model::tag(&name),
        name,
        memory: ByteCount(device.memory_info()?.total),
    })
}

fn load(path: Option<&Path>) -> Result<Library, GpuError> {
    let library = path.map_or(OsStr::new(LIBRARY), Path::as_os_str);
    match Nvml::builder().lib_path(library).init() {
        Ok(nvml) => Ok(Library {
            nvml: Box::leak(Box::new(nvml)),
        }),
        Err(NvmlError::LibloadingError(source)) => Err(GpuError::NoLibrary {
            library: name(path),
            source: source.into(),
        }),
        Err(source) => Err(GpuError::Broken {
            library: name(path),
            step: "initialise",
            source: source.into(),
        }),
    }
}

fn name(path: Option<&Path>) -> String {
    path.map_or_else(|| LIBRARY.to_owned(), |path| path.display().to_string())
}
