//! Whole agents against a whole hub, over UDP on loopback, with mutual TLS.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod attacks;
mod backup;
mod ca;
mod clocks;
mod disks;
mod draining;
mod hostile;
mod layouts;
mod limits;
#[path = "../support/member.rs"]
mod member;
mod mint;
mod network;
mod operator;
mod permissions;
#[path = "../support/relay.rs"]
mod relay;
mod reload;
mod renewal;
mod restart;
mod retirement;
mod revocation;
mod sharing;
mod site;
