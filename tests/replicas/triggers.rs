//! The application's triggers: its own writes fire them, remote ones never do, and they stay what they are.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::world::parts::text;
use crate::world::{Agent, Hub, settle};
use federation_hub::model::Value;

const NOTES: &str = "CREATE TABLE notes(id TEXT PRIMARY KEY, title TEXT UNIQUE, updated_at);
    CREATE TABLE fired(what)";
const TRIGGERS: &str = "
    CREATE TRIGGER after_insert AFTER INSERT ON notes BEGIN INSERT INTO fired VALUES('main'); END;
    CREATE TRIGGER \"odd \"\"name\" BEFORE UPDATE OF title ON Notes WHEN NEW.title = 'no'
      BEGIN SELECT RAISE(ABORT, 'refused'); END;
    CREATE TRIGGER rewrite AFTER UPDATE OF title ON notes BEGIN
      UPDATE notes SET updated_at = NEW.title || '!' WHERE id = NEW.id; END;";
const TEMPORARY: &str = "
    CREATE TEMP TABLE seen(what);
    CREATE TEMP TRIGGER t1 AFTER INSERT ON notes BEGIN INSERT INTO seen VALUES('temp'); END;
    CREATE TRIGGER temp.\"t 2\" AFTER UPDATE ON main.notes BEGIN INSERT INTO seen VALUES('temp'); END;
    CREATE TEMPORARY TRIGGER IF NOT EXISTS t3 BEFORE DELETE ON notes BEGIN SELECT RAISE(ABORT, 'no'); END;";

fn triggers(agent: &mut Agent) -> Vec<Vec<Value>> {
    agent.rows(
        "SELECT name, tbl_name, sql, 'main' FROM sqlite_master WHERE type = 'trigger'
         UNION ALL SELECT name, tbl_name, sql, 'temp' FROM sqlite_temp_master WHERE type = 'trigger' ORDER BY 4, 1",
    )
}

/// An agent whose database has the triggers, and one whose has none of them.
fn triggered() -> (Hub, Agent, Agent) {
    let (mut hub, mut a, mut b) = (Hub::new(), Agent::new("acme", "a", 1), Agent::new("acme", "b", 2));
    a.run(NOTES).run("INSERT INTO notes VALUES('x', 'one', 0), ('y', 'two', 0)");
    b.run(NOTES).run(TRIGGERS).run(TEMPORARY);
    a.sync(&mut hub);
    b.sync(&mut hub);
    (hub, a, b)
}

#[test]
fn temporary_triggers_sleep_while_remote_rows_are_applied() {
    let (mut hub, mut a, mut b) = triggered();
    let before = triggers(&mut b);
    assert!(before.len() > 6, "{before:?}");
    a.run("UPDATE notes SET title = 'no' WHERE id = 'x'").run("DELETE FROM notes WHERE id = 'y'");
    a.run("INSERT INTO notes VALUES('z', 'three', 0)").sync(&mut hub);
    assert_eq!(b.sync(&mut hub).quarantined, 0);
    assert_eq!(triggers(&mut b), before);
    for fired in ["fired", "seen"] {
        assert_eq!(b.rows(&format!("SELECT * FROM {fired}")), Vec::<Vec<Value>>::new(), "{fired}");
    }
    b.run("INSERT INTO notes VALUES('w', 'four', 0)").run("UPDATE notes SET title = 'five' WHERE id = 'w'");
    assert!(b.try_run("DELETE FROM notes").is_err(), "t3 is awake again");
    assert_eq!(b.rows("SELECT count(*) FROM seen"), vec![vec![Value::Integer(3)]]);
    let rows = settle(&mut hub, &mut a, &mut b, "SELECT id, title, updated_at FROM notes ORDER BY id");
    assert_eq!(rows[0], vec![text("w"), text("five"), text("five!")], "as the origin computed it");
}

#[test]
fn triggers_survive_whatever_ends_an_apply() {
    for ends_after in 0.. {
        let mut is_over = false;
        for dies in [false, true] {
            let (mut hub, mut a, mut b) = triggered();
            let copy = b.copy();
            b.restore(&copy);
            b.run("PRAGMA journal_mode = DELETE").run(TEMPORARY).sync(&mut hub);
            let before = triggers(&mut b);
            a.run("UPDATE notes SET title = 'new' WHERE id = 'x'");
            a.run("INSERT INTO notes VALUES('z', 'three', 0)").sync(&mut hub);
            if dies {
                b.sql.dies_after = Some(ends_after);
                is_over = catch_unwind(AssertUnwindSafe(|| b.sync(&mut hub))).is_ok();
                b.reopen();
                assert_eq!(triggers(&mut b)[..], before[..before.len() - 3], "{ends_after}");
            } else {
                b.sql.busy_after = Some(ends_after);
                b.sync(&mut hub);
                b.sql.busy_after = None;
                assert_eq!(triggers(&mut b), before, "{ends_after}");
            }
            settle(&mut hub, &mut a, &mut b, "SELECT * FROM notes ORDER BY id");
            assert_eq!(b.rows("SELECT * FROM fired"), Vec::<Vec<Value>>::new());
        }
        if is_over {
            return;
        }
    }
}
