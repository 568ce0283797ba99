//! federation-hub: agents share memory through a hub.

pub mod engine;
pub mod model;
pub mod protocol;
pub mod storage;
