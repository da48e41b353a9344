//! The demand of one job for this worker's GPUs, from its payload, its image and its class.

use sandhog_core::class::Class;
use sandhog_core::gpu::{GpuNeed, GpuNeedError};
use sandhog_core::id::Tag;
use sandhog_core::units::ByteCount;

/// A demand for GPUs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demand {
    /// The number of GPUs.
    pub count: usize,
    /// The memory used on each; `None` for exclusive use.
    pub memory: Option<ByteCount>,
    /// Model tags, all of which each GPU must have. A GPU has one model, so in practice there is at
    /// most one.
    pub models: Vec<Tag>,
}

impl Demand {
    /// Returns a demand for GPUs of any model.
    #[must_use]
    pub fn of(need: GpuNeed) -> Self {
        Self {
            count: usize::try_from(need.count).unwrap_or(usize::MAX),
            memory: need.memory,
            models: Vec::new(),
        }
    }

    /// Returns the demand of a job of this class. `asks` tells whether the class is for GPUs, and
    /// `models` are the models of this worker's GPUs. If the class is for GPUs and neither job nor
    /// image says more, the demand is one GPU for exclusive use.
    pub(super) fn read(
        job: Option<GpuNeed>,
        image: Option<GpuNeed>,
        class: &Class,
        asks: bool,
        models: &[Tag],
    ) -> Result<Option<Self>, GpuNeedError> {
        let need = job.or(image);
        if !asks {
            return match need {
                None => Ok(None),
                Some(_) => Err(GpuNeedError::NotRouted {
                    class: class.clone(),
                }),
            };
        }
        let need = need.unwrap_or_default();
        need.check()?;
        let named = |model: &&Tag| class.tags().any(|tag| tag == model.as_str());
        Ok(Some(Self {
            models: models.iter().filter(named).cloned().collect(),
            ..Self::of(need)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_class_asks_and_the_payload_says_more() {
        let class = |text: &str| text.parse::<Class>().unwrap();
        let h100: Tag = "h100".parse().unwrap();
        let two = GpuNeed {
            count: 2,
            memory: None,
        };
        let read = |job, image, text: &str, asks| {
            Demand::read(job, image, &class(text), asks, std::slice::from_ref(&h100))
        };
        assert_eq!(read(None, None, "cpu", false), Ok(None));
        let plain = read(None, None, "gpu", true).unwrap().unwrap();
        assert_eq!(
            (plain.count, plain.memory, plain.models.len()),
            (1, None, 0)
        );
        let model = read(None, Some(two), "gpu+h100", true).unwrap().unwrap();
        assert_eq!((model.count, model.models), (2, vec![h100.clone()]));
        let own = read(Some(GpuNeed::default()), Some(two), "gpu", true);
        assert_eq!(own.unwrap().unwrap().count, 1, "the job's own need wins");
        for need in [(Some(two), None), (None, Some(two))] {
            let refused = read(need.0, need.1, "cpu", false).unwrap_err();
            assert_eq!(refused.code(), "gpu_not_routed");
        }
        let none = GpuNeed {
            count: 0,
            memory: None,
        };
        assert_eq!(
            read(Some(none), None, "gpu", true).unwrap_err().code(),
            "bad_gpu"
        );
    }
}
