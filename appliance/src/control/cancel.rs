//! A cancel request, passed on: the client's key was ours, the target's key goes to the target.

use super::limits::{CANCEL_ADDRESSES_MAX, CANCEL_TIMEOUT};
use super::target_link;
use crate::snapshot::Target;
use std::io;
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// CancelRequest and SSLRequest codes of the PostgreSQL protocol, section "Message Formats".
const CANCEL_REQUEST: i32 = 80_877_102;
const SSL_REQUEST: i32 = 80_877_103;

/// Sends the request to every address of the target at once: which of them holds the session is not known here, and a
/// server ignores a key it does not know. `Ok`: at least one took it.
pub async fn send(target: &Target, process: i32, secret: &[u8]) -> io::Result<()> {
    let message = request(process, secret);
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the target's host name has no address");
    let mut sent = false;
    let attempts: Vec<_> =
        target.resolved.iter().take(CANCEL_ADDRESSES_MAX).map(|address| one(target, *address, &message)).collect();
    for outcome in join_all(attempts).await {
        match outcome {
            Ok(()) => sent = true,
            Err(error) => last = error,
        }
    }
    if sent { Ok(()) } else { Err(last) }
}

/// Few and short: polled together without a crate for it.
async fn join_all<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut futures: Vec<_> = futures.into_iter().map(Box::pin).collect();
    let mut outputs: Vec<Option<F::Output>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(|cx| {
        let mut waiting = false;
        for (future, output) in futures.iter_mut().zip(&mut outputs) {
            if output.is_none() {
                match future.as_mut().poll(cx) {
                    std::task::Poll::Ready(value) => *output = Some(value),
                    std::task::Poll::Pending => waiting = true,
                }
            }
        }
        if waiting { std::task::Poll::Pending } else { std::task::Poll::Ready(()) }
    })
    .await;
    outputs.into_iter().flatten().collect()
}

async fn one(target: &Target, address: SocketAddr, message: &[u8]) -> io::Result<()> {
    let attempt = async {
        let mut stream = target_link::connect_to(address).await?;
        let Some(config) = &target.tls else { return deliver(stream, message).await };
        stream.write_all(&[&8i32.to_be_bytes()[..], &SSL_REQUEST.to_be_bytes()].concat()).await?;
        // One byte and no more is read before the handshake (CVE-2021-23222).
        if stream.read_u8().await? != b'S' {
            return Err(io::Error::new(io::ErrorKind::ConnectionRefused, "the target does not offer TLS"));
        }
        deliver(target_link::encrypt(config.clone(), &target.server_name, stream).await?, message).await
    };
    timeout(CANCEL_TIMEOUT, attempt).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// The server answers nothing; it closes once the signal is sent, and the client is told by our close in turn.
async fn deliver(mut stream: impl AsyncRead + AsyncWrite + Unpin, message: &[u8]) -> io::Result<()> {
    stream.write_all(message).await?;
    stream.flush().await?;
    let mut ignored = [0; 256];
    // A close without TLS's goodbye is what PostgreSQL does here: just as good.
    while matches!(stream.read(&mut ignored).await, Ok(1..)) {}
    Ok(())
}

fn request(process: i32, secret: &[u8]) -> Vec<u8> {
    let length = i32::try_from(12 + secret.len()).expect("a cancel key has at most 256 bytes");
    let mut message = Vec::with_capacity(12 + secret.len());
    message.extend(length.to_be_bytes());
    message.extend(CANCEL_REQUEST.to_be_bytes());
    message.extend(process.to_be_bytes());
    message.extend(secret);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_is_the_manuals() {
        let bytes = request(0x0102_0304, &[9, 8, 7, 6]);
        assert_eq!(bytes, [0, 0, 0, 16, 4, 210, 22, 46, 1, 2, 3, 4, 9, 8, 7, 6]);
        assert_eq!(request(1, &[0; 256]).len(), 268);
    }
}
