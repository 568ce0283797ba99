//! federation-hub: AI agents share their SQLite memories through a hub.
//!
//! Each agent has a replica, an SQLite database to which its application writes as it likes; the hub holds,
//! for each tenant, the merged state of all rows. A sync sends what changed here and fetches what changed
//! there, in one round trip.
//!
//! ```text
//!  application ─► trigger ─► log ─► settle ─► Batch ─► frame ─► QUIC ─► HubExchange ─► merge ─► store
//!                                                                                                 │
//!  application ◄─ tables ◄──────── apply ◄── RowUpdate ◄── frame ◄── QUIC ◄─── snapshot ◄─────────┘
//! ```
//!
//! Layers, whose imports run downward only (`tests/layering.rs`):
//!
//! ```text
//! node ─► engine ─► { storage, transport } ─► protocol ─► model
//! ```
//!
//! [`model`] and [`protocol`] are pure: time, randomness, sockets and files are passed in, so that a test owns
//! them. [`storage`] knows SQL, [`transport`] QUIC, and [`engine`] has the only loops. `node` converts for
//! JavaScript. ARCHITECTURE.md says why it is so.

pub mod engine;
pub mod model;
mod node;
pub mod protocol;
pub mod storage;
pub mod transport;
