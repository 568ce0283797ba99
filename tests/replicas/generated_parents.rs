//! Foreign keys to generated columns.

use crate::identity::{agree, settle};
use crate::world::parts::text;
use crate::world::{Agent, Fate, Hub, pair};
use federation_hub::model::Value;

const SCHEMA: &str = "PRAGMA foreign_keys = ON;
    CREATE TABLE skills(id INTEGER PRIMARY KEY, name TEXT, slug TEXT AS (lower(name)) UNIQUE);
    CREATE TABLE uses(id INTEGER PRIMARY KEY, slug TEXT REFERENCES skills(slug) ON DELETE CASCADE, n);
    CREATE TABLE notes(id INTEGER PRIMARY KEY, slug TEXT REFERENCES skills(slug) ON DELETE SET NULL, n);";
const USES: &str = "SELECT name, n FROM uses LEFT JOIN skills USING(slug) ORDER BY n";
const NOTES: &str = "SELECT slug, n FROM notes ORDER BY n";

fn both_know() -> (Hub, Agent, Agent) {
    let (mut hub, mut a, mut b) = pair(SCHEMA);
    a.run("INSERT INTO skills(name) VALUES('Retry'), ('Plan'); INSERT INTO uses(slug, n) VALUES('retry', 1)");
    a.run("INSERT INTO notes(slug, n) VALUES('retry', 1)");
    settle(&mut hub, &mut [&mut a, &mut b]);
    (hub, a, b)
}

fn agree_on(a: &mut Agent, b: &mut Agent, uses: &[(&str, i64)]) {
    let expected: Vec<_> = uses.iter().map(|(name, n)| vec![text(name), Value::Integer(*n)]).collect();
    assert_eq!(agree(&mut [&mut *a, &mut *b], USES), expected);
    assert_eq!(agree(&mut [a, b], "PRAGMA foreign_key_check"), Vec::<Vec<_>>::new());
}

/// Breaks if the hub does not compute what children reference, or does not see that it is gone.
#[test]
fn children_that_are_added_while_their_parent_is_deleted_go_or_are_cut_off() {
    let (mut hub, mut a, mut b) = both_know();
    b.run("INSERT INTO uses(slug, n) VALUES('retry', 2), ('plan', 3)");
    b.run("INSERT INTO notes(slug, n) VALUES('retry', 2)");
    a.run("DELETE FROM skills WHERE name = 'Retry'");
    settle(&mut hub, &mut [&mut a, &mut b]);
    agree_on(&mut a, &mut b, &[("Plan", 3)]);
    let cut_off = [1, 2].map(|n: i64| vec![Value::Null, Value::Integer(n)]);
    assert_eq!(agree(&mut [&mut a, &mut b], NOTES), cut_off);
}

/// Breaks if a parent's new key is not followed, on the hub or here.
#[test]
fn children_that_are_added_while_their_parent_is_renamed_follow_it() {
    for is_deferred in [true, false] {
        let (mut hub, mut a, mut b) = both_know();
        b.run("INSERT INTO uses(slug, n) VALUES('retry', 2)");
        a.run("PRAGMA defer_foreign_keys = ON; BEGIN; PRAGMA defer_foreign_keys = ON");
        a.run("UPDATE skills SET name = 'Again' WHERE name = 'Retry'; UPDATE uses SET slug = 'again'");
        a.run("UPDATE notes SET slug = 'again'; COMMIT");
        let agents = if is_deferred { [&mut a, &mut b] } else { [&mut b, &mut a] };
        let mut agents = agents;
        settle(&mut hub, &mut agents);
        agree_on(&mut a, &mut b, &[("Again", 1), ("Again", 2)]);
    }
}

/// Breaks if what is added while the answer is on its way is led to the key that its parent had, or keeps its parent waiting.
#[test]
fn a_child_that_is_added_while_the_new_key_arrives_follows_it() {
    let (mut hub, mut a, mut b) = both_know();
    a.run("BEGIN; PRAGMA defer_foreign_keys = ON; UPDATE skills SET name = 'Again' WHERE name = 'Retry'");
    a.run("UPDATE uses SET slug = 'again'; UPDATE notes SET slug = 'again'; COMMIT");
    a.sync(&mut hub);
    let counts = b.sync_with(&mut hub, Fate::Complete, &mut |b| {
        b.run("INSERT INTO uses(slug, n) VALUES('retry', 2)");
    });
    assert_eq!(counts.unwrap().quarantined, 0);
    assert_eq!(b.rows(USES), [1, 2].map(|n: i64| [text("Again"), Value::Integer(n)]));
    settle(&mut hub, &mut [&mut a, &mut b]);
    agree_on(&mut a, &mut b, &[("Again", 1), ("Again", 2)]);
}

/// Breaks if rows that wait for each other's keys cannot be written with their generated columns read beside them.
#[test]
fn keys_that_are_swapped_arrive_and_children_keep_what_they_reference() {
    let (mut hub, mut a, mut b) = both_know();
    a.run("INSERT INTO uses(slug, n) VALUES('plan', 2)");
    settle(&mut hub, &mut [&mut a, &mut b]);
    a.run("BEGIN; PRAGMA defer_foreign_keys = ON; UPDATE skills SET name = 'x' WHERE name = 'Retry'");
    a.run("UPDATE skills SET name = 'Retry' WHERE name = 'Plan'; UPDATE skills SET name = 'Plan' WHERE name = 'x'");
    a.run("COMMIT");
    settle(&mut hub, &mut [&mut a, &mut b]);
    agree_on(&mut a, &mut b, &[("Retry", 1), ("Plan", 2)]);
}

/// Breaks if a row that references is not seen to be in the way, or is left behind.
#[test]
fn two_skills_made_apart_under_one_slug_are_one_and_keep_their_children() {
    let (mut hub, mut a, mut b) = both_know();
    a.run("INSERT INTO skills(name) VALUES('New'); INSERT INTO uses(slug, n) VALUES('new', 5)");
    b.run("INSERT INTO skills(name) VALUES('NEW'); INSERT INTO uses(slug, n) VALUES('new', 6)");
    settle(&mut hub, &mut [&mut a, &mut b]);
    let names = agree(&mut [&mut a, &mut b], "SELECT slug FROM skills ORDER BY 1");
    assert_eq!(names, ["new", "plan", "retry"].map(|slug| vec![text(slug)]));
    let children = agree(&mut [&mut a, &mut b], "SELECT slug, n FROM uses ORDER BY n");
    assert_eq!(
        children,
        [("retry", 1), ("new", 5), ("new", 6)].map(|(s, n): (_, i64)| vec![text(s), Value::Integer(n)])
    );
}
