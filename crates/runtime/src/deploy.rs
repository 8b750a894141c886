//! Deploying: everything is checked and made ready first, then one frame makes it so.

use std::sync::Arc;

use mainstem_broker::{Broker, BrokerError, Caller, NewTopic, OffsetSpec, Topic};
use mainstem_store::{Family, StoreOp};

use crate::catalog::{self, HandlerRecord, dead_letter_topic};
use crate::deployment::{DEFAULT_MEMORY_BYTES, MAX_FUEL_PER_EVENT};
use crate::runtime::Runtime;
use crate::wasm::Installed;
use crate::{Code, Deployment, HandlerStatus, OnError, RuntimeError, StartFrom, inputs, keys};

/// The dead-letter topic's name must be a topic's name, too.
const MAX_NAME_BYTES: usize = 200;
const MIN_MEMORY_BYTES: u64 = 64 << 10;
const TRIES: u32 = 64;

impl Runtime {
    /// Deploys a handler, or upgrades it: state and offsets are kept, and the new version begins with the next step.
    /// Deploying what is deployed already changes nothing. Compiles the component, which takes up to seconds: call it
    /// where blocking is allowed.
    pub async fn deploy(
        &self,
        caller: &Caller,
        deployment: Deployment,
        now_ms: i64,
    ) -> Result<HandlerStatus, RuntimeError> {
        check(&deployment, self.inner.options.handlers_memory_bytes)?;
        let topics = Topics::find(&self.inner.broker, caller, &deployment)?;
        self.inner.modules.trim();
        let installed = match &deployment.code {
            Code::Component(bytes) => {
                let modules = &self.inner.modules;
                Some(modules.install(bytes, deployment.memory_bytes)?)
            }
            Code::Native { .. } => None,
        };
        topics
            .create_missing(&self.inner.broker, caller, &deployment, now_ms)
            .await?;
        let (runtime, caller) = (self.clone(), caller.clone());
        self.to_its_end(async move {
            let ready = Ready {
                deployment,
                topics,
                installed,
            };
            runtime.make_so(&caller, ready, now_ms).await
        })
        .await
    }

    /// The frame, and what follows from it.
    async fn make_so(
        &self,
        caller: &Caller,
        ready: Ready,
        now_ms: i64,
    ) -> Result<HandlerStatus, RuntimeError> {
        let Ready {
            deployment,
            topics,
            installed,
        } = ready;
        let register = || {
            if let Code::Native { version, module } = &deployment.code {
                self.register_native(&caller.tenant, &deployment.name, version, module.clone());
            }
        };
        for _ in 0..TRIES {
            let engine = self.inner.broker.engine();
            let read = catalog::read(engine, &caller.tenant, &deployment.name)?;
            let mut record = match &read.record {
                Some(record) if record.removing => {
                    return Err(RuntimeError::Removing {
                        name: deployment.name,
                    });
                }
                Some(record) => record.clone(),
                None => HandlerRecord::new(read.next_id, &caller.tenant, &deployment.name, now_ms),
            };
            match (&installed, &deployment.code) {
                (Some(installed), _) => record.version.clone_from(&installed.version),
                (None, Code::Native { version, .. }) => record.version.clone_from(version),
                (None, Code::Component(_)) => {}
            }
            record.native = installed.is_none();
            record.inputs.clone_from(&deployment.inputs);
            record.outputs.clone_from(&deployment.outputs);
            record.start = deployment.start;
            record.on_error = deployment.on_error;
            record.fuel_per_event = deployment.fuel_per_event;
            record.memory_bytes = deployment.memory_bytes;
            record.shards = inputs::shards(&topics.inputs, &record.shards);
            let mut ops = self.first_offsets(caller, &topics, &record)?;
            if read.record.as_ref() == Some(&record) && ops.is_empty() {
                register();
                return self.status(caller, &deployment.name);
            }
            record.generation += 1;
            record.updated_ms = now_ms;
            if read.record.is_none() {
                ops.push(StoreOp::put(
                    Family::Catalog,
                    keys::next_id_key(),
                    keys::number(read.next_id + 1),
                ));
            }
            ops.push(StoreOp::put(
                Family::Catalog,
                record.key(),
                record.encode()?,
            ));
            if self.submit_checked(ops, read.checks).await? {
                tracing::info!(
                    tenant = %caller.tenant,
                    principal = %caller.principal,
                    handler = %record.name,
                    version = %record.version,
                    generation = record.generation,
                    "handler deployed"
                );
                register();
                self.follow(&caller.tenant, &deployment.name)?;
                return self.status(caller, &deployment.name);
            }
        }
        Err(RuntimeError::Contended {
            name: deployment.name,
        })
    }

    /// Where new inputs begin: decided now and kept, so that a restart decides nothing.
    fn first_offsets(
        &self,
        caller: &Caller,
        topics: &Topics,
        record: &HandlerRecord,
    ) -> Result<Vec<StoreOp>, RuntimeError> {
        let from = match record.start {
            StartFrom::Earliest => OffsetSpec::Earliest,
            StartFrom::Latest => OffsetSpec::Latest,
            StartFrom::Timestamp(time_ms) => OffsetSpec::Timestamp(time_ms),
        };
        let store = self.inner.broker.engine().store();
        let mut ops = Vec::new();
        for (partition, shard) in record.tasks() {
            for topic in topics
                .inputs
                .iter()
                .filter(|topic| partition < topic.partitions)
            {
                let key = keys::offset_key(shard, record.id, partition, topic.id.0);
                if store.get(Family::Offsets, &key)?.is_none() {
                    let offset =
                        self.inner
                            .broker
                            .resolve_offset(caller, &topic.name, partition, from)?;
                    ops.push(StoreOp::put(
                        Family::Offsets,
                        key,
                        keys::number(offset as u64),
                    ));
                }
            }
        }
        Ok(ops)
    }
}

fn check(deployment: &Deployment, handlers_memory_bytes: u64) -> Result<(), RuntimeError> {
    let refuse = |reason: String| {
        Err(RuntimeError::InvalidDeployment {
            name: deployment.name.clone(),
            reason,
        })
    };
    let name = &deployment.name;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if name.is_empty()
        || name.len() > MAX_NAME_BYTES
        || !name.bytes().all(allowed)
        || name == "."
        || name == ".."
    {
        return refuse(format!(
            "a handler's name has 1 to {MAX_NAME_BYTES} letters, digits, '.', '_' or '-', and is neither '.' nor '..'"
        ));
    }
    if deployment.inputs.is_empty() {
        return refuse("it has no input topic; name at least one".to_owned());
    }
    for (role, topics) in [
        ("input", &deployment.inputs),
        ("output", &deployment.outputs),
    ] {
        let again = topics
            .iter()
            .enumerate()
            .find(|(place, topic)| topics.iter().take(*place).any(|other| other == *topic));
        if let Some((_, topic)) = again {
            return refuse(format!("{role} topic `{topic}` is named twice"));
        }
    }
    let dead_letters = dead_letter_topic(name);
    if matches!(deployment.on_error, OnError::DeadLetter { .. })
        && deployment.inputs.contains(&dead_letters)
    {
        return refuse(format!(
            "it would read its own dead-letter topic `{dead_letters}`; use a handler of another name"
        ));
    }
    if deployment.fuel_per_event == 0 {
        return refuse("without fuel it cannot handle any event; give it some million".to_owned());
    }
    if deployment.fuel_per_event > MAX_FUEL_PER_EVENT {
        return refuse(format!(
            "a fuel per event of {} is more than {MAX_FUEL_PER_EVENT}, about a minute of one core; give it less, and split the work into several events",
            deployment.fuel_per_event
        ));
    }
    // The default fits any node: an instance gets less where there is less.
    let most_bytes = handlers_memory_bytes.max(DEFAULT_MEMORY_BYTES);
    if deployment.memory_bytes > most_bytes {
        return refuse(format!(
            "an instance of {} bytes of memory is more than the {most_bytes} bytes that all handlers share; give it less, or raise the server's memory.limit, of which they get an eighth",
            deployment.memory_bytes
        ));
    }
    if deployment.memory_bytes < MIN_MEMORY_BYTES {
        return refuse(format!(
            "it needs at least {MIN_MEMORY_BYTES} bytes of memory"
        ));
    }
    Ok(())
}

/// A deployment that is checked and compiled.
struct Ready {
    deployment: Deployment,
    topics: Topics,
    /// Its component, unless it is code of this process.
    installed: Option<Installed>,
}

/// The topics that a deployment names.
struct Topics {
    inputs: Vec<Arc<Topic>>,
    missing: Vec<NewTopic>,
}

impl Topics {
    fn find(
        broker: &Broker,
        caller: &Caller,
        deployment: &Deployment,
    ) -> Result<Topics, RuntimeError> {
        let unknown = |role, topic: &str, hint| RuntimeError::UnknownTopic {
            handler: deployment.name.clone(),
            role,
            topic: topic.to_owned(),
            hint,
        };
        let find = |name: &str| match broker.topic(caller, name) {
            Ok(topic) => Ok(Some(topic)),
            Err(BrokerError::TopicNotFound { .. }) => Ok(None),
            Err(error) => Err(RuntimeError::from(error)),
        };
        let mut inputs = Vec::new();
        for name in &deployment.inputs {
            let hint = "create it first with `mainstem topic create`";
            inputs.push(find(name)?.ok_or_else(|| unknown("input", name, hint))?);
        }
        let first = inputs.first().map_or(1, |topic| topic.partitions);
        let most = inputs
            .iter()
            .map(|topic| topic.partitions)
            .max()
            .unwrap_or(1);
        let mut missing = Vec::new();
        for name in &deployment.outputs {
            if find(name)?.is_none() {
                if !deployment.create_topics {
                    return Err(unknown(
                        "output",
                        name,
                        "create it first, or deploy with --create-topics",
                    ));
                }
                missing.push(NewTopic::named(name).partitions(first));
            }
        }
        let dead_letters = dead_letter_topic(&deployment.name);
        if matches!(deployment.on_error, OnError::DeadLetter { .. })
            && find(&dead_letters)?.is_none()
        {
            missing.push(NewTopic::named(&dead_letters).partitions(most));
        }
        Ok(Topics { inputs, missing })
    }

    async fn create_missing(
        &self,
        broker: &Broker,
        caller: &Caller,
        deployment: &Deployment,
        now_ms: i64,
    ) -> Result<(), RuntimeError> {
        for topic in &self.missing {
            match broker.create_topic(caller, topic.clone(), now_ms).await {
                Ok(_) => {
                    tracing::info!(handler = %deployment.name, topic = %topic.name, "topic created")
                }
                // Somebody else did, in this very moment.
                Err(BrokerError::TopicExists { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}
