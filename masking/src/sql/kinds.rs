//! What each kind of statement is, taken alone: its class, the relations it changes, the objects it names in lists.

use super::Class;
use pg_query::NodeRef;
use pg_query::protobuf as pg;
use pg_query::protobuf::{CmdType, ObjectType};

/// The class of a statement node by its kind alone; `None` for what is no statement, and for those whose class hangs on
/// their fields ([`more_classes`]).
pub(super) fn class_of(node: NodeRef<'_>) -> Option<Class> {
    use NodeRef as N;
    Some(match node {
        N::SelectStmt(_) => Class::Select,
        N::InsertStmt(_) => Class::Insert,
        N::UpdateStmt(_) => Class::Update,
        N::DeleteStmt(_) => Class::Delete,
        N::MergeStmt(_) => Class::Merge,
        N::TruncateStmt(_) => Class::Truncate,
        N::CallStmt(_) => Class::Call,
        N::DoStmt(_) => Class::Do,
        N::ExecuteStmt(_) => Class::Execute,
        // DEALLOCATE keeps the same books as PREPARE, CLOSE the same as FETCH.
        N::PrepareStmt(_) | N::DeallocateStmt(_) => Class::Prepare,
        N::DeclareCursorStmt(_) => Class::Declare,
        N::FetchStmt(_) | N::ClosePortalStmt(_) => Class::Fetch,
        N::ExplainStmt(_) => Class::Explain,
        N::VariableSetStmt(_) | N::ConstraintsSetStmt(_) | N::DiscardStmt(_) => Class::Set,
        N::VariableShowStmt(_) => Class::Show,
        N::TransactionStmt(_) => Class::Transaction,
        N::LockStmt(_) => Class::Lock,
        N::ListenStmt(_) | N::UnlistenStmt(_) | N::NotifyStmt(_) => Class::Listen,
        N::VacuumStmt(_) | N::ClusterStmt(_) | N::ReindexStmt(_) => Class::Vacuum,
        N::CommentStmt(_) | N::SecLabelStmt(_) => Class::Comment,
        N::LoadStmt(_) | N::CheckPointStmt(_) | N::RefreshMatViewStmt(_) => Class::Other,

        N::DropStmt(_)
        | N::DropTableSpaceStmt(_)
        | N::DropUserMappingStmt(_)
        | N::DropRoleStmt(_)
        | N::DropdbStmt(_)
        | N::DropOwnedStmt(_)
        | N::DropSubscriptionStmt(_) => Class::Drop,

        N::CreateSchemaStmt(_)
        | N::CreateStmt(_)
        | N::CreateTableSpaceStmt(_)
        | N::CreateExtensionStmt(_)
        | N::CreateFdwStmt(_)
        | N::CreateForeignServerStmt(_)
        | N::CreateForeignTableStmt(_)
        | N::CreateUserMappingStmt(_)
        | N::ImportForeignSchemaStmt(_)
        | N::CreatePolicyStmt(_)
        | N::CreateAmStmt(_)
        | N::CreateTrigStmt(_)
        | N::CreateEventTrigStmt(_)
        | N::CreatePlangStmt(_)
        | N::CreateRoleStmt(_)
        | N::CreateSeqStmt(_)
        | N::DefineStmt(_)
        | N::CreateDomainStmt(_)
        | N::CreateOpClassStmt(_)
        | N::CreateOpFamilyStmt(_)
        | N::IndexStmt(_)
        | N::CreateStatsStmt(_)
        | N::CreateFunctionStmt(_)
        | N::RuleStmt(_)
        | N::CompositeTypeStmt(_)
        | N::CreateEnumStmt(_)
        | N::CreateRangeStmt(_)
        | N::ViewStmt(_)
        | N::CreatedbStmt(_)
        | N::CreateTableAsStmt(_)
        | N::CreateConversionStmt(_)
        | N::CreateCastStmt(_)
        | N::CreateTransformStmt(_)
        | N::CreatePublicationStmt(_)
        | N::CreateSubscriptionStmt(_)
        // SELECT ... INTO makes a table.
        | N::IntoClause(_) => Class::Create,

        N::AlterTableStmt(_)
        | N::AlterCollationStmt(_)
        | N::AlterDomainStmt(_)
        | N::AlterDefaultPrivilegesStmt(_)
        | N::AlterTableSpaceOptionsStmt(_)
        | N::AlterTableMoveAllStmt(_)
        | N::AlterExtensionStmt(_)
        | N::AlterExtensionContentsStmt(_)
        | N::AlterFdwStmt(_)
        | N::AlterForeignServerStmt(_)
        | N::AlterUserMappingStmt(_)
        | N::AlterPolicyStmt(_)
        | N::AlterEventTrigStmt(_)
        | N::AlterRoleStmt(_)
        | N::AlterRoleSetStmt(_)
        | N::AlterSeqStmt(_)
        | N::AlterOpFamilyStmt(_)
        | N::AlterStatsStmt(_)
        | N::AlterFunctionStmt(_)
        | N::RenameStmt(_)
        | N::AlterObjectDependsStmt(_)
        | N::AlterObjectSchemaStmt(_)
        | N::AlterOwnerStmt(_)
        | N::AlterOperatorStmt(_)
        | N::AlterTypeStmt(_)
        | N::AlterEnumStmt(_)
        | N::AlterDatabaseStmt(_)
        | N::AlterDatabaseRefreshCollStmt(_)
        | N::AlterDatabaseSetStmt(_)
        | N::AlterSystemStmt(_)
        | N::ReassignOwnedStmt(_)
        | N::AlterTsdictionaryStmt(_)
        | N::AlterTsconfigurationStmt(_)
        | N::AlterPublicationStmt(_)
        | N::AlterSubscriptionStmt(_) => Class::Alter,

        _ => return None,
    })
}

/// Classes that hang on a statement's fields, besides [`class_of`].
pub(super) fn more_classes(node: NodeRef<'_>, add: &mut dyn FnMut(Class)) {
    match node {
        NodeRef::GrantStmt(s) => add(grant(s.is_grant)),
        NodeRef::GrantRoleStmt(s) => add(grant(s.is_grant)),
        // ALTER GROUP ... ADD USER is the old spelling of GRANT role.
        NodeRef::AlterRoleStmt(s) if s.options.iter().any(|option| def_name(option) == Some("rolemembers")) => {
            add(grant(s.action > 0));
        }
        // A SET for later sessions.
        NodeRef::AlterRoleSetStmt(_) | NodeRef::AlterDatabaseSetStmt(_) | NodeRef::AlterSystemStmt(_) => {
            add(Class::Set)
        }
        // DROP OWNED takes privileges away as well.
        NodeRef::DropOwnedStmt(_) => add(Class::Revoke),
        NodeRef::CopyStmt(s) => {
            add(if s.is_from { Class::CopyIn } else { Class::CopyOut });
            if s.is_program {
                add(Class::CopyProgram);
            }
        }
        NodeRef::MergeWhenClause(s) => match s.command_type() {
            CmdType::CmdInsert => add(Class::Insert),
            CmdType::CmdUpdate => add(Class::Update),
            CmdType::CmdDelete => add(Class::Delete),
            _ => {}
        },
        NodeRef::OnConflictClause(s) if s.action() == pg::OnConflictAction::OnconflictUpdate => add(Class::Update),
        _ => {}
    }
}

fn grant(is_grant: bool) -> Class {
    if is_grant { Class::Grant } else { Class::Revoke }
}

fn def_name(node: &pg::Node) -> Option<&str> {
    match node.node.as_ref()? {
        pg_query::NodeEnum::DefElem(def) => Some(&def.defname),
        _ => None,
    }
}

/// Hands over the relations that a statement changes. (INSERT, UPDATE, DELETE, MERGE and COPY too.)
pub(super) fn written<'a>(node: NodeRef<'a>, f: &mut dyn FnMut(&'a pg::RangeVar)) {
    use NodeRef as N;
    let one = match node {
        N::InsertStmt(s) => &s.relation,
        N::UpdateStmt(s) => &s.relation,
        N::DeleteStmt(s) => &s.relation,
        N::MergeStmt(s) => &s.relation,
        N::CopyStmt(s) if s.is_from => &s.relation,
        N::AlterTableStmt(s) => &s.relation,
        N::CreateStmt(s) => &s.relation,
        N::IntoClause(s) => &s.rel,
        N::ViewStmt(s) => &s.view,
        N::IndexStmt(s) => &s.relation,
        N::CreateTrigStmt(s) => &s.relation,
        N::RuleStmt(s) => &s.relation,
        N::CreatePolicyStmt(s) => &s.table,
        N::AlterPolicyStmt(s) => &s.table,
        N::CreateSeqStmt(s) => &s.sequence,
        N::AlterSeqStmt(s) => &s.sequence,
        N::RenameStmt(s) => &s.relation,
        N::AlterObjectSchemaStmt(s) => &s.relation,
        N::AlterOwnerStmt(s) => &s.relation,
        N::AlterObjectDependsStmt(s) => &s.relation,
        N::RefreshMatViewStmt(s) => &s.relation,
        N::CompositeTypeStmt(s) => &s.typevar,
        N::TruncateStmt(s) => return s.relations.iter().filter_map(range_var).for_each(f),
        _ => return,
    };
    one.iter().for_each(f);
}

fn range_var(node: &pg::Node) -> Option<&pg::RangeVar> {
    match node.node.as_ref()? {
        pg_query::NodeEnum::RangeVar(relation) => Some(relation),
        _ => None,
    }
}

/// Hands over the dotted names (`[schema.]table`) that DROP, COMMENT and SECURITY LABEL give as lists of strings, and
/// whether the statement changes them.
pub(super) fn listed<'a>(node: NodeRef<'a>, f: &mut dyn FnMut(&[&'a str], bool)) {
    match node {
        NodeRef::DropStmt(s) => s.objects.iter().for_each(|object| listed_one(s.remove_type(), object, true, f)),
        NodeRef::CommentStmt(s) => s.object.iter().for_each(|object| listed_one(s.objtype(), object, false, f)),
        NodeRef::SecLabelStmt(s) => s.object.iter().for_each(|object| listed_one(s.objtype(), object, false, f)),
        _ => {}
    }
}

fn listed_one<'a>(kind: ObjectType, object: &'a pg::Node, written: bool, f: &mut dyn FnMut(&[&'a str], bool)) {
    use ObjectType as O;
    let parts = strings(object);
    match kind {
        O::ObjectTable
        | O::ObjectView
        | O::ObjectMatview
        | O::ObjectForeignTable
        | O::ObjectIndex
        | O::ObjectSequence => {
            f(&parts, written);
        }
        // The last part is the column, trigger, rule, policy or constraint; what stands before it is the table.
        O::ObjectColumn | O::ObjectTrigger | O::ObjectRule | O::ObjectPolicy | O::ObjectTabconstraint => {
            f(&parts[..parts.len().saturating_sub(1)], written);
        }
        _ => {}
    }
}

/// The strings of a list of strings; of anything else, none.
pub(super) fn strings(node: &pg::Node) -> Vec<&str> {
    match &node.node {
        Some(pg_query::NodeEnum::List(list)) => list.items.iter().filter_map(string).collect(),
        Some(pg_query::NodeEnum::String(one)) => vec![&one.sval],
        _ => Vec::new(),
    }
}

pub(super) fn string(node: &pg::Node) -> Option<&str> {
    match node.node.as_ref()? {
        pg_query::NodeEnum::String(one) => Some(&one.sval),
        _ => None,
    }
}
