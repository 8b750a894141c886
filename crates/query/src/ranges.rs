//! Sets of whole numbers as sorted, disjoint, inclusive ranges: what is left of a predicate over one column.

use std::cmp::{max, min};

/// A set of `i64`: ranges sorted, disjoint, not touching, both ends inclusive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ranges(Vec<(i64, i64)>);

impl Ranges {
    pub(crate) fn all() -> Ranges {
        Ranges(vec![(i64::MIN, i64::MAX)])
    }

    pub(crate) fn none() -> Ranges {
        Ranges(Vec::new())
    }

    /// `from..=to`; empty when `from > to`.
    pub(crate) fn between(from: i64, to: i64) -> Ranges {
        if from <= to {
            Ranges(vec![(from, to)])
        } else {
            Ranges::none()
        }
    }

    /// Everything or nothing.
    pub(crate) fn when(condition: bool) -> Ranges {
        if condition {
            Ranges::all()
        } else {
            Ranges::none()
        }
    }

    pub(crate) fn is_all(&self) -> bool {
        self.0 == [(i64::MIN, i64::MAX)]
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (i64, i64)> + '_ {
        self.0.iter().copied()
    }

    /// The smallest member.
    pub(crate) fn first(&self) -> Option<i64> {
        self.0.first().map(|range| range.0)
    }

    pub(crate) fn contains(&self, value: i64) -> bool {
        // Predicates have a handful of ranges; a long IN list is worth the binary search.
        let after = self.0.partition_point(|range| range.0 <= value);
        after
            .checked_sub(1)
            .and_then(|at| self.0.get(at))
            .is_some_and(|range| value <= range.1)
    }

    pub(crate) fn and(&self, other: &Ranges) -> Ranges {
        let (mut left, mut right) = (self.iter().peekable(), other.iter().peekable());
        let mut both = Vec::new();
        while let (Some(a), Some(b)) = (left.peek().copied(), right.peek().copied()) {
            let (from, to) = (max(a.0, b.0), min(a.1, b.1));
            if from <= to {
                both.push((from, to));
            }
            if a.1 < b.1 {
                left.next()
            } else {
                right.next()
            };
        }
        Ranges(both)
    }

    pub(crate) fn or(&self, other: &Ranges) -> Ranges {
        Ranges::merged(self.iter().chain(other.iter()).collect())
    }

    /// What is in any of them, at the price of one sort: an IN list may be long.
    pub(crate) fn any_of(sets: Vec<Ranges>) -> Ranges {
        Ranges::merged(sets.into_iter().flat_map(|set| set.0).collect())
    }

    fn merged(mut every: Vec<(i64, i64)>) -> Ranges {
        every.sort_unstable();
        let mut merged: Vec<(i64, i64)> = Vec::with_capacity(every.len());
        for (from, to) in every {
            match merged.last_mut() {
                Some(last) if last.1 == i64::MAX || from <= last.1 + 1 => last.1 = max(last.1, to),
                _ => merged.push((from, to)),
            }
        }
        Ranges(merged)
    }

    pub(crate) fn not(&self) -> Ranges {
        let mut gaps = Vec::with_capacity(self.0.len() + 1);
        let mut next = Some(i64::MIN);
        for (from, to) in self.iter() {
            if let Some(start) = next.filter(|start| *start < from) {
                gaps.push((start, from - 1));
            }
            next = to.checked_add(1);
        }
        if let Some(start) = next {
            gaps.push((start, i64::MAX));
        }
        Ranges(gaps)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::Ranges;
    use proptest::prelude::*;

    fn ranges() -> impl Strategy<Value = Ranges> {
        let end = prop_oneof![Just(i64::MIN), Just(i64::MAX), -20i64..20];
        prop::collection::vec((end.clone(), end), 0..5).prop_map(|pairs| {
            pairs.into_iter().fold(Ranges::none(), |all, (a, b)| {
                all.or(&Ranges::between(a.min(b), a.max(b)))
            })
        })
    }

    fn well_formed(set: &Ranges) -> bool {
        set.iter().all(|(from, to)| from <= to)
            && set
                .0
                .windows(2)
                .all(|pair| pair[0].1 != i64::MAX && pair[0].1 + 1 < pair[1].0)
    }

    proptest! {
        #[test]
        fn the_algebra_is_that_of_sets(a in ranges(), b in ranges(), value in prop_oneof![Just(i64::MIN), Just(i64::MAX), -25i64..25]) {
            for set in [&a, &b, &a.and(&b), &a.or(&b), &a.not()] {
                prop_assert!(well_formed(set), "{:?}", set);
            }
            prop_assert_eq!(a.and(&b).contains(value), a.contains(value) && b.contains(value));
            prop_assert_eq!(a.or(&b).contains(value), a.contains(value) || b.contains(value));
            prop_assert_eq!(a.not().contains(value), !a.contains(value));
            prop_assert_eq!(a.not().not(), a);
        }
    }
}
