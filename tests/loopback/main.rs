//! Whole agents against a whole hub, over UDP on loopback, with mutual TLS.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod attacks;
mod backup;
mod ca;
mod disks;
mod hostile;
mod layouts;
mod limits;
mod mint;
mod permissions;
mod reload;
mod renewal;
mod restart;
mod retirement;
mod revocation;
mod sharing;
mod site;
