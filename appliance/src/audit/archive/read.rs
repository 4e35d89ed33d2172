//! Archive files read back: only the columns and row groups that are wanted, checksums before any parser, safe on any damage.

use super::schema::{self, Column, VERSION, VERSION_KEY};
use super::seal::{self, CHUNKS_KEY, ChunkSeal};
use crate::audit::row::Row;
use bytes::{Buf as _, Bytes};
use parquet::bloom_filter::Sbbf;
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::column::reader::{ColumnReaderImpl, get_column_reader, get_typed_column_reader};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData};
use parquet::file::reader::{ChunkReader, Length};
use parquet::file::serialized_reader::SerializedPageReader;
use parquet::file::statistics::Statistics;
use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

const MAGIC: &[u8; 4] = b"PAR1";
/// Length of the metadata and the magic.
const END_BYTES: usize = 8;

/// Where a file's bytes come from.
pub trait Source: Send + Sync {
    fn size(&self) -> io::Result<u64>;
    /// All of these bytes, or an error.
    fn read_at(&self, offset: u64, bytes: usize) -> io::Result<Bytes>;
}

impl Source for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, offset: u64, bytes: usize) -> io::Result<Bytes> {
        let mut buffer = vec![0; bytes];
        self.read_exact_at(&mut buffer, offset)?;
        Ok(buffer.into())
    }
}

impl Source for Bytes {
    fn size(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn read_at(&self, offset: u64, bytes: usize) -> io::Result<Bytes> {
        let end = offset.saturating_add(bytes as u64);
        if end > self.len() as u64 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(self.slice(offset as usize..end as usize))
    }
}

/// Why a file, or a part of it, cannot be read.
#[derive(Debug)]
pub struct Unreadable {
    /// `None`: the file as a whole.
    pub group: Option<usize>,
    pub column: Option<Column>,
    pub kind: UnreadableKind,
}

#[derive(Debug)]
pub enum UnreadableKind {
    Io(io::Error),
    /// It does not end as a Parquet file does.
    End,
    /// The checksum over its indexes and metadata does not match.
    Tail,
    /// Its metadata does not name a schema of ours, or not one this version knows.
    Schema(Option<String>),
    /// A column chunk's checksum does not match.
    Chunk,
    /// A bloom filter's.
    Bloom,
    /// The bytes are as they were written and do not hold what they should: forged whole, or our own fault.
    Content(String),
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(group) = self.group {
            write!(f, "row group {group}")?;
            if let Some(column) = self.column {
                write!(f, ", column {}", column.name())?;
            }
            write!(f, ": ")?;
        }
        match &self.kind {
            UnreadableKind::Io(error) => write!(f, "{error}"),
            UnreadableKind::End => write!(f, "it does not end as a Parquet file must: its end was cut or changed"),
            UnreadableKind::Tail => write!(f, "the checksum of its indexes and metadata does not match"),
            UnreadableKind::Schema(None) => write!(f, "it is no archive file of Lockgate"),
            UnreadableKind::Schema(Some(version)) => write!(f, "schema version {version} is unknown"),
            UnreadableKind::Chunk => write!(f, "its checksum does not match"),
            UnreadableKind::Bloom => write!(f, "the checksum of its bloom filter does not match"),
            UnreadableKind::Content(why) => write!(f, "it does not hold what it should: {why}"),
        }
    }
}

impl std::error::Error for Unreadable {}

impl Unreadable {
    pub fn io(error: io::Error) -> Self {
        Self::file(UnreadableKind::Io(error))
    }

    /// There is no such file.
    pub fn is_missing(&self) -> bool {
        matches!(&self.kind, UnreadableKind::Io(error) if error.kind() == io::ErrorKind::NotFound)
    }

    pub fn content(what: String) -> Self {
        Self::file(UnreadableKind::Content(what))
    }

    fn file(kind: UnreadableKind) -> Self {
        Self { group: None, column: None, kind }
    }
}

/// Rows of a row group. Ours end far below; beyond, a file was forged to make readers ask for memory.
const GROUP_ROWS_MAX: i64 = 1 << 20;

/// Bytes of a file that begin at `base`: all that a parser gets to see.
struct Part {
    base: u64,
    file_bytes: u64,
    bytes: Bytes,
}

impl Length for Part {
    fn len(&self) -> u64 {
        self.file_bytes
    }
}

impl ChunkReader for Part {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        let from = start.checked_sub(self.base).filter(|from| *from <= self.bytes.len() as u64);
        let from = from.ok_or_else(|| ParquetError::EOF("outside the checked part".into()))?;
        Ok(self.bytes.slice(from as usize..).reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let outside = || ParquetError::EOF("outside the checked part".into());
        let from = start.checked_sub(self.base).ok_or_else(outside)?;
        let end = from.checked_add(length as u64).filter(|end| *end <= self.bytes.len() as u64).ok_or_else(outside)?;
        Ok(self.bytes.slice(from as usize..end as usize))
    }
}

thread_local! {
    static GUARDED: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Is this thread inside a parser whose panics are caught? A panic hook asks, to stay silent.
pub fn is_guarded() -> bool {
    GUARDED.get()
}

/// The parser is not ours, and files come from strangers: a panic in it is one more kind of damage.
fn guarded<T>(parse: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, UnreadableKind> {
    let before = GUARDED.replace(true);
    let done = catch_unwind(AssertUnwindSafe(parse));
    GUARDED.set(before);
    match done {
        Ok(done) => done.map_err(|error| UnreadableKind::Content(error.to_string())),
        Err(_) => Err(UnreadableKind::Content("the Parquet parser gave up".into())),
    }
}

/// One open file: its metadata is read and checked.
pub struct ArchiveFile {
    source: Box<dyn Source>,
    file_bytes: u64,
    metadata: ParquetMetaData,
    seals: Vec<ChunkSeal>,
    leaves: usize,
}

impl ArchiveFile {
    /// The first and the last record of each shard in it. `None`: it does not say.
    pub fn shards(&self) -> Option<Vec<(u32, u64, u64)>> {
        let shard = |text: &str| {
            let (shard, rest) = text.split_once(':')?;
            let (first, last) = rest.split_once(':')?.0.split_once('-')?;
            Some((shard.parse().ok()?, first.parse().ok()?, last.parse().ok()?))
        };
        self.entry(schema::SHARDS_KEY)?.split_whitespace().map(shard).collect()
    }

    pub fn open(source: Box<dyn Source>) -> Result<Self, Unreadable> {
        let io = Unreadable::io;
        let file_bytes = source.size().map_err(io)?;
        let end = Unreadable::file;
        let ends_at = file_bytes.checked_sub(END_BYTES as u64).ok_or_else(|| end(UnreadableKind::End))?;
        let last = source.read_at(ends_at, END_BYTES).map_err(io)?;
        let metadata_bytes = u32::from_le_bytes(last[..4].try_into().expect("4 bytes"));
        let metadata_at = ends_at.checked_sub(u64::from(metadata_bytes)).filter(|_| last[4..] == *MAGIC);
        let metadata_at = metadata_at.ok_or_else(|| end(UnreadableKind::End))?;
        let metadata = source.read_at(metadata_at, metadata_bytes as usize).map_err(io)?;
        let begins_at = seal::tail_begins_at(&metadata).ok_or_else(|| end(UnreadableKind::Schema(None)))?;
        if begins_at > metadata_at {
            return Err(end(UnreadableKind::Tail));
        }
        let tail = source.read_at(begins_at, (file_bytes - begins_at) as usize).map_err(io)?;
        if !seal::tail_holds(&tail) {
            return Err(end(UnreadableKind::Tail));
        }
        let part = Part { base: begins_at, file_bytes, bytes: tail };
        let reader = ParquetMetaDataReader::new().with_offset_index_policy(PageIndexPolicy::Optional);
        let metadata = guarded(|| reader.parse_and_finish(&part)).map_err(Unreadable::file)?;
        Self::checked(source, file_bytes, metadata).map_err(Unreadable::file)
    }

    /// Is it a file of ours, with a checksum for every chunk?
    fn checked(source: Box<dyn Source>, file_bytes: u64, metadata: ParquetMetaData) -> Result<Self, UnreadableKind> {
        let mut file = Self { source, file_bytes, metadata, seals: Vec::new(), leaves: 0 };
        match file.entry(VERSION_KEY) {
            None => return Err(UnreadableKind::Schema(None)),
            // A later version of this schema only adds columns: those we know can be read.
            Some(version) if version.parse::<u32>().is_ok_and(|version| version >= VERSION) => {}
            Some(version) => return Err(UnreadableKind::Schema(Some(version.to_owned()))),
        }
        let descriptor = file.metadata.file_metadata().schema_descr();
        let known = descriptor.columns().iter().zip(Column::ALL);
        if known.clone().count() < Column::ALL.len()
            || known.into_iter().any(|(leaf, column)| *leaf.path() != column.path())
        {
            return Err(UnreadableKind::Content("its columns are not those of the schema".into()));
        }
        file.leaves = descriptor.num_columns();
        if file.metadata.row_groups().iter().any(|group| !(0..=GROUP_ROWS_MAX).contains(&group.num_rows())) {
            return Err(UnreadableKind::Content("a row group of it is larger than any of ours".into()));
        }
        file.seals = file.entry(CHUNKS_KEY).and_then(seal::parse_chunks).unwrap_or_default();
        if file.seals.len() != file.leaves * file.metadata.num_row_groups() {
            return Err(UnreadableKind::Content("it lacks the checksums of its column chunks".into()));
        }
        Ok(file)
    }

    /// An entry of the file's own metadata.
    pub fn entry(&self, key: &str) -> Option<&str> {
        let entries = self.metadata.file_metadata().key_value_metadata()?;
        entries.iter().find(|entry| entry.key == key)?.value.as_deref()
    }

    pub fn rows(&self) -> u64 {
        self.metadata.file_metadata().num_rows().max(0) as u64
    }

    pub fn groups(&self) -> impl Iterator<Item = Group<'_>> {
        (0..self.metadata.num_row_groups()).map(|index| self.group(index))
    }

    pub fn group(&self, index: usize) -> Group<'_> {
        let chunks = RefCell::new(vec![None; Column::ALL.len()]);
        Group { file: self, index, metadata: self.metadata.row_group(index), chunks }
    }

    /// Where each column chunk lies: what a forger has to seal anew.
    #[cfg(test)]
    pub(super) fn chunks(&self) -> Vec<std::ops::Range<usize>> {
        let columns = self.metadata.row_groups().iter().flat_map(|group| group.columns());
        let range = |(start, length): (u64, u64)| start as usize..(start + length) as usize;
        columns.map(|column| range(column.byte_range())).collect()
    }

    /// Every record, in the order of the file.
    pub fn for_each(&self, mut each: impl FnMut(Row)) -> Result<(), Unreadable> {
        /// Rows held at a time.
        const BATCH: u32 = 4096;
        for group in self.groups() {
            for start in (0..group.rows()).step_by(BATCH as usize) {
                let picks: Vec<u32> = (start..group.rows().min(start + BATCH)).collect();
                group.materialise(&picks, true)?.into_iter().for_each(&mut each);
            }
        }
        Ok(())
    }
}

/// A row group. Rows are counted from 0 in it.
pub struct Group<'f> {
    file: &'f ArchiveFile,
    index: usize,
    metadata: &'f RowGroupMetaData,
    /// Chunks read and checked: a column that was filtered on is not read twice.
    chunks: RefCell<Vec<Option<Bytes>>>,
}

/// The values of a column in some rows, with Parquet's levels.
struct Levelled<T> {
    values: Vec<T>,
    definitions: Vec<i16>,
    repetitions: Vec<i16>,
    definition_max: i16,
}

impl<'f> Group<'f> {
    pub fn index(&self) -> usize {
        self.index
    }

    pub fn rows(&self) -> u32 {
        u32::try_from(self.metadata.num_rows()).unwrap_or(0)
    }

    /// Unix microseconds of the earliest and the latest record. `None`: not known.
    pub fn times(&self) -> Option<(i64, i64)> {
        match self.metadata.column(Column::Time as usize).statistics()? {
            Statistics::Int64(range) => Some((*range.min_opt()?, *range.max_opt()?)),
            _ => None,
        }
    }

    /// `false`: no row has this text in this column (in a list: as an item).
    pub fn may_hold(&self, column: Column, text: &str) -> Result<bool, Unreadable> {
        let chunk = self.metadata.column(column as usize);
        if let Some(range) = chunk.statistics() {
            let below = range.min_bytes_opt().is_some_and(|least| text.as_bytes() < least);
            let above = range.max_bytes_opt().is_some_and(|greatest| text.as_bytes() > greatest);
            // What was shortened to a prefix is at most the least and, counted up, at least the greatest.
            if below || above {
                return Ok(false);
            }
        }
        let (Some(offset), Some(length)) = (chunk.bloom_filter_offset(), chunk.bloom_filter_length()) else {
            return Ok(true);
        };
        let (offset, length) = (offset.max(0) as u64, length.max(0) as usize);
        let crc = self.file.seals[self.index * self.file.leaves + column as usize].bloom;
        let bytes = self.fetch(column, offset, length)?;
        if crc32c::crc32c(&bytes) != crc {
            return Err(self.unreadable(column, UnreadableKind::Bloom));
        }
        let part = Part { base: offset, file_bytes: self.file.file_bytes, bytes };
        let check = || Ok(Sbbf::read_from_column_chunk(chunk, &part)?.is_none_or(|bloom| bloom.check(text)));
        guarded(check).map_err(|kind| self.unreadable(column, kind))
    }

    /// Those of `picks` whose value in a column of numbers passes.
    pub fn retain_longs(
        &self,
        column: Column,
        picks: &mut Vec<u32>,
        mut keep: impl FnMut(i64) -> bool,
    ) -> Result<(), Unreadable> {
        let read = self.read::<Int64Type>(column, picks)?;
        let mut values = read.values.iter();
        let mut definitions = read.definitions.iter();
        let defined = read.definition_max == 0;
        picks
            .retain(|_| (defined || definitions.next() == Some(&1)) && values.next().is_some_and(|&value| keep(value)));
        Ok(())
    }

    /// Those of `picks` whose text passes; null is the empty text.
    pub fn retain_texts(
        &self,
        column: Column,
        picks: &mut Vec<u32>,
        mut keep: impl FnMut(&str) -> bool,
    ) -> Result<(), Unreadable> {
        let texts = self.texts(column, picks)?;
        let (mut texts, mut asked) = (texts.iter(), Asked::default());
        picks.retain(|_| texts.next().is_some_and(|text| asked.judge(text.as_ref(), &mut keep)));
        Ok(())
    }

    /// Those of `picks` of whose list an item passes; null items are passed over.
    pub fn retain_lists(
        &self,
        column: Column,
        picks: &mut Vec<u32>,
        mut keep: impl FnMut(&str) -> bool,
    ) -> Result<(), Unreadable> {
        let lists = self.lists(column, picks)?;
        let (mut lists, mut asked) = (lists.iter(), Asked::default());
        let mut any =
            |list: &Vec<Option<ByteArray>>| list.iter().flatten().any(|item| asked.judge(Some(item), &mut keep));
        picks.retain(|_| lists.next().is_some_and(&mut any));
        Ok(())
    }

    /// The records of these rows (ascending). `payloads`: read those too.
    pub fn materialise(&self, picks: &[u32], payloads: bool) -> Result<Vec<Row>, Unreadable> {
        let kinds = self.texts(Column::Kind, picks)?;
        let kind = |text: Option<ByteArray>| {
            let kind = text.as_ref().and_then(|text| schema::kind_of(text.data()));
            kind.ok_or_else(|| self.unreadable(Column::Kind, UnreadableKind::Content("an unknown kind".into())))
        };
        let mut rows: Vec<Row> = kinds.into_iter().map(|text| kind(text).map(Row::empty)).collect::<Result<_, _>>()?;
        self.fill_numbers(picks, &mut rows)?;
        self.fill_texts(picks, &mut rows, payloads)?;
        self.fill_lists(picks, &mut rows)?;
        Ok(rows)
    }

    fn fill_numbers(&self, picks: &[u32], rows: &mut [Row]) -> Result<(), Unreadable> {
        let mut longs = |column: Column, set: fn(&mut Row, i64)| -> Result<(), Unreadable> {
            let values = self.read::<Int64Type>(column, picks)?.one_a_row();
            rows.iter_mut().zip(values).for_each(|(row, value)| set(row, value.unwrap_or(0)));
            Ok(())
        };
        longs(Column::Time, |row, value| row.time_us = value)?;
        longs(Column::Sequence, |row, value| row.sequence = value as u64)?;
        longs(Column::Request, |row, value| row.request = value as u64)?;
        longs(Column::StatementBytes, |row, value| row.statement_bytes = value as u64)?;
        longs(Column::Rows, |row, value| row.rows = value as u64)?;
        longs(Column::Bytes, |row, value| row.bytes = value as u64)?;
        longs(Column::DurationUs, |row, value| row.duration_us = value as u64)?;
        longs(Column::Masked, |row, value| row.masked = value as u64)?;
        longs(Column::Statements, |row, value| row.statements = value as u64)?;
        let shards = self.read::<Int32Type>(Column::Shard, picks)?.one_a_row();
        rows.iter_mut().zip(shards).for_each(|(row, value)| row.shard = value.unwrap_or(0) as u32);
        let cuts = self.read::<Int32Type>(Column::Cut, picks)?.one_a_row();
        rows.iter_mut().zip(cuts).for_each(|(row, value)| row.cut = value.unwrap_or(0) as u8);
        let mores = self.read::<BoolType>(Column::More, picks)?.one_a_row();
        rows.iter_mut().zip(mores).for_each(|(row, value)| row.more = value.unwrap_or(false));
        Ok(())
    }

    fn fill_texts(&self, picks: &[u32], rows: &mut [Row], payloads: bool) -> Result<(), Unreadable> {
        let mut texts = |column: Column, set: fn(&mut Row, String)| -> Result<(), Unreadable> {
            for (row, text) in rows.iter_mut().zip(self.texts(column, picks)?) {
                set(row, self.owned(column, text)?);
            }
            Ok(())
        };
        texts(Column::Session, |row, text| row.session = text)?;
        texts(Column::User, |row, text| row.user = text)?;
        texts(Column::Target, |row, text| row.target = text)?;
        texts(Column::Client, |row, text| row.client = text)?;
        texts(Column::Application, |row, text| row.application = text)?;
        texts(Column::ClaimedUser, |row, text| row.claimed_user = text)?;
        texts(Column::Statement, |row, text| row.statement = text.into_bytes())?;
        texts(Column::Decision, |row, text| row.decision = text)?;
        texts(Column::Rule, |row, text| row.rule = text)?;
        texts(Column::Ticket, |row, text| row.ticket = text)?;
        texts(Column::Error, |row, text| row.error = text)?;
        texts(Column::What, |row, text| row.what = text)?;
        texts(Column::By, |row, text| row.by = text)?;
        texts(Column::Detail, |row, text| row.detail = text)?;
        let raw = self.texts(Column::StatementRaw, picks)?;
        for (row, raw) in rows.iter_mut().zip(raw).filter_map(|(row, raw)| Some((row, raw?))) {
            row.statement = raw.data().to_vec();
        }
        if payloads {
            let payloads = self.texts(Column::Payload, picks)?;
            for (row, payload) in rows.iter_mut().zip(payloads).filter_map(|(row, payload)| Some((row, payload?))) {
                row.payload = payload.data().to_vec();
            }
        }
        Ok(())
    }

    fn fill_lists(&self, picks: &[u32], rows: &mut [Row]) -> Result<(), Unreadable> {
        let mut lists = |column: Column, set: fn(&mut Row, Vec<Option<String>>)| -> Result<(), Unreadable> {
            for (row, list) in rows.iter_mut().zip(self.lists(column, picks)?) {
                let own = |item: Option<ByteArray>| item.map(|item| self.owned(column, Some(item))).transpose();
                set(row, list.into_iter().map(own).collect::<Result<_, _>>()?);
            }
            Ok(())
        };
        lists(Column::Groups, |row, list| row.groups = list.into_iter().flatten().collect())?;
        lists(Column::Actor, |row, list| row.actor = list.into_iter().flatten().collect())?;
        lists(Column::Tables, |row, list| row.tables = list.into_iter().flatten().collect())?;
        lists(Column::Binds, |row, list| row.binds = list)?;
        lists(Column::Classes, |row, list| {
            row.classes =
                list.iter().flatten().filter_map(|name| schema::class_bit(name)).fold(0, |all, bit| all | bit);
        })
    }

    fn owned(&self, column: Column, text: Option<ByteArray>) -> Result<String, Unreadable> {
        let Some(text) = text else { return Ok(String::new()) };
        String::from_utf8(text.data().to_vec())
            .map_err(|_| self.unreadable(column, UnreadableKind::Content("a text that is not UTF-8".into())))
    }

    fn texts(&self, column: Column, picks: &[u32]) -> Result<Vec<Option<ByteArray>>, Unreadable> {
        Ok(self.read::<ByteArrayType>(column, picks)?.one_a_row())
    }

    fn lists(&self, column: Column, picks: &[u32]) -> Result<Vec<Vec<Option<ByteArray>>>, Unreadable> {
        let nullable_items = column == Column::Binds;
        Ok(self.read::<ByteArrayType>(column, picks)?.lists(nullable_items))
    }

    /// Reads the rows `picks` (ascending) of one column; pages without any of them are not decompressed.
    fn read<T: DataType>(&self, column: Column, picks: &[u32]) -> Result<Levelled<T::T>, Unreadable> {
        let leaf = self.metadata.column(column as usize);
        let descriptor = leaf.column_descr_ptr();
        let mut levelled = Levelled {
            values: Vec::new(),
            definitions: Vec::new(),
            repetitions: Vec::new(),
            definition_max: descriptor.max_def_level(),
        };
        if picks.is_empty() {
            return Ok(levelled);
        }
        let (base, bytes) = self.chunk(column)?;
        let part = Arc::new(Part { base, file_bytes: self.file.file_bytes, bytes });
        let locations =
            self.file.metadata.page_index_for_row_group(self.index).page_locations(column as usize).cloned();
        let parse = || {
            let pages = SerializedPageReader::new(part, leaf, self.rows() as usize, locations)?;
            let pages = Measured { pages };
            let mut reader = get_typed_column_reader::<T>(get_column_reader(descriptor, Box::new(pages)));
            read_picks(&mut reader, picks, &mut levelled)
        };
        guarded(parse).map_err(|kind| self.unreadable(column, kind))?;
        Ok(levelled)
    }

    /// A whole column chunk, its checksum found to match, and where it begins.
    fn chunk(&self, column: Column) -> Result<(u64, Bytes), Unreadable> {
        let (base, length) = self.metadata.column(column as usize).byte_range();
        if let Some(bytes) = &self.chunks.borrow()[column as usize] {
            return Ok((base, bytes.clone()));
        }
        let bytes = self.fetch(column, base, usize::try_from(length).unwrap_or(usize::MAX))?;
        if crc32c::crc32c(&bytes) != self.file.seals[self.index * self.file.leaves + column as usize].chunk {
            return Err(self.unreadable(column, UnreadableKind::Chunk));
        }
        self.chunks.borrow_mut()[column as usize] = Some(bytes.clone());
        Ok((base, bytes))
    }

    fn fetch(&self, column: Column, offset: u64, length: usize) -> Result<Bytes, Unreadable> {
        if offset.saturating_add(length as u64) > self.file.file_bytes {
            return Err(self.unreadable(column, UnreadableKind::Content("it lies outside the file".into())));
        }
        let read = self.file.source.read_at(offset, length);
        read.map_err(|error| self.unreadable(column, UnreadableKind::Io(error)))
    }

    fn unreadable(&self, column: Column, kind: UnreadableKind) -> Unreadable {
        Unreadable { group: Some(self.index), column: Some(column), kind }
    }
}

/// Pages whose dictionaries hold as many values as they say: the parser believes the number and allocates by it.
struct Measured {
    pages: SerializedPageReader<Part>,
}

impl Measured {
    fn checked(page: Option<Page>) -> Result<Option<Page>, ParquetError> {
        match &page {
            // Every value takes four bytes at least, or eight where it is a number of that size.
            Some(Page::DictionaryPage { buf, num_values, .. }) if *num_values as usize > buf.len() / 4 => {
                Err(ParquetError::EOF("a dictionary is shorter than it says".into()))
            }
            _ => Ok(page),
        }
    }
}

impl Iterator for Measured {
    type Item = Result<Page, ParquetError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for Measured {
    fn get_next_page(&mut self) -> Result<Option<Page>, ParquetError> {
        Self::checked(self.pages.get_next_page()?)
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>, ParquetError> {
        self.pages.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<(), ParquetError> {
        self.pages.skip_next_page()
    }

    fn supports_deferred_dictionary(&self) -> bool {
        self.pages.supports_deferred_dictionary()
    }

    fn take_deferred_dictionary(&mut self) -> Result<Option<Page>, ParquetError> {
        Self::checked(self.pages.take_deferred_dictionary()?)
    }

    fn at_record_boundary(&mut self) -> Result<bool, ParquetError> {
        self.pages.at_record_boundary()
    }
}

fn read_picks<T: DataType>(
    reader: &mut ColumnReaderImpl<T>,
    picks: &[u32],
    out: &mut Levelled<T::T>,
) -> Result<(), ParquetError> {
    let mut row = 0;
    for run in picks.chunk_by(|row, next| row + 1 == *next) {
        let skipped = reader.skip_records((run[0] - row) as usize)?;
        let (read, ..) =
            reader.read_records(run.len(), Some(&mut out.definitions), Some(&mut out.repetitions), &mut out.values)?;
        if skipped != (run[0] - row) as usize || read != run.len() {
            return Err(ParquetError::EOF("fewer rows than the file says".into()));
        }
        row = run[0] + run.len() as u32;
    }
    Ok(())
}

/// Values of a dictionary lie at one place however often they occur: each is judged once.
#[derive(Default)]
struct Asked {
    last: Option<((usize, usize), bool)>,
    answers: HashMap<(usize, usize), bool>,
}

impl Asked {
    /// `text` outlives this: no other value comes to lie at its place.
    fn judge(&mut self, text: Option<&ByteArray>, keep: &mut impl FnMut(&str) -> bool) -> bool {
        let place = text.map_or((0, 0), |text| (text.data().as_ptr() as usize, text.len()));
        if let Some((_, answer)) = self.last.filter(|(last, _)| *last == place) {
            return answer;
        }
        let answer = *self.answers.entry(place).or_insert_with(|| keep(as_str(text)));
        self.last = Some((place, answer));
        answer
    }
}

fn as_str(text: Option<&ByteArray>) -> &str {
    text.and_then(|text| std::str::from_utf8(text.data()).ok()).unwrap_or("")
}

impl<T> Levelled<T> {
    /// Of a column that is not a list.
    fn one_a_row(self) -> Vec<Option<T>> {
        if self.definition_max == 0 {
            return self.values.into_iter().map(Some).collect();
        }
        let mut values = self.values.into_iter();
        let value = |level: i16| if level == self.definition_max { values.next() } else { None };
        self.definitions.into_iter().map(value).collect()
    }

    /// Of a list: null and empty lists alike.
    fn lists(self, nullable_items: bool) -> Vec<Vec<Option<T>>> {
        let mut values = self.values.into_iter();
        let mut lists = Vec::new();
        for (&definition, &repetition) in self.definitions.iter().zip(&self.repetitions) {
            if repetition == 0 {
                lists.push(Vec::new());
            }
            let Some(list) = lists.last_mut() else { continue };
            if definition == self.definition_max {
                list.extend(values.next().map(Some));
            } else if nullable_items && definition == self.definition_max - 1 {
                list.push(None);
            }
        }
        lists
    }
}
