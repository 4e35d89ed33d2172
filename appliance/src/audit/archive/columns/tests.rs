//! Encodings against the specification's own examples, and whole files against the parquet crate's readers.

use super::ColumnChunk;
use super::delta::{self, Int};
use super::hybrid::{Runs, width_of};
use crate::audit::archive::schema::{self, Column, PAGE_ROWS};
use bytes::Bytes;
use parquet::basic::{BoundaryOrder, Encoding, PageType, Type};
use parquet::column::reader::{ColumnReaderImpl, get_typed_column_reader};
use parquet::data_type::{BoolType, ByteArrayType, DataType, Int32Type, Int64Type};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use parquet::file::properties::ReaderProperties;
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::file::serialized_reader::ReadOptionsBuilder;
use parquet::file::writer::SerializedFileWriter;
use proptest::prelude::*;
use std::sync::Arc;
use zstd::bulk::Compressor;

/// Encodings.md, "Run Length Encoding / Bit-Packing Hybrid": 0 to 7 in three bits are the bytes 10001000 11000110 11111010.
#[test]
fn bits_are_packed_as_the_specification_draws_them() {
    let mut runs = Runs::default();
    (0..8).for_each(|value| runs.push(value, 1));
    let mut out = Vec::new();
    runs.encode(3, &mut out);
    assert_eq!(out, [0b11, 0b1000_1000, 0b1100_0110, 0b1111_1010]);
    runs.clear();
    runs.push(300, 1000);
    out.clear();
    runs.encode(width_of(300), &mut out);
    assert_eq!(out, [0xd0, 0x0f, 0x2c, 0x01], "a run: twice its length as a varint, the value in whole bytes");
}

/// Encodings.md, "Delta Encoding", examples 1 and 2: the header, the least difference, the widths and the first bytes.
#[test]
fn differences_are_packed_as_the_specification_counts_them() {
    let mut out = Vec::new();
    delta::encode(Int::Bits64, &[1, 2, 3, 4, 5], &mut out);
    assert_eq!(out, [0x80, 1, 4, 5, 2, 2, 0, 0, 0, 0]);
    out.clear();
    delta::encode(Int::Bits64, &[7, 5, 3, 1, 2, 3, 4, 5], &mut out);
    assert_eq!(out[..10], [0x80, 1, 4, 8, 14, 3, 2, 0, 0, 0]);
    assert_eq!(out[10..12], [0b1100_0000, 0b0011_1111]);
}

/// What one row has in one column.
#[derive(Clone, Debug, PartialEq)]
enum Cell {
    Null,
    Int(i64),
    Flag(bool),
    Text(Vec<u8>),
    List(Vec<Option<String>>),
}

/// A file of that one column (the others null or empty), in row groups of the rows given.
fn file(column: Column, groups: &[&[Cell]]) -> Bytes {
    let message = schema::message().unwrap();
    let mut writer = SerializedFileWriter::new(Vec::new(), message, Arc::new(schema::properties())).unwrap();
    let descriptor = Arc::new(writer.schema_descr().clone());
    let mut zstd = Compressor::new(super::LEVEL).unwrap();
    for rows in groups {
        let mut group = writer.next_row_group().unwrap();
        for (&other, leaf) in Column::ALL.iter().zip(descriptor.columns()) {
            let mut chunk = ColumnChunk::new(other, leaf.clone());
            for (row, cell) in rows.iter().enumerate() {
                let required = (leaf.max_def_level() == i16::from(leaf.max_rep_level() > 0), leaf.physical_type());
                match cell {
                    cell if other == column => put(&mut chunk, row, cell),
                    _ if leaf.max_rep_level() > 0 => drop(chunk.list(row, std::iter::empty::<Option<&str>>())),
                    _ if required == (true, Type::BYTE_ARRAY) => chunk.text(row, b""),
                    _ if required.0 => chunk.int(row, 0),
                    _ => {}
                }
                if chunk.is_full() || (row + 1) % PAGE_ROWS == 0 {
                    chunk.end_page(row + 1, &mut zstd).unwrap();
                }
            }
            let (encoded, close) = chunk.close(rows.len(), &mut zstd).unwrap();
            group.append_column(&Bytes::from(encoded), close).unwrap();
        }
        group.close().unwrap();
    }
    writer.into_inner().unwrap().into()
}

fn put(chunk: &mut ColumnChunk, row: usize, cell: &Cell) {
    match cell {
        Cell::Null => {}
        Cell::Int(value) => chunk.int(row, *value),
        Cell::Flag(value) => chunk.flag(row, *value),
        Cell::Text(value) => chunk.text(row, value),
        Cell::List(items) => drop(chunk.list(row, items.iter().map(Option::as_deref))),
    }
}

fn reader(bytes: &Bytes) -> SerializedFileReader<Bytes> {
    let properties = ReaderProperties::builder().set_read_bloom_filter(true).build();
    let options = ReadOptionsBuilder::new().with_page_index().with_encoding_stats_as_mask(false);
    let options = options.with_reader_properties(properties).build();
    SerializedFileReader::new_with_options(bytes.clone(), options).expect("a Parquet file")
}

/// As the parquet crate reads them.
fn read(file: &SerializedFileReader<Bytes>, column: Column, group: usize) -> Vec<Cell> {
    let rows = file.metadata().row_group(group).num_rows() as usize;
    let leaf = file.metadata().file_metadata().schema_descr().column(column as usize);
    let pages = file.get_row_group(group).unwrap().get_column_reader(column as usize).unwrap();
    let wrap = |list: Vec<Vec<Option<Vec<u8>>>>| -> Vec<Cell> {
        let text = |item: Vec<u8>| String::from_utf8(item).unwrap();
        list.into_iter().map(|items| Cell::List(items.into_iter().map(|item| item.map(text)).collect())).collect()
    };
    match leaf.physical_type() {
        Type::INT64 => flat(get_typed_column_reader::<Int64Type>(pages), rows, |value| Cell::Int(*value)),
        Type::INT32 => flat(get_typed_column_reader::<Int32Type>(pages), rows, |value| Cell::Int(i64::from(*value))),
        Type::BOOLEAN => flat(get_typed_column_reader::<BoolType>(pages), rows, |value| Cell::Flag(*value)),
        _ if leaf.max_rep_level() == 0 => {
            flat(get_typed_column_reader::<ByteArrayType>(pages), rows, |value| Cell::Text(value.data().to_vec()))
        }
        _ => wrap(lists(get_typed_column_reader::<ByteArrayType>(pages), rows, leaf.max_def_level())),
    }
}

fn flat<T: DataType>(mut reader: ColumnReaderImpl<T>, rows: usize, cell: impl Fn(&T::T) -> Cell) -> Vec<Cell> {
    let (mut values, mut definitions) = (Vec::new(), Vec::new());
    let (records, _, levels) = reader.read_records(rows, Some(&mut definitions), None, &mut values).expect("readable");
    assert_eq!(records, rows);
    if definitions.is_empty() {
        return values.iter().map(cell).collect();
    }
    assert_eq!(levels, rows);
    let mut values = values.iter();
    definitions.iter().map(|&level| if level > 0 { cell(values.next().unwrap()) } else { Cell::Null }).collect()
}

fn lists(mut reader: ColumnReaderImpl<ByteArrayType>, rows: usize, most: i16) -> Vec<Vec<Option<Vec<u8>>>> {
    let (mut values, mut definitions, mut repetitions) = (Vec::new(), Vec::new(), Vec::new());
    let read = reader.read_records(rows, Some(&mut definitions), Some(&mut repetitions), &mut values);
    assert_eq!(read.expect("readable").0, rows);
    let (mut lists, mut values) = (Vec::new(), values.into_iter());
    for (level, repetition) in definitions.into_iter().zip(repetitions) {
        if repetition == 0 {
            lists.push(Vec::new());
        }
        let list: &mut Vec<_> = lists.last_mut().unwrap();
        if level == most {
            list.push(Some(values.next().unwrap().data().to_vec()));
        } else if most == 3 && level == 2 {
            list.push(None);
        }
    }
    lists
}

/// Every page's bounds hold for its rows, and the index and the bloom filter lose nobody.
fn check_indexes(file: &SerializedFileReader<Bytes>, column: Column, group: usize, cells: &[Cell]) {
    let metadata: &ParquetMetaData = file.metadata();
    let index = metadata.page_index().expect("it was asked for");
    let pages = index.offset_index(group, column as usize).expect("every column has one").page_locations().clone();
    let ends = pages.iter().skip(1).map(|page| page.first_row_index as usize).chain([cells.len()]);
    let ranges: Vec<_> = pages.iter().map(|page| page.first_row_index as usize).zip(ends).collect();
    let filter = file.get_row_group(group).unwrap().get_column_bloom_filter(column as usize).cloned();
    assert_eq!(filter.is_some(), column.is_bloomed());
    let columns = index.column_index(group, column as usize);
    assert_eq!(columns.is_some(), column.has_statistics());
    for (page, &(from, to)) in ranges.iter().enumerate() {
        for cell in &cells[from..to] {
            let texts: Vec<&[u8]> = match cell {
                Cell::Text(text) => vec![text],
                Cell::List(items) => items.iter().flatten().map(String::as_bytes).collect(),
                _ => Vec::new(),
            };
            for text in texts {
                assert!(filter.as_ref().is_none_or(|filter| filter.check(text)));
                if let Some(ColumnIndexMetaData::BYTE_ARRAY(index)) = &columns {
                    assert!(index.min_value(page).unwrap() <= text && text <= index.max_value(page).unwrap());
                }
            }
            if let (Cell::Int(number), Some(ColumnIndexMetaData::INT64(index))) = (cell, &columns) {
                assert!(index.min_value(page).unwrap() <= number && number <= index.max_value(page).unwrap());
            }
        }
    }
}

fn check(column: Column, groups: &[&[Cell]]) {
    let bytes = file(column, groups);
    let file = reader(&bytes);
    for (group, cells) in groups.iter().enumerate() {
        let read = read(&file, column, group);
        if let Some(row) = (0..cells.len()).find(|&row| read.get(row) != Some(&cells[row])) {
            panic!("{column:?}, group {group}, row {row}: {:?}, written {:?}", read.get(row), cells[row]);
        }
        check_indexes(&file, column, group, cells);
    }
}

/// Runs and changes of runs, at the sizes where encodings change.
fn rows(cell: impl Strategy<Value = Cell> + Clone + 'static) -> impl Strategy<Value = Vec<Cell>> {
    let times = prop_oneof![4 => 1..4usize, 2 => 5..20usize, 1 => 20..600usize];
    let runs = prop::collection::vec((cell, times), 1..40);
    runs.prop_map(|runs| runs.into_iter().flat_map(|(cell, times)| std::iter::repeat_n(cell, times)).collect())
}

fn int() -> impl Strategy<Value = i64> + Clone {
    prop_oneof![any::<i64>(), Just(i64::MIN), Just(i64::MAX), -300..300i64, Just(1_795_142_000_000_000)]
}

fn text() -> impl Strategy<Value = String> + Clone {
    prop_oneof![4 => "[a-c]{0,2}", 1 => ".{0,30}", 1 => "(\u{10ffff}|é|z){60,70}"]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn numbers_read_back(rows in rows(prop_oneof![3 => int().prop_map(Cell::Int), 1 => Just(Cell::Null)])) {
        check(Column::Request, &[&rows]);
    }

    #[test]
    fn numbers_of_four_bytes_read_back(rows in rows(any::<i32>().prop_map(|value| Cell::Int(i64::from(value))))) {
        check(Column::Shard, &[&rows, &rows]);
    }

    #[test]
    fn flags_read_back(rows in rows(prop_oneof![any::<bool>().prop_map(Cell::Flag), Just(Cell::Null)])) {
        check(Column::More, &[&rows]);
    }

    #[test]
    fn texts_read_back(rows in rows(prop_oneof![3 => text().prop_map(|text| Cell::Text(text.into())), 1 => Just(Cell::Null)])) {
        check(Column::Rule, &[&rows, &rows]);
        check(Column::Statement, &[&rows]);
        check(Column::Payload, &[&rows]);
    }

    #[test]
    fn lists_read_back(rows in rows(prop::collection::vec(prop::option::of(text()), 0..4).prop_map(Cell::List))) {
        check(Column::Binds, &[&rows]);
        let whole = |cell: &Cell| match cell {
            Cell::List(items) => Cell::List(items.iter().filter(|item| item.is_some()).cloned().collect()),
            other => other.clone(),
        };
        let whole: Vec<Cell> = rows.iter().map(whole).collect();
        check(Column::Groups, &[&whole]);
        check(Column::Tables, &[&whole]);
    }
}

fn encodings(column: Column, texts: &[Cell]) -> Vec<(Encoding, usize)> {
    let file = reader(&file(column, &[texts]));
    let chunk = file.metadata().row_group(0).column(column as usize);
    let pages = chunk.page_encoding_stats().expect("written");
    let pages = pages.iter().filter(|pages| pages.page_type == PageType::DATA_PAGE);
    pages.map(|pages| (pages.encoding, pages.count as usize)).collect()
}

fn statements(rows: usize, each: usize) -> Vec<Cell> {
    (0..rows).map(|row| Cell::Text(format!("SELECT {:090}", row / each).into_bytes())).collect()
}

/// A dictionary ends where it has got too large, or is vain; pages behind that are plain, and cut where they are large enough.
#[test]
fn what_does_not_repeat_itself_is_plain() {
    let often = statements(40_000, 3);
    let [dictionary, plain] = encodings(Column::Statement, &often)[..] else { panic!("both") };
    assert_eq!((dictionary.0, plain.0), (Encoding::RLE_DICTIONARY, Encoding::PLAIN));
    assert_eq!(dictionary.1, (1 << 20) / 101 * 3 / PAGE_ROWS + 1, "{dictionary:?}");
    check(Column::Statement, &[&often]);

    let once = statements(10_000, 1);
    let pages = encodings(Column::Statement, &once);
    assert_eq!(pages[0], (Encoding::RLE_DICTIONARY, 1));
    assert_eq!(pages[1].0, Encoding::PLAIN);
    check(Column::Statement, &[&once]);
    assert_eq!(encodings(Column::Session, &once), [(Encoding::RLE_DICTIONARY, 1), (Encoding::PLAIN, pages[1].1)]);
    check(Column::Session, &[&once]);
    check(Column::Session, &[&statements(40_000, 3)]);

    let long: Vec<Cell> = (0..40).map(|row| Cell::Text(vec![row; 100 << 10])).collect();
    assert_eq!(encodings(Column::Payload, &long), [(Encoding::PLAIN, 14)]);
    check(Column::Payload, &[&long]);
}

/// Wider differences than [`super::values`] allows are plain: a reader in wide use gets them wrong.
#[test]
fn numbers_far_apart_are_plain() {
    let numbers = |step: i64| (0..5000).map(|row| Cell::Int(row % 2 * step)).collect::<Vec<_>>();
    for (step, encoding) in
        [(1 << 22, Encoding::DELTA_BINARY_PACKED), (1 << 25, Encoding::PLAIN), (i64::MAX, Encoding::PLAIN)]
    {
        assert_eq!(encodings(Column::DurationUs, &numbers(step)), [(encoding, 2)], "{step}");
        check(Column::DurationUs, &[&numbers(step)]);
    }
    let shards: Vec<Cell> = [0, i64::from(i32::MIN), i64::from(i32::MAX)].map(Cell::Int).into();
    assert_eq!(encodings(Column::Shard, &shards), [(Encoding::PLAIN, 1)]);
    check(Column::Shard, &[&shards]);
}

#[test]
fn the_column_index_is_in_the_order_it_says() {
    let text = |end: &str| Cell::Text(format!("{}{end}", "a".repeat(63)).into_bytes());
    for (first, second, order) in [("z", "\u{e9}", BoundaryOrder::UNORDERED), ("y", "z", BoundaryOrder::ASCENDING)] {
        let pages = [vec![text(first); PAGE_ROWS], vec![text(second); PAGE_ROWS]].concat();
        let file = reader(&file(Column::Application, &[&pages]));
        let index = file.metadata().page_index().expect("asked for");
        let Some(ColumnIndexMetaData::BYTE_ARRAY(index)) = index.column_index(0, Column::Application as usize) else {
            panic!("it has one")
        };
        assert_eq!(
            index.min_value(0) <= index.min_value(1),
            order == BoundaryOrder::ASCENDING,
            "a cut one may be less"
        );
        let whole = ColumnIndexMetaData::BYTE_ARRAY(index.clone());
        assert_eq!(whole.get_boundary_order(), Some(order));
    }
}

#[test]
fn rows_without_anything_are_pages_too() {
    check(Column::What, &[&vec![Cell::Null; 3 * PAGE_ROWS + 1], &[Cell::Null]]);
    check(Column::Rows, &[&vec![Cell::Null; PAGE_ROWS]]);
}
