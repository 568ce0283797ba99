//! The only loops: the agent's pump, the hub's accept loop and writer, and their shutdown.
//!
//! They join storage and transport through the protocol's state machines, and read the clock for all three.

mod admission;
pub mod agent;
pub mod agent_error;
mod applying;
pub mod audit;
pub mod backup;
pub mod clock;
mod comeback;
pub mod hub;
mod hub_connection;
pub mod hub_counts;
pub mod hub_limits;
pub mod hub_offset;
mod hub_stream;
pub mod hub_time;
pub mod identity;
mod intake;
pub mod link;
mod listen;
pub mod log;
mod memory_budget;
mod metrics;
mod metrics_server;
pub mod operator;
mod pause;
mod rate;
mod read_only;
mod reload;
pub mod resolve;
mod retirement;
pub mod revocations;
pub mod runtime;
mod self_check;
pub mod sync;
pub mod sync_report;
mod tenants;
pub mod token;
pub mod token_source;
mod turn;
pub mod upkeep;
pub mod writer;
