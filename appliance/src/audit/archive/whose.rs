//! Who, as numbers in the columns of a row group: a session's texts are looked up once a frame instead of once a record.

use super::columns::ColumnChunk;
use super::schema::Column;
use crate::audit::record::ArchivedWhoRow;
use hashbrown::HashMap;
use std::collections::BTreeMap;

/// Where a who stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WhoPlace {
    pub shard: u32,
    /// Tells the frame from every other one that was ever read.
    pub frame: u64,
    /// In the frame's payload.
    pub at: usize,
}

/// The columns that have one text of each who.
pub fn texts(who: &ArchivedWhoRow) -> [(Column, &str); 6] {
    [
        (Column::Session, who.session()),
        (Column::User, who.user()),
        (Column::Target, who.target()),
        (Column::Client, who.client()),
        (Column::Application, who.application()),
        (Column::ClaimedUser, who.claimed_user()),
    ]
}

/// What the columns of a row group know, of each shard what the frame has that its records come from.
#[derive(Default)]
pub struct Whose {
    shards: BTreeMap<u32, (u64, Frame)>,
}

/// By where it stands in the payload.
type Frame = HashMap<usize, Numbers, ahash::RandomState>;

/// Of its texts, in their columns.
pub struct Numbers {
    texts: [(Column, u32); 6],
    lists: [(Column, Box<[u32]>); 2],
    /// What it took when it was written as texts.
    pub bytes: usize,
}

impl Whose {
    pub fn get(&self, place: WhoPlace) -> Option<&Numbers> {
        let (frame, whos) = self.shards.get(&place.shard)?;
        if *frame == place.frame { whos.get(&place.at) } else { None }
    }

    /// The columns have got its texts, which have `bytes`.
    pub fn learn(&mut self, place: WhoPlace, who: &ArchivedWhoRow, bytes: usize, columns: &mut [ColumnChunk]) {
        let Some(numbers) = Numbers::of(who, bytes, columns) else { return };
        let (frame, whos) = self.shards.entry(place.shard).or_default();
        if *frame != place.frame {
            *frame = place.frame;
            whos.clear();
        }
        whos.insert(place.at, numbers);
    }

    /// The columns of another row group know nothing yet.
    pub fn forget(&mut self) {
        self.shards.clear();
    }
}

impl Numbers {
    /// `None`: a column has got it without a number.
    fn of(who: &ArchivedWhoRow, bytes: usize, columns: &mut [ColumnChunk]) -> Option<Self> {
        let mut number = |column: Column, text: &str| columns[column as usize].number(text);
        let mut numbered = [(Column::Session, 0); 6];
        for (slot, (column, text)) in numbered.iter_mut().zip(texts(who)) {
            *slot = (column, number(column, text)?);
        }
        let groups = who.groups().map(|text| number(Column::Groups, text)).collect::<Option<_>>()?;
        let actor = who.actor().map(|text| number(Column::Actor, text)).collect::<Option<_>>()?;
        Some(Self { texts: numbered, lists: [(Column::Groups, groups), (Column::Actor, actor)], bytes })
    }

    /// Writes it into row `row`. `true`: a column's page is full.
    pub fn push(&self, row: usize, columns: &mut [ColumnChunk]) -> bool {
        let mut is_full = false;
        for &(column, number) in &self.texts {
            let chunk = &mut columns[column as usize];
            chunk.text_again(row, number);
            is_full |= chunk.is_full();
        }
        for (column, numbers) in &self.lists {
            let chunk = &mut columns[*column as usize];
            chunk.list_again(row, numbers);
            is_full |= chunk.is_full();
        }
        is_full
    }
}
