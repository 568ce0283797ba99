//! References whose table another column names, whatever that column stores: kinds, numbers, or numbers of rows.

use crate::identity::{agree, settle, shifted};
use crate::world::parts::text;
use crate::world::{Agent, Fate};
use federation_hub::model::Value;
use federation_hub::storage::choice::TableOptions;
use federation_hub::storage::references::{DeclaredParent, DeclaredReference};

/// Has agents know what `links.target` references, as an application words it that has nothing but texts for keys.
fn declare(agents: &mut [&mut Agent], by: &str, map: &[(&str, &str)]) {
    for agent in agents {
        let map = map.iter().map(|(value, table)| (text(value), (*table).to_owned())).collect();
        let parent = DeclaredParent::ByColumn { column: by.into(), map };
        let (table, column) = ("links".into(), "target".into());
        agent.options.references = vec![DeclaredReference { table, column, parent }];
    }
}

/// What the links mean.
const MEANT: &str = "SELECT links.id, coalesce(facts.what, skills.what, 'nothing') FROM links
    LEFT JOIN facts ON kind = 7 AND facts.id = target
    LEFT JOIN skills ON kind IN (9, 9.5) AND skills.id = target ORDER BY 1";

#[test]
fn a_number_names_a_table_as_well_as_a_text_whatever_the_columns_type() {
    for kind in ["INTEGER", "NUMERIC", "REAL", "TEXT", "", "BLOB", "SMALLINT NOT NULL"] {
        let schema = format!(
            "CREATE TABLE links(id TEXT PRIMARY KEY, target INTEGER, kind {kind});
             CREATE TABLE facts(id INTEGER PRIMARY KEY, what TEXT);
             CREATE TABLE skills(id INTEGER PRIMARY KEY, what TEXT);"
        );
        let shifts = "INSERT INTO facts(what) VALUES('b1'); INSERT INTO skills(what) VALUES('b1'), ('b2')";
        let (mut hub, mut a, mut b) = shifted(&schema, shifts);
        declare(&mut [&mut a, &mut b], "kind", &[("7", "facts"), (" 9.0 ", "skills"), ("09", "skills")]);
        a.run("INSERT INTO facts VALUES(1, 'a fact'); INSERT INTO skills VALUES(1, 'a skill')");
        // In a column of text, the application itself reads 7 as '7'.
        let nine = if kind == "TEXT" { "'09'" } else { "9" };
        a.run(&format!("INSERT INTO links VALUES('x', 1, 7), ('y', 1, {nine}), ('z', 1, 8)"));
        settle(&mut hub, &mut [&mut a, &mut b]);
        assert_ne!(b.rows("SELECT target FROM links WHERE id = 'x'"), [[Value::Integer(1)]], "{kind}");
        let meant =
            MEANT.replace("kind =", "CAST(kind AS REAL) =").replace("kind IN", "CAST(kind AS REAL) IN");
        let rows = agree(&mut [&mut a, &mut b], &meant);
        assert_eq!(
            rows,
            [[text("x"), text("a fact")], [text("y"), text("a skill")], [text("z"), text("nothing")]]
        );
        // What names no table is a number like any other.
        assert_eq!(b.rows("SELECT target FROM links WHERE id = 'z'"), [[Value::Integer(1)]], "{kind}");
        // Another kind, under the same number, is another row.
        b.run("UPDATE links SET kind = 9, target = (SELECT id FROM skills WHERE what = 'b1') WHERE id = 'x'");
        settle(&mut hub, &mut [&mut b, &mut a]);
        if kind != "TEXT" {
            assert_eq!(agree(&mut [&mut a, &mut b], &meant)[0], [text("x"), text("b1")], "{kind}");
        }
    }
}

/// As Django's generic foreign keys.
const CONTENT_TYPES: &str = "
    CREATE TABLE content_type(id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, model TEXT NOT NULL UNIQUE);
    CREATE TABLE facts(id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, what TEXT);
    CREATE TABLE skills(id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, what TEXT);
    CREATE TABLE links(id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, target INTEGER NOT NULL,
      kind INTEGER NOT NULL REFERENCES content_type(id) DEFERRABLE INITIALLY DEFERRED, label TEXT);
    INSERT INTO content_type(id, model) VALUES(7, 'facts'), (9, 'skills');";

const LABELLED: &str = "SELECT label, coalesce(facts.what, skills.what, 'nothing') FROM links
    LEFT JOIN facts ON kind = 7 AND facts.id = target
    LEFT JOIN skills ON kind = 9 AND skills.id = target ORDER BY 1";

#[test]
fn a_column_that_references_a_row_names_the_table_by_the_number_that_this_row_has_here() {
    for is_global in [true, false] {
        let shifts = "INSERT INTO facts(what) VALUES('b1'); INSERT INTO skills(what) VALUES('b1'), ('b2')";
        let (mut hub, mut a, mut b) = shifted(CONTENT_TYPES, shifts);
        declare(&mut [&mut a, &mut b], "kind", &[("7", "facts"), ("9", "skills")]);
        for agent in [&mut a, &mut b].into_iter().filter(|_| is_global) {
            let content_type =
                TableOptions { name: "content_type".into(), is_global, ..TableOptions::default() };
            agent.options.tables.push(content_type);
        }
        a.run(
            "INSERT INTO facts VALUES(1, 'a fact'); INSERT INTO skills VALUES(1, 'a skill'), (2, 'to come')",
        );
        a.run("INSERT INTO links(target, kind, label) VALUES(1, 7, 'x'), (1, 9, 'y'), (2, 9, 'z')")
            .sync(&mut hub);
        // The row itself comes after what means it.
        a.run("UPDATE skills SET what = 'came' WHERE id = 2").sync(&mut hub);
        b.slice = 1;
        b.sync_with(&mut hub, Fate::InterruptedPull(4), &mut |_| {});
        settle(&mut hub, &mut [&mut b, &mut a]);
        assert_eq!(
            agree(&mut [&mut a, &mut b], LABELLED),
            [[text("x"), text("a fact")], [text("y"), text("a skill")], [text("z"), text("came")]],
            "{is_global}"
        );
        let advice = "give content_type identity 'primaryKey'";
        let is_advised = b.catalog_notices().iter().any(|notice| notice.contains(advice));
        assert_eq!(is_advised, !is_global, "{:?}", b.catalog_notices());
    }
}
