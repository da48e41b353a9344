//! Choice of the runtime and the shape of containers, from the settings, the image, the job, and
//! the features that the runners of earlier containers reported.

use std::collections::HashSet;
use std::sync::Mutex;

use sandhog_config::SandboxSettings;
use sandhog_core::id::RuntimeName;
use sandhog_core::limits::Limits;
use sandhog_core::units::ByteCount;
use sandhog_protocol::frames::{CgroupSupport, Features};

use super::{CONTAINER_MEMORY, Image, SandboxError, Shape};

/// Memory of a container whose caps are a job's, in addition to the job's own: for the runner and
/// for the runtime's kernel, whose memory counts too.
const RUNTIME_MEMORY: ByteCount = ByteCount::mib(64);

/// Rules by which containers get their runtime and their shape.
#[derive(Debug)]
pub(super) struct ShapePolicy {
    settings: SandboxSettings,
    /// Runtimes under which the runner cannot cap the resources of a single cell.
    uncapped_runtimes: Mutex<HashSet<RuntimeName>>,
}

impl ShapePolicy {
    /// Creates a policy from the settings. It assumes that cells can be capped under each runtime.
    pub(super) fn new(settings: SandboxSettings) -> Self {
        Self {
            settings,
            uncapped_runtimes: Mutex::default(),
        }
    }

    /// Returns the runtime for a job of this image: the runtime that the job asks for if that is
    /// allowed, else the image's, else the configured one.
    ///
    /// # Errors
    /// [`SandboxError::RuntimeRefused`] if neither the image nor a setting lets jobs choose it.
    pub(super) fn runtime(
        &self,
        image: &Image,
        wish: Option<&RuntimeName>,
    ) -> Result<RuntimeName, SandboxError> {
        let settings = &self.settings;
        let own = image.contract.runtime.as_ref();
        let own = own.unwrap_or(&settings.runtime);
        match wish {
            Some(wish) if wish != own && !settings.job_runtimes.contains(wish) => {
                let allowed: Vec<&str> = std::iter::once(own)
                    .chain(&settings.job_runtimes)
                    .map(RuntimeName::as_str)
                    .collect();
                Err(SandboxError::RuntimeRefused {
                    runtime: wish.clone(),
                    allowed: allowed.join(", "),
                })
            }
            Some(wish) => Ok(wish.clone()),
            None => Ok(own.clone()),
        }
    }

    /// Returns the shape of this image's containers where cells have caps of their own: the caps
    /// from the settings.
    pub(super) fn shape(&self, image: &Image) -> Shape {
        let settings = &self.settings;
        let runtime = image.contract.runtime.as_ref();
        self.default_shape(runtime.unwrap_or(&settings.runtime))
    }

    /// Returns the shape of a container for a job with these caps under this runtime, as far as is
    /// known. Until the first container of a runtime has started, its cells are assumed to have
    /// caps of their own; the caller must call this again after the start.
    pub(super) fn shape_for(&self, runtime: &RuntimeName, limits: &Limits) -> Shape {
        let uncapped = self
            .uncapped_runtimes
            .lock()
            .expect("no code panics while it holds this lock")
            .contains(runtime);
        let default = self.default_shape(runtime);
        if uncapped {
            Shape {
                memory: ByteCount(limits.memory.0.saturating_add(RUNTIME_MEMORY.0)),
                cpu_millis: limits.cpu_millis,
                caps_the_job: true,
                ..default
            }
        } else {
            default
        }
    }

    fn default_shape(&self, runtime: &RuntimeName) -> Shape {
        let settings = &self.settings;
        Shape {
            runtime: runtime.clone(),
            memory: ByteCount(settings.memory.0.saturating_add(CONTAINER_MEMORY.0)),
            cpu_millis: settings.cpu_millis,
            pids: settings.pids,
            caps_the_job: false,
            gpus: Vec::new(),
        }
    }

    /// Records whether cells can be capped under this runtime, and logs once if they cannot.
    pub(super) fn record_features(&self, runtime: &RuntimeName, features: &Features) {
        if features.cgroup != CgroupSupport::None {
            return;
        }
        let new = self
            .uncapped_runtimes
            .lock()
            .expect("no code panics while it holds this lock")
            .insert(runtime.clone());
        if new {
            let missing = features.missing.join("; ");
            tracing::warn!(
                %runtime,
                missing,
                "cells cannot be capped here: each job gets its own container and starts cold"
            );
        }
    }
}
