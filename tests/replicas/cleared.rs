//! What the application deleted itself, and what only went with it.

use federation_hub::model::Value;

use crate::identity::{agree, settle};
use crate::world::parts::text;
use crate::world::{Agent, Hub, pair};

/// Conversations and their messages: the keys, and the clause.
fn chats(key: &str, clause: &str) -> String {
    let (is, to) = if key == "TEXT" {
        ("TEXT PRIMARY KEY NOT NULL", "TEXT")
    } else {
        ("INTEGER PRIMARY KEY", "INTEGER")
    };
    format!(
        "CREATE TABLE s(id {is}, title TEXT, n INTEGER DEFAULT 0);
         CREATE TABLE m(id {is}, s {to} REFERENCES s(id) ON DELETE {clause}, body TEXT);
         CREATE TABLE parts(id {is}, m {to} REFERENCES m(id) ON DELETE CASCADE, body TEXT)"
    )
}

const BODIES: &str = "SELECT body FROM m ORDER BY body";

fn known(schema: &str, foreign_keys: &str) -> (Hub, Agent, Agent) {
    let (mut hub, mut a, mut b) = pair(schema);
    a.run(
        "INSERT INTO s(id, title) VALUES(1, 'chat'); INSERT INTO m VALUES(1, 1, 'one'), (2, 1, 'two');
         INSERT INTO parts VALUES(1, 1, 'of one')",
    );
    settle(&mut hub, &mut [&mut a, &mut b]);
    a.run(&format!("PRAGMA foreign_keys = {foreign_keys}"));
    b.run("PRAGMA foreign_keys = ON");
    // What the other one does is later, and has not seen what this one did.
    b.lead_ms = 10_000;
    (hub, a, b)
}

/// Breaks if the delete of a child is taken for what became of its parent's because both came in one push.
#[test]
fn a_cleared_conversation_stays_cleared_when_somebody_adds_to_it() {
    for key in ["INTEGER", "TEXT"] {
        for (foreign_keys, clear) in [
            ("ON", "DELETE FROM m; DELETE FROM s"),
            ("OFF", "DELETE FROM m; DELETE FROM s"),
            ("OFF", "DELETE FROM s; DELETE FROM m"),
            (
                "ON",
                "BEGIN; DELETE FROM m WHERE id = 2; DELETE FROM m WHERE id = 1; DELETE FROM s WHERE id = 1; COMMIT",
            ),
            ("ON", "DELETE FROM parts; DELETE FROM m WHERE s = 1; UPDATE s SET n = 0; DELETE FROM s"),
        ] {
            let (mut hub, mut a, mut b) = known(&chats(key, "CASCADE"), foreign_keys);
            a.run(clear);
            b.run("INSERT INTO m VALUES(3, 1, 'three'); UPDATE s SET n = n + 1");
            settle(&mut hub, &mut [&mut a, &mut b]);
            assert_eq!(
                agree(&mut [&mut a, &mut b], BODIES),
                [[text("three")]],
                "{key}, {foreign_keys}: {clear}"
            );
            assert_eq!(agree(&mut [&mut a, &mut b], "SELECT title FROM s"), [[text("chat")]]);
        }
    }
}

/// Breaks if what went with its parent stays away when the parent comes back.
#[test]
fn what_went_with_a_conversation_comes_back_with_it() {
    for key in ["INTEGER", "TEXT"] {
        for clear in [
            "DELETE FROM s",
            "DELETE FROM s WHERE id = 1",
            "UPDATE m SET body = body; DELETE FROM s",
            "BEGIN; INSERT INTO m VALUES(7, 1, 'never seen'); DELETE FROM s; COMMIT",
        ] {
            let (mut hub, mut a, mut b) = known(&chats(key, "CASCADE"), "ON");
            a.run(clear);
            assert_eq!(a.rows("SELECT 1 FROM m UNION ALL SELECT 1 FROM parts").len(), 0);
            b.run("UPDATE s SET n = n + 1");
            settle(&mut hub, &mut [&mut a, &mut b]);
            assert_eq!(
                agree(&mut [&mut a, &mut b], BODIES),
                [[text("one")], [text("two")]],
                "{key}: {clear}"
            );
            assert_eq!(agree(&mut [&mut a, &mut b], "SELECT body FROM parts"), [[text("of one")]]);
        }
    }
}

/// Breaks if one message that was deleted comes back with those that were not.
#[test]
fn what_was_deleted_before_the_rest_went_stays_away() {
    for key in ["INTEGER", "TEXT"] {
        let (mut hub, mut a, mut b) = known(&chats(key, "CASCADE"), "ON");
        a.run("DELETE FROM m WHERE id = 2; DELETE FROM s");
        b.run("UPDATE s SET n = n + 1");
        settle(&mut hub, &mut [&mut a, &mut b]);
        assert_eq!(agree(&mut [&mut a, &mut b], BODIES), [[text("one")]], "{key}");
    }
}

#[test]
fn a_reference_that_was_cut_by_hand_stays_cut_and_one_that_was_cut_by_the_clause_does_not() {
    for key in ["INTEGER", "TEXT"] {
        for (clear, of_chat) in [
            ("DELETE FROM s", 2),
            ("UPDATE m SET s = NULL WHERE id = 1; DELETE FROM s", 1),
            ("UPDATE m SET s = NULL; DELETE FROM s", 0),
            ("DELETE FROM s; UPDATE m SET body = body || '!'", 2),
        ] {
            let (mut hub, mut a, mut b) = known(&chats(key, "SET NULL"), "ON");
            a.run(clear);
            b.run("UPDATE s SET n = n + 1");
            settle(&mut hub, &mut [&mut a, &mut b]);
            let left = agree(&mut [&mut a, &mut b], "SELECT count(*) FROM m WHERE s IS NOT NULL");
            assert_eq!(left, [[Value::Integer(of_chat)]], "{key}: {clear}");
        }
    }
}

/// Breaks if a circle, or a row that references itself, keeps what was deleted from dying.
#[test]
fn trees_that_were_deleted_stay_deleted() {
    let schema = "CREATE TABLE tree(id INTEGER PRIMARY KEY, up INTEGER REFERENCES tree(id) ON DELETE CASCADE, name TEXT)";
    for (clear, left) in [
        ("DELETE FROM tree", vec!["leaf", "root", "twig"]),
        ("DELETE FROM tree WHERE id = 3; DELETE FROM tree WHERE id = 1", vec!["root", "twig"]),
        ("DELETE FROM tree WHERE id = 1", vec!["leaf", "root", "twig"]),
    ] {
        for edit in
            ["", "UPDATE tree SET name = name WHERE 0", "UPDATE tree SET name = 'root' WHERE up IS NULL"]
        {
            let (mut hub, mut a, mut b) = pair(schema);
            a.run("INSERT INTO tree VALUES(1, NULL, 'r'), (2, 1, 'twig'), (3, 2, 'leaf')");
            settle(&mut hub, &mut [&mut a, &mut b]);
            b.lead_ms = 10_000;
            a.run("PRAGMA foreign_keys = ON").run(clear);
            b.run(edit);
            settle(&mut hub, &mut [&mut a, &mut b]);
            let names = agree(&mut [&mut a, &mut b], "SELECT name FROM tree ORDER BY name");
            let expected: Vec<Vec<Value>> = if edit.contains("'root'") {
                left.iter().map(|name| vec![text(name)]).collect()
            } else {
                vec![]
            };
            assert_eq!(names, expected, "{clear}; {edit}");
        }
    }
}

/// Breaks if an effect is known as one only within the batch that its cause is in.
#[test]
fn what_went_with_a_large_conversation_comes_back_with_it_batch_after_batch() {
    let (mut hub, mut a, mut b) = pair(&chats("INTEGER", "CASCADE"));
    a.run(
        "INSERT INTO s(id, title) VALUES(1, 'chat'); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40)
         INSERT INTO m SELECT i, 1, i FROM n; INSERT INTO parts SELECT id, id, id FROM m",
    );
    settle(&mut hub, &mut [&mut a, &mut b]);
    b.lead_ms = 10_000;
    a.limits.rows = 5;
    a.run("PRAGMA foreign_keys = ON; DELETE FROM m WHERE id > 30; DELETE FROM s");
    b.run("UPDATE s SET n = n + 1");
    settle(&mut hub, &mut [&mut a, &mut b]);
    let both = "SELECT (SELECT count(*) FROM m), (SELECT count(*) FROM parts)";
    assert_eq!(agree(&mut [&mut a, &mut b], both), [[Value::Integer(30), Value::Integer(30)]]);
}

/// Nobody noted how they went: those that are found missing together with what they referenced count as gone with it.
#[test]
fn rows_that_went_in_a_migration_count_as_gone_with_their_parents() {
    use federation_hub::storage::migrate;
    for (clear, left) in [("DELETE FROM m; DELETE FROM s", 2), ("DELETE FROM m WHERE id = 2", 1)] {
        let (mut hub, mut a, mut b) = known(&chats("INTEGER", "CASCADE"), "ON");
        let claim = a.claim();
        migrate::begin(&mut a.sql, claim).unwrap();
        a.run(clear);
        migrate::end(&mut a.sql).unwrap();
        b.run("UPDATE s SET n = n + 1");
        settle(&mut hub, &mut [&mut a, &mut b]);
        assert_eq!(
            agree(&mut [&mut a, &mut b], "SELECT count(*) FROM m"),
            [[Value::Integer(left)]],
            "{clear}"
        );
    }
}

/// Breaks if our triggers stand in the way of what the application does to its columns.
#[test]
fn columns_can_be_dropped_and_foreign_keys_rebuilt() {
    let (mut hub, mut a, mut b) = known(&chats("INTEGER", "CASCADE"), "ON");
    a.run(
        "ALTER TABLE s DROP COLUMN n; ALTER TABLE m DROP COLUMN body; ALTER TABLE m RENAME COLUMN s TO chat",
    );
    a.sync(&mut hub);
    a.run("DELETE FROM s");
    settle(&mut hub, &mut [&mut a, &mut b]);
    assert_eq!(b.rows("SELECT 1 FROM s UNION ALL SELECT 1 FROM m"), Vec::<Vec<Value>>::new());
}
