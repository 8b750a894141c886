//! From filters to what must be read: a predicate over `_partition` and `_offset` becomes, per partition, a set of
//! offsets; one over `_timestamp` a set of milliseconds. Both are exact, so that DataFusion filters nothing again.

use crate::columns::Pseudo;
use crate::ranges::Ranges;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Between, BinaryExpr, Expr, Operator, expr::InList};

/// Which number a predicate is turned into a set of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Axis {
    /// Offsets of one partition, whose number is known.
    Offset {
        /// The partition.
        partition: u32,
    },
    /// Milliseconds since 1970.
    Timestamp,
}

/// The members of `axis` for which `filter` is true; `None` when it asks for something else too. The columns are
/// never NULL, so two-valued logic (and with it NOT) is exact; a NULL literal is left to DataFusion.
pub(crate) fn ranges(filter: &Expr, axis: Axis) -> Option<Ranges> {
    match filter {
        Expr::BinaryExpr(BinaryExpr {
            left,
            op: Operator::And,
            right,
        }) => Some(ranges(left, axis)?.and(&ranges(right, axis)?)),
        Expr::BinaryExpr(BinaryExpr {
            left,
            op: Operator::Or,
            right,
        }) => Some(ranges(left, axis)?.or(&ranges(right, axis)?)),
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match (column(left), column(right)) {
            (Some(pseudo), None) => compare(pseudo, *op, literal(right)?, axis),
            (None, Some(pseudo)) => compare(pseudo, op.swap()?, literal(left)?, axis),
            _ => None,
        },
        Expr::Not(inner) => Some(ranges(inner, axis)?.not()),
        Expr::Between(Between {
            expr,
            negated,
            low,
            high,
        }) => {
            let pseudo = column(expr)?;
            let inside = compare(pseudo, Operator::GtEq, literal(low)?, axis)?.and(&compare(
                pseudo,
                Operator::LtEq,
                literal(high)?,
                axis,
            )?);
            Some(if *negated { inside.not() } else { inside })
        }
        Expr::InList(InList {
            expr,
            list,
            negated,
        }) => {
            let pseudo = column(expr)?;
            let items = list
                .iter()
                .map(|item| compare(pseudo, Operator::Eq, literal(item)?, axis));
            let inside = Ranges::any_of(items.collect::<Option<Vec<_>>>()?);
            Some(if *negated { inside.not() } else { inside })
        }
        Expr::IsNotNull(inner) => column(inner)
            .and_then(|pseudo| on_axis(pseudo, axis))
            .map(|()| Ranges::all()),
        Expr::IsNull(inner) => column(inner)
            .and_then(|pseudo| on_axis(pseudo, axis))
            .map(|()| Ranges::none()),
        Expr::Literal(ScalarValue::Boolean(Some(value)), _) => Some(Ranges::when(*value)),
        _ => None,
    }
}

/// Whether a scan takes this filter over entirely.
pub(crate) fn is_exact(filter: &Expr) -> bool {
    ranges(filter, Axis::Offset { partition: 0 }).is_some()
        || ranges(filter, Axis::Timestamp).is_some()
}

/// The tables of a handler's state that a filter over `_table` alone lets through; `None` when it asks for more.
pub(crate) fn table_names(filter: &Expr) -> Option<Vec<String>> {
    let is_table =
        |expr: &Expr| matches!(expr, Expr::Column(column) if column.name == Pseudo::Table.name());
    match filter {
        Expr::BinaryExpr(BinaryExpr {
            left,
            op: Operator::Eq,
            right,
        }) if is_table(left) => Some(vec![text(right)?]),
        Expr::BinaryExpr(BinaryExpr {
            left,
            op: Operator::Eq,
            right,
        }) if is_table(right) => Some(vec![text(left)?]),
        Expr::BinaryExpr(BinaryExpr {
            left,
            op: Operator::Or,
            right,
        }) => {
            let mut either = table_names(left)?;
            either.extend(table_names(right)?);
            Some(sorted(either))
        }
        Expr::InList(InList {
            expr,
            list,
            negated: false,
        }) if is_table(expr) => Some(sorted(list.iter().map(text).collect::<Option<Vec<_>>>()?)),
        _ => None,
    }
}

fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort_unstable();
    names.dedup();
    names
}

fn text(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Literal(value, _) => value.try_as_str().flatten().map(str::to_owned),
        _ => None,
    }
}

/// A filter is told by every one of its columns, so one column of the right axis is enough to ask for.
fn on_axis(pseudo: Pseudo, axis: Axis) -> Option<()> {
    match (pseudo, axis) {
        (Pseudo::Partition | Pseudo::Offset, Axis::Offset { .. })
        | (Pseudo::Timestamp, Axis::Timestamp) => Some(()),
        _ => None,
    }
}

fn column(expr: &Expr) -> Option<Pseudo> {
    match expr {
        Expr::Column(column) => Pseudo::TOPIC.into_iter().find(|pseudo| {
            matches!(
                pseudo,
                Pseudo::Partition | Pseudo::Offset | Pseudo::Timestamp
            ) && pseudo.name() == column.name
        }),
        // Type coercion widens a column to the type of what it is compared with; widening loses nothing.
        Expr::Cast(cast) => {
            column(&cast.expr).filter(|pseudo| widens(*pseudo, cast.field.data_type()))
        }
        _ => None,
    }
}

fn widens(pseudo: Pseudo, to: &arrow::datatypes::DataType) -> bool {
    use arrow::datatypes::{DataType, TimeUnit};
    match pseudo {
        Pseudo::Partition => matches!(to, DataType::Int32 | DataType::Int64),
        Pseudo::Offset => matches!(to, DataType::Int64),
        Pseudo::Timestamp => {
            !matches!(to, DataType::Timestamp(TimeUnit::Second, _))
                && matches!(to, DataType::Timestamp(_, Some(_)))
        }
        _ => false,
    }
}

/// A constant, in units of which a column's unit is `scale`.
#[derive(Clone, Copy)]
struct Constant {
    value: i64,
    /// How many units of `value` one unit of the column has (a million for nanoseconds against milliseconds).
    scale: i64,
    timestamp: bool,
}

fn literal(expr: &Expr) -> Option<Constant> {
    let Expr::Literal(value, _) = expr else {
        return None;
    };
    let number = |value: i64| {
        Some(Constant {
            value,
            scale: 1,
            timestamp: false,
        })
    };
    let instant = |value: i64, scale: i64| {
        Some(Constant {
            value,
            scale,
            timestamp: true,
        })
    };
    match value {
        ScalarValue::Int8(Some(value)) => number(i64::from(*value)),
        ScalarValue::Int16(Some(value)) => number(i64::from(*value)),
        ScalarValue::Int32(Some(value)) => number(i64::from(*value)),
        ScalarValue::Int64(Some(value)) => number(*value),
        ScalarValue::UInt8(Some(value)) => number(i64::from(*value)),
        ScalarValue::UInt16(Some(value)) => number(i64::from(*value)),
        ScalarValue::UInt32(Some(value)) => number(i64::from(*value)),
        ScalarValue::UInt64(Some(value)) => number(i64::try_from(*value).ok()?),
        ScalarValue::TimestampSecond(Some(value), Some(_)) => instant(value.checked_mul(1_000)?, 1),
        ScalarValue::TimestampMillisecond(Some(value), Some(_)) => instant(*value, 1),
        ScalarValue::TimestampMicrosecond(Some(value), Some(_)) => instant(*value, 1_000),
        ScalarValue::TimestampNanosecond(Some(value), Some(_)) => instant(*value, 1_000_000),
        _ => None,
    }
}

fn compare(pseudo: Pseudo, op: Operator, constant: Constant, axis: Axis) -> Option<Ranges> {
    on_axis(pseudo, axis)?;
    if constant.timestamp != (pseudo == Pseudo::Timestamp) {
        return None;
    }
    let set = compared(op, constant)?;
    Some(match (pseudo, axis) {
        (Pseudo::Partition, Axis::Offset { partition }) => {
            Ranges::when(set.contains(i64::from(partition)))
        }
        _ => set,
    })
}

/// `{x | x * scale op value}`.
fn compared(op: Operator, Constant { value, scale, .. }: Constant) -> Option<Ranges> {
    let floor = value.div_euclid(scale);
    let whole = value.rem_euclid(scale) == 0;
    let up_to =
        |last: Option<i64>| last.map_or_else(Ranges::none, |last| Ranges::between(i64::MIN, last));
    let at_most = Ranges::between(i64::MIN, floor);
    let below = up_to(if whole {
        floor.checked_sub(1)
    } else {
        Some(floor)
    });
    Some(match op {
        Operator::Eq => at_most.and(&below.not()),
        Operator::NotEq => at_most.and(&below.not()).not(),
        Operator::LtEq => at_most,
        Operator::Gt => at_most.not(),
        Operator::Lt => below,
        Operator::GtEq => below.not(),
        _ => return None,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::{Axis, is_exact, ranges};
    use crate::ranges::Ranges;
    use datafusion::common::ScalarValue;
    use datafusion::prelude::{col, lit};

    fn offsets(filter: &datafusion::logical_expr::Expr, partition: u32) -> Vec<(i64, i64)> {
        ranges(filter, Axis::Offset { partition })
            .unwrap()
            .iter()
            .collect()
    }

    #[test]
    fn every_comparison_of_offset_and_partition_is_exact() {
        assert_eq!(offsets(&col("_offset").eq(lit(5i64)), 0), [(5, 5)]);
        assert_eq!(offsets(&col("_offset").gt(lit(5i64)), 0), [(6, i64::MAX)]);
        assert_eq!(
            offsets(&lit(5i64).gt_eq(col("_offset")), 0),
            [(i64::MIN, 5)]
        );
        assert_eq!(
            offsets(&col("_offset").between(lit(3i64), lit(9i64)), 0),
            [(3, 9)]
        );
        assert_eq!(
            offsets(
                &col("_offset").in_list(vec![lit(1i64), lit(2i64), lit(9i64)], false),
                0
            ),
            [(1, 2), (9, 9)]
        );
        assert_eq!(offsets(&col("_partition").eq(lit(1i32)), 0), []);
        assert_eq!(
            offsets(&col("_partition").eq(lit(1i32)), 1),
            [(i64::MIN, i64::MAX)]
        );
    }

    #[test]
    fn mixed_predicates_are_taken_apart_per_partition() {
        let filter = col("_partition")
            .eq(lit(0i32))
            .and(col("_offset").gt_eq(lit(10i64)))
            .or(col("_partition")
                .eq(lit(1i32))
                .and(col("_offset").lt(lit(4i64))));
        assert_eq!(offsets(&filter, 0), [(10, i64::MAX)]);
        assert_eq!(offsets(&filter, 1), [(i64::MIN, 3)]);
        assert_eq!(offsets(&filter, 2), []);
    }

    #[test]
    fn timestamps_of_finer_units_are_rounded_the_right_way() {
        let nanos = |value| {
            lit(ScalarValue::TimestampNanosecond(
                Some(value),
                Some("UTC".into()),
            ))
        };
        let set = |filter| ranges(&filter, Axis::Timestamp).unwrap();
        assert_eq!(
            set(col("_timestamp").gt_eq(nanos(1_500_000))),
            Ranges::between(2, i64::MAX)
        );
        assert_eq!(
            set(col("_timestamp").gt(nanos(1_000_000))),
            Ranges::between(2, i64::MAX)
        );
        assert_eq!(
            set(col("_timestamp").lt(nanos(1_500_000))),
            Ranges::between(i64::MIN, 1)
        );
        assert_eq!(
            set(col("_timestamp").lt(nanos(1_000_000))),
            Ranges::between(i64::MIN, 0)
        );
        assert_eq!(set(col("_timestamp").eq(nanos(1_500_000))), Ranges::none());
        assert_eq!(
            set(col("_timestamp").not_eq(nanos(2_000_000))),
            Ranges::between(2, 2).not()
        );
    }

    #[test]
    fn what_asks_for_more_is_left_to_datafusion() {
        assert!(!is_exact(&col("carrier").eq(lit("UA"))));
        assert!(!is_exact(
            &col("_offset")
                .eq(lit(1i64))
                .or(col("carrier").eq(lit("UA")))
        ));
        assert!(!is_exact(&col("_offset").eq(lit(ScalarValue::Int64(None)))));
        assert!(!is_exact(&col("_offset").eq(col("_partition"))));
        assert!(!is_exact(&(col("_offset") % lit(2i64)).eq(lit(0i64))));
    }
}
