//! Open files: how many the process may have, and who gets how many of them.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Segments on their way to clients: fewer serve few clients at once, and more must be read into memory.
const LEAST_SENT: usize = 16;

/// How the process's open files are shared out. A file that cannot be opened stops all writes, so nobody may take
/// them all.
///
/// | part | share |
/// |---|---|
/// | segments of topics: one to read and write, one past the page cache | 1/2, with the next |
/// | segments on their way to clients, the same two each | 1/8 of that, from 2 × 16 on |
/// | the store's files | 1/4, and no more than it asks for |
/// | connections, the journal, and all the rest | what is left |
///
/// The first three together are also bounded by a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Descriptors {
    /// Segments that are kept open; each may hold two.
    pub(crate) segments: usize,
    /// Segments that are kept open beside these, because stretches of them are on their way to clients; each may hold two.
    pub(crate) sent: usize,
    /// Files that the store keeps open.
    pub(crate) store: u32,
}

impl Descriptors {
    /// Raises the process's soft limit to the hard one and shares it out: the soft limit is often 1,024, for the sake
    /// of programs that know no more. Segments and store together get at most `kept`.
    pub(crate) fn take(kept: u64, store: u32) -> Descriptors {
        let limit = getrlimit(Resource::Nofile);
        let raised = Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        };
        let current = match setrlimit(Resource::Nofile, raised) {
            Ok(()) => raised.current,
            Err(error) => {
                tracing::warn!(%error, limit = ?limit.current, "the limit of open files cannot be raised");
                limit.current
            }
        };
        // A quarter is left to others.
        let wanted = kept.saturating_add(kept / 3);
        let limit = current.unwrap_or(u64::MAX).min(wanted);
        let shared = Descriptors::of(limit, store);
        tracing::debug!(limit = ?current, ?shared, "open files");
        shared
    }

    /// Shares out `limit`, the store no more than it asks for.
    fn of(limit: u64, store: u32) -> Descriptors {
        let quarter = (limit / 4).max(1);
        let most = usize::try_from(quarter).unwrap_or(usize::MAX);
        let sent = (most / 8).max(LEAST_SENT).min(most / 2);
        Descriptors {
            segments: most - sent,
            sent,
            store: u32::try_from(quarter).map_or(store, |most| store.min(most)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_together_stays_below_the_limit() {
        for limit in [8, 256, 1_024, 4_096, 20_000, 1 << 20] {
            let shared = Descriptors::of(limit, 512);
            let taken = 2 * (shared.segments + shared.sent) as u64 + u64::from(shared.store);
            assert!(taken <= limit - limit / 4, "{limit}: {shared:?}");
        }
        let few = Descriptors::of(1_024, 512);
        assert_eq!((few.segments, few.sent, few.store), (224, 32, 256));
        let fewer = Descriptors::of(256, 512);
        assert_eq!((fewer.segments, fewer.sent, fewer.store), (48, 16, 64));
        let many = Descriptors::of(20_000, 512);
        assert_eq!((many.segments, many.sent, many.store), (4_375, 625, 512));
    }

    #[test]
    fn the_setting_bounds_what_is_kept_open() {
        for kept in [64, 300, 1_000] {
            let shared = Descriptors::take(kept, 512);
            let taken = 2 * (shared.segments + shared.sent) as u64 + u64::from(shared.store);
            assert!(taken <= kept, "{kept}: {shared:?}");
        }
    }

    #[test]
    fn the_soft_limit_is_raised_to_the_hard_one() {
        Descriptors::take(7_000, 512);
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }
}
