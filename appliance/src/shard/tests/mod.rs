//! The shard against real sockets.
