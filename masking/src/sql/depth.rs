//! How deeply a text could nest, from its tokens alone, before a parser sees it.
//!
//! The parser's own stack use is bounded by PostgreSQL's check, but decoding, walking and dropping the tree take up to
//! 5 KiB of stack for each unit of [`bound`] (measured over chains of operators, subqueries, CTEs, JSON constructors and
//! CASE, on x86-64). So texts within [`INLINE_MAX`] are analysed where they are asked for, deeper ones on a thread with
//! a stack to match, and none beyond [`DEEP_MAX`].

use pg_query::protobuf::{ScanToken, Token};

/// Needs at most half a MiB of the caller's stack. Almost all statements of applications are below 50.
const INLINE_MAX: usize = 100;

/// Beyond it a text is refused.
const DEEP_MAX: usize = 8_000;

const DEEP_STACK_BYTES: usize = 64 << 20;
const _: () = assert!(DEEP_STACK_BYTES / DEEP_MAX >= 8 << 10);

/// Runs `work` with stack enough for a text of that bound; `None` when it is too deep.
pub(super) fn with_stack<T: Send>(bound: usize, work: impl FnOnce() -> T + Send) -> Option<T> {
    if bound <= INLINE_MAX {
        return Some(work());
    }
    if bound > DEEP_MAX {
        return None;
    }
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(DEEP_STACK_BYTES).spawn_scoped(scope, work).ok()?;
        thread.join().ok()
    })
}

/// A bracket, or a CASE up to its END.
#[derive(Default)]
struct Group {
    is_case: bool,
    /// Tokens of the item being read, and of the longest one. Items are what commas, AND and OR separate: a chain of
    /// operators, which nests to one side, lies within one.
    item: usize,
    longest: usize,
    /// Joins and set operations, which nest to one side across items.
    chain: usize,
    /// The deepest group inside.
    inner: usize,
}

impl Group {
    fn end_item(&mut self) {
        self.longest = self.longest.max(self.item);
        self.item = 0;
    }

    fn depth(&self) -> usize {
        1 + self.longest.max(self.item) + self.chain + self.inner
    }
}

/// An upper bound, up to a constant factor, of the depth of the tree that these tokens can make.
pub(super) fn bound(tokens: &[ScanToken]) -> usize {
    let mut groups = vec![Group::default()];
    let mut deepest = 0;
    let mut previous = Token::Nul;
    for token in tokens {
        let token = Token::try_from(token.token).unwrap_or(Token::Nul);
        let top = groups.last_mut().expect("the outermost group is never closed");
        match token {
            Token::SqlComment | Token::CComment => continue,
            // `t.end` and `AS end` are names.
            _ if previous == Token::Ascii46 => top.item += 1,
            Token::Case | Token::EndP | Token::And | Token::Or if previous == Token::As => top.item += 1,
            Token::Ascii40 | Token::Ascii91 => {
                top.item += 1;
                groups.push(Group::default());
            }
            Token::Case => {
                top.item += 1;
                groups.push(Group { is_case: true, ..Default::default() });
            }
            Token::EndP if top.is_case => close(&mut groups),
            Token::Ascii41 | Token::Ascii93 => {
                while groups.len() > 1 && groups.last().is_some_and(|group| group.is_case) {
                    close(&mut groups);
                }
                close(&mut groups);
            }
            Token::Ascii44 | Token::And | Token::Or | Token::When | Token::Then | Token::Else => {
                top.item += 1;
                top.end_item();
            }
            Token::Join | Token::Union | Token::Intersect | Token::Except => {
                top.chain += 2;
                top.end_item();
            }
            Token::Ascii59 => {
                while groups.len() > 1 {
                    close(&mut groups);
                }
                deepest = deepest.max(groups[0].depth());
                groups[0] = Group::default();
            }
            _ => top.item += 1,
        }
        previous = token;
    }
    while groups.len() > 1 {
        close(&mut groups);
    }
    deepest.max(groups[0].depth())
}

fn close(groups: &mut Vec<Group>) {
    if groups.len() > 1 {
        let depth = groups.pop().map_or(0, |group| group.depth());
        let outer = groups.last_mut().expect("more than one before");
        outer.inner = outer.inner.max(depth);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound_of(text: &str) -> usize {
        bound(&pg_query::scan_tokens(text).expect("scans"))
    }

    #[test]
    fn long_lists_are_shallow_and_chains_are_deep() {
        assert!(bound_of(&format!("INSERT INTO t VALUES (1){}", ", (2, 'x')".repeat(1000))) < 20);
        assert!(bound_of(&format!("SELECT * FROM t WHERE a = 1{}", " AND b = 2".repeat(1000))) < 20);
        assert!(bound_of(&"SELECT 1;".repeat(1000)) < 20);
        assert!(bound_of(&format!("SELECT a{}", ", CASE WHEN a THEN b END".repeat(1000))) < 20);
        for deep in [" + 1", " UNION SELECT 1", "::int", " COLLATE c", "[1]", " IS NULL"] {
            assert!(bound_of(&format!("SELECT 1{}", deep.repeat(1000))) > 1000, "{deep}");
        }
        for deep in [
            "(",
            "CASE WHEN ",
            "NOT ",
            "f(",
            "(SELECT ",
            "CASE WHEN t.end AND ",
            "(SELECT 1 AS end, ",
            "[",
            "CASE t.case WHEN ",
        ] {
            assert!(bound_of(&format!("SELECT {}1", deep.repeat(1000))) > 1000, "{deep}");
        }
    }

    #[test]
    fn too_deep_is_refused_and_deep_gets_a_stack() {
        assert_eq!(with_stack(DEEP_MAX + 1, || 1), None);
        assert_eq!(with_stack(DEEP_MAX, || 1), Some(1));
        assert_eq!(with_stack(1, || 1), Some(1));
    }
}
