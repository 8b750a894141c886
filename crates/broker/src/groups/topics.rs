//! The topics of a tenant as groups look at them: a picture of the catalogue, made anew when it has changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use mainstem_log::TopicId;
use parking_lot::Mutex;

use crate::broker::Broker;
use crate::{BrokerError, Topic};

/// A topic's identity and how many partitions it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TopicSize {
    pub(crate) id: TopicId,
    pub(crate) partitions: u32,
}

/// All topics of a tenant at one moment.
#[derive(Debug, Default)]
pub(crate) struct TopicView {
    /// Another one where the catalogue has changed.
    pub(crate) version: u64,
    names: BTreeMap<Arc<str>, TopicSize>,
    ids: BTreeMap<TopicId, Arc<str>>,
}

impl TopicView {
    pub(crate) fn new(
        version: u64,
        topics: impl IntoIterator<Item = (Arc<str>, TopicSize)>,
    ) -> TopicView {
        let names: BTreeMap<_, _> = topics.into_iter().collect();
        let ids = names
            .iter()
            .map(|(name, size)| (size.id, name.clone()))
            .collect();
        TopicView {
            version,
            names,
            ids,
        }
    }

    pub(crate) fn find(&self, name: &str) -> Option<(&Arc<str>, TopicSize)> {
        self.names
            .get_key_value(name)
            .map(|(name, size)| (name, *size))
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.names.keys()
    }

    /// The name of the topic that has this id now.
    pub(crate) fn name_of(&self, id: TopicId) -> Option<&Arc<str>> {
        self.ids.get(&id)
    }
}

/// The newest picture of each tenant that has asked for one.
#[derive(Debug, Default)]
pub(crate) struct TopicViews(Mutex<BTreeMap<Arc<str>, Arc<TopicView>>>);

impl TopicViews {
    /// Never older than one that was given out before.
    pub(crate) fn newest(&self, tenant: &str) -> Option<Arc<TopicView>> {
        self.0.lock().get(tenant).cloned()
    }

    /// Takes a picture in, unless there is a newer one; the newest.
    fn offer(&self, tenant: &Arc<str>, view: Arc<TopicView>) -> Arc<TopicView> {
        let mut views = self.0.lock();
        let newest = views.entry(tenant.clone()).or_insert_with(|| view.clone());
        if newest.version < view.version {
            *newest = view;
        }
        newest.clone()
    }
}

impl Broker {
    /// The tenant's topics, as of now or later.
    pub(crate) fn topic_view(&self, tenant: &Arc<str>) -> Result<Arc<TopicView>, BrokerError> {
        let version = self.inner.catalog.version(self.engine())?;
        let views = &self.inner.groups.views;
        if let Some(view) = views.newest(tenant)
            && view.version >= version
        {
            return Ok(view);
        }
        // What is read is as new as the version or newer; then it is read once more than need be.
        let size = |topic: Arc<Topic>| {
            let size = TopicSize {
                id: topic.id,
                partitions: topic.partitions,
            };
            (topic.name.clone(), size)
        };
        let topics = self.inner.catalog.list(self.engine(), tenant)?;
        let view = TopicView::new(version, topics.into_iter().map(size));
        Ok(views.offer(tenant, Arc::new(view)))
    }
}
