//! Tables that a statement touches without naming them: those of a schema that is dropped with all it holds, those of a
//! role, those behind a foreign key.

use super::kinds::{string, strings};
use pg_query::NodeRef;
use pg_query::protobuf::{DropBehavior, GrantTargetType, ObjectType, ReindexObjectType};

/// What is touched beside the tables named.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Reach {
    /// Every table of these schemas.
    pub schemas: Vec<String>,
    /// Any table there is.
    pub everything: bool,
}

impl Reach {
    pub fn is_nothing(&self) -> bool {
        self.schemas.is_empty() && !self.everything
    }

    pub(super) fn absorb(&mut self, other: Reach) {
        self.schemas.extend(other.schemas);
        self.everything |= other.everything;
    }

    /// Adds what one node touches, taken alone.
    pub(super) fn note(&mut self, node: NodeRef<'_>) {
        use NodeRef as N;
        match node {
            N::DropStmt(s) if s.behavior() == DropBehavior::DropCascade => match s.remove_type() {
                ObjectType::ObjectSchema => self.schemas.extend(s.objects.iter().flat_map(strings).map(str::to_owned)),
                kind if is_relation(kind) => {}
                // What depends on a type, an extension, a server or a function may be any table or a column of it.
                _ => self.everything = true,
            },
            // Whatever refers to the tables named by a foreign key goes as well.
            N::TruncateStmt(s) => self.everything |= s.behavior() == DropBehavior::DropCascade,
            N::DropOwnedStmt(_) | N::ReassignOwnedStmt(_) | N::DropdbStmt(_) | N::AlterTableMoveAllStmt(_) => {
                self.everything = true;
            }
            N::GrantStmt(s) if s.targtype() == GrantTargetType::AclTargetAllInSchema => {
                self.schemas.extend(s.objects.iter().filter_map(string).map(str::to_owned));
            }
            N::RenameStmt(s) if s.rename_type() == ObjectType::ObjectSchema => self.schemas.push(s.subname.clone()),
            N::VacuumStmt(s) => self.everything |= s.rels.is_empty(),
            N::ClusterStmt(s) => self.everything |= s.relation.is_none(),
            N::ReindexStmt(s) => match s.kind() {
                ReindexObjectType::ReindexObjectSchema => self.schemas.push(s.name.clone()),
                ReindexObjectType::ReindexObjectSystem | ReindexObjectType::ReindexObjectDatabase => {
                    self.everything = true;
                }
                _ => {}
            },
            _ => {}
        }
    }
}

/// Named one by one, whatever goes with them.
fn is_relation(kind: ObjectType) -> bool {
    use ObjectType as O;
    matches!(
        kind,
        O::ObjectTable
            | O::ObjectView
            | O::ObjectMatview
            | O::ObjectForeignTable
            | O::ObjectIndex
            | O::ObjectSequence
            | O::ObjectTrigger
            | O::ObjectRule
            | O::ObjectPolicy
    )
}
