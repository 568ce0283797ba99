//! The application whose tables have something of everything, and what it writes. `{t}` stands for the tenant's
//! name in every text, so that a text of another tenant shows.

use federation_hub::model::Rule;
use federation_hub::storage::choice::{SyncOptions, TableOptions};

use crate::dice::Dice;

/// Its tables.
pub const SCHEMA: [&str; 10] = [
    "CREATE TABLE episodes(id INTEGER PRIMARY KEY AUTOINCREMENT, task TEXT NOT NULL, score REAL, \
     parent INTEGER REFERENCES episodes(id) ON DELETE SET NULL)",
    "CREATE TABLE steps(id INTEGER PRIMARY KEY, episode_id INTEGER NOT NULL REFERENCES episodes(id) \
     ON DELETE CASCADE, note TEXT)",
    "CREATE TABLE tags(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE COLLATE NOCASE, about TEXT)",
    "CREATE TABLE episode_tags(episode_id INTEGER NOT NULL REFERENCES episodes(id) ON DELETE CASCADE, \
     tag_id INTEGER NOT NULL REFERENCES tags(id), weight REAL, PRIMARY KEY(episode_id, tag_id)) WITHOUT ROWID",
    "CREATE TABLE facts(name TEXT PRIMARY KEY, body TEXT, hits INTEGER NOT NULL DEFAULT 0, \
     labels TEXT NOT NULL DEFAULT '[]', best INTEGER)",
    "CREATE TABLE loose(a TEXT, b BLOB)",
    MARKS,
    NOTES,
    TALLY,
    WORDS,
];

/// Into which every line is written once, and never changed: what was acknowledged of it must be everywhere.
pub const MARKS: &str = "CREATE TABLE marks(mark TEXT PRIMARY KEY, by TEXT)";

/// Into which every line is written once, under a local number: whatever dies or gets lost, nobody makes two of it.
pub const NOTES: &str = "CREATE TABLE notes(id INTEGER PRIMARY KEY AUTOINCREMENT, mark TEXT NOT NULL)";

/// Whose words anybody replaces: the one of the greatest stamp must be everywhere.
pub const WORDS: &str = "CREATE TABLE words(name TEXT PRIMARY KEY, word TEXT NOT NULL)";

/// Whose one line counts what all applications of a tenant did.
pub const TALLY: &str = "CREATE TABLE tally(name TEXT PRIMARY KEY, n INTEGER NOT NULL)";

/// What makes the line of `TALLY`.
pub const TALLY_LINE: &str = "INSERT INTO tally VALUES('all', 0)";

/// What adds to it.
pub const COUNT: &str = "UPDATE tally SET n = n + 1 WHERE name = 'all'";

/// What its author chooses.
pub fn options() -> SyncOptions {
    let facts = rules("facts", &[("hits", Rule::Counter), ("labels", Rule::Set), ("best", Rule::Max)]);
    SyncOptions { tables: vec![facts, rules("tally", &[("n", Rule::Counter)])], ..SyncOptions::default() }
}

/// What the author of any tables chooses.
pub fn options_of_any() -> SyncOptions {
    SyncOptions { tables: vec![rules("tally", &[("n", Rule::Counter)])], ..SyncOptions::default() }
}

fn rules(name: &str, rules: &[(&str, Rule)]) -> TableOptions {
    TableOptions {
        name: name.to_owned(),
        rules: rules.iter().map(|(column, rule)| ((*column).to_owned(), *rule)).collect(),
        ..TableOptions::default()
    }
}

/// Changes that an application may make to its tables.
pub const CHANGES: [&str; 5] = [
    "ALTER TABLE facts ADD COLUMN source TEXT",
    "ALTER TABLE episodes ADD COLUMN reward REAL DEFAULT 0.5",
    "ALTER TABLE tags ADD COLUMN colour TEXT DEFAULT 'none'",
    "CREATE TABLE later(id INTEGER PRIMARY KEY, what TEXT, tag_id INTEGER REFERENCES tags(id) ON DELETE SET NULL)",
    "CREATE INDEX episodes_task ON episodes(task)",
];

/// Statements that add a line to the marks, and one to the notes.
pub fn mark(no: usize) -> [String; 2] {
    [
        format!("INSERT INTO marks VALUES('{{t}}~{no}', '{{t}}')"),
        format!("INSERT INTO notes(mark) VALUES('{{t}}~{no}')"),
    ]
}

/// A statement that replaces a word.
pub fn word(dice: &mut Dice) -> String {
    let (name, word) = (dice.below(3), dice.below(1_000));
    format!(
        "INSERT INTO words VALUES('{{t}} {name}', '{{t}} {word}') ON CONFLICT(name) DO UPDATE SET word = excluded.word"
    )
}

/// Some statements.
pub fn statements(dice: &mut Dice, marks: &mut usize) -> Vec<String> {
    let mut statements = Vec::new();
    for _ in 0..=dice.below(3) {
        match dice.below(14) {
            12 | 13 => statements.push(word(dice)),
            0..3 => episode(dice, &mut statements),
            3 | 4 => tag(dice, &mut statements),
            5..8 => fact(dice, &mut statements),
            8 => loose(dice, &mut statements),
            9 => statements.push("DELETE FROM later WHERE id = (SELECT min(id) FROM later)".into()),
            10 => statements.push(format!(
                "INSERT INTO later(what, tag_id) VALUES('{{t}} {}', (SELECT max(id) FROM tags))",
                dice.below(9)
            )),
            _ => {
                statements.extend(mark(*marks));
                *marks += 1;
            }
        }
    }
    statements
}

/// Selects one of a table's numbers.
fn one(dice: &mut Dice, table: &str) -> String {
    format!(
        "(SELECT id FROM {table} ORDER BY id LIMIT 1 OFFSET {} % max(1, (SELECT count(*) FROM {table})))",
        dice.below(9)
    )
}

fn episode(dice: &mut Dice, statements: &mut Vec<String>) {
    let (which, what) = (one(dice, "episodes"), dice.below(50));
    statements.push(match dice.below(10) {
        0..3 => {
            let parent = if dice.chance(40) { which } else { "NULL".into() };
            format!("INSERT INTO episodes(task, parent) VALUES('{{t}} task {what}', {parent})")
        }
        3..5 => format!("UPDATE episodes SET score = {what}.5 WHERE id = {which}"),
        5 => format!("DELETE FROM episodes WHERE id = {which}"),
        6..8 => format!("INSERT INTO steps(episode_id, note) VALUES({which}, '{{t}} note {what}')"),
        8 => format!("UPDATE steps SET note = '{{t}} edit {what}', episode_id = {which} WHERE id = {}", {
            one(dice, "steps")
        }),
        _ => format!("DELETE FROM steps WHERE id = {}", one(dice, "steps")),
    });
}

fn tag(dice: &mut Dice, statements: &mut Vec<String>) {
    let name = *dice.pick(&["red", "Red", "blue", "green", "BLUE", "black"]);
    let which = one(dice, "tags");
    statements.push(match dice.below(9) {
        0..3 => format!("INSERT OR IGNORE INTO tags(name, about) VALUES('{{t}} {name}', '{{t}} first')"),
        3 => format!("INSERT OR REPLACE INTO tags(name, about) VALUES('{{t}} {name}', '{{t}} again')"),
        4 => format!("UPDATE tags SET name = '{{t}} {name}' WHERE id = {which}"),
        5 => format!("DELETE FROM tags WHERE id = {which}"),
        6 => format!(
            "DELETE FROM tags WHERE name = '{{t}} {name}'; \
             INSERT OR IGNORE INTO tags(name, about) VALUES('{{t}} {name}', '{{t}} anew')"
        ),
        _ => {
            let episode = one(dice, "episodes");
            format!("INSERT OR REPLACE INTO episode_tags VALUES({episode}, {which}, {}.25)", dice.below(4))
        }
    });
}

fn fact(dice: &mut Dice, statements: &mut Vec<String>) {
    let name = *dice.pick(&["sky", "sea", "sun", "moon"]);
    let name = format!("'{{t}} {name}'");
    let n = dice.below(100);
    statements.push(match dice.below(10) {
        0..3 => format!(
            "INSERT INTO facts(name, body) VALUES({name}, '{{t}} is {n}') \
             ON CONFLICT(name) DO UPDATE SET body = excluded.body"
        ),
        3 | 4 => format!("UPDATE facts SET hits = hits + {} WHERE name = {name}", dice.below(5)),
        5 => {
            format!("UPDATE facts SET labels = json_insert(labels, '$[#]', '{{t}} {n}') WHERE name = {name}")
        }
        6 => format!("UPDATE facts SET labels = json_remove(labels, '$[0]') WHERE name = {name}"),
        7 => format!("UPDATE facts SET best = {n} WHERE name = {name}"),
        8 => format!("UPDATE facts SET name = {name} || ' too' WHERE name = {name}"),
        _ => format!("DELETE FROM facts WHERE name = {name}"),
    });
}

fn loose(dice: &mut Dice, statements: &mut Vec<String>) {
    let n = dice.below(6);
    statements.push(match dice.below(4) {
        0 | 1 => format!("INSERT INTO loose VALUES('{{t}} {n}', zeroblob({n}))"),
        2 => format!("UPDATE loose SET b = x'0{n}' WHERE a = '{{t}} {n}'"),
        _ => format!("DELETE FROM loose WHERE a = '{{t}} {n}'"),
    });
}
