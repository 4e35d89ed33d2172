//! What texts mean, remembered per shard: the parser runs once for a text, not once for a statement.

use super::catalogues::Catalogues;
use crate::limits;
use crate::metrics::ShardCounters;
use crate::policy::{Decision, View};
use crate::shard::mailbox::Catalogue;
use codecs::postgres::ColumnPlan;
use masking::sql::{self, Analysis, Class, Classes};
use smallvec::SmallVec;
use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

/// What the gates of one shard share: the cache of analyses, catalogues, counters. No locks: one shard, one thread.
#[derive(Default)]
pub struct Shared {
    cache: Cache,
    pub catalogues: Catalogues,
    pub counters: Arc<ShardCounters>,
    pub(super) scratch: Scratch,
}

/// Buffers lent to one record at a time, so that a steady statement allocates nothing.
#[derive(Default)]
pub(super) struct Scratch {
    pub text: Vec<u8>,
    pub binds: String,
    pub ends: Vec<Option<usize>>,
}

/// A text and what it does.
#[derive(Debug)]
pub(crate) struct Meaning {
    /// The text as far as the trail keeps it.
    pub text: Box<[u8]>,
    pub text_bytes: u64,
    pub analysis: Analysis,
    pub classes: Classes,
    /// Names for the trail, `schema.table` where the text says so.
    pub tables: Vec<String>,
}

impl Meaning {
    fn of(text: &[u8], analysis: Analysis) -> Self {
        let mut classes = Classes::default();
        let mut tables: Vec<String> = Vec::new();
        for statement in &analysis.statements {
            classes = classes.union(statement.classes);
            for table in &statement.tables {
                let name = match &table.schema {
                    Some(schema) => format!("{schema}.{}", table.name),
                    None => table.name.clone(),
                };
                if !tables.contains(&name) {
                    tables.push(name);
                }
            }
        }
        let kept = &text[..text.len().min(limits::AUDIT_STATEMENT_BYTES_MAX)];
        Self { text: kept.into(), text_bytes: text.len() as u64, analysis, classes, tables }
    }

    /// May change names, columns or rights that the catalogue tells of.
    pub fn changes_catalogue(&self) -> bool {
        [Class::Create, Class::Alter, Class::Drop, Class::Do, Class::Call]
            .iter()
            .any(|class| self.classes.contains(*class))
    }

    /// Afterwards a name in a statement that this session has prepared may stand for another table than when it was
    /// described. ([`Self::changes_catalogue`]: in every session's.)
    pub fn moves_own_names(&self) -> bool {
        const WHO_AND_WHERE: [&str; 3] = ["search_path", "role", "session_authorization"];
        let set = |statement: &sql::Statement| {
            statement.settings.iter().any(|(name, _)| WHO_AND_WHERE.contains(&name.as_str()))
        };
        self.analysis.statements.iter().any(set)
    }

    /// May end a transaction in which such a statement has run.
    pub fn ends_transaction(&self) -> bool {
        self.classes.contains(Class::Transaction)
    }
}

/// The gate's mark on a statement: meaning and verdict, kept with prepared names and portals.
pub(crate) type Mark = Rc<Marked>;

pub(crate) struct Marked {
    pub meaning: Rc<Meaning>,
    pub decision: Decision,
    /// The snapshot the decision was made from.
    pub version: u64,
    /// What its results may show: decided from the tables it reads.
    pub reads: Reads,
    pub leaning: Leaning,
    pub kept: Kept,
}

impl Marked {
    /// The same statement under another verdict.
    pub fn with(&self, decision: Decision) -> Mark {
        let Self { meaning, version, reads, leaning, .. } = self;
        let (version, reads, leaning) = (*version, *reads, *leaning);
        Rc::new(Self { meaning: meaning.clone(), decision, version, reads, leaning, kept: Kept::default() })
    }
}

/// What was worked out for a mark once and holds for as long as it does.
#[derive(Default)]
pub(crate) struct Kept {
    /// The text as the trail shows it: with what is masked for this principal masked.
    pub text: OnceCell<Box<[u8]>>,
    /// How the columns of its last result were treated.
    pub plan: RefCell<Option<Planned>>,
}

/// A column plan and what it was made from: it serves again for the same columns under the same catalogue.
pub(crate) struct Planned {
    pub columns: SmallVec<[(u32, i16, u32); 8]>,
    /// `None`: no column is masked, so nobody asked.
    pub catalogue: Option<Arc<Catalogue>>,
    pub plan: Option<ColumnPlan>,
}

/// Whether the verdict hangs on which columns the tables of a statement have.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Leaning {
    No,
    /// A mask would refuse it, were it not that the catalogue knows no masked column in its tables.
    Passed,
    /// A mask refuses it, and the catalogue has not been asked.
    Unasked,
}

/// What expression columns (those without a table of their own) of a result may contain.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Reads {
    /// Nothing masked for this principal.
    Open,
    /// Values of a masked table: expression columns are masked whole.
    Masked,
    /// Cannot be told: the same.
    Unknown,
}

/// How the client's texts are encoded, as far as reading them goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Encoding {
    Utf8,
    /// One byte a character: structure is plain ASCII.
    SingleByte,
    /// A trailing byte of a character may look like a quote or backslash: only ASCII texts can be read safely.
    Unsafe,
}

impl Encoding {
    /// From a client_encoding value.
    pub fn named(name: &[u8]) -> Self {
        let name = name.to_ascii_uppercase();
        let starts = |prefix: &[u8]| name.starts_with(prefix);
        if name == b"UTF8" || name == b"UNICODE" {
            Encoding::Utf8
        } else if starts(b"LATIN") || starts(b"WIN") || starts(b"ISO_8859") || starts(b"KOI8") || name == b"SQL_ASCII" {
            Encoding::SingleByte
        } else {
            Encoding::Unsafe
        }
    }
}

/// Two generations of texts: when the young one is full it becomes the old one, and the old one is forgotten.
#[derive(Default)]
struct Cache {
    young: HashMap<Box<[u8]>, Rc<Meaning>>,
    old: HashMap<Box<[u8]>, Rc<Meaning>>,
}

impl Cache {
    fn find(&mut self, text: &[u8]) -> Option<Rc<Meaning>> {
        if let Some(meaning) = self.young.get(text) {
            return Some(meaning.clone());
        }
        let (text, meaning) = self.old.remove_entry(text)?;
        self.keep(text, meaning.clone());
        Some(meaning)
    }

    fn keep(&mut self, text: Box<[u8]>, meaning: Rc<Meaning>) {
        if self.young.len() >= limits::CACHED_TEXTS_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(text, meaning);
    }
}

impl Shared {
    /// What `text` does. Cached under the whole text when it is short and was read under the default settings.
    pub(super) fn meaning(&mut self, text: &[u8], encoding: Encoding, standard_strings: bool) -> Rc<Meaning> {
        let usual = standard_strings && encoding == Encoding::Utf8;
        if usual && let Some(meaning) = self.cache.find(text) {
            return meaning;
        }
        let meaning = Rc::new(Meaning::of(text, read(text, encoding, standard_strings)));
        if usual && text.len() <= limits::CACHED_TEXT_BYTES_MAX {
            self.cache.keep(text.into(), meaning.clone());
        }
        meaning
    }
}

fn read(text: &[u8], encoding: Encoding, standard_strings: bool) -> Analysis {
    match encoding {
        _ if text.is_ascii() => sql::analyse(text, standard_strings),
        Encoding::Utf8 => sql::analyse(text, standard_strings),
        Encoding::SingleByte => {
            let widened: String = text.iter().map(|byte| *byte as char).collect();
            sql::analyse(widened.as_bytes(), standard_strings)
        }
        // A byte that cannot be UTF-8 makes the analysis answer "unparsed".
        Encoding::Unsafe => sql::analyse(b"\xff", standard_strings),
    }
}

/// What a result of these statements may show to the holder of `view`.
pub(super) fn reads(analysis: &Analysis, view: &View) -> Reads {
    if view.column_masks.is_empty() {
        return Reads::Open;
    }
    if analysis.statements.iter().any(|statement| statement.opaque) {
        return Reads::Unknown;
    }
    let masked = analysis
        .statements
        .iter()
        .flat_map(|statement| &statement.tables)
        .any(|table| view.masks_table(table.schema.as_deref(), &table.name));
    if masked { Reads::Masked } else { Reads::Open }
}
