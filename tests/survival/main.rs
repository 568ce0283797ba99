//! Real processes that are killed (SIGKILL) at random moments, hub and agents, under load: whatever was acknowledged
//! is there at the end, everybody syncs again, and the files are whole.
//!
//! ```text
//! cargo test --test survival                                              a short run, part of the tests
//! cargo test --release --test survival -- --kills 5000 --seed 7           for as long as wanted
//! ```
//!
//! The processes are this same program, which is told its part by its arguments.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../support/member.rs"]
mod member;
mod parts;
mod place;
mod verdict;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use place::{AGENTS, Place, agents};

/// How many processes are killed, unless the arguments say otherwise.
const KILLS: u64 = 60;

fn start(place: &Place, part: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--part", part, "--place"])
        .arg(place.folder())
        .stdin(Stdio::null())
        .spawn()
        .unwrap()
}

fn kill(child: &mut Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Starts everybody, and kills so many of them, one after the other, each of whom is started again at once.
fn rage(place: &Place, kills: u64, dice: &mut fastrand::Rng) {
    let mut hub = start(place, "hub");
    let mut others: Vec<(String, Child)> =
        agents().into_iter().map(|name| (name.clone(), start(place, &name))).collect();
    for _ in 0..kills {
        std::thread::sleep(Duration::from_millis(dice.u64(20..250)));
        // Sometimes both at once, and half of the agents with their databases: then what the hub took from them is
        // all there is.
        let which = dice.u8(..4);
        if which < 2 {
            kill(&mut hub);
        }
        if which > 0 {
            let (name, child) = &mut others[dice.usize(..AGENTS)];
            kill(child);
            if dice.bool() {
                place.forget(name);
            }
            *child = start(place, name);
        }
        if which < 2 {
            hub = start(place, "hub");
        }
    }
    for (_, child) in &mut others {
        kill(child);
    }
    kill(&mut hub);
}

/// The value of an argument.
fn argument(name: &str) -> Option<String> {
    let mut arguments = std::env::args().skip_while(|argument| argument != name);
    arguments.nth(1)
}

fn main() {
    if let (Some(part), Some(place)) = (argument("--part"), argument("--place")) {
        return parts::play(&part, &Place::new(Path::new(&place)));
    }
    let number = |name| argument(name).map(|text| text.parse::<u64>().unwrap());
    let (kills, seed) = (number("--kills").unwrap_or(KILLS), number("--seed").unwrap_or(1));
    let folder = tempfile::tempdir().unwrap();
    let place = Place::new(folder.path());
    place.prepare();
    rage(&place, kills, &mut fastrand::Rng::with_seed(seed));
    let verdict = verdict::reach(&place);
    println!("survival from seed {seed}: {kills} processes killed, {verdict}");
}
