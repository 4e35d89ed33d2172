//! The children of every kind of node in PostgreSQL's raw parse tree: one line for each kind, every field that can hold
//! another node. Nothing here judges; that no field is missing is what lets the rest decide "on every node".

use pg_query::protobuf as pg;
use pg_query::{NodeEnum, NodeRef};

/// Something that holds nodes.
pub(super) trait Branch {
    fn hand<'a>(&'a self, f: &mut dyn FnMut(NodeRef<'a>));
}

impl Branch for pg::Node {
    fn hand<'a>(&'a self, f: &mut dyn FnMut(NodeRef<'a>)) {
        if let Some(node) = &self.node {
            f(NodeEnum::to_ref(node));
        }
    }
}

impl<T: Branch> Branch for Vec<T> {
    fn hand<'a>(&'a self, f: &mut dyn FnMut(NodeRef<'a>)) {
        self.iter().for_each(|one| one.hand(f));
    }
}

impl<T: Branch> Branch for Option<T> {
    fn hand<'a>(&'a self, f: &mut dyn FnMut(NodeRef<'a>)) {
        self.iter().for_each(|one| one.hand(f));
    }
}

impl<T: Branch> Branch for Box<T> {
    fn hand<'a>(&'a self, f: &mut dyn FnMut(NodeRef<'a>)) {
        (**self).hand(f);
    }
}

macro_rules! branches {
    ($($kind:ident)*) => {
        $(impl Branch for pg::$kind {
            fn hand<'a>(&'a self, f: &mut dyn FnMut(NodeRef<'a>)) {
                f(NodeRef::$kind(self));
            }
        })*
    };
}

// The kinds that stand in a field by their own type rather than behind a `Node`.
branches! {
    Alias
    CollateClause
    CreateStmt
    FromExpr
    FuncCall
    FuncExpr
    GrantStmt
    InferClause
    IntoClause
    JsonAggConstructor
    JsonBehavior
    JsonFormat
    JsonKeyValue
    JsonOutput
    JsonReturning
    JsonTablePath
    JsonTablePathSpec
    JsonValueExpr
    ObjectWithArgs
    OnConflictClause
    OnConflictExpr
    PartitionBoundSpec
    PartitionSpec
    PublicationTable
    Query
    RangeVar
    ReturningClause
    RoleSpec
    SelectStmt
    String
    TableFunc
    TableSampleClause
    TypeName
    VariableSetStmt
    WindowDef
    WithClause
}

impl Branch for pg::CteCycleClause {
    fn hand<'a>(&'a self, f: &mut dyn FnMut(NodeRef<'a>)) {
        self.cycle_col_list.hand(f);
        self.cycle_mark_value.hand(f);
        self.cycle_mark_default.hand(f);
    }
}

impl Branch for pg::CteSearchClause {
    fn hand<'a>(&'a self, f: &mut dyn FnMut(NodeRef<'a>)) {
        self.search_col_list.hand(f);
    }
}

macro_rules! each {
    ($node:ident, $f:ident; $($field:ident),*) => {{ $($node.$field.hand($f);)* }};
}

/// Hands every direct child of `node` to `f`, in the order of the fields.
/// (`xpr`, the empty header that PostgreSQL's expression nodes begin with, holds nothing.)
pub(super) fn children<'a>(node: NodeRef<'a>, f: &mut dyn FnMut(NodeRef<'a>)) {
    match node {
        NodeRef::Alias(n) => each!(n, f; colnames),
        NodeRef::RangeVar(n) => each!(n, f; alias),
        NodeRef::TableFunc(n) => {
            each!(n, f; ns_uris, ns_names, docexpr, rowexpr, colnames, coltypes, coltypmods, colcollations, colexprs, coldefexprs, colvalexprs, passingvalexprs, plan)
        }
        NodeRef::Aggref(n) => each!(n, f; aggargtypes, aggdirectargs, args, aggorder, aggdistinct, aggfilter),
        NodeRef::GroupingFunc(n) => each!(n, f; args, refs),
        NodeRef::WindowFunc(n) => each!(n, f; args, aggfilter, run_condition),
        NodeRef::SubscriptingRef(n) => each!(n, f; refupperindexpr, reflowerindexpr, refexpr, refassgnexpr),
        NodeRef::FuncExpr(n) => each!(n, f; args),
        NodeRef::NamedArgExpr(n) => each!(n, f; arg),
        NodeRef::OpExpr(n) => each!(n, f; args),
        NodeRef::DistinctExpr(n) => each!(n, f; args),
        NodeRef::NullIfExpr(n) => each!(n, f; args),
        NodeRef::ScalarArrayOpExpr(n) => each!(n, f; args),
        NodeRef::BoolExpr(n) => each!(n, f; args),
        NodeRef::SubLink(n) => each!(n, f; testexpr, oper_name, subselect),
        NodeRef::SubPlan(n) => each!(n, f; testexpr, param_ids, set_param, par_param, args),
        NodeRef::AlternativeSubPlan(n) => each!(n, f; subplans),
        NodeRef::FieldSelect(n) => each!(n, f; arg),
        NodeRef::FieldStore(n) => each!(n, f; arg, newvals, fieldnums),
        NodeRef::RelabelType(n) => each!(n, f; arg),
        NodeRef::CoerceViaIo(n) => each!(n, f; arg),
        NodeRef::ArrayCoerceExpr(n) => each!(n, f; arg, elemexpr),
        NodeRef::ConvertRowtypeExpr(n) => each!(n, f; arg),
        NodeRef::CollateExpr(n) => each!(n, f; arg),
        NodeRef::CaseExpr(n) => each!(n, f; arg, args, defresult),
        NodeRef::CaseWhen(n) => each!(n, f; expr, result),
        NodeRef::ArrayExpr(n) => each!(n, f; elements),
        NodeRef::RowExpr(n) => each!(n, f; args, colnames),
        NodeRef::RowCompareExpr(n) => each!(n, f; opnos, opfamilies, inputcollids, largs, rargs),
        NodeRef::CoalesceExpr(n) => each!(n, f; args),
        NodeRef::MinMaxExpr(n) => each!(n, f; args),
        NodeRef::XmlExpr(n) => each!(n, f; named_args, arg_names, args),
        NodeRef::NullTest(n) => each!(n, f; arg),
        NodeRef::BooleanTest(n) => each!(n, f; arg),
        NodeRef::CoerceToDomain(n) => each!(n, f; arg),
        NodeRef::InferenceElem(n) => each!(n, f; expr),
        NodeRef::TargetEntry(n) => each!(n, f; expr),
        NodeRef::JoinExpr(n) => each!(n, f; larg, rarg, using_clause, join_using_alias, quals, alias),
        NodeRef::FromExpr(n) => each!(n, f; fromlist, quals),
        NodeRef::OnConflictExpr(n) => {
            each!(n, f; arbiter_elems, arbiter_where, on_conflict_set, on_conflict_where, excl_rel_tlist)
        }
        NodeRef::IntoClause(n) => each!(n, f; rel, col_names, options, view_query),
        NodeRef::RawStmt(n) => each!(n, f; stmt),
        NodeRef::Query(n) => {
            each!(n, f; utility_stmt, cte_list, rtable, rteperminfos, jointree, merge_action_list, merge_join_condition, target_list, on_conflict, returning_list, group_clause, grouping_sets, having_qual, window_clause, distinct_clause, sort_clause, limit_offset, limit_count, row_marks, set_operations, constraint_deps, with_check_options)
        }
        NodeRef::InsertStmt(n) => {
            each!(n, f; relation, cols, select_stmt, on_conflict_clause, returning_clause, with_clause)
        }
        NodeRef::DeleteStmt(n) => each!(n, f; relation, using_clause, where_clause, returning_clause, with_clause),
        NodeRef::UpdateStmt(n) => {
            each!(n, f; relation, target_list, where_clause, from_clause, returning_clause, with_clause)
        }
        NodeRef::SelectStmt(n) => {
            each!(n, f; distinct_clause, into_clause, target_list, from_clause, where_clause, group_clause, having_clause, window_clause, values_lists, sort_clause, limit_offset, limit_count, locking_clause, with_clause, larg, rarg)
        }
        NodeRef::AlterTableStmt(n) => each!(n, f; relation, cmds),
        NodeRef::AlterTableCmd(n) => each!(n, f; newowner, def),
        NodeRef::AlterDomainStmt(n) => each!(n, f; type_name, def),
        NodeRef::SetOperationStmt(n) => each!(n, f; larg, rarg, col_types, col_typmods, col_collations, group_clauses),
        NodeRef::GrantStmt(n) => each!(n, f; objects, privileges, grantees, grantor),
        NodeRef::GrantRoleStmt(n) => each!(n, f; granted_roles, grantee_roles, opt, grantor),
        NodeRef::AlterDefaultPrivilegesStmt(n) => each!(n, f; options, action),
        NodeRef::ClusterStmt(n) => each!(n, f; relation, params),
        NodeRef::CopyStmt(n) => each!(n, f; relation, query, attlist, options, where_clause),
        NodeRef::CreateStmt(n) => {
            each!(n, f; relation, table_elts, inh_relations, partbound, partspec, of_typename, constraints, nnconstraints, options)
        }
        NodeRef::DefineStmt(n) => each!(n, f; defnames, args, definition),
        NodeRef::DropStmt(n) => each!(n, f; objects),
        NodeRef::TruncateStmt(n) => each!(n, f; relations),
        NodeRef::CommentStmt(n) => each!(n, f; object),
        NodeRef::IndexStmt(n) => {
            each!(n, f; relation, index_params, index_including_params, options, where_clause, exclude_op_names)
        }
        NodeRef::CreateFunctionStmt(n) => each!(n, f; funcname, parameters, return_type, options, sql_body),
        NodeRef::AlterFunctionStmt(n) => each!(n, f; func, actions),
        NodeRef::DoStmt(n) => each!(n, f; args),
        NodeRef::RenameStmt(n) => each!(n, f; relation, object),
        NodeRef::RuleStmt(n) => each!(n, f; relation, where_clause, actions),
        NodeRef::TransactionStmt(n) => each!(n, f; options),
        NodeRef::ViewStmt(n) => each!(n, f; view, aliases, query, options),
        NodeRef::CreateDomainStmt(n) => each!(n, f; domainname, type_name, coll_clause, constraints),
        NodeRef::CreatedbStmt(n) => each!(n, f; options),
        NodeRef::DropdbStmt(n) => each!(n, f; options),
        NodeRef::VacuumStmt(n) => each!(n, f; options, rels),
        NodeRef::ExplainStmt(n) => each!(n, f; query, options),
        NodeRef::CreateTableAsStmt(n) => each!(n, f; query, into),
        NodeRef::CreateSeqStmt(n) => each!(n, f; sequence, options),
        NodeRef::AlterSeqStmt(n) => each!(n, f; sequence, options),
        NodeRef::VariableSetStmt(n) => each!(n, f; args),
        NodeRef::CreateTrigStmt(n) => {
            each!(n, f; relation, funcname, args, columns, when_clause, transition_rels, constrrel)
        }
        NodeRef::CreatePlangStmt(n) => each!(n, f; plhandler, plinline, plvalidator),
        NodeRef::CreateRoleStmt(n) => each!(n, f; options),
        NodeRef::AlterRoleStmt(n) => each!(n, f; role, options),
        NodeRef::DropRoleStmt(n) => each!(n, f; roles),
        NodeRef::LockStmt(n) => each!(n, f; relations),
        NodeRef::ConstraintsSetStmt(n) => each!(n, f; constraints),
        NodeRef::ReindexStmt(n) => each!(n, f; relation, params),
        NodeRef::CreateSchemaStmt(n) => each!(n, f; authrole, schema_elts),
        NodeRef::AlterDatabaseStmt(n) => each!(n, f; options),
        NodeRef::AlterDatabaseSetStmt(n) => each!(n, f; setstmt),
        NodeRef::AlterRoleSetStmt(n) => each!(n, f; role, setstmt),
        NodeRef::CreateConversionStmt(n) => each!(n, f; conversion_name, func_name),
        NodeRef::CreateCastStmt(n) => each!(n, f; sourcetype, targettype, func),
        NodeRef::CreateOpClassStmt(n) => each!(n, f; opclassname, opfamilyname, datatype, items),
        NodeRef::CreateOpFamilyStmt(n) => each!(n, f; opfamilyname),
        NodeRef::AlterOpFamilyStmt(n) => each!(n, f; opfamilyname, items),
        NodeRef::PrepareStmt(n) => each!(n, f; argtypes, query),
        NodeRef::ExecuteStmt(n) => each!(n, f; params),
        NodeRef::DeclareCursorStmt(n) => each!(n, f; query),
        NodeRef::CreateTableSpaceStmt(n) => each!(n, f; owner, options),
        NodeRef::AlterObjectDependsStmt(n) => each!(n, f; relation, object, extname),
        NodeRef::AlterObjectSchemaStmt(n) => each!(n, f; relation, object),
        NodeRef::AlterOwnerStmt(n) => each!(n, f; relation, object, newowner),
        NodeRef::AlterOperatorStmt(n) => each!(n, f; opername, options),
        NodeRef::AlterTypeStmt(n) => each!(n, f; type_name, options),
        NodeRef::DropOwnedStmt(n) => each!(n, f; roles),
        NodeRef::ReassignOwnedStmt(n) => each!(n, f; roles, newrole),
        NodeRef::CompositeTypeStmt(n) => each!(n, f; typevar, coldeflist),
        NodeRef::CreateEnumStmt(n) => each!(n, f; type_name, vals),
        NodeRef::CreateRangeStmt(n) => each!(n, f; type_name, params),
        NodeRef::AlterEnumStmt(n) => each!(n, f; type_name),
        NodeRef::AlterTsdictionaryStmt(n) => each!(n, f; dictname, options),
        NodeRef::AlterTsconfigurationStmt(n) => each!(n, f; cfgname, tokentype, dicts),
        NodeRef::CreateFdwStmt(n) => each!(n, f; func_options, options),
        NodeRef::AlterFdwStmt(n) => each!(n, f; func_options, options),
        NodeRef::CreateForeignServerStmt(n) => each!(n, f; options),
        NodeRef::AlterForeignServerStmt(n) => each!(n, f; options),
        NodeRef::CreateUserMappingStmt(n) => each!(n, f; user, options),
        NodeRef::AlterUserMappingStmt(n) => each!(n, f; user, options),
        NodeRef::DropUserMappingStmt(n) => each!(n, f; user),
        NodeRef::AlterTableSpaceOptionsStmt(n) => each!(n, f; options),
        NodeRef::AlterTableMoveAllStmt(n) => each!(n, f; roles),
        NodeRef::SecLabelStmt(n) => each!(n, f; object),
        NodeRef::CreateForeignTableStmt(n) => each!(n, f; base_stmt, options),
        NodeRef::ImportForeignSchemaStmt(n) => each!(n, f; table_list, options),
        NodeRef::CreateExtensionStmt(n) => each!(n, f; options),
        NodeRef::AlterExtensionStmt(n) => each!(n, f; options),
        NodeRef::AlterExtensionContentsStmt(n) => each!(n, f; object),
        NodeRef::CreateEventTrigStmt(n) => each!(n, f; whenclause, funcname),
        NodeRef::RefreshMatViewStmt(n) => each!(n, f; relation),
        NodeRef::AlterSystemStmt(n) => each!(n, f; setstmt),
        NodeRef::CreatePolicyStmt(n) => each!(n, f; table, roles, qual, with_check),
        NodeRef::AlterPolicyStmt(n) => each!(n, f; table, roles, qual, with_check),
        NodeRef::CreateTransformStmt(n) => each!(n, f; type_name, fromsql, tosql),
        NodeRef::CreateAmStmt(n) => each!(n, f; handler_name),
        NodeRef::CreatePublicationStmt(n) => each!(n, f; options, pubobjects),
        NodeRef::AlterPublicationStmt(n) => each!(n, f; options, pubobjects),
        NodeRef::CreateSubscriptionStmt(n) => each!(n, f; publication, options),
        NodeRef::AlterSubscriptionStmt(n) => each!(n, f; publication, options),
        NodeRef::CreateStatsStmt(n) => each!(n, f; defnames, stat_types, exprs, relations),
        NodeRef::AlterCollationStmt(n) => each!(n, f; collname),
        NodeRef::CallStmt(n) => each!(n, f; funccall, funcexpr, outargs),
        NodeRef::AlterStatsStmt(n) => each!(n, f; defnames, stxstattarget),
        NodeRef::AExpr(n) => each!(n, f; name, lexpr, rexpr),
        NodeRef::ColumnRef(n) => each!(n, f; fields),
        NodeRef::FuncCall(n) => each!(n, f; funcname, args, agg_order, agg_filter, over),
        NodeRef::AIndices(n) => each!(n, f; lidx, uidx),
        NodeRef::AIndirection(n) => each!(n, f; arg, indirection),
        NodeRef::AArrayExpr(n) => each!(n, f; elements),
        NodeRef::ResTarget(n) => each!(n, f; indirection, val),
        NodeRef::MultiAssignRef(n) => each!(n, f; source),
        NodeRef::TypeCast(n) => each!(n, f; arg, type_name),
        NodeRef::CollateClause(n) => each!(n, f; arg, collname),
        NodeRef::SortBy(n) => each!(n, f; node, use_op),
        NodeRef::WindowDef(n) => each!(n, f; partition_clause, order_clause, start_offset, end_offset),
        NodeRef::RangeSubselect(n) => each!(n, f; subquery, alias),
        NodeRef::RangeFunction(n) => each!(n, f; functions, alias, coldeflist),
        NodeRef::RangeTableSample(n) => each!(n, f; relation, method, args, repeatable),
        NodeRef::RangeTableFunc(n) => each!(n, f; docexpr, rowexpr, namespaces, columns, alias),
        NodeRef::RangeTableFuncCol(n) => each!(n, f; type_name, colexpr, coldefexpr),
        NodeRef::TypeName(n) => each!(n, f; names, typmods, array_bounds),
        NodeRef::ColumnDef(n) => {
            each!(n, f; type_name, raw_default, cooked_default, identity_sequence, coll_clause, constraints, fdwoptions)
        }
        NodeRef::IndexElem(n) => each!(n, f; expr, collation, opclass, opclassopts),
        NodeRef::Constraint(n) => {
            each!(n, f; raw_expr, keys, including, exclusions, options, where_clause, pktable, fk_attrs, pk_attrs, fk_del_set_cols, old_conpfeqop)
        }
        NodeRef::DefElem(n) => each!(n, f; arg),
        NodeRef::RangeTblEntry(n) => {
            each!(n, f; alias, eref, tablesample, subquery, joinaliasvars, joinleftcols, joinrightcols, join_using_alias, functions, tablefunc, values_lists, coltypes, coltypmods, colcollations, groupexprs, security_quals)
        }
        NodeRef::RangeTblFunction(n) => {
            each!(n, f; funcexpr, funccolnames, funccoltypes, funccoltypmods, funccolcollations)
        }
        NodeRef::TableSampleClause(n) => each!(n, f; args, repeatable),
        NodeRef::WithCheckOption(n) => each!(n, f; qual),
        NodeRef::GroupingSet(n) => each!(n, f; content),
        NodeRef::WindowClause(n) => each!(n, f; partition_clause, order_clause, start_offset, end_offset),
        NodeRef::ObjectWithArgs(n) => each!(n, f; objname, objargs, objfuncargs),
        NodeRef::AccessPriv(n) => each!(n, f; cols),
        NodeRef::CreateOpClassItem(n) => each!(n, f; name, order_family, class_args, storedtype),
        NodeRef::TableLikeClause(n) => each!(n, f; relation),
        NodeRef::FunctionParameter(n) => each!(n, f; arg_type, defexpr),
        NodeRef::LockingClause(n) => each!(n, f; locked_rels),
        NodeRef::XmlSerialize(n) => each!(n, f; expr, type_name),
        NodeRef::WithClause(n) => each!(n, f; ctes),
        NodeRef::InferClause(n) => each!(n, f; index_elems, where_clause),
        NodeRef::OnConflictClause(n) => each!(n, f; infer, target_list, where_clause),
        NodeRef::CommonTableExpr(n) => {
            each!(n, f; aliascolnames, ctequery, search_clause, cycle_clause, ctecolnames, ctecoltypes, ctecoltypmods, ctecolcollations)
        }
        NodeRef::PartitionElem(n) => each!(n, f; expr, collation, opclass),
        NodeRef::PartitionSpec(n) => each!(n, f; part_params),
        NodeRef::PartitionBoundSpec(n) => each!(n, f; listdatums, lowerdatums, upperdatums),
        NodeRef::PartitionRangeDatum(n) => each!(n, f; value),
        NodeRef::PartitionCmd(n) => each!(n, f; name, bound),
        NodeRef::VacuumRelation(n) => each!(n, f; relation, va_cols),
        NodeRef::List(n) => each!(n, f; items),
        NodeRef::IntList(n) => each!(n, f; items),
        NodeRef::OidList(n) => each!(n, f; items),
        NodeRef::MergeStmt(n) => {
            each!(n, f; relation, source_relation, join_condition, merge_when_clauses, returning_clause, with_clause)
        }
        NodeRef::MergeAction(n) => each!(n, f; qual, target_list, update_colnos),
        NodeRef::ReturnStmt(n) => each!(n, f; returnval),
        NodeRef::ReturningClause(n) => each!(n, f; options, exprs),
        NodeRef::ReturningExpr(n) => each!(n, f; retexpr),
        NodeRef::PlassignStmt(n) => each!(n, f; indirection, val),
        NodeRef::StatsElem(n) => each!(n, f; expr),
        NodeRef::CtesearchClause(n) => each!(n, f; search_col_list),
        NodeRef::CtecycleClause(n) => each!(n, f; cycle_col_list, cycle_mark_value, cycle_mark_default),
        NodeRef::MergeWhenClause(n) => each!(n, f; condition, target_list, values),
        NodeRef::PublicationObjSpec(n) => each!(n, f; pubtable),
        NodeRef::PublicationTable(n) => each!(n, f; relation, where_clause, columns),
        NodeRef::JsonReturning(n) => each!(n, f; format),
        NodeRef::JsonValueExpr(n) => each!(n, f; raw_expr, formatted_expr, format),
        NodeRef::JsonConstructorExpr(n) => each!(n, f; args, func, coercion, returning),
        NodeRef::JsonIsPredicate(n) => each!(n, f; expr, format),
        NodeRef::JsonOutput(n) => each!(n, f; type_name, returning),
        NodeRef::JsonKeyValue(n) => each!(n, f; key, value),
        NodeRef::JsonObjectConstructor(n) => each!(n, f; exprs, output),
        NodeRef::JsonArrayConstructor(n) => each!(n, f; exprs, output),
        NodeRef::JsonArrayQueryConstructor(n) => each!(n, f; query, output, format),
        NodeRef::JsonAggConstructor(n) => each!(n, f; output, agg_filter, agg_order, over),
        NodeRef::JsonObjectAgg(n) => each!(n, f; constructor, arg),
        NodeRef::JsonArrayAgg(n) => each!(n, f; constructor, arg),
        NodeRef::WindowFuncRunCondition(n) => each!(n, f; arg),
        NodeRef::JsonBehavior(n) => each!(n, f; expr),
        NodeRef::JsonExpr(n) => {
            each!(n, f; formatted_expr, format, path_spec, returning, passing_names, passing_values, on_empty, on_error)
        }
        NodeRef::JsonTablePathScan(n) => each!(n, f; plan, path, child),
        NodeRef::JsonTableSiblingJoin(n) => each!(n, f; plan, lplan, rplan),
        NodeRef::JsonArgument(n) => each!(n, f; val),
        NodeRef::JsonFuncExpr(n) => each!(n, f; context_item, pathspec, passing, output, on_empty, on_error),
        NodeRef::JsonTablePathSpec(n) => each!(n, f; string),
        NodeRef::JsonTable(n) => each!(n, f; context_item, pathspec, passing, columns, on_error, alias),
        NodeRef::JsonTableColumn(n) => each!(n, f; type_name, pathspec, format, columns, on_empty, on_error),
        NodeRef::JsonParseExpr(n) => each!(n, f; expr, output),
        NodeRef::JsonScalarExpr(n) => each!(n, f; expr, output),
        NodeRef::JsonSerializeExpr(n) => each!(n, f; expr, output),
        NodeRef::RangeTblRef(_)
        | NodeRef::ClosePortalStmt(_)
        | NodeRef::FetchStmt(_)
        | NodeRef::NotifyStmt(_)
        | NodeRef::ListenStmt(_)
        | NodeRef::UnlistenStmt(_)
        | NodeRef::LoadStmt(_)
        | NodeRef::VariableShowStmt(_)
        | NodeRef::DiscardStmt(_)
        | NodeRef::CheckPointStmt(_)
        | NodeRef::DeallocateStmt(_)
        | NodeRef::DropTableSpaceStmt(_)
        | NodeRef::AtalterConstraint(_)
        | NodeRef::AlterEventTrigStmt(_)
        | NodeRef::ReplicaIdentityStmt(_)
        | NodeRef::DropSubscriptionStmt(_)
        | NodeRef::ParamRef(_)
        | NodeRef::AConst(_)
        | NodeRef::AStar(_)
        | NodeRef::SortGroupClause(_)
        | NodeRef::RowMarkClause(_)
        | NodeRef::RoleSpec(_)
        | NodeRef::TriggerTransition(_)
        | NodeRef::InlineCodeBlock(_)
        | NodeRef::CallContext(_)
        | NodeRef::Integer(_)
        | NodeRef::Float(_)
        | NodeRef::Boolean(_)
        | NodeRef::String(_)
        | NodeRef::BitString(_)
        | NodeRef::AlterDatabaseRefreshCollStmt(_)
        | NodeRef::ReturningOption(_)
        | NodeRef::JsonFormat(_)
        | NodeRef::RtepermissionInfo(_)
        | NodeRef::JsonTablePath(_)
        | NodeRef::Var(_)
        | NodeRef::Param(_)
        | NodeRef::CaseTestExpr(_)
        | NodeRef::SqlvalueFunction(_)
        | NodeRef::CoerceToDomainValue(_)
        | NodeRef::SetToDefault(_)
        | NodeRef::CurrentOfExpr(_)
        | NodeRef::NextValueExpr(_)
        | NodeRef::MergeSupportFunc(_) => {}
    }
}
