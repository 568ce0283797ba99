//! Where a hub listens, for agents and for metrics, as its operator writes it: `host:port`.

use std::io;
use std::net::{IpAddr, SocketAddr};

/// The address that a text means: the first that its host has. Without a port in it, this one is meant, if there is any.
pub(super) async fn resolve(listen: &str, usual_port: Option<u16>) -> io::Result<SocketAddr> {
    let invalid = |problem| io::Error::new(io::ErrorKind::InvalidInput, problem);
    let (host, port) = parse(listen).map_err(invalid)?;
    let port = port.or(usual_port).ok_or_else(|| invalid("the port is missing"))?;
    let mut found = tokio::net::lookup_host((host, port)).await?;
    found.next().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address"))
}

/// The host and the port, or what is wrong with the text.
fn parse(listen: &str) -> Result<(&str, Option<u16>), &'static str> {
    if listen.parse::<IpAddr>().is_ok() {
        return Ok((listen, None));
    }
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match listen {
        _ if listen.contains("://") => return Err("that is a URL, leave out what comes before the host"),
        _ if listen.contains('@') => return Err("an address to listen on has no user"),
        _ if listen.contains(['/', '?', '#']) => return Err("nothing may follow the port"),
        _ if is_number(listen) => return Err("that is a port without a host"),
        _ if listen.contains(char::is_whitespace) => return Err("there is a space in it"),
        _ => {}
    }
    let (host, port) = match listen.strip_prefix('[') {
        Some(bracketed) => {
            let (host, rest) = bracketed.split_once(']').ok_or("a bracket is not closed")?;
            match rest.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if rest.is_empty() => (host, None),
                None => return Err("something other than a port follows the bracket"),
            }
        }
        None => match listen.split_once(':') {
            Some((_, rest)) if rest.contains(':') => return Err("an IPv6 address needs brackets"),
            Some((host, port)) => (host, Some(port)),
            None => (listen, None),
        },
    };
    if host.is_empty() {
        return Err("the host is missing, which is 0.0.0.0 for all IPv4 addresses of this machine");
    }
    match port {
        None => Ok((host, None)),
        // `u16::from_str` would take a sign.
        Some(port) if is_number(port) => {
            port.parse().map(|port| (host, Some(port))).map_err(|_| "the port is no number from 0 to 65535")
        }
        Some(_) => Err("the port is no number from 0 to 65535"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hosts_with_and_without_a_port() {
        for (listen, host, port) in [
            ("0.0.0.0:4433", "0.0.0.0", Some(4433)),
            ("0.0.0.0", "0.0.0.0", None),
            ("localhost:0", "localhost", Some(0)),
            ("hub.example.com", "hub.example.com", None),
            ("[::]:9000", "::", Some(9000)),
            ("[::1]", "::1", None),
            ("::1", "::1", None),
        ] {
            assert_eq!(parse(listen), Ok((host, port)), "{listen}");
        }
    }

    #[test]
    fn everything_else_is_refused_with_what_is_wrong() {
        for (listen, problem) in [
            ("4433", "a port without a host"),
            (":4433", "the host is missing"),
            ("", "the host is missing"),
            ("quic://0.0.0.0:4433", "a URL"),
            ("user:pw@0.0.0.0:4433", "no user"),
            ("0.0.0.0:4433/path", "nothing may follow"),
            ("0.0.0.0 :4433", "a space"),
            ("0.0.0.0:port", "the port is no number"),
            ("0.0.0.0:", "the port is no number"),
            ("0.0.0.0:65536", "the port is no number"),
            ("0.0.0.0:+1", "the port is no number"),
            ("2001:db8::1:port", "needs brackets"),
            ("[::1", "not closed"),
            ("[::1]4433", "follows the bracket"),
        ] {
            assert!(parse(listen).unwrap_err().contains(problem), "{listen}: {:?}", parse(listen));
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in any::<String>()) {
            let _ = parse(&text);
        }
    }
}
