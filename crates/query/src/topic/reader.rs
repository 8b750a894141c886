//! One stream of a topic scan: a chunk of the log at a time, batch by batch, record by record.

use crate::notices::ScanCounts;
use crate::rows::{Row, RowBuilder};
use crate::scan::{CHUNK_BYTES, Rows};
use crate::topic::plan::{Span, TopicPlan};
use crate::{QueryError, scan};
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use mainstem_engine::EngineError;
use mainstem_log::LogError;
use mainstem_record::{Batch, RecordError};
use std::collections::VecDeque;
use std::sync::Arc;

/// What a record is guessed to take, so that a few wanted records do not read a whole chunk.
const GUESSED_RECORD_BYTES: usize = 1_024;

pub(crate) struct TopicReader {
    plan: Arc<TopicPlan>,
    spans: VecDeque<Span>,
    /// Read and not yet looked at.
    chunk: VecDeque<Bytes>,
    rows: RowBuilder,
    ready: VecDeque<RecordBatch>,
    /// Rows still wanted.
    left: usize,
    /// Counted since the query was last told.
    counts: ScanCounts,
}

impl TopicReader {
    pub(crate) fn new(plan: Arc<TopicPlan>, stream: usize) -> TopicReader {
        TopicReader {
            spans: plan.spans(stream).iter().copied().collect(),
            chunk: VecDeque::new(),
            rows: RowBuilder::new(plan.schema.clone(), &plan.sources, &plan.value_schema),
            ready: VecDeque::new(),
            left: plan.limit.unwrap_or(usize::MAX),
            counts: ScanCounts::default(),
            plan,
        }
    }

    /// Goes on by one record batch; false when there is none left.
    fn step(&mut self) -> Result<bool, QueryError> {
        let Some(span) = self.spans.front().copied() else {
            return Ok(false);
        };
        if self.left == 0 {
            self.spans.clear();
            return Ok(false);
        }
        if self.chunk.is_empty() {
            self.fill(span)?;
        }
        let batch = match self.chunk.front_mut() {
            Some(bytes) => {
                Batch::split_first_trusted(bytes).map_err(|error| self.damaged(span, error))?
            }
            None => None,
        };
        match batch {
            Some(batch) if batch.base_offset() < span.to => {
                let next = batch.next_offset();
                self.read(span, &batch)?;
                self.go_on_at(next.max(span.from));
            }
            // Nothing more of this span in what was read, and a read returns whatever there is.
            Some(_) => self.go_on_at(span.to),
            None => {
                self.chunk.pop_front();
            }
        }
        Ok(true)
    }

    fn go_on_at(&mut self, offset: i64) {
        if let Some(span) = self.spans.front_mut() {
            span.from = offset;
            if span.from >= span.to {
                self.spans.pop_front();
                self.chunk.clear();
            }
        }
    }

    /// Reads the next chunk of a span. A read that finds nothing ends the span.
    fn fill(&mut self, span: Span) -> Result<(), QueryError> {
        let wanted = usize::try_from(span.rows())
            .unwrap_or(usize::MAX)
            .min(self.left);
        let bytes = wanted.saturating_mul(GUESSED_RECORD_BYTES).min(CHUNK_BYTES);
        let log = &self.plan.context.snapshot.log;
        let read = log
            .read_committed(span.partition, span.from, bytes, Some(span.to))
            .map_err(|error| self.unread(span, error))?;
        self.chunk = read.batches.into();
        let bytes_read: u64 = self.chunk.iter().map(|bytes| bytes.len() as u64).sum();
        self.counts.bytes_read += bytes_read;
        if bytes_read == 0 {
            // Nothing at all, or nothing that is delivered, up to there.
            let passed = Some(read.next_offset).filter(|next| *next > span.from);
            self.go_on_at(passed.unwrap_or(span.to));
        }
        Ok(())
    }

    /// Takes from one batch what lies in the span and in the timestamps asked for.
    fn read(&mut self, span: Span, batch: &Batch) -> Result<(), QueryError> {
        let header = batch.header();
        self.counts.batches_read += 1;
        let every_time = self.plan.timestamps.is_all();
        let too_old = self
            .plan
            .timestamps
            .first()
            .is_none_or(|earliest| header.max_timestamp_ms < earliest);
        if header.is_control() || (too_old && !every_time) {
            // Markers are no records; and no record is newer than its batch says.
        } else if every_time
            && self.rows.only_counts()
            && header.last_offset_delta + 1 == header.record_count
        {
            let inside = header.next_offset().min(span.to) - header.base_offset.max(span.from);
            let taken = usize::try_from(inside).unwrap_or(0).min(self.left);
            self.left -= taken;
            self.rows.add_counted(taken, &mut self.ready)?;
        } else {
            let payload = batch.payload().map_err(|error| self.damaged(span, error))?;
            for view in payload.views() {
                let view = view.map_err(|error| self.damaged(span, error))?;
                self.counts.records_walked += 1;
                if view.offset < span.from {
                    continue;
                }
                if view.offset >= span.to || self.left == 0 {
                    break;
                }
                if !every_time && !self.plan.timestamps.contains(view.timestamp_ms) {
                    continue;
                }
                self.left -= 1;
                self.rows.add(Row {
                    partition: span.partition.index,
                    offset: view.offset,
                    timestamp_ms: view.timestamp_ms,
                    table: "",
                    key: view.key,
                    value: view.value,
                    headers: Some(view.headers()),
                });
                if self.rows.is_full() {
                    let full = self.finish()?;
                    self.ready.push_back(full);
                }
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<RecordBatch, QueryError> {
        let plan = &self.plan;
        self.rows
            .finish(&mut self.counts, |malformed| plan.malformed(malformed))
    }

    fn damaged(&self, span: Span, error: RecordError) -> QueryError {
        self.plan.damaged(span, error.to_string())
    }

    fn unread(&self, span: Span, error: LogError) -> QueryError {
        match EngineError::from(error) {
            EngineError::Log(error) => self.plan.damaged(span, error.to_string()),
            other => other.into(),
        }
    }
}

impl TopicPlan {
    fn malformed(&self, count: u64) {
        self.context.notices.malformed(&self.topic.name, count);
    }

    fn damaged(&self, span: Span, message: String) -> QueryError {
        QueryError::Damaged {
            topic: self.topic.name.to_string(),
            partition: span.partition.index,
            offset: span.from,
            message,
        }
    }
}

impl Rows for TopicReader {
    fn next(&mut self) -> Result<Option<RecordBatch>, QueryError> {
        let mut more = Ok(true);
        while self.ready.is_empty() && matches!(more, Ok(true)) {
            more = self.step();
        }
        let next = match self.ready.pop_front() {
            Some(batch) => Some(batch),
            None if self.rows.is_empty() || more.is_err() => None,
            None => Some(self.finish()?),
        };
        let counts = std::mem::take(&mut self.counts);
        self.plan.context.notices.count(counts);
        more.map(|_| next)
    }

    fn held_bytes(&self) -> usize {
        let chunk: usize = self.chunk.iter().map(Bytes::len).sum();
        let ready: usize = self
            .ready
            .iter()
            .map(RecordBatch::get_array_memory_size)
            .sum();
        chunk.max(scan::CHUNK_BYTES) + ready + scan::BATCH_BYTES
    }
}
