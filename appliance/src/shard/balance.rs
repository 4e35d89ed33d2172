//! Who takes a new connection. SO_REUSEPORT deals connections by a hash of their addresses, so few long sessions may all lie
//! on one shard while its neighbours idle; the shard that accepts one therefore hands it to the shard that has the fewest,
//! before its first byte is read. A session never moves afterwards.
//!
//! Counts are touched when a connection opens and when it closes, never on a statement's way.

use super::mailbox::{Post, ToShard};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

/// A connection stays where it was accepted while that shard has at most one sixteenth more than the emptiest: handing over
/// costs a message and a wake, and among thousands of connections the hash alone comes close.
const TOLERANCE: u32 = 16;
/// Added to the count of a shard that takes no more connections.
const RETIRED: u32 = 1 << 31;

/// One shard's connections, the ones on their way to it included; on cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Seats(AtomicU32);

/// What the shards of one gateway share to even out their connections. The default one leaves them where the kernel put them.
#[derive(Debug, Default)]
pub struct Balance {
    seats: Box<[Seats]>,
    /// Known once all shards have started; until then each keeps what it accepts.
    posts: OnceLock<Vec<Post>>,
}

impl Balance {
    pub fn of(shards: usize) -> Arc<Self> {
        Arc::new(Self { seats: (0..shards).map(|_| Seats::default()).collect(), posts: OnceLock::new() })
    }

    /// The shards' mailboxes, by number. Once.
    pub fn begin(&self, posts: Vec<Post>) {
        debug_assert_eq!(posts.len(), self.seats.len());
        let _ = self.posts.set(posts);
    }

    /// Books a connection that `own` has accepted, and says who takes it.
    fn book(&self, own: usize) -> usize {
        let of = |shard: usize| self.seats[shard].0.load(Relaxed);
        let emptiest = (0..self.seats.len()).min_by_key(|&shard| of(shard)).unwrap_or(own);
        let least = of(emptiest);
        let keeps = self.posts.get().is_none() || of(own) <= least + least / TOLERANCE;
        let taker = if keeps { own } else { emptiest };
        self.seats[taker].0.fetch_add(1, Relaxed);
        taker
    }
}

/// One shard's place in the [`Balance`].
pub struct Place {
    balance: Arc<Balance>,
    number: usize,
}

impl Place {
    pub fn new(balance: Arc<Balance>, number: usize) -> Self {
        Self { balance, number }
    }

    /// A connection was accepted: given back if this shard keeps it, else it is on its way to another.
    pub fn deal(&self, listener: usize, socket: TcpStream) -> Option<TcpStream> {
        if self.balance.seats.is_empty() {
            return Some(socket);
        }
        let taker = self.balance.book(self.number);
        match self.balance.posts.get() {
            Some(posts) if taker != self.number => {
                posts[taker].send(ToShard::Adopt { listener, socket });
                None
            }
            _ => Some(socket),
        }
    }

    /// A connection that was booked for this shard is gone.
    pub fn left(&self) {
        if let Some(seats) = self.balance.seats.get(self.number) {
            let before = seats.0.fetch_sub(1, Relaxed);
            debug_assert!(before & !RETIRED > 0, "every connection is booked before it leaves");
        }
    }

    /// This shard takes no more connections.
    pub fn retire(&self) {
        if let Some(seats) = self.balance.seats.get(self.number) {
            seats.0.fetch_or(RETIRED, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::mailbox::Mailbox;
    use super::*;

    fn started(shards: usize) -> (Arc<Balance>, Vec<Mailbox>) {
        let balance = Balance::of(shards);
        let (mailboxes, posts) = (0..shards).map(|_| Mailbox::new().expect("an eventfd")).unzip();
        balance.begin(posts);
        (balance, mailboxes)
    }

    fn seats(balance: &Balance) -> Vec<u32> {
        balance.seats.iter().map(|seats| seats.0.load(Relaxed)).collect()
    }

    #[test]
    fn few_connections_are_dealt_evenly_whoever_accepts_them() {
        let (balance, _mailboxes) = started(3);
        let takers: Vec<usize> = (0..9).map(|_| balance.book(0)).collect();
        assert_eq!((&takers[..4], seats(&balance)), (&[0, 1, 2, 0][..], vec![3, 3, 3]));
        (0..3).for_each(|_| Place::new(balance.clone(), 1).left());
        assert_eq!([0, 2, 0].map(|own| balance.book(own)), [1, 1, 1]);
    }

    #[test]
    fn among_many_the_accepting_shard_keeps_its_own_within_the_tolerance() {
        let (balance, _mailboxes) = started(2);
        [1600, 1600].iter().zip(&balance.seats).for_each(|(count, seats)| seats.0.store(*count, Relaxed));
        let kept = (0..).take_while(|_| balance.book(0) == 0).count();
        assert_eq!(kept, 101);
    }

    #[test]
    fn a_shard_that_has_ended_gets_nothing() {
        let (balance, _mailboxes) = started(2);
        Place::new(balance.clone(), 1).retire();
        assert!((0..20).all(|_| balance.book(0) == 0));
    }

    #[test]
    fn without_a_balance_every_connection_stays() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let connect = || TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
        let place = Place::new(Arc::default(), 7);
        assert!((0..4).all(|_| place.deal(0, connect()).is_some()));
        place.left();
        place.retire();
        // Before all shards have started there is nobody to hand to either.
        let place = Place::new(Balance::of(2), 1);
        assert!((0..4).all(|_| place.deal(0, connect()).is_some()));
    }
}
