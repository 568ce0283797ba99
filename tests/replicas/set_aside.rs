//! What is set aside: how it is kept together, when it is tried again, and what it does not disturb.

use crate::world::parts::text;
use crate::world::{Agent, Hub, pair};
use federation_hub::model::{
    CellValue, ColumnIndex, Hlc, Op, RowId, RowUpdate, Stamp, TableHeader, Value, Write,
};
use federation_hub::storage::driver::{SqlError, SqlErrorKind};
use federation_hub::storage::quarantine::{SetAside, refused};

const NOTES: &str = "CREATE TABLE notes(id TEXT PRIMARY KEY, title TEXT)";
const STRICT: &str = "CREATE TABLE notes(id TEXT PRIMARY KEY, title TEXT CHECK(length(title) < 8))";
const ALL: &str = "SELECT id, title FROM notes ORDER BY id";

/// Two agents, the second of which takes no long titles.
fn differently_strict(a: &str, b: &str) -> (Hub, Agent, Agent) {
    let (mut hub, mut first, mut second) = pair("");
    first.run(a).sync(&mut hub);
    second.run(b).sync(&mut hub);
    (hub, first, second)
}

/// An update of a row that sets one column, of so many.
fn update_of(columns: usize, at: ColumnIndex, number: Option<i64>) -> SetAside {
    let columns = ["id", "title", "body"][..columns].iter().map(|name| (*name).to_owned()).collect();
    let stamp = Stamp { hlc: Hlc(u64::from(at) + 1), replica: 1 };
    let op = Op::Set(vec![(at, CellValue::Plain(text("value")))]);
    let writes = vec![Write { stamp, base: 1, op }];
    let (id, seq) = (RowId([7; 16]), u64::from(at));
    let update = RowUpdate { table: 0, id, number, seq, whole: false, united: None, writes };
    SetAside { header: TableHeader { name: "notes".into(), columns }, update, acked: 0, parked: None }
}

/// Breaks if the columns that are kept do not name all that is kept: a cell without a name is never applied.
#[test]
fn updates_that_are_set_aside_together_keep_the_names_of_all_their_columns_and_the_number() {
    for (earlier, later) in [(3, 2), (2, 3)] {
        let (one, other) = (update_of(earlier, 1, Some(5)), update_of(later, 0, None));
        let merged = one.merge(other);
        assert_eq!(merged.header.columns.len(), 3, "{earlier}, {later}");
        assert_eq!((merged.update.number, merged.update.writes.len()), (Some(5), 2));
    }
    assert_eq!(update_of(2, 1, None).merge(update_of(2, 0, Some(6))).update.number, Some(6));
}

/// Breaks if any failure counts as the row's: rows would be set aside for a disk that is full.
#[test]
fn a_row_is_set_aside_for_what_its_own_statement_says_and_for_no_failure_of_the_database() {
    let mut agent = Agent::new("acme", "a", 1);
    let failure = |kind| Err::<(), _>(SqlError { kind, message: "no".into() });
    assert_eq!(refused(&mut agent.sql, failure(SqlErrorKind::Constraint)), Ok(Some("no".into())));
    // Whatever has ended the transaction was no failure of a row.
    assert!(refused(&mut agent.sql, failure(SqlErrorKind::Statement)).is_err());
    agent.run("BEGIN");
    assert_eq!(refused(&mut agent.sql, Ok(())), Ok(None));
    assert_eq!(refused(&mut agent.sql, failure(SqlErrorKind::Statement)), Ok(Some("no".into())));
    for kind in [SqlErrorKind::Busy, SqlErrorKind::Closed, SqlErrorKind::Other] {
        assert_eq!(refused(&mut agent.sql, failure(kind)).unwrap_err().kind, kind);
    }
}

/// Breaks if triggers go only from tables that the hub tells rows of.
#[test]
fn a_row_that_is_tried_again_fires_none_of_the_applications_triggers() {
    let trigger = "CREATE TABLE log(id INTEGER PRIMARY KEY, line TEXT);
                   CREATE TRIGGER keeps AFTER INSERT ON notes BEGIN
                     INSERT INTO log(line) VALUES(NEW.id); END";
    let (mut hub, mut a, mut b) = differently_strict(NOTES, &format!("{STRICT}; {trigger}"));
    a.run("INSERT INTO notes VALUES('x', 'much too long')").sync(&mut hub);
    assert_eq!(b.sync(&mut hub).quarantined, 1);
    b.run("PRAGMA ignore_check_constraints = ON");
    assert_eq!(b.sync(&mut hub).quarantined, 0);
    assert_eq!(b.rows(ALL), a.rows(ALL));
    assert_eq!(b.rows("SELECT count(*) FROM log"), [[Value::Integer(0)]]);
}

/// Breaks if rows that are set aside are gone through once, whatever that has made possible.
#[test]
fn more_rows_than_are_tried_together_follow_one_that_comes_last_in_one_sync() {
    let schema = |check: &str| {
        format!(
            "CREATE TABLE parents(id INTEGER PRIMARY KEY, name TEXT {check});
             CREATE TABLE children(id INTEGER PRIMARY KEY, parent INTEGER REFERENCES parents(id))"
        )
    };
    let (mut hub, mut a, mut b) = differently_strict(&schema(""), &schema("CHECK(length(name) < 8)"));
    a.run("INSERT INTO parents VALUES(1, 'much too long')").run(
        "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < 1001)
         INSERT INTO children SELECT n, 1 FROM s",
    );
    a.sync(&mut hub);
    assert_eq!(b.sync(&mut hub).quarantined, 1002);
    // Set aside once more, the parent is behind all of its children.
    a.run("UPDATE parents SET name = 'still too long'").sync(&mut hub);
    assert_eq!(b.sync(&mut hub).quarantined, 1002);
    b.run("PRAGMA ignore_check_constraints = ON");
    assert_eq!(b.sync(&mut hub).quarantined, 0);
    let all = "SELECT name, count(*) FROM parents JOIN children ON parent = parents.id GROUP BY 1";
    assert_eq!(b.rows(all), [[text("still too long"), Value::Integer(1001)]]);
}
