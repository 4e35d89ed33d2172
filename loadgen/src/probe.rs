//! One request before the load: what a right answer looks like.

use crate::check::Tally;
use crate::conn::{Conn, Fault, News, Plan, Request};
use crate::rng::Rng;
use crate::sys::{self, Epoll, now_ns};

/// How often the timeout is looked for.
const LOOK_NS: u64 = 20_000_000;

/// Runs the program once on one connection and returns what each statement answered, with the server's version.
pub fn probe(plan: &Plan, timeout_ns: u64) -> Result<(Vec<Tally>, String), Fault> {
    let epoll_fault = |error: std::io::Error| Fault::new("epoll", error.to_string());
    let mut epoll = Epoll::new(8).map_err(epoll_fault)?;
    let mut conn = Conn::new(0);
    let mut news = Vec::new();
    conn.open(plan, &epoll)?;
    let begun = now_ns();
    let mut asked = false;
    loop {
        let mut result = Ok(());
        let wait_ns = if conn.unread { 0 } else { LOOK_NS };
        for index in 0..epoll.wait(Some(wait_ns)).map_err(epoll_fault)? {
            let event = epoll.event(index);
            result = result.and(conn.ready(plan, &epoll, event.hangup, &mut news));
        }
        if conn.unread {
            result = result.and(conn.ready(plan, &epoll, false, &mut news));
        }
        for item in std::mem::take(&mut news) {
            match item {
                News::Ready => {
                    asked = true;
                    plan.program.draw(&mut Rng::new(1), &mut conn.values);
                    let now = now_ns();
                    conn.begin(plan, Request::new(now, now));
                    conn.flush(&epoll)?;
                }
                News::RolledBack { .. } => {}
                News::Finished { fault: Some(fault), .. } => return Err(*fault),
                News::Finished { .. } => {
                    conn.close();
                    return Ok((std::mem::take(&mut conn.tallies), conn.server_version));
                }
            }
        }
        // A server may close after its answer.
        result?;
        if now_ns() - begun > timeout_ns {
            return Err(too_late(asked, timeout_ns));
        }
        if sys::interrupted() {
            return Err(Fault::new("interrupted", "interrupted before the load began"));
        }
    }
}

fn too_late(asked: bool, timeout_ns: u64) -> Fault {
    let seconds = timeout_ns as f64 / 1e9;
    if asked {
        Fault::new("timeout", format!("no answer to a first request within {seconds} s (--timeout)"))
    } else {
        Fault::new("login", format!("the server did not finish a login within {seconds} s (--timeout)"))
    }
}
