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

/// Takes the text apart as far as it is asked to. What is never closed goes on to the end; code ends behind each semicolon, so that
/// whoever looks for the next one need not see all that follows.
pub fn stretches(sql: &str) -> Stretches<'_> {
    Stretches { rest: sql, hidden: None }
}

#[derive(Clone, Debug)]
pub struct Stretches<'a> {
    rest: &'a str,
    /// What `rest` begins with, where that is known.
    hidden: Option<Stretch<'a>>,
}

impl<'a> Iterator for Stretches<'a> {
    type Item = Stretch<'a>;

    fn next(&mut self) -> Option<Stretch<'a>> {
        let found = self.hidden.take().or_else(|| self.code())?;
        self.rest = &self.rest[found.text().len()..];
        Some(found)
    }
}

impl<'a> Stretches<'a> {
    /// Code up to a semicolon or what is none; what is none, if that comes first.
    fn code(&mut self) -> Option<Stretch<'a>> {
        let mut at = 0;
        while let Some(character) = self.rest[at..].chars().next() {
            match hidden(&self.rest[..at], &self.rest[at..]) {
                Some(hidden) if at == 0 => return Some(hidden),
                Some(hidden) => {
                    self.hidden = Some(hidden);
                    break;
                }
                None => at += character.len_utf8(),
            }
            if character == ';' {
                break;
            }
        }
        (at > 0).then(|| Stretch::Code(&self.rest[..at]))
    }
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
            let found: Vec<Stretch<'_>> = stretches(sql).collect();
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
        check("a; b;E'\\';' c;", &["a;", " b;", "E", " c;"]);
        check("", &[]);
    }
}
