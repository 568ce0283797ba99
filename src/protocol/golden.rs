//! One message of each kind, byte for byte. A change here is a change of the protocol: an agent and a hub of
//! two releases talk to each other as long as the ALPN name is the same.

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::check::{Check, Fingerprint, Print, Range};
use super::frame::{decode_payload, encode};
use super::message::{
    Ack, Attach, Attached, Batch, BatchBody, Collision, Contested, Done, Hello, Refusal, Refused, Rows,
    Standing, SyncBegin, ToAgent, ToHub, Welcome,
};
use crate::model::{
    Adjustment, AgreedReference, Agreement, CellValue, Digest, Hlc, KeyKind, NeedsApplication, Number, Op,
    Origin, ReplicaId, RowChange, RowId, RowUpdate, Rule, Stamp, TableHeader, TableSchema, Value, Write,
};

fn check<M: Serialize + DeserializeOwned + PartialEq + Debug>(message: &M, golden: &str) {
    let frame = encode(message).unwrap();
    let hex = frame[5..].iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    let golden: String = golden.split_whitespace().collect();
    assert_eq!(hex, golden, "{message:?}");
    assert_eq!(&decode_payload::<M>(&frame[5..]).unwrap(), message);
}

fn stamp() -> Stamp {
    Stamp { hlc: Hlc::from_ms(1_700_000_000_000), replica: 7 }
}

fn header() -> TableHeader {
    TableHeader { name: "notes".into(), columns: vec!["body".into()] }
}

fn schema() -> TableSchema {
    TableSchema {
        name: "notes".into(),
        key: KeyKind::Number,
        columns: vec!["body".into()],
        ddl: "CREATE TABLE notes(id INTEGER PRIMARY KEY, body)".into(),
        indexes: vec![],
        agreed: Agreement {
            rules: vec![("body".into(), Rule::Counter)],
            references: vec![AgreedReference {
                column: "body".into(),
                by: Some("kind".into()),
                to: vec![(Value::Text("task".into()).into(), "tasks".into())],
            }],
            origins: vec![Origin {
                column: "body".into(),
                generation: 1,
                content: "body".into(),
                since: Hlc::from_ms(1_700_000_000_000),
            }],
            needs_application: Some(NeedsApplication::UserVersion),
            ..Agreement::default()
        },
    }
}

#[test]
fn what_an_agent_says() {
    let hello = Hello { tenant: "acme".into(), agent: "a1".into(), token: "jwt".into() };
    check(&ToHub::Hello(hello), "81a548656c6c6f93a461636d65a26131a36a7774");
    check(
        &ToHub::Attach(Attach { replica: ReplicaId([1; 16]), cursor: 300, is_new: false }),
        "81a641747461636893c41001010101010101010101010101010101cd012cc2",
    );
    let sync = SyncBegin {
        replica: ReplicaId([1; 16]),
        epoch: 2,
        cursor: 300,
        resume: 300,
        counter: 5,
        schema: Some(vec![schema()]),
        refresh: vec!["notes".into()],
    };
    check(
        &ToHub::Sync(sync),
        "81a453796e6397c4100101010101010101010101010101010102cd012ccd012c059196a56e6f746573a64e75 \
         6d62657291a4626f6479d930435245415445205441424c45206e6f74657328696420494e5445474552205052 \
         494d415259204b45592c20626f647929909690c29192a4626f6479a7436f756e7465729193a4626f6479a46b \
         696e649192a47461736ba57461736b739194a4626f647901a4626f6479cf018bcfe568000000ab5573657256 \
         657273696f6e91a56e6f746573",
    );
    check(
        &ToHub::Batch(Batch { n: 1, previous: Digest::ZERO, body: vec![1, 2, 3] }),
        "81a542617463689301c4200000000000000000000000000000000000000000000000000000000000000000c4 \
         03010203",
    );
    check(&ToHub::End, "a3456e64");
}

#[test]
fn what_a_batch_holds() {
    let values = [
        Value::Null.into(),
        Value::Integer(-1).into(),
        Value::Real(1.0).into(),
        Value::Text("é".into()).into(),
        Value::Blob(vec![0xff]).into(),
        CellValue::Ref(RowId([9; 16])),
    ];
    let set = Op::Set((0..).zip(values).collect());
    let writes = vec![
        Write { stamp: stamp(), base: 300, op: set },
        Write { stamp: Stamp::ZERO, base: 0, op: Op::Delete },
    ];
    let row = RowChange { table: 0, id: RowId([8; 16]), number: Some(-5), is_new: true, writes };
    let rows = (RowId([8; 16]), RowId([9; 16]));
    let collision = Collision { table: 0, index: "by_id".into(), rows, base: 300 };
    check(
        &BatchBody { tables: vec![header()], rows: vec![row], collisions: vec![collision] },
        "939192a56e6f74657391a4626f6479919500c41008080808080808080808080808080808fbc3929392cf018bcf \
         e56800000007cd012c81a3536574969200c09201ff9202cb3ff00000000000009203a2c3a99204c401ff9205 \
         d801090909090909090909090909090909099392000000a644656c657465919400a562795f696492c4100808080808 \
         0808080808080808080808c41009090909090909090909090909090909cd012c",
    );
}

#[test]
fn what_was_done_to_a_cell() {
    check(
        &Op::Adjust(vec![(0, Adjustment::Add(Number::Integer(-1)))]),
        "81a641646a757374919200 81a3416464ff",
    );
    check(&Op::Gone, "a4476f6e65");
    check(&Op::Cut(vec![(0, Value::Null.into())]), "81a3437574919200c0");
    check(&Adjustment::Add(Number::Real(0.5)), "81a3416464cb3fe0000000000000");
    check(
        &Adjustment::Edit { added: vec!["7".into(), "\"a\"".into()], removed: vec!["null".into()] },
        "81a4456469749292a137a322612291a46e756c6c",
    );
}

#[test]
fn what_a_hub_says() {
    let welcome = Welcome {
        hub_now_ms: 1_700_000_000_000,
        incarnation: ReplicaId([2; 16]),
        counter: 0,
        max_frame_bytes: 17 << 20,
        may_write: true,
    };
    check(
        &ToAgent::Welcome(welcome),
        "81a757656c636f6d6595cf0000018bcfe56800c4100202020202020202020202020202020200ce01100000c3",
    );
    check(
        &ToAgent::Attached(Attached {
            epoch: 2,
            last: Some((1, Digest([3; 32]))),
            past: vec![(ReplicaId([2; 16]), 300)],
            standing: Standing::Behind,
            rejected: vec![(1, "notes".into(), RowId([8; 16]))],
        }),
        "81a8417474616368656495029201c42003030303030303030303030303030303030303030303030303030303 \
         030303039192c41002020202020202020202020202020202cd012ca6426568696e6491 9301a56e6f746573c410 08080808080808080808080808080808",
    );
    check(
        &ToAgent::Attached(Attached {
            epoch: 1,
            last: None,
            past: vec![],
            standing: Standing::Current,
            rejected: vec![],
        }),
        "81a841747461636865649501c090a743757272656e7490",
    );
    check(
        &ToAgent::Ack(Ack {
            n: 1,
            conflicts: 2,
            rejected: vec![(3, "why".into())],
            notices: vec!["so".into()],
            contests: vec![Contested {
                table: "notes".into(),
                id: RowId([8; 16]),
                column: "body".into(),
                local: (stamp(), Value::Integer(1).into()),
                remote: (stamp(), Value::Null.into()),
                agent: "a2".into(),
            }],
        }),
        "81a341636b950102919203a377687991a2736f9196a56e6f746573c410080808080808080808080808080808 \
         08a4626f64799292cf018bcfe56800000007019292cf018bcfe56800000007c0a26132",
    );
    check(
        &ToAgent::Tables(vec![schema()]),
        "81a65461626c65739196a56e6f746573a64e756d62657291a4626f6479d930435245415445205441424c4520 \
         6e6f74657328696420494e5445474552205052494d415259204b45592c20626f647929909690c29192a4626f \
         6479a7436f756e7465729193a4626f6479a46b696e649192a47461736ba57461736b739194a4626f647901a4626f6479cf018bcfe568000000ab5573657256657273696f6e",
    );
    let row = RowUpdate {
        table: 0,
        id: RowId([8; 16]),
        number: None,
        seq: 301,
        whole: true,
        united: Some(RowId([7; 16])),
        writes: vec![Write {
            stamp: stamp(),
            base: 301,
            op: Op::Set(vec![(0, Value::Text("hi".into()).into())]),
        }],
    };
    check(
        &ToAgent::Rows(Rows { tables: vec![header()], rows: vec![row] }),
        "81a4526f7773929192a56e6f74657391a4626f6479919700c41008080808080808080808080808080808c0cd \
         012dc3c410070707070707070707070707070707079193 92cf018bcfe56800000007cd012d81a3536574919200a26869",
    );
    let done = Done {
        cursor: 301,
        highest: Hlc::from_ms(1_700_000_000_000),
        hub_now_ms: 1_700_000_000_000,
        clock: vec![("a1".into(), 5)],
        retired: Some(vec!["a2".into()]),
        horizon: 200,
        refused: vec![("tasks".into(), "why".into())],
        notices: vec!["so".into()],
    };
    check(
        &ToAgent::Done(done),
        "81a4446f6e6598cd012dcf018bcfe568000000cf0000018bcfe568009192a261310591a26132ccc89192a57461736b73a377687991a2736f",
    );
    check(
        &ToAgent::Refused(Refused::new(Refusal::Unauthenticated, "no").for_ms(1_000)),
        "81a75265667573656493af556e61757468656e74696361746564a26e6fcd03e8",
    );
}

#[test]
fn what_is_asked_and_answered_of_fingerprints() {
    let range = Range {
        table: "notes".into(),
        columns: vec!["body".into()],
        after: Some(RowId([8; 16])),
        upto: None,
        left_out: vec![RowId([9; 16])],
    };
    check(
        &ToHub::Check(Check { ranges: vec![range], rows: false }),
        "81a5436865636b929195a56e6f74657391a4626f6479c41008080808080808080808080808080808c091c410 \
         09090909090909090909090909090909c2",
    );
    let print =
        Print { upto: Some(RowId([9; 16])), sum: Fingerprint(0x0102_0304), newer: vec![RowId([9; 16])] };
    check(
        &ToAgent::Compared(vec![None, Some(print)]),
        "81a8436f6d706172656492c093c41009090909090909090909090909090909c4100000000000000000000000 \
         000102030491c41009090909090909090909090909090909",
    );
}

#[test]
fn why_a_hub_refuses() {
    for (refusal, golden) in [
        (Refusal::Unauthenticated, "Unauthenticated"),
        (Refusal::Protocol, "Protocol"),
        (Refusal::Stale, "Stale"),
        (Refusal::Clock, "Clock"),
        (Refusal::Store, "Store"),
        (Refusal::Stopping, "Stopping"),
        (Refusal::Forbidden, "Forbidden"),
        (Refusal::Busy, "Busy"),
        (Refusal::Quota, "Quota"),
        (Refusal::Full, "Full"),
        (Refusal::NoRoom, "NoRoom"),
    ] {
        assert_eq!(rmp_serde::to_vec(&refusal).unwrap(), rmp_serde::to_vec(golden).unwrap());
    }
}

#[test]
fn what_a_batch_is_known_by() {
    let batch = Batch { n: 1, previous: Digest::ZERO, body: vec![1, 2, 3] };
    assert_eq!(
        batch.digest(ReplicaId([1; 16])).to_string(),
        "0d12da3c91a2817bc8af22f37fa46bfc23968c50b1bc02296ac5229ed5a5959a"
    );
}
