//! The archive's columns. The text below is published (FORMAT.md): columns are added at its end, never renamed or moved.
//!
//! One row is one record of the trail as it was written; `shard` and `sequence` name it. A column a kind of record does not
//! have is null, and so is an empty text or a zero where the trail has them for "none".

use crate::audit::record::Kind;
use masking::sql::Class;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::{ColumnPath, Type};
use std::sync::Arc;

/// In the file's metadata under [`VERSION_KEY`].
pub const VERSION: u32 = 1;
pub const VERSION_KEY: &str = "lockgate.schema";
/// Rows per shard in the file's metadata: `SHARD:FIRST-LAST:ROWS`, several joined by a space.
pub const SHARDS_KEY: &str = "lockgate.shards";

/// A row group is written when it holds this many rows,
pub const GROUP_ROWS: usize = 64 << 10;
/// or this many bytes: statements and payloads are what grows.
pub const GROUP_BYTES: usize = 32 << 20;
/// A reader that wants few rows reads pages of this many.
pub(super) const PAGE_ROWS: usize = 4096;
pub(super) const PAGE_BYTES: usize = 256 << 10;
pub(super) const BLOOM_FALSE_POSITIVES: f64 = 0.01;

/// Timestamps are micros since 1970 in UTC. Numbers are signed because several readers know no others.
pub const MESSAGE: &str = "message lockgate_audit {
  required int64 time (TIMESTAMP(MICROS,true));
  required binary kind (STRING);
  required int32 shard;
  required int64 sequence;
  required binary session (STRING);
  required binary user (STRING);
  required group groups (LIST) { repeated group list { required binary element (STRING); } }
  required group actor (LIST) { repeated group list { required binary element (STRING); } }
  required binary target (STRING);
  required binary client (STRING);
  required binary application (STRING);
  required binary claimed_user (STRING);
  optional int64 request;
  optional binary statement (STRING);
  optional binary statement_raw;
  optional int64 statement_bytes;
  optional group binds (LIST) { repeated group list { optional binary element (STRING); } }
  optional group classes (LIST) { repeated group list { required binary element (STRING); } }
  optional group tables (LIST) { repeated group list { required binary element (STRING); } }
  optional binary decision (STRING);
  optional binary rule (STRING);
  optional binary ticket (STRING);
  optional int64 rows;
  optional int64 bytes;
  optional int64 duration_us;
  optional int64 masked;
  optional binary error (STRING);
  optional binary payload;
  optional boolean more;
  optional int64 statements;
  optional binary what (STRING);
  optional binary by (STRING);
  optional binary detail (STRING);
  required int32 cut;
}";

macro_rules! columns {
    ($($column:ident $name:literal,)+) => {
        /// The columns in the order of [`MESSAGE`]; each has one leaf.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(usize)]
        pub enum Column { $($column,)+ }

        impl Column {
            pub const ALL: &[Column] = &[$(Self::$column,)+];

            pub fn name(self) -> &'static str {
                match self { $(Self::$column => $name,)+ }
            }
        }
    };
}

columns! {
    Time "time", Kind "kind", Shard "shard", Sequence "sequence", Session "session", User "user", Groups "groups",
    Actor "actor", Target "target", Client "client", Application "application", ClaimedUser "claimed_user",
    Request "request", Statement "statement", StatementRaw "statement_raw", StatementBytes "statement_bytes",
    Binds "binds", Classes "classes", Tables "tables", Decision "decision", Rule "rule", Ticket "ticket", Rows "rows",
    Bytes "bytes", DurationUs "duration_us", Masked "masked", Error "error", Payload "payload", More "more",
    Statements "statements", What "what", By "by", Detail "detail", Cut "cut",
}

/// Equality on these prunes whole row groups. Classes are few enough for the column itself.
const BLOOMED: [Column; 8] = [
    Column::Session,
    Column::User,
    Column::Target,
    Column::Classes,
    Column::Tables,
    Column::Decision,
    Column::Rule,
    Column::Ticket,
];
/// Least and greatest value of these say nothing, and would repeat what the records hold.
const WITHOUT_STATISTICS: [Column; 5] =
    [Column::Statement, Column::StatementRaw, Column::Binds, Column::Payload, Column::Detail];
/// Every value differs: a dictionary would only cost.
const WITHOUT_DICTIONARY: [Column; 2] = [Column::StatementRaw, Column::Payload];

impl Column {
    /// The path of its leaf.
    pub fn path(self) -> ColumnPath {
        let list = matches!(self, Self::Groups | Self::Actor | Self::Binds | Self::Classes | Self::Tables);
        let parts: &[&str] = if list { &[self.name(), "list", "element"] } else { &[self.name()] };
        ColumnPath::new(parts.iter().map(|&part| part.to_owned()).collect())
    }

    /// It has a bloom filter.
    pub(super) fn is_bloomed(self) -> bool {
        BLOOMED.contains(&self)
    }

    pub(super) fn has_statistics(self) -> bool {
        !WITHOUT_STATISTICS.contains(&self)
    }

    pub(super) fn has_dictionary(self) -> bool {
        !WITHOUT_DICTIONARY.contains(&self)
    }
}

pub fn message() -> Result<Arc<Type>, ParquetError> {
    Ok(Arc::new(parse_message_type(MESSAGE)?))
}

pub fn properties() -> WriterProperties {
    WriterProperties::builder()
        .set_created_by(concat!("lockgate version ", env!("CARGO_PKG_VERSION")).to_owned())
        .build()
}

const KINDS: [(Kind, &str); 7] = [
    (Kind::Request, "request"),
    (Kind::Outcome, "outcome"),
    (Kind::SessionOpened, "session_opened"),
    (Kind::LoginRefused, "login_refused"),
    (Kind::Ruling, "ruling"),
    (Kind::SessionClosed, "session_closed"),
    (Kind::Gateway, "gateway"),
];

pub fn kind_name(kind: Kind) -> &'static str {
    KINDS.iter().find(|(known, _)| *known == kind).expect("every kind is listed").1
}

pub fn kind_of(name: &[u8]) -> Option<Kind> {
    KINDS.iter().find(|(_, known)| known.as_bytes() == name).map(|(kind, _)| *kind)
}

/// The names of a record's class bits; a bit without a name is `bit41`.
pub fn class_names(bits: u64) -> impl Iterator<Item = std::borrow::Cow<'static, str>> {
    let without_lowest = |bits: &u64| Some(bits & bits.wrapping_sub(1));
    let rests = std::iter::successors(Some(bits), without_lowest).take_while(|&rest| rest != 0);
    rests.map(|rest| rest.trailing_zeros() as usize).map(|bit| match Class::ALL.get(bit) {
        Some(class) => class.name().into(),
        None => format!("bit{bit}").into(),
    })
}

/// The way back. `None`: no such class.
pub fn class_bit(name: &str) -> Option<u64> {
    let bit = match Class::from_name(name) {
        Some(class) => class as u8,
        None => name.strip_prefix("bit")?.parse().ok().filter(|bit| *bit < 64)?,
    };
    Some(1 << bit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use parquet::schema::types::SchemaDescriptor;

    #[test]
    fn columns_are_the_leaves_of_the_published_schema_in_its_order() {
        let schema = SchemaDescriptor::new(message().expect("it parses"));
        let leaves: Vec<_> = schema.columns().iter().map(|leaf| leaf.path().clone()).collect();
        let columns: Vec<_> = Column::ALL.iter().map(|column| column.path()).collect();
        assert_eq!(leaves, columns);
        assert!(Column::ALL.iter().enumerate().all(|(index, column)| *column as usize == index));
    }

    #[test]
    fn kinds_and_classes_lead_back() {
        for (kind, name) in KINDS {
            assert_eq!((kind_name(kind), kind_of(name.as_bytes())), (name, Some(kind)));
        }
        let bits = 1 << 3 | 1 << 31 | 1 << 41;
        let names: Vec<_> = class_names(bits).collect();
        assert_eq!(names, ["delete", "unparsed", "bit41"]);
        assert_eq!(names.iter().filter_map(|name| class_bit(name)).fold(0, |all, bit| all | bit), bits);
        assert_eq!((class_bit("bit64"), class_bit("nonsense")), (None, None));
    }
}
