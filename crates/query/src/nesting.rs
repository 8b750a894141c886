//! How deep a statement is nested, before anything recurses over it.
//!
//! Parser, planner and optimiser walk a statement by recursion, and a chain of operators is as deep as it is long: a few
//! kilobytes of `1 + 1 + …` would use up any stack, and an overflow ends the whole process. So the depth is bounded first,
//! by a count over the statement's words that needs no recursion itself and never says too little.

use crate::QueryError;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

/// Stack that a thread needs on which statements up to [`MAX_DEPTH`] are planned and run; a test shows that it is enough.
pub const SQL_STACK_BYTES: usize = 64 << 20;

/// The deepest statement that is taken: about so many operators in one expression, or a third of that in joins, unions or
/// queries within each other.
pub(crate) const MAX_DEPTH: usize = 1_500;

/// The longest statement that is taken.
pub(crate) const MAX_TEXT_BYTES: usize = 1 << 20;

/// Refuses what is too long or nested too deeply.
pub(crate) fn check(text: &str) -> Result<(), QueryError> {
    let refused = |message: String, hint: &str| {
        Err(QueryError::Syntax {
            message,
            line: None,
            column: None,
            hint: hint.into(),
        })
    };
    if text.len() > MAX_TEXT_BYTES {
        return refused(
            format!(
                "the statement has {} bytes; {MAX_TEXT_BYTES} are taken at most",
                text.len()
            ),
            "put values into a topic and join with it, or ask in several statements",
        );
    }
    // What cannot be split into words is for the parser to refuse.
    let Ok(tokens) = Tokenizer::new(&GenericDialect {}, text).tokenize() else {
        return Ok(());
    };
    let depth = depth(&tokens);
    if depth > MAX_DEPTH {
        return refused(
            format!("the statement is nested too deeply: {depth} levels, of {MAX_DEPTH} at most"),
            "write x IN (…) in place of many x = … OR, and fewer operators, joins and unions in one statement",
        );
    }
    Ok(())
}

/// What is open between two parentheses.
#[derive(Default)]
struct Level {
    /// What everything at this level lies in: clauses, joins, unions, and what is named behind FROM and WITH.
    base: usize,
    /// Whether commas join what they separate, as they do behind FROM and WITH, where all goes into `base`.
    joins: bool,
    /// Since the last comma.
    now: usize,
    /// The most between two commas before it.
    most: usize,
}

impl Level {
    fn depth(&self) -> usize {
        self.base + self.now.max(self.most)
    }

    fn add(&mut self, depth: usize) {
        match self.joins {
            true => self.base += depth,
            false => self.now += depth,
        }
    }

    /// A comma, or the next clause: what follows stands beside what was before.
    fn next(&mut self) {
        self.most = self.most.max(self.now);
        self.now = 0;
    }

    fn word(&mut self, keyword: Keyword) {
        match keyword {
            Keyword::NoKeyword => {}
            Keyword::FROM | Keyword::WITH => {
                self.next();
                self.base += 1;
                self.joins = true;
            }
            Keyword::SELECT
            | Keyword::WHERE
            | Keyword::GROUP
            | Keyword::ORDER
            | Keyword::HAVING
            | Keyword::VALUES => {
                self.next();
                self.base += 1;
                self.joins = false;
            }
            Keyword::UNION | Keyword::INTERSECT | Keyword::EXCEPT | Keyword::MINUS => {
                self.next();
                self.base += 1;
            }
            _ => self.add(1),
        }
    }
}

/// At least the depth of the tree that the parser, and after it the planner, makes of it. Everything but names, constants
/// and commas is one level more.
fn depth(tokens: &[Token]) -> usize {
    let mut levels = vec![Level::default()];
    let close = |levels: &mut Vec<Level>| {
        if levels.len() > 1
            && let Some(inner) = levels.pop()
            && let Some(outer) = levels.last_mut()
        {
            outer.add(inner.depth() + 1);
        }
    };
    for token in tokens {
        match token {
            Token::LParen | Token::LBracket | Token::LBrace => levels.push(Level::default()),
            Token::RParen | Token::RBracket | Token::RBrace => close(&mut levels),
            Token::Whitespace(_)
            | Token::Number(..)
            | Token::SingleQuotedString(_)
            | Token::Period
            | Token::EOF => {}
            other => {
                let Some(level) = levels.last_mut() else {
                    break;
                };
                match other {
                    Token::Comma if level.joins => level.base += 1,
                    Token::Comma => level.next(),
                    Token::Word(word) => level.word(word.keyword),
                    _ => level.add(1),
                }
            }
        }
    }
    while levels.len() > 1 {
        close(&mut levels);
    }
    levels.first().map_or(0, Level::depth)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn depth_of(text: &str) -> usize {
        depth(&Tokenizer::new(&GenericDialect {}, text).tokenize().unwrap())
    }

    #[test]
    fn what_stands_in_each_other_adds_up_and_what_stands_side_by_side_does_not() {
        assert_eq!(depth_of("1 + 1 + 1"), 2);
        assert_eq!(depth_of("(1 + 1) + (1 + 1)"), 5);
        assert_eq!(depth_of("f(1 + 1, 1 + 1, -1)"), 2);
        let list = |count: usize| {
            let items: Vec<String> = (0..count).map(|n| format!("-{n}")).collect();
            format!("SELECT * FROM t WHERE a IN ({})", items.join(", "))
        };
        assert_eq!(depth_of(&list(10)), depth_of(&list(10_000)));
        let unions = |count: usize| depth_of(&"SELECT 1, 2 UNION ALL ".repeat(count));
        assert_eq!(unions(100) - unions(10), 180);
        let rows = "(1, -2), ".repeat(5_000);
        assert!(depth_of(&format!("VALUES {rows} (3, 4)")) < 10);
    }

    #[test]
    fn commas_that_join_add_up() {
        let from = |count: usize| {
            let tables: Vec<String> = (0..count).map(|n| format!("t{n}")).collect();
            depth_of(&format!(
                "SELECT a, b FROM {} WHERE a = b",
                tables.join(", ")
            ))
        };
        assert_eq!(from(100) - from(10), 90);
        let with = |count: usize| {
            let queries: Vec<String> = (1..count)
                .map(|n| format!("q{n} AS (SELECT a FROM q{})", n - 1))
                .collect();
            depth_of(&format!(
                "WITH q0 AS (SELECT 1 AS a), {} SELECT a FROM q1",
                queries.join(", ")
            ))
        };
        assert!(with(100) > with(10) + 90 * 3);
    }

    #[test]
    fn what_is_never_closed_counts() {
        assert!(check(&"(".repeat(10_000)).is_err());
        assert!(check(&")".repeat(10_000)).is_ok(), "the parser refuses it");
        assert!(check(&"- ".repeat(10_000)).is_err());
        assert!(check(&" ".repeat(MAX_TEXT_BYTES + 1)).is_err());
    }
}
