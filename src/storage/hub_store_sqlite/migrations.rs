//! From the layouts of earlier releases to the present one.
//!
//! Whoever changes `SCHEMA` after the first release adds a step here, never raises [`FIRST_LAYOUT`], and keeps a file
//! of each layout under `tests/fixtures`, which a test opens and syncs from.

use rusqlite::{Connection, TransactionBehavior};

use super::counting::counting;

/// The layout of the first release; earlier ones are not led anywhere.
pub const FIRST_LAYOUT: u32 = 5;

/// The layout that this library writes, in `PRAGMA user_version`.
pub const LAYOUT: u32 = 8;

/// What leads from each layout, beginning with the first, to the next one.
const STEPS: [&str; (LAYOUT - FIRST_LAYOUT) as usize] = [TO_6, TO_7, TO_8];

/// Since when a row is dead by its own writes; rows that are one with another one wait to be collected. And which
/// definitions replicas declare. Of those that are known, nobody can tell until they declare theirs again: 0 stands
/// for that. And which rows of its last push were not taken.
const TO_6: &str = "
    ALTER TABLE row_state ADD COLUMN died INTEGER NOT NULL DEFAULT 0;
    UPDATE row_state SET dead = 1 WHERE survivor IS NOT NULL;
    UPDATE tenant SET (live_bytes, dead_bytes) = (
        SELECT coalesce(sum(bytes * NOT dead), 0), coalesce(sum(bytes * dead), 0) FROM (
            SELECT dead, 160 + length(body) + coalesce(length(effective), 0) AS bytes
            FROM row_state WHERE row_state.tenant = tenant.id));
    ALTER TABLE replica ADD COLUMN declaration INTEGER;
    UPDATE replica SET declaration = 0;
    CREATE TABLE definition (
        tenant INTEGER NOT NULL,
        id INTEGER NOT NULL,
        tbl INTEGER NOT NULL,
        is_index INTEGER NOT NULL,
        text TEXT NOT NULL,
        agent TEXT NOT NULL,
        declarers INTEGER NOT NULL,
        standing INTEGER NOT NULL,
        why TEXT,
        told_at INTEGER NOT NULL,
        witness BLOB,
        laxer INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (tenant, id)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX definition_by_table ON definition (tenant, tbl);
    CREATE INDEX definition_left_out ON definition (tenant, told_at) WHERE why IS NOT NULL;
    CREATE TABLE declaration (
        tenant INTEGER NOT NULL,
        id INTEGER NOT NULL,
        digest BLOB NOT NULL,
        replicas INTEGER NOT NULL,
        definitions BLOB NOT NULL,
        PRIMARY KEY (tenant, id),
        UNIQUE (tenant, digest)
    ) STRICT, WITHOUT ROWID;
    ALTER TABLE replica ADD COLUMN rejected BLOB;
    ALTER TABLE replica DROP COLUMN push_from;
";

/// What the hub's operator has removed.
const TO_7: &str = "
    CREATE TABLE dropped_table (
        tenant INTEGER NOT NULL,
        name TEXT NOT NULL COLLATE NOCASE,
        tbl INTEGER NOT NULL,
        seq INTEGER NOT NULL,
        at_ms INTEGER NOT NULL,
        texts BLOB,
        PRIMARY KEY (tenant, name)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE dropped_definition (
        tenant INTEGER NOT NULL,
        tbl INTEGER NOT NULL,
        digest BLOB NOT NULL,
        name TEXT NOT NULL COLLATE NOCASE,
        at_ms INTEGER NOT NULL,
        PRIMARY KEY (tenant, tbl, digest)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE removal (
        tenant INTEGER NOT NULL,
        tbl INTEGER NOT NULL,
        PRIMARY KEY (tenant, tbl)
    ) STRICT, WITHOUT ROWID;
";

/// From which row on rows are still to be looked at under changed rules. And what definitions and replicas take; [`super::counting`] goes on with it.
const TO_8: &str = concat!(
    "
    ALTER TABLE tenant ADD COLUMN kept_bytes INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE tenant ADD COLUMN replicas INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE table_rules ADD COLUMN left_from BLOB;
    UPDATE tenant SET
        replicas = (SELECT count(*) FROM replica WHERE replica.tenant = tenant.id),
        kept_bytes = (
            SELECT coalesce(sum(160 + octet_length(agent) + coalesce(length(refused), 0) + coalesce(length(rejected), 0)), 0)
            FROM replica WHERE replica.tenant = tenant.id
        ) + (
            SELECT coalesce(sum(160 + octet_length(text) + octet_length(agent) + coalesce(octet_length(why), 0)), 0)
            FROM definition WHERE definition.tenant = tenant.id
        ) + (
            SELECT coalesce(sum(160 + length(definitions)), 0) FROM declaration WHERE declaration.tenant = tenant.id
        ) + (
            SELECT coalesce(sum(160 + length(columns) + octet_length(ddl) + length(indexes) + length(agreed)), 0)
            FROM table_schema WHERE table_schema.tenant = tenant.id
        );
",
    counting!()
);

/// Leads a store from an earlier layout to the present one, wholly or not at all.
pub fn migrate(conn: &mut Connection, found: u32) -> Result<(), rusqlite::Error> {
    lead(conn, found, FIRST_LAYOUT, &STEPS)
}

fn lead(conn: &mut Connection, found: u32, first: u32, steps: &[&str]) -> Result<(), rusqlite::Error> {
    let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for (layout, step) in (first..).zip(steps).skip_while(|(layout, _)| *layout < found) {
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "user_version", layout + 1)?;
    }
    transaction.commit()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(layout: u32) -> Connection {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch("CREATE TABLE path(step INTEGER)").unwrap();
        conn.pragma_update(None, "user_version", layout).unwrap();
        conn
    }

    fn path(conn: &Connection) -> (String, u32) {
        let steps = conn.query_row("SELECT coalesce(group_concat(step), '') FROM path", [], |row| row.get(0));
        (steps.unwrap(), conn.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap())
    }

    #[test]
    fn a_store_takes_the_steps_that_it_lacks_in_their_order() {
        let steps =
            ["INSERT INTO path VALUES(7)", "INSERT INTO path VALUES(8)", "INSERT INTO path VALUES(9)"];
        for (found, expected) in [(7, "7,8,9"), (9, "9"), (10, "")] {
            let mut conn = store(found);
            lead(&mut conn, found, 7, &steps).unwrap();
            assert_eq!(path(&conn), (expected.to_owned(), 10));
        }
    }

    #[test]
    fn a_step_that_fails_takes_the_others_back() {
        let mut conn = store(7);
        lead(&mut conn, 7, 7, &["INSERT INTO path VALUES(7)", "no SQL"]).unwrap_err();
        assert_eq!(path(&conn), (String::new(), 7));
    }
}
