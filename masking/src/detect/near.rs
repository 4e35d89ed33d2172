//! An anchor and what stands around it.

use super::Anchor;

pub(super) fn is_digit(byte: u8) -> bool {
    byte.wrapping_sub(b'0') < 10
}

/// What a detector sees: the whole value and one anchor in it.
pub(super) struct Near<'a> {
    pub(super) value: &'a [u8],
    /// The anchor.
    pub(super) start: usize,
    /// One past the run of digits that begins at `start`, or `start + 1` for another anchor.
    pub(super) end: usize,
    /// The end of the last finding: nothing before it may be part of this one.
    pub(super) floor: usize,
}

impl<'a> Near<'a> {
    pub(super) fn new(value: &'a [u8], start: usize, floor: usize) -> Self {
        let run = value[start..].iter().take_while(|byte| is_digit(**byte)).count();
        Self { value, start, end: start + run.max(1), floor }
    }

    pub(super) fn anchor(&self) -> Anchor {
        match self.value[self.start] {
            byte if is_digit(byte) => Anchor::Digits,
            byte => Anchor::Byte(byte),
        }
    }

    /// The byte `back` places before `at`, unless that belongs to an earlier finding.
    pub(super) fn before(&self, at: usize, back: usize) -> Option<u8> {
        let place = at.checked_sub(back)?;
        (place >= self.floor).then(|| self.value[place])
    }

    pub(super) fn after(&self, at: usize) -> Option<u8> {
        self.value.get(at).copied()
    }

    /// Nothing glued to the left of `at`: no letter, digit or underscore; but the letter of an escape (`\n` in JSON or
    /// COPY text) is none.
    pub(super) fn begins_word(&self, at: usize) -> bool {
        match self.before(at, 1) {
            Some(byte) if is_word(byte) => is_escape(byte) && self.before(at, 2) == Some(b'\\'),
            _ => true,
        }
    }

    /// Nothing glued to the right of `at`.
    pub(super) fn ends_word(&self, at: usize) -> bool {
        !self.after(at).is_some_and(is_word)
    }

    /// `at` begins the decimals of a number.
    pub(super) fn is_fraction(&self, at: usize) -> bool {
        self.before(at, 1) == Some(b'.') && self.before(at, 2).is_some_and(is_digit)
    }

    /// A decimal point with digits stands at `at`.
    pub(super) fn has_fraction(&self, at: usize) -> bool {
        self.after(at) == Some(b'.') && self.after(at + 1).is_some_and(is_digit)
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn is_escape(byte: u8) -> bool {
    matches!(byte, b'n' | b't' | b'r' | b'b' | b'f' | b'v')
}

/// Groups of digits with one separator byte between two.
#[derive(Debug, Default)]
pub(super) struct Groups {
    /// Length of each group.
    pub(super) lengths: [u8; Groups::MAX],
    pub(super) count: usize,
    /// Digits of all groups together.
    pub(super) digits: usize,
    /// One past the last digit.
    pub(super) end: usize,
}

impl Groups {
    pub(super) const MAX: usize = 8;

    /// The groups from `start` on, as long as the same separator (one of `separators`, the first met) joins them, and
    /// no more than `digits_max` digits in whole groups.
    pub(super) fn read(value: &[u8], start: usize, separators: &[u8], digits_max: usize) -> Self {
        let mut groups = Groups { end: start, ..Default::default() };
        let (mut at, mut joint) = (start, None);
        while groups.count < Groups::MAX {
            let run = value[at..].iter().take(digits_max + 1).take_while(|byte| is_digit(**byte)).count();
            if run == 0 || groups.digits + run > digits_max {
                break;
            }
            groups.lengths[groups.count] = u8::try_from(run).unwrap_or(u8::MAX);
            groups.count += 1;
            groups.digits += run;
            groups.end = at + run;
            let Some(next) = value.get(groups.end).copied() else { break };
            if !separators.contains(&next) || joint.is_some_and(|joint| joint != next) {
                break;
            }
            joint = Some(next);
            at = groups.end + 1;
        }
        groups
    }

    pub(super) fn lengths(&self) -> &[u8] {
        &self.lengths[..self.count]
    }
}
