//! Random schemas and random writes: whatever the application's tables look like, all replicas end alike.
//!
//! ```text
//! seed ─► features ─► schema ─► agents, writes, syncs ─► run ─► checks ─► (shrink, report)
//! ```

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod apart;
mod auditor;
mod audits;
mod case;
mod catching;
mod checks;
#[path = "../support/clock.rs"]
mod clock;
#[expect(dead_code, reason = "shared with other tests, which need more of it")]
#[path = "../support/database.rs"]
mod database;
#[expect(dead_code, reason = "shared with the simulator, which needs more of it")]
mod dice;
mod draw_rules;
mod draw_schema;
mod draw_search;
mod draw_steps;
mod features;
#[path = "../support/hub.rs"]
mod hub;
mod isomorphism;
#[path = "../support/model/mod.rs"]
mod model;
mod proof;
mod schema;
mod shrink;
mod stories;
mod thousand;
#[expect(dead_code, reason = "shared with other tests, which need more of it")]
#[path = "../support/world.rs"]
mod world;
