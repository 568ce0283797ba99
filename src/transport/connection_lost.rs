//! Why a connection ended, told apart as far as somebody would react to it.

use std::fmt;

use thiserror::Error;

/// QUIC carries a TLS alert as the transport error 0x0100 + alert (RFC 9001, 4.8).
const CRYPTO_ERRORS: std::ops::Range<u64> = 0x100..0x200;

/// How much of a text that the other side sent is repeated, in characters.
const MAX_REASON_CHARS: usize = 500;

/// The end of a connection. Nothing can be sent or received on it any more.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConnectionLost {
    /// Agent and hub do not trust each other. With TLS 1.3 an agent learns only at its first use of a
    /// connection that the hub has refused its certificate. Remedy: [`TlsFailure::remedy`].
    #[error("{0}")]
    Tls(TlsFailure),
    /// The other side closed the connection, and said why.
    #[error("the other side closed the connection: {reason} (code {code})")]
    Closed {
        /// The code given to [`Connection::close`](super::Connection::close) there.
        code: u64,
        /// The reason given there, which may be empty.
        reason: String,
    },
    /// Nothing was heard for the idle timeout: the other side died, or the network is down. Connect again.
    #[error("nothing was heard from the other side for too long: it died, or the network is down")]
    TimedOut,
    /// The other side does not know this connection (any more): it was started anew. Connect again.
    #[error("the other side no longer knows this connection, probably because it was restarted")]
    Reset,
    /// The other side takes no connections now: it is overloaded, or stopping. Connect later.
    #[error("the other side accepts no connections at present")]
    Refused,
    /// This side closed the connection.
    #[error("the connection was closed on this side")]
    ClosedHere,
    /// What speaks there is no QUIC of a kind that is understood here. Check address and port.
    #[error("the other side violated the QUIC protocol ({0}): is a hub listening at this address?")]
    Protocol(String),
}

/// Which side found fault with the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judge {
    /// This side refused the other.
    Here,
    /// The other side refused this one.
    There,
}

/// A TLS handshake that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFailure {
    /// Who refused whom.
    pub judge: Judge,
    /// The TLS alert (RFC 8446, 6).
    pub alert: u8,
    /// What the TLS library there or here said; may be empty.
    pub detail: String,
}

/// The alerts that have a remedy of their own (RFC 8446, 6.2; RFC 7301, 3.2).
mod alert {
    pub const BAD_CERTIFICATE: u8 = 42;
    pub const UNSUPPORTED_CERTIFICATE: u8 = 43;
    pub const CERTIFICATE_REVOKED: u8 = 44;
    pub const CERTIFICATE_EXPIRED: u8 = 45;
    pub const CERTIFICATE_UNKNOWN: u8 = 46;
    pub const UNKNOWN_CA: u8 = 48;
    /// A signature does not verify: a CA of the same name, but with another key.
    pub const DECRYPT_ERROR: u8 = 51;
    pub const CERTIFICATE_REQUIRED: u8 = 116;
    pub const NO_APPLICATION_PROTOCOL: u8 = 120;
}

impl TlsFailure {
    /// What to do about it, in a sentence.
    pub fn remedy(&self) -> &'static str {
        match (self.judge, self.alert) {
            (_, alert::NO_APPLICATION_PROTOCOL) => {
                "agent and hub speak incompatible versions of the protocol, or this is no hub: bring both to \
                 the same release"
            }
            // TLS has one alert for both; what the library says here tells them apart.
            (Judge::Here, alert::UNKNOWN_CA) if self.detail.contains("RevocationStatus") => {
                "the revocation lists here have none of the CA that signed the other side's certificate, or an \
                 intermediate one: add it (a hub's crlPath needs a list of each CA)"
            }
            (Judge::Here, _) if self.detail.contains("UnsupportedCertVersion") => {
                "the other side's certificate is of X.509 version 1, which names neither hosts nor purposes: issue it \
                 anew with extensions (openssl x509 -req … -extfile …)"
            }
            (Judge::Here, alert::UNKNOWN_CA | alert::DECRYPT_ERROR) => {
                "the other side's certificate is not signed by the CA that is trusted here: pass the CA that \
                 signed it (an agent's caPath, a hub's clientCaPath)"
            }
            (Judge::Here, alert::CERTIFICATE_REQUIRED) => {
                "the agent came without a certificate, which this hub requires: give it certPath and keyPath"
            }
            (_, alert::CERTIFICATE_REVOKED) => "the certificate has been revoked: get a new one",
            (_, alert::CERTIFICATE_EXPIRED) => {
                "the certificate is expired, or not yet valid: renew it, and compare the two clocks"
            }
            (Judge::Here, alert::BAD_CERTIFICATE | alert::CERTIFICATE_UNKNOWN) => {
                "the other side's certificate is not good for this: if it names another host, use the host \
                 name that the certificate was issued for"
            }
            (Judge::There, alert::CERTIFICATE_REQUIRED) => {
                "the hub requires a client certificate: pass certPath and keyPath, and leave enableMTLS on"
            }
            (Judge::There, alert::UNKNOWN_CA | alert::DECRYPT_ERROR) => {
                "the other side does not know the CA that signed this side's certificate: use a certificate \
                 signed by the CA that it trusts (a hub's clientCaPath, an agent's caPath). A hub with revocation \
                 lists (crlPath) also refuses so if it has none of that CA"
            }
            (Judge::There, alert::BAD_CERTIFICATE | alert::CERTIFICATE_UNKNOWN) => {
                "the other side does not accept this side's certificate: check what it was issued for"
            }
            (_, alert::UNSUPPORTED_CERTIFICATE) => {
                "the certificate was issued for another purpose: an agent's must allow client authentication, \
                 a hub's server authentication"
            }
            _ => "check that certificate, key and CA on both sides belong together",
        }
    }
}

impl fmt::Display for TlsFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.judge {
            Judge::Here => "TLS: the other side was refused here",
            Judge::There => "TLS: refused by the other side",
        })?;
        match self.detail.as_str() {
            "" => write!(f, " (alert {})", self.alert)?,
            detail => write!(f, " (alert {}: {detail})", self.alert)?,
        }
        write!(f, "; {}", self.remedy())
    }
}

impl From<quinn::ConnectionError> for ConnectionLost {
    fn from(error: quinn::ConnectionError) -> Self {
        use quinn::ConnectionError as E;
        match error {
            E::TransportError(error) => classify(Judge::Here, error.code, error.reason),
            E::ConnectionClosed(close) => {
                classify(Judge::There, close.error_code, text_from_outside(&close.reason))
            }
            E::ApplicationClosed(close) => {
                Self::Closed { code: close.error_code.into_inner(), reason: text_from_outside(&close.reason) }
            }
            E::TimedOut => Self::TimedOut,
            E::Reset => Self::Reset,
            E::LocallyClosed => Self::ClosedHere,
            E::VersionMismatch | E::CidsExhausted => Self::Protocol(error.to_string()),
        }
    }
}

fn classify(judge: Judge, code: quinn::TransportErrorCode, detail: String) -> ConnectionLost {
    let number = u64::from(code);
    // The second is what becomes of a hub's own close code where the handshake is not finished yet.
    if [quinn::TransportErrorCode::CONNECTION_REFUSED, quinn::TransportErrorCode::APPLICATION_ERROR]
        .contains(&code)
    {
        return ConnectionLost::Refused;
    }
    match u8::try_from(number.wrapping_sub(CRYPTO_ERRORS.start)) {
        Ok(alert) => ConnectionLost::Tls(TlsFailure { judge, alert, detail }),
        Err(_) if detail.is_empty() => ConnectionLost::Protocol(code.to_string()),
        Err(_) => ConnectionLost::Protocol(format!("{code}: {detail}")),
    }
}

/// Text from the network ends in logs and terminals: bounded, and without control characters.
fn text_from_outside(bytes: &[u8]) -> String {
    let printable = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    String::from_utf8_lossy(bytes).chars().take(MAX_REASON_CHARS).map(printable).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crypto_error_is_a_tls_alert_and_nothing_else_is() {
        let lost = classify(Judge::There, quinn::TransportErrorCode::crypto(116), String::new());
        let ConnectionLost::Tls(failure) = lost else { panic!("{lost:?}") };
        assert_eq!(failure.alert, 116);
        assert!(failure.to_string().contains("requires a client certificate"));
        let lost = classify(Judge::Here, quinn::TransportErrorCode::PROTOCOL_VIOLATION, "why".into());
        assert!(matches!(lost, ConnectionLost::Protocol(text) if text.ends_with(": why")));
        for code in
            [quinn::TransportErrorCode::CONNECTION_REFUSED, quinn::TransportErrorCode::APPLICATION_ERROR]
        {
            assert_eq!(classify(Judge::There, code, String::new()), ConnectionLost::Refused);
        }
    }

    #[test]
    fn a_reason_from_outside_cannot_flood_or_forge_a_log() {
        let reason = text_from_outside(&b"\x1b[2J\n\xff".repeat(100_000));
        assert_eq!(reason.chars().count(), MAX_REASON_CHARS);
        assert!(!reason.contains(['\x1b', '\n']));
    }
}
