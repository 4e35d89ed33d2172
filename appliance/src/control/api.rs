//! The control socket's API: JSON over HTTP/1.1, for the command line of the socket's owner.
//!
//! | request | answer |
//! |---|---|
//! | `GET /status` | the gateway itself |
//! | `GET /approvals[?all=true]` | tickets, with the beginning of their texts |
//! | `GET /approvals/ID` | one, with all of it |
//! | `POST /approvals/ID/approve`, `.../reject` with `{"reason", "token"?}` | the ticket after the ruling |
//! | `GET /sessions`, `POST /sessions/ID/kill` | live sessions |
//! | `GET /sinks` | how far each sink is, and what keeps it |
//! | `POST /reload` | the version now in use |
//!
//! A refusal is `{"error": "..."}` with 400 (the request), 401 (who), 403 (may not), 404, 409 (too late), 422 (reload refused).

use super::board::{Case, RuleError, Ruler, Verdict};
use super::core::{Core, Draining, ShardEnd};
use super::http::{self, Bounds};
use super::limits::{ADMIN_BODY_BYTES_MAX, ADMIN_CONNECTIONS_MAX, REASON_BYTES_MAX, TICKET_LIST_TEXT_BYTES_MAX};
use super::reload;
use super::socket::user_name;
use super::time::{now_us, rfc3339};
use crate::approval::{Ruling, TicketId, hex};
use crate::identity::Principal;
use crate::shard::mailbox::{SessionInfo, ToShard};
use axum::extract::{ConnectInfo, DefaultBodyLimit, Path, Query, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::net::{UnixListener, UnixStream};

/// The process at the other end, by the kernel's word (SO_PEERCRED). `None`: the kernel did not say.
#[derive(Clone, Copy)]
struct Peer {
    uid: Option<u32>,
}

impl Peer {
    fn of(stream: &UnixStream) -> Self {
        Self { uid: stream.peer_cred().ok().map(|cred| cred.uid()) }
    }
}

#[derive(Clone)]
struct Api {
    core: Arc<Core>,
    owner: u32,
}

pub async fn serve(listener: UnixListener, owner: u32, core: Arc<Core>) {
    let api = Api { core, owner };
    let routes = Router::new()
        .route("/status", get(status))
        .route("/approvals", get(approvals))
        .route("/approvals/{id}", get(approval))
        .route("/approvals/{id}/approve", post(approve))
        .route("/approvals/{id}/reject", post(reject))
        .route("/sessions", get(sessions))
        .route("/sessions/{id}/kill", post(kill))
        .route("/sinks", get(sinks))
        .route("/reload", post(reload_now))
        .layer(DefaultBodyLimit::max(ADMIN_BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(api.clone(), owner_only))
        .with_state(api);
    let of_peer = move |stream: &UnixStream| routes.clone().layer(Extension(ConnectInfo(Peer::of(stream))));
    http::serve(listener, Bounds::of(ADMIN_CONNECTIONS_MAX), of_peer).await;
}

/// The socket's mode says the same; this holds even if somebody changes it. Root may look and kill, but is not `local`.
async fn owner_only(
    State(api): State<Api>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
    next: Next,
) -> Response {
    match peer.uid {
        Some(uid) if uid == api.owner || uid == 0 => next.run(request).await,
        _ => refuse(StatusCode::FORBIDDEN, "only the owner of the gateway's process may use its control socket"),
    }
}

fn refuse(status: StatusCode, error: impl std::fmt::Display) -> Response {
    (status, Json(json!({ "error": error.to_string() }))).into_response()
}

async fn status(State(api): State<Api>) -> Json<Value> {
    let state = api.core.state();
    let shards: Vec<_> = state.ended.iter().map(shard_json).collect();
    let last_reload = state.last_reload.as_ref().map(|outcome| {
        json!({
            "time": rfc3339(outcome.at_us),
            "version": outcome.result.as_ref().ok(),
            "error": outcome.result.as_ref().err(),
        })
    });
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "started": rfc3339(api.core.started_us),
        "addresses": api.core.addresses,
        "snapshot": state.snapshot.version,
        "targets": state.snapshot.targets.iter().map(|target| &target.name).collect::<Vec<_>>(),
        "shards": shards,
        "draining": state.draining != Draining::No,
        "sessions": state.sessions.len(),
        "approvals_pending": state.board.pending(),
        "last_reload": last_reload,
        "needs_restart": state.needs_restart,
    }))
}

fn shard_json(end: &Option<ShardEnd>) -> Value {
    match end {
        None => json!({ "state": "running" }),
        Some(ShardEnd::Drained) => json!({ "state": "ended" }),
        Some(ShardEnd::Fault(fault)) => json!({ "state": "failed", "error": fault }),
    }
}

#[derive(Deserialize)]
struct Which {
    #[serde(default)]
    all: bool,
}

async fn approvals(State(api): State<Api>, Query(which): Query<Which>) -> Json<Value> {
    let mut state = api.core.state();
    state.board.expire(now_us());
    state.settle(&api.core.counters);
    let listed = state.board.cases(!which.all).into_iter().map(|case| {
        let statement_bytes = case.ticket.statement.len();
        let ticket = case.ticket.shortened(TICKET_LIST_TEXT_BYTES_MAX);
        let case = Case { ticket, votes: case.votes.clone(), end: case.end.clone() };
        (case, statement_bytes)
    });
    // Written as JSON when others can have the core again.
    let listed: Vec<_> = listed.collect();
    drop(state);
    let cases: Vec<_> = listed.into_iter().map(|(case, bytes)| case_json(&case, bytes)).collect();
    Json(json!({ "approvals": cases }))
}

async fn approval(State(api): State<Api>, Path(id): Path<String>) -> Response {
    let found = api.core.state().board.case(&TicketId(id)).cloned();
    match found {
        Some(case) => Json(whole_json(&case)).into_response(),
        None => refuse(StatusCode::NOT_FOUND, RuleError::Unknown),
    }
}

fn whole_json(case: &Case) -> Value {
    case_json(case, case.ticket.statement.len())
}

/// `statement_bytes`: of the whole text, where the case has its beginning only.
fn case_json(case: &Case, statement_bytes: usize) -> Value {
    let ticket = &case.ticket;
    let votes: Vec<_> = case
        .votes
        .iter()
        .map(|vote| json!({ "by": vote.by, "reason": vote.reason, "time": rfc3339(vote.at_us) }))
        .collect();
    let (by, reason) = match case.end.as_ref().map(|(ruling, _)| ruling) {
        Some(Ruling::Approved { by, reason }) => (by.clone(), Some(reason.clone())),
        Some(Ruling::Rejected { by, reason }) => (vec![by.clone()], Some(reason.clone())),
        Some(Ruling::Expired | Ruling::Abandoned) | None => (Vec::new(), None),
    };
    json!({
        "id": ticket.id,
        "state": case.state(),
        "time": rfc3339(ticket.asked_at_us),
        "expires": rfc3339(ticket.expires_at_us),
        "session": ticket.session,
        "user": ticket.user,
        "groups": ticket.groups,
        "actor": ticket.actor,
        "target": ticket.target,
        "statement": ticket.statement,
        "statement_bytes": statement_bytes,
        "binds": ticket.binds,
        "rule": ticket.rule,
        "approvers": ticket.approvers,
        "count": ticket.count,
        "own": ticket.own,
        "digest": hex(&ticket.digest),
        "votes": votes,
        "by": by,
        "reason": reason,
        "ended": case.end.as_ref().map(|(_, at_us)| rfc3339(*at_us)),
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RulingBody {
    #[serde(default)]
    reason: String,
    token: Option<String>,
}

async fn approve(
    State(api): State<Api>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(id): Path<String>,
    Json(body): Json<RulingBody>,
) -> Response {
    rule(&api, peer, id, body, Verdict::Approve)
}

async fn reject(
    State(api): State<Api>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(id): Path<String>,
    Json(body): Json<RulingBody>,
) -> Response {
    rule(&api, peer, id, body, Verdict::Reject)
}

fn rule(api: &Api, peer: Peer, id: String, body: RulingBody, verdict: Verdict) -> Response {
    if body.reason.len() > REASON_BYTES_MAX {
        return refuse(StatusCode::BAD_REQUEST, format!("a reason has at most {REASON_BYTES_MAX} bytes"));
    }
    let ruler = match ruler(api, peer, body.token.as_deref()) {
        Ok(ruler) => ruler,
        Err(error) => return refuse(StatusCode::UNAUTHORIZED, error),
    };
    let mut state = api.core.state();
    let ruled = state.board.rule(&TicketId(id.clone()), &ruler, verdict, body.reason, now_us()).cloned();
    if let Some(detail) = beside_the_ruling(&id, &ruler, verdict, &ruled) {
        state.record_once(&detail);
    }
    state.settle(&api.core.counters);
    drop(state);
    match ruled {
        Ok(case) => Json(whole_json(&case)).into_response(),
        Err(error) => {
            let status = match &error {
                RuleError::Unknown => StatusCode::NOT_FOUND,
                RuleError::Ended(_) | RuleError::SecondVote(_) => StatusCode::CONFLICT,
                RuleError::NotAnApprover { .. } | RuleError::OwnRequest | RuleError::Agent(_) => StatusCode::FORBIDDEN,
            };
            refuse(status, error)
        }
    }
}

/// What the trail has to say of a ruling that ended nothing: a vote that is not the last, an attempt that was refused. (The one that ends a
/// ticket is recorded with its statement.)
fn beside_the_ruling(id: &str, ruler: &Ruler, verdict: Verdict, ruled: &Result<Case, RuleError>) -> Option<String> {
    let who = ruler.name();
    match ruled {
        Ok(case) if case.end.is_some() => None,
        Ok(case) => {
            let reason = case.votes.last().map_or("", |vote| vote.reason.as_str());
            let (votes, count) = (case.votes.len(), case.ticket.count);
            Some(format!(
                "ticket {id}: approved by {who}, {votes} of {count}{}{reason}",
                if reason.is_empty() { "" } else { ": " }
            ))
        }
        Err(RuleError::Unknown) => None,
        Err(error) => {
            let wanted = if verdict == Verdict::Approve { "approve" } else { "reject" };
            Some(format!("ticket {id}: {who} may not {wanted} it: {error}"))
        }
    }
}

/// A token when there is one; without it the owner of the socket, which only rules that say `local` accept.
fn ruler(api: &Api, peer: Peer, token: Option<&str>) -> Result<Ruler, String> {
    match (token, peer.uid) {
        (Some(token), _) => {
            let verifier = &api.core.state().snapshot.clone().verifier;
            let (token, now_s) = (token.trim().as_bytes(), now_us().div_euclid(1_000_000));
            let believed = verifier.verify(token, now_s).and_then(|found| Ok((found, verifier.agents(token)?)));
            let (found, agents) = believed.map_err(|error| format!("the token was not accepted: {error}"))?;
            let Principal { user, groups, actor, .. } = found.principal;
            Ok(Ruler::Token { user, groups, actor, agent: !agents.is_empty() })
        }
        (None, Some(uid)) if uid == api.owner => Ok(Ruler::Local { user: user_name(uid) }),
        (None, _) => Err("a ruling needs a token: only the socket's owner may rule without".into()),
    }
}

async fn sessions(State(api): State<Api>) -> Json<Value> {
    let state = api.core.state();
    let sessions: Vec<_> = state.sessions.all().into_iter().map(|live| session_json(&live.info)).collect();
    Json(json!({ "sessions": sessions }))
}

/// Never a key: with one, anybody could cancel.
fn session_json(info: &SessionInfo) -> Value {
    let who = &info.who;
    json!({
        "id": who.session(),
        "user": who.user(),
        "groups": who.groups(),
        "actor": who.actor(),
        "client": who.client(),
        "application": who.application(),
        "claimed_user": who.claimed_user(),
        "target": who.target(),
        "opened": rfc3339(info.opened_at_us),
        "shard": info.key.shard,
    })
}

async fn kill(State(api): State<Api>, Path(id): Path<String>) -> Response {
    let state = api.core.state();
    let Some(live) = state.sessions.by_id(&id) else {
        return refuse(StatusCode::NOT_FOUND, "no such session");
    };
    let (shard, relay) = live.info.key.place();
    let answer = session_json(&live.info);
    tracing::info!(session = id, "killed by the socket's owner");
    state.post(shard, ToShard::Kill { relay, session: id });
    Json(answer).into_response()
}

async fn sinks(State(api): State<Api>) -> Json<Value> {
    let now_us = now_us();
    let sinks: Vec<_> = api.core.sinks.board().all().iter().map(|status| status.json(now_us)).collect();
    Json(json!({ "sinks": sinks }))
}

async fn reload_now(State(api): State<Api>) -> Response {
    // A task of its own: a client that leaves does not stop it half way.
    let Ok(outcome) = tokio::spawn(reload::reload(api.core)).await else {
        return refuse(StatusCode::INTERNAL_SERVER_ERROR, "the reload ended early");
    };
    let reload::Outcome { result, needs_restart, .. } = outcome;
    match result {
        Ok(version) => Json(json!({ "snapshot": version, "needs_restart": needs_restart })).into_response(),
        Err(report) => refuse(StatusCode::UNPROCESSABLE_ENTITY, report),
    }
}
