//! Tokens: what says which tenant an agent belongs to (invariant I16).
//!
//! A JWT signed with HS256 over a secret that the hub shares with whoever issues tokens:
//!
//! ```json
//! { "tenantId": "acme", "agentId": "eph-acme-1700000000000", "exp": 1700000900 }
//! ```
//!
//! The algorithm is the hub's choice and never the token's: `alg` in a header is attacker's text.

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::Deserialize;
use serde_json::{Value, json};
use thiserror::Error;

use crate::protocol::limits::MAX_ID_BYTES;

/// The longest token that is looked at, in bytes.
const MAX_TOKEN_BYTES: usize = 8 << 10;

/// An `exp` or `nbf` above this is in milliseconds, below in seconds: as seconds it is the year 5138, as
/// milliseconds 1973.
const MILLISECONDS_ABOVE: f64 = 1e11;

/// How far the issuer's clock may be ahead of the hub's, in ms, before `nbf` makes a token invalid.
const NOT_BEFORE_LEEWAY_MS: i64 = 60_000;

/// What a verified token says. Only [`TokenVerifier::verify`] makes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// The tenant: the one and only source of it.
    pub tenant_id: String,
    /// The agent's name, for people.
    pub agent_id: String,
    /// When the token ends, in ms since the epoch.
    pub expires_at_ms: i64,
}

/// A token that lets nobody in. No message repeats any part of the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TokenError {
    /// Empty: pass the token that the hub's operator issued.
    #[error("the token is missing: pass the JWT that was issued for this agent")]
    Missing,
    /// Longer than any token of this kind.
    #[error("the token is longer than {MAX_TOKEN_BYTES} bytes")]
    TooLong,
    /// Not a JWT at all, or one that is not signed (`alg: none`), or that demands extensions.
    #[error("the token is no JWT that is signed with HS256")]
    Malformed,
    /// Signed some other way.
    #[error("the token is not signed with HS256, the only algorithm accepted")]
    Algorithm,
    /// Signed with another secret, or altered.
    #[error("the token's signature is wrong: it was signed with another secret than this hub's, or altered")]
    Signature,
    /// Its time is over: issue a new one.
    #[error("the token has expired: issue a new one, and compare the clocks of issuer and hub")]
    Expired,
    /// Its time has not come: compare the clocks.
    #[error("the token is not valid yet (nbf): compare the clocks of issuer and hub")]
    NotYetValid,
    /// A claim that is required is absent, or not what it has to be.
    #[error(
        "the token's claim `{0}` is missing or malformed: tenantId and agentId are non-empty texts, exp a number"
    )]
    Claim(&'static str),
}

/// A secret that anybody could guess.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the secret for tokens (jwtSecret) is empty: anybody could sign a token")]
pub struct EmptySecret;

/// Verifies tokens against one secret.
#[derive(Clone)]
pub struct TokenVerifier {
    key: DecodingKey,
    validation: Validation,
}

/// Shows nothing of the secret.
impl std::fmt::Debug for TokenVerifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenVerifier").finish_non_exhaustive()
    }
}

/// The claims as they come, so that each can be refused by name.
#[derive(Deserialize)]
struct RawClaims {
    exp: Option<Value>,
    nbf: Option<Value>,
    #[serde(rename = "tenantId")]
    tenant_id: Option<Value>,
    #[serde(rename = "agentId")]
    agent_id: Option<Value>,
}

impl TokenVerifier {
    /// A verifier for tokens signed with `secret`.
    pub fn new(secret: &str) -> Result<Self, EmptySecret> {
        if secret.is_empty() {
            return Err(EmptySecret);
        }
        let mut validation = Validation::new(Algorithm::HS256);
        // The library checks the signature. Times are checked here, because it would read the wall clock
        // (I3), and knows seconds only; `aud` is for the issuer's other uses of the token.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        Ok(Self { key: DecodingKey::from_secret(secret.as_bytes()), validation })
    }

    /// Verifies a token at `now_ms` (ms since the epoch, by the hub's clock). Nothing of the token counts
    /// before its signature is verified.
    pub fn verify(&self, token: &str, now_ms: i64) -> Result<Claims, TokenError> {
        if token.is_empty() {
            return Err(TokenError::Missing);
        }
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::TooLong);
        }
        let decoded = jsonwebtoken::decode::<RawClaims>(token, &self.key, &self.validation);
        let decoded = decoded.map_err(|error| explain(error.kind()))?;
        if decoded.header.crit.is_some() {
            // Extensions that whoever does not know them must not ignore (RFC 7515, 4.1.11).
            return Err(TokenError::Malformed);
        }
        let claims = decoded.claims;
        let expires_at_ms = time_ms(claims.exp.as_ref()).ok_or(TokenError::Claim("exp"))?;
        if expires_at_ms <= now_ms {
            return Err(TokenError::Expired);
        }
        if claims.nbf.is_some() {
            let not_before_ms = time_ms(claims.nbf.as_ref()).ok_or(TokenError::Claim("nbf"))?;
            if not_before_ms > now_ms.saturating_add(NOT_BEFORE_LEEWAY_MS) {
                return Err(TokenError::NotYetValid);
            }
        }
        Ok(Claims {
            tenant_id: id(claims.tenant_id).ok_or(TokenError::Claim("tenantId"))?,
            agent_id: id(claims.agent_id).ok_or(TokenError::Claim("agentId"))?,
            expires_at_ms,
        })
    }
}

/// Signs a token, as an ephemeral hub does for its agents. `exp` is written in whole seconds, rounded down.
pub fn issue(
    secret: &str,
    tenant_id: &str,
    agent_id: &str,
    expires_at_ms: i64,
) -> Result<String, IssueError> {
    let claims = json!({ "tenantId": tenant_id, "agentId": agent_id, "exp": expires_at_ms.div_euclid(1000) });
    let key = EncodingKey::from_secret(secret.as_bytes());
    Ok(jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key)?)
}

/// A token that could not be signed; a fault of this library.
#[derive(Debug, Error)]
#[error("cannot sign a token: {0}")]
pub struct IssueError(#[from] jsonwebtoken::errors::Error);

fn explain(kind: &ErrorKind) -> TokenError {
    match kind {
        ErrorKind::InvalidAlgorithm | ErrorKind::UnsupportedAlgorithm => TokenError::Algorithm,
        ErrorKind::InvalidSignature => TokenError::Signature,
        _ => TokenError::Malformed,
    }
}

/// A point in time, in ms: given in seconds or milliseconds, whole or not.
fn time_ms(claim: Option<&Value>) -> Option<i64> {
    let time = claim?.as_f64()?;
    let ms = if time > MILLISECONDS_ABOVE { time } else { time * 1000.0 };
    #[expect(clippy::cast_possible_truncation, reason = "saturates, and rounds down to the safe side")]
    let ms = ms.floor() as i64;
    Some(ms)
}

fn id(claim: Option<Value>) -> Option<String> {
    match claim? {
        Value::String(id) if !id.is_empty() && id.len() <= MAX_ID_BYTES => Some(id),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECRET: &str = "a secret";
    const NOW_MS: i64 = 1_700_000_000_000;

    fn sign(header: &Header, claims: &Value, secret: &str) -> String {
        jsonwebtoken::encode(header, claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
    }

    fn token(claims: &Value) -> String {
        sign(&Header::new(Algorithm::HS256), claims, SECRET)
    }

    fn verify(token: &str) -> Result<Claims, TokenError> {
        TokenVerifier::new(SECRET).unwrap().verify(token, NOW_MS)
    }

    fn claims_with(name: &str, value: Value) -> Value {
        let mut claims = json!({ "tenantId": "acme", "agentId": "a1", "exp": NOW_MS / 1000 + 60 });
        claims[name] = value;
        claims
    }

    #[test]
    fn an_issued_token_is_valid_until_it_expires() {
        let token = issue(SECRET, "acme", "a1", NOW_MS + 60_999).unwrap();
        let claims = verify(&token).unwrap();
        assert_eq!((claims.tenant_id.as_str(), claims.agent_id.as_str()), ("acme", "a1"));
        assert_eq!(claims.expires_at_ms, NOW_MS + 60_000);
        let verifier = TokenVerifier::new(SECRET).unwrap();
        assert!(verifier.verify(&token, NOW_MS + 59_999).is_ok());
        assert_eq!(verifier.verify(&token, NOW_MS + 60_000), Err(TokenError::Expired));
    }

    #[test]
    fn the_end_may_be_given_in_seconds_or_milliseconds_whole_or_not() {
        let seconds = NOW_MS / 1000;
        for (exp, expected) in [
            (json!(seconds + 1), Ok(NOW_MS + 1000)),
            (json!(NOW_MS + 1000), Ok(NOW_MS + 1000)),
            (json!(1_700_000_000.5), Ok(NOW_MS + 500)),
            (json!(1_700_000_000_500.5), Ok(NOW_MS + 500)),
            (json!(99_999_999_999_i64), Ok(99_999_999_999_000)),
            (json!(u64::MAX), Ok(i64::MAX)),
            (json!(seconds), Err(TokenError::Expired)),
            (json!(NOW_MS), Err(TokenError::Expired)),
            (json!(0), Err(TokenError::Expired)),
            (json!(-1e300), Err(TokenError::Expired)),
            (json!("1900000000"), Err(TokenError::Claim("exp"))),
            (json!(null), Err(TokenError::Claim("exp"))),
            (json!(true), Err(TokenError::Claim("exp"))),
        ] {
            let claims = verify(&token(&claims_with("exp", exp.clone())));
            assert_eq!(claims.map(|claims| claims.expires_at_ms), expected, "{exp}");
        }
        let without = json!({ "tenantId": "acme", "agentId": "a1" });
        assert_eq!(verify(&token(&without)), Err(TokenError::Claim("exp")));
    }

    #[test]
    fn a_token_from_the_future_is_refused_unless_the_clocks_are_merely_skewed() {
        let soon = claims_with("nbf", json!(NOW_MS / 1000 + 59));
        assert!(verify(&token(&soon)).is_ok());
        let later = claims_with("nbf", json!(NOW_MS / 1000 + 61));
        assert_eq!(verify(&token(&later)), Err(TokenError::NotYetValid));
        assert_eq!(verify(&token(&claims_with("nbf", json!("now")))), Err(TokenError::Claim("nbf")));
    }

    #[test]
    fn both_ids_are_required() {
        for name in ["tenantId", "agentId"] {
            for value in [json!(null), json!(""), json!(7), json!("x".repeat(MAX_ID_BYTES + 1))] {
                let error = verify(&token(&claims_with(name, value))).unwrap_err();
                assert_eq!(error, TokenError::Claim(name));
            }
        }
    }

    #[test]
    fn further_claims_do_not_matter() {
        for (name, value) in [("aud", json!("someone")), ("iss", json!(["x"])), ("sub", json!("a1"))] {
            assert!(verify(&token(&claims_with(name, value))).is_ok(), "{name}");
        }
    }

    #[test]
    fn the_token_does_not_choose_its_algorithm() {
        let valid = token(&claims_with("x", json!(1)));
        let (_, rest) = valid.split_once('.').unwrap();
        let (payload, signature) = rest.split_once('.').unwrap();
        // {"alg":"none"}, {"alg":"None","typ":"JWT"}, {"typ":"JWT"}
        for header in ["eyJhbGciOiJub25lIn0", "eyJhbGciOiJOb25lIiwidHlwIjoiSldUIn0", "eyJ0eXAiOiJKV1QifQ"] {
            for signature in ["", signature] {
                assert_eq!(verify(&format!("{header}.{payload}.{signature}")), Err(TokenError::Malformed));
            }
        }
        // {"alg":"RS256"}: the secret must not be taken for a public key.
        let forged = format!("eyJhbGciOiJSUzI1NiJ9.{payload}.{signature}");
        assert_eq!(verify(&forged), Err(TokenError::Algorithm));
        let stronger = sign(&Header::new(Algorithm::HS512), &claims_with("x", json!(1)), SECRET);
        assert_eq!(verify(&stronger), Err(TokenError::Algorithm));
    }

    #[test]
    fn a_token_that_demands_extensions_is_refused() {
        let header = Header { crit: Some(vec!["b64".into()]), ..Header::new(Algorithm::HS256) };
        let token = sign(&header, &claims_with("x", json!(1)), SECRET);
        assert_eq!(verify(&token), Err(TokenError::Malformed));
    }

    #[test]
    fn another_secret_or_an_altered_payload_is_refused() {
        let claims = claims_with("x", json!(1));
        let foreign = sign(&Header::new(Algorithm::HS256), &claims, "another secret");
        assert_eq!(verify(&foreign), Err(TokenError::Signature));
        let (mine, other) = (token(&claims), token(&claims_with("tenantId", json!("other"))));
        let parts = |token: &str| token.split('.').map(str::to_owned).collect::<Vec<_>>();
        let (mine, other) = (parts(&mine), parts(&other));
        assert_eq!(verify(&format!("{}.{}.{}", mine[0], other[1], mine[2])), Err(TokenError::Signature));
    }

    #[test]
    fn an_expired_token_with_a_bad_signature_tells_nothing_of_its_claims() {
        let expired = sign(&Header::new(Algorithm::HS256), &claims_with("exp", json!(1)), "another secret");
        assert_eq!(verify(&expired), Err(TokenError::Signature));
    }

    #[test]
    fn garbage_and_huge_tokens_are_refused() {
        assert_eq!(verify(""), Err(TokenError::Missing));
        for garbage in ["x", ".", "..", "...", "a.b.c", "eyJhbGciOiJIUzI1NiJ9..", "\u{0}", "🦀.🦀.🦀"] {
            assert!(
                matches!(verify(garbage), Err(TokenError::Malformed | TokenError::Signature)),
                "{garbage}"
            );
        }
        assert_eq!(verify(&"a".repeat(MAX_TOKEN_BYTES + 1)), Err(TokenError::TooLong));
        let huge = token(&claims_with("x", json!("x".repeat(MAX_TOKEN_BYTES))));
        assert_eq!(verify(&huge), Err(TokenError::TooLong));
    }

    #[test]
    fn an_empty_secret_is_no_secret() {
        assert_eq!(TokenVerifier::new("").err(), Some(EmptySecret));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic_or_pass(text in any::<String>(), header in "[A-Za-z0-9_-]{0,40}") {
            prop_assert!(verify(&text).is_err());
            let in_three_parts = format!("{header}.{text}.{header}");
            prop_assert!(verify(&in_three_parts).is_err());
        }
    }
}
