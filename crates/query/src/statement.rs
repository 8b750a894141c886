//! Which statements are served, and what to say about the others.

use crate::nearest::nearest;
use crate::{QueryError, nesting};
use datafusion::sql::parser::{DFParser, Statement};
use datafusion::sql::sqlparser::ast::{SetExpr, Statement as Ast};
use datafusion::sql::sqlparser::parser::ParserError;

/// Parses one statement and lets it through if it only reads.
pub(crate) fn parse(text: &str) -> Result<Statement, QueryError> {
    nesting::check(text)?;
    let mut statements = DFParser::parse_sql(text)?;
    let Some(statement) = statements.pop_front() else {
        return Err(QueryError::Syntax {
            message: "there is no statement".into(),
            line: None,
            column: None,
            hint: "try SHOW TABLES, or SELECT * FROM <topic> LIMIT 10".into(),
        });
    };
    if !statements.is_empty() {
        return Err(QueryError::Refused {
            what: "more than one statement at a time".into(),
            hint: "send them one after another; each reads a snapshot of its own".into(),
        });
    }
    if reads(&statement) {
        Ok(statement)
    } else {
        Err(refused(&statement))
    }
}

fn reads(statement: &Statement) -> bool {
    match statement {
        Statement::Statement(ast) => ast_reads(ast),
        Statement::Explain(explain) => reads(&explain.statement),
        _ => false,
    }
}

fn ast_reads(ast: &Ast) -> bool {
    match ast {
        Ast::Query(query) => !matches!(
            &*query.body,
            SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_)
        ),
        Ast::Explain { statement, .. } => ast_reads(statement),
        Ast::ExplainTable { .. }
        | Ast::ShowTables { .. }
        | Ast::ShowColumns { .. }
        | Ast::ShowVariable { .. }
        | Ast::ShowVariables { .. }
        | Ast::ShowFunctions { .. }
        | Ast::ShowSchemas { .. }
        | Ast::ShowDatabases { .. } => true,
        _ => false,
    }
}

/// A refusal that says what to use in its place.
fn refused(statement: &Statement) -> QueryError {
    let text = statement.to_string().to_uppercase();
    // EXPLAIN INSERT is an INSERT, and so is WITH … INSERT.
    let words: Vec<&str> = text
        .split_whitespace()
        .skip_while(|word| matches!(*word, "EXPLAIN" | "ANALYZE" | "VERBOSE"))
        .collect();
    let first = words.first().copied().unwrap_or_default();
    let first = match first {
        "WITH" => words
            .iter()
            .copied()
            .find(|word| matches!(*word, "INSERT" | "UPDATE" | "DELETE"))
            .unwrap_or(first),
        _ => first,
    };
    refusal(first, words.get(1).copied().unwrap_or_default())
}

/// The refusal for a statement that begins with these words.
pub(crate) fn refusal(first: &str, second: &str) -> QueryError {
    let hint = match first {
        "INSERT" | "COPY" => "write records with `mainstem produce <topic>`, or a client's produce",
        "CREATE" => {
            "`mainstem topic create <topic>` makes a topic, which is a table at once; WITH names a query within a query"
        }
        "DROP" => "`mainstem topic delete <topic>` removes a topic",
        "ALTER" => {
            "`mainstem topic alter <topic>` changes a topic's settings, columns and partitions"
        }
        "UPDATE" | "DELETE" | "TRUNCATE" | "MERGE" => {
            "records never change: produce a newer one of the same key; a topic's retention.ms and retention.bytes remove old ones"
        }
        "SET" | "RESET" => "settings belong to the server: `mainstem serve --help` lists them",
        "BEGIN" | "START" | "COMMIT" | "ROLLBACK" | "SAVEPOINT" => {
            "leave it out: every query reads one snapshot of everything, by itself"
        }
        _ => "SELECT, WITH, VALUES, EXPLAIN, SHOW and DESCRIBE are served",
    };
    let what = if matches!(first, "CREATE" | "DROP" | "ALTER") && !second.is_empty() {
        format!("{first} {second}")
    } else {
        first.to_owned()
    };
    QueryError::Refused {
        what,
        hint: hint.to_owned(),
    }
}

/// The parser's message, its place taken out of the text, with a hint.
pub(crate) fn syntax_error(error: &ParserError) -> QueryError {
    let text = match error {
        ParserError::TokenizerError(text) | ParserError::ParserError(text) => text.clone(),
        ParserError::RecursionLimitExceeded => "the statement is nested too deeply".to_owned(),
    };
    let (message, line, column) = split_place(&text);
    QueryError::Syntax {
        hint: hint(&message),
        message,
        line,
        column,
    }
}

/// `… at Line: 1, Column: 15` into its parts.
fn split_place(text: &str) -> (String, Option<u64>, Option<u64>) {
    let Some((message, place)) = text.rsplit_once(" at Line: ") else {
        return (text.to_owned(), None, None);
    };
    let (line, column) = place.split_once(", Column: ").unwrap_or((place, ""));
    let number = |text: &str| {
        text.trim_matches(|c: char| !c.is_ascii_digit())
            .parse()
            .ok()
    };
    (message.to_owned(), number(line), number(column))
}

fn hint(message: &str) -> String {
    const WORDS: &[&str] = &[
        "SELECT", "FROM", "WHERE", "GROUP", "ORDER", "BY", "HAVING", "LIMIT", "OFFSET", "JOIN",
        "LEFT", "INNER", "UNION", "VALUES", "WITH", "EXPLAIN", "DESCRIBE", "SHOW", "TABLES",
        "COLUMNS", "AND", "BETWEEN", "DISTINCT", "INTERVAL",
    ];
    let found = message
        .rsplit_once("found: ")
        .map_or("", |(_, found)| found.trim());
    if message.contains("Unterminated") {
        return "a text in quotes is not closed: 'text' is a value, \"name\" a name".into();
    }
    if matches!(found, "-" | ".") {
        return "a name with other signs than letters, digits and _ stands in double quotes: \"my-topic\"".into();
    }
    if found == "EOF" {
        return "the statement ends too early".into();
    }
    let word = found.trim_matches('\'').to_uppercase();
    match nearest(&word, WORDS).first() {
        Some(near) if *near != word => format!("did you mean {near}?"),
        _ => "a statement looks like SELECT columns FROM topic WHERE condition GROUP BY columns ORDER BY columns LIMIT n".into(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::parse;
    use crate::QueryError;

    #[test]
    fn what_reads_is_served() {
        for text in [
            "SELECT 1",
            "WITH a AS (SELECT 1) SELECT * FROM a;",
            "VALUES (1), (2)",
            "EXPLAIN SELECT 1",
            "EXPLAIN ANALYZE SELECT 1",
            "SHOW TABLES",
            "SHOW COLUMNS FROM flights",
            "DESCRIBE state.flights",
        ] {
            parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        }
    }

    #[test]
    fn what_writes_is_refused_with_what_to_use_in_its_place() {
        for (text, what, hint) in [
            (
                "INSERT INTO flights VALUES (1)",
                "INSERT",
                "mainstem produce",
            ),
            ("CREATE TABLE a (b INT)", "CREATE TABLE", "topic create"),
            (
                "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
                "CREATE EXTERNAL",
                "topic create",
            ),
            (
                "COPY (SELECT 1) TO '/tmp/x.csv'",
                "COPY",
                "mainstem produce",
            ),
            ("DROP TABLE flights", "DROP TABLE", "topic delete"),
            ("DELETE FROM flights", "DELETE", "retention"),
            ("UPDATE flights SET a = 1", "UPDATE", "same key"),
            (
                "EXPLAIN INSERT INTO flights VALUES (1)",
                "INSERT",
                "mainstem produce",
            ),
            ("SET a = 1", "SET", "server"),
            ("BEGIN", "BEGIN", "snapshot"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(
                matches!(&error, QueryError::Refused { what: found, .. } if found == what),
                "{text}: {error:?}"
            );
            assert!(error.hint().contains(hint), "{text}: {}", error.hint());
        }
        assert_eq!(
            parse("SELECT 1; SELECT 2").unwrap_err().code(),
            "sql_refused"
        );
    }

    #[test]
    fn a_syntax_error_says_where_and_what_to_do() {
        let error = parse("SELECT *\nFORM flights").unwrap_err();
        assert!(error.to_string().contains("at line 2, column"), "{error}");
        assert!(
            parse("SELECT a FROM b GRUOP BY a")
                .unwrap_err()
                .hint()
                .contains("GROUP")
        );
        assert!(
            parse("SELECT 'abc")
                .unwrap_err()
                .hint()
                .contains("not closed")
        );
        assert!(
            parse("SELECT * FROM my-topic")
                .unwrap_err()
                .hint()
                .contains("double quotes")
        );
        assert!(parse("").unwrap_err().hint().contains("SHOW TABLES"));
    }
}
