//! Damaged messages, on streams.

use std::fmt;
use std::net::SocketAddr;

use federation_hub::model::Seq;
use federation_hub::protocol::frame::{self, LENGTH_BYTES};
use federation_hub::protocol::message::{Batch, Refusal, ToAgent, ToHub};
use federation_hub::transport::{Connection, FrameReceiver};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::attacker::{Attacker, PATIENCE, encode};
use crate::damage::damage;
use crate::place::Place;
use crate::{honest, invited};

/// Attackers at once.
pub const ATTACKERS: u8 = 6;

/// One message in so many is no message at all: that costs its sender the connection, and another handshake.
const NONSENSE: u8 = 16;

/// One in so many is sent by somebody who was not let in.
const STRANGERS: u8 = 100;

/// What became of the messages that were sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fates {
    sent: u64,
    /// Those of somebody who was not let in.
    of_strangers: u64,
    answered: u64,
    /// Batches that were taken.
    taken: u64,
    refused: u64,
    /// Refused for being too many.
    put_off: u64,
    /// Those that cost their sender the connection.
    cut_off: u64,
}

impl Fates {
    /// One was sent; nothing is known yet.
    pub fn of_one() -> Self {
        Self { sent: 1, ..Self::default() }
    }

    /// Those of both.
    pub fn add(self, other: Self) -> Self {
        Self {
            sent: self.sent + other.sent,
            of_strangers: self.of_strangers + other.of_strangers,
            answered: self.answered + other.answered,
            taken: self.taken + other.taken,
            refused: self.refused + other.refused,
            put_off: self.put_off + other.put_off,
            cut_off: self.cut_off + other.cut_off,
        }
    }
}

impl fmt::Display for Fates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, of_strangers, answered, taken, refused, put_off, cut_off } = self;
        write!(
            f,
            "{sent} damaged messages ({of_strangers} of strangers): {answered} answered, {taken} of them batches that were \
             taken, {refused} refused, {put_off} of them for being too many, {cut_off} cut off"
        )
    }
}

/// Sends so many damaged messages.
pub async fn send(place: &Place, messages: u64, seed: u64) -> Fates {
    let mut attackers = JoinSet::new();
    let address: SocketAddr = place.address().parse().unwrap();
    for number in 0..ATTACKERS {
        let attacker = invited::attacker(place, address.into(), number + 1);
        let share =
            messages / u64::from(ATTACKERS) + u64::from(u64::from(number) < messages % u64::from(ATTACKERS));
        let dice = fastrand::Rng::with_seed(seed << 8 | u64::from(number));
        attackers.spawn(attack(attacker, share, dice));
    }
    attackers.join_all().await.into_iter().fold(Fates::default(), Fates::add)
}

async fn attack(mut attacker: Attacker, messages: u64, mut dice: fastrand::Rng) -> Fates {
    let mut fates = Fates::default();
    let mut connection = attacker.enter().await;
    while fates.sent < messages {
        fates.sent += 1;
        if dice.u8(..STRANGERS) == 0 {
            fates.of_strangers += 1;
            let stranger = attacker.connect().await;
            let hello = damaged(&encode(&ToHub::Hello(attacker.hello.clone())), &mut dice);
            talk(&stranger, vec![hello], &mut fates).await;
            continue;
        }
        let (frames, batch) = script(&attacker, &mut dice);
        let heard = talk(&connection, frames, &mut fates).await;
        heard.teach(&mut attacker, batch.as_ref());
        if heard.is_lost {
            connection = attacker.enter().await;
        }
    }
    fates
}

/// What is said on a stream: what honest agents say, with one message damaged. And the batch among it, as the hub will
/// read it.
fn script(attacker: &Attacker, dice: &mut fastrand::Rng) -> (Vec<Vec<u8>>, Option<Batch>) {
    let mut messages = honest::script(attacker, dice);
    let at = dice.usize(..messages.len());
    // What a batch holds is bytes to the message.
    if let ToHub::Batch(batch) = &mut messages[at]
        && dice.bool()
    {
        let mut body = std::mem::take(&mut batch.body);
        damage(&mut body, &[], dice);
        *batch = attacker.batch(body);
        let batch = batch.clone();
        return (messages.iter().map(|it| frame::encode(it).unwrap()).collect(), Some(batch));
    }
    let mut frames: Vec<Vec<u8>> = messages.iter().map(|it| frame::encode(it).unwrap()).collect();
    frames[at] = damaged(&encode(&messages[at]), dice);
    let batch = frames.iter().find_map(|frame| match frame::decode(frame.get(LENGTH_BYTES..)?) {
        Ok(ToHub::Batch(batch)) => Some(batch),
        _ => None,
    });
    (frames, batch)
}

/// A damaged message in its frame; most of the time one that can be read.
fn damaged(payload: &[u8], dice: &mut fastrand::Rng) -> Vec<u8> {
    let may_be_nonsense = dice.u8(..NONSENSE) == 0;
    for _ in 0..50 {
        let mut damaged = payload.to_vec();
        damage(&mut damaged, payload, dice);
        if may_be_nonsense || frame::decode_payload::<ToHub>(&damaged).is_ok() {
            let frame = framed(&damaged, dice);
            if may_be_nonsense && dice.bool() {
                let mut frame = frame;
                damage(&mut frame, payload, dice);
                return frame;
            }
            return frame;
        }
    }
    framed(payload, dice)
}

fn framed(payload: &[u8], dice: &mut fastrand::Rng) -> Vec<u8> {
    let mut frame = vec![0; LENGTH_BYTES];
    if dice.u8(..8) == 0 {
        frame.push(1);
        frame.extend_from_slice(&u32::try_from(payload.len()).unwrap().to_be_bytes());
        frame.extend(zstd::bulk::compress(payload, 1).unwrap());
    } else {
        frame.push(0);
        frame.extend_from_slice(payload);
    }
    let length = u32::try_from(frame.len() - LENGTH_BYTES).unwrap();
    frame[..LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
    frame
}

/// What the hub said on a stream.
#[derive(Clone, Copy, Debug, Default)]
pub struct Heard {
    /// A batch was taken.
    pub is_acknowledged: bool,
    /// Up to where rows were told.
    pub cursor: Option<Seq>,
    /// The connection is gone.
    pub is_lost: bool,
}

impl Heard {
    /// What the attacker learns from it, in answer to a batch if there was one.
    fn teach(self, attacker: &mut Attacker, batch: Option<&Batch>) {
        if let Some(batch) = batch.filter(|_| self.is_acknowledged) {
            attacker.last = (batch.n, batch.digest(attacker.replica));
        }
        attacker.cursor = self.cursor.unwrap_or(attacker.cursor);
    }
}

/// Sends frames on a stream of their own, and hears what the hub says.
pub async fn talk(connection: &Connection, frames: Vec<Vec<u8>>, fates: &mut Fates) -> Heard {
    let Ok((mut sender, mut receiver)) = connection.open().await else {
        fates.cut_off += 1;
        return Heard { is_lost: true, ..Heard::default() };
    };
    for frame in frames {
        // A hub that has refused reads no more.
        if sender.send_encoded(frame).await.is_err() {
            break;
        }
    }
    let _ = sender.finish();
    let heard = timeout(PATIENCE, hear(&mut receiver, fates))
        .await
        .expect("the hub neither answers nor ends the stream");
    if heard.is_lost {
        fates.cut_off += 1;
    } else {
        fates.answered += 1;
    }
    heard
}

async fn hear(receiver: &mut FrameReceiver, fates: &mut Fates) -> Heard {
    let mut heard = Heard::default();
    loop {
        match receiver.next().await {
            Ok(Some(ToAgent::Ack(_))) => {
                fates.taken += 1;
                heard.is_acknowledged = true;
            }
            Ok(Some(ToAgent::Done(done))) => heard.cursor = Some(done.cursor),
            Ok(Some(ToAgent::Refused(why))) => {
                fates.refused += 1;
                if matches!(why.reason, Refusal::Busy | Refusal::Quota) {
                    fates.put_off += 1;
                }
                return heard;
            }
            Ok(Some(_)) => {}
            Ok(None) => return heard,
            Err(_) => return Heard { is_lost: true, ..heard },
        }
    }
}
