//! Records into a Parquet file: columns are encoded as they come; a full row group is checksummed and handed on.

use super::columns::{self, ColumnChunk};
use super::schema::{self, Column, GROUP_BYTES, GROUP_ROWS, PAGE_ROWS, SHARDS_KEY, VERSION, VERSION_KEY};
use super::seal::{self, CHUNKS_KEY, ChunkSeal, TAIL_BLANK, TAIL_KEY};
use super::whose::{self, WhoPlace, Whose};
use crate::audit::printable;
use crate::audit::record::{EventRow, Kind, OutcomeRow, RequestRow, View};
use bytes::Bytes;
use parquet::errors::ParquetError;
use parquet::file::metadata::{KeyValue, RowGroupMetaData};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::SchemaDescriptor;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;
use zstd::bulk::Compressor;

/// What a finished file holds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Contents {
    pub records: u64,
    pub bytes: u64,
    /// Unix microseconds of the earliest and the latest record; `None`: there is none.
    pub times: Option<(i64, i64)>,
    /// Per shard: first and last sequence, and how many.
    pub shards: BTreeMap<u32, ShardRange>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ShardRange {
    pub first: u64,
    pub last: u64,
    pub records: u64,
}

impl Contents {
    fn add(&mut self, time_us: i64, shard: u32, sequence: u64) {
        self.records += 1;
        let (first, last) = self.times.unwrap_or((time_us, time_us));
        self.times = Some((first.min(time_us), last.max(time_us)));
        let range = self.shards.entry(shard).or_insert(ShardRange { first: sequence, last: sequence, records: 0 });
        (range.first, range.last) = (range.first.min(sequence), range.last.max(sequence));
        range.records += 1;
    }

    fn shards_text(&self) -> String {
        let shard =
            |(shard, range): (&u32, &ShardRange)| format!("{shard}:{}-{}:{}", range.first, range.last, range.records);
        self.shards.iter().map(shard).collect::<Vec<_>>().join(" ")
    }
}

/// Writes one file. Memory: one row group, but for its last pages encoded.
pub struct FileWriter<W: Write + Send> {
    sink: W,
    writer: SerializedFileWriter<Vec<u8>>,
    zstd: Compressor<'static>,
    columns: Vec<ColumnChunk>,
    /// Who has been written in this row group.
    whose: Whose,
    /// Rows of the row group.
    rows: usize,
    /// What they took before they were encoded.
    bytes: usize,
    /// A column's page is.
    is_page_full: bool,
    chunks: String,
    contents: Contents,
}

impl<W: Write + Send> FileWriter<W> {
    pub fn new(sink: W) -> io::Result<Self> {
        let message = schema::message().map_err(fault)?;
        let writer = SerializedFileWriter::new(Vec::new(), message, Arc::new(schema::properties())).map_err(fault)?;
        Ok(Self {
            sink,
            columns: of_next_group(writer.schema_descr()),
            writer,
            zstd: Compressor::new(columns::LEVEL)?,
            whose: Whose::default(),
            rows: 0,
            bytes: 0,
            is_page_full: false,
            chunks: String::new(),
            contents: Contents::default(),
        })
    }

    /// What it holds so far; `bytes`: what has been handed on.
    pub fn contents(&self) -> &Contents {
        &self.contents
    }

    /// Appends one record. Call it in the order of time; per shard in the order of its sequence.
    /// `whose`: where its who stands, if others share it.
    pub fn append(&mut self, view: &View<'_>, shard: u32, sequence: u64, whose: Option<WhoPlace>) -> io::Result<()> {
        self.contents.add(view.time_us(), shard, sequence);
        self.place(view, shard, sequence);
        self.who(view, whose);
        match view {
            View::Request(row) => self.request(row),
            View::Outcome(row) => self.outcome(row),
            View::Event(kind, row) => self.event(*kind, row),
        }
        self.rows += 1;
        if self.rows >= GROUP_ROWS || self.bytes >= GROUP_BYTES {
            return self.write_group();
        }
        let all = self.rows.is_multiple_of(PAGE_ROWS);
        if all || std::mem::take(&mut self.is_page_full) {
            for column in self.columns.iter_mut().filter(|column| all || column.is_full()) {
                column.end_page(self.rows, &mut self.zstd).map_err(fault)?;
                // All of them at once would take milliseconds of the core.
                std::thread::yield_now();
            }
        }
        Ok(())
    }

    /// Writes what is gathered and the end of the file, with these entries in its metadata besides our own.
    pub fn finish(mut self, metadata: &[(&str, &str)]) -> io::Result<(W, Contents)> {
        self.write_group()?;
        let ours = [
            (VERSION_KEY, VERSION.to_string()),
            (SHARDS_KEY, self.contents.shards_text()),
            (CHUNKS_KEY, std::mem::take(&mut self.chunks)),
            (TAIL_KEY, TAIL_BLANK.to_owned()),
        ];
        let theirs = metadata.iter().map(|&(key, value)| (key, value.to_owned()));
        for (key, value) in theirs.chain(ours) {
            self.writer.append_key_value_metadata(KeyValue::new(key.to_owned(), value));
        }
        self.writer.finish().map_err(fault)?;
        let begins_at = self.contents.bytes;
        let mut tail = self.take_encoded()?;
        // A file without a row group begins with its tail.
        if !seal::close_tail(&mut tail, begins_at) {
            return Err(io::Error::other("the archive file's metadata has no place for its checksum"));
        }
        self.hand_on(&tail)?;
        Ok((self.sink, self.contents))
    }

    fn write_group(&mut self) -> io::Result<()> {
        if self.rows == 0 {
            return Ok(());
        }
        let columns = std::mem::replace(&mut self.columns, of_next_group(self.writer.schema_descr()));
        self.whose.forget();
        let mut group = self.writer.next_row_group().map_err(fault)?;
        for column in columns {
            let (encoded, close) = column.close(self.rows, &mut self.zstd).map_err(fault)?;
            group.append_column(&Bytes::from(encoded), close).map_err(fault)?;
            std::thread::yield_now();
        }
        let metadata = group.close().map_err(fault)?;
        (self.rows, self.bytes) = (0, 0);
        // The bloom filters are written, and their places known, when the group is closed.
        let metadata = self.writer.flushed_row_groups().last().cloned().unwrap_or_else(|| (*metadata).clone());
        let base = self.contents.bytes;
        let encoded = self.take_encoded()?;
        self.seal_group(&metadata, &encoded, base)?;
        self.hand_on(&encoded)
    }

    fn seal_group(&mut self, group: &RowGroupMetaData, encoded: &[u8], base: u64) -> io::Result<()> {
        let crc = |start: u64, length: u64| {
            let start = start.checked_sub(base).map(|start| start as usize);
            let part = start.and_then(|start| encoded.get(start..start + length as usize));
            part.map(crc32c::crc32c).ok_or_else(|| io::Error::other("a column chunk lies outside its row group"))
        };
        for column in group.columns() {
            let (start, length) = column.byte_range();
            let bloom = match (column.bloom_filter_offset(), column.bloom_filter_length()) {
                (Some(offset), Some(length)) => crc(offset as u64, length as u64)?,
                _ => 0,
            };
            seal::push_chunk(&mut self.chunks, ChunkSeal { chunk: crc(start, length)?, bloom });
        }
        Ok(())
    }

    fn take_encoded(&mut self) -> io::Result<Vec<u8>> {
        self.writer.flush()?;
        Ok(std::mem::take(self.writer.inner_mut()))
    }

    fn hand_on(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sink.write_all(bytes)?;
        self.contents.bytes += bytes.len() as u64;
        Ok(())
    }

    fn place(&mut self, view: &View<'_>, shard: u32, sequence: u64) {
        self.int(Column::Time, view.time_us());
        self.text(Column::Kind, schema::kind_name(view.kind()));
        self.int(Column::Shard, i64::from(shard as i32));
        self.int(Column::Sequence, signed(sequence));
        if view.request() != 0 {
            self.int(Column::Request, signed(view.request()));
        }
        self.int(Column::Cut, i64::from(view.cut()));
    }

    fn who(&mut self, view: &View<'_>, whose: Option<WhoPlace>) {
        if let Some(numbers) = whose.and_then(|place| self.whose.get(place)) {
            self.bytes += numbers.bytes;
            self.is_page_full |= numbers.push(self.rows, &mut self.columns);
            return;
        }
        let (who, before) = (view.who(), self.bytes);
        for (column, text) in whose::texts(who) {
            self.text(column, text);
        }
        self.list(Column::Groups, who.groups().map(Some));
        self.list(Column::Actor, who.actor().map(Some));
        if let Some(place) = whose {
            self.whose.learn(place, who, self.bytes - before, &mut self.columns);
        }
    }

    fn request(&mut self, row: &RequestRow<'_>) {
        match std::str::from_utf8(row.statement()) {
            Ok(statement) => self.text(Column::Statement, statement),
            Err(_) => {
                self.text(Column::Statement, &printable::bytes(row.statement()));
                self.raw(Column::StatementRaw, row.statement());
            }
        }
        self.int(Column::StatementBytes, signed(row.statement_bytes()));
        self.list(Column::Binds, row.binds());
        self.list(Column::Classes, schema::class_names(row.classes()).map(Some));
        self.list(Column::Tables, row.tables().map(Some));
        self.text_or_null(Column::Decision, row.decision());
        self.text_or_null(Column::Rule, row.rule());
        self.text_or_null(Column::Ticket, row.ticket());
    }

    fn outcome(&mut self, row: &OutcomeRow<'_>) {
        self.int(Column::Rows, signed(row.rows()));
        self.int(Column::Bytes, signed(row.bytes()));
        self.int(Column::DurationUs, signed(row.duration_us()));
        self.int(Column::Masked, signed(row.masked()));
        self.text_or_null(Column::Error, row.error());
        if !row.payload().is_empty() {
            self.raw(Column::Payload, row.payload());
        }
        self.flag(Column::More, row.more());
    }

    fn event(&mut self, kind: Kind, row: &EventRow<'_>) {
        if kind == Kind::SessionClosed {
            self.int(Column::DurationUs, signed(row.duration_us()));
            self.int(Column::Statements, signed(row.statements()));
        }
        self.text_or_null(Column::Ticket, row.ticket());
        self.text_or_null(Column::What, row.what());
        self.text_or_null(Column::By, row.by());
        self.text_or_null(Column::Detail, row.detail());
    }

    fn int(&mut self, column: Column, value: i64) {
        self.bytes += 8;
        self.columns[column as usize].int(self.rows, value);
    }

    fn flag(&mut self, column: Column, value: bool) {
        self.bytes += 1;
        self.columns[column as usize].flag(self.rows, value);
    }

    fn text(&mut self, column: Column, text: &str) {
        self.raw(column, text.as_bytes());
    }

    fn text_or_null(&mut self, column: Column, text: &str) {
        if !text.is_empty() {
            self.raw(column, text.as_bytes());
        }
    }

    fn raw(&mut self, column: Column, bytes: &[u8]) {
        self.bytes += 8 + bytes.len();
        let chunk = &mut self.columns[column as usize];
        chunk.text(self.rows, bytes);
        self.is_page_full |= chunk.is_full();
    }

    fn list(&mut self, column: Column, items: impl Iterator<Item = Option<impl AsRef<str>>>) {
        let chunk = &mut self.columns[column as usize];
        self.bytes += chunk.list(self.rows, items);
        self.is_page_full |= chunk.is_full();
    }
}

fn of_next_group(schema: &SchemaDescriptor) -> Vec<ColumnChunk> {
    Column::ALL.iter().zip(schema.columns()).map(|(&column, leaf)| ColumnChunk::new(column, leaf.clone())).collect()
}

/// Numbers of the trail stay far below; a forged one that does not is the greatest there is.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn fault(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(error) => io::Error::other(error),
        other => io::Error::other(other.to_string()),
    }
}
