//! What is said on a stream.

use federation_hub::model::ReplicaId;
use federation_hub::protocol::check::{Check, Range};
use federation_hub::protocol::frame::{self, FrameError};
use federation_hub::protocol::limits::{MAX_CHECK_RANGES, MAX_CHECK_ROWS, MAX_COLUMNS, MAX_TABLES};
use federation_hub::protocol::message::{Attach, BatchBody, SyncBegin, ToHub};

use super::dice::Dice;
use super::tally::Kind;
use super::{batches, tables};
use crate::attacker::{Attacker, encode};

/// What is said on one stream.
pub struct Script {
    pub kind: Kind,
    pub messages: Vec<ToHub>,
    /// The rows of its batch.
    pub rows: usize,
    /// What it is, for people.
    pub told: String,
}

/// A script of a kind that fits in frames.
pub fn frames(attacker: &Attacker, kind: Kind, dice: &mut Dice) -> (Script, Vec<Vec<u8>>) {
    loop {
        let script = script(attacker, kind, dice);
        let frames: Result<Vec<_>, FrameError> = script.messages.iter().map(frame::encode).collect();
        if let Ok(frames) = frames {
            return (script, frames);
        }
    }
}

fn script(attacker: &Attacker, kind: Kind, dice: &mut Dice) -> Script {
    let of = |messages, told| Script { kind, messages, rows: 0, told };
    let sync = ToHub::Sync(attacker.sync());
    match kind {
        Kind::Attach => of(vec![ToHub::Attach(attach(dice))], String::new()),
        Kind::Declare => {
            let schema = tables::declaration(dice);
            let columns: usize = schema.iter().map(|it| it.columns.len()).sum();
            let indexes: usize = schema.iter().map(|it| it.indexes.len()).sum();
            let told = format!("{} tables with {columns} columns and {indexes} indexes", schema.len());
            let declaring = ToHub::Sync(SyncBegin { schema: Some(schema), ..attacker.sync() });
            of(vec![declaring, ToHub::End], told)
        }
        Kind::Refresh => {
            // Once in a while more than a sync may name.
            let count =
                if dice.once_in(4) { MAX_TABLES + 1 + dice.size(1 << 20) } else { dice.size(MAX_TABLES) };
            let refresh = (0..count).map(|_| tables::name(tables::number(dice))).collect();
            let cursor = if dice.once_in(8) { 0 } else { attacker.cursor };
            let sync = SyncBegin { cursor, resume: cursor, refresh, ..attacker.sync() };
            of(vec![ToHub::Sync(sync), ToHub::End], format!("{count} tables from {cursor}"))
        }
        Kind::Check => {
            let (check, told) = check(dice);
            of(vec![sync, ToHub::Check(check)], told)
        }
        Kind::End => {
            let sync = ended(attacker, dice);
            let told = format!("{sync:?}");
            of(vec![ToHub::Sync(sync), ToHub::End], told)
        }
        Kind::OutOfOrder => {
            let batch = attacker.batch(encode(&(0u8..0).collect::<Vec<u8>>()));
            let all = [sync, ToHub::Batch(batch), ToHub::Check(Check::default()), ToHub::End];
            let mut messages: Vec<ToHub> =
                (0..dice.usize(1..6)).map(|_| all[dice.usize(..all.len())].clone()).collect();
            if dice.is_wrong {
                messages.insert(0, ToHub::End);
            } else if dice.bool() {
                messages = vec![all[0].clone(), all[3].clone()];
            }
            let told = format!("{} messages", messages.len());
            of(messages, told)
        }
        _ => {
            let (batch, told) = batches::batch(attacker, kind, dice);
            let rows = batch_rows(&batch.body);
            let begin = SyncBegin {
                epoch: if dice.once_in(24) { dice.u64(..) } else { attacker.epoch },
                ..attacker.sync()
            };
            Script { rows, ..of(vec![ToHub::Sync(begin), ToHub::Batch(batch)], told) }
        }
    }
}

/// How many rows an encoded body has.
fn batch_rows(body: &[u8]) -> usize {
    frame::decode_payload::<BatchBody>(body).map_or(0, |it| it.rows.len())
}

fn attach(dice: &mut Dice) -> Attach {
    // Not the replica that everything else is about: that would end its session.
    let replica = ReplicaId([dice.u8(100..); 16]);
    let cursor = if dice.is_wrong { dice.u64(1 << 63..) } else { dice.u64(..) >> dice.u8(1..64) };
    Attach { replica, cursor, is_new: dice.bool() }
}

/// The start of a sync whose numbers may contradict each other, or what the hub knows.
fn ended(attacker: &Attacker, dice: &mut Dice) -> SyncBegin {
    let mut sync = attacker.sync();
    match if dice.is_wrong { 6 } else { dice.u8(..6) } {
        6 => sync.counter = u64::MAX,
        0 => sync.cursor = dice.u64(..),
        1 => sync.resume = dice.u64(..),
        2 => sync.counter = dice.u64(..),
        3 => sync.epoch = dice.u64(..),
        4 => (sync.cursor, sync.resume) = (0, 0),
        _ => {}
    }
    sync
}

fn check(dice: &mut Dice) -> (Check, String) {
    let is_much = dice.once_in(8);
    let most = |limit: usize| if is_much { 4 * limit } else { limit };
    let ranges: Vec<Range> = (0..=dice.size_within(most(MAX_CHECK_RANGES) - 1))
        .map(|_| {
            let number = tables::number(dice);
            let columns =
                if dice.once_in(8) { dice.size(most(MAX_COLUMNS)) } else { tables::columns(number) };
            let after = dice.bool().then(|| dice.row());
            Range {
                table: tables::name(number),
                columns: (0..columns).map(tables::column).collect(),
                after,
                upto: dice.bool().then(|| dice.row()),
                left_out: (0..dice.size_within(most(MAX_CHECK_ROWS))).map(|_| dice.row()).collect(),
            }
        })
        .collect();
    let ranges = if dice.is_wrong { vec![Range::clone(&ranges[0]); MAX_CHECK_RANGES + 1] } else { ranges };
    let told = format!(
        "{} ranges with {} columns, {} rows left out",
        ranges.len(),
        ranges.iter().map(|it| it.columns.len()).sum::<usize>(),
        ranges.iter().map(|it| it.left_out.len()).sum::<usize>()
    );
    (Check { ranges, rows: dice.bool() }, told)
}
