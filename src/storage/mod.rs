//! SQL: capture, apply and identity on the agent's side, the store on the hub's.

pub mod apply;
pub mod bookkeeping;
pub mod capture;
pub mod capture_triggers;
pub mod catalog;
pub mod collect;
pub mod driver;
pub mod fields;
pub mod hub_store;
pub mod hub_store_sqlite;
pub mod identity;
pub mod incoming;
pub mod numbers;
pub mod quarantine;
pub mod replica;
mod row_codec;
pub mod row_meta;
pub mod rows;
pub mod scratch;
pub mod settle;
pub mod sql_text;
pub mod sqlite_driver;
pub mod table_info;
pub mod transaction;
pub mod triggers;
pub mod unique_index;
