//! Metrics of a bounded number of a queue's classes. The number is bounded because submitters
//! choose the names of classes.

use std::collections::BTreeMap;

use metrics::gauge;
use sandhog_common::class::Class;
use sandhog_common::id::Namespace;
use sandhog_common::queue::{Snapshot, Unroutable};
use sandhog_common::units::Millis;

use super::catalogue::{HELD_BACK, OLDEST, READY, RUNNING, UNROUTABLE};
use super::{as_f64, queue};

/// Maximum number of classes with metrics of their own among those that this worker serves.
const SERVED_MOST: usize = 100;

/// Maximum number of classes with metrics of their own among the others.
const OTHERS_MOST: usize = 20;

/// Label value for all classes without metrics of their own. No class can have this name.
const REST: &str = "(other)";

/// The classes of one namespace that have metrics of their own: the first ones that this process
/// saw. The figures of all other classes are added up under one label.
#[derive(Debug, Default)]
pub(crate) struct ClassLabels {
    known: BTreeMap<String, bool>,
}

/// The figures of one label.
#[derive(Debug, Clone, Copy, Default)]
struct Row {
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
        queue(namespace, snapshot);
        for (label, row) in self.rows(snapshot, unroutable, serves) {
            let namespace = namespace.to_string();
            for (name, value) in [
                (OLDEST, row.oldest.duration().as_secs_f64()),
                (READY, as_f64(row.ready)),
                (HELD_BACK, as_f64(row.held_back)),
                (RUNNING, as_f64(row.running)),
                (UNROUTABLE, as_f64(row.unroutable)),
            ] {
                gauge!(name, "namespace" => namespace.clone(), "class" => label.clone()).set(value);
            }
        }
    }

    /// Returns the figures of every known label, including labels whose classes no longer exist.
    fn rows(
        &mut self,
        snapshot: &Snapshot,
        unroutable: &[Unroutable],
        serves: impl Fn(&Class) -> bool,
    ) -> BTreeMap<String, Row> {
        let mut labels = Vec::with_capacity(snapshot.classes.len());
        for depth in &snapshot.classes {
            labels.push(self.label(&depth.class, &serves));
        }
        let mut rows: BTreeMap<String, Row> = (self.known.keys())
            .map(|label| (label.clone(), Row::default()))
            .collect();
        for (label, depth) in labels.into_iter().zip(&snapshot.classes) {
            let row = rows.entry(label).or_default();
            row.oldest = row.oldest.max(depth.oldest.unwrap_or_default());
            row.ready += depth.ready;
            row.held_back += depth.held_back;
            row.running += depth.running;
        }
        for found in unroutable {
            let label = self.label(&found.class, &serves);
            rows.entry(label).or_default().unroutable += found.jobs;
        }
        rows
    }

    fn label(&mut self, class: &Class, serves: impl Fn(&Class) -> bool) -> String {
        let name = class.to_string();
        if self.known.contains_key(&name) {
            return name;
        }
        let is_served = serves(class);
        let alike = self.known.values().filter(|&&served| served == is_served);
        let most = if is_served { SERVED_MOST } else { OTHERS_MOST };
        if alike.count() < most {
            self.known.insert(name.clone(), is_served);
            return name;
        }
        self.known.insert(REST.to_owned(), false);
        REST.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use sandhog_common::queue::ClassDepth;

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
        for look in 0..2 {
            let rows = labels.rows(&snapshot, &[], serves);
            assert!(rows.len() <= SERVED_MOST + OTHERS_MOST + 1, "look {look}");
            let served = rows.keys().filter(|label| label.starts_with("cpu"));
            assert_eq!(served.count(), SERVED_MOST, "look {look}");
            assert_eq!(rows.values().map(|row| row.ready).sum::<u64>(), 2000);
            assert_eq!(rows[REST].oldest, Millis(7));
        }
        let empty = labels.rows(&Snapshot::default(), &[], serves);
        assert_eq!(
            empty["cpu0"].ready, 0,
            "a label that is known stays, at zero"
        );
    }
}
