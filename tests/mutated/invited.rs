//! Attackers whom the hub of a place lets in.

use federation_hub::engine::clock::wall_now_ms;
use federation_hub::engine::token::keys::KeySource;
use federation_hub::engine::token::{Grant, TokenOptions};
use federation_hub::protocol::message::Hello;
use federation_hub::transport::{AgentTls, EndpointAddress, PemSource};

use crate::attacker::Attacker;
use crate::place::Place;

const TENANT: &str = "evil";

/// The attacker of this number, who reaches the hub at an address.
pub fn attacker(place: &Place, address: EndpointAddress, number: u8) -> Attacker {
    let credentials = place.credentials();
    let agent = format!("attacker {number}");
    let (cert, key) = credentials.issue_agent(&agent, TENANT).unwrap();
    let tokens = TokenOptions::of(KeySource::Secret(credentials.jwt_secret.clone()));
    let token = tokens.issue(TENANT, &agent, wall_now_ms() + 86_400_000, &Grant::default()).unwrap();
    let tls = AgentTls {
        identity: Some((PemSource::Text(cert), PemSource::Text(key))),
        ca: Some(PemSource::Text(credentials.ca_cert_pem)),
    };
    Attacker::new(address, tls, Hello { tenant: TENANT.into(), agent, token }, number)
}
