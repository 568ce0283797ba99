//! Replicas and a hub's store, without a network.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod arrivals;
mod burial;
mod bystanders;
mod choice;
mod cleared;
#[path = "../support/clock.rs"]
mod clock;
mod composite_parents;
mod convergence;
mod create_schema;
#[expect(dead_code, reason = "shared with other tests, which need more of it")]
#[path = "../support/database.rs"]
mod database;
mod definitions;
mod dice;
mod doubts;
mod failing_rows;
mod generated_keys;
mod generated_parents;
mod generic_references;
mod held_back;
mod hostile;
#[expect(dead_code, reason = "shared with other tests, which need more of it")]
#[path = "../support/hub.rs"]
mod hub;
mod identity;
mod journals;
mod keyless;
mod limits;
mod nothing_left;
mod numbers;
mod numbers_apart;
mod old_rows;
mod own_functions;
mod packages_at_random;
mod permutations;
mod reborn;
mod recovery;
mod refused_rows;
mod replacing;
mod retirement;
mod reused_at_random;
mod reused_names;
mod rotations;
mod rules;
mod rules_converge;
mod schema_change;
mod search_indexes;
mod self_check;
mod set_aside;
mod shadows;
mod sharing;
mod taken_over;
mod triggers;
mod two_are_one;
mod unions;
mod wide_keys;
#[path = "../support/world.rs"]
mod world;
mod writes;
