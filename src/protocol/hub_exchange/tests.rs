use super::*;
use crate::model::{
    Adjustment, Agreement, Digest, Hlc, KeyKind, Number, Op, RowChange, RowId, Stamp, TableHeader, Value,
    Write,
};
use crate::protocol::check::Check;
use crate::protocol::limits::MAX_COLLISIONS;
use crate::protocol::message::{Batch, BatchBody, Collision, Hello, Standing};

fn table() -> TableSchema {
    TableSchema {
        name: "t".into(),
        key: KeyKind::Natural,
        columns: vec![],
        ddl: String::new(),
        indexes: vec![],
        agreed: Agreement::default(),
    }
}

fn done() -> Done {
    Done {
        cursor: 9,
        highest: Hlc(1),
        hub_now_ms: 2,
        clock: vec![],
        retired: None,
        horizon: 0,
        refused: vec![],
        notices: vec![],
    }
}

const REPLICA: ReplicaId = ReplicaId([3; 16]);

fn begin() -> SyncBegin {
    let schema = None;
    SyncBegin { replica: REPLICA, epoch: 2, cursor: 5, resume: 6, counter: 7, schema, refresh: Vec::new() }
}

fn batch(n: u64, body: &BatchBody) -> ToHub {
    let body = rmp_serde::to_vec(body).unwrap();
    ToHub::Batch(Batch { n, previous: Digest::ZERO, body })
}

fn refusal(exchange: &mut HubExchange) -> Refusal {
    let Some(Output::Send(ToAgent::Refused(why))) = exchange.poll() else { panic!("not refused") };
    assert_eq!(exchange.poll(), Some(Output::Finish));
    assert!(!exchange.wants_message());
    why.reason
}

fn after(messages: impl IntoIterator<Item = ToHub>) -> HubExchange {
    let mut exchange = HubExchange::default();
    for message in messages {
        exchange.handle(Input::Message(message));
    }
    exchange
}

#[test]
fn a_sync_asks_the_store_in_order_and_ends_with_done() {
    let table = table();
    let begin = SyncBegin { schema: Some(vec![table.clone()]), ..begin() };
    let mut exchange = after([ToHub::Sync(begin)]);
    assert!(matches!(exchange.poll(), Some(Output::Store(StoreRequest::Register(_)))));
    assert!(!exchange.wants_message(), "rows of tables whose declaration fails would be rejected for good");
    exchange.handle(Input::Registered(Ok(())));
    assert!(exchange.wants_message());
    exchange.handle(Input::Message(batch(1, &BatchBody::default())));
    exchange.handle(Input::Message(ToHub::End));
    let Some(Output::Store(StoreRequest::Push(push))) = exchange.poll() else { panic!("no push") };
    assert_eq!((push.n, push.epoch, push.counter), (1, 2, 7));
    let Some(Output::Store(StoreRequest::Pull(pull))) = exchange.poll() else { panic!("no pull") };
    assert_eq!((pull.cursor, pull.resume), (5, 6));
    assert!(!exchange.wants_message());

    let ack = Ack { n: 1, conflicts: 0, rejected: vec![], notices: vec![], contests: vec![] };
    exchange.handle(Input::Pushed(Ok(ack.clone())));
    exchange.handle(Input::PulledTables(vec![table.clone()]));
    exchange.handle(Input::PulledRows(Rows::default()));
    let done = done();
    exchange.handle(Input::Pulled(Ok(done.clone())));
    let sent: Vec<Output> = std::iter::from_fn(|| exchange.poll()).collect();
    let expected = [ToAgent::Ack(ack), ToAgent::Tables(vec![table]), ToAgent::Done(done)];
    let mut expected: Vec<Output> = expected.map(Output::Send).into();
    expected.push(Output::Finish);
    assert_eq!(sent, expected, "an empty list of rows is not sent");
}

#[test]
fn an_attach_is_the_whole_of_its_stream() {
    let attach = || ToHub::Attach(Attach { replica: REPLICA, cursor: 5, is_new: true });
    let mut exchange = after([attach()]);
    let asked = AttachRequest {
        replica: REPLICA,
        cursor: 5,
        is_new: true,
        token_until_ms: i64::MAX,
        incarnation: None,
    };
    assert_eq!(exchange.poll(), Some(Output::Store(StoreRequest::Attach(asked))));
    assert!(!exchange.wants_message());
    exchange.handle(Input::Attached(Ok(Attached {
        epoch: 1,
        last: None,
        past: vec![],
        standing: Standing::Current,
        rejected: vec![],
    })));
    assert!(matches!(exchange.poll(), Some(Output::Send(ToAgent::Attached(_)))));
    assert_eq!(exchange.poll(), Some(Output::Finish));

    let mut twice = after([attach(), attach()]);
    twice.poll();
    assert_eq!(refusal(&mut twice), Refusal::Protocol);
}

#[test]
fn whatever_is_out_of_order_is_refused() {
    let hello = ToHub::Hello(Hello { tenant: "acme".into(), agent: "a".into(), token: String::new() });
    for first in [hello.clone(), batch(1, &BatchBody::default()), ToHub::End] {
        assert_eq!(refusal(&mut after([first])), Refusal::Protocol);
    }
    for second in [hello, ToHub::Sync(begin())] {
        assert_eq!(refusal(&mut after([ToHub::Sync(begin()), second])), Refusal::Protocol);
    }
}

#[test]
fn a_body_that_is_damaged_or_points_outside_its_headers_is_refused() {
    let garbage = ToHub::Batch(Batch { n: 1, previous: Digest::ZERO, body: vec![0xc1] });
    assert_eq!(refusal(&mut after([ToHub::Sync(begin()), garbage])), Refusal::Protocol);
    let row = |table, column| {
        let set = Op::Set(vec![(0, Value::Null.into()), (column, Value::Null.into())]);
        let adjust = Op::Adjust(vec![(column, Adjustment::Add(Number::ZERO))]);
        [set, adjust].map(|op| {
            let writes = vec![Write { stamp: Stamp::ZERO, base: 0, op }];
            RowChange { table, id: RowId([0; 16]), number: None, is_new: true, writes }
        })
    };
    let tables = vec![TableHeader { name: "t".into(), columns: vec!["c".into()] }];
    let good = row(0, 0).map(|row| (row, true));
    let bad = [row(1, 0), row(0, 1), row(0, 2)].concat().into_iter().map(|row| (row, false));
    for (row, good) in good.into_iter().chain(bad) {
        let body = BatchBody { tables: tables.clone(), rows: vec![row], ..BatchBody::default() };
        let mut exchange = after([ToHub::Sync(begin()), batch(1, &body)]);
        if good {
            assert!(matches!(exchange.poll(), Some(Output::Store(StoreRequest::Push(_)))));
        } else {
            assert_eq!(refusal(&mut exchange), Refusal::Protocol);
        }
    }
}

#[test]
fn collisions_are_of_tables_that_are_named_and_not_too_many() {
    let tables = vec![TableHeader { name: "t".into(), columns: vec![] }];
    let ids = (RowId([1; 16]), RowId([2; 16]));
    for (table, count, is_good) in [(0, MAX_COLLISIONS, true), (0, MAX_COLLISIONS + 1, false), (1, 1, false)]
    {
        let one = Collision { table, index: "i".into(), rows: ids, base: 5 };
        let body = BatchBody { tables: tables.clone(), collisions: vec![one; count], ..BatchBody::default() };
        let mut exchange = after([ToHub::Sync(begin()), batch(1, &body)]);
        if is_good {
            assert!(matches!(exchange.poll(), Some(Output::Store(StoreRequest::Push(_)))));
        } else {
            assert_eq!(refusal(&mut exchange), Refusal::Protocol);
        }
    }
}

#[test]
fn numbers_and_lists_have_bounds() {
    let begins = [
        SyncBegin { resume: 4, ..begin() },
        SyncBegin { resume: u64::MAX, ..begin() },
        SyncBegin { counter: u64::MAX, ..begin() },
        SyncBegin { refresh: vec![String::new(); MAX_TABLES + 1], ..begin() },
    ];
    for begin in begins {
        assert_eq!(refusal(&mut after([ToHub::Sync(begin)])), Refusal::Protocol);
    }
    let table = table();
    let many = SyncBegin { schema: Some(vec![table.clone(); MAX_TABLES + 1]), ..begin() };
    assert_eq!(refusal(&mut after([ToHub::Sync(many)])), Refusal::Protocol);
    let most = SyncBegin {
        resume: begin().cursor,
        schema: Some(vec![table; MAX_TABLES]),
        refresh: vec![String::new(); MAX_TABLES],
        ..begin()
    };
    let mut taken = after([ToHub::Sync(most)]);
    assert_eq!(taken.counter(), begin().counter);
    assert!(matches!(taken.poll(), Some(Output::Store(StoreRequest::Register(_)))));
    let zero = after([ToHub::Sync(begin()), batch(0, &BatchBody::default())]);
    assert_eq!(refusal(&mut { zero }), Refusal::Protocol);
}

#[test]
fn batches_that_the_store_has_not_answered_hold_the_agent_back() {
    let mut exchange = after([ToHub::Sync(begin())]);
    for n in 1..=MAX_BATCHES_IN_FLIGHT {
        assert!(exchange.wants_message());
        exchange.handle(Input::Message(batch(u64::try_from(n).unwrap(), &BatchBody::default())));
    }
    assert!(!exchange.wants_message());
    exchange.handle(Input::Pushed(Ok(Ack {
        n: 1,
        conflicts: 0,
        rejected: vec![],
        notices: vec![],
        contests: vec![],
    })));
    assert!(exchange.wants_message());
}

#[test]
fn batches_of_many_bytes_hold_the_agent_back_however_few_they_are() {
    let body = |bytes: usize| {
        let mut body = rmp_serde::to_vec(&BatchBody::default()).unwrap();
        // What comes behind a message is room for later versions.
        body.resize(bytes, 0);
        ToHub::Batch(Batch { n: 1, previous: Digest::ZERO, body })
    };
    let half = MAX_BYTES_IN_FLIGHT / 2;
    assert!(after([ToHub::Sync(begin()), body(half), body(half - 1)]).wants_message());
    assert!(!after([ToHub::Sync(begin()), body(half), body(half)]).wants_message());
}

#[test]
fn a_refusal_of_the_store_ends_the_stream_and_later_answers_are_dropped() {
    let mut exchange = after([ToHub::Sync(begin()), batch(1, &BatchBody::default()), ToHub::End]);
    while exchange.poll().is_some() {}
    exchange.handle(Input::Pushed(Err(Refused::new(Refusal::Clock, "too far ahead"))));
    assert_eq!(refusal(&mut exchange), Refusal::Clock);
    exchange.handle(Input::Pulled(Ok(done())));
    assert_eq!(exchange.poll(), None);
}

#[test]
fn an_agent_that_gives_up_gets_no_answer() {
    let mut exchange = after([ToHub::Sync(begin())]);
    exchange.handle(Input::Finished);
    assert_eq!(exchange.poll(), Some(Output::Finish));
    let mut pulling = after([ToHub::Sync(begin()), ToHub::End]);
    pulling.poll();
    pulling.handle(Input::Finished);
    assert_eq!(pulling.poll(), None, "the end of an agent's words is expected after End");
}

#[test]
fn a_check_is_asked_of_the_store_and_answered_in_its_place() {
    let range = Range { table: "notes".into(), columns: vec![], after: None, upto: None, left_out: vec![] };
    let check = |ranges| ToHub::Check(Check { ranges, rows: true });
    let mut exchange = after([ToHub::Sync(begin()), check(vec![range.clone()]), ToHub::End]);
    let Some(Output::Store(StoreRequest::Check(asked))) = exchange.poll() else { panic!("no check") };
    assert_eq!((asked.replica, asked.epoch, asked.cursor), (REPLICA, begin().epoch, begin().cursor));
    assert!(matches!(exchange.poll(), Some(Output::Store(StoreRequest::Pull(_)))));
    exchange.handle(Input::Checked(Ok((Rows::default(), vec![None]))));
    assert_eq!(exchange.poll(), Some(Output::Send(ToAgent::Compared(vec![None]))), "and no empty Rows");
    assert_eq!(refusal(&mut after([check(vec![])])), Refusal::Protocol, "before the sync has begun");
    let mut most = after([ToHub::Sync(begin()), check(vec![range.clone(); MAX_CHECK_RANGES])]);
    assert!(matches!(most.poll(), Some(Output::Store(StoreRequest::Check(_)))));
    let many = check(vec![range.clone(); MAX_CHECK_RANGES + 1]);
    let long = check(vec![Range { left_out: vec![RowId([0; 16]); MAX_CHECK_ROWS + 1], ..range }]);
    for excessive in [many, long] {
        assert_eq!(refusal(&mut after([ToHub::Sync(begin()), excessive])), Refusal::Protocol);
    }
}

#[test]
fn checks_that_wait_for_the_store_hold_the_agent_back() {
    let mut exchange = after([ToHub::Sync(begin())]);
    for _ in 0..MAX_BATCHES_IN_FLIGHT {
        assert!(exchange.wants_message());
        exchange.handle(Input::Message(ToHub::Check(Check::default())));
    }
    assert!(!exchange.wants_message());
    exchange.handle(Input::Checked(Ok((Rows::default(), vec![]))));
    assert!(exchange.wants_message());
}

#[test]
fn whoever_may_not_write_declares_without_effect_and_has_no_batch_taken() {
    let table = table();
    for may_write in [true, false] {
        let mut exchange = HubExchange::new(may_write);
        let begin = SyncBegin { schema: Some(vec![table.clone()]), ..begin() };
        exchange.handle(Input::Message(ToHub::Sync(begin)));
        let Some(Output::Store(StoreRequest::Register(register))) = exchange.poll() else {
            panic!("not asked")
        };
        assert_eq!(register.may_define, may_write);
        exchange.handle(Input::Registered(Ok(())));
        exchange.handle(Input::Message(batch(1, &BatchBody::default())));
        if may_write {
            assert!(matches!(exchange.poll(), Some(Output::Store(StoreRequest::Push(_)))));
        } else {
            assert_eq!(refusal(&mut exchange), Refusal::Forbidden);
        }
    }
}

#[test]
fn a_batch_that_was_opened_elsewhere_is_pushed_as_one_that_was_not() {
    let push = |exchange: &mut HubExchange| match exchange.poll() {
        Some(Output::Store(StoreRequest::Push(push))) => push,
        other => panic!("{other:?}"),
    };
    let mut exchange = after([ToHub::Sync(begin())]);
    assert_eq!(exchange.pushes(), Some(REPLICA));
    let ToHub::Batch(whole) = batch(1, &BatchBody::default()) else { panic!("a batch") };
    exchange.handle(Input::Batch(OpenedBatch::open(&whole, REPLICA)));
    let mut other = after([ToHub::Sync(begin()), ToHub::Batch(whole)]);
    assert_eq!(push(&mut exchange), push(&mut other));
    assert_eq!(exchange.in_flight, other.in_flight);
    assert_eq!(HubExchange::default().pushes(), None);
    exchange.handle(Input::Batch(Err(Refused::new(Refusal::Protocol, "no batch"))));
    assert_eq!(refusal(&mut exchange), Refusal::Protocol);

    let mut reader = HubExchange::new(false);
    reader.handle(Input::Message(ToHub::Sync(begin())));
    assert_eq!(reader.pushes(), None, "it pushes nothing, whatever it is");
    assert_eq!(after([]).pushes(), None);
    let mut early = HubExchange::default();
    early.handle(Input::Batch(OpenedBatch::open(
        &Batch { n: 1, previous: Digest::ZERO, body: rmp_serde::to_vec(&BatchBody::default()).unwrap() },
        REPLICA,
    )));
    assert_eq!(refusal(&mut early), Refusal::Protocol);
}

#[test]
fn what_there_is_no_room_for_is_refused() {
    let mut exchange = after([ToHub::Sync(begin())]);
    exchange.handle(Input::NoRoom(Refused::new(Refusal::Quota, "later").for_ms(7)));
    assert_eq!(refusal(&mut exchange), Refusal::Quota);
}
