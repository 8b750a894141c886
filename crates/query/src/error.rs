//! Why a query failed, for people (message, hint) and for programs (code).

use datafusion::common::{DataFusionError, SchemaError};
use mainstem_broker::BrokerError;
use mainstem_engine::EngineError;

/// Why a query failed. [`code`](QueryError::code) is stable, [`hint`](QueryError::hint) says what to do.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The text is not SQL.
    #[error("{message}{}", place(*line, *column))]
    Syntax {
        /// What the parser found.
        message: String,
        /// Line of the statement, from 1, where it is known.
        line: Option<u64>,
        /// Column in that line, from 1.
        column: Option<u64>,
        /// What to do.
        hint: String,
    },
    /// No such table in the caller's schemas.
    #[error("there is no table {name}")]
    UnknownTable {
        /// The name asked for.
        name: String,
        /// What to do; near names, if there are any.
        hint: String,
    },
    /// No such column in the tables of the query.
    #[error("there is no column {name}")]
    UnknownColumn {
        /// The name asked for.
        name: String,
        /// What to do; near names, or those there are.
        hint: String,
    },
    /// A statement that SQL does not serve here.
    #[error("{what} is not served by SQL: queries read, they never write")]
    Refused {
        /// The kind of statement.
        what: String,
        /// What to use in its place.
        hint: String,
    },
    /// SQL that parses and means nothing: types that do not fit, a missing GROUP BY.
    #[error("{message}")]
    Invalid {
        /// What does not fit.
        message: String,
    },
    /// The memory for SQL is used up.
    #[error("the query needs more memory than SQL has: {message}")]
    Memory {
        /// Who asked for how much.
        message: String,
    },
    /// The query failed while it ran: a division by zero, a cast that cannot be.
    #[error("{message}")]
    Failed {
        /// What failed.
        message: String,
    },
    /// Bytes in the log that are not what was written.
    #[error("damaged data in topic {topic}, partition {partition}, at offset {offset}: {message}")]
    Damaged {
        /// The topic's name.
        topic: String,
        /// The partition.
        partition: u32,
        /// The offset that was read at.
        offset: i64,
        /// What is wrong with the bytes.
        message: String,
    },
    /// From the broker: names and rights.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// From the engine: no snapshot could be had.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

fn place(line: Option<u64>, column: Option<u64>) -> String {
    match (line, column) {
        (Some(line), Some(column)) => format!(" at line {line}, column {column}"),
        _ => String::new(),
    }
}

impl QueryError {
    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            QueryError::Syntax { .. } => "sql_syntax",
            QueryError::UnknownTable { .. } => "sql_unknown_table",
            QueryError::UnknownColumn { .. } => "sql_unknown_column",
            QueryError::Refused { .. } => "sql_refused",
            QueryError::Invalid { .. } => "sql_invalid",
            QueryError::Memory { .. } => "sql_out_of_memory",
            QueryError::Failed { .. } => "sql_failed",
            QueryError::Damaged { .. } => "damaged",
            QueryError::Broker(error) => error.code(),
            QueryError::Engine(EngineError::Poisoned { .. }) => "writes_stopped",
            QueryError::Engine(EngineError::Closed) => "closed",
            QueryError::Engine(error) if error.is_damage() => "damaged",
            QueryError::Engine(_) => "engine",
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            QueryError::Syntax { hint, .. }
            | QueryError::UnknownTable { hint, .. }
            | QueryError::UnknownColumn { hint, .. }
            | QueryError::Refused { hint, .. } => hint.clone(),
            QueryError::Invalid { .. } => {
                "DESCRIBE <table> shows the columns and their types; CAST(x AS type) changes one".into()
            }
            QueryError::Memory { .. } => "narrow the query (WHERE, LIMIT, fewer groups), or raise memory.limit, of which SQL gets its share".into(),
            QueryError::Failed { .. } => {
                "TRY_CAST gives NULL where CAST fails, NULLIF(x, 0) keeps a division from failing".into()
            }
            QueryError::Damaged { .. } => {
                "WHERE _partition and _offset read around it; the disk should be checked and the data restored".into()
            }
            QueryError::Broker(error) => error.hint().unwrap_or_default(),
            QueryError::Engine(EngineError::Poisoned { .. }) => {
                "a query needs a snapshot, and that needs writes; consume reads on: where the disk was full, free space and the server goes on by itself; else check the disk and restart it".into()
            }
            QueryError::Engine(EngineError::Closed) => "connect again".into(),
            QueryError::Engine(error) if error.is_damage() => {
                "check the server's disk and restore what is named from a backup".into()
            }
            QueryError::Engine(_) => "look at the server's log".into(),
        }
    }
}

impl From<DataFusionError> for QueryError {
    fn from(error: DataFusionError) -> QueryError {
        match error {
            DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => {
                (*inner).into()
            }
            DataFusionError::Collection(mut errors) if !errors.is_empty() => {
                errors.swap_remove(0).into()
            }
            DataFusionError::Shared(inner) => shared(&inner),
            DataFusionError::External(inner) => match inner.downcast::<QueryError>() {
                Ok(own) => *own,
                Err(other) => QueryError::Failed {
                    message: other.to_string(),
                },
            },
            DataFusionError::SQL(error, _) => crate::statement::syntax_error(&error),
            DataFusionError::SchemaError(error, _) => schema_error(*error),
            DataFusionError::Plan(message)
            | DataFusionError::NotImplemented(message)
            | DataFusionError::Configuration(message) => QueryError::Invalid { message },
            DataFusionError::ResourcesExhausted(message) => QueryError::Memory { message },
            DataFusionError::ArrowError(error, _) => QueryError::Failed {
                message: error.to_string(),
            },
            DataFusionError::Execution(message) => QueryError::Failed { message },
            other => QueryError::Failed {
                message: other.strip_backtrace(),
            },
        }
    }
}

/// An error that several streams of one query wait for cannot be moved out: its message is what can be had.
fn shared(error: &DataFusionError) -> QueryError {
    match error {
        DataFusionError::Shared(inner) => shared(inner),
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => shared(inner),
        DataFusionError::ResourcesExhausted(message) => QueryError::Memory {
            message: message.clone(),
        },
        DataFusionError::External(inner) => match inner.downcast_ref::<QueryError>() {
            Some(QueryError::Damaged {
                topic,
                partition,
                offset,
                message,
            }) => QueryError::Damaged {
                topic: topic.clone(),
                partition: *partition,
                offset: *offset,
                message: message.clone(),
            },
            _ => QueryError::Failed {
                message: inner.to_string(),
            },
        },
        other => QueryError::Failed {
            message: other.strip_backtrace(),
        },
    }
}

fn schema_error(error: SchemaError) -> QueryError {
    match error {
        SchemaError::FieldNotFound {
            field,
            valid_fields,
        } => {
            let names: Vec<&str> = valid_fields
                .iter()
                .map(|column| column.name.as_str())
                .collect();
            QueryError::UnknownColumn {
                name: field.name.clone(),
                hint: crate::nearest::column_hint(&field.name, &names),
            }
        }
        other => QueryError::Invalid {
            message: other.to_string(),
        },
    }
}

impl From<QueryError> for DataFusionError {
    fn from(error: QueryError) -> DataFusionError {
        DataFusionError::External(Box::new(error))
    }
}
