//! Any value of each type that is merged, stored or sent, for properties.
//!
//! Small alphabets throughout: properties of merging break where two writes meet in one cell, with one stamp, or
//! at one position, and random 64-bit numbers never meet.

use std::collections::BTreeMap;

use federation_hub::model::{
    Addition, Adjustment, AgreedReference, Agreement, Cell, CellValue, ColumnIndex, Digest, Hlc, KeyKind,
    Made, NeedsApplication, Number, Op, Origin, ReplicaId, RowChange, RowId, RowState, RowUpdate, Rule, Seq,
    Stamp, TableHeader, TableSchema, Value, VectorClock, Write,
};
use federation_hub::protocol::check::{Check, Fingerprint, Print, Range};
use federation_hub::protocol::message::{
    Ack, Attach, Attached, Batch, BatchBody, Collision, Contested, Done, Hello, Refusal, Refused, Rows,
    Standing, SyncBegin, ToAgent, ToHub, Welcome,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

/// A double that SQLite can store.
fn real() -> impl Strategy<Value = f64> {
    any::<f64>().prop_filter("SQLite stores no NaN", |it| !it.is_nan())
}

/// Any value, often one of a few that others are equal or nearly equal to.
pub fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        2 => Just(Value::Null),
        1 => any::<i64>().prop_map(Value::Integer),
        3 => (-2_i64..3).prop_map(Value::Integer),
        1 => real().prop_map(Value::Real),
        2 => (-2_i32..3).prop_map(|it| Value::Real(f64::from(it))),
        1 => Just(Value::Real(-0.0)),
        2 => "[aB\0é🦀]{0,3}".prop_map(Value::Text),
        2 => vec(any::<u8>(), 0..4).prop_map(Value::Blob),
    ]
}

/// Any value that a cell can hold.
pub fn cell_value() -> impl Strategy<Value = CellValue> {
    prop_oneof![4 => value().prop_map(CellValue::Plain), 1 => row_id().prop_map(CellValue::Ref)]
}

/// One of a few rows.
pub fn row_id() -> impl Strategy<Value = RowId> {
    (0_u8..4).prop_map(|it| RowId([it; 16]))
}

/// Any replica.
pub fn replica_id() -> impl Strategy<Value = ReplicaId> {
    any::<[u8; 16]>().prop_map(ReplicaId)
}

/// Any digest.
pub fn digest() -> impl Strategy<Value = Digest> {
    any::<[u8; 32]>().prop_map(Digest)
}

/// One of a few stamps, that of rows older than syncing among them.
pub fn stamp() -> impl Strategy<Value = Stamp> {
    let any_stamp = (any::<u64>(), any::<u64>()).prop_map(|(hlc, replica)| Stamp { hlc: Hlc(hlc), replica });
    prop_oneof![
        8 => (1_u64..5, 1_u64..4).prop_map(|(hlc, replica)| Stamp { hlc: Hlc(hlc), replica }),
        1 => Just(Stamp::ZERO),
        1 => any_stamp,
    ]
}

/// One of a few positions.
pub fn seq() -> impl Strategy<Value = Seq> {
    0_u64..6
}

/// One of a few columns.
fn column() -> impl Strategy<Value = ColumnIndex> {
    0_u16..3
}

fn cells<V: std::fmt::Debug>(
    value: impl Strategy<Value = V>,
) -> impl Strategy<Value = Vec<(ColumnIndex, V)>> {
    vec((column(), value), 1..4).prop_map(|cells| BTreeMap::from_iter(cells).into_iter().collect())
}

/// Any number.
pub fn number() -> impl Strategy<Value = Number> {
    prop_oneof![
        (-3_i64..4).prop_map(Number::Integer),
        any::<i64>().prop_map(Number::Integer),
        real().prop_map(Number::Real),
    ]
}

/// Any adjustment, of a set also one whose elements are no JSON.
pub fn adjustment() -> impl Strategy<Value = Adjustment> {
    let elements = || vec(prop_oneof!["[12]", "\"[ab]\"", "[\\[{a\"]{0,2}"], 0..3);
    prop_oneof![
        number().prop_map(Adjustment::Add),
        (elements(), elements()).prop_map(|(added, removed)| Adjustment::Edit { added, removed }),
    ]
}

/// A write that chooses its winner by stamps alone.
pub fn plain_write() -> impl Strategy<Value = Write> {
    let op = prop_oneof![3 => cells(cell_value()).prop_map(Op::Set), 1 => Just(Op::Delete)];
    (stamp(), seq(), op).prop_map(|(stamp, base, op)| Write { stamp, base, op })
}

/// Any write.
pub fn write() -> impl Strategy<Value = Write> {
    let adjust = (stamp(), seq(), cells(adjustment())).prop_map(|(stamp, base, cells)| Write {
        stamp,
        base,
        op: Op::Adjust(cells),
    });
    let cut = (stamp(), seq(), cells(cell_value())).prop_map(|(stamp, base, cells)| Write {
        stamp,
        base,
        op: Op::Cut(cells),
    });
    let gone = (stamp(), seq()).prop_map(|(stamp, base)| Write { stamp, base, op: Op::Gone });
    prop_oneof![6 => plain_write(), 2 => adjust, 1 => cut, 1 => gone]
}

fn cell<V: std::fmt::Debug>(value: impl Strategy<Value = V>) -> impl Strategy<Value = Cell<V>> {
    (stamp(), 1_u64..6, 0_u64..4, value).prop_map(|(stamp, seq, writer, value)| Cell {
        stamp,
        seq,
        writer,
        value,
    })
}

/// Any state of a row, also one that no order of writes leads to. No counters.
pub fn row_state() -> impl Strategy<Value = RowState> {
    let cells = prop::collection::btree_map(column(), cell(cell_value()), 0..4);
    (option::of(-2_i64..3), seq(), option::of(cell(Just(()))), cells).prop_map(
        |(number, whole_since, deleted, cells)| RowState {
            number,
            whole_since,
            deleted,
            cells,
            made: BTreeMap::new(),
            beneath: None,
        },
    )
}

/// Any state of a row, counters included.
pub fn any_row_state() -> impl Strategy<Value = RowState> {
    let addition =
        (seq(), 0_u64..4, number()).prop_map(|(seq, writer, amount)| Addition { seq, writer, amount });
    let made = vec(addition, 0..3).prop_map(|additions| {
        let parts = additions.into_iter();
        parts.fold(Made::default(), |made, it| made.with_part(it.writer, it.seq).with_addition(it))
    });
    let made = prop::collection::btree_map(column(), made, 0..2);
    (row_state(), made).prop_map(|(state, made)| RowState { made, ..state })
}

/// Any merge rule.
pub fn rule() -> impl Strategy<Value = Rule> {
    prop::sample::select(Rule::NAMES.map(|(_, rule)| rule).to_vec())
}

/// Any clock of a few agents.
pub fn vector_clock() -> impl Strategy<Value = VectorClock> {
    prop::collection::btree_map("[a-d]", 0_u64..4, 0..4).prop_map(VectorClock::from_iter)
}

fn name() -> impl Strategy<Value = String> {
    "[a-cé\"]{1,4}"
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![3 => "[a-z é🦀]{0,12}".boxed(), 1 => Just("long ".repeat(2_000)).boxed()]
}

fn header() -> impl Strategy<Value = TableHeader> {
    (name(), vec(name(), 0..4)).prop_map(|(name, columns)| TableHeader { name, columns })
}

fn row_change() -> impl Strategy<Value = RowChange> {
    (0_u16..3, row_id(), option::of(any::<i64>()), any::<bool>(), vec(write(), 0..4))
        .prop_map(|(table, id, number, is_new, writes)| RowChange { table, id, number, is_new, writes })
}

fn row_update() -> impl Strategy<Value = RowUpdate> {
    let row = (0_u16..3, row_id(), option::of(any::<i64>()), seq(), any::<bool>(), option::of(row_id()));
    (row, vec(write(), 0..4)).prop_map(|((table, id, number, seq, whole, united), writes)| RowUpdate {
        table,
        id,
        number,
        seq,
        whole,
        united,
        writes,
    })
}

/// Any batch's body.
pub fn batch_body() -> impl Strategy<Value = BatchBody> {
    (vec(header(), 0..3), vec(row_change(), 0..8), vec(collision(), 0..3))
        .prop_map(|(tables, rows, collisions)| BatchBody { tables, rows, collisions })
}

fn collision() -> impl Strategy<Value = Collision> {
    (any::<u16>(), ".{0,6}", (row_id(), row_id()), any::<u64>())
        .prop_map(|(table, index, rows, base)| Collision { table, index, rows, base })
}

fn table_schema() -> impl Strategy<Value = TableSchema> {
    let to = vec((cell_value(), name()), 0..3);
    let reference =
        (name(), option::of(name()), to).prop_map(|(column, by, to)| AgreedReference { column, by, to });
    let origin =
        (name(), any::<u8>(), name(), any::<u64>()).prop_map(|(column, generation, content, since)| Origin {
            column,
            generation,
            content,
            since: Hlc(since),
        });
    let needs = prop_oneof![
        name().prop_map(NeedsApplication::Journal),
        Just(NeedsApplication::UserVersion),
        name().prop_map(NeedsApplication::VirtualTable),
    ];
    let agreed = (
        vec(name(), 0..3),
        any::<bool>(),
        vec((name(), rule()), 0..3),
        vec(reference, 0..2),
        vec(origin, 0..2),
        proptest::option::of(needs),
    );
    let key = prop_oneof![Just(KeyKind::Number), Just(KeyKind::Natural)];
    (name(), key, vec(name(), 0..4), text(), vec(text(), 0..2), agreed).prop_map(
        |(name, key, columns, ddl, indexes, agreed)| {
            let (key_columns, is_global, rules, references, origins, needs_application) = agreed;
            let agreed = Agreement { key_columns, is_global, rules, references, origins, needs_application };
            TableSchema { name, key, columns, ddl, indexes, agreed }
        },
    )
}

/// Anything an agent can say.
pub fn to_hub() -> impl Strategy<Value = ToHub> {
    let hello = (name(), name(), text())
        .prop_map(|(tenant, agent, token)| ToHub::Hello(Hello { tenant, agent, token }));
    let sync = (replica_id(), any::<[u64; 4]>(), option::of(vec(table_schema(), 0..3)), vec(name(), 0..3))
        .prop_map(|(replica, [epoch, cursor, resume, counter], schema, refresh)| {
            ToHub::Sync(SyncBegin { replica, epoch, cursor, resume, counter, schema, refresh })
        });
    let body = prop_oneof![
        batch_body().prop_map(|body| rmp_serde::to_vec(&body).unwrap()),
        vec(any::<u8>(), 0..200),
        Just(vec![7; 10_000]),
    ];
    let batch = (any::<u64>(), digest(), body)
        .prop_map(|(n, previous, body)| ToHub::Batch(Batch { n, previous, body }));
    let range = (name(), vec(name(), 0..3), option::of(row_id()), option::of(row_id()), vec(row_id(), 0..3))
        .prop_map(|(table, columns, after, upto, left_out)| Range { table, columns, after, upto, left_out });
    let check =
        (vec(range, 0..3), any::<bool>()).prop_map(|(ranges, rows)| ToHub::Check(Check { ranges, rows }));
    prop_oneof![
        hello,
        check,
        (replica_id(), any::<u64>(), any::<bool>())
            .prop_map(|(replica, cursor, is_new)| ToHub::Attach(Attach { replica, cursor, is_new })),
        sync,
        batch,
        Just(ToHub::End),
    ]
}

fn ack() -> impl Strategy<Value = ToAgent> {
    let side = || (stamp(), cell_value());
    let contested = (name(), row_id(), name(), side(), side(), name()).prop_map(
        |(table, id, column, local, remote, agent)| Contested { table, id, column, local, remote, agent },
    );
    let rejected = vec((any::<u32>(), text()), 0..3);
    (any::<u64>(), any::<u32>(), rejected, vec(text(), 0..3), vec(contested, 0..3)).prop_map(
        |(n, conflicts, rejected, notices, contests)| {
            ToAgent::Ack(Ack { n, conflicts, rejected, notices, contests })
        },
    )
}

fn refusal() -> impl Strategy<Value = Refusal> {
    prop::sample::select(vec![
        Refusal::Unauthenticated,
        Refusal::Protocol,
        Refusal::Stale,
        Refusal::Clock,
        Refusal::Store,
        Refusal::Stopping,
        Refusal::Forbidden,
        Refusal::Busy,
        Refusal::Quota,
        Refusal::Full,
        Refusal::NoRoom,
    ])
}

/// Anything a hub can say.
pub fn to_agent() -> impl Strategy<Value = ToAgent> {
    let welcome = (any::<i64>(), replica_id(), any::<u64>(), any::<u32>(), any::<bool>()).prop_map(
        |(hub_now_ms, incarnation, counter, max_frame_bytes, may_write)| {
            ToAgent::Welcome(Welcome { hub_now_ms, incarnation, counter, max_frame_bytes, may_write })
        },
    );
    let past = vec((replica_id(), any::<u64>()), 0..3);
    let standing = prop::sample::select(vec![Standing::Current, Standing::Behind, Standing::Retired]);
    let rejected = vec((any::<u64>(), name(), row_id()), 0..3);
    let attached = (any::<u64>(), option::of((any::<u64>(), digest())), past, standing, rejected).prop_map(
        |(epoch, last, past, standing, rejected)| {
            ToAgent::Attached(Attached { epoch, last, past, standing, rejected })
        },
    );
    let rows = (vec(header(), 0..3), vec(row_update(), 0..8))
        .prop_map(|(tables, rows)| ToAgent::Rows(Rows { tables, rows }));
    let clock = vec((name(), any::<u64>()), 0..3);
    let refused_tables = vec((name(), text()), 0..2);
    let retired = option::of(vec(name(), 0..3));
    let times = (any::<u64>(), any::<u64>(), any::<i64>(), any::<u64>());
    let done = (times, clock, retired, refused_tables, vec(text(), 0..2)).prop_map(
        |((cursor, highest, hub_now_ms, horizon), clock, retired, refused, notices)| {
            let highest = Hlc(highest);
            ToAgent::Done(Done { cursor, highest, hub_now_ms, clock, retired, horizon, refused, notices })
        },
    );
    let refused = (refusal(), text(), any::<u32>())
        .prop_map(|(reason, message, ms)| ToAgent::Refused(Refused::new(reason, message).for_ms(ms)));
    let print = (option::of(row_id()), any::<u128>(), vec(row_id(), 0..3))
        .prop_map(|(upto, sum, newer)| Print { upto, sum: Fingerprint(sum), newer });
    prop_oneof![
        vec(option::of(print), 0..3).prop_map(ToAgent::Compared),
        welcome,
        attached,
        ack(),
        vec(table_schema(), 0..3).prop_map(ToAgent::Tables),
        rows,
        done,
        refused,
    ]
}
