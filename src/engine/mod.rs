//! The loops: they join storage and transport through the protocol.

pub mod writer;
