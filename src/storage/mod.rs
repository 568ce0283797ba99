//! SQL: capture, apply and identity on the agent's side, the store on the hub's.

pub mod bookkeeping;
pub mod catalog;
pub mod driver;
pub mod identity;
pub mod row_meta;
pub mod sqlite_driver;
