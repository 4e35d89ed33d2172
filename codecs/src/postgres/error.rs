//! What the wire did that no honest peer does: one variant per accusation, no strings.

use crate::Side;
use std::fmt;

/// What the wire did that no honest peer does. The connection closes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProtocolError {
    /// The start-up packet's length is below 8 or above 10,000 bytes.
    StartupLength { length: u32 },
    /// The start-up packet's parameters do not end where its length says.
    StartupMalformed,
    /// A protocol other than 3.x.
    UnsupportedProtocol { major: u16, minor: u16 },
    /// SSLRequest inside TLS.
    SecureTwice,
    /// SSLRequest and GSSENCRequest without end.
    TooManyNegotiations,
    /// Bytes behind an SSLRequest, or behind the target's `S`, before the handshake (CVE-2021-23214, CVE-2021-23222).
    BytesBehindSecure { side: Side },
    /// The target answered SSLRequest with neither `S` nor `N`.
    SecureReply { byte: u8 },
    /// Anything but a password message where one is due.
    ExpectedCredential { kind: u8 },
    /// The password or SASL message is not built as the manual says.
    CredentialMalformed,
    /// A mechanism that was not offered.
    UnknownMechanism,
    /// The target asks for a method this product does not speak (GSSAPI, SSPI, a SASL mechanism other than SCRAM).
    UnsupportedAuthentication { method: u32 },
    /// The target asks for less than what is configured as the weakest acceptable method.
    WeakAuthentication,
    /// The target wants the password in the clear over a connection that is not encrypted.
    CleartextWithoutTls,
    /// A SCRAM message of the target is malformed, or its nonce does not continue ours.
    ScramMalformed,
    /// Fewer than 4,096 or more than 1,000,000 iterations (CVE-2026-42198).
    ScramIterations { iterations: u32 },
    /// The target does not know the password's verifier: somebody else answers in its place.
    ScramServerProof,
    /// The target ended SCRAM with an error of its own (`e=`).
    ScramServerError,
    /// A length field below 4.
    LengthTooSmall { side: Side, kind: u8 },
    /// A length field beyond what any PostgreSQL sends or takes (1 GiB).
    LengthAbsurd { side: Side, kind: u8, length: u32 },
    /// A message that must be whole to be decided or masked is larger than the limit for its kind.
    TooLarge { side: Side, kind: u8, length: usize },
    /// A type byte that no PostgreSQL peer on that side sends.
    UnknownMessage { side: Side, kind: u8 },
    /// A message that may not come in this state.
    UnexpectedMessage { side: Side, kind: u8 },
    /// The fields of a message do not fill its length exactly.
    Malformed { side: Side, kind: u8 },
    /// A DataRow whose column count differs from the description its mask was made for.
    ColumnCountMismatch { described: usize, sent: usize },
    /// Rows of a statement that was described as returning none: no mask was made for them.
    RowWithoutShape,
    /// Messages other than Sync and Flush were sent behind a statement that turned out to be COPY FROM STDIN, and nobody
    /// can tell which of them the target will read as what.
    PipelinedBehindCopy,
    /// A message other than CopyData, CopyDone, CopyFail, Flush and Sync while the target reads copy data. PostgreSQL 14
    /// and later end the connection over it.
    StatementDuringCopy { kind: u8 },
    /// CopyBothResponse outside a replication connection.
    CopyBothOutsideReplication,
    /// The statement that cannot exist does exist: a refusal inside a transaction could not abort it.
    RefusalNotEnforced,
    /// More prepared statements or portals than one session may name.
    TooManyNames,
}

impl ProtocolError {
    /// The SQLSTATE a client reads for it.
    pub fn sqlstate(self) -> [u8; 5] {
        match self {
            ProtocolError::TooLarge { .. } | ProtocolError::LengthAbsurd { .. } | ProtocolError::TooManyNames => {
                *b"54000"
            }
            ProtocolError::UnsupportedProtocol { .. } => *b"0A000",
            ProtocolError::UnsupportedAuthentication { .. }
            | ProtocolError::WeakAuthentication
            | ProtocolError::CleartextWithoutTls
            | ProtocolError::ScramMalformed
            | ProtocolError::ScramIterations { .. }
            | ProtocolError::ScramServerProof
            | ProtocolError::ScramServerError
            | ProtocolError::SecureReply { .. } => *b"08004",
            _ => *b"08P01",
        }
    }

    /// Whose fault it is.
    pub fn side(self) -> Side {
        match self {
            ProtocolError::BytesBehindSecure { side }
            | ProtocolError::LengthTooSmall { side, .. }
            | ProtocolError::LengthAbsurd { side, .. }
            | ProtocolError::TooLarge { side, .. }
            | ProtocolError::UnknownMessage { side, .. }
            | ProtocolError::UnexpectedMessage { side, .. }
            | ProtocolError::Malformed { side, .. } => side,
            ProtocolError::StartupLength { .. }
            | ProtocolError::StartupMalformed
            | ProtocolError::UnsupportedProtocol { .. }
            | ProtocolError::SecureTwice
            | ProtocolError::TooManyNegotiations
            | ProtocolError::ExpectedCredential { .. }
            | ProtocolError::CredentialMalformed
            | ProtocolError::UnknownMechanism
            | ProtocolError::PipelinedBehindCopy
            | ProtocolError::StatementDuringCopy { .. }
            | ProtocolError::RefusalNotEnforced
            | ProtocolError::TooManyNames => Side::Client,
            ProtocolError::SecureReply { .. }
            | ProtocolError::UnsupportedAuthentication { .. }
            | ProtocolError::WeakAuthentication
            | ProtocolError::CleartextWithoutTls
            | ProtocolError::ScramMalformed
            | ProtocolError::ScramIterations { .. }
            | ProtocolError::ScramServerProof
            | ProtocolError::ScramServerError
            | ProtocolError::ColumnCountMismatch { .. }
            | ProtocolError::RowWithoutShape
            | ProtocolError::CopyBothOutsideReplication => Side::Target,
        }
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl std::error::Error for ProtocolError {}
