//! Messages of every kind and of any size that are as valid as those of an honest agent, or contradict themselves in what
//! only the hub can tell: each is answered or refused, within the memory that the hub may take.
//!
//! ```text
//! cargo test --release --test mutated -- --messages 0 --datagrams 0 --structured 500000        for as long as wanted
//! ```
//!
//! Every few thousand messages there is another hub with an empty store, since what a tenant may have is used up after a
//! while. How long each kind takes is printed: it includes what the message waits for, its tenant's rate and other messages
//! of its tenant.

mod batches;
mod dice;
mod scripts;
mod tables;
mod tally;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use federation_hub::protocol::message::{Refusal, ToAgent, ToHub};
use federation_hub::transport::{Connection, FrameReceiver};
use tokio::time::timeout;

use crate::attacker::Attacker;
use crate::hub_process::HubProcess;
use crate::invited;
use crate::place::Place;
use crate::users::Users;
use dice::Dice;
use scripts::Script;
use tally::{Fate, Kind, Tally};

/// Attackers at once, all of one tenant.
const ATTACKERS: u8 = 3;

/// Messages for each hub.
const MESSAGES_OF_HUB: u64 = 3_000;

/// From so many messages on, some of each kind have to be accepted, and some refused.
const ENOUGH: u64 = 20 * Kind::ALL.len() as u64;

/// Longer than anything takes, also in a build without optimization; only a failure waits for it.
const PATIENCE: Duration = Duration::from_secs(180);

/// Whatever takes longer than a tenant's rate may hold it back is printed at once.
const SLOW: Duration = Duration::from_secs(6);

/// How often the hub is looked at.
const GLANCE: Duration = Duration::from_millis(20);

/// What each attacker is saying, and since when.
type Speaking = Arc<Vec<Mutex<(Option<Instant>, String)>>>;

/// Sends so many, to one hub after the other, each of which may take so many MiB of memory.
pub fn send(messages: u64, seed: u64, most_mib: u64) {
    let (began, mut sum, mut sent, mut most) = (Instant::now(), Tally::default(), 0, 0);
    while sent < messages {
        let until = messages.min(sent + MESSAGES_OF_HUB);
        let (tally, mib) = send_to_one((sent, until), seed, most_mib);
        sum.add(tally);
        (sent, most) = (until, most.max(mib));
        if messages > MESSAGES_OF_HUB {
            println!(
                "structured: {sent} messages in {:.0} s, {mib} MiB at most",
                began.elapsed().as_secs_f64()
            );
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    println!("structured from seed {seed}: {} messages in {seconds:.0} s\n{sum}", sum.count());
    println!("a hub's memory: {most} MiB at most, and it may take {most_mib}");
    if messages >= ENOUGH {
        sum.is_of_both();
    }
}

/// Sends the messages of these numbers to a hub of their own.
fn send_to_one((from, until): (u64, u64), seed: u64, most_mib: u64) -> (Tally, u64) {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::new(folder.path());
    place.prepare();
    let mut hub = HubProcess::start(&place);
    let users = Users::start(folder.path());
    let next = Arc::new(AtomicU64::new(from));
    let speaking: Speaking = Arc::new((0..ATTACKERS).map(|_| Mutex::default()).collect());
    let attackers: Vec<JoinHandle<Tally>> = (0..ATTACKERS)
        .map(|at| {
            let address: SocketAddr = place.address().parse().unwrap();
            let attacker = invited::attacker(&place, address.into(), at + 1);
            let (next, speaking) = (Arc::clone(&next), Arc::clone(&speaking));
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                let numbers = std::iter::from_fn(|| {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    (number < until).then_some(number)
                });
                runtime.block_on(attack(attacker, numbers, seed, &speaking[usize::from(at)]))
            })
        })
        .collect();
    let mut most = 0;
    while !attackers.iter().all(JoinHandle::is_finished) {
        std::thread::sleep(GLANCE);
        most = look_at((&mut hub, &users), most, most_mib, &speaking);
    }
    let mut tally = Tally::default();
    for attacker in attackers {
        tally.add(attacker.join().expect("an attacker has failed"));
    }
    most = look_at((&mut hub, &users), most, most_mib, &speaking);
    println!("{}", users.finish());
    (tally, most)
}

/// Panics if the hub has ended, has taken more memory than it may, or has let down somebody else. Returns the most memory that
/// it has taken, in MiB.
fn look_at((hub, users): (&mut HubProcess, &Users), before: u64, most_mib: u64, speaking: &Speaking) -> u64 {
    let most = hub.memory().most_mib.unwrap_or(0).max(before);
    let wrong = if hub.has_ended() {
        "the hub has ended".to_owned()
    } else if most > most_mib {
        format!("the hub took {most} MiB, and may take {most_mib}")
    } else if users.have_failed() {
        "a sync of somebody else has failed".to_owned()
    } else {
        return most;
    };
    let said = speaking.iter().map(|it| {
        let (began, told) = it.lock().unwrap().clone();
        format!("\n  for {:.2} s: {told}", began.map_or(0.0, |it| it.elapsed().as_secs_f64()))
    });
    panic!("{wrong} while this was said:{}", said.collect::<String>());
}

async fn attack(
    mut attacker: Attacker,
    numbers: impl Iterator<Item = u64>,
    seed: u64,
    speaking: &Mutex<(Option<Instant>, String)>,
) -> Tally {
    let mut tally = Tally::default();
    let mut connection = attacker.enter().await;
    for number in numbers {
        let kinds = Kind::ALL.len() as u64;
        let mut dice = Dice::of(seed, number, number / kinds);
        let kind = Kind::ALL[usize::try_from(number % kinds).unwrap()];
        let (script, frames) = scripts::frames(&attacker, kind, &mut dice);
        let bytes: usize = frames.iter().map(Vec::len).sum();
        let told = format!("message {number}, {kind:?}, {} B in frames: {}", bytes, script.told);
        let began = Instant::now();
        *speaking.lock().unwrap() = (Some(began), told.clone());
        let answer = talk(&connection, frames, began);
        let Answer { fate, took, is_stale } = timeout(PATIENCE, answer)
            .await
            .unwrap_or_else(|_| panic!("the hub neither answers nor ends the stream: {told}"))
            .judged(&script, &mut attacker);
        if took > SLOW {
            println!("slow: {:.1} s, {fate:?}: {told}", took.as_secs_f64());
        }
        tally.note(kind, fate, took, told);
        if fate == Fate::CutOff || connection.close_reason().is_some() {
            connection = attacker.enter().await;
        } else if is_stale {
            match Attacker::attach(&connection, attacker.replica, false).await {
                Some(attached) => attacker.attached(&attached),
                None => connection = attacker.enter().await,
            }
        }
    }
    tally
}

/// What the hub said on a stream, and when it first said anything that counts.
struct Said {
    took: Duration,
    answers: Vec<ToAgent>,
    is_lost: bool,
}

/// What became of a message.
struct Answer {
    fate: Fate,
    took: Duration,
    is_stale: bool,
}

async fn talk(connection: &Connection, frames: Vec<Vec<u8>>, began: Instant) -> Said {
    let mut said = Said { took: Duration::ZERO, answers: Vec::new(), is_lost: true };
    let Ok((mut sender, mut receiver)) = connection.open().await else { return said };
    for frame in frames {
        // A hub that has refused reads no more.
        if sender.send_encoded(frame).await.is_err() {
            break;
        }
    }
    let _ = sender.finish();
    hear(&mut receiver, &mut said, began).await;
    if said.took.is_zero() {
        said.took = began.elapsed();
    }
    said
}

async fn hear(receiver: &mut FrameReceiver, said: &mut Said, began: Instant) {
    loop {
        match receiver.next().await {
            // What is told of others need not be kept.
            Ok(Some(ToAgent::Rows(_) | ToAgent::Tables(_))) => {}
            Ok(Some(answer)) => {
                if said.took.is_zero() {
                    said.took = began.elapsed();
                }
                let is_last = matches!(answer, ToAgent::Refused(_));
                said.answers.push(answer);
                if is_last {
                    said.is_lost = false;
                    return;
                }
            }
            Ok(None) => {
                said.is_lost = false;
                return;
            }
            Err(_) => return,
        }
    }
}

impl Said {
    /// What it means; the attacker takes in what its next message depends on.
    fn judged(self, script: &Script, attacker: &mut Attacker) -> Answer {
        let mut answer = Answer { fate: Fate::CutOff, took: self.took, is_stale: false };
        if self.answers.is_empty() {
            // A stream that ends without a word, when there was nothing to answer.
            answer.fate = if self.is_lost { Fate::CutOff } else { Fate::Accepted };
        }
        for said in &self.answers {
            answer.fate = match said {
                ToAgent::Refused(refused) => {
                    answer.is_stale = refused.reason == Refusal::Stale;
                    match refused.reason {
                        Refusal::Quota | Refusal::Busy => Fate::PutOff,
                        _ => Fate::Refused,
                    }
                }
                ToAgent::Ack(ack) => {
                    let batch = script.messages.iter().find_map(|it| match it {
                        ToHub::Batch(batch) => Some(batch),
                        _ => None,
                    });
                    if let Some(batch) = batch {
                        attacker.last = (batch.n, batch.digest(attacker.replica));
                    }
                    let is_rejected = script.rows > 0 && ack.rejected.len() == script.rows;
                    if is_rejected { Fate::Refused } else { Fate::Accepted }
                }
                ToAgent::Done(done) => {
                    attacker.cursor = done.cursor;
                    let is_refused = script.kind == Kind::Declare && !done.refused.is_empty();
                    if is_refused { Fate::Refused } else { Fate::Accepted }
                }
                _ => Fate::Accepted,
            };
        }
        answer
    }
}
