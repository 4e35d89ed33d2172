//! One column of one row group.

use super::hybrid::{self, Runs};
use super::pages::{Gathered, Pages};
use super::values::{Texts, Values};
use crate::audit::archive::schema::{Column, PAGE_BYTES};
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::ParquetError;
use parquet::schema::types::ColumnDescPtr;
use zstd::bulk::Compressor;

pub struct ColumnChunk {
    column: Column,
    definition_max: i16,
    /// Definition level of a list without items.
    empty_list: i16,
    is_list: bool,
    values: Values,
    definitions: Runs,
    repetitions: Runs,
    /// Rows that have a value, a list or a null; those behind them have nothing yet.
    rows: usize,
    pages: Pages,
}

impl ColumnChunk {
    pub fn new(column: Column, leaf: ColumnDescPtr) -> Self {
        let definition_max = leaf.max_def_level();
        Self {
            column,
            definition_max,
            // A list that may be null has a level more: 0 is null then.
            empty_list: i16::from(definition_max > 1),
            is_list: leaf.max_rep_level() > 0,
            values: Values::of(column, leaf.physical_type()),
            definitions: Runs::default(),
            repetitions: Runs::default(),
            rows: 0,
            pages: Pages::new(leaf, column.has_statistics()),
        }
    }

    /// Of row `row`, as is each of those below. A row that is passed over is null.
    pub fn int(&mut self, row: usize, value: i64) {
        if let Values::Ints(_, values) = &mut self.values {
            values.push(value);
            self.defined(row);
        }
    }

    pub fn flag(&mut self, row: usize, value: bool) {
        if let Values::Flags(values) = &mut self.values {
            values.push(value);
            self.defined(row);
        }
    }

    pub fn text(&mut self, row: usize, value: &[u8]) {
        if let Values::Texts(texts) = &mut self.values {
            texts.push(value);
            self.defined(row);
        }
    }

    /// Returns how many bytes they have.
    pub fn list(&mut self, row: usize, items: impl Iterator<Item = Option<impl AsRef<str>>>) -> usize {
        let mut bytes = 0;
        self.items(row, items, |texts, item| {
            bytes += 8;
            let Some(item) = item else { return false };
            texts.push(item.as_ref().as_bytes());
            bytes += item.as_ref().len();
            true
        });
        bytes
    }

    /// `push`: one of them; `false`: it is null.
    fn items<T>(&mut self, row: usize, items: impl Iterator<Item = T>, mut push: impl FnMut(&mut Texts, T) -> bool) {
        self.reach(row);
        let Values::Texts(texts) = &mut self.values else { return };
        let mut repetition = 0;
        for item in items {
            let is_null = !push(texts, item);
            self.definitions.push((self.definition_max - i16::from(is_null)) as u32, 1);
            self.repetitions.push(repetition, 1);
            repetition = 1;
        }
        if repetition == 0 {
            self.definitions.push(self.empty_list as u32, 1);
            self.repetitions.push(0, 1);
        }
        self.rows += 1;
    }

    /// The number of a text that may come again in this row group. `None`: it has to come as a text.
    pub fn number(&mut self, value: &str) -> Option<u32> {
        match &mut self.values {
            Values::Texts(texts) => texts.number(value.as_bytes()),
            _ => None,
        }
    }

    /// A text that has that number.
    pub fn text_again(&mut self, row: usize, number: u32) {
        if let Values::Texts(texts) = &mut self.values {
            texts.push_again(number);
            self.defined(row);
        }
    }

    /// Texts that have these numbers.
    pub fn list_again(&mut self, row: usize, numbers: &[u32]) {
        self.items(row, numbers.iter(), |texts, &number| {
            texts.push_again(number);
            true
        });
    }

    fn defined(&mut self, row: usize) {
        self.reach(row);
        if self.definition_max > 0 {
            self.definitions.push(self.definition_max as u32, 1);
        }
        self.rows += 1;
    }

    fn reach(&mut self, row: usize) {
        let nulls = row - self.rows;
        if nulls > 0 {
            debug_assert!(self.definition_max > 0, "{:?} is in every record", self.column);
            self.definitions.push(0, nulls);
            if self.is_list {
                self.repetitions.push(0, nulls);
            }
            self.rows = row;
        }
    }

    /// The page has to end behind the last row that was given.
    pub fn is_full(&self) -> bool {
        let texts_full = matches!(&self.values, Values::Texts(texts) if texts.is_full());
        texts_full || self.values.bytes() >= PAGE_BYTES
    }

    /// Ends the page behind `rows` rows.
    pub fn end_page(&mut self, rows: usize, zstd: &mut Compressor<'_>) -> Result<(), ParquetError> {
        self.reach(rows);
        let page_rows = rows - self.pages.rows() as usize;
        if page_rows == 0 {
            return Ok(());
        }
        let mut body = Vec::new();
        if self.is_list {
            levels(&self.repetitions, 1, &mut body);
        }
        let mut values = self.values.count();
        let mut nulls = 0;
        if self.definition_max > 0 {
            nulls = self.definitions.count() - values;
            values = self.definitions.count();
            levels(&self.definitions, self.definition_max, &mut body);
        }
        let encoding = self.values.encode(&mut body);
        let range = if self.column.has_statistics() { self.values.range() } else { None };
        self.pages.push(Gathered { body, encoding, rows: page_rows, values, nulls, range }, zstd)?;
        self.values.clear()?;
        self.definitions.clear();
        self.repetitions.clear();
        Ok(())
    }

    /// Its bytes, and what the file's metadata says of them.
    pub fn close(
        mut self,
        rows: usize,
        zstd: &mut Compressor<'_>,
    ) -> Result<(Vec<u8>, ColumnCloseResult), ParquetError> {
        self.end_page(rows, zstd)?;
        let Values::Texts(texts) = &mut self.values else { return self.pages.close(None, None, zstd) };
        let bloom_filter = texts.take_bloom_filter()?;
        let dictionary = Some(texts.dictionary()).filter(|dictionary| dictionary.len() > 0);
        self.pages.close(dictionary, bloom_filter, zstd)
    }
}

/// With their length in front.
fn levels(levels: &Runs, max: i16, out: &mut Vec<u8>) {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    levels.encode(hybrid::width_of(max as u32), out);
    let bytes = (out.len() - at - 4) as u32;
    out[at..at + 4].copy_from_slice(&bytes.to_le_bytes());
}
