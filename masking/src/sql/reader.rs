//! Walks one statement's tree and writes down what it does. Every node is visited; kinds that mean something of their own
//! have an arm in [`Reader::visit`], all others only lead to their children.

use super::alike::turns_quotes;
use super::children::children;
use super::kinds::{class_of, listed, more_classes, strings, written};
use super::otherwise::{Otherwise, with_setting_off};
use super::{Class, Named, Statement, Table, body, condition, later, session, words};
use pg_query::NodeRef;
use pg_query::protobuf as pg;
use std::collections::HashMap;

/// Texts within texts (a function that creates a function ...) are followed this deep; beyond, they count as dynamic.
pub(super) const NESTED_TEXTS_MAX: u8 = 4;

/// What a text that cannot be seen could be: the classes that rules are written against.
#[rustfmt::skip]
pub(super) const DYNAMIC: [Class; 14] = {
    use Class::*;
    [Select, Insert, Update, Delete, Merge, Truncate, Create, Alter, Drop, Grant, Revoke, CopyIn, CopyOut, CopyProgram]
};

pub(super) struct Reader<'t> {
    pub(super) statement: Statement,
    pub(super) words: Vec<String>,
    /// The statement's own text, for PL/pgSQL's parser, which takes no tree.
    pub(super) source: &'t str,
    /// How many texts this one stands in.
    depth: u8,
    /// CTE names in scope, and how often each is.
    ctes: HashMap<&'t str, u32>,
    /// Relations read so far; compared before and after a part to learn whether that part reads.
    reads: u64,
    /// Uses of what a WITH clause holds, counted likewise: they name no relation, but what they read goes on.
    handed_on: u64,
    /// The relation that is being made: named, not read.
    made: Option<&'t pg::RangeVar>,
    /// The statement makes or changes objects: what its expressions read stays in them.
    defining: bool,
}

impl<'t> Reader<'t> {
    pub(super) fn new(source: &'t str, depth: u8) -> Self {
        let (statement, words) = Default::default();
        Self {
            statement,
            words,
            source,
            depth,
            ctes: HashMap::new(),
            reads: 0,
            handed_on: 0,
            made: None,
            defining: false,
        }
    }

    /// Reads a whole statement.
    pub(super) fn statement(&mut self, node: NodeRef<'t>) {
        self.visit(node);
        if matches!(node, NodeRef::ExplainStmt(_)) {
            // It shows the plan of a DECLARE and declares nothing.
            (self.statement.defines, self.statement.forgets) = (None, None);
        }
        if self.statement.classes.is_empty() {
            self.add(Class::Other);
        }
        self.statement.expression_columns = super::outputs::of(node);
        self.statement.inputs = super::inputs::of(node);
        self.statement.reads = self.reads > 0;
        merge(&mut self.statement.tables);
    }

    pub(super) fn visit(&mut self, node: NodeRef<'t>) {
        if let Some(class) = class_of(node) {
            self.defining |= matches!(class, Class::Create | Class::Alter);
            self.add(class);
        }
        more_classes(node, &mut |class| self.statement.classes.insert(class));
        self.statement.reach.note(node);
        self.statement.runs_later |= later::runs_later(node);
        self.made = made(node).or(self.made);
        let uses = uses_what_it_writes(node);
        written(node, &mut |relation| self.note(&relation.schemaname, &relation.relname, true, uses));
        listed(node, &mut |parts, changed| self.note_listed(parts, changed));
        match node {
            NodeRef::RangeVar(relation) => self.read(relation),
            NodeRef::InsertStmt(s) => self.insert(node, s),
            NodeRef::UpdateStmt(s) => self.update(node, s),
            NodeRef::DeleteStmt(s) => self.delete(node, s),
            NodeRef::MergeStmt(s) => self.merge_into(node, s),
            NodeRef::SelectStmt(s) => self.select(node, s),
            NodeRef::CopyStmt(s) => self.copy(node, s),
            NodeRef::CreateFunctionStmt(s) => self.create_function(node, s),
            NodeRef::DefineStmt(s) => {
                if session::hides_functions(s) {
                    self.statement.keeps = true;
                    self.dynamic();
                }
                self.rest(node, None);
            }
            NodeRef::DoStmt(s) => body::block(self, s),
            NodeRef::FuncCall(s) => {
                let before = self.reads;
                session::call(self, s);
                body::text_runner(self, s);
                self.statement.stores |= self.defining && self.reads != before;
                self.rest(node, None);
            }
            // The values behind EXECUTE's name go wherever its statement puts them.
            NodeRef::ExecuteStmt(s) => self.storing(|reader| {
                reader.statement.uses = Some(Named::Prepared(s.name.clone()));
                reader.rest(node, None);
            }),
            // From then on a rule or a trigger sees the rows of its table, a rule also what its statements return.
            NodeRef::RuleStmt(s) => {
                self.rest(node, s.relation.as_ref());
                self.statement.stores = true;
                self.statement.tables.iter_mut().for_each(|table| table.read = true);
            }
            NodeRef::CreateTrigStmt(_) => {
                self.statement.stores = true;
                self.rest(node, None);
            }
            NodeRef::CreatePolicyStmt(s) => self.policy(node, s.table.as_ref()),
            NodeRef::AlterPolicyStmt(s) => self.policy(node, s.table.as_ref()),
            // What is read under that name stands on another server, which may be this one.
            NodeRef::CreateForeignTableStmt(_)
            | NodeRef::ImportForeignSchemaStmt(_)
            | NodeRef::AlterFdwStmt(_)
            | NodeRef::AlterForeignServerStmt(_)
            | NodeRef::CreateUserMappingStmt(_)
            | NodeRef::AlterUserMappingStmt(_) => self.elsewhere(node),
            NodeRef::AlterTableCmd(s) if session::points_elsewhere(s) => self.elsewhere(node),
            _ => {
                self.particulars(node);
                self.rest(node, None);
            }
        }
    }

    /// What a statement names, sets or stores beyond its class.
    fn particulars(&mut self, node: NodeRef<'t>) {
        let statement = &mut self.statement;
        match node {
            NodeRef::VariableSetStmt(s) => session::set(statement, s),
            NodeRef::DiscardStmt(s) => session::discard(statement, s),
            NodeRef::PrepareStmt(s) => statement.defines = Some(Named::Prepared(s.name.clone())),
            NodeRef::DeclareCursorStmt(s) => statement.defines = Some(Named::Cursor(s.portalname.clone())),
            NodeRef::FetchStmt(s) => statement.uses = Some(Named::Cursor(s.portalname.clone())),
            NodeRef::DeallocateStmt(s) => statement.forgets = Some((!s.isall).then(|| s.name.clone())),
            NodeRef::ClosePortalStmt(s) => {
                statement.forgets = Some((!s.portalname.is_empty()).then(|| s.portalname.clone()));
            }
            NodeRef::IntoClause(_) | NodeRef::ViewStmt(_) | NodeRef::CreateTableAsStmt(_) => statement.stores = true,
            // Under another name or parent the same rows are no longer found by a mask's column name.
            NodeRef::RenameStmt(s) => {
                statement.stores |= s.relation.is_some() || s.rename_type() == pg::ObjectType::ObjectSchema;
                // Tables of the type, and those that inherit, follow.
                if matches!(s.rename_type(), pg::ObjectType::ObjectAttribute | pg::ObjectType::ObjectColumn) {
                    statement.renames.push(s.subname.clone());
                }
            }
            NodeRef::AlterTableCmd(s) => statement.stores |= session::derives(s),
            NodeRef::AlterObjectSchemaStmt(s) => statement.stores |= s.relation.is_some(),
            _ => {}
        }
    }

    /// Visits the children, leaving out the WITH clause (see [`Self::with`]) and the target, which is not read. The bare
    /// VALUES of an INSERT, which the grammar dresses as a SELECT, is not one.
    /// A SET inside another statement (CREATE FUNCTION, ALTER ROLE) is not this session's, but the search_path under which something runs
    /// later is told.
    fn rest(&mut self, node: NodeRef<'t>, target: Option<&pg::RangeVar>) {
        children(node, &mut |child| match child {
            NodeRef::WithClause(_) => {}
            NodeRef::VariableSetStmt(s) => session::set_path(&mut self.statement, s),
            NodeRef::RangeVar(relation) if target.is_some_and(|target| std::ptr::eq(target, relation)) => {}
            NodeRef::SelectStmt(s) if target.is_some() && !s.values_lists.is_empty() => self.select(child, s),
            _ => self.visit(child),
        });
    }

    /// Visits a WITH clause, then `inside` with its names in scope. Without RECURSIVE a query sees only the names before
    /// its own: in `WITH t AS (SELECT * FROM t)` the inner `t` is the table.
    fn with(&mut self, with: Option<&'t pg::WithClause>, inside: impl FnOnce(&mut Self)) {
        let Some(with) = with else { return inside(self) };
        let names: Vec<&'t str> = with.ctes.iter().filter_map(cte_name).collect();
        if with.recursive {
            names.iter().for_each(|name| *self.ctes.entry(name).or_default() += 1);
        }
        for (query, name) in with.ctes.iter().filter_map(|cte| cte.node.as_ref()).zip(&names) {
            self.visit(query.to_ref());
            self.hands_on(query.to_ref());
            if !with.recursive {
                *self.ctes.entry(name).or_default() += 1;
            }
        }
        inside(self);
        for name in names {
            *self.ctes.get_mut(name).expect("entered above") -= 1;
        }
    }

    /// What a statement in a WITH clause returns, the statement around it reads: `WITH d AS (UPDATE t ... RETURNING ssn)
    /// INSERT INTO u SELECT ssn FROM d`.
    fn hands_on(&mut self, query: NodeRef<'t>) {
        let NodeRef::CommonTableExpr(cte) = query else { return };
        let Some(inner) = cte.ctequery.as_ref().and_then(|inner| inner.node.as_ref()) else { return };
        let (returns, relation) = match inner.to_ref() {
            NodeRef::InsertStmt(s) => (s.returning_clause.is_some(), &s.relation),
            NodeRef::UpdateStmt(s) => (s.returning_clause.is_some(), &s.relation),
            NodeRef::DeleteStmt(s) => (s.returning_clause.is_some(), &s.relation),
            NodeRef::MergeStmt(s) => (s.returning_clause.is_some(), &s.relation),
            _ => return,
        };
        if let (true, Some(relation)) = (returns, relation) {
            self.handed_on += 1;
            self.note(&relation.schemaname, &relation.relname, true, true);
        }
    }

    fn select(&mut self, node: NodeRef<'t>, s: &'t pg::SelectStmt) {
        self.with(s.with_clause.as_ref(), |reader| reader.rest(node, None));
    }

    fn insert(&mut self, node: NodeRef<'t>, s: &'t pg::InsertStmt) {
        self.storing(|reader| {
            reader.with(s.with_clause.as_ref(), |reader| reader.rest(node, s.relation.as_ref()));
            if let Some(conflict) = &s.on_conflict_clause {
                reader.statement.stores |= session::moves_columns(&conflict.target_list, &["excluded"]);
            }
        });
    }

    fn update(&mut self, node: NodeRef<'t>, s: &'t pg::UpdateStmt) {
        self.statement.missing_where |= condition::missing(s.where_clause.as_deref(), s.relation.as_ref());
        self.statement.stores |= !s.from_clause.is_empty() || session::moves_columns(&s.target_list, &[]);
        let named = s.relation.as_ref().is_some_and(|relation| relation.relname == "pg_settings");
        if named {
            session::anything(&mut self.statement);
        }
        self.storing(|reader| reader.with(s.with_clause.as_ref(), |reader| reader.rest(node, s.relation.as_ref())));
    }

    fn delete(&mut self, node: NodeRef<'t>, s: &'t pg::DeleteStmt) {
        self.statement.missing_where |= condition::missing(s.where_clause.as_deref(), s.relation.as_ref());
        self.with(s.with_clause.as_ref(), |reader| reader.rest(node, s.relation.as_ref()));
    }

    fn merge_into(&mut self, node: NodeRef<'t>, s: &'t pg::MergeStmt) {
        self.statement.stores |=
            s.merge_when_clauses.iter().filter_map(|when| when.node.as_ref()).any(|when| match when {
                pg_query::NodeEnum::MergeWhenClause(when) => session::moves_columns(&when.target_list, &[]),
                _ => true,
            });
        self.storing(|reader| reader.with(s.with_clause.as_ref(), |reader| reader.rest(node, s.relation.as_ref())));
    }

    /// One that writes, or keeps what it is given some other way, is a way out for whatever it is called with. (What a trigger is given,
    /// CREATE TRIGGER says.)
    fn create_function(&mut self, node: NodeRef<'t>, s: &'t pg::CreateFunctionStmt) {
        const WRITES: [Class; 5] = [Class::Insert, Class::Update, Class::Merge, Class::CopyIn, Class::Set];
        let stored = std::mem::take(&mut self.statement.stores);
        self.storing(|reader| {
            body::function(reader, s);
            reader.rest(node, None);
        });
        let writes = WRITES.iter().any(|class| self.statement.classes.contains(*class)) || self.statement.stores;
        self.statement.keeps |= (writes || self.statement.cursors_tell) && !body::returns_trigger(s);
        self.statement.stores |= stored;
    }

    /// What it reads, every statement on its table runs and does not tell.
    fn policy(&mut self, node: NodeRef<'t>, table: Option<&'t pg::RangeVar>) {
        let sees = self.statement.runs_later;
        table.into_iter().for_each(|table| self.note(&table.schemaname, &table.relname, true, sees));
        self.storing(|reader| reader.rest(node, table));
    }

    fn elsewhere(&mut self, node: NodeRef<'t>) {
        self.statement.stores = true;
        self.opaque();
        self.rest(node, None);
    }

    fn copy(&mut self, node: NodeRef<'t>, s: &'t pg::CopyStmt) {
        self.statement.copy = Some(session::copy(s));
        self.statement.copy_file |= !s.filename.is_empty() && !s.is_program;
        self.rest(node, s.relation.as_ref().filter(|_| s.is_from));
    }

    /// What `inside` reads, the statement stores.
    fn storing(&mut self, inside: impl FnOnce(&mut Self)) {
        let before = (self.reads, self.handed_on);
        inside(self);
        self.statement.stores |= (self.reads, self.handed_on) != before;
    }

    fn read(&mut self, relation: &pg::RangeVar) {
        let in_scope = self.ctes.get(relation.relname.as_str()).is_some_and(|count| *count > 0);
        if in_scope && relation.schemaname.is_empty() {
            self.handed_on += 1;
        } else {
            self.reads += 1;
            let made = self.made.is_some_and(|made| std::ptr::eq(made, relation));
            self.note(&relation.schemaname, &relation.relname, false, !made);
        }
    }

    /// A function shows what the relation does.
    pub(super) fn shows(&mut self, schema: &str, relation: &str) {
        self.reads += 1;
        self.note(schema, relation, false, true);
    }

    fn note_listed(&mut self, parts: &[&str], written: bool) {
        match parts {
            [.., schema, name] => self.note(schema, name, written, false),
            [name] => self.note("", name, written, false),
            [] => {}
        }
    }

    fn note(&mut self, schema: &str, name: &str, written: bool, read: bool) {
        let schema = (!schema.is_empty()).then(|| schema.to_owned());
        self.statement.tables.push(Table { schema, name: name.to_owned(), written, read });
    }

    pub(super) fn is_defining(&self) -> bool {
        self.defining
    }

    /// This text stands in another one.
    pub(super) fn is_inside(&self) -> bool {
        self.depth > 0
    }

    pub(super) fn add(&mut self, class: Class) {
        self.statement.classes.insert(class);
    }

    /// The statement runs a text that cannot be seen: it counts as all it could be.
    pub(super) fn dynamic(&mut self) {
        self.statement.classes.extend(DYNAMIC);
        self.statement.missing_where = true;
        self.statement.stores = true;
        self.opaque();
    }

    /// The statement may read any table.
    pub(super) fn opaque(&mut self) {
        self.reads += 1;
        self.statement.opaque = true;
    }

    /// The statement runs this text as well: read when it runs, under the settings that are in force then, whichever these are.
    pub(super) fn embedded(&mut self, text: &str, mode: pg_query::ParserOptions) {
        let other = with_setting_off(text);
        if self.depth == NESTED_TEXTS_MAX || turns_quotes(text.as_bytes()) || other == Otherwise::Unsure {
            words::collect(text, &mut self.words);
            return self.dynamic();
        }
        self.embedded_as(text, mode);
        if let Otherwise::Text(other) = other {
            self.embedded_as(&other, mode);
        }
    }

    fn embedded_as(&mut self, text: &str, mode: pg_query::ParserOptions) {
        let deeper = self.depth + 1;
        let found = super::parse(text, mode, |tree, text, words| (words, read_inner(tree, text, deeper)));
        let Some((mut words, inner)) = found else {
            words::collect(text, &mut self.words);
            return self.dynamic();
        };
        self.words.append(&mut words);
        inner.into_iter().for_each(|found| self.absorb(found, mode != pg_query::ParserOptions::DEFAULT));
    }

    /// Takes over what an inner text does. `expression`: it is a bare expression, which the parser dresses as a SELECT.
    fn absorb(&mut self, inner: Found, expression: bool) {
        let Found { statement: mut found, words, reads } = inner;
        if expression && reads == 0 {
            found.classes.0 &= !super::Classes::from(Class::Select).0;
        }
        self.reads += reads;
        self.words.extend(words);
        let own = &mut self.statement;
        own.classes = own.classes.union(found.classes);
        own.tables.append(&mut found.tables);
        own.settings.append(&mut found.settings);
        own.missing_where |= found.missing_where;
        own.stores |= found.stores;
        own.keeps |= found.keeps;
        own.runs_later |= found.runs_later;
        own.renames.append(&mut found.renames);
        own.opaque |= found.opaque;
        own.copy_file |= found.copy_file;
        own.reach.absorb(found.reach);
        // In a body nothing says whether, how often and in which order.
        own.names_inside |= found.names_inside;
        own.cursors_inside |= found.cursors_inside;
        own.cursors_tell |= found.cursors_tell;
        own.names_inside |= found.defines.is_some() || found.uses.is_some() || found.forgets.is_some();
        own.uses = own.uses.take().or(found.uses);
    }
}

/// What one statement of an inner text does.
struct Found {
    statement: Statement,
    words: Vec<String>,
    reads: u64,
}

fn read_inner(tree: &pg::ParseResult, text: &str, depth: u8) -> Vec<Found> {
    let read = |raw: &pg::RawStmt| {
        let mut reader = Reader::new(super::source_of(raw, text), depth);
        reader.statement(raw.stmt.as_ref()?.node.as_ref()?.to_ref());
        Some(Found { statement: reader.statement, words: reader.words, reads: reader.reads })
    };
    tree.stmts.iter().filter_map(read).collect()
}

fn made(node: NodeRef<'_>) -> Option<&pg::RangeVar> {
    match node {
        NodeRef::IntoClause(s) => s.rel.as_ref(),
        NodeRef::ViewStmt(s) => s.view.as_ref(),
        NodeRef::CreateStmt(s) => s.relation.as_ref(),
        _ => None,
    }
}

/// What the changed relation holds already can go into what the statement leaves behind: another column, another name.
fn uses_what_it_writes(node: NodeRef<'_>) -> bool {
    match node {
        NodeRef::InsertStmt(s) => s.on_conflict_clause.is_some(),
        NodeRef::UpdateStmt(_)
        | NodeRef::MergeStmt(_)
        | NodeRef::AlterTableStmt(_)
        | NodeRef::RenameStmt(_)
        | NodeRef::CreateTrigStmt(_)
        | NodeRef::IndexStmt(_)
        | NodeRef::AlterObjectSchemaStmt(_) => true,
        _ => false,
    }
}

fn cte_name(node: &pg::Node) -> Option<&str> {
    match node.node.as_ref()? {
        pg_query::NodeEnum::CommonTableExpr(cte) => Some(&cte.ctename),
        _ => None,
    }
}

/// Sorted, each table once, written if it is anywhere.
fn merge(tables: &mut Vec<Table>) {
    tables.sort_by(|a, b| (&a.schema, &a.name).cmp(&(&b.schema, &b.name)));
    tables.dedup_by(|next, kept| {
        let same = next.schema == kept.schema && next.name == kept.name;
        kept.written |= same && next.written;
        kept.read |= same && next.read;
        same
    });
}

/// The function's last name, without its schema.
pub(super) fn function_name(call: &pg::FuncCall) -> &str {
    call.funcname.last().and_then(super::kinds::string).unwrap_or_default()
}

/// A constant's text: `'x'`, `'x'::pg_catalog.text`.
pub(super) fn constant_text(node: &pg::Node) -> Option<String> {
    condition::text(node)
}

/// The strings of a DefElem's argument.
pub(super) fn def_strings(def: &pg::DefElem) -> Vec<&str> {
    def.arg.as_deref().map(strings).unwrap_or_default()
}
