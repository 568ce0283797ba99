//! Whom a certificate names, besides its token: `spiffe://<trust domain>/tenant/<tenant>[/agent/<agent>]`.
//!
//! Such a name stands among the certificate's subject alternative names, as a URI, where SPIFFE puts it. Names with
//! other characters than SPIFFE allows are percent-encoded.

use std::fmt::Write as _;

use quinn::rustls::pki_types::CertificateDer;
use thiserror::Error;

const SCHEME: &str = "spiffe://";

/// Whom a certificate names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateIdentity {
    /// Who answers for the name.
    pub trust_domain: String,
    /// The tenant.
    pub tenant: String,
    /// The agent; any of the tenant if none.
    pub agent: Option<String>,
}

/// A certificate whose names cannot be what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CertificateIdentityError {
    /// It is no certificate; TLS would have refused it before.
    #[error("the certificate cannot be read")]
    Unreadable,
    /// It names several tenants or agents: issue one certificate for each.
    #[error("the certificate names more than one tenant or agent")]
    Several,
    /// The name is cut off, or wrongly encoded.
    #[error("the certificate's URI is not spiffe://<trust domain>/tenant/<tenantId>[/agent/<agentId>]")]
    Malformed,
}

impl CertificateIdentity {
    /// Reads the name of a certificate that has been verified; none if it has none of this kind.
    pub(super) fn of(certificate: &CertificateDer<'_>) -> Result<Option<Self>, CertificateIdentityError> {
        let certificate =
            webpki::EndEntityCert::try_from(certificate).map_err(|_| CertificateIdentityError::Unreadable)?;
        Self::among(certificate.valid_uri_names())
    }

    /// The name among a certificate's URIs.
    fn among<'a>(uris: impl Iterator<Item = &'a str>) -> Result<Option<Self>, CertificateIdentityError> {
        let mut named = uris.filter_map(tenant_path);
        let Some((trust_domain, path)) = named.next() else { return Ok(None) };
        if named.next().is_some() {
            return Err(CertificateIdentityError::Several);
        }
        Self::parse(trust_domain, path).map(Some).ok_or(CertificateIdentityError::Malformed)
    }

    fn parse(trust_domain: &str, path: &str) -> Option<Self> {
        let segments: Vec<&str> = path.split('/').collect();
        let (tenant, agent) = match segments.as_slice() {
            [tenant] => (decode(tenant)?, None),
            [tenant, "agent", agent] => (decode(tenant)?, Some(decode(agent)?)),
            _ => return None,
        };
        let trust_domain = trust_domain.to_ascii_lowercase();
        (!trust_domain.is_empty()).then_some(Self { trust_domain, tenant, agent })
    }
}

/// The URI that names an agent.
pub(super) fn uri_of(trust_domain: &str, tenant: &str, agent: &str) -> String {
    format!("{SCHEME}{trust_domain}/tenant/{}/agent/{}", encode(tenant), encode(agent))
}

/// The trust domain, and what follows `/tenant/`, of a URI that means to name a tenant.
fn tenant_path(uri: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = uri.split_at_checked(SCHEME.len())?;
    let (trust_domain, path) = rest.split_once('/')?;
    let path = path.strip_prefix("tenant")?;
    let is_tenant = scheme.eq_ignore_ascii_case(SCHEME) && (path.is_empty() || path.starts_with('/'));
    is_tenant.then_some((trust_domain, path.strip_prefix('/').unwrap_or("")))
}

/// The characters that SPIFFE allows in a segment.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_')
}

fn encode(name: &str) -> String {
    name.bytes().fold(String::new(), |mut encoded, byte| {
        if is_plain(byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

fn decode(segment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digit =
                    |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                digit(rest.next()?)? << 4 | digit(rest.next()?)?
            }
            plain if is_plain(plain) => plain,
            _ => return None,
        });
    }
    String::from_utf8(bytes).ok().filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(uri: &str) -> Result<Option<CertificateIdentity>, CertificateIdentityError> {
        CertificateIdentity::among(std::iter::once(uri))
    }

    #[test]
    fn a_name_that_was_written_is_read() {
        for (tenant, agent) in
            [("acme", "eph-acme-1700000000000"), ("Ärger & Söhne", "株/式"), ("a%2Fb", "../..")]
        {
            let read = read(&uri_of("Example.ORG", tenant, agent)).unwrap().unwrap();
            assert_eq!((read.tenant.as_str(), read.agent.as_deref()), (tenant, Some(agent)));
            assert_eq!(read.trust_domain, "example.org");
        }
        assert_eq!(read("SPIFFE://x/tenant/t").unwrap().unwrap().agent, None);
    }

    #[test]
    fn an_encoded_slash_separates_nothing() {
        let read = read("spiffe://x/tenant/a%2Fagent%2Fb").unwrap().unwrap();
        assert_eq!((read.tenant.as_str(), read.agent), ("a/agent/b", None));
    }

    #[test]
    fn what_does_not_name_a_tenant_is_passed_over_and_what_does_so_badly_is_malformed() {
        for other in
            ["https://x/tenant/t", "spiffe://x/ns/foo/sa/bar", "spiffe://x", "spiffe://x/tenants/t", "é", ""]
        {
            assert_eq!(read(other), Ok(None), "{other}");
        }
        for bad in [
            "spiffe://x/tenant",
            "spiffe://x/tenant/",
            "spiffe:///tenant/t",
            "spiffe://x/tenant/t/",
            "spiffe://x/tenant/t/agent",
            "spiffe://x/tenant/t/agent/",
            "spiffe://x/tenant/t/agent/a/more",
            "spiffe://x/tenant//agent/a",
            "spiffe://x/tenant/t/Agent/a",
            "spiffe://x/tenant/t?x",
            "spiffe://x/tenant/t#x",
            "spiffe://x/tenant/t%2",
            "spiffe://x/tenant/t%zz",
            "spiffe://x/tenant/%ff",
            "spiffe://x/tenant/t t",
        ] {
            assert_eq!(read(bad), Err(CertificateIdentityError::Malformed), "{bad}");
        }
    }
}
