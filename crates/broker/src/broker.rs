//! The broker as the rest of the house sees it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use mainstem_engine::{Engine, Permit, Submission, Ticket};
use parking_lot::Mutex;

use crate::catalog::Catalog;
use crate::groups::{GroupSettings, Groups};
use crate::producers::ProducerIds;
use crate::transactions::{TransactionSettings, Transactions};
use crate::{BrokerError, configs};

/// Where identities come from: a fresh 128-bit number a call.
pub type Random = Box<dyn FnMut() -> u128 + Send>;

/// How a broker is set up.
pub struct BrokerSettings {
    /// Partitions of a topic that is created without a number (`num.partitions`).
    pub num_partitions: u32,
    /// Topic settings for the whole broker, by their topic names; a topic's own come first, and what was set while the
    /// broker ran ([`Broker::alter_broker_configs`]).
    pub topic_defaults: BTreeMap<String, String>,
    /// This node's number (`node.id`): settings that were set for one node are found by it.
    pub node_id: u32,
    /// What consumer groups keep to.
    pub groups: GroupSettings,
    /// What transactions keep to.
    pub transactions: TransactionSettings,
    /// Where topic ids come from.
    pub random: Random,
}

impl BrokerSettings {
    /// Kafka's defaults, with identities from `random`: the machine's in a server, a seeded one in a test.
    pub fn new(random: Random) -> BrokerSettings {
        BrokerSettings {
            num_partitions: 1,
            topic_defaults: BTreeMap::new(),
            node_id: 1,
            groups: GroupSettings::default(),
            transactions: TransactionSettings::default(),
            random,
        }
    }
}

impl Default for BrokerSettings {
    /// With the machine's randomness.
    fn default() -> Self {
        BrokerSettings::new(Box::new(|| uuid::Uuid::new_v4().as_u128()))
    }
}

impl fmt::Debug for BrokerSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BrokerSettings")
            .field("num_partitions", &self.num_partitions)
            .field("topic_defaults", &self.topic_defaults)
            .field("node_id", &self.node_id)
            .field("groups", &self.groups)
            .field("transactions", &self.transactions)
            .finish_non_exhaustive()
    }
}

/// Messaging on one engine. Cheap to clone; all clones are the same broker.
#[derive(Clone)]
pub struct Broker {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) engine: Engine,
    pub(crate) catalog: Catalog,
    pub(crate) num_partitions: u32,
    pub(crate) node_id: u32,
    pub(crate) producer_ids: ProducerIds,
    pub(crate) groups: Groups,
    pub(crate) transactions: Transactions,
    pub(crate) random: Mutex<Random>,
}

impl Broker {
    /// Opens the broker on an engine that has recovered: reads the catalogue, the groups and the
    /// transactional ids.
    pub fn open(engine: Engine, settings: BrokerSettings) -> Result<Broker, BrokerError> {
        let topic_defaults = configs::parse_all(&settings.topic_defaults)?;
        configs::check_together(&BTreeMap::new(), &topic_defaults)?;
        let catalog = Catalog::load(&engine, topic_defaults, settings.node_id)?;
        let groups = Groups::load(&engine, settings.groups)?;
        let signal = groups.signal().clone();
        let transactions = Transactions::load(&engine, settings.transactions, signal)?;
        Ok(Broker {
            inner: Arc::new(Inner {
                engine,
                catalog,
                num_partitions: settings.num_partitions,
                node_id: settings.node_id,
                producer_ids: ProducerIds::default(),
                groups,
                transactions,
                random: Mutex::new(settings.random),
            }),
        })
    }

    /// The engine below: the runtime and queries read log and store there, and commit steps.
    pub fn engine(&self) -> &Engine {
        &self.inner.engine
    }

    /// Room for a submission: the back-pressure that every write passes.
    pub(crate) fn reserve(&self, submission: &Submission) -> Ticket<Permit> {
        self.inner
            .engine
            .reserve_with_store(submission.size_bytes(), submission.store_bytes())
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker").finish_non_exhaustive()
    }
}
