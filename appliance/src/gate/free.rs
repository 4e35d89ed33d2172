//! Outputs of a statement over masked tables that provably show nothing masked: `count(*)`, `upper(name)`.

use crate::policy::View;
use crate::shard::mailbox::{Catalogue, CatalogueTable};
use masking::sql::{Analysis, Inputs, Name, Read, Source};

/// For each output column, whether it is made of columns alone that no mask concerns. `None`: nothing can be told of any.
pub(super) fn outputs(analysis: &Analysis, view: &View, catalogue: &Catalogue) -> Option<Vec<bool>> {
    let [statement] = &analysis.statements[..] else { return None };
    let judge = Judge { inputs: statement.inputs.as_ref()?, view, catalogue };
    // How many rows share a masked value, in the order of that value, tells of the value.
    judge.is_free(&judge.inputs.grouping).then(|| judge.inputs.outputs.iter().map(|read| judge.is_free(read)).collect())
}

struct Judge<'a> {
    inputs: &'a Inputs,
    view: &'a View,
    catalogue: &'a Catalogue,
}

impl<'a> Judge<'a> {
    fn is_free(&self, read: &Read) -> bool {
        match read {
            Read::Anything => false,
            Read::Columns(names) => names.iter().all(|name| self.is_known(name) && !self.is_masked(name)),
        }
    }

    /// By its name in any of the tables: which one it belongs to is the server's to say.
    fn is_masked(&self, name: &Name) -> bool {
        let masked =
            |schema: &str, source: &Source| self.view.column_style(schema, &source.table, &name.column).is_some();
        self.inputs.sources.iter().any(|source| {
            source.schema.as_deref().is_some_and(|schema| masked(schema, source))
                || self.tables(source).any(|table| masked(&table.schema, source))
        })
    }

    /// It is a column. Of a table without that column, `t.f` would be the function `f` of the whole row.
    fn is_known(&self, name: &Name) -> bool {
        let has = |table: &CatalogueTable| table.columns.values().any(|column| *column == name.column);
        let every = |source: &Source| self.tables(source).next().is_some() && self.tables(source).all(has);
        match &name.of {
            None if name.or_output => true,
            None => self.inputs.sources.iter().any(|source| self.tables(source).any(has)),
            Some(called) => {
                let mut named = self.inputs.sources.iter().filter(|source| source.called == *called).peekable();
                named.peek().is_some() && named.all(every)
            }
        }
    }

    /// The tables that a name in FROM may stand for: without a schema, those of that name in all of them.
    fn tables(&self, source: &'a Source) -> impl Iterator<Item = &'a CatalogueTable> {
        self.catalogue.tables.values().filter(move |table| {
            table.name == source.table && source.schema.as_ref().is_none_or(|schema| *schema == table.schema)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ColumnPattern, Glob, Grant, Mask, Who};
    use crate::identity::Principal;
    use crate::policy::Policy;
    use masking::style::Style;
    use std::collections::HashMap;

    fn glob(text: &str) -> Glob {
        Glob::new(text).expect("a glob")
    }

    fn view(columns: &[(&str, &str)]) -> View {
        let pattern =
            |(table, column): &(&str, &str)| ColumnPattern { schema: None, table: glob(table), column: glob(column) };
        let mask = Mask {
            targets: vec![glob("*")],
            who: Who::default(),
            columns: columns.iter().map(pattern).collect(),
            detect: Vec::new(),
            style: Style::Fill,
        };
        let grant = Grant {
            name: "all".into(),
            targets: vec![glob("*")],
            who: Who::default(),
            max_session: None,
            connection_limit: None,
            approval: None,
            replication: false,
        };
        let ann = Principal {
            user: "ann".into(),
            subject: "ann".into(),
            issuer: "i".into(),
            groups: Vec::new(),
            actor: Vec::new(),
        };
        Policy::from_parts(&[grant], &[], &[mask]).view("shop", &ann).expect("granted")
    }

    fn catalogue(tables: &[(&str, &str, &[&str])]) -> Catalogue {
        let table = |(schema, name, columns): &(&str, &str, &[&str])| CatalogueTable {
            schema: schema.to_string(),
            name: name.to_string(),
            columns: (1..).zip(columns.iter().map(|column| column.to_string())).collect(),
        };
        Catalogue { tables: (1..).zip(tables.iter().map(table)).collect::<HashMap<_, _>>() }
    }

    /// `x`: free, `-`: masked, for each output; empty: nothing can be told.
    fn told(text: &str) -> String {
        let masks = view(&[("customers", "ssn"), ("*", "secret")]);
        let tables = catalogue(&[
            ("public", "customers", &["id", "name", "ssn"]),
            ("public", "orders", &["id", "item", "row_to_json", "customer"]),
            ("other", "vault", &["id", "secret"]),
            ("other", "orders", &["id", "item", "customer"]),
        ]);
        let analysis = masking::sql::analyse(text.as_bytes(), true);
        let free = outputs(&analysis, &masks, &tables).unwrap_or_default();
        free.iter().map(|free| if *free { 'x' } else { '-' }).collect()
    }

    #[test]
    fn outputs_that_read_no_masked_column_are_free() {
        for (text, expected) in [
            ("SELECT count(*), upper(name) FROM customers", "xx"),
            ("SELECT count(ssn), max(c.ssn), count(*) FROM customers c", "--x"),
            ("SELECT name, count(*) FROM customers GROUP BY name", "xx"),
            ("SELECT count(*) FROM customers GROUP BY ssn ORDER BY ssn", ""),
            ("SELECT ssn, count(*) FROM customers GROUP BY 1", ""),
            ("SELECT upper(name) AS ssn, count(*) FROM customers GROUP BY ssn", ""),
            ("SELECT count(*) OVER (ORDER BY ssn), upper(name) FROM customers", "-x"),
            ("SELECT count(*) FILTER (WHERE ssn LIKE '0%') FROM customers", "-"),
            ("SELECT upper(name), upper(item) FROM customers JOIN orders o ON o.customer = customers.id", "xx"),
            // Which table it belongs to is not looked at.
            ("SELECT upper(ssn) FROM orders NATURAL JOIN customers", "-"),
            ("SELECT length(secret) FROM vault, customers", "-"),
        ] {
            assert_eq!(told(text), expected, "{text}");
        }
    }

    #[test]
    fn a_name_that_is_no_column_may_be_a_function_of_the_row() {
        for (text, expected) in [
            ("SELECT upper(c.fullname) FROM customers c", "-"),
            ("SELECT upper(c.row_to_json) FROM customers c, orders", "-"),
            // One of the tables called so has no such column.
            ("SELECT upper(o.row_to_json) FROM orders o, customers", "-"),
            ("SELECT upper(o.row_to_json) FROM public.orders o, customers", "x"),
            ("SELECT upper(x.name) FROM customers c", "-"),
            ("SELECT upper(nothing) FROM customers", "-"),
            ("SELECT count(*), upper(name) FROM unknown, customers", "xx"),
            ("SELECT count(*); SELECT ssn FROM customers", ""),
        ] {
            assert_eq!(told(text), expected, "{text}");
        }
    }
}
