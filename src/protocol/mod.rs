//! The conversation between an agent and its hub, sans-IO: messages, framing, limits and two state machines.
//!
//! Nothing here touches a socket or a clock (invariant I3). `docs/protocol.md` is the same for people who
//! write a client in another language.

pub mod agent_session;
pub mod check;
pub mod close_code;
pub mod extent;
pub mod frame;
#[cfg(test)]
mod golden;
pub mod hub_exchange;
pub mod hub_request;
pub mod hub_session;
pub mod limits;
pub mod message;
pub mod opened_batch;
