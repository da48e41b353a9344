//! Metrics of a bounded number of a queue's classes. The number is bounded because submitters
//! choose the names of classes.

use std::collections::BTreeMap;

use metrics::gauge;
use sandhog_core::class::Class;
use sandhog_core::id::Namespace;
use sandhog_core::units::Millis;
use sandhog_queue::{Snapshot, Unroutable};

use super::catalogue::{HELD_BACK, OLDEST, READY, RUNNING, UNROUTABLE};
use super::gauge_value::gauge_value;
use super::queue::set_queue;

/// Maximum number of classes with metrics of their own among those that this worker serves.
const MAX_SERVED_LABELS: usize = 100;

/// Maximum number of classes with metrics of their own among the others.
const MAX_OTHER_LABELS: usize = 20;

/// Label value for all classes without metrics of their own. No class can have this name.
const OTHER_LABEL: &str = "(other)";

/// The classes of one namespace that have metrics of their own: the first ones that this process
/// saw. The figures of all other classes are added up under one label.
#[derive(Debug, Default)]
pub(crate) struct ClassLabels {
    known: BTreeMap<String, bool>,
}

/// The figures of one label.
#[derive(Debug, Clone, Copy, Default)]
struct ClassFigures {
    oldest: Millis,
    ready: u64,
    held_back: u64,
    running: u64,
    unroutable: u64,
}

impl ClassLabels {
    /// Sets the gauges of a namespace. `serves` tells whether this worker serves a class.
    pub(crate) fn measure(
        &mut self,
        namespace: &Namespace,
        snapshot: &Snapshot,
        unroutable: &[Unroutable],
        serves: impl Fn(&Class) -> bool,
    ) {
        set_queue(namespace, snapshot);
        for (label, figures) in self.figures_by_label(snapshot, unroutable, serves) {
            let namespace = namespace.to_string();
            for (name, value) in [
                (OLDEST, figures.oldest.duration().as_secs_f64()),
                (READY, gauge_value(figures.ready)),
                (HELD_BACK, gauge_value(figures.held_back)),
                (RUNNING, gauge_value(figures.running)),
                (UNROUTABLE, gauge_value(figures.unroutable)),
            ] {
                gauge!(name, "namespace" => namespace.clone(), "class" => label.clone()).set(value);
            }
        }
    }

    /// Returns the figures of every known label, including labels whose classes no longer exist.
    fn figures_by_label(
        &mut self,
        snapshot: &Snapshot,
        unroutable: &[Unroutable],
        serves: impl Fn(&Class) -> bool,
    ) -> BTreeMap<String, ClassFigures> {
        let mut labels = Vec::with_capacity(snapshot.classes.len());
        for depth in &snapshot.classes {
            labels.push(self.label(&depth.class, &serves));
        }
        let mut figures_by_label: BTreeMap<String, ClassFigures> = (self.known.keys())
            .map(|label| (label.clone(), ClassFigures::default()))
            .collect();
        for (label, depth) in labels.into_iter().zip(&snapshot.classes) {
            let figures = figures_by_label.entry(label).or_default();
            figures.oldest = figures.oldest.max(depth.oldest.unwrap_or_default());
            figures.ready += depth.ready;
            figures.held_back += depth.held_back;
            figures.running += depth.running;
        }
        for found in unroutable {
            let label = self.label(&found.class, &serves);
            figures_by_label.entry(label).or_default().unroutable += found.jobs;
        }
        figures_by_label
    }

    fn label(&mut self, class: &Class, serves: impl Fn(&Class) -> bool) -> String {
        let name = class.to_string();
        if self.known.contains_key(&name) {
            return name;
        }
        let is_served = serves(class);
        let alike = self.known.values().filter(|&&served| served == is_served);
        let most = if is_served {
            MAX_SERVED_LABELS
        } else {
            MAX_OTHER_LABELS
        };
        if alike.count() < most {
            self.known.insert(name.clone(), is_served);
            return name;
        }
        self.known.insert(OTHER_LABEL.to_owned(), false);
        OTHER_LABEL.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use sandhog_queue::ClassDepth;

    use super::*;

    #[test]
    fn the_number_of_labels_is_bounded_and_nothing_is_left_out() {
        let depth = |name: String| ClassDepth {
            class: name.parse().unwrap(),
            ready: 2,
            running: 1,
            oldest: Some(Millis(7)),
            held_back: 0,
        };
        let many = |tag: &'static str| (0..500).map(move |n| depth(format!("{tag}{n}")));
        let snapshot = Snapshot {
            classes: many("zz").chain(many("cpu")).collect(),
            ..Snapshot::default()
        };
        let serves = |class: &Class| class.as_str().starts_with("cpu");
        let mut labels = ClassLabels::default();
        for round in 0..2 {
            let figures_by_label = labels.figures_by_label(&snapshot, &[], serves);
            assert!(
                figures_by_label.len() <= MAX_SERVED_LABELS + MAX_OTHER_LABELS + 1,
                "round {round}"
            );
            let served = figures_by_label
                .keys()
                .filter(|label| label.starts_with("cpu"));
            assert_eq!(served.count(), MAX_SERVED_LABELS, "round {round}");
            assert_eq!(
                figures_by_label
                    .values()
                    .map(|figures| figures.ready)
                    .sum::<u64>(),
                2000
            );
            assert_eq!(figures_by_label[OTHER_LABEL].oldest, Millis(7));
        }
        let empty = labels.figures_by_label(&Snapshot::default(), &[], serves);
        assert_eq!(
            empty["cpu0"].ready, 0,
            "a label that is known stays, at zero"
        );
    }
}
