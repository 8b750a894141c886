//! Which tables a query sees: one catalogue, three schemas, all at the query's snapshot and for its caller.

use crate::engine::QueryContext;
use crate::infer::{state_schema, topic_schema};
use crate::nearest::table_hint;
use crate::state::StateTable;
use crate::system::SystemTables;
use crate::topic::TopicTable;
use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, MemTable, SchemaProvider, TableProvider};
use datafusion::common::{DataFusionError, Result, TableReference};
use datafusion::logical_expr::TableType;
use std::fmt;
use std::sync::Arc;

/// The catalogue's name in `information_schema`.
pub(crate) const CATALOG: &str = "mainstem";
/// Topics.
pub(crate) const PUBLIC: &str = "public";
/// Handlers' state.
pub(crate) const STATE: &str = "state";
/// The system's tables.
pub(crate) const SYSTEM: &str = "system";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Topics,
    State,
    System,
}

/// The catalogue of one query.
#[derive(Clone)]
pub(crate) struct QueryCatalog {
    context: Arc<QueryContext>,
    system: Arc<SystemTables>,
}

impl QueryCatalog {
    pub(crate) fn new(context: Arc<QueryContext>, system: Arc<SystemTables>) -> QueryCatalog {
        QueryCatalog { context, system }
    }

    /// Why there is no such table, or `None` if there is.
    pub(crate) fn missing(&self, table: &TableReference) -> Option<crate::QueryError> {
        let schema = table.schema().unwrap_or(PUBLIC);
        if schema == "information_schema" {
            return None;
        }
        let name = table.table();
        let Some(provider) = self.schema(schema) else {
            // FROM a.b may mean the topic "a.b".
            let dotted = format!("{schema}.{name}");
            let hint = match self.context.topics.contains_key(&dotted) {
                true => format!("a name with a dot stands in double quotes: \"{dotted}\""),
                false => format!(
                    "there is no schema {schema}; topics are in public, handlers' state in state, the rest in system"
                ),
            };
            return Some(crate::QueryError::UnknownTable { name: dotted, hint });
        };
        if provider.table_exist(name) {
            return None;
        }
        let names = provider.table_names();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let shown = if table.schema().is_some() {
            format!("{schema}.{name}")
        } else {
            name.to_owned()
        };
        Some(crate::QueryError::UnknownTable {
            name: shown,
            hint: table_hint(schema, name, &names),
        })
    }
}

impl fmt::Debug for QueryCatalog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(CATALOG)
    }
}

impl CatalogProvider for QueryCatalog {
    fn schema_names(&self) -> Vec<String> {
        [PUBLIC, STATE, SYSTEM].map(str::to_owned).into()
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        let kind = match name {
            PUBLIC => Kind::Topics,
            STATE => Kind::State,
            SYSTEM => Kind::System,
            _ => return None,
        };
        Some(Arc::new(Schema {
            kind,
            catalog: self.clone(),
        }))
    }
}

/// One schema of it.
#[derive(Debug)]
struct Schema {
    kind: Kind,
    catalog: QueryCatalog,
}

#[async_trait]
impl SchemaProvider for Schema {
    fn table_names(&self) -> Vec<String> {
        let context = &self.catalog.context;
        match self.kind {
            Kind::Topics => context.topics.keys().cloned().collect(),
            Kind::State => context.handlers.keys().cloned().collect(),
            Kind::System => self.catalog.system.keys().cloned().collect(),
        }
    }

    fn table_exist(&self, name: &str) -> bool {
        let context = &self.catalog.context;
        match self.kind {
            Kind::Topics => context.topics.contains_key(name),
            Kind::State => context.handlers.contains_key(name),
            Kind::System => self.catalog.system.contains_key(name),
        }
    }

    /// Known without making the table, so that SHOW TABLES samples nothing.
    async fn table_type(&self, name: &str) -> Result<Option<TableType>> {
        Ok(self.table_exist(name).then_some(TableType::Base))
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        let context = &self.catalog.context;
        Ok(match self.kind {
            Kind::Topics => match context.topics.get(name) {
                Some(topic) => {
                    let schema = topic_schema(context, topic)?;
                    Some(Arc::new(TopicTable::new(
                        context.clone(),
                        topic.clone(),
                        schema,
                    )))
                }
                None => None,
            },
            Kind::State => match context.handlers.get(name) {
                Some(handler) => {
                    let schema = state_schema(context, handler)?;
                    Some(Arc::new(StateTable::new(
                        context.clone(),
                        handler.clone(),
                        schema,
                    )))
                }
                None => None,
            },
            Kind::System => match self.catalog.system.get(name) {
                Some(table) => {
                    let rows = table.rows(&context.caller, &context.snapshot)?;
                    Some(Arc::new(MemTable::try_new(
                        table.schema(),
                        vec![vec![rows]],
                    )?))
                }
                None => None,
            },
        })
    }
}
