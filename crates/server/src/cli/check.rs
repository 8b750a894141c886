//! `mainstem check`: looks a data directory through while no server has it.

use super::Common;
use super::output::{document, size, table};
use crate::failure::Failure;
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use mainstem::{CheckOptions, CheckProgress, CheckReport, Finding, Grade};
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// `mainstem check`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct CheckArguments {
    /// The data directory; no server may have it open [default: ./mainstem-data]
    #[arg(long, env = "MAINSTEM_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Build again what is derived from the rest: indexes of segments, compiled code of handlers
    #[arg(long)]
    pub rebuild: bool,
}

pub const EXAMPLES: &str = "\
Examples:
  mainstem check --data-dir ./data
  mainstem check --data-dir ./data --rebuild
  mainstem check --data-dir ./data --output json

Every file is read; nothing is changed without --rebuild. Each damage is named with its file, its position and \
what it costs. Exit code 0: nothing is damaged, or all that was has been built again. 1: something is damaged.";

pub fn run(common: &Common, arguments: CheckArguments) -> Result<(), Failure> {
    let dir = arguments.data_dir.unwrap_or_else(|| "mainstem-data".into());
    let options = CheckOptions {
        rebuild: arguments.rebuild,
    };
    let mut progress = Progress::new();
    let report = mainstem::check(&dir, options, &mut |so_far| progress.say(so_far))?;
    progress.end();
    document(common.output, &report, || shown(&report))?;
    if report.clean {
        return Ok(());
    }
    let harmed = |finding: &&Finding| finding.grade == Grade::Damage && !finding.rebuilt;
    let damaged: Vec<&Finding> = report.findings.iter().filter(harmed).collect();
    let hint = match damaged.iter().all(|finding| finding.derived) && report.unnamed == 0 {
        true => {
            "all of it is derived: the server starts without it, and `--rebuild` builds it again"
        }
        false => {
            "the list says what each costs; restore the files named, or the whole directory, from a copy"
        }
    };
    let count = damaged.len() as u64 + report.unnamed;
    let message = match count {
        1 => format!("1 damage was found in {}", dir.display()),
        count => format!("{count} damages were found in {}", dir.display()),
    };
    Err(Failure::new("damage_found", message, hint))
}

/// What a person reads.
fn shown(report: &CheckReport) -> String {
    let rows = report.findings.iter().map(|finding| {
        let number =
            |number: Option<u64>| number.map_or_else(String::new, |number| number.to_string());
        let mut affects = finding.affects.clone();
        match (finding.derived, finding.rebuilt) {
            (_, true) => affects += ", and was built again",
            (true, false) => affects += "; --rebuild builds it again",
            _ => {}
        }
        vec![
            match finding.grade {
                Grade::Damage => "damage".to_owned(),
                Grade::Note => "note".to_owned(),
            },
            finding.file.display().to_string(),
            number(finding.position),
            number(finding.lsn),
            finding.what.clone(),
            affects,
        ]
    });
    let mut text = String::new();
    if !report.findings.is_empty() {
        let heading = ["", "file", "position", "lsn", "what", "affects"];
        text = table(&heading, rows) + "\n";
    }
    let checked = &report.checked;
    text += &format!(
        "{}: {} read: journal up to LSN {} (checkpoint {}), {} segments of {} partitions, {} files of the store, \
         {} topics, {} handlers\n",
        if report.clean { "clean" } else { "damaged" },
        size(checked.bytes),
        report.last_lsn,
        report.checkpoint_lsn,
        checked.segments,
        checked.partitions,
        checked.store_files,
        checked.topics,
        checked.handlers,
    );
    if report.unnamed > 0 {
        text += &format!("{} more damages are not listed\n", report.unnamed);
    }
    text
}

/// One line on standard error: it moves at a terminal, elsewhere there is one every few seconds.
struct Progress {
    bar: Option<ProgressBar>,
    every: Duration,
    said: Instant,
}

impl Progress {
    fn new() -> Progress {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
                bar.set_style(style);
            }
            bar
        });
        Progress {
            every: Duration::from_millis(if bar.is_some() { 100 } else { 5_000 }),
            bar,
            said: Instant::now(),
        }
    }

    fn say(&mut self, so_far: CheckProgress) {
        if self.said.elapsed() < self.every {
            return;
        }
        self.said = Instant::now();
        let text = format!(
            "{}: {} of {} MiB read",
            so_far.part,
            so_far.read_bytes >> 20,
            so_far.total_bytes.div_ceil(1 << 20)
        );
        match &self.bar {
            Some(bar) => bar.set_message(text),
            // Nobody reading it is no reason to stop.
            None => drop(writeln!(std::io::stderr(), "{text}")),
        }
    }

    fn end(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}
