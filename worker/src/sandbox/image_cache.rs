//! Cache of resolved images, which spares the provider one request for each job.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use sandhog_core::id::ImageName;

use super::Image;

/// Time for which the provider's answer about an image stays cached.
const IMAGE_CACHE_TTL: Duration = Duration::from_secs(2);

/// A cached image, and the time at which the provider reported it.
#[derive(Debug)]
struct CachedImage {
    at: Instant,
    image: Image,
}

/// The images that the provider reported, by the name that jobs use. Only images that exist are
/// cached: an attacker can send any number of names that do not exist.
#[derive(Debug, Default)]
pub(super) struct ImageCache {
    images: Mutex<HashMap<ImageName, CachedImage>>,
}

impl ImageCache {
    /// Returns the image if the provider reported it within the last two seconds.
    pub(super) fn fresh(&self, name: &ImageName) -> Option<Image> {
        self.entries()
            .get(name)
            .filter(|cached| cached.at.elapsed() < IMAGE_CACHE_TTL)
            .map(|cached| cached.image.clone())
    }

    /// Returns the image as it was last reported, however long ago; `None` if it never was.
    pub(super) fn last(&self, name: &ImageName) -> Option<Image> {
        self.entries().get(name).map(|cached| cached.image.clone())
    }

    /// Stores an image that the provider has just reported.
    pub(super) fn insert(&self, name: &ImageName, image: &Image) {
        let cached = CachedImage {
            at: Instant::now(),
            image: image.clone(),
        };
        self.entries().insert(name.clone(), cached);
    }

    /// Removes an image, so that the next resolution asks the provider.
    pub(super) fn remove(&self, name: &ImageName) {
        self.entries().remove(name);
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<ImageName, CachedImage>> {
        self.images
            .lock()
            .expect("no code panics while it holds this lock")
    }
}
