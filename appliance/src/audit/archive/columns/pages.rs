//! Pages that are done, and what the file's metadata will say of them.

use super::dictionary::Dictionary;
use super::values::{Bound, Range};
use parquet::basic::{BoundaryOrder, Compression, Encoding, EncodingMask, PageType, Type, ZstdLevel};
use parquet::bloom_filter::Sbbf;
use parquet::column::page::{CompressedPage, Page, PageWriter as _};
use parquet::column::writer::ColumnCloseResult;
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, ColumnIndexBuilder, OffsetIndexBuilder, PageEncodingStats};
use parquet::file::page_index::offset_index::OffsetIndexMetaData;
use parquet::file::statistics::{Statistics, ValueStatistics};
use parquet::file::writer::{SerializedPageWriter, TrackedWrite};
use parquet::schema::types::ColumnDescPtr;
use std::io::Write as _;
use zstd::bulk::Compressor;

/// Of zstd. Level 3 takes 6 % more of the archiver's CPU, for files that are no smaller: pages are encoded already.
pub const LEVEL: i32 = 1;
/// A text in the statistics is cut to this.
const TEXT_BYTES_MAX: usize = 64;

pub struct Pages {
    leaf: ColumnDescPtr,
    written: TrackedWrite<Vec<u8>>,
    uncompressed: usize,
    /// Levels, nulls among them.
    values: u64,
    nulls: u64,
    rows: u64,
    range: Range,
    /// What the index says of the last page with values.
    last: Range,
    ascending: bool,
    offsets: OffsetIndexBuilder,
    /// `None`: the column has no statistics.
    index: Option<ColumnIndexBuilder>,
    encodings: Vec<(Encoding, i32)>,
}

/// One page, gathered.
pub struct Gathered {
    pub body: Vec<u8>,
    pub encoding: Encoding,
    pub rows: usize,
    /// Levels, nulls among them.
    pub values: usize,
    pub nulls: usize,
    pub range: Range,
}

impl Pages {
    pub fn new(leaf: ColumnDescPtr, with_statistics: bool) -> Self {
        let index = with_statistics.then(|| ColumnIndexBuilder::new(leaf.physical_type()));
        Self {
            leaf,
            written: TrackedWrite::new(Vec::new()),
            uncompressed: 0,
            values: 0,
            nulls: 0,
            rows: 0,
            range: None,
            last: None,
            ascending: true,
            offsets: OffsetIndexBuilder::new(),
            index,
            encodings: Vec::new(),
        }
    }

    pub fn rows(&self) -> u64 {
        self.rows
    }

    pub fn push(&mut self, page: Gathered, zstd: &mut Compressor<'_>) -> Result<(), ParquetError> {
        self.values += page.values as u64;
        self.nulls += page.nulls as u64;
        self.rows += page.rows as u64;
        self.offsets.append_row_count(page.rows as i64);
        self.judge(&page);
        match self.encodings.iter_mut().find(|(encoding, _)| *encoding == page.encoding) {
            Some((_, pages)) => *pages += 1,
            None => self.encodings.push((page.encoding, 1)),
        }
        let uncompressed = page.body.len();
        let data = Page::DataPage {
            buf: zstd.compress(&page.body)?.into(),
            num_values: page.values as u32,
            encoding: page.encoding,
            def_level_encoding: Encoding::RLE,
            rep_level_encoding: Encoding::RLE,
            statistics: None,
        };
        let (at, bytes) = self.write(CompressedPage::new(data, uncompressed))?;
        self.offsets.append_offset_and_size(at as i64, bytes as i32);
        Ok(())
    }

    /// Offset and size.
    fn write(&mut self, page: CompressedPage) -> Result<(u64, u64), ParquetError> {
        let spec = SerializedPageWriter::new(&mut self.written).write_page(page)?;
        self.uncompressed += spec.uncompressed_size;
        Ok((spec.offset, spec.bytes_written))
    }

    /// The page's part of the column index, and of the chunk's statistics.
    fn judge(&mut self, page: &Gathered) {
        let Some(index) = &mut self.index else { return };
        let Some((least, greatest)) = &page.range else {
            index.append(true, Vec::new(), Vec::new(), page.nulls as i64, None);
            return;
        };
        let physical = self.leaf.physical_type();
        let (floor, ceiling) = (least.floor(), greatest.ceiling());
        index.append(false, floor.bytes(physical), ceiling.bytes(physical), page.nulls as i64, None);
        if let Some((last_floor, last_ceiling)) = &self.last {
            self.ascending &= *last_floor <= floor && *last_ceiling <= ceiling;
        }
        self.last = Some((floor, ceiling));
        self.range = Some(match self.range.take() {
            Some(range) => (range.0.min(least.clone()), range.1.max(greatest.clone())),
            None => (least.clone(), greatest.clone()),
        });
    }

    /// All pages with the dictionary in front, as a chunk that begins at 0.
    pub fn close(
        mut self,
        dictionary: Option<&Dictionary>,
        bloom_filter: Option<Sbbf>,
        zstd: &mut Compressor<'_>,
    ) -> Result<(Vec<u8>, ColumnCloseResult), ParquetError> {
        let begins = match dictionary {
            Some(dictionary) => self.put_in_front(dictionary, zstd)?,
            None => 0,
        };
        let bytes_written = self.written.bytes_written() as u64;
        let metadata = self.metadata(dictionary.is_some(), begins)?;
        let column_index = self.index.take().map(|mut index| {
            index.set_boundary_order(match self.ascending {
                true => BoundaryOrder::ASCENDING,
                false => BoundaryOrder::UNORDERED,
            });
            index.build()
        });
        let close = ColumnCloseResult {
            bytes_written,
            rows_written: self.rows,
            metadata,
            bloom_filter,
            column_index: column_index.transpose()?,
            offset_index: Some(moved(self.offsets.build(), begins)),
        };
        Ok((self.written.into_inner()?, close))
    }

    /// Returns where the data pages begin behind it.
    fn put_in_front(&mut self, dictionary: &Dictionary, zstd: &mut Compressor<'_>) -> Result<i64, ParquetError> {
        let data = std::mem::replace(&mut self.written, TrackedWrite::new(Vec::new())).into_inner()?;
        let page = Page::DictionaryPage {
            buf: zstd.compress(dictionary.page())?.into(),
            num_values: dictionary.len(),
            encoding: Encoding::PLAIN,
            is_sorted: false,
        };
        self.write(CompressedPage::new(page, dictionary.page().len()))?;
        let begins = self.written.bytes_written() as i64;
        self.written.write_all(&data)?;
        Ok(begins)
    }

    fn metadata(&self, has_dictionary: bool, begins: i64) -> Result<ColumnChunkMetaData, ParquetError> {
        let stats = |page_type, encoding, count| PageEncodingStats { page_type, encoding, count };
        let of_dictionary = has_dictionary.then(|| stats(PageType::DICTIONARY_PAGE, Encoding::PLAIN, 1));
        let of_data = self.encodings.iter().map(|&(encoding, pages)| stats(PageType::DATA_PAGE, encoding, pages));
        let pages: Vec<_> = of_dictionary.into_iter().chain(of_data).collect();
        // Levels are in RLE.
        let encodings: Vec<_> = pages.iter().map(|page| page.encoding).chain([Encoding::RLE]).collect();
        let mut builder = ColumnChunkMetaData::builder(self.leaf.clone())
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(LEVEL)?))
            .set_encodings_mask(EncodingMask::new_from_encodings(encodings.iter()))
            .set_page_encoding_stats(pages)
            .set_total_compressed_size(self.written.bytes_written() as i64)
            .set_total_uncompressed_size(self.uncompressed as i64)
            .set_num_values(self.values as i64)
            .set_data_page_offset(begins)
            .set_dictionary_page_offset(has_dictionary.then_some(0));
        if self.index.is_some() {
            builder = builder.set_statistics(self.statistics());
        }
        builder.build()
    }

    fn statistics(&self) -> Statistics {
        fn of<T>(range: Option<(T, T)>, nulls: u64) -> ValueStatistics<T> {
            let (least, greatest) = range.unzip();
            ValueStatistics::new(least, greatest, None, Some(nulls), false)
        }
        let (least, greatest) = self.range.as_ref().map(|(least, greatest)| (least, greatest)).unzip();
        let both = |number: fn(&Bound) -> i64| Some((number(least?), number(greatest?)));
        let nulls = self.nulls;
        match self.leaf.physical_type() {
            Type::INT64 => Statistics::Int64(of(both(Bound::int), nulls).with_backwards_compatible_min_max(true)),
            Type::INT32 => {
                let range = both(Bound::int).map(|(least, greatest)| (least as i32, greatest as i32));
                Statistics::Int32(of(range, nulls).with_backwards_compatible_min_max(true))
            }
            Type::BOOLEAN => {
                let range = both(Bound::int).map(|(least, greatest)| (least != 0, greatest != 0));
                Statistics::Boolean(of(range, nulls))
            }
            _ => {
                let cut = self.range.as_ref().map(|(least, greatest)| (least.floor(), greatest.ceiling()));
                let exact =
                    cut.as_ref().zip(self.range.as_ref()).map(|(cut, whole)| (cut.0 == whole.0, cut.1 == whole.1));
                let text = |bound: Bound| ByteArray::from(bound.bytes(Type::BYTE_ARRAY));
                let range = cut.map(|(floor, ceiling)| (text(floor), text(ceiling)));
                let (floor_is_exact, ceiling_is_exact) = exact.unwrap_or_default();
                let range = of(range, nulls).with_min_is_exact(floor_is_exact);
                Statistics::ByteArray(range.with_max_is_exact(ceiling_is_exact))
            }
        }
    }
}

/// The pages lie so much further behind.
fn moved(mut offsets: OffsetIndexMetaData, by: i64) -> OffsetIndexMetaData {
    offsets.page_locations.iter_mut().for_each(|page| page.offset += by);
    offsets
}

impl Bound {
    fn int(&self) -> i64 {
        match self {
            Self::Int(number) => *number,
            Self::Flag(flag) => i64::from(*flag),
            Self::Text(_) => 0,
        }
    }

    /// As statistics have it: what is cut stays at most the value.
    fn floor(&self) -> Self {
        match self {
            Self::Text(text) => Self::Text(text[..char_floor(text, TEXT_BYTES_MAX)].to_vec()),
            number => number.clone(),
        }
    }

    /// The same; what is cut stays at least the value.
    fn ceiling(&self) -> Self {
        match self {
            Self::Text(text) if text.len() > TEXT_BYTES_MAX => {
                Self::Text(above(&text[..char_floor(text, TEXT_BYTES_MAX)]).unwrap_or_else(|| text.clone()))
            }
            other => other.clone(),
        }
    }

    fn bytes(&self, physical: Type) -> Vec<u8> {
        if let Self::Text(text) = self {
            return text.clone();
        }
        let number = self.int().to_le_bytes();
        match physical {
            Type::INT64 => number.to_vec(),
            Type::INT32 => number[..4].to_vec(),
            _ => number[..1].to_vec(),
        }
    }
}

/// The most of a text up to that many bytes that cuts no character.
fn char_floor(text: &[u8], bytes: usize) -> usize {
    match std::str::from_utf8(text) {
        Ok(text) => text.floor_char_boundary(bytes),
        Err(_) => text.len().min(bytes),
    }
}

/// The least text of characters that is greater than all that begin with this one. `None`: there is none so short.
fn above(start: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(start).ok()?;
    text.char_indices().rev().find_map(|(at, last)| {
        let next = char::from_u32(last as u32 + 1)?;
        Some([&start[..at], next.encode_utf8(&mut [0; 4]).as_bytes()].concat())
    })
}
