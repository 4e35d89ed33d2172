//! Where the undecided bytes of one direction live.
//!
//! ```text
//!   Empty --receive--> Borrowed (the ring's buffer) --the rest of a message follows--> joined:
//!     in the headroom of the next buffer while the cut head is small, else in a pooled Vec that may grow
//! ```
//!
//! An idle connection has decided everything and owns no buffer. A small undecided rest is moved out of its buffer, so
//! that a peer who stops in the middle of a message holds a few bytes and not a buffer of everybody's ring.

use super::ring::{Buffers, Chunk, HEADROOM_BYTES, Payload};

/// Vecs kept for reuse by one shard, and the largest capacity worth keeping. Beyond: freed.
const POOL_VECS_MAX: usize = 256;
const POOL_CAPACITY_MAX: usize = 64 << 10;

/// Spare vectors: so that a steady state allocates nothing.
#[derive(Default)]
pub struct Pool {
    spare: Vec<Vec<u8>>,
}

impl Pool {
    pub fn take(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_default()
    }

    pub fn give(&mut self, mut bytes: Vec<u8>) {
        if self.spare.len() < POOL_VECS_MAX && (1..=POOL_CAPACITY_MAX).contains(&bytes.capacity()) {
            bytes.clear();
            self.spare.push(bytes);
        }
    }
}

/// The undecided bytes of one direction.
#[derive(Default)]
pub enum Store {
    #[default]
    Empty,
    Borrowed(Chunk),
    /// `bytes[start..]`.
    Joined {
        bytes: Vec<u8>,
        start: usize,
    },
}

impl Store {
    pub fn len(&self) -> usize {
        match self {
            Store::Empty => 0,
            Store::Borrowed(chunk) => chunk.len(),
            Store::Joined { bytes, start } => bytes.len() - start,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn bytes<'a>(&'a self, buffers: &'a Buffers) -> &'a [u8] {
        match self {
            Store::Empty => &[],
            Store::Borrowed(chunk) => buffers.bytes(chunk),
            Store::Joined { bytes, start } => &bytes[*start..],
        }
    }

    pub fn bytes_mut<'a>(&'a mut self, buffers: &'a Buffers) -> &'a mut [u8] {
        match self {
            Store::Empty => &mut [],
            Store::Borrowed(chunk) => buffers.bytes_mut(chunk),
            Store::Joined { bytes, start } => &mut bytes[*start..],
        }
    }

    /// More bytes have been received.
    pub fn push(&mut self, mut chunk: Chunk, buffers: &mut Buffers, pool: &mut Pool) {
        if self.is_empty() {
            self.clear(buffers, pool);
            *self = Store::Borrowed(chunk);
            return;
        }
        if self.len() <= HEADROOM_BYTES {
            let head = std::mem::take(self);
            if buffers.prepend(&mut chunk, head.bytes(buffers)) {
                head.discard(buffers, pool);
                *self = Store::Borrowed(chunk);
                return;
            }
            *self = head;
        }
        self.joined(buffers, pool).extend_from_slice(buffers.bytes(&chunk));
        buffers.release(chunk);
    }

    /// The bytes as a vector that may grow at its end (decrypted bytes are appended there).
    pub fn joined(&mut self, buffers: &mut Buffers, pool: &mut Pool) -> &mut Vec<u8> {
        if !matches!(self, Store::Joined { .. }) {
            let mut bytes = pool.take();
            bytes.extend_from_slice(self.bytes(buffers));
            std::mem::replace(self, Store::Joined { bytes, start: 0 }).discard(buffers, pool);
        }
        match self {
            Store::Joined { bytes, start } => {
                // Moves the rest to the front once most of the vector is decided: each byte moves at most once.
                if *start > bytes.len() / 2 {
                    bytes.drain(..*start);
                    *start = 0;
                }
                bytes
            }
            Store::Empty | Store::Borrowed(_) => unreachable!("joined just above"),
        }
    }

    /// The vector just made by [`Store::joined`].
    pub fn vector(&mut self) -> &mut Vec<u8> {
        match self {
            Store::Joined { bytes, .. } => bytes,
            Store::Empty | Store::Borrowed(_) => unreachable!("the caller has joined the bytes"),
        }
    }

    /// The bytes, no longer as a window.
    pub fn into_payload(self) -> Payload {
        match self {
            Store::Empty => Payload::owned(Vec::new()),
            Store::Borrowed(chunk) => Payload::Borrowed(chunk),
            Store::Joined { bytes, start } => {
                let end = bytes.len();
                Payload::Owned { bytes, start, end }
            }
        }
    }

    /// Forgets the first `count` bytes: they are decided.
    pub fn advance(&mut self, count: usize, buffers: &mut Buffers, pool: &mut Pool) {
        match self {
            Store::Empty => assert!(count == 0, "nothing was there to decide"),
            Store::Borrowed(chunk) => chunk.advance(count),
            Store::Joined { bytes, start } => {
                assert!(count <= bytes.len() - *start, "decided more than there was");
                *start += count;
            }
        }
        if self.is_empty() {
            self.clear(buffers, pool);
        }
    }

    /// Takes `start..end` out to be sent, without a copy where that can be; everything before `end` is forgotten.
    pub fn take(&mut self, start: usize, end: usize, buffers: &mut Buffers, pool: &mut Pool) -> Payload {
        match self {
            Store::Empty => unreachable!("cleared bytes come from a window that has some"),
            Store::Borrowed(chunk) => {
                chunk.advance(start);
                let front = buffers.split(chunk, end - start);
                self.advance(0, buffers, pool);
                Payload::Borrowed(front)
            }
            Store::Joined { bytes, start: from } => {
                let (first, last) = (*from + start, *from + end);
                let rest = bytes.len() - last;
                // Moves whichever is cheaper into a vector of its own: what goes, or what stays.
                if rest <= end - start {
                    let mut kept = pool.take();
                    kept.extend_from_slice(&bytes[last..]);
                    let gone = std::mem::replace(bytes, kept);
                    *from = 0;
                    self.advance(0, buffers, pool);
                    return Payload::Owned { bytes: gone, start: first, end: last };
                }
                let mut gone = pool.take();
                gone.extend_from_slice(&bytes[first..last]);
                *from = last;
                Payload::owned(gone)
            }
        }
    }

    /// Moves a rest that is small, or any rest when buffers are scarce, out of the ring's buffer. Nothing left: keeps no
    /// memory at all.
    pub fn settle(&mut self, buffers: &mut Buffers, pool: &mut Pool) {
        match self {
            Store::Empty => {}
            Store::Borrowed(chunk) if chunk.len() <= HEADROOM_BYTES || buffers.scarce() => {
                self.joined(buffers, pool);
            }
            Store::Borrowed(_) => {}
            Store::Joined { .. } if self.is_empty() => self.clear(buffers, pool),
            Store::Joined { .. } => {}
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self, buffers: &mut Buffers, pool: &mut Pool) {
        std::mem::take(self).discard(buffers, pool);
    }

    fn discard(self, buffers: &mut Buffers, pool: &mut Pool) {
        match self {
            Store::Empty => {}
            Store::Borrowed(chunk) => buffers.release(chunk),
            Store::Joined { bytes, .. } => pool.give(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bench {
        buffers: Buffers,
        pool: Pool,
        store: Store,
    }

    impl Bench {
        fn new() -> Self {
            let buffers = Buffers::new(8, 16 << 10).expect("memory");
            Self { buffers, pool: Pool::default(), store: Store::Empty }
        }
        fn push(&mut self, buffer: u16, bytes: &[u8]) {
            let chunk = self.buffers.receive(buffer, bytes);
            self.store.push(chunk, &mut self.buffers, &mut self.pool);
        }
        fn advance(&mut self, count: usize) {
            self.store.advance(count, &mut self.buffers, &mut self.pool);
            self.store.settle(&mut self.buffers, &mut self.pool);
        }
        fn take(&mut self, start: usize, end: usize) -> Vec<u8> {
            let payload = self.store.take(start, end, &mut self.buffers, &mut self.pool);
            match payload {
                Payload::Borrowed(chunk) => {
                    let bytes = self.buffers.bytes(&chunk).to_vec();
                    self.buffers.release(chunk);
                    bytes
                }
                Payload::Owned { bytes, start, end } => bytes[start..end].to_vec(),
            }
        }
        fn check(&self, bytes: &[u8], held: usize) {
            assert!(self.store.bytes(&self.buffers) == bytes, "{} bytes", self.store.len());
            assert_eq!(self.buffers.held(), held, "buffers held");
        }
    }

    #[test]
    fn a_decided_window_keeps_no_buffer() {
        let mut bench = Bench::new();
        bench.push(0, b"SELECT 1");
        bench.check(b"SELECT 1", 1);
        assert_eq!(bench.take(0, 8), b"SELECT 1");
        bench.check(b"", 0);
        assert!(matches!(bench.store, Store::Empty));
    }

    #[test]
    fn a_small_rest_leaves_its_buffer_and_is_put_in_front_of_what_follows() {
        let mut bench = Bench::new();
        bench.push(0, b"decided|cut mess");
        bench.advance(8);
        bench.check(b"cut mess", 0);
        bench.push(1, b"age");
        assert!(matches!(bench.store, Store::Borrowed(_)), "joined in the headroom");
        bench.check(b"cut message", 1);
        assert_eq!(bench.take(0, 11), b"cut message");
        bench.check(b"", 0);
    }

    #[test]
    fn a_large_rest_stays_and_is_joined_by_one_copy() {
        let mut bench = Bench::new();
        let (large, more) = (vec![1; 10_000], vec![2; 9_000]);
        bench.push(0, &large);
        bench.advance(1_000);
        bench.check(&large[1_000..], 1);
        bench.push(1, &more);
        bench.check(&[&large[1_000..], &more].concat(), 0);
        assert_eq!(bench.take(2_000, 17_000), [&large[3_000..], &more[..8_000]].concat());
        bench.check(&more[8_000..], 0);
    }

    #[test]
    fn taking_a_small_front_of_a_joined_window_copies_the_front() {
        let mut bench = Bench::new();
        bench.push(0, &[1; 5_000]);
        bench.push(1, &[2; 5_000]);
        assert_eq!(bench.take(0, 100), [1; 100]);
        assert_eq!(bench.store.len(), 9_900);
        assert_eq!(bench.take(4_800, 5_000), [[1; 100], [2; 100]].concat());
        assert_eq!(bench.take(0, 4_900), [2; 4_900]);
        bench.check(b"", 0);
    }

    #[test]
    fn an_edit_before_clearing_is_what_is_sent_and_its_neighbour_is_untouched() {
        let mut bench = Bench::new();
        bench.push(0, b"open secret next");
        let front = bench.store.take(0, 5, &mut bench.buffers, &mut bench.pool);
        bench.store.bytes_mut(&bench.buffers)[..6].fill(b'*');
        bench.check(b"****** next", 1);
        let Payload::Borrowed(chunk) = front else { panic!("sent from where it lies") };
        assert_eq!(bench.buffers.bytes(&chunk), b"open ");
        bench.buffers.release(chunk);
        bench.check(b"****** next", 1);
        bench.advance(11);
        bench.check(b"", 0);
    }
}
