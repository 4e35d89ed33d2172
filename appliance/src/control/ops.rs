//! The ops listener: is it alive, is it ready, what does it count. Nothing here tells who does what.

use super::core::{Core, Draining};
use super::http::{self, Bounds};
use super::limits::OPS_CONNECTIONS_MAX;
use crate::audit::archive::supervise::ArchiveWatch;
use crate::shard::mono_us;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use std::sync::Arc;
use tokio::net::TcpListener;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub async fn serve(listener: TcpListener, core: Arc<Core>) {
    let routes = Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/healthz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(core);
    http::serve(listener, Bounds::of(OPS_CONNECTIONS_MAX), move |_| routes.clone()).await;
}

/// Ready for new connections: every shard runs, what they record finds room and is archived, and nobody has asked us to stop.
async fn ready(State(core): State<Arc<Core>>) -> Response {
    // A file is read for it: not while the core is held.
    let archive = core.scrape.archive.as_ref().and_then(ArchiveWatch::trouble);
    let trouble = core.scrape.sealer.get().or(archive).or_else(|| core.scrape.blocked(mono_us()));
    let trouble = trouble.or_else(|| core.scrape.silent(mono_us()));
    let state = core.state();
    let ended = state.ended.iter().position(Option::is_some);
    let refusal = match (state.draining, ended, trouble) {
        (Draining::No, None, None) => return "ok\n".into_response(),
        (_, Some(shard), _) => format!("shard {shard} has ended\n"),
        (Draining::WhenIdle | Draining::Now, None, _) => "draining\n".into(),
        (Draining::No, None, Some(trouble)) => format!("{trouble}\n"),
    };
    (StatusCode::SERVICE_UNAVAILABLE, refusal).into_response()
}

async fn metrics(State(core): State<Arc<Core>>) -> Response {
    match core.scrape.text() {
        Ok(text) => ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
