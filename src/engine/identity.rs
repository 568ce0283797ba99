//! Whether an agent's certificate and its token are of one agent.
//!
//! The token alone says which tenant it is (invariant I16). A certificate that names one can only contradict it: then
//! one of the two is not where it belongs.

use thiserror::Error;

use super::token::Claims;
use crate::transport::{CertificateIdentity, CertificateIdentityError};

/// What agents' certificates have to name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdentityPolicy {
    /// Who must answer for the name; anyone whose certificates the hub trusts, if none.
    pub trust_domain: Option<String>,
    /// Whether a certificate has to name a tenant at all.
    pub is_required: bool,
}

/// A certificate that does not go with the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum IdentityError {
    /// What it names cannot be read.
    #[error(transparent)]
    Certificate(#[from] CertificateIdentityError),
    /// It names nobody, and has to: issue one with a URI.
    #[error(
        "this hub requires a certificate that names its tenant, with the URI \
         spiffe://<trust domain>/tenant/<tenantId>[/agent/<agentId>] among its subject alternative names"
    )]
    Missing,
    /// Somebody else answers for the name.
    #[error("the certificate is of another trust domain than this hub's")]
    TrustDomain,
    /// It names another tenant.
    #[error("the certificate is of another tenant than the token: use those that were issued for this agent")]
    Tenant,
    /// It names another agent of the tenant.
    #[error("the certificate is of another agent than the token: use those that were issued for this agent")]
    Agent,
}

impl IdentityPolicy {
    /// Compares what was found in a certificate with what a token says.
    pub fn check(
        &self,
        found: Result<Option<CertificateIdentity>, CertificateIdentityError>,
        claims: &Claims,
    ) -> Result<(), IdentityError> {
        let Some(CertificateIdentity { trust_domain, tenant, agent }) = found? else {
            return if self.is_required { Err(IdentityError::Missing) } else { Ok(()) };
        };
        if self.trust_domain.as_ref().is_some_and(|own| !own.eq_ignore_ascii_case(&trust_domain)) {
            return Err(IdentityError::TrustDomain);
        }
        if tenant != claims.tenant_id {
            return Err(IdentityError::Tenant);
        }
        if agent.is_some_and(|agent| agent != claims.agent_id) {
            return Err(IdentityError::Agent);
        }
        Ok(())
    }
}
