//! federation-hub: agents share memory through a hub.

pub mod model;
pub mod protocol;
pub mod storage;
