//! One moment of both views.

use std::sync::Arc;

use mainstem_journal::Lsn;
use mainstem_log::LogSnapshot;
use mainstem_store::StoreSnapshot;

/// The log and the store as they stood after one and the same frame. Holding it pins segments and
/// the store's old versions, so let go of it soon.
#[derive(Clone)]
pub struct Snapshot {
    /// The last frame it shows.
    pub lsn: Lsn,
    /// Every partition's bounds, and reads within them.
    pub log: LogSnapshot,
    /// The store's tables.
    pub store: Arc<dyn StoreSnapshot>,
}
