//! A hub's store and the model beside it, fed with pushes that no application would make up: few rows, many
//! replicas, ties, lost pulls. What an application does is in `tests/schemas/`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod cases;
#[expect(dead_code, reason = "shared with other tests, which need more of it")]
#[path = "../support/clock.rs"]
mod clock;
mod effects;
mod families;
mod foreign_keys;
#[path = "../support/hub.rs"]
mod hub;
mod local;
#[path = "../support/model/mod.rs"]
mod model;
mod natural;
mod natural_references;
mod pushes;
mod renamed;
mod replacing;
mod ruled;
mod unique;
