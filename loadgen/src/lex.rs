//! Just enough of SQL's surface to know what is code: quotes, dollar quotes and comments hide semicolons and variables.

/// A stretch of SQL text. All of them in a row are the text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stretch<'a> {
    Code(&'a str),
    /// A constant or a quoted name, with its quotes.
    Quoted(&'a str),
    Comment(&'a str),
}

impl<'a> Stretch<'a> {
    pub fn text(self) -> &'a str {
        match self {
            Stretch::Code(text) | Stretch::Quoted(text) | Stretch::Comment(text) => text,
        }
    }
}

/// Takes the text apart. What is never closed goes on to the end.
pub fn stretches(sql: &str) -> Vec<Stretch<'_>> {
    let mut found = Vec::new();
    let mut code = 0;
    let mut at = 0;
    while at < sql.len() {
        let Some(hidden) = hidden(&sql[code..at], &sql[at..]) else {
            at += sql[at..].chars().next().map_or(1, char::len_utf8);
            continue;
        };
        if code < at {
            found.push(Stretch::Code(&sql[code..at]));
        }
        found.push(hidden);
        at += hidden.text().len();
        code = at;
    }
    if code < at {
        found.push(Stretch::Code(&sql[code..]));
    }
    found
}

/// What begins here and is no code. `before`: the code right before it.
fn hidden<'a>(before: &str, rest: &'a str) -> Option<Stretch<'a>> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let end = match rest.as_bytes()[0] {
        b'\'' => {
            let escapes = before.ends_with(['e', 'E']) && !before[..before.len() - 1].ends_with(is_word);
            quote_end(rest, '\'', escapes)
        }
        b'"' => quote_end(rest, '"', false),
        b'-' if rest.starts_with("--") => {
            return Some(Stretch::Comment(&rest[..rest.find('\n').unwrap_or(rest.len())]));
        }
        b'/' if rest.starts_with("/*") => return Some(Stretch::Comment(&rest[..comment_end(rest)])),
        // Not within a name, nor a parameter like $1.
        b'$' if !before.ends_with(is_word) => {
            let tag = rest[1..].find('$').map(|at| &rest[..at + 2])?;
            let name = &tag[1..tag.len() - 1];
            if !name.chars().all(is_word) || name.starts_with(|c: char| c.is_ascii_digit()) {
                return None;
            }
            rest[tag.len()..].find(tag).map_or(rest.len(), |at| at + 2 * tag.len())
        }
        _ => return None,
    };
    Some(Stretch::Quoted(&rest[..end]))
}

/// A doubled quote ends one stretch and begins the next, which comes to the same.
fn quote_end(rest: &str, quote: char, escapes: bool) -> usize {
    let mut escaped = false;
    for (at, character) in rest.char_indices().skip(1) {
        if escaped {
            escaped = false;
        } else if escapes && character == '\\' {
            escaped = true;
        } else if character == quote {
            return at + 1;
        }
    }
    rest.len()
}

/// Comments of this kind nest.
fn comment_end(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        let tail = &rest.as_bytes()[at..];
        if tail.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if tail.starts_with(b"*/") {
            depth -= 1;
            at += 2;
        } else {
            at += 1;
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_comments_are_told_from_code() {
        let check = |sql: &str, code: &[&str]| {
            let found = stretches(sql);
            assert_eq!(found.iter().map(|stretch| stretch.text()).collect::<String>(), sql);
            let is_code = |stretch: &Stretch<'_>| match stretch {
                Stretch::Code(text) => Some(text.to_string()),
                Stretch::Quoted(_) | Stretch::Comment(_) => None,
            };
            assert_eq!(found.iter().filter_map(is_code).collect::<Vec<_>>(), code, "{sql}");
        };
        check("a 'b;' c", &["a ", " c"]);
        check("a 'it''s' b", &["a ", " b"]);
        check("a E'it\\'s;' b", &["a E", " b"]);
        check("me'it\\' b", &["me", " b"]);
        check("a \"b;\" c -- it's\nd", &["a ", " c ", "\nd"]);
        check("a /* b /* c */ ; */ d", &["a ", " d"]);
        check("a $$b;$$ c $x$ d $$ $x$ e", &["a ", " c ", " e"]);
        check("a $1 b$c$ d", &["a $1 b$c$ d"]);
        check("a 'b", &["a "]);
        check("\u{e4} -- \u{f6}", &["\u{e4} "]);
    }
}
