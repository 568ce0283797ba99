//! A deterministic simulator: agents and a hub as the real state machines over the real storage, on a virtual
//! network, under virtual clocks, driven by one seed.
//!
//! ```text
//! seed ─► case (steps) ─► simulation: processes ⇄ network ⇄ hub ─► settle: oracles ─► (shrink, report)
//!                                          one queue of (virtual time, tie-break)
//! ```

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod campaign;
mod case;
#[path = "../schemas/catching.rs"]
mod catching;
#[expect(dead_code, reason = "shared with the random schemas, which need more of it")]
#[path = "../schemas/checks.rs"]
mod checks;
#[path = "../support/clock.rs"]
mod clock;
#[expect(dead_code, reason = "shared with other tests, which need more of it")]
#[path = "../support/database.rs"]
mod database;
#[path = "../schemas/dice.rs"]
mod dice;
mod disk;
mod draw;
#[expect(dead_code, reason = "shared with the random schemas, which need more of it")]
#[path = "../schemas/draw_rules.rs"]
mod draw_rules;
#[path = "../schemas/draw_schema.rs"]
mod draw_schema;
#[expect(dead_code, reason = "shared with other tests, which need more of it")]
#[path = "../schemas/draw_search.rs"]
mod draw_search;
#[expect(dead_code, reason = "shared with the random schemas, which need more of it")]
#[path = "../schemas/draw_steps.rs"]
mod draw_steps;
#[expect(dead_code, reason = "shared with other tests, which need more of it")]
#[path = "../schemas/features.rs"]
mod features;
#[expect(dead_code, reason = "shared with other tests, which need more of it")]
#[path = "../support/hub.rs"]
mod hub;
mod hub_side;
#[expect(dead_code, reason = "shared with the random schemas, which need more of it")]
#[path = "../schemas/isomorphism.rs"]
mod isomorphism;
mod ledger;
mod network;
mod power;
mod probe;
mod process;
mod queue;
mod rich;
mod run;
#[path = "../schemas/schema.rs"]
mod schema;
mod seeds;
mod settle;
mod simulation;
mod store;
mod sync;
mod weather;
#[expect(dead_code, reason = "shared with other tests, which need more of it")]
#[path = "../support/world.rs"]
mod world;
