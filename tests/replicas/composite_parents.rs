//! Keys of several columns by which rows are referenced.

use crate::identity::{NO_ROWS, agree, settle};
use crate::world::pair;
use federation_hub::model::Value;

/// Breaks if the key that remains is made of the halves of two, which no row was written to reference.
#[test]
fn two_edits_of_the_halves_of_a_key_end_as_one_of_them_and_all_children_follow() {
    for key in
        ["x INTEGER NOT NULL, y INTEGER NOT NULL, label, PRIMARY KEY(x, y)", "x, y, label, UNIQUE(x, y)"]
    {
        let schema = format!(
            "PRAGMA foreign_keys = ON; CREATE TABLE places({key});
             CREATE TABLE visits(id INTEGER PRIMARY KEY, x, y, n, FOREIGN KEY(x, y) REFERENCES places(x, y) ON UPDATE CASCADE)"
        );
        let (mut hub, mut a, mut b) = pair(&schema);
        a.run("INSERT INTO places VALUES(1, 1, 'home'); INSERT INTO visits(x, y, n) VALUES(1, 1, 0)");
        settle(&mut hub, &mut [&mut a, &mut b]);
        a.run("UPDATE places SET x = 2; INSERT INTO visits(x, y, n) VALUES(2, 1, 1)");
        b.run("UPDATE places SET y = 2; INSERT INTO visits(x, y, n) VALUES(1, 2, 2)");
        b.run("UPDATE places SET label = 'of b'");
        settle(&mut hub, &mut [&mut a, &mut b]);
        let all = "SELECT label, n FROM visits JOIN places USING(x, y) ORDER BY n";
        let visited = agree(&mut [&mut a, &mut b], all);
        assert_eq!(visited, [0, 1, 2].map(|n| vec![Value::Text("of b".into()), Value::Integer(n)]));
        assert_ne!(a.rows("SELECT x, y FROM places"), [[Value::Integer(2), Value::Integer(2)]]);
        assert_eq!(agree(&mut [&mut a, &mut b], "PRAGMA foreign_key_check"), NO_ROWS);
    }
}
