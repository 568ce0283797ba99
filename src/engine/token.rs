//! Tokens: what says which tenant an agent belongs to, and what it may do there (invariant I16).
//!
//! A JWT that whoever issues tokens has signed, and the hub verifies:
//!
//! ```json
//! { "tenantId": "acme", "agentId": "eph-acme-1700000000000", "exp": 1700000900, "permissions": ["read"] }
//! ```
//!
//! The algorithm is the hub's choice and never the token's: `alg` in a header is attacker's text. Each key
//! ([`keys`]) has one algorithm, and verifies nothing that claims another.

mod jwks;
pub mod keys;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, EncodingKey, Header, Validation};
use serde::Deserialize;
use serde_json::{Value, json};
use thiserror::Error;

use self::keys::{KeyError, KeySource, Keys};
use crate::protocol::limits::{MAX_ID_BYTES, MAX_TOKEN_BYTES};

/// A time above this is in milliseconds, below in seconds: as seconds it is the year 5138, as milliseconds 1973.
const MILLISECONDS_ABOVE: f64 = 1e11;

/// A time above this is in microseconds or nanoseconds, which no issuer of tokens means: as milliseconds it is the year 5138.
const NO_TIME_ABOVE: f64 = 1e14;

/// What tokens are signed with unless the operator says otherwise.
const DEFAULT_ALGORITHM: &str = "HS256";

/// How far the issuer's clock may be ahead of the hub's unless the operator says otherwise, in ms.
const DEFAULT_LEEWAY_MS: i64 = 60_000;

/// Which tokens a hub takes.
#[derive(Clone, Debug)]
pub struct TokenOptions {
    /// What their signatures are verified with.
    pub keys: KeySource,
    /// The algorithm's name, as in `alg`: where the key leaves a choice, and to insist on one.
    pub algorithm: Option<String>,
    /// What `iss` must be, if anything.
    pub issuer: Option<String>,
    /// What `aud` must be, or have among others, if anything.
    pub audience: Option<String>,
    /// How long before its `nbf` and `iat`, and after its `exp`, a token is taken, in ms. Without it, 60,000
    /// before and 0 after.
    pub leeway_ms: Option<i64>,
}

impl TokenOptions {
    /// Tokens that are signed by one of these keys, and nothing more asked.
    pub fn of(keys: KeySource) -> Self {
        Self { keys, algorithm: None, issuer: None, audience: None, leeway_ms: None }
    }
}

/// What a verified token says. Only [`TokenVerifier::verify`] makes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// The tenant: the one and only source of it.
    pub tenant_id: String,
    /// The agent's name, for people.
    pub agent_id: String,
    /// When the token ends, in ms since the epoch, the leeway included.
    pub expires_at_ms: i64,
    /// The token's own name (`jti`), by which it can be revoked.
    pub token_id: Option<String>,
    /// Whether the agent may change its tenant's rows.
    pub may_write: bool,
}

/// A token that lets nobody in. No message repeats any part of the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TokenError {
    /// Empty: pass the token that the hub's operator issued.
    #[error("the token is missing: pass the JWT that was issued for this agent")]
    Missing,
    /// Longer than any token of this kind.
    #[error("the token is longer than {MAX_TOKEN_BYTES} bytes: issue one with fewer or shorter claims")]
    TooLong,
    /// Not a JWT at all, or one that is not signed (`alg: none`), or that demands extensions.
    #[error("the token is no JWT that is signed")]
    Malformed,
    /// Signed by a key that the hub does not have (`kid`): issue it with a present one, or give the hub the key.
    #[error("the token does not name a key that this hub has (kid): its key set is older, or the token is")]
    UnknownKey,
    /// Signed some other way.
    #[error("the token is not signed with the algorithm that this hub's key is for")]
    Algorithm,
    /// Signed with another key, or altered.
    #[error("the token's signature is wrong: it was signed with another key than this hub's, or altered")]
    Signature,
    /// Its time is over: issue a new one.
    #[error("the token has expired: issue a new one, and compare the clocks of issuer and hub")]
    Expired,
    /// Its time has not come: compare the clocks.
    #[error("the token is not valid yet (nbf, iat): compare the clocks of issuer and hub")]
    NotYetValid,
    /// Issued by somebody else than the hub trusts.
    #[error("the token is not of the issuer that this hub accepts (iss)")]
    Issuer,
    /// Issued for something else than this hub.
    #[error("the token was not issued for this hub (aud)")]
    Audience,
    /// It gives no right to read, without which there is no sync.
    #[error("the token's `permissions` do not include \"read\", which every sync needs")]
    MayNotRead,
    /// A claim that is required is absent, or not what it has to be.
    #[error(
        "the token's claim `{0}` is missing or malformed: tenantId and agentId are non-empty texts, exp (and nbf and iat, if \
         given) a number of seconds or milliseconds since the epoch, permissions, if given, a list, and none of these null"
    )]
    Claim(&'static str),
}

/// Verifies tokens. Its keys can be loaded anew at any time.
pub struct TokenVerifier {
    options: TokenOptions,
    keys: RwLock<Arc<Keys>>,
}

/// The claims as they come, so that each can be refused by name. A `null` is a value that is wrong, not a claim that is
/// absent: whoever wrote it meant to restrict something, and absence restricts nothing.
#[derive(Deserialize)]
struct RawClaims {
    exp: Option<Value>,
    #[serde(default, deserialize_with = "as_given")]
    nbf: Option<Value>,
    #[serde(default, deserialize_with = "as_given")]
    iat: Option<Value>,
    iss: Option<Value>,
    aud: Option<Value>,
    jti: Option<Value>,
    #[serde(default, deserialize_with = "as_given")]
    permissions: Option<Value>,
    #[serde(rename = "tenantId")]
    tenant_id: Option<Value>,
    #[serde(rename = "agentId")]
    agent_id: Option<Value>,
}

fn as_given<'de, D: serde::Deserializer<'de>>(claim: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(claim).map(Some)
}

impl TokenVerifier {
    /// Loads the keys.
    pub fn new(options: TokenOptions) -> Result<Self, KeyError> {
        let keys = RwLock::new(Arc::new(Keys::load(&options)?));
        Ok(Self { options, keys })
    }

    /// Loads the keys anew. After an error those from before are good still.
    pub fn reload(&self) -> Result<(), KeyError> {
        let keys = Arc::new(Keys::load(&self.options)?);
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        Ok(())
    }

    /// Verifies a token at `now_ms` (ms since the epoch, by the hub's clock). Nothing of the token but the
    /// name of its key counts before its signature is verified.
    pub fn verify(&self, token: &str, now_ms: i64) -> Result<Claims, TokenError> {
        if token.is_empty() {
            return Err(TokenError::Missing);
        }
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::TooLong);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|error| explain(error.kind()))?;
        if header.crit.is_some() {
            // Extensions that whoever does not know them must not ignore (RFC 7515, 4.1.11).
            return Err(TokenError::Malformed);
        }
        let keys = Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner));
        let key = keys.find(header.kid.as_deref()).ok_or(TokenError::UnknownKey)?;
        let decoded =
            jsonwebtoken::decode::<RawClaims>(token, &key.verifying, &signature_only(key.algorithm));
        let claims = decoded.map_err(|error| explain(error.kind()))?.claims;
        self.check(claims, now_ms)
    }

    /// Until when a token is taken whose `exp` this is, in ms since the epoch: the leeway is added.
    pub fn taken_until_ms(&self, exp_ms: i64) -> i64 {
        exp_ms.saturating_add(self.options.leeway_ms.unwrap_or(0))
    }

    /// What the claims of a token say whose signature is good.
    fn check(&self, claims: RawClaims, now_ms: i64) -> Result<Claims, TokenError> {
        let before_ms = self.options.leeway_ms.unwrap_or(DEFAULT_LEEWAY_MS);
        let exp_ms = time_ms(claims.exp.as_ref()).ok_or(TokenError::Claim("exp"))?;
        let expires_at_ms = self.taken_until_ms(exp_ms);
        if expires_at_ms <= now_ms {
            return Err(TokenError::Expired);
        }
        for (name, claim) in [("nbf", &claims.nbf), ("iat", &claims.iat)] {
            let Some(claim) = claim else { continue };
            let from_ms = time_ms(Some(claim)).ok_or(TokenError::Claim(name))?;
            if from_ms > now_ms.saturating_add(before_ms) {
                return Err(TokenError::NotYetValid);
            }
        }
        if let Some(issuer) = &self.options.issuer
            && claims.iss.as_ref().and_then(Value::as_str) != Some(issuer)
        {
            return Err(TokenError::Issuer);
        }
        if let Some(audience) = &self.options.audience
            && !names(claims.aud.as_ref(), audience)
        {
            return Err(TokenError::Audience);
        }
        let (may_read, may_write) = match &claims.permissions {
            None => (true, true),
            Some(Value::Array(all)) => (all.contains(&json!("read")), all.contains(&json!("write"))),
            Some(_) => return Err(TokenError::Claim("permissions")),
        };
        if !may_read {
            return Err(TokenError::MayNotRead);
        }
        let token_id = match claims.jti {
            None => None,
            jti => Some(id(jti).ok_or(TokenError::Claim("jti"))?),
        };
        Ok(Claims {
            tenant_id: id(claims.tenant_id).ok_or(TokenError::Claim("tenantId"))?,
            agent_id: id(claims.agent_id).ok_or(TokenError::Claim("agentId"))?,
            expires_at_ms,
            token_id,
            may_write,
        })
    }
}

/// The library checks signatures. Claims are checked here, because it would read the wall clock (I3), and knows
/// seconds only.
fn signature_only(algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation
}

/// What an issued token says besides whose it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// What the agent may do: `read`, `write`; both unless given.
    pub permissions: Option<Vec<String>>,
    /// The token's own name (`jti`), by which it can be revoked.
    pub token_id: Option<String>,
}

impl TokenOptions {
    /// Signs a token that they would take, as an ephemeral hub does for its agents. `exp` is written in whole
    /// seconds, rounded down.
    pub fn issue(
        &self,
        tenant_id: &str,
        agent_id: &str,
        expires_at_ms: i64,
        grant: &Grant,
    ) -> Result<String, IssueError> {
        let KeySource::Secret(secret) = &self.keys else { return Err(IssueError::NoSecret) };
        let exp = expires_at_ms.div_euclid(1000);
        let claims = json!({
            "tenantId": tenant_id, "agentId": agent_id, "exp": exp, "iss": self.issuer, "aud": self.audience,
            "jti": grant.token_id, "permissions": grant.permissions,
        });
        let given = |(_, claim): &(&String, &Value)| !claim.is_null();
        let claims: BTreeMap<&String, &Value> =
            claims.as_object().into_iter().flatten().filter(given).collect();
        let algorithm = keys::algorithm_of(self.algorithm.as_deref().unwrap_or(DEFAULT_ALGORITHM))?;
        let key = EncodingKey::from_secret(secret.as_bytes());
        Ok(jsonwebtoken::encode(&Header::new(algorithm), &claims, &key)?)
    }
}

/// Signs a token with HS256 that says no more than it has to.
pub fn issue(
    secret: &str,
    tenant_id: &str,
    agent_id: &str,
    expires_at_ms: i64,
) -> Result<String, IssueError> {
    let options = TokenOptions::of(KeySource::Secret(secret.to_owned()));
    options.issue(tenant_id, agent_id, expires_at_ms, &Grant::default())
}

/// A token that could not be signed.
#[derive(Debug, Error)]
pub enum IssueError {
    /// The hub verifies with public keys: whoever has the private one signs.
    #[error("this hub has no secret to sign tokens with: pass a token that was signed for the agent")]
    NoSecret,
    /// The options name no algorithm that there is.
    #[error(transparent)]
    Options(#[from] KeyError),
    /// A fault of this library.
    #[error("cannot sign a token: {0}")]
    Signing(#[from] jsonwebtoken::errors::Error),
}

fn explain(kind: &ErrorKind) -> TokenError {
    match kind {
        ErrorKind::InvalidAlgorithm | ErrorKind::UnsupportedAlgorithm => TokenError::Algorithm,
        ErrorKind::InvalidSignature => TokenError::Signature,
        _ => TokenError::Malformed,
    }
}

fn time_ms(claim: Option<&Value>) -> Option<i64> {
    in_ms(claim?.as_f64()?)
}

/// A point in time, in ms: given in seconds or milliseconds, whole or not; none if it is in anything else.
pub fn in_ms(time: f64) -> Option<i64> {
    let time = Some(time).filter(|time| *time <= NO_TIME_ABOVE)?;
    let ms = if time > MILLISECONDS_ABOVE { time } else { time * 1000.0 };
    #[expect(clippy::cast_possible_truncation, reason = "saturates, and rounds down to the safe side")]
    let ms = ms.floor() as i64;
    Some(ms)
}

/// Whether a claim is this text, or a list with it.
fn names(claim: Option<&Value>, text: &str) -> bool {
    match claim {
        Some(Value::String(one)) => one == text,
        Some(Value::Array(several)) => several.iter().any(|one| one.as_str() == Some(text)),
        _ => false,
    }
}

fn id(claim: Option<Value>) -> Option<String> {
    match claim? {
        Value::String(id) if !id.is_empty() && id.len() <= MAX_ID_BYTES => Some(id),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
