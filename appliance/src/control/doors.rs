//! Where the control thread will answer.

use super::socket::Socket;
use super::{Claim, StartError};
use std::net::{SocketAddr, TcpListener};

/// The ops listener and the control socket: ours before the shards take a connection, so that a gateway that cannot have them takes none.
/// Whoever connects meanwhile waits for the control thread.
pub struct Doors {
    pub(super) ops: TcpListener,
    pub(super) ops_address: SocketAddr,
    pub(super) socket: Socket,
}

impl Doors {
    pub fn open(address: SocketAddr, claim: &Claim) -> Result<Self, StartError> {
        let ops = TcpListener::bind(address).and_then(|listener| {
            listener.set_nonblocking(true)?;
            Ok((listener.local_addr()?, listener))
        });
        let (ops_address, ops) = ops.map_err(|error| StartError::Ops { address, error })?;
        let socket = claim.bind().map_err(|error| StartError::Socket { path: claim.socket_path(), error })?;
        Ok(Self { ops, ops_address, socket })
    }
}
