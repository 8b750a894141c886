//! The one operator under every table that is read in streams: topics and handlers' state.

use crate::QueryError;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result, Statistics, internal_err};
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::StatisticsArgs;
use datafusion::physical_plan::execution_plan::{
    Boundedness, EmissionType, ReplaceChildrenOptions,
};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties,
    SendableRecordBatchStream,
};
use std::fmt;
use std::sync::Arc;

/// Rows in a batch.
pub(crate) const BATCH_ROWS: usize = 8_192;
/// Bytes read from log or store at a time.
pub(crate) const CHUNK_BYTES: usize = 1 << 20;
/// Bytes of projected data after which a batch is handed on, full or not.
pub(crate) const BATCH_BYTES: usize = 2 << 20;

/// The rows of one stream. It reads when it is asked: what nobody polls costs nothing.
pub(crate) trait Rows: Send {
    /// The next batch; `None` at the end.
    fn next(&mut self) -> Result<Option<RecordBatch>, QueryError>;
    /// Bytes it holds now, for the memory pool.
    fn held_bytes(&self) -> usize;
}

/// What a scan reads, planned: fixed streams over a fixed snapshot.
pub(crate) trait Plan: Send + Sync {
    /// How many streams there are, at least one.
    fn streams(&self) -> usize;
    /// Opens one of them.
    fn open(self: Arc<Self>, stream: usize) -> Box<dyn Rows>;
    /// How many rows one stream, or all, will have.
    fn row_count(&self, stream: Option<usize>) -> Precision<usize>;
    /// For EXPLAIN: what is read.
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result;
}

/// The operator: one DataFusion partition per stream of the plan.
pub(crate) struct ScanExec {
    plan: Arc<dyn Plan>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl ScanExec {
    pub(crate) fn new(schema: SchemaRef, plan: Arc<dyn Plan>) -> ScanExec {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(plan.streams()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        ScanExec {
            plan,
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }
}

impl fmt::Debug for ScanExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fmt_as(DisplayFormatType::Default, f)
    }
}

impl DisplayAs for ScanExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ScanExec: ")?;
        self.plan.describe(f)?;
        let columns: Vec<&str> = self
            .properties
            .eq_properties
            .schema()
            .fields()
            .iter()
            .map(|field| field.name().as_str())
            .collect();
        write!(
            f,
            ", columns=[{}], streams={}",
            columns.join(", "),
            self.plan.streams()
        )
    }
}

impl ExecutionPlan for ScanExec {
    fn name(&self) -> &'static str {
        "ScanExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if children.is_empty() {
            Ok(self)
        } else {
            internal_err!("a scan has no children")
        }
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if children.is_empty() {
            Ok(self)
        } else {
            internal_err!("a scan has no children")
        }
    }

    fn statistics_from_inputs(
        &self,
        _: &[Arc<Statistics>],
        args: &StatisticsArgs,
    ) -> Result<Arc<Statistics>> {
        let unknown = Statistics::new_unknown(self.properties.eq_properties.schema());
        Ok(Arc::new(
            unknown.with_num_rows(self.plan.row_count(args.partition())),
        ))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        if partition >= self.plan.streams() {
            return internal_err!(
                "a scan of {} streams has no stream {partition}",
                self.plan.streams()
            );
        }
        let running = Running {
            rows: Some(self.plan.clone().open(partition)),
            reservation: MemoryConsumer::new(format!("scan stream {partition}"))
                .register(context.memory_pool()),
            metrics: BaselineMetrics::new(&self.metrics, partition),
        };
        let stream = futures::stream::iter(running);
        Ok(Box::pin(RecordBatchStreamAdapter::new(
            self.schema(),
            stream,
        )))
    }
}

/// A stream that is being read. Reads come from the page cache or memory, in chunks: short enough to be done where
/// they are asked for; DataFusion's cooperation with the scheduler lets others run between batches.
struct Running {
    /// None once it has ended or failed.
    rows: Option<Box<dyn Rows>>,
    reservation: MemoryReservation,
    metrics: BaselineMetrics,
}

impl Iterator for Running {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        let rows = self.rows.as_mut()?;
        let timer = self.metrics.elapsed_compute().timer();
        let next = rows.next();
        timer.done();
        let ended = match next {
            Ok(Some(batch)) => match self.reservation.try_resize(rows.held_bytes()) {
                Ok(()) => {
                    self.metrics.record_output(batch.num_rows());
                    return Some(Ok(batch));
                }
                Err(full) => Some(Err(full)),
            },
            Ok(None) => None,
            Err(error) => Some(Err(DataFusionError::from(error))),
        };
        self.rows = None;
        self.reservation.free();
        self.metrics.done();
        ended
    }
}
