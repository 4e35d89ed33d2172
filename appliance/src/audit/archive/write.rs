//! Records into a Parquet file: columns are gathered until a row group is full, then encoded, checksummed and handed on.

use super::schema::{self, Column, GROUP_BYTES, GROUP_ROWS, SHARDS_KEY, VERSION, VERSION_KEY};
use super::seal::{self, CHUNKS_KEY, ChunkSeal, TAIL_BLANK, TAIL_KEY};
use crate::audit::printable;
use crate::audit::record::{ArchivedEventRow, ArchivedOutcomeRow, ArchivedRequestRow, Kind, View};
use bytes::Bytes;
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::{KeyValue, RowGroupMetaData};
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::types::ColumnDescriptor;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;

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

/// Writes one file. Memory: one row group, gathered and encoded.
pub struct FileWriter<W: Write + Send> {
    sink: W,
    writer: SerializedFileWriter<Vec<u8>>,
    columns: Vec<Gathered>,
    /// Rows gathered.
    rows: usize,
    bytes: usize,
    chunks: String,
    contents: Contents,
}

impl<W: Write + Send> FileWriter<W> {
    pub fn new(sink: W) -> io::Result<Self> {
        let properties = Arc::new(schema::properties().map_err(fault)?);
        let message = schema::message().map_err(fault)?;
        let writer = SerializedFileWriter::new(Vec::new(), message, properties).map_err(fault)?;
        let columns = writer.schema_descr().columns().iter().map(|leaf| Gathered::of(leaf)).collect();
        Ok(Self { sink, writer, columns, rows: 0, bytes: 0, chunks: String::new(), contents: Contents::default() })
    }

    /// What it holds so far; `bytes`: what has been handed on.
    pub fn contents(&self) -> &Contents {
        &self.contents
    }

    /// Bytes gathered that no row group holds yet.
    pub fn pending_bytes(&self) -> usize {
        self.bytes
    }

    /// Appends one record. Call it in the order of time; per shard in the order of its sequence.
    pub fn append(&mut self, view: &View<'_>, shard: u32, sequence: u64) -> io::Result<()> {
        self.contents.add(view.time_us(), shard, sequence);
        self.who(view, shard, sequence);
        match view {
            View::Request(row) => self.request(row),
            View::Outcome(row) => self.outcome(row),
            View::Event(kind, row) => self.event(*kind, row),
        }
        self.rows += 1;
        let rows = self.rows;
        self.columns.iter_mut().for_each(|column| column.fill(rows));
        if self.rows >= GROUP_ROWS || self.bytes >= GROUP_BYTES { self.write_group() } else { Ok(()) }
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
        let mut group = self.writer.next_row_group().map_err(fault)?;
        for gathered in &mut self.columns {
            let column = group.next_column().map_err(fault)?.expect("one writer a leaf");
            gathered.write(column).map_err(fault)?;
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

    fn who(&mut self, view: &View<'_>, shard: u32, sequence: u64) {
        let who = view.who();
        self.long(Column::Time, view.time_us());
        self.text(Column::Kind, schema::kind_name(view.kind()));
        self.int(Column::Shard, shard as i32);
        self.long(Column::Sequence, signed(sequence));
        self.text(Column::Session, who.session());
        self.text(Column::User, who.user());
        self.list(Column::Groups, who.groups().map(Some));
        self.list(Column::Actor, who.actor().map(Some));
        self.text(Column::Target, who.target());
        self.text(Column::Client, who.client());
        self.text(Column::Application, who.application());
        self.text(Column::ClaimedUser, who.claimed_user());
        if view.request() != 0 {
            self.long(Column::Request, signed(view.request()));
        }
        self.int(Column::Cut, i32::from(view.cut()));
    }

    fn request(&mut self, row: &ArchivedRequestRow) {
        match std::str::from_utf8(row.statement()) {
            Ok(statement) => self.text(Column::Statement, statement),
            Err(_) => {
                self.text(Column::Statement, &printable::bytes(row.statement()));
                self.raw(Column::StatementRaw, row.statement());
            }
        }
        self.long(Column::StatementBytes, signed(row.statement_bytes()));
        self.list(Column::Binds, row.binds());
        let classes: Vec<_> = schema::class_names(row.classes()).collect();
        self.list(Column::Classes, classes.iter().map(|name| Some(&**name)));
        self.list(Column::Tables, row.tables().map(Some));
        self.text_or_null(Column::Decision, row.decision());
        self.text_or_null(Column::Rule, row.rule());
        self.text_or_null(Column::Ticket, row.ticket());
    }

    fn outcome(&mut self, row: &ArchivedOutcomeRow) {
        self.long(Column::Rows, signed(row.rows()));
        self.long(Column::Bytes, signed(row.bytes()));
        self.long(Column::DurationUs, signed(row.duration_us()));
        self.long(Column::Masked, signed(row.masked()));
        self.text_or_null(Column::Error, row.error());
        if !row.payload().is_empty() {
            self.raw(Column::Payload, row.payload());
        }
        self.flag(Column::More, row.more());
    }

    fn event(&mut self, kind: Kind, row: &ArchivedEventRow) {
        if kind == Kind::SessionClosed {
            self.long(Column::DurationUs, signed(row.duration_us()));
            self.long(Column::Statements, signed(row.statements()));
        }
        self.text_or_null(Column::Ticket, row.ticket());
        self.text_or_null(Column::What, row.what());
        self.text_or_null(Column::By, row.by());
        self.text_or_null(Column::Detail, row.detail());
    }

    fn long(&mut self, column: Column, value: i64) {
        self.bytes += 8;
        self.columns[column as usize].long(value);
    }

    fn int(&mut self, column: Column, value: i32) {
        self.bytes += 4;
        self.columns[column as usize].int(value);
    }

    fn flag(&mut self, column: Column, value: bool) {
        self.bytes += 1;
        self.columns[column as usize].flag(value);
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
        self.columns[column as usize].bytes(bytes);
    }

    fn list<'a>(&mut self, column: Column, items: impl Iterator<Item = Option<&'a str>>) {
        let gathered = &mut self.columns[column as usize];
        let mut first = true;
        for item in items {
            self.bytes += 8 + item.map_or(0, str::len);
            gathered.item(item, first);
            first = false;
        }
        if first {
            gathered.empty_list();
        }
        gathered.rows += 1;
    }
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

/// The values of one column of the row group that is being gathered, with Parquet's levels.
struct Gathered {
    values: Values,
    definitions: Vec<i16>,
    repetitions: Vec<i16>,
    definition_max: i16,
    /// Definition level of a list without items.
    empty_list: i16,
    is_list: bool,
    rows: usize,
}

enum Values {
    Long(Vec<i64>),
    Int(Vec<i32>),
    Flag(Vec<bool>),
    /// All of them behind one another, and where each ends.
    Bytes(Vec<u8>, Vec<usize>),
}

impl Gathered {
    fn of(leaf: &ColumnDescriptor) -> Self {
        use parquet::basic::Type;
        let values = match leaf.physical_type() {
            Type::INT64 => Values::Long(Vec::new()),
            Type::INT32 => Values::Int(Vec::new()),
            Type::BOOLEAN => Values::Flag(Vec::new()),
            _ => Values::Bytes(Vec::new(), Vec::new()),
        };
        Self {
            values,
            definitions: Vec::new(),
            repetitions: Vec::new(),
            definition_max: leaf.max_def_level(),
            // A list that may be null has a level more: 0 is null then.
            empty_list: i16::from(leaf.max_def_level() > 1),
            is_list: leaf.max_rep_level() > 0,
            rows: 0,
        }
    }

    fn long(&mut self, value: i64) {
        if let Values::Long(values) = &mut self.values {
            values.push(value);
            self.defined();
        }
    }

    fn int(&mut self, value: i32) {
        if let Values::Int(values) = &mut self.values {
            values.push(value);
            self.defined();
        }
    }

    fn flag(&mut self, value: bool) {
        if let Values::Flag(values) = &mut self.values {
            values.push(value);
            self.defined();
        }
    }

    fn bytes(&mut self, value: &[u8]) {
        self.push_bytes(value);
        self.defined();
    }

    fn push_bytes(&mut self, value: &[u8]) {
        if let Values::Bytes(bytes, ends) = &mut self.values {
            bytes.extend_from_slice(value);
            ends.push(bytes.len());
        }
    }

    fn defined(&mut self) {
        self.rows += 1;
        if self.definition_max > 0 {
            self.definitions.push(self.definition_max);
        }
    }

    fn item(&mut self, item: Option<&str>, first: bool) {
        if let Some(item) = item {
            self.push_bytes(item.as_bytes());
        }
        self.definitions.push(self.definition_max - i16::from(item.is_none()));
        self.repetitions.push(i16::from(!first));
    }

    fn empty_list(&mut self) {
        self.definitions.push(self.empty_list);
        self.repetitions.push(0);
    }

    /// A column the record does not have is null in it.
    fn fill(&mut self, rows: usize) {
        if self.rows < rows {
            self.rows = rows;
            self.definitions.push(0);
            if self.is_list {
                self.repetitions.push(0);
            }
        }
        debug_assert_eq!(self.rows, rows, "one value or list a row");
    }

    fn write(&mut self, mut column: SerializedColumnWriter<'_>) -> Result<(), ParquetError> {
        let definitions = std::mem::take(&mut self.definitions);
        let repetitions = std::mem::take(&mut self.repetitions);
        let levels = ((self.definition_max > 0).then_some(&*definitions), self.is_list.then_some(&*repetitions));
        match &mut self.values {
            Values::Long(values) => drop(column.typed::<Int64Type>().write_batch(values, levels.0, levels.1)?),
            Values::Int(values) => drop(column.typed::<Int32Type>().write_batch(values, levels.0, levels.1)?),
            Values::Flag(values) => drop(column.typed::<BoolType>().write_batch(values, levels.0, levels.1)?),
            Values::Bytes(bytes, ends) => {
                let all = Bytes::from(std::mem::take(bytes));
                let starts = std::iter::once(0).chain(ends.iter().copied());
                let values: Vec<ByteArray> =
                    starts.zip(&*ends).map(|(start, &end)| all.slice(start..end).into()).collect();
                column.typed::<ByteArrayType>().write_batch(&values, levels.0, levels.1)?;
            }
        }
        self.clear();
        column.close()
    }

    fn clear(&mut self) {
        self.rows = 0;
        match &mut self.values {
            Values::Long(values) => values.clear(),
            Values::Int(values) => values.clear(),
            Values::Flag(values) => values.clear(),
            Values::Bytes(bytes, ends) => {
                bytes.clear();
                ends.clear();
            }
        }
    }
}
