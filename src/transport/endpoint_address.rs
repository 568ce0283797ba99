//! Where a hub listens, as people write it: `quic://host[:port]`.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use thiserror::Error;

/// The UDP port of a hub whose endpoint names none.
pub const DEFAULT_PORT: u16 = 4433;

const SCHEME: &str = "quic://";

/// The longest host name that DNS knows, in bytes.
const MAX_HOST_BYTES: usize = 253;

/// How much of a wrong endpoint its error repeats, in characters.
const MAX_ECHO_CHARS: usize = 100;

/// Where a hub listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EndpointAddress {
    host: String,
    port: u16,
}

/// Text that is no endpoint. The remedy is in the message: the accepted form.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "`{endpoint}` is no hub endpoint: {problem}. Give it as quic://host[:port], for example \
     quic://hub.example.com:{DEFAULT_PORT} or quic://[::1]"
)]
pub struct EndpointAddressError {
    endpoint: String,
    problem: &'static str,
}

impl EndpointAddress {
    /// Reads `quic://host[:port]`, where the host is a name, an IPv4 address, or an IPv6 address in brackets.
    pub fn parse(endpoint: &str) -> Result<Self, EndpointAddressError> {
        parse(endpoint).map_err(|problem| EndpointAddressError {
            endpoint: without_password(endpoint).chars().take(MAX_ECHO_CHARS).collect(),
            problem,
        })
    }

    /// The name or address of the host, without brackets: what the hub's certificate has to be valid for.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The UDP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address, if the host is one and needs no resolving.
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

impl FromStr for EndpointAddress {
    type Err = EndpointAddressError;

    fn from_str(endpoint: &str) -> Result<Self, Self::Err> {
        Self::parse(endpoint)
    }
}

impl From<std::net::SocketAddr> for EndpointAddress {
    fn from(address: std::net::SocketAddr) -> Self {
        Self { host: address.ip().to_string(), port: address.port() }
    }
}

impl fmt::Display for EndpointAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "{SCHEME}[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{SCHEME}{}:{}", self.host, self.port)
        }
    }
}

fn parse(endpoint: &str) -> Result<EndpointAddress, &'static str> {
    let authority = match endpoint.split_at_checked(SCHEME.len()) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case(SCHEME) => rest,
        _ => return Err("it does not begin with quic://"),
    };
    // Libraries that normalise URLs add this slash by themselves.
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    if authority.contains('@') {
        return Err("it has a user or a password, and a hub asks for none: the option token says who calls");
    }
    if authority.contains(['/', '?', '#']) {
        return Err("nothing may follow host and port: a hub has no paths");
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(bracketed) => {
            let (host, rest) = bracketed.split_once(']').ok_or("a bracket is not closed")?;
            host.parse::<Ipv6Addr>().map_err(|_| "what is in brackets is no IPv6 address")?;
            let port = match rest {
                "" => None,
                _ => Some(rest.strip_prefix(':').ok_or("something other than a port follows the bracket")?),
            };
            (host, port)
        }
        None => match authority.split_once(':') {
            Some((_, rest)) if rest.contains(':') => return Err("an IPv6 address needs brackets"),
            Some((host, port)) => (check_host(host)?, Some(port)),
            None => (check_host(authority)?, None),
        },
    };
    let port = port.map_or(Ok(DEFAULT_PORT), parse_port)?;
    Ok(EndpointAddress { host: host.to_ascii_lowercase(), port })
}

/// What may be repeated of a wrong endpoint: errors end in logs.
fn without_password(endpoint: &str) -> Cow<'_, str> {
    let start = endpoint.find("://").map_or(0, |at| at + 3);
    match endpoint.rfind('@') {
        Some(at) if at >= start => Cow::Owned(format!("{}…{}", &endpoint[..start], &endpoint[at..])),
        _ => Cow::Borrowed(endpoint),
    }
}

fn check_host(host: &str) -> Result<&str, &'static str> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    match host {
        "" => Err("the host is missing"),
        _ if host.len() > MAX_HOST_BYTES => Err("the host is longer than a name can be"),
        _ if !host.bytes().all(allowed) => {
            Err("the host is no name (letters, digits, `-`, `.` and `_`; other scripts in their xn-- form)")
        }
        _ => Ok(host),
    }
}

fn parse_port(port: &str) -> Result<u16, &'static str> {
    // `u16::from_str` would take a sign.
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    match port.parse() {
        Ok(port) if digits && port != 0 => Ok(port),
        _ => Err("the port is no number from 1 to 65535"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_and_addresses_with_and_without_a_port() {
        for (endpoint, host, port) in [
            ("quic://hub.example.com", "hub.example.com", 4433),
            ("quic://hub.example.com:9000", "hub.example.com", 9000),
            ("QUIC://Hub.Example.COM:1/", "hub.example.com", 1),
            ("quic://my_hub", "my_hub", 4433),
            ("quic://127.0.0.1:65535", "127.0.0.1", 65535),
            ("quic://[::1]", "::1", 4433),
            ("quic://[2001:DB8::1]:9000", "2001:db8::1", 9000),
        ] {
            let address = EndpointAddress::parse(endpoint).unwrap();
            assert_eq!((address.host(), address.port()), (host, port), "{endpoint}");
            assert_eq!(EndpointAddress::parse(&address.to_string()).unwrap(), address);
        }
    }

    #[test]
    fn only_addresses_need_no_resolving() {
        assert_eq!(EndpointAddress::parse("quic://[::1]").unwrap().ip(), Some(Ipv6Addr::LOCALHOST.into()));
        assert_eq!(EndpointAddress::parse("quic://localhost").unwrap().ip(), None);
    }

    #[test]
    fn everything_else_is_refused_and_the_accepted_form_named() {
        for endpoint in [
            "",
            "hub.example.com",
            "hub.example.com:4433",
            "https://hub.example.com",
            "ws://hub:4433",
            "quic:/hub",
            "quic://",
            "quic://:4433",
            "quic://hub:",
            "quic://hub:0",
            "quic://hub:+1",
            "quic://hub:65536",
            "quic://hub:port",
            "quic://hub/path",
            "quic://hub?query",
            "quic://user@hub",
            "quic://hub name",
            " quic://hub",
            "quic://hüb",
            "quic://::1",
            "quic://2001:db8::1:4433",
            "quic://[::1",
            "quic://[::1]4433",
            "quic://[127.0.0.1]",
            "quic://[hub]",
        ] {
            let error = EndpointAddress::parse(endpoint).unwrap_err().to_string();
            assert!(error.contains("quic://host[:port]"), "{error}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_and_no_password_is_repeated() {
        for (endpoint, problem) in [
            ("quic://hub/path", "a hub has no paths"),
            ("quic://hub:4433/?tenant=acme", "a hub has no paths"),
            ("quic://ada:hush@hub:4433", "a user or a password"),
            ("quic://ada:hu@sh@hub/path", "a user or a password"),
            ("https://ada:hush@hub", "does not begin with quic://"),
        ] {
            let error = EndpointAddress::parse(endpoint).unwrap_err().to_string();
            assert!(error.contains(problem) && !error.contains("ada") && !error.contains("sh@"), "{error}");
        }
    }

    #[test]
    fn an_error_does_not_repeat_a_huge_endpoint() {
        let error = EndpointAddress::parse(&"é".repeat(1 << 20)).unwrap_err();
        assert!(error.to_string().len() < 1_000);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in any::<String>()) {
            let _ = EndpointAddress::parse(&text);
            let _ = EndpointAddress::parse(&format!("quic://{text}"));
        }
    }
}
