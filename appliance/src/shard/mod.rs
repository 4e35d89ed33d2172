//! Everything one core owns: sockets, relays, gates, buffers, the segment being written.

pub mod mailbox;
