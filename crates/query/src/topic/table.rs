//! A topic as DataFusion sees it.

use crate::columns::{Source, project, topic_columns};
use crate::engine::QueryContext;
use crate::predicate::is_exact;
use crate::scan::ScanExec;
use crate::topic::plan::TopicPlan;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use mainstem_broker::Topic;
use mainstem_schema::TopicSchema;
use std::fmt;
use std::sync::Arc;

/// A topic at a query's snapshot.
pub(crate) struct TopicTable {
    pub(super) context: Arc<QueryContext>,
    pub(super) topic: Arc<Topic>,
    pub(super) value_schema: TopicSchema,
    schema: SchemaRef,
    sources: Vec<Source>,
}

impl TopicTable {
    pub(crate) fn new(
        context: Arc<QueryContext>,
        topic: Arc<Topic>,
        value_schema: TopicSchema,
    ) -> TopicTable {
        let (schema, sources) = topic_columns(&value_schema);
        TopicTable {
            context,
            topic,
            value_schema,
            schema,
            sources,
        }
    }
}

impl fmt::Debug for TopicTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "topic {}", self.topic.name)
    }
}

#[async_trait]
impl TableProvider for TopicTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(filters
            .iter()
            .map(|filter| match is_exact(filter) {
                true => TableProviderFilterPushDown::Exact,
                false => TableProviderFilterPushDown::Unsupported,
            })
            .collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let (schema, sources) = project(&self.schema, &self.sources, projection)?;
        let streams = state.config().target_partitions();
        let plan = TopicPlan::new(self, (schema.clone(), sources), filters, limit, streams)?;
        Ok(Arc::new(ScanExec::new(schema, Arc::new(plan))))
    }
}
