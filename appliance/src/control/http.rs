//! HTTP/1.1 for the ops listener and the control socket: so many connections, each for so long.
//!
//! `axum::serve` bounds neither. 1,100 connections that said nothing took every descriptor, those of the trail as well
//! ([`crate::limits::FILES_RESERVED`]), and every session stood still.

use super::limits::{HTTP_CONNECTION_TIME, HTTP_END_TIME, HTTP_HEAD_TIMEOUT};
use axum::Router;
use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

/// What one listener's connections may take.
#[derive(Clone, Copy)]
pub struct Bounds {
    /// At once. Beyond: they wait in the kernel's queue, which costs no descriptor.
    pub connections: usize,
    /// For a whole request's head, and between two requests.
    pub head: Duration,
    /// After this time a connection ends with its next answer,
    pub open: Duration,
    /// or after this one on top of it.
    pub end: Duration,
}

impl Bounds {
    pub fn of(connections: usize) -> Self {
        Self { connections, head: HTTP_HEAD_TIMEOUT, open: HTTP_CONNECTION_TIME, end: HTTP_END_TIME }
    }
}

/// Never ends. `routes`: for one connection.
pub async fn serve<L: Listener>(mut listener: L, bounds: Bounds, routes: impl Fn(&L::Io) -> Router) {
    let room = Arc::new(Semaphore::new(bounds.connections));
    loop {
        // Before accepting: what waits in the queue has no descriptor yet.
        let place = room.clone().acquire_owned().await.expect("nobody closes it");
        let (stream, _) = listener.accept().await;
        let routes = routes(&stream);
        tokio::spawn(async move {
            answer(stream, routes, bounds).await;
            drop(place);
        });
    }
}

/// One connection, to its end. How it ends is of no interest to anybody here: its other end sees it.
async fn answer(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, routes: Router, bounds: Bounds) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(bounds.head);
    let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        () = sleep(bounds.open) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(bounds.end, connection).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use std::net::SocketAddr;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    const LONG: Duration = Duration::from_secs(600);
    const REQUEST: &[u8] = b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n";

    async fn started(bounds: Bounds) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let routes = Router::new().route("/x", get(async || "ok\n")).route("/never", get(std::future::pending::<()>));
        tokio::spawn(serve(listener, bounds, move |_| routes.clone()));
        address
    }

    fn check(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async { timeout(Duration::from_secs(30), test).await.expect("it ends") });
    }

    async fn ask(address: SocketAddr, request: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.expect("connects");
        stream.write_all(request).await.expect("sends");
        stream
    }

    async fn answered(stream: &mut TcpStream) {
        let mut answer = Vec::new();
        while !answer.ends_with(b"ok\n") {
            assert!(stream.read_buf(&mut answer).await.expect("reads") > 0, "it closed");
        }
    }

    /// Everything until the other end closes.
    async fn rest(stream: &mut TcpStream) -> Vec<u8> {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        rest
    }

    #[test]
    fn connections_that_say_nothing_end_and_let_others_in() {
        check(async {
            let bounds = Bounds { connections: 2, head: Duration::from_millis(100), open: LONG, end: LONG };
            let address = started(bounds).await;
            let mut silent = Vec::new();
            for request in [&b""[..], b"GET /x HT", b"", b"GET"] {
                silent.push(ask(address, request).await);
            }
            answered(&mut ask(address, REQUEST).await).await;
            for stream in &mut silent {
                assert!(!rest(stream).await.ends_with(b"ok\n"));
            }
        });
    }

    #[test]
    fn beyond_the_bound_nobody_is_accepted_until_somebody_leaves() {
        check(async {
            let address = started(Bounds { connections: 1, head: LONG, open: LONG, end: LONG }).await;
            let mut first = ask(address, REQUEST).await;
            answered(&mut first).await;
            let mut second = ask(address, REQUEST).await;
            let early = timeout(Duration::from_millis(100), answered(&mut second)).await;
            assert!(early.is_err(), "the first one has the only place");
            drop(first);
            answered(&mut second).await;
        });
    }

    #[test]
    fn a_connection_is_used_again_until_its_time_is_over() {
        check(async {
            let bounds = Bounds { connections: 1, head: LONG, open: Duration::from_millis(300), end: LONG };
            let address = started(bounds).await;
            let mut kept = ask(address, REQUEST).await;
            answered(&mut kept).await;
            kept.write_all(REQUEST).await.expect("sends");
            answered(&mut kept).await;
            assert_eq!(rest(&mut kept).await, b"");
            answered(&mut ask(address, REQUEST).await).await;
        });
    }

    #[test]
    fn an_answer_that_does_not_come_ends_as_well() {
        check(async {
            let time = Duration::from_millis(50);
            let address = started(Bounds { connections: 1, head: LONG, open: time, end: time }).await;
            let mut stuck = ask(address, b"GET /never HTTP/1.1\r\nHost: x\r\n\r\n").await;
            assert_eq!(rest(&mut stuck).await, b"");
            answered(&mut ask(address, REQUEST).await).await;
        });
    }
}
