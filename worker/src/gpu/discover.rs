//! Discovery of the machine's GPUs through the driver's management library (NVML).
//!
//! The library is loaded when the worker starts, not when the program is linked, so that the same
//! program runs on machines without it. A GPU that does not report its identity or its memory is
//! left out.

use std::ffi::OsStr;
use std::path::Path;

use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};
use sandhog_config::{GpuChoice, GpuSettings};
use sandhog_core::id::{Tag, clip};
use sandhog_core::units::ByteCount;

use super::model_tag::model_tag;
use sandhog_core::error_chain::error_chain;

/// Library that the system's loader searches if the settings name none.
const DEFAULT_LIBRARY: &str = "libnvidia-ml.so.1";

/// Maximum length of a text from the driver, in characters.
const MAX_TEXT_LENGTH: usize = 96;

/// NVML, loaded and initialised. It stays loaded until the process ends: unloading may fail and
/// gains nothing.
#[derive(Debug, Clone, Copy)]
pub(super) struct NvmlLibrary {
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
pub struct Discovery {
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
        source: Box<dyn std::error::Error + Send + Sync>,
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
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A setting names a GPU that does not exist.
    #[error("gpu.devices names {name:?}, which the driver does not know")]
    Unknown {
        /// The uuid or number.
        name: String,
    },
}

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

/// Finds the GPUs without assigning any. For `doctor`.
///
/// # Errors
/// If there is no library, it does not work, or a configured GPU does not exist.
pub async fn discover(settings: &GpuSettings) -> Result<Discovery, GpuError> {
    discover_with_library(settings.clone())
        .await
        .map(|(_, found)| found)
}

/// Same as [`discover`], and returns the library too.
pub(super) async fn discover_with_library(
    settings: GpuSettings,
) -> Result<(NvmlLibrary, Discovery), GpuError> {
    tokio::task::spawn_blocking(move || query_all(&settings))
        .await
        .unwrap_or_else(|panicked| {
            Err(GpuError::Broken {
                library: "the driver's library".to_owned(),
                step: "answer",
                source: panicked.into(),
            })
        })
}

/// Loads NVML and queries every GPU. May block for seconds, because drivers wake up slowly.
///
/// # Errors
/// If there is no library, it does not work, or a configured GPU does not exist.
fn query_all(settings: &GpuSettings) -> Result<(NvmlLibrary, Discovery), GpuError> {
    let library = load(settings.library.as_deref())?;
    let shown = library_name(settings.library.as_deref());
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
    let mut found = Discovery {
        driver: clip(&driver, MAX_TEXT_LENGTH),
        ..Discovery::default()
    };
    let mut seen: Vec<(u32, String)> = Vec::new();
    for number in 0..count {
        match nvml
            .device_by_index(number)
            .and_then(|device| query(number, &device))
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
                    .push(format!("gpu {number}: {}", error_chain(&error)));
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

/// Queries one GPU.
fn query(number: u32, device: &Device<'_>) -> Result<FoundGpu, NvmlError> {
    let name = clip(&device.name()?, MAX_TEXT_LENGTH);
    Ok(FoundGpu {
        number,
        uuid: clip(&device.uuid()?, MAX_TEXT_LENGTH),
        tag: model_tag(&name),
        name,
        memory: ByteCount(device.memory_info()?.total),
    })
}

fn load(path: Option<&Path>) -> Result<NvmlLibrary, GpuError> {
    let library = path.map_or(OsStr::new(DEFAULT_LIBRARY), Path::as_os_str);
    match Nvml::builder().lib_path(library).init() {
        Ok(nvml) => Ok(NvmlLibrary {
            nvml: Box::leak(Box::new(nvml)),
        }),
        Err(NvmlError::LibloadingError(source)) => Err(GpuError::NoLibrary {
            library: library_name(path),
            source: source.into(),
        }),
        Err(source) => Err(GpuError::Broken {
            library: library_name(path),
            step: "initialise",
            source: source.into(),
        }),
    }
}

/// Returns the name of the library for messages.
fn library_name(path: Option<&Path>) -> String {
    path.map_or_else(
        || DEFAULT_LIBRARY.to_owned(),
        |path| path.display().to_string(),
    )
}
