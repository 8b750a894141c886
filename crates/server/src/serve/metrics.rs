//! `/metrics`: one look at the platform, as Prometheus reads it. Nothing is kept between two looks: every figure is
//! the platform's own.

use super::memory;
use mainstem::{Caller, Latency, Mainstem};
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

type Labels = Vec<(&'static str, String)>;

/// The page; before recovery has ended, only what is known of the process.
pub fn page(platform: Option<&Mainstem>) -> String {
    let mut registry = Registry::with_prefix("mainstem");
    gauge(
        &mut registry,
        "up",
        "1 once the server serves",
        u64::from(platform.is_some()),
    );
    gauge(
        &mut registry,
        "memory_resident_bytes",
        "Memory of the process, as the kernel counts it",
        memory::resident_bytes(),
    );
    if let Some(platform) = platform {
        server(&mut registry, platform);
        latencies(&mut registry, platform);
        topics(&mut registry, platform);
        handlers(&mut registry, platform);
    }
    let mut text = String::new();
    // Writing into a string does not fail.
    let _ = encode(&mut text, &registry);
    text
}

fn server(registry: &mut Registry, platform: &Mainstem) {
    let status = platform.status();
    let mut gauge = |name: &str, help: &str, value: u64| gauge(registry, name, help, value);
    gauge(
        "memory_limit_bytes",
        "memory.limit",
        status.memory_limit_bytes,
    );
    gauge(
        "memory_records_bytes",
        "Records in memory: queued, being committed, or in the log's tail",
        status.records_memory_bytes,
    );
    gauge(
        "memory_records_limit_bytes",
        "The limit of that, at which writers wait",
        status.records_memory_limit_bytes,
    );
    gauge(
        "disk_free_bytes",
        "Free on the disk of the data directory",
        status.disk_free_bytes,
    );
    gauge(
        "durable_lsn",
        "The newest frame that is durable",
        status.durable_lsn,
    );
    gauge(
        "checkpoint_lsn",
        "The frame after which recovery would begin",
        status.checkpoint_lsn,
    );
    gauge("topics", "How many topics there are", status.topics);
    gauge(
        "partitions",
        "How many partitions these have",
        status.partitions,
    );
    gauge(
        "poisoned",
        "1 once a failed write or sync has stopped writes",
        u64::from(status.poisoned.is_some()),
    );
    gauge(
        "uptime_seconds",
        "How long the server has served",
        status.uptime_ms / 1000,
    );
    counter(
        registry,
        "journal_groups",
        "Groups synced since the start",
        status.synced_groups,
    );
    counter(
        registry,
        "journal_bytes",
        "Bytes written to the journal since the start",
        status.journal_bytes,
    );
    counter(
        registry,
        "recovery_replayed_frames",
        "Frames replayed by this start",
        status.recovery.replayed_frames,
    );
}

fn latencies(registry: &mut Registry, platform: &Mainstem) {
    let latencies = platform.latencies();
    let mut register = |name: &str, help: &str, latency: &Latency| {
        registry.register(name, help, Seconds::of(latency));
    };
    register(
        "produce_seconds",
        "Calls that produce, from their arrival to durable and answered",
        &latencies.produce,
    );
    register(
        "journal_sync_seconds",
        "Syncs of the journal: what every acknowledgement waits for",
        &latencies.journal_sync,
    );
    register(
        "segment_sync_seconds",
        "Syncs of segments, which nobody waits for",
        &latencies.segment_sync,
    );
}

/// One line a topic that there is now, so that the page is no longer than the catalogue; a topic that goes takes its
/// lines along.
fn topics(registry: &mut Registry, platform: &Mainstem) {
    let produced_records = Family::<Labels, Counter>::default();
    let produced_bytes = Family::<Labels, Counter>::default();
    let fetched_records = Family::<Labels, Counter>::default();
    let fetched_bytes = Family::<Labels, Counter>::default();
    for topic in platform.broker().all_topics().unwrap_or_default() {
        let labels: Labels = vec![
            ("tenant", topic.tenant.to_string()),
            ("topic", topic.name.to_string()),
        ];
        let traffic = topic.traffic();
        for (family, count) in [
            (&produced_records, traffic.produced_records),
            (&produced_bytes, traffic.produced_bytes),
            (&fetched_records, traffic.fetched_records),
            (&fetched_bytes, traffic.fetched_bytes),
        ] {
            family.get_or_create(&labels).inc_by(count);
        }
    }
    for (name, help, family) in [
        (
            "topic_produced_records",
            "Records acknowledged to producers since the start",
            produced_records,
        ),
        (
            "topic_produced_bytes",
            "Bytes of their batches",
            produced_bytes,
        ),
        (
            "topic_fetched_records",
            "Records handed out to readers since the start, once for each reader",
            fetched_records,
        ),
        (
            "topic_fetched_bytes",
            "Bytes of the batches handed out to readers since the start",
            fetched_bytes,
        ),
    ] {
        registry.register(name, help, family);
    }
}

/// A histogram as it is now.
#[derive(Debug)]
struct Seconds {
    sum: f64,
    buckets: Vec<(f64, u64)>,
}

impl Seconds {
    fn of(latency: &Latency) -> Seconds {
        let mut buckets = latency.buckets();
        // What the text has as +Inf.
        if let Some((bound, _)) = buckets.last_mut() {
            *bound = f64::MAX;
        }
        Seconds {
            sum: latency.sum_seconds(),
            buckets,
        }
    }
}

impl EncodeMetric for Seconds {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> std::fmt::Result {
        let count = self.buckets.iter().map(|(_, count)| count).sum();
        encoder.encode_histogram::<NoLabelSet>(self.sum, count, &self.buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

fn handlers(registry: &mut Registry, platform: &Mainstem) {
    let lag = Family::<Labels, Gauge>::default();
    let running = Family::<Labels, Gauge>::default();
    let events = Family::<Labels, Counter>::default();
    let failures = Family::<Labels, Counter>::default();
    let dead_letters = Family::<Labels, Counter>::default();
    let caller = Caller::anonymous();
    for handler in platform.runtime().list(&caller) {
        let labels: Labels = vec![
            ("tenant", caller.tenant.to_string()),
            ("handler", handler.name.clone()),
        ];
        lag.get_or_create(&labels).set(whole(handler.lag()));
        running
            .get_or_create(&labels)
            .set(i64::from(handler.state.as_str() == "running"));
        events.get_or_create(&labels).inc_by(handler.events());
        failures
            .get_or_create(&labels)
            .inc_by(handler.tasks.iter().map(|task| task.failures).sum());
        dead_letters
            .get_or_create(&labels)
            .inc_by(handler.tasks.iter().map(|task| task.dead_letters).sum());
    }
    registry.register(
        "handler_lag_events",
        "Events the handler has yet to process",
        lag,
    );
    registry.register(
        "handler_running",
        "1 while the handler runs, 0 while it is paused or halted",
        running,
    );
    registry.register("handler_events", "Events processed since the start", events);
    registry.register(
        "handler_failures",
        "Steps that failed since the start",
        failures,
    );
    registry.register(
        "handler_dead_letters",
        "Events dead-lettered since the start",
        dead_letters,
    );
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: u64) {
    let gauge = Gauge::<i64>::default();
    gauge.set(whole(value));
    registry.register(name, help, gauge);
}

fn counter(registry: &mut Registry, name: &str, help: &str, value: u64) {
    let counter = Counter::<u64>::default();
    counter.inc_by(value);
    registry.register(name, help, counter);
}

fn whole(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_is_whole_before_anything_is_open() {
        let page = super::page(None);
        assert!(
            page.contains("mainstem_up 0") && page.ends_with("# EOF\n"),
            "{page}"
        );
    }
}
