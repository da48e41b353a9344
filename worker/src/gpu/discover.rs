//! The GPUs of this machine, as the driver's management library (NVML) tells of them.
//!
//! It loads the library when the worker starts and not before, so that the same program runs where there is none. It
//! refuses to guess: a GPU that does not say who it is, or how much memory it has, is left out.

use std::ffi::OsStr;
use std::path::Path;

use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};
use sandhog_common::config::{GpuChoice, GpuSettings};
use sandhog_common::id::{Tag, clip};
use sandhog_common::units::ByteCount;

use super::model;
use crate::causes::with_causes;

/// What the system's loader is asked for when no library is named.
const LIBRARY: &str = "libnvidia-ml.so.1";

/// The most of a driver's text that is kept.
const KEPT: usize = 96;

/// NVML, loaded and begun. It stays so until the process ends: its own end may fail, and nothing is gained by it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Library {
    pub(super) nvml: &'static Nvml,
}

/// A GPU that may be given to jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundGpu {
    /// Its place among all that the driver knows.
    pub number: u32,
    /// What the driver calls it, after a restart too: `GPU-…`.
    pub uuid: String,
    /// What its maker calls it.
    pub name: String,
    /// The tag of its model; none where the name gives none.
    pub tag: Option<Tag>,
    /// Its memory.
    pub memory: ByteCount,
}

/// What there is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Found {
    /// The driver's version.
    pub driver: String,
    /// Those to give to jobs, in the driver's order.
    pub gpus: Vec<FoundGpu>,
    /// Those that did not say enough, and why.
    pub left_out: Vec<String>,
    /// Those that the settings leave out.
    pub not_chosen: u32,
}

/// Why there is nothing to look at.
#[derive(Debug, thiserror::Error)]
pub enum GpuError {
    /// There is no such library: no driver is installed.
    #[error("no {library} to load")]
    NoLibrary {
        /// What was looked for.
        library: String,
        /// What the loader said.
        #[source]
        source: Cause,
    },
    /// The library is there and does not work, as with a driver that is not loaded or of another version.
    #[error("{library} does not {step}")]
    Broken {
        /// The library.
        library: String,
        /// What it does not do.
        step: &'static str,
        /// What it said.
        #[source]
        source: Cause,
    },
    /// A setting names a GPU that is not there.
    #[error("gpu.devices names {name:?}, which the driver does not know")]
    Unknown {
        /// The uuid or number.
        name: String,
    },
}

/// A foreign error, kept only to be shown.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

impl GpuError {
    /// What a person can do about it.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::NoLibrary { .. } => {
                "install NVIDIA's driver, or set gpu.library to its libnvidia-ml.so.1"
            }
            Self::Broken { .. } => "does `nvidia-smi` work? after an update of the driver, restart",
            Self::Unknown { .. } => "`nvidia-smi -L` lists uuids and numbers",
        }
    }
}

/// Loads NVML and looks at every GPU. May block for seconds: drivers wake up slowly.
///
/// # Errors
/// When there is no library, it does not work, or a GPU that is set is not there.
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
        .map_err(broken("tell its version"))?;
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
            step: "begin",
            source: source.into(),
        }),
    }
}

fn name(path: Option<&Path>) -> String {
    path.map_or_else(|| LIBRARY.to_owned(), |path| path.display().to_string())
}
