//! Batches of a few hundred bytes that are as large in memory as any may be.

use std::net::SocketAddr;

use federation_hub::protocol::extent::MAX_VALUES;
use federation_hub::protocol::frame;
use federation_hub::protocol::message::ToHub;
use tokio::task::JoinSet;

use crate::attacker::Attacker;
use crate::messages::{ATTACKERS, Fates, talk};
use crate::place::Place;
use crate::{honest, invited};

/// Streams of one connection at once.
const STREAMS: usize = 8;

/// The body of a batch: one table without a name, of very many columns without names; no rows, no collisions.
fn body() -> Vec<u8> {
    let count = MAX_VALUES - 100;
    let length = u32::try_from(count).unwrap().to_be_bytes();
    [&[0x93, 0x91, 0x92, 0xa0, 0xdd][..], &length, &vec![0xa0; count], &[0x90, 0x90]].concat()
}

/// What the streams of an attacker say: an honest sync, whose batch is such a one.
fn script(attacker: &Attacker, dice: &mut fastrand::Rng) -> Vec<Vec<u8>> {
    loop {
        let mut messages = honest::script(attacker, dice);
        let batch = messages.iter_mut().find_map(|message| match message {
            ToHub::Batch(batch) => Some(batch),
            _ => None,
        });
        if let Some(batch) = batch {
            *batch = attacker.batch(body());
            return messages.iter().map(|it| frame::encode(it).unwrap()).collect();
        }
    }
}

/// Sends one on every stream of every attacker.
pub async fn send(place: &Place, seed: u64) -> Fates {
    let mut attackers = Vec::new();
    let address: SocketAddr = place.address().parse().unwrap();
    let mut streams = JoinSet::new();
    for number in 0..ATTACKERS {
        let mut attacker = invited::attacker(place, address.into(), number + 1);
        let mut dice = fastrand::Rng::with_seed(seed << 8 | u64::from(number));
        let connection = attacker.enter().await;
        for _ in 0..STREAMS {
            let (frames, connection) = (script(&attacker, &mut dice), connection.clone());
            streams.spawn(async move {
                let mut fates = Fates::of_one();
                talk(&connection, frames, &mut fates).await;
                fates
            });
        }
        attackers.push(attacker);
    }
    streams.join_all().await.into_iter().fold(Fates::default(), Fates::add)
}
