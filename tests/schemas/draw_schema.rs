//! Drawing a schema.

use crate::dice::Dice;
use crate::draw_rules;
use crate::draw_search;
use crate::features::{Feature, Features};
use crate::schema::{Column, KeyKind, Pool, Reference, Schema, Table, list, quote};

/// Milliseconds since the epoch, as the capture triggers read them: a clock that the test rules.
const NOW: &str = "CAST((julianday('now') - 2440587.5) * 86400000.0 + 0.5 AS INTEGER)";

/// Draws a schema.
pub fn draw(dice: &mut Dice, features: &Features) -> Schema {
    let mut schema = Schema::default();
    let count = 1 + dice.below(if features.has(Feature::Dense) { 3 } else { 6 });
    for at in 0..count {
        let name = dice.pick(&["t", "T", "order ", "say \"hi\" "]);
        let table = table(dice, features, &schema, format!("{name}{at}"));
        schema.tables.push(table);
    }
    if features.has(Feature::Cycles) {
        close_cycles(dice, features, &mut schema);
    }
    if features.has(Feature::Unique) || features.has(Feature::UniqueIndexes) {
        for table in &mut schema.tables {
            unique(dice, features, table);
            if table.references.iter().any(|reference| reference.parent == table.name) {
                // SQLite does not see that a row which replaces another one, and references it over SET NULL, leads nowhere.
                for clause in &mut table.unique {
                    *clause = clause.replace(" ON CONFLICT REPLACE", "");
                }
            }
        }
    }
    if features.has(Feature::UniqueReferences) {
        references_to_unique(dice, features, &mut schema);
    }
    if features.has(Feature::Triggers) {
        triggers(dice, &mut schema);
    }
    if features.has(Feature::LateRules) {
        draw_rules::add_late(dice, &mut schema);
    }
    if features.has(Feature::Rules) {
        draw_rules::add(dice, &mut schema);
    }
    if features.has(Feature::Search) {
        draw_search::add(dice, features, &mut schema);
    }
    if features.has(Feature::Apart) {
        draw_rules::add_apart(dice, &mut schema);
    }
    schema
}

fn table(dice: &mut Dice, features: &Features, schema: &Schema, name: String) -> Table {
    let mut table = Table { name, ..Table::default() };
    key(dice, features, schema, &mut table);
    if features.has(Feature::LongKeys) && !table.kind.is_number() && dice.chance(70) {
        lengthen_key(dice, &mut table);
    }
    for at in 0..=dice.below(3) {
        let column = plain(dice, format!("c{at}"));
        table.columns.push(column);
    }
    for at in 0..dice.below(4) {
        let Some(parent) = dice.below(schema.tables.len() + 1).checked_sub(1) else { continue };
        let parent = &schema.tables[parent];
        if is_allowed(features, parent) {
            let is_required = dice.chance(35);
            reference(dice, features, &mut table, parent, &format!("r{at}"), is_required);
        }
    }
    if dice.chance(if features.has(Feature::GeneratedKeys) { 80 } else { 25 }) {
        let of = table.columns.iter().find(|column| matches!(column.pool, Pool::Text | Pool::Integer));
        if let Some(of) = of.map(|column| quote(&column.name)) {
            let kind = dice.pick(&["STORED", "VIRTUAL"]);
            let clauses = format!("TEXT GENERATED ALWAYS AS (lower({of}) || '!') {kind}");
            table.columns.push(Column {
                name: "made".into(),
                clauses,
                pool: Pool::Generated,
                is_required: false,
            });
        }
    }
    table
}

/// Draws the columns of the PRIMARY KEY.
fn key(dice: &mut Dice, features: &Features, schema: &Schema, table: &mut Table) {
    let kinds =
        [(35, "number"), (25, "autoincrement"), (14, "text"), (6, "blob"), (14, "both"), (6, "integer")];
    let kind = dice.weighed(&kinds);
    let parents: Vec<&Table> = schema.tables.iter().filter(|parent| is_allowed(features, parent)).collect();
    let inherits = features.has(Feature::InheritedKeys) && !parents.is_empty() && dice.chance(40);
    let natural = if dice.chance(40) { KeyKind::WithoutRowid } else { KeyKind::Natural };
    let mut own = |name: &str, clauses: &str, pool: Pool| {
        table.columns.push(Column {
            name: name.into(),
            clauses: clauses.into(),
            pool,
            is_required: pool != Pool::Number,
        });
        table.key.push(name.into());
    };
    match kind {
        "number" | "autoincrement" => {
            let numbered: Vec<&&Table> = parents.iter().filter(|parent| parent.kind.is_number()).collect();
            let inherits = inherits && !numbered.is_empty();
            // The last number there is, inherited, would end an AUTOINCREMENT table: others set that row aside.
            let is_plain = kind == "number" || inherits && features.has(Feature::HugeNumbers);
            table.kind = if is_plain { KeyKind::Number } else { KeyKind::Autoincrement };
            if inherits {
                let parent = dice.pick(&numbered);
                own("id", "INTEGER", Pool::Reference);
                let clauses = clauses(dice, features, true);
                table.references.push(Reference {
                    columns: vec!["id".into()],
                    parent: parent.name.clone(),
                    to: parent.key.clone(),
                    clauses,
                    names_columns: dice.chance(70),
                });
            } else {
                own("id", "INTEGER", Pool::Number);
            }
        }
        "text" => {
            let collation =
                if features.has(Feature::CollatedKeys) && dice.chance(50) { " COLLATE NOCASE" } else { "" };
            table.kind = natural;
            own("name", &format!("TEXT NOT NULL{collation}"), Pool::Text);
        }
        "blob" => {
            table.kind = natural;
            own("hash", "BLOB NOT NULL", Pool::Blob);
        }
        "integer" => {
            // Either way no alias of the rowid: an integer that means the same everywhere.
            table.kind = natural;
            let is_rowid = natural == KeyKind::Natural;
            own("code", if is_rowid { "INT NOT NULL" } else { "INTEGER NOT NULL" }, Pool::Integer);
        }
        _ => {
            table.kind = natural;
            own("a", "TEXT NOT NULL", Pool::Text);
            if inherits {
                let parent = *dice.pick(&parents);
                let first = table.columns.len();
                reference(dice, features, table, parent, "p", true);
                table.key.extend(table.columns[first..].iter().map(|column| column.name.clone()));
            } else {
                let clauses: &str = dice.pick::<&str>(&["NOT NULL", "INTEGER NOT NULL"]);
                own("b", clauses, Pool::Integer);
            }
        }
    }
}

/// Gives a key further columns, of which an application seldom says anything, so that rows meet all the same.
fn lengthen_key(dice: &mut Dice, table: &mut Table) {
    let width = 5 + dice.below(12);
    for at in table.key.len()..width {
        let name = format!("k{at}");
        let clauses =
            (*dice.pick(&["NOT NULL DEFAULT 0", "INTEGER NOT NULL DEFAULT 0", "TEXT NOT NULL DEFAULT '0'"]))
                .into();
        table.columns.push(Column { name: name.clone(), clauses, pool: Pool::Part, is_required: false });
        table.key.push(name);
    }
}

fn is_allowed(features: &Features, parent: &Table) -> bool {
    match (parent.kind.is_number(), parent.key.len()) {
        (true, _) => features.has(Feature::References),
        (false, 1) => features.has(Feature::NaturalReferences),
        _ => features.has(Feature::CompositeReferences),
    }
}

/// Adds a foreign key with columns of its own.
fn reference(
    dice: &mut Dice,
    features: &Features,
    table: &mut Table,
    parent: &Table,
    name: &str,
    is_required: bool,
) {
    let mut columns = Vec::new();
    for (at, to) in parent.key.iter().enumerate() {
        let name = if at == 0 { name.to_owned() } else { format!("{name}_{at}") };
        let kind = parent.column(to).map_or("", |column| column.clauses.split(' ').next().unwrap_or(""));
        let kind = if kind == "NOT" { "" } else { kind };
        let clauses = format!("{kind}{}", if is_required { " NOT NULL" } else { "" });
        table.columns.push(Column { name: name.clone(), clauses, pool: Pool::Reference, is_required });
        columns.push(name);
    }
    let clauses = clauses(dice, features, is_required);
    table.references.push(Reference {
        columns,
        parent: parent.name.clone(),
        to: parent.key.clone(),
        clauses,
        names_columns: dice.chance(70),
    });
}

/// The clauses of a foreign key; SET NULL and SET DEFAULT of a required one too, for which no row can live.
fn clauses(dice: &mut Dice, features: &Features, is_required: bool) -> String {
    let mut clauses = String::new();
    if features.has(Feature::Actions) {
        let unless_required = if is_required { 3 } else { 20 };
        clauses.push_str(dice.weighed(&[
            (25, ""),
            (30, " ON DELETE CASCADE"),
            (unless_required, " ON DELETE SET NULL"),
            (unless_required / 2, " ON DELETE SET DEFAULT"),
            (15, " ON DELETE RESTRICT"),
            (5, " ON DELETE NO ACTION"),
        ]));
        clauses.push_str(dice.weighed(&[(70, ""), (30, " ON UPDATE CASCADE")]));
    }
    clauses.push_str(dice.weighed(&[(80, ""), (20, " DEFERRABLE INITIALLY DEFERRED")]));
    clauses
}

/// A column that stands for itself.
fn plain(dice: &mut Dice, name: String) -> Column {
    let (clauses, pool, is_required): (&str, Pool, bool) = *dice.pick(&[
        ("TEXT", Pool::Text, false),
        ("TEXT NOT NULL", Pool::Text, true),
        ("TEXT NOT NULL DEFAULT 'none'", Pool::Text, false),
        ("TEXT COLLATE NOCASE", Pool::Text, false),
        ("TEXT CHECK(length({}) < 3)", Pool::Text, false),
        ("INTEGER", Pool::Integer, false),
        ("INTEGER NOT NULL DEFAULT 7", Pool::Integer, false),
        ("INTEGER NOT NULL CHECK({} >= 0)", Pool::Integer, true),
        ("REAL", Pool::Real, false),
        ("REAL DEFAULT 0.5", Pool::Real, false),
        ("BLOB", Pool::Blob, false),
        ("", Pool::Any, false),
        ("NUMERIC", Pool::Any, false),
        ("DATETIME DEFAULT CURRENT_TIMESTAMP", Pool::Clock, false),
        ("INTEGER NOT NULL DEFAULT (NOW)", Pool::Clock, false),
    ]);
    let clauses = clauses.replace("{}", &quote(&name)).replace("NOW", NOW);
    Column { name, clauses, pool, is_required }
}

/// References of a table to itself, and to tables that were drawn later.
fn close_cycles(dice: &mut Dice, features: &Features, schema: &mut Schema) {
    for at in 0..schema.tables.len() {
        if !dice.chance(50) {
            continue;
        }
        let parent = at + dice.below(schema.tables.len() - at);
        let parent = schema.tables[parent].clone();
        if is_allowed(features, &parent) {
            reference(dice, features, &mut schema.tables[at], &parent, "loop", false);
        }
    }
}

fn unique(dice: &mut Dice, features: &Features, table: &mut Table) {
    let is_candidate = |column: &&Column| {
        let is_of_use = match column.pool {
            Pool::Number | Pool::Clock => false,
            Pool::Generated => features.has(Feature::GeneratedKeys),
            _ => true,
        };
        is_of_use && !table.key.contains(&column.name)
    };
    let mut candidates: Vec<String> =
        table.columns.iter().filter(is_candidate).map(|column| column.name.clone()).collect();
    if candidates.is_empty() {
        return;
    }
    if let Some(made) = candidates.iter().position(|name| name == "made").filter(|_| dice.chance(60)) {
        candidates = vec![candidates.swap_remove(made)];
    }
    if features.has(Feature::Unique) && dice.chance(50) {
        let mut columns = vec![dice.pick(&candidates).clone()];
        let other = dice.pick(&candidates);
        if dice.chance(40) && !columns.contains(other) {
            columns.push(other.clone());
        }
        let clause = dice.weighed(&[(80, ""), (10, " ON CONFLICT REPLACE"), (10, " ON CONFLICT IGNORE")]);
        table.unique.push(format!("UNIQUE({}){clause}", list(&columns)));
    }
    if features.has(Feature::UniqueIndexes) && dice.chance(50) {
        let column = quote(dice.pick::<String>(&candidates));
        let (name, on) = (quote(&format!("one {}", table.name)), quote(&table.name));
        let what = dice.weighed(&[
            (1, "({})"),
            (1, "({} COLLATE NOCASE)"),
            (1, "(lower({}))"),
            (1, "({}) WHERE {} > 'a'"),
            (1, "({}) WHERE {} IS NOT NULL AND {} <> 'b'"),
        ]);
        let what = what.replace("{}", &column);
        table.indexes.push(format!("CREATE UNIQUE INDEX {name} ON {on}{what}"));
    }
}

/// References to a column that is no key, and UNIQUE.
fn references_to_unique(dice: &mut Dice, features: &Features, schema: &mut Schema) {
    for at in 1..schema.tables.len() {
        let parent = schema.tables[dice.below(at)].clone();
        let is_unique = |column: &&Column| {
            let constraint = format!("UNIQUE({})", quote(&column.name));
            parent.unique.iter().any(|unique| unique.starts_with(&constraint))
        };
        let Some(to) = parent.columns.iter().find(is_unique).filter(|_| dice.chance(50)) else { continue };
        let kind = to.clauses.split(' ').next().filter(|kind| *kind != "NOT").unwrap_or("");
        let table = &mut schema.tables[at];
        table.columns.push(Column {
            name: "named".into(),
            clauses: kind.into(),
            pool: Pool::Reference,
            is_required: false,
        });
        table.references.push(Reference {
            columns: vec!["named".into()],
            parent: parent.name.clone(),
            to: vec![to.name.clone()],
            clauses: clauses(dice, features, false),
            names_columns: true,
        });
    }
}

fn triggers(dice: &mut Dice, schema: &mut Schema) {
    let with_log = dice.chance(50);
    for table in &mut schema.tables {
        let (name, on) = (&table.name, quote(&table.name));
        let trigger = |what: &str| quote(&format!("{what} {name}"));
        if dice.chance(50) {
            let set = dice.pick(&["updated_at + 1", NOW]);
            let same: Vec<String> =
                table.key.iter().map(|column| format!("{0} = NEW.{0}", quote(column))).collect();
            table.triggers.push(format!(
                "CREATE TRIGGER {} AFTER UPDATE ON {on} BEGIN UPDATE {on} SET updated_at = {set} WHERE {}; END",
                trigger("touch"),
                same.join(" AND ")
            ));
            table.columns.push(Column {
                name: "updated_at".into(),
                clauses: "INTEGER NOT NULL DEFAULT 0".into(),
                pool: Pool::Clock,
                is_required: false,
            });
        }
        if dice.chance(25) {
            table.triggers.push(format!(
                "CREATE TRIGGER {} BEFORE INSERT ON {on} WHEN (SELECT count(*) FROM {on}) >= 6 \
                 BEGIN SELECT RAISE(ABORT, 'enough'); END",
                trigger("refuse")
            ));
        }
        if with_log && dice.chance(60) {
            let (event, row) =
                dice.weighed(&[(3, ("INSERT", "NEW")), (1, ("UPDATE", "NEW")), (1, ("DELETE", "OLD"))]);
            table.triggers.push(format!(
                "CREATE TRIGGER {} AFTER {event} ON {on} BEGIN \
                 INSERT INTO audit(what) VALUES('{event} ' || {row}.{}); END",
                trigger("audit"),
                quote(&table.columns.iter().find(|column| column.name.starts_with('c')).unwrap().name)
            ));
        }
    }
    if with_log {
        schema.tables.push(Table {
            name: "audit".into(),
            columns: ["id", "what", "at"]
                .iter()
                .zip([("INTEGER", Pool::Number), ("TEXT", Pool::Text), ("", Pool::Clock)])
                .map(|(name, (clauses, pool))| Column {
                    name: (*name).into(),
                    clauses: if *name == "at" { format!("INTEGER DEFAULT ({NOW})") } else { clauses.into() },
                    pool,
                    is_required: false,
                })
                .collect(),
            key: vec!["id".into()],
            kind: KeyKind::Autoincrement,
            ..Table::default()
        });
    }
}
