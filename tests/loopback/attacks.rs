//! The attack list: one test for each, by its name. Every attack is tried on a hub that others use meanwhile.

mod certificates;
mod declarations;
mod flood;
mod lengths;
mod memory;
mod messages;
pub mod raw;
mod slowloris;
mod tokens;
