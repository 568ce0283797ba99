//! Properties of what is pure: merging, clocks, and every encoding of what comes from outside.
//!
//! `PROPTEST_CASES=100000 cargo test --release --test properties` runs each that often: this is the fuzzing of the
//! decoders too (`decoding`).

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod allocations;
#[path = "../support/arbitrary.rs"]
mod arbitrary;
mod clock;
mod codecs;
mod decoding;
mod effective;
mod merge;
