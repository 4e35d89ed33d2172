//! The addresses of a name, within a time: the system's resolver takes as long as it likes.

use crate::timed::left;
use std::io;
use std::net::SocketAddr;
use std::sync::mpsc::{self, Receiver};
use std::time::Instant;

type Found = io::Result<Vec<SocketAddr>>;

/// Asks on a thread of its own.
#[derive(Default)]
pub struct Resolver {
    /// What was not answered in time. It is waited for again: a resolver that hangs holds one thread, not one more each time.
    asked: Option<Receiver<Found>>,
}

impl Resolver {
    pub fn resolve(&mut self, deadline: Instant, lookup: impl FnOnce() -> Found + Send + 'static) -> Found {
        let asked = match self.asked.take() {
            Some(asked) => asked,
            None => ask(lookup)?,
        };
        match asked.recv_timeout(left(deadline)?) {
            Ok(found) => found,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                self.asked = Some(asked);
                Err(io::Error::other("the name was not resolved in time"))
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(io::Error::other("the name could not be resolved")),
        }
    }
}

fn ask(lookup: impl FnOnce() -> Found + Send + 'static) -> io::Result<Receiver<Found>> {
    let (answer, asked) = mpsc::sync_channel(1);
    let resolve = move || drop(answer.send(lookup()));
    std::thread::Builder::new().name("resolver".into()).spawn(resolve)?;
    Ok(asked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_resolver_that_hangs_is_waited_for_again_and_not_asked_twice() {
        let mut resolver = Resolver::default();
        let (go, until) = mpsc::channel::<()>();
        let soon = || Instant::now() + Duration::from_millis(20);
        let late = Instant::now() + Duration::from_secs(60);
        let slow = move || {
            let _ = until.recv();
            Ok(vec![SocketAddr::from(([192, 0, 2, 1], 514))])
        };
        let failed = resolver.resolve(soon(), slow).expect_err("it hangs");
        assert!(failed.to_string().contains("in time"), "{failed}");
        resolver.resolve(soon(), || unreachable!("asked twice")).expect_err("it hangs");
        drop(go);
        assert_eq!(resolver.resolve(late, || unreachable!("asked twice")).expect("found").len(), 1);
        assert!(resolver.resolve(late, || Ok(Vec::new())).expect("found").is_empty(), "it is asked anew");
    }
}
