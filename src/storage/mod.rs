//! SQL: capture, apply and identity on the agent's side, the store on the hub's.

pub mod driver;
