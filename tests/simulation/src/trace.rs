//! What happened, line by line: kept only where somebody wants to read or compare it.

use std::fmt;
use std::io::{BufWriter, Stdout, Write};

use parking_lot::Mutex;

/// The trace of one run.
pub enum Trace {
    /// Nobody looks at it.
    Off,
    /// Kept, to be compared.
    Kept(Mutex<String>),
    /// Printed as it comes.
    Printed(Mutex<BufWriter<Stdout>>),
}

impl Trace {
    /// A trace that keeps its lines.
    pub fn kept() -> Trace {
        Trace::Kept(Mutex::default())
    }

    /// A trace that prints its lines.
    pub fn printed() -> Trace {
        Trace::Printed(Mutex::new(BufWriter::new(std::io::stdout())))
    }

    /// Whether lines go anywhere.
    pub fn is_kept(&self) -> bool {
        !matches!(self, Trace::Off)
    }

    /// Adds a line.
    pub fn line(&self, line: fmt::Arguments<'_>) {
        match self {
            Trace::Off => {}
            Trace::Kept(lines) => {
                let mut lines = lines.lock();
                let _ = fmt::Write::write_fmt(&mut *lines, line);
                lines.push('\n');
            }
            // Nobody reads on: that is not this run's concern.
            Trace::Printed(out) => drop(writeln!(out.lock(), "{line}")),
        }
    }

    /// Prints what has not been printed yet.
    pub fn flush(&self) {
        if let Trace::Printed(out) = self {
            drop(out.lock().flush());
        }
    }

    /// All lines that were kept.
    pub fn take(&self) -> String {
        match self {
            Trace::Kept(lines) => std::mem::take(&mut *lines.lock()),
            _ => String::new(),
        }
    }
}

/// Adds a line to a trace; where it is not kept, nothing is formatted.
#[macro_export]
macro_rules! note {
    ($trace:expr, $($line:tt)*) => {
        if $trace.is_kept() {
            $trace.line(format_args!($($line)*));
        }
    };
}
