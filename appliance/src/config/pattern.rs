//! Globs over names: targets, users, actors, tables and columns.

/// A name in which `*` stands for any run of characters and `?` for one. Compared character by character, case included.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Glob(String);

impl Glob {
    /// Never empty, no white space around it, no control characters. The error says what would be right.
    pub fn new(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("a name must not be empty; `*` stands for any".into());
        }
        if text.trim() != text || text.chars().any(char::is_control) {
            return Err("a name must not have white space around it or control characters in it".into());
        }
        if text.contains(['[', ']', '{', '}']) {
            return Err("only `*` and `?` are special in a pattern; write alternatives as several entries".into());
        }
        Ok(Self(text.to_owned()))
    }

    /// Matches everything.
    pub fn any() -> Self {
        Self("*".to_owned())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// It is a plain name.
    pub fn is_literal(&self) -> bool {
        !self.0.contains(['*', '?'])
    }

    /// Linear in the product of both lengths at worst: one point to come back to, no recursion.
    pub fn matches(&self, name: &str) -> bool {
        let mut pattern = self.0.chars();
        let mut rest = name.chars();
        let mut retry: Option<(std::str::Chars<'_>, std::str::Chars<'_>)> = None;
        loop {
            match pattern.next() {
                Some('*') => {
                    retry = Some((pattern.clone(), rest.clone()));
                    continue;
                }
                Some(wanted) if rest.next().is_some_and(|found| wanted == '?' || wanted == found) => continue,
                None if rest.as_str().is_empty() => return true,
                Some(_) | None => {}
            }
            let Some((after_star, from)) = &mut retry else { return false };
            if from.next().is_none() {
                return false;
            }
            pattern = after_star.clone();
            rest = from.clone();
        }
    }
}

impl std::fmt::Display for Glob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// `[schema.]table`; no schema: any.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TablePattern {
    pub schema: Option<Glob>,
    pub table: Glob,
}

impl TablePattern {
    pub fn new(text: &str) -> Result<Self, String> {
        match split(text)?.as_slice() {
            [table] => Ok(Self { schema: None, table: table.clone() }),
            [schema, table] => Ok(Self { schema: Some(schema.clone()), table: table.clone() }),
            _ => Err("a table is `table` or `schema.table`, each part a name or a glob".into()),
        }
    }
}

/// `[schema.]table.column`; no schema: any.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ColumnPattern {
    pub schema: Option<Glob>,
    pub table: Glob,
    pub column: Glob,
}

impl ColumnPattern {
    pub fn new(text: &str) -> Result<Self, String> {
        match split(text)?.as_slice() {
            [table, column] => Ok(Self { schema: None, table: table.clone(), column: column.clone() }),
            [schema, table, column] => {
                Ok(Self { schema: Some(schema.clone()), table: table.clone(), column: column.clone() })
            }
            _ => Err("a column is `table.column` or `schema.table.column`, each part a name or a glob".into()),
        }
    }
}

fn split(text: &str) -> Result<Vec<Glob>, String> {
    text.split('.').map(Glob::new).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_as_people_expect() {
        let cases = [
            ("orders", "orders", true),
            ("orders", "order", false),
            ("orders", "orders2", false),
            ("*", "", true),
            ("*", "anything", true),
            ("ord*", "orders", true),
            ("*ers", "orders", true),
            ("o*d*s", "orders", true),
            ("o*x*s", "orders", false),
            ("?rders", "orders", true),
            ("orders?", "orders", false),
            ("a*b*c", "aXbXbXc", true),
            ("*aab", "aaaaab", true),
            ("deploy-bot@2.*", "deploy-bot@2.1", true),
            ("deploy-bot@2.*", "deploy-bot@21", false),
            ("**", "x", true),
            ("é*", "été", true),
            ("Orders", "orders", false),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(Glob::new(pattern).unwrap().matches(name), expected, "{pattern} against {name}");
        }
    }

    #[test]
    fn a_hostile_pattern_stays_cheap() {
        let pattern = Glob::new(&"*a".repeat(200)).unwrap();
        assert!(!pattern.matches(&"a".repeat(150)));
        assert!(!pattern.matches(&("a".repeat(5000) + "b")));
    }

    #[test]
    fn columns_have_two_or_three_parts() {
        let column = ColumnPattern::new("*.ssn").unwrap();
        assert_eq!((column.schema, column.table.as_str(), column.column.as_str()), (None, "*", "ssn"));
        let column = ColumnPattern::new("billing.cards.number").unwrap();
        assert_eq!(column.schema.unwrap().as_str(), "billing");
        assert!(ColumnPattern::new("ssn").is_err());
        assert!(ColumnPattern::new("a.b.c.d").is_err());
        assert!(ColumnPattern::new("a..c").is_err());
    }
}
