//! Tables, as agents declare them: of each number the same one each time, but for what is declared in contradiction to it.

use federation_hub::model::{
    AgreedReference, Agreement, Hlc, KeyKind, NeedsApplication, Origin, Rule, TableSchema, Value,
};
use federation_hub::protocol::limits::{MAX_COLUMNS, MAX_KEY_COLUMNS, MAX_SCHEMA_BYTES, MAX_TABLES};

use super::dice::Dice;

/// The longest of a definition's texts that is no column, in bytes.
const MAX_COMMENT_BYTES: usize = MAX_SCHEMA_BYTES / 8;

/// Indexes of one table, about.
const MAX_INDEXES: usize = 256;

/// What a declaration of several tables says.
pub fn declaration(dice: &mut Dice) -> Vec<TableSchema> {
    // Those that are wrong are more than a tenant may have.
    let count =
        if dice.is_wrong { MAX_TABLES + 1 + dice.size(MAX_TABLES) } else { 1 + dice.size(MAX_TABLES - 1) };
    let contradicts = dice.once_in(3);
    (0..count)
        .map(|_| {
            let number = if count > MAX_TABLES / 4 { dice.usize(..2 * MAX_TABLES) } else { number(dice) };
            let is_other = contradicts && dice.once_in(2);
            table(number, is_other, dice)
        })
        .collect()
}

/// The number of one of the tables; small ones often.
pub fn number(dice: &mut Dice) -> usize {
    dice.size_within(MAX_TABLES)
}

pub fn name(number: usize) -> String {
    format!("t{number}")
}

pub fn column(at: usize) -> String {
    format!("c{at}")
}

/// Whether a table's rows have numbers: every other one.
pub fn is_numbered(number: usize) -> bool {
    number.is_multiple_of(2)
}

/// The columns that each of a table's declarations has, at least.
pub fn columns(number: usize) -> usize {
    const COUNTS: [usize; 8] = [4, 5, 4, 8, 4, 16, 6, 40];
    COUNTS[number / 2 % COUNTS.len()]
}

/// The table that a table's second column references: every third one itself.
pub fn parent(number: usize) -> usize {
    if number.is_multiple_of(3) { number } else { number - 1 }
}

fn table(number: usize, is_other: bool, dice: &mut Dice) -> TableSchema {
    let numbered = is_numbered(number) != (is_other && dice.bool());
    let count = columns(number) + if dice.once_in(4) { dice.size(MAX_COLUMNS + 8) } else { 0 };
    let keys = match (numbered, is_other) {
        (true, _) => 0,
        (false, true) => 1 + dice.size(MAX_KEY_COLUMNS).min(count - 1),
        (false, false) => 1,
    };
    let key = if numbered { KeyKind::Number } else { KeyKind::Natural };
    TableSchema {
        name: name(number),
        key,
        columns: (0..count).map(column).collect(),
        ddl: ddl(number, (keys, count), is_other, dice),
        indexes: indexes(number, count, dice),
        agreed: Agreement {
            key_columns: (0..keys).map(column).collect(),
            is_global: is_other && numbered && dice.once_in(4),
            ..agreed(number, count, is_other, dice)
        },
    }
}

fn ddl(number: usize, (keys, count): (usize, usize), is_other: bool, dice: &mut Dice) -> String {
    let mut parts = Vec::with_capacity(count + 2);
    if keys == 0 {
        parts.push("id INTEGER PRIMARY KEY".to_owned());
    }
    for at in 0..count {
        parts.push(match at {
            1 => {
                let clauses = ["CASCADE", "SET NULL", "RESTRICT", "NO ACTION"];
                let clause = clauses[if is_other { dice.usize(..4) } else { number % 4 }];
                format!("c1 REFERENCES {} ON DELETE {clause}", name(parent(number)))
            }
            2 if number % 5 == 4 => "c2 TEXT UNIQUE COLLATE NOCASE".to_owned(),
            3 if is_other => "c3 INTEGER NOT NULL DEFAULT 7 CHECK (c3 > 0)".to_owned(),
            _ => format!("c{at} TEXT"),
        });
    }
    if keys > 0 {
        let keys: Vec<String> = (0..keys).map(column).collect();
        parts.push(format!("PRIMARY KEY ({})", keys.join(", ")));
    }
    let comment = if dice.once_in(8) {
        let bytes = dice.size(MAX_COMMENT_BYTES);
        format!("/* {} */", dice.text(bytes))
    } else {
        String::new()
    };
    // What cannot be read at all is among it.
    let end = if is_other && dice.once_in(8) { "" } else { ")" };
    format!("CREATE TABLE {}({}{comment}{end}", name(number), parts.join(", "))
}

fn indexes(number: usize, count: usize, dice: &mut Dice) -> Vec<String> {
    let many = if dice.once_in(4) { dice.size(MAX_INDEXES) } else { 0 };
    (0..many)
        .map(|at| {
            let table = name(number);
            let unique = if dice.bool() { "UNIQUE " } else { "" };
            let (first, second) = (dice.usize(..count), dice.usize(..count));
            let over = match dice.u8(..8) {
                0 => format!("lower(c{first})"),
                1 => format!("c{first} COLLATE NOCASE, c{second} DESC"),
                2 => format!("c{first}) WHERE (c{second} IS NOT NULL"),
                3 => format!("c{first} || {}c{second}", "c1 || ".repeat(dice.size(400))),
                _ => format!("c{first}"),
            };
            format!("CREATE {unique}INDEX {table}_by_{at} ON {table}({over})")
        })
        .collect()
}

fn agreed(number: usize, count: usize, is_other: bool, dice: &mut Dice) -> Agreement {
    let mut agreed = Agreement::default();
    let (_, rule) =
        Rule::NAMES[if is_other { dice.usize(..Rule::NAMES.len()) } else { number % Rule::NAMES.len() }];
    if number % 7 > 3 || is_other {
        agreed.rules.push(("c3".into(), rule));
        let many = if dice.once_in(4) { dice.size(count) } else { 0 };
        agreed.rules.extend((4..many).map(|at| (column(at), rule)));
    }
    let many = if dice.once_in(8) { dice.size(count) } else { 0 };
    for at in 0..many {
        let to = (0..=dice.size(64)).map(|_| (dice.value(), name(number_of(dice)))).collect();
        let by = if dice.bool() { Some(column(dice.usize(..count))) } else { None };
        agreed.references.push(AgreedReference { column: column(at), by, to });
    }
    let many = if dice.once_in(8) { dice.size(4 * count) } else { 0 };
    agreed.origins.extend((0..many).map(|_| Origin {
        column: if dice.once_in(8) { String::new() } else { column(dice.usize(..count)) },
        generation: dice.u8(..4),
        content: column(dice.usize(..count)),
        since: if dice.bool() { Hlc(dice.u64(..)) } else { Hlc::ZERO },
    }));
    if is_other && dice.once_in(4) {
        let name = dice.size(1 << 10);
        agreed.needs_application = Some(NeedsApplication::Journal(dice.text(name)));
    }
    agreed
}

fn number_of(dice: &mut Dice) -> usize {
    dice.usize(..8)
}

/// A value for a table's first column, which is the key of those without numbers.
pub fn key(row: usize) -> Value {
    Value::Text(format!("row {row}"))
}
