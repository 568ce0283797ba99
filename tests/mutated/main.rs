//! Damaged messages, damaged datagrams and valid messages of any size, as many as wanted, at a hub that others use meanwhile:
//! it does not panic, its memory stays within a bound, and every sync of the others succeeds.
//!
//! ```text
//! cargo test --test mutated                       a short run, part of the tests
//! cargo test --release --test mutated -- --messages 1000000 --datagrams 1000000 --structured 500000 --seed 7
//!                                                 for as long as wanted
//! ```
//!
//! The hub is a process of its own: this same program, which is told so by its arguments.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod attacker;
mod bombs;
mod damage;
mod datagrams;
mod honest;
mod hub_process;
mod invited;
#[path = "../support/member.rs"]
mod member;
mod messages;
#[path = "../survival/parts.rs"]
mod parts;
#[expect(dead_code, reason = "those who are killed use more of it")]
#[path = "../survival/place.rs"]
mod place;
mod structured;
mod users;

use std::path::Path;
use std::time::Instant;

use hub_process::HubProcess;
use place::Place;
use users::Users;

/// How many of each are sent, unless the arguments say otherwise.
const MESSAGES: u64 = 1_500;
const DATAGRAMS: u64 = 10_000;
const STRUCTURED: u64 = 300;

/// What the hub's process may take at most, in MiB, whatever is sent to it: the store's cache, 64; the largest frame of each
/// attacker at once, 17 times 6; and as much as it has taken when nobody has sent anything yet.
const MEMORY_MIB: u64 = 192;

/// What its messages may take besides, in MiB, when batches are sent that are much larger in memory than on the wire: half of
/// `maxMemoryBytes`.
const MESSAGES_MIB: u64 = 256;

/// The value of an argument.
fn argument(name: &str) -> Option<String> {
    let mut arguments = std::env::args().skip_while(|argument| argument != name);
    arguments.nth(1)
}

fn main() {
    if let Some(place) = argument("--place") {
        return hub_process::play(&Place::new(Path::new(&place)));
    }
    let number = |name| argument(name).map(|text| text.parse::<u64>().unwrap());
    let (messages, datagrams) =
        (number("--messages").unwrap_or(MESSAGES), number("--datagrams").unwrap_or(DATAGRAMS));
    let seed = number("--seed").unwrap_or(1);
    let folder = tempfile::tempdir().unwrap();
    let place = Place::new(folder.path());
    place.prepare();
    let mut hub = HubProcess::start(&place);
    let users = Users::start(folder.path());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();

    let began = Instant::now();
    let told = runtime.block_on(messages::send(&place, messages, seed));
    println!("mutated from seed {seed}: {told}, in {:.0} s", began.elapsed().as_secs_f64());
    hub.check();
    println!("the hub's memory: {}", hub.memory());

    let began = Instant::now();
    let told = runtime.block_on(datagrams::send(&place, datagrams, seed));
    println!("mutated from seed {seed}: {told}, in {:.0} s", began.elapsed().as_secs_f64());
    hub.check();
    println!("the hub's memory: {}", hub.memory());

    keeps_within(&hub, MEMORY_MIB);

    let told = runtime.block_on(bombs::send(&place, seed));
    println!("batches that are large in memory: {told}");
    hub.check();
    println!("the hub's memory: {}", hub.memory());

    println!("{}", users.finish());
    hub.check();
    keeps_within(&hub, MEMORY_MIB + MESSAGES_MIB);
    drop(hub);

    structured::send(number("--structured").unwrap_or(STRUCTURED), seed, MEMORY_MIB + MESSAGES_MIB);
}

/// Panics if the hub has taken more memory than it may, in MiB.
fn keeps_within(hub: &HubProcess, most_mib: u64) {
    if let Some(taken) = hub.memory().most_mib {
        assert!(taken <= most_mib, "the hub took {taken} MiB of memory, and may take {most_mib}");
    }
}
