//! Packages that come in several releases, drawn at random: each release makes tables, columns, indexes, views, triggers that
//! fill a full-text index, or makes a table anew; most keep a journal of their migrations, or a `user_version`.
//!
//! Agents install a release when they like, some on a file that was synced while it was still empty; they write, delete and
//! sync in between. In the end everybody has the last release and the same rows, none is lost, and searches find them.
//! `FEDERATION_SEEDS=500` plays that many; one that fails is played again by `FEDERATION_SEED=7`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use federation_hub::model::Value;

use crate::clock::Clock;
use crate::dice::{Dice, asked_for};
use crate::world::{Agent, Fate, Hub};

/// How an application knows which of its releases a database has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Journal {
    UserVersion,
    Table(&'static str),
}

const JOURNALS: [Journal; 5] = [
    Journal::UserVersion,
    Journal::Table("_migrations"),
    Journal::Table("kysely_migration"),
    Journal::Table("schema_version"),
    Journal::Table("__drizzle_migrations"),
];

const KEYS: [&str; 4] = [
    "id TEXT PRIMARY KEY",
    "id INTEGER PRIMARY KEY",
    "id INTEGER PRIMARY KEY AUTOINCREMENT",
    "id TEXT, of TEXT DEFAULT 'all', PRIMARY KEY (id, of)",
];

/// A table as the last release so far has it. Every row has a name of its own in `tag`.
#[derive(Clone, Debug)]
struct Table {
    name: String,
    key: usize,
    /// The numbered table whose rows its column `parent` references.
    parent: Option<String>,
    /// The columns that are written, each with the release that brings it and its default.
    columns: Vec<(String, usize, Option<&'static str>)>,
    is_indexed: bool,
    views: usize,
}

impl Table {
    fn is_numbered(&self) -> bool {
        matches!(self.key, 1 | 2)
    }

    fn definition(&self, name: &str) -> String {
        let mut parts = KEYS[self.key].split(", PRIMARY KEY").map(str::to_owned);
        let (key, of_many) = (parts.next().unwrap(), parts.next());
        let mut text = format!("CREATE TABLE {name}({key}, tag TEXT");
        for (column, _, default) in &self.columns {
            let default = default.map_or_else(String::new, |it| format!(" DEFAULT '{it}'"));
            write!(text, ", {column} TEXT{default}").unwrap();
        }
        if let Some(parent) = &self.parent {
            write!(text, ", parent INTEGER REFERENCES {parent}(id)").unwrap();
        }
        if let Some(columns) = of_many {
            write!(text, ", PRIMARY KEY{columns}").unwrap();
        }
        text + ");"
    }

    /// What fills its full-text index.
    fn triggers(&self) -> String {
        let name = &self.name;
        format!(
            "CREATE TRIGGER {name}_ai AFTER INSERT ON {name} BEGIN
                 INSERT INTO {name}_fts(rowid, tag) VALUES(new.rowid, new.tag); END;
             CREATE TRIGGER {name}_ad AFTER DELETE ON {name} BEGIN
                 INSERT INTO {name}_fts({name}_fts, rowid, tag) VALUES('delete', old.rowid, old.tag); END;
             CREATE TRIGGER {name}_au AFTER UPDATE ON {name} BEGIN
                 INSERT INTO {name}_fts({name}_fts, rowid, tag) VALUES('delete', old.rowid, old.tag);
                 INSERT INTO {name}_fts(rowid, tag) VALUES(new.rowid, new.tag); END;"
        )
    }
}

/// An application: what each of its releases runs, and the tables that it has then.
struct Application {
    journal: Journal,
    releases: Vec<String>,
    tables: Vec<Vec<Table>>,
}

impl Application {
    fn draw(dice: &mut Dice) -> Self {
        let journal = JOURNALS[dice.below(JOURNALS.len())];
        let count = 2 + dice.below(4);
        let (mut releases, mut tables, mut history) = (Vec::new(), Vec::<Table>::new(), Vec::new());
        for release in 0..count {
            let mut text = String::new();
            let changes = if release == 0 { 2 } else { 1 + dice.below(3) };
            for _ in 0..changes {
                text += &if tables.is_empty() || tables.len() < 4 && dice.chance(35) {
                    make(dice, &mut tables, release)
                } else {
                    let at = dice.below(tables.len());
                    change(dice, &mut tables[at], release)
                };
            }
            releases.push(text);
            history.push(tables.clone());
        }
        Self { journal, releases, tables: history }
    }

    /// What brings a database from one release to the next, in one go, as migrators do.
    fn upgrade(&self, to: usize) -> String {
        let noted = match self.journal {
            Journal::UserVersion => format!("PRAGMA user_version = {}", to + 1),
            Journal::Table(name) => format!(
                "CREATE TABLE IF NOT EXISTS {name}(id INTEGER PRIMARY KEY AUTOINCREMENT, hash TEXT, created_at NUMERIC);
                 INSERT INTO {name}(hash, created_at) VALUES('release {to}', {to})"
            ),
        };
        format!(
            "PRAGMA foreign_keys = OFF; BEGIN; {}; {noted}; COMMIT; PRAGMA foreign_keys = ON",
            self.releases[to]
        )
    }
}

fn make(dice: &mut Dice, tables: &mut Vec<Table>, release: usize) -> String {
    let parents: Vec<String> =
        tables.iter().filter(|it| it.is_numbered()).map(|it| it.name.clone()).collect();
    let parent = (!parents.is_empty() && dice.chance(60)).then(|| parents[dice.below(parents.len())].clone());
    let (name, columns) = (format!("t{}", tables.len()), vec![("body".to_owned(), release, None)]);
    let table = Table { name, key: dice.below(KEYS.len()), parent, columns, is_indexed: false, views: 0 };
    let text = table.definition(&table.name);
    tables.push(table);
    text
}

fn change(dice: &mut Dice, table: &mut Table, release: usize) -> String {
    let name = table.name.clone();
    match dice.below(6) {
        0 | 1 => {
            let column = format!("c{}", table.columns.len());
            let default = [None, Some("fine")][dice.below(2)];
            let said = default.map_or_else(String::new, |it| format!(" DEFAULT '{it}'"));
            table.columns.push((column.clone(), release, default));
            format!("ALTER TABLE {name} ADD COLUMN {column} TEXT{said};")
        }
        2 => {
            let column = &table.columns[dice.below(table.columns.len())].0;
            format!("CREATE INDEX IF NOT EXISTS {name}_{column} ON {name}({column});")
        }
        3 => {
            table.views += 1;
            format!(
                "DROP VIEW IF EXISTS {name}_view; CREATE VIEW {name}_view AS SELECT tag, body FROM {name};"
            )
        }
        4 if !table.is_indexed => {
            table.is_indexed = true;
            format!(
                "CREATE VIRTUAL TABLE {name}_fts USING fts5(tag, content='{name}');
                 INSERT INTO {name}_fts({name}_fts) VALUES('rebuild'); {}",
                table.triggers()
            )
        }
        _ => {
            // As SQLite's documentation has it ("Making Other Kinds Of Table Schema Changes").
            let mut names = vec!["id".to_owned(), "tag".to_owned()];
            names.extend(table.columns.iter().map(|(column, ..)| column.clone()));
            names.extend(table.parent.iter().map(|_| "parent".to_owned()));
            names.extend((table.key == 3).then(|| "of".to_owned()));
            let (names, view) = (names.join(", "), table.views > 0);
            let mut text = if view { format!("DROP VIEW {name}_view;") } else { String::new() };
            write!(
                text,
                "{} INSERT INTO {name}_new({names}) SELECT {names} FROM {name}; DROP TABLE {name};
                 ALTER TABLE {name}_new RENAME TO {name};",
                table.definition(&format!("{name}_new"))
            )
            .unwrap();
            if view {
                write!(text, "CREATE VIEW {name}_view AS SELECT tag, body FROM {name};").unwrap();
            }
            if table.is_indexed {
                text += &table.triggers();
                write!(text, "INSERT INTO {name}_fts({name}_fts) VALUES('rebuild');").unwrap();
            }
            text
        }
    }
}

struct Run {
    dice: Dice,
    clock: Clock,
    hub: Hub,
    application: Application,
    /// Each with the number of releases that it has installed.
    agents: Vec<(Agent, usize)>,
    /// The last write of each column of each row, by table and tag.
    last: BTreeMap<(String, String), BTreeMap<String, String>>,
    /// Rows that somebody has deleted, perhaps while others wrote to them.
    deleted: BTreeSet<(String, String)>,
    /// Rows that each agent has written to since it last sent everything.
    unsent: [BTreeSet<(String, String)>; 3],
    /// Whether an agent has installed a release since then: nothing tells when it wrote to a table that was made anew.
    is_untimed: [bool; 3],
    /// Rows of which several may have been written last.
    uncertain: BTreeSet<(String, String)>,
    /// What happened, for whoever has to find out why a seed fails.
    story: Vec<String>,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let clock = Clock::standing_at(1_800_000_000_000);
        let mut hub = Hub::new();
        hub.clock = clock.clone();
        let application = Application::draw(&mut dice);
        let agent = |at: u64| (Agent::timed("acme", &format!("agent {at}"), at + 1, clock.clone()), 0);
        let agents = (0..3).map(agent).collect();
        let mut story = vec![format!("seed {seed}, {:?}", application.journal)];
        story
            .extend(application.releases.iter().zip(1..).map(|(text, at)| format!("release {at} is {text}")));
        let (last, deleted, uncertain) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        let (unsent, is_untimed) = (Default::default(), [false; 3]);
        Self { dice, clock, hub, application, agents, last, deleted, unsent, is_untimed, uncertain, story }
    }

    fn note(&mut self, who: usize, what: &str) {
        self.story.push(format!("{who}: {what}"));
    }

    fn install(&mut self, who: usize) {
        let (agent, release) = &mut self.agents[who];
        if *release < self.application.releases.len() {
            let text = self.application.upgrade(*release);
            *release += 1;
            agent.run(&text);
            let what = format!("release {release}");
            self.note(who, &what);
            if let Some(unsent) = self.unsent.get_mut(who) {
                self.uncertain.append(unsent);
                self.is_untimed[who] = true;
            }
        }
    }

    /// An agent writes to a row.
    fn wrote(&mut self, who: usize, table: &str, tag: &str) {
        let row = (table.to_owned(), tag.to_owned());
        // What one agent changes of a row between two syncs has the time of its last write.
        if self.is_untimed[who] || !self.unsent[who].insert(row.clone()) {
            self.uncertain.insert(row);
        }
    }

    fn step(&mut self, at: usize) {
        self.clock.pass(1);
        let who = self.dice.below(3);
        match self.dice.below(100) {
            0..15 => self.install(who),
            15..40 => self.insert(who, at),
            40..58 => self.update(who, at),
            58..64 => self.delete(who),
            _ => self.sync(who),
        }
    }

    /// A table that an agent has by now.
    fn table(&mut self, who: usize) -> Option<Table> {
        let release = self.agents[who].1.checked_sub(1)?;
        let tables = &self.application.tables[release];
        Some(tables[self.dice.below(tables.len())].clone())
    }

    /// The columns that a table has in the release that an agent has.
    fn columns(&self, who: usize, table: &Table) -> Vec<String> {
        let release = self.agents[who].1;
        table.columns.iter().filter(|(_, since, _)| *since < release).map(|(name, ..)| name.clone()).collect()
    }

    /// The tag of a row that an agent has.
    fn row(&mut self, who: usize, table: &str) -> Option<String> {
        let rows = self.agents[who].0.rows(&format!("SELECT tag FROM {table} ORDER BY tag"));
        if rows.is_empty() {
            return None;
        }
        let Value::Text(tag) = &rows[self.dice.below(rows.len())][0] else { return None };
        Some(tag.clone())
    }

    fn insert(&mut self, who: usize, at: usize) {
        let Some(table) = self.table(who) else { return };
        let (tag, columns) = (format!("row {at}"), self.columns(who, &table));
        let (mut names, mut values) = (vec!["tag".to_owned()], vec![format!("'{tag}'")]);
        let mut written = BTreeMap::new();
        for column in columns {
            if self.dice.chance(60) {
                let value = format!("{column} at {at}");
                values.push(format!("'{value}'"));
                names.push(column.clone());
                written.insert(column, value);
            }
        }
        if !table.is_numbered() {
            names.push("id".to_owned());
            values.push(format!("'{tag}'"));
        }
        if let Some(parent) = &table.parent
            && let Some(parent_tag) = self.row(who, parent)
        {
            names.push("parent".to_owned());
            values.push(format!("(SELECT id FROM {parent} WHERE tag = '{parent_tag}')"));
            written.insert("parent".to_owned(), parent_tag);
        }
        let statement =
            format!("INSERT INTO {}({}) VALUES({})", table.name, names.join(", "), values.join(", "));
        self.agents[who].0.run(&statement);
        self.note(who, &statement);
        self.last.insert((table.name, tag), written);
    }

    fn update(&mut self, who: usize, at: usize) {
        let Some(table) = self.table(who) else { return };
        let Some(tag) = self.row(who, &table.name) else { return };
        let columns = self.columns(who, &table);
        let column = columns[self.dice.below(columns.len())].clone();
        let value = format!("{column} at {at}");
        let statement = format!("UPDATE {} SET {column} = '{value}' WHERE tag = '{tag}'", table.name);
        self.agents[who].0.run(&statement);
        self.note(who, &statement);
        self.wrote(who, &table.name, &tag);
        self.last.entry((table.name, tag)).or_default().insert(column, value);
    }

    fn delete(&mut self, who: usize) {
        let Some(table) = self.table(who) else { return };
        if table.key == 1 && self.is_untimed[who] {
            // SQLite gives the number again, and nobody has noted that it is another row's.
            return;
        }
        let Some(tag) = self.row(who, &table.name) else { return };
        // What references it refuses that; elsewhere somebody may reference it, or write to it, meanwhile.
        let statement = format!("DELETE FROM {} WHERE tag = '{tag}'", table.name);
        if self.agents[who].0.try_run(&statement).is_ok() {
            self.note(who, &statement);
            self.deleted.insert((table.name, tag));
        }
    }

    fn sync(&mut self, who: usize) {
        let fate = match self.dice.below(10) {
            0 => Fate::LosesBatch,
            1 => Fate::LosesAnswer,
            2 => Fate::InterruptedPull(0),
            _ => Fate::Complete,
        };
        self.note(who, &format!("{fate:?}"));
        if self.dice.chance(20) {
            self.agents[who].0.reconnect();
        }
        self.agents[who].0.sync_with(&mut self.hub, fate, &mut |_| {});
        if fate == Fate::Complete {
            self.unsent[who].clear();
            self.is_untimed[who] = false;
        }
    }

    fn all_sync(&mut self) {
        for _ in 0..4 {
            self.clock.pass(1);
            for (agent, _) in &mut self.agents {
                agent.sync(&mut self.hub);
            }
        }
    }

    fn end(mut self) {
        for who in 0..self.agents.len() {
            while self.agents[who].1 < self.application.releases.len() {
                self.clock.pass(1);
                self.install(who);
                if self.dice.chance(50) {
                    self.sync(who);
                }
            }
        }
        self.all_sync();
        // One more comes, and is synced before its application opens it.
        let mut newcomer = Agent::timed("acme", "newcomer", 100, self.clock.clone());
        newcomer.sync(&mut self.hub);
        self.agents.push((newcomer, 0));
        while self.agents[3].1 < self.application.releases.len() {
            self.install(3);
        }
        self.all_sync();
        let tables = self.application.tables.last().unwrap().clone();
        for table in &tables {
            let found: Vec<_> = self.agents.iter_mut().map(|(agent, _)| content(agent, table)).collect();
            for (at, rows) in found.iter().enumerate() {
                assert_eq!(rows, &found[0], "{}, agent {at}", table.name);
            }
            self.expect_last(table, &found[0]);
        }
    }

    /// Rows that nobody has deleted have, in each column, what was written last, or else its default.
    fn expect_last(&self, table: &Table, found: &BTreeMap<String, BTreeMap<String, String>>) {
        for ((_, tag), written) in self.last.iter().filter(|((name, _), _)| *name == table.name) {
            if self.deleted.contains(&(table.name.clone(), tag.clone())) {
                continue;
            }
            let mut expected = written.clone();
            for (column, _, default) in &table.columns {
                if let Some(default) = default {
                    expected.entry(column.clone()).or_insert_with(|| (*default).to_owned());
                }
            }
            let is_uncertain = self.uncertain.contains(&(table.name.clone(), tag.clone()));
            let found = found.get(tag).map(|found| if is_uncertain { &expected } else { found });
            assert_eq!(found, Some(&expected), "{} {tag}", table.name);
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", self.story.join("\n"));
        }
    }
}

/// The rows of a table by their tags, each with what is not NULL of it; what it references has its tag as well. Its full-text index
/// has the same rows.
fn content(agent: &mut Agent, table: &Table) -> BTreeMap<String, BTreeMap<String, String>> {
    let name = &table.name;
    let mut columns: Vec<String> = table.columns.iter().map(|(column, ..)| column.clone()).collect();
    let mut selected = columns.clone();
    if let Some(parent) = &table.parent {
        columns.push("parent".to_owned());
        selected.push(format!("(SELECT p.tag FROM {parent} AS p WHERE p.id = t.parent)"));
    }
    let rows = agent.rows(&format!("SELECT tag, {} FROM {name} AS t", selected.join(", ")));
    let text = |value: &Value| if let Value::Text(text) = value { Some(text.clone()) } else { None };
    let mut found = BTreeMap::new();
    for row in rows {
        let cells =
            columns.iter().zip(&row[1..]).filter_map(|(column, value)| Some((column.clone(), text(value)?)));
        let tag = text(&row[0]).unwrap();
        if table.is_indexed {
            let query = format!("SELECT tag FROM {name}_fts WHERE {name}_fts MATCH '\"{tag}\"'");
            let hits: Vec<_> = agent.rows(&query).iter().filter_map(|hit| text(&hit[0])).collect();
            assert!(hits.contains(&tag), "{name}_fts has no {tag}");
        }
        assert!(found.insert(tag.clone(), cells.collect()).is_none(), "{name} has {tag} twice");
    }
    found
}

#[test]
fn whoever_installs_which_release_when_all_end_with_the_same_rows() {
    let first = asked_for("FEDERATION_SEED").unwrap_or(1);
    let count = asked_for("FEDERATION_SEEDS").unwrap_or(if first > 1 { 1 } else { 40 });
    for seed in first..first + count {
        let mut run = Run::new(seed);
        for at in 0..60 {
            run.step(at);
        }
        run.end();
    }
}
