//! What is said of an address that cannot be had.

use std::io;
use std::net::SocketAddr;

/// Why, and how to find out who has it.
pub fn refusal(address: SocketAddr, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => format!("{error}; `ss -ltnp 'sport = :{}'` tells by whom", address.port()),
        _ => error.to_string(),
    }
}
