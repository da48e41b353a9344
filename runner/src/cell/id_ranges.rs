//! The users and groups that exist in this user namespace, and the range that programs get.

use std::fs;
use std::ops::Range;

use nix::errno::Errno;

use sandhog_protocol::install::CELL_USERS;

use super::CellError;

/// The user that the kernel shows in place of one that this namespace does not have.
const OVERFLOW_USER: u32 = 65_534;

/// Returns the users that programs may run as: [`CELL_USERS`] where this user namespace has all of
/// them, else the upper half of the users that it has. Each also exists as a group.
///
/// In a user namespace of its own, a container has users that no other container has, so the range
/// need not be the same everywhere.
///
/// # Errors
/// Fails if the namespace has too few users.
pub(super) fn cell_users() -> Result<IdRanges, CellError> {
    let read = |path| fs::read_to_string(path).map(|text| parse_map(&text));
    match (read("/proc/self/uid_map"), read("/proc/self/gid_map")) {
        (Ok(users), Ok(groups)) => from_maps(&users, &groups),
        // A runtime without these files has no user namespaces.
        _ => Ok(IdRanges(vec![CELL_USERS])),
    }
}

/// Ranges of ids, in ascending order and without overlap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct IdRanges(Vec<Range<u32>>);

impl IdRanges {
    /// Returns one of the ids, selected by `random`.
    pub(super) fn pick(&self, random: u32) -> Option<u32> {
        let count = u32::try_from(self.count()).unwrap_or(u32::MAX);
        let mut index = random.checked_rem(count)?;
        for range in &self.0 {
            let length = range.end - range.start;
            if index < length {
                return Some(range.start + index);
            }
            index -= length;
        }
        None
    }

    fn count(&self) -> u64 {
        let lengths = self
            .0
            .iter()
            .map(|range| u64::from(range.end - range.start));
        lengths.sum()
    }

    /// Returns the ids that are in both.
    fn intersect(&self, other: &Self) -> Self {
        let mut both = Vec::new();
        for a in &self.0 {
            for b in &other.0 {
                let shared = a.start.max(b.start)..a.end.min(b.end);
                if !shared.is_empty() {
                    both.push(shared);
                }
            }
        }
        both.sort_by_key(|range| range.start);
        Self(both)
    }

    /// Returns the ids without the first `skipped` of them.
    fn skip(&self, mut skipped: u64) -> Self {
        let mut rest = Vec::new();
        for range in &self.0 {
            let length = range.end - range.start;
            let cut = u32::try_from(skipped).unwrap_or(u32::MAX).min(length);
            skipped -= u64::from(cut);
            if cut < length {
                rest.push(range.start + cut..range.end);
            }
        }
        Self(rest)
    }
}

fn from_maps(users: &IdRanges, groups: &IdRanges) -> Result<IdRanges, CellError> {
    let mapped = users.intersect(groups);
    let ours = IdRanges(vec![CELL_USERS]);
    if mapped.intersect(&ours).count() == ours.count() {
        return Ok(ours);
    }
    let usable = IdRanges(vec![1..OVERFLOW_USER, OVERFLOW_USER + 1..u32::MAX]);
    let usable = mapped.intersect(&usable);
    let upper = usable.skip(usable.count() / 2);
    if upper.count() == 0 {
        return Err(CellError::new(
            format!(
                "find a user for programs: /proc/self/uid_map and gid_map have {} ids in common; \
                 at least root and one more are required, and 65536 are recommended",
                mapped.count()
            ),
            Errno::EINVAL,
        ));
    }
    Ok(upper)
}

/// Parses a map of ids: lines with the first id inside, the first id outside, and the count.
/// Neighbouring ranges are joined. A line that is not of this form is skipped.
fn parse_map(text: &str) -> IdRanges {
    let mut ranges: Vec<Range<u32>> = text
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace().map(str::parse::<u32>);
            let (first, _outside) = (fields.next()?.ok()?, fields.next()?.ok()?);
            let count = fields.next()?.ok()?;
            Some(first..first.saturating_add(count))
        })
        .filter(|range| !range.is_empty())
        .collect();
    ranges.sort_by_key(|range| range.start);
    let mut joined: Vec<Range<u32>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            Some(_) | None => joined.push(range),
        }
    }
    IdRanges(joined)
}

/// Returns whether this map belongs to a user namespace of a container: it does not map all ids to
/// themselves.
pub(crate) fn is_mapped(text: &str) -> bool {
    let fields: Vec<&str> = text.split_whitespace().collect();
    fields != ["0", "0", "4294967295"]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(ranges: IdRanges) -> Vec<(u32, u32)> {
        let pairs = ranges.0.into_iter().map(|range| (range.start, range.end));
        pairs.collect()
    }

    fn users_of(map: &str) -> Result<Vec<(u32, u32)>, CellError> {
        let map = parse_map(map);
        from_maps(&map, &map).map(pairs)
    }

    type Case<'a> = (&'a str, &'a str, &'a [(u32, u32)]);

    #[test]
    fn users_come_from_the_mapped_range() {
        let cases: [Case<'_>; 7] = [
            (
                "the machine's own namespace",
                "         0          0 4294967295\n",
                &[(1_000_000, 2_000_000)],
            ),
            (
                "two million",
                "0 5000000 2000000\n",
                &[(1_000_000, 2_000_000)],
            ),
            (
                "two ranges that meet",
                "0 100000 1500000\n1500000 7000000 500000\n",
                &[(1_000_000, 2_000_000)],
            ),
            (
                "65,536, as Kubernetes maps them",
                "0 131072 65536\n",
                &[(32_768, 65_534), (65_535, 65_536)],
            ),
            (
                "one and a half million",
                "0 5000000 1500000\n",
                &[(750_001, 1_500_000)],
            ),
            (
                "rootless, with the user's own id as root",
                "0 1000 1\n1 100000 65535\n",
                &[(32_768, 65_534), (65_535, 65_536)],
            ),
            ("ranges apart", "0 9 10\n100 200 10\n", &[(100, 110)]),
        ];
        for (case, map, want) in cases {
            assert_eq!(users_of(map).unwrap(), want, "{case}");
        }
    }

    #[test]
    fn a_namespace_with_root_alone_has_no_user_for_programs() {
        for map in ["", "0 1000 1\n", "nonsense\n"] {
            assert!(users_of(map).is_err(), "{map:?}");
        }
        assert!(users_of("0 1000 1\n1 5 1\n").is_ok());
    }

    #[test]
    fn a_user_must_exist_as_a_group_too() {
        let users = parse_map("0 100000 65536\n");
        let groups = parse_map("0 100000 101\n");
        assert_eq!(pairs(from_maps(&users, &groups).unwrap()), [(51, 101)]);
    }

    #[test]
    fn each_id_can_be_picked() {
        let ranges = IdRanges(vec![3..5, 9..10]);
        let picked: Vec<_> = (0..4).map(|random| ranges.pick(random)).collect();
        assert_eq!(picked, [Some(3), Some(4), Some(9), Some(3)]);
        assert_eq!(IdRanges(Vec::new()).pick(0), None);
    }

    #[test]
    fn a_container_of_unprivileged_root_is_found() {
        assert!(!is_mapped("         0          0 4294967295\n"));
        assert!(is_mapped("         0     131072      65536\n"));
    }
}
