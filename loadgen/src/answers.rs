//! Whether endpoints answer alike: one that returns less, or something else, only looks faster.

use crate::check::{Level, Tally};
use crate::run::{self, Settings};
use anyhow::Result;

/// How an endpoint's first answer differs from the first endpoint's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Unlike {
    /// Other numbers of rows or columns: other work, so nothing follows from a comparison.
    Rows(String),
    /// Other bytes, as from a gateway that masks: it may well be meant.
    Content(String),
}

impl Unlike {
    pub fn name(&self) -> &'static str {
        match self {
            Unlike::Rows(_) => "rows",
            Unlike::Content(_) => "content",
        }
    }

    pub fn detail(&self) -> &str {
        match self {
            Unlike::Rows(detail) | Unlike::Content(detail) => detail,
        }
    }
}

/// What a target answers to each statement, and how closely that is looked at. Variables have the same values for all targets.
#[derive(Clone, Debug)]
pub struct Answer {
    pub tallies: Vec<Tally>,
    pub levels: Vec<Level>,
}

pub fn ask(settings: &Settings) -> Result<Answer> {
    let (plan, _) = run::prepare(settings)?;
    Ok(Answer { tallies: plan.first, levels: plan.levels })
}

impl Answer {
    /// The worst difference there is.
    pub fn unlike(&self, first: &Answer) -> Option<Unlike> {
        let statements = || self.tallies.iter().zip(&first.tallies).zip(&self.levels).enumerate();
        let shape = |tally: &Tally| (tally.rows, tally.columns);
        let rows = statements().find(|(_, ((own, first), level))| **level != Level::None && shape(own) != shape(first));
        if let Some((index, ((own, first), _))) = rows {
            let (own, first) = (shape_in_words(own), shape_in_words(first));
            return Some(Unlike::Rows(format!("statement {} returns {own} instead of {first}", index + 1)));
        }
        let bytes = |tally: &Tally| (tally.hash, tally.bytes);
        statements().find(|(_, ((own, first), level))| **level == Level::Same && bytes(own) != bytes(first)).map(
            |(index, _)| Unlike::Content(format!("statement {} returns as many rows with other content", index + 1)),
        )
    }
}

fn shape_in_words(tally: &Tally) -> String {
    match tally.columns {
        0 => format!("{} rows", tally.rows),
        columns => format!("{} rows of {columns} columns", tally.rows),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_compared_as_closely_as_the_check_allows() {
        let answer = |rows, hash, level| Answer {
            tallies: vec![Tally { rows, hash, columns: 1, ..Tally::default() }],
            levels: vec![level],
        };
        let check = |level, rows, hash, found: Option<&str>| {
            let unlike = answer(rows, hash, level).unlike(&answer(5, 7, level));
            assert_eq!(unlike.as_ref().map(Unlike::name), found, "{level:?} {rows} {hash}: {unlike:?}");
        };
        check(Level::Same, 5, 7, None);
        check(Level::Same, 5, 8, Some("content"));
        check(Level::Same, 4, 8, Some("rows"));
        check(Level::Rows, 5, 8, None);
        check(Level::Rows, 4, 8, Some("rows"));
        check(Level::None, 4, 8, None);
    }
}
