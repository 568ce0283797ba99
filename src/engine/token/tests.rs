//! What a token has to be, claim by claim. What others would like it to be is in `tests/attacks`.

use proptest::prelude::*;

use super::*;

const SECRET: &str = "a secret of thirty-two bytes: 32";
const NOW_MS: i64 = 1_700_000_000_000;

fn sign(header: &Header, claims: &Value, secret: &str) -> String {
    jsonwebtoken::encode(header, claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
}

fn token(claims: &Value) -> String {
    sign(&Header::new(Algorithm::HS256), claims, SECRET)
}

fn verifier(change: impl FnOnce(&mut TokenOptions)) -> TokenVerifier {
    let mut options = TokenOptions::of(KeySource::Secret(SECRET.to_owned()));
    change(&mut options);
    TokenVerifier::new(options).unwrap()
}

fn verify(token: &str) -> Result<Claims, TokenError> {
    verifier(|_| {}).verify(token, NOW_MS)
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
    let verifier = verifier(|_| {});
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
        // Microseconds and nanoseconds, which would be a token for ever.
        (json!((NOW_MS + 1000) * 1000), Err(TokenError::Claim("exp"))),
        (json!((NOW_MS + 1000) * 1_000_000), Err(TokenError::Claim("exp"))),
        (json!(u64::MAX), Err(TokenError::Claim("exp"))),
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
        assert!(matches!(verify(garbage), Err(TokenError::Malformed | TokenError::Signature)), "{garbage}");
    }
    assert_eq!(verify(&"a".repeat(MAX_TOKEN_BYTES + 1)), Err(TokenError::TooLong));
    let huge = token(&claims_with("x", json!("x".repeat(MAX_TOKEN_BYTES))));
    assert_eq!(verify(&huge), Err(TokenError::TooLong));
}

#[test]
fn a_secret_that_can_be_guessed_is_refused_and_never_shown() {
    let made = |secret: &str| TokenVerifier::new(TokenOptions::of(KeySource::Secret(secret.to_owned())));
    for secret in ["", "hush", &SECRET[..31]] {
        let Err(error) = made(secret) else { panic!("{} bytes are too few", secret.len()) };
        assert!(matches!(error, KeyError::ShortSecret { bytes } if bytes == secret.len()));
        let message = error.to_string();
        assert!(message.contains("32") && message.contains("openssl rand -hex 32"), "{message}");
        assert!(secret.is_empty() || !message.contains(secret), "{message}");
    }
    assert!(made(SECRET).is_ok());
}

#[test]
fn the_leeway_holds_on_both_sides() {
    let skewed = verifier(|options| options.leeway_ms = Some(5_000));
    let seconds = NOW_MS / 1000;
    for (name, at, expected) in [
        ("exp", seconds - 4, Ok(NOW_MS + 1_000)),
        ("exp", seconds - 5, Err(TokenError::Expired)),
        ("nbf", seconds + 5, Ok(NOW_MS + 65_000)),
        ("nbf", seconds + 6, Err(TokenError::NotYetValid)),
        ("iat", seconds + 5, Ok(NOW_MS + 65_000)),
        ("iat", seconds + 6, Err(TokenError::NotYetValid)),
    ] {
        let claims = skewed.verify(&token(&claims_with(name, json!(at))), NOW_MS);
        assert_eq!(claims.map(|claims| claims.expires_at_ms), expected, "{name} {at}");
    }
}

#[test]
fn issuer_and_audience_are_asked_for_once_the_hub_has_some() {
    let strict = verifier(|options| {
        options.issuer = Some("https://issuer.example".to_owned());
        options.audience = Some("hub".to_owned());
    });
    let outcome = |iss: Value, aud: Value| {
        let mut claims = claims_with("iss", iss);
        claims["aud"] = aud;
        strict.verify(&token(&claims), NOW_MS).map(drop)
    };
    let good = json!("https://issuer.example");
    assert_eq!(outcome(good.clone(), json!("hub")), Ok(()));
    assert_eq!(outcome(good.clone(), json!(["other", "hub"])), Ok(()));
    for aud in
        [json!(null), json!("other"), json!(["other"]), json!([["hub"]]), json!({ "hub": 1 }), json!("hub ")]
    {
        assert_eq!(outcome(good.clone(), aud), Err(TokenError::Audience));
    }
    for iss in [json!(null), json!("https://issuer.example/"), json!(["https://issuer.example"]), json!(1)] {
        assert_eq!(outcome(iss, json!("hub")), Err(TokenError::Issuer));
    }
}

#[test]
fn permissions_say_what_an_agent_may_do_and_none_said_is_all() {
    let outcome = |value| verify(&token(&claims_with("permissions", value))).map(|claims| claims.may_write);
    for (permissions, expected) in [
        (json!(null), Err(TokenError::Claim("permissions"))),
        (json!(["read", "write"]), Ok(true)),
        (json!(["write", "read", "dance"]), Ok(true)),
        (json!(["read"]), Ok(false)),
        (json!(["read", "WRITE", " write", ["write"], null]), Ok(false)),
        (json!(["write"]), Err(TokenError::MayNotRead)),
        (json!([]), Err(TokenError::MayNotRead)),
        (json!("read write"), Err(TokenError::Claim("permissions"))),
        (json!({ "read": true }), Err(TokenError::Claim("permissions"))),
        (json!(3), Err(TokenError::Claim("permissions"))),
    ] {
        assert_eq!(outcome(permissions.clone()), expected, "{permissions}");
    }
    assert!(verify(&token(&claims_with("x", json!(1)))).unwrap().may_write);
}

#[test]
fn a_claim_that_is_null_is_none_that_is_absent() {
    for name in ["nbf", "iat", "permissions"] {
        let refused = verify(&token(&claims_with(name, json!(null))));
        assert_eq!(refused, Err(TokenError::Claim(name)));
    }
}

#[test]
fn a_token_may_have_a_name_of_its_own_and_what_is_issued_is_taken() {
    let named = |value| verify(&token(&claims_with("jti", value))).map(|claims| claims.token_id);
    assert_eq!(named(json!("t-1")), Ok(Some("t-1".to_owned())));
    assert_eq!(named(json!(null)), Ok(None));
    for jti in [json!(""), json!(7), json!("x".repeat(MAX_ID_BYTES + 1))] {
        assert_eq!(named(jti), Err(TokenError::Claim("jti")));
    }
    let grant = Grant { token_id: Some("t-2".to_owned()), permissions: Some(vec!["read".to_owned()]) };
    let options = TokenOptions {
        algorithm: Some("HS384".to_owned()),
        issuer: Some("us".to_owned()),
        audience: Some("hub".to_owned()),
        ..TokenOptions::of(KeySource::Secret(SECRET.to_owned()))
    };
    let issued = options.issue("acme", "a1", NOW_MS + 60_000, &grant).unwrap();
    let claims = TokenVerifier::new(options).unwrap().verify(&issued, NOW_MS).unwrap();
    assert_eq!((claims.token_id.as_deref(), claims.may_write), (Some("t-2"), false));
}

#[test]
fn longer_hashes_are_chosen_by_the_hub() {
    let strong = verifier(|options| options.algorithm = Some("HS512".to_owned()));
    let claims = claims_with("x", json!(1));
    assert!(strong.verify(&sign(&Header::new(Algorithm::HS512), &claims, SECRET), NOW_MS).is_ok());
    assert_eq!(strong.verify(&token(&claims), NOW_MS), Err(TokenError::Algorithm));
    for (name, secret) in [("RS256", SECRET), ("none", SECRET), ("hs256", SECRET), ("", SECRET)] {
        let keys = KeySource::Secret(secret.to_owned());
        let options = TokenOptions { algorithm: Some(name.to_owned()), ..TokenOptions::of(keys) };
        let error = TokenVerifier::new(options).err().map(|error| error.to_string());
        assert!(error.is_some_and(|text| text.contains("jwtAlgorithm") && !text.contains(SECRET)), "{name}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_it_panic_or_pass(text in any::<String>(), header in "[A-Za-z0-9_-]{0,40}") {
        prop_assert!(verify(&text).is_err());
        let in_three_parts = format!("{header}.{text}.{header}");
        prop_assert!(verify(&in_three_parts).is_err());
    }
}
