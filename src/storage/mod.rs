//! SQL: capture, apply and identity on the agent's side, the store on the hub's.

pub mod driver;
pub mod hub_store;
pub mod hub_store_sqlite;
mod row_codec;
