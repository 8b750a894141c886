//! Looking a data directory through offline: every file is read, every damage is named with what it costs, and nothing
//! is changed, unless what is derived from the rest is to be built again.
//!
//! Each room looks through what it has written: the store its files, the engine the checkpoint, the journal and the log,
//! the runtime the handlers' code. Here their findings are put together and given the names that people know.

mod names;
mod report;

use crate::directory::DataDirectory;
use crate::{Error, Meta};
use mainstem_engine::verify::{Cost, Part, Seen, StoreView, verify};
use mainstem_journal::{Disk, Lsn, RealDisk};
use mainstem_log::{Costs, PartitionId};
use mainstem_runtime::verify::{HandlerEntry, ModuleCost, verify_modules};
use mainstem_store::{Family, Holds, StoreFinding, StoreReader};
use names::{Catalog, Names, full_name};
pub use report::{CheckProgress, CheckReport, Checked, Finding, Grade};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How a directory is checked.
#[derive(Clone, Copy, Debug, Default)]
pub struct CheckOptions {
    /// Builds again what is derived from the rest and missing or damaged: the indexes of segments, and the compiled code
    /// of handlers.
    pub rebuild: bool,
}

/// Findings that are kept; more are only counted.
const MAX_FINDINGS: usize = 10_000;

/// Names that may stand in a data directory.
const NAMES: [&str; 9] = [
    "meta.json",
    "LOCK",
    "endpoints.json",
    "journal",
    "topics",
    "store",
    "modules",
    "ballast",
    "lost+found",
];

/// Checks the data directory `dir`. Takes its lock: one that is in use is refused. Reads all of it, and keeps little in
/// memory.
///
/// Fails where `dir` is no data directory, is in use, or was written by a newer version.
pub fn check(
    dir: impl AsRef<Path>,
    options: CheckOptions,
    progress: &mut dyn FnMut(CheckProgress),
) -> Result<CheckReport, Error> {
    let dir = dir.as_ref();
    let (_hold, meta) = DataDirectory::look_at(dir)?;
    let mut check = Check {
        dir: dir.to_path_buf(),
        disk: Arc::new(RealDisk),
        options,
        findings: Vec::new(),
        unnamed: 0,
        checked: Checked::default(),
    };
    check.meta(meta)?;
    check.strange_names();
    let verified = check.everything(progress);
    check.findings.sort_by_key(|finding| finding.grade);
    let harmed = |finding: &Finding| finding.grade == Grade::Damage && !finding.rebuilt;
    Ok(CheckReport {
        data_dir: check.dir,
        clean: check.unnamed == 0 && !check.findings.iter().any(harmed),
        findings: check.findings,
        unnamed: check.unnamed,
        last_lsn: verified.journal.last_lsn.0.max(verified.checkpoint.0),
        checkpoint_lsn: verified.checkpoint.0,
        checked: check.checked,
    })
}

struct Check {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    options: CheckOptions,
    findings: Vec<Finding>,
    unnamed: u64,
    checked: Checked,
}

/// Something found, before it is told what it costs.
fn found(
    grade: Grade,
    file: &Path,
    what: impl Into<String>,
    affects: impl Into<String>,
) -> Finding {
    Finding {
        grade,
        file: file.to_path_buf(),
        position: None,
        lsn: None,
        what: what.into(),
        affects: affects.into(),
        topic: None,
        partition: None,
        from_offset: None,
        to_offset: None,
        handlers: Vec::new(),
        derived: false,
        rebuilt: false,
    }
}

const REFUSED: &str = "everything: the server does not start";

impl Check {
    fn add(&mut self, mut finding: Finding) {
        if self.findings.len() >= MAX_FINDINGS {
            self.unnamed += u64::from(finding.grade == Grade::Damage);
            return;
        }
        if let Ok(relative) = finding.file.strip_prefix(&self.dir) {
            finding.file = relative.to_path_buf();
        }
        self.findings.push(finding);
    }

    fn meta(&mut self, meta: Result<Meta, Error>) -> Result<(), Error> {
        let file = self.dir.join("meta.json");
        match meta {
            Ok(_) => {}
            Err(Error::DamagedMeta { why, .. }) => {
                self.add(found(Grade::Damage, &file, why, REFUSED));
            }
            Err(Error::Io { source, .. }) => {
                self.add(found(Grade::Damage, &file, source.to_string(), REFUSED));
            }
            Err(other) => return Err(other),
        }
        Ok(())
    }

    fn strange_names(&mut self) {
        for name in self.disk.list(&self.dir).unwrap_or_default() {
            if !NAMES.contains(&name.as_str()) && !name.ends_with(".tmp") {
                let path = self.dir.join(&name);
                let what = "it is no name that mainstem gives";
                self.add(found(Grade::Note, &path, what, "nothing: it is never read"));
            }
        }
    }

    fn everything(
        &mut self,
        progress: &mut dyn FnMut(CheckProgress),
    ) -> mainstem_engine::verify::Verified {
        let store_dir = self.dir.join("store");
        let (reader, refusal) = StoreReader::open(&store_dir);
        let mut store_findings = Vec::new();
        if let Some(reader) = &reader {
            let total_bytes = reader.size_bytes();
            let verified = reader.verify(
                &mut |so_far| {
                    progress(CheckProgress {
                        part: "store",
                        read_bytes: so_far.bytes,
                        total_bytes,
                    });
                },
                &mut |finding| store_findings.push(finding),
            );
            self.checked.store_files = verified.files;
            self.checked.store_keys = verified.keys;
            self.checked.bytes += verified.bytes;
        }
        if let Some(error) = &refusal {
            // What keeps the store from being opened is one of the damages found in it, and better named there.
            let harmed = |finding: &StoreFinding| finding.holds != Holds::Nothing;
            if !store_findings.iter().any(harmed) {
                store_findings.push(StoreFinding::of(&store_dir, error));
            }
        }

        let mut catalog = Catalog::default();
        // Why it cannot be read is among the store's findings.
        let catalog_is_whole = reader
            .as_ref()
            .is_none_or(|reader| catalog.read(reader).is_ok());
        let view = match (&reader, &refusal) {
            (Some(reader), _) => StoreView::Read(reader),
            (None, Some(_)) => StoreView::Lost,
            (None, None) => StoreView::New,
        };
        let (mut engine_findings, mut partitions) = (Vec::new(), BTreeSet::new());
        let disk = Arc::clone(&self.disk);
        let rebuild = self.options.rebuild;
        let verified = verify(disk, &self.dir, view, rebuild, &mut |seen| match seen {
            Seen::Finding(finding) => engine_findings.push(finding),
            Seen::CatalogChange(op) => catalog.change(op),
            Seen::Partition(id, _, _) => {
                partitions.insert(id);
            }
            Seen::Progress {
                part,
                read_bytes,
                total_bytes,
            } => progress(CheckProgress {
                part: match part {
                    Part::Journal => "journal",
                    Part::Segments => "segments",
                },
                read_bytes,
                total_bytes,
            }),
        });
        self.unnamed += verified.unnamed;

        let mut wrong = Vec::new();
        let names = catalog.names(&mut |what| wrong.push(what));
        for what in wrong {
            self.add(found(Grade::Damage, &store_dir, what, REFUSED));
        }
        for finding in store_findings {
            self.store_finding(finding, &names);
        }
        let replayed = !engine_findings.iter().any(|finding| {
            !matches!(
                finding.costs,
                Cost::Log(_) | Cost::Partition | Cost::NotChecked
            )
        });
        for finding in engine_findings {
            self.engine_finding(finding, &names);
        }
        if replayed && catalog_is_whole && refusal.is_none() {
            self.missing_partitions(&names, &partitions);
        }
        self.modules(&names);
        self.count(&verified, &names);
        verified
    }

    fn count(&mut self, verified: &mainstem_engine::verify::Verified, names: &Names) {
        let checked = &mut self.checked;
        checked.journal_files = verified.journal.files;
        checked.journal_groups = verified.journal.groups;
        checked.partitions = verified.log.partitions;
        checked.segments = verified.log.segments;
        checked.batches = verified.log.batches;
        checked.topics = names.topics.len() as u64;
        checked.handlers = names.handlers.len() as u64;
        checked.bytes += verified.journal.bytes + verified.log.bytes;
    }

    fn store_finding(&mut self, finding: StoreFinding, names: &Names) {
        let StoreFinding {
            file,
            position,
            what,
            holds,
        } = finding;
        let mut handlers = Vec::new();
        let (grade, affects) = match holds {
            Holds::Nothing => (Grade::Note, "nothing: the next start removes it".to_owned()),
            Holds::Position => (
                Grade::Damage,
                "how far the store has come: unless a newer file says it too, the server does not start"
                    .to_owned(),
            ),
            Holds::Everything => (Grade::Damage, REFUSED.to_owned()),
            Holds::Keys(family @ (Family::State | Family::Offsets), from, to) => {
                let tasks = |handler: &HandlerEntry| match family {
                    Family::State => handler.tasks_with_state(&from, &to),
                    _ => handler.tasks_with_offsets(&from, &to),
                };
                let mut parts = Vec::new();
                for handler in &names.handlers {
                    let tasks = tasks(handler);
                    if !tasks.is_empty() {
                        let name = full_name(&handler.tenant, &handler.name);
                        let tasks: Vec<String> = tasks.iter().map(u32::to_string).collect();
                        parts.push(format!("{name} (partitions {})", tasks.join(", ")));
                        handlers.push(name);
                    }
                }
                let kind = match family {
                    Family::State => "the state",
                    _ => "the input offsets",
                };
                let affects = match parts.is_empty() {
                    true => format!("{kind} of no handler that is known"),
                    false => format!("{kind} of {}", parts.join(", ")),
                };
                (Grade::Damage, affects)
            }
            Holds::Keys(Family::Catalog, _, _) => (
                Grade::Damage,
                "the catalogue and the list of segments: the server does not start".to_owned(),
            ),
            Holds::Keys(family, _, _) => (Grade::Damage, format!("the store's {family}")),
        };
        self.add(Finding {
            position,
            handlers,
            ..found(grade, &file, what, affects)
        });
    }

    fn engine_finding(&mut self, finding: mainstem_engine::verify::Finding, names: &Names) {
        let mut told = Finding {
            position: finding.position,
            lsn: finding.lsn.map(|lsn| lsn.0),
            ..found(Grade::Damage, &finding.file, finding.what, "")
        };
        if let Some(partition) = finding.partition {
            told.topic = Some(names.topic(partition.topic));
            told.partition = Some(partition.index);
        }
        let whose = finding.partition.map(|id| names.partition(id));
        let whose = whose.unwrap_or_default();
        told.affects = match finding.costs {
            Cost::Log(Costs::Offsets(from, to)) => {
                (told.from_offset, told.to_offset) = (Some(from), Some(to));
                format!("{} of {whose}", offsets(from, to))
            }
            Cost::Log(Costs::DamagedIndex { rebuilt }) => {
                (told.derived, told.rebuilt) = (true, rebuilt);
                "nothing: it is derived".to_owned()
            }
            Cost::Log(Costs::NoIndex { rebuilt }) => {
                (told.derived, told.rebuilt) = (true, rebuilt);
                told.grade = Grade::Note;
                "nothing: it is built when it is first needed".to_owned()
            }
            Cost::Log(Costs::Unneeded(why)) => format!("nothing: {why}"),
            Cost::Log(Costs::Harmless(why)) => {
                told.grade = Grade::Note;
                format!("nothing: {why}")
            }
            Cost::Partition => format!("all of {whose}: the server does not start"),
            Cost::Everything => REFUSED.to_owned(),
            Cost::NotChecked => "the segments were not looked at".to_owned(),
            Cost::Frames {
                from,
                to,
                passed,
                offsets,
            } => frames(from, to, passed, &offsets, names),
        };
        self.add(told);
    }

    /// Topics whose partitions neither the checkpoint nor a frame knows.
    fn missing_partitions(&mut self, names: &Names, partitions: &BTreeSet<PartitionId>) {
        let store = self.dir.join("store");
        for (topic, (name, count)) in &names.topics {
            for index in 0..*count {
                if partitions.contains(&PartitionId::new(*topic, index)) {
                    continue;
                }
                let what = "the checkpoint has no record of a partition that the catalogue names";
                let affects = format!("all of {name}/{index}");
                self.add(Finding {
                    topic: Some(name.clone()),
                    partition: Some(index),
                    ..found(Grade::Damage, &store, what, affects)
                });
            }
        }
    }

    fn modules(&mut self, names: &Names) {
        let disk = Arc::clone(&self.disk);
        let dir = self.dir.join("modules");
        let mut findings = Vec::new();
        let rebuild = self.options.rebuild;
        self.checked.module_files =
            verify_modules(disk, &dir, &names.handlers, rebuild, &mut |finding| {
                findings.push(finding);
            });
        for finding in findings {
            let mut told = found(Grade::Damage, &finding.file, finding.what, "");
            told.affects = match finding.costs {
                ModuleCost::Component(version) => {
                    told.handlers = users(names, &version);
                    format!(
                        "the code of {}: it is needed wherever its compiled form is not there",
                        told.handlers.join(", ")
                    )
                }
                ModuleCost::Compiled { rebuilt } => {
                    (told.derived, told.rebuilt) = (true, rebuilt);
                    "nothing: it is derived".to_owned()
                }
                ModuleCost::Unneeded => "nothing: no handler has this version".to_owned(),
                ModuleCost::Harmless => {
                    told.grade = Grade::Note;
                    "nothing: it is never read".to_owned()
                }
            };
            self.add(told);
        }
    }
}

fn users(names: &Names, version: &str) -> Vec<String> {
    let uses = |handler: &&HandlerEntry| handler.component.as_deref() == Some(version);
    let users = names.handlers.iter().filter(uses);
    users
        .map(|handler| full_name(&handler.tenant, &handler.name))
        .collect()
}

fn offsets(from: i64, to: i64) -> String {
    match to - from {
        1 => format!("offset {from}"),
        _ => format!("offsets {from} to {}", to - 1),
    }
}

/// What frames cost that cannot be read.
fn frames(
    from: Lsn,
    to: Option<Lsn>,
    passed: bool,
    lost: &[(PartitionId, i64, i64)],
    names: &Names,
) -> String {
    let mut text = match to {
        None => format!("everything since LSN {from}: the server does not start"),
        Some(to) if to < from => "no frame, but the server does not start".to_owned(),
        Some(to) if passed => format!(
            "LSN {from} to {to}, which segments and store have: nothing is lost, but the server does not start"
        ),
        Some(to) => format!("LSN {from} to {to}, and everything since: the server does not start"),
    };
    for (index, (partition, from, to)) in lost.iter().enumerate() {
        text += if index == 0 { "; among it " } else { ", " };
        text += &format!("{} of {}", offsets(*from, *to), names.partition(*partition));
    }
    text
}
