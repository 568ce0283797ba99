//! What SQLite's pragmas tell of tables: columns and foreign keys.

use std::collections::HashMap;

use super::driver::{Sql, SqlError};
use super::fields::Fields;
use super::identity::fingerprint;
use crate::model::Value;

/// A row of `pragma_table_xinfo`.
pub struct RawColumn {
    /// Its name.
    pub name: String,
    /// Whether it is declared INTEGER, and nothing else.
    pub is_integer: bool,
    /// Its position in the PRIMARY KEY, from 1; 0 outside of it.
    pub key_position: i64,
    /// Whether it is computed, or hidden.
    pub is_generated: bool,
    /// The fingerprint of its default.
    pub default: u64,
    /// What becomes of a number that is stored in it.
    pub affinity: Affinity,
    /// What a REPLACE stores in it in place of NULL: the default of a NOT NULL column, as its definition words it.
    pub replacement: Option<String>,
}

/// What a column's declared type makes of an integer that is stored in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Affinity {
    /// It becomes text.
    Text,
    /// It becomes a double.
    Real,
    /// It stays an integer.
    Integer,
}

impl Affinity {
    /// SQLite's rules, in its order. Numeric columns, and those without a type, leave an integer as it is.
    fn of(declared: &str) -> Self {
        let declared = declared.to_ascii_uppercase();
        let has = |parts: &[&str]| parts.iter().any(|part| declared.contains(part));
        if has(&["INT"]) {
            Self::Integer
        } else if has(&["CHAR", "CLOB", "TEXT"]) {
            Self::Text
        } else if !has(&["BLOB"]) && has(&["REAL", "FLOA", "DOUB"]) {
            Self::Real
        } else {
            Self::Integer
        }
    }

    /// The number of a row as a column of this affinity stores it.
    pub fn stored(self, number: i64) -> Value {
        match self {
            Self::Text => Value::Text(number.to_string()),
            #[expect(clippy::cast_precision_loss, reason = "SQLite loses the same digits")]
            Self::Real => Value::Real(number as f64),
            Self::Integer => Value::Integer(number),
        }
    }

    /// The number of a row that a column of this affinity holds, if the value is one.
    pub fn number(self, value: &Value) -> Option<i64> {
        let number = match (self, value) {
            (Self::Integer, Value::Integer(number)) => *number,
            (Self::Text, Value::Text(text)) => text.parse().ok()?,
            #[expect(clippy::cast_possible_truncation, reason = "compared with what it was made of")]
            (Self::Real, Value::Real(real)) => *real as i64,
            _ => return None,
        };
        (self.stored(number) == *value).then_some(number)
    }
}

/// The columns of each table, in order.
pub fn read_columns(sql: &mut dyn Sql) -> Result<HashMap<String, Vec<RawColumn>>, SqlError> {
    let mut columns: HashMap<String, Vec<RawColumn>> = HashMap::new();
    let mut defaults = Vec::new();
    sql.query(
        "SELECT m.name, x.name, x.type, x.pk, x.hidden, x.\"notnull\", x.dflt_value \
         FROM main.sqlite_master AS m, pragma_table_xinfo(m.name, 'main') AS x \
         WHERE m.type = 'table' AND m.rootpage",
        &[],
        &mut |row| {
            let mut fields = Fields::of(row);
            let (table, name, kind) = (fields.text()?, fields.text()?, fields.text()?);
            let mut column = RawColumn {
                name,
                affinity: Affinity::of(&kind),
                is_integer: kind.eq_ignore_ascii_case("integer"),
                key_position: fields.integer()?,
                // 1 is a hidden column of a virtual table, 2 and 3 are generated columns.
                is_generated: fields.integer()? != 0,
                default: fingerprint(&Value::Null),
                replacement: None,
            };
            let is_required = fields.integer()? != 0;
            let own = columns.entry(table.clone()).or_default();
            if let Some(text) = fields.optional_text().filter(|_| !column.is_generated) {
                column.replacement = is_required.then(|| text.clone());
                defaults.push((table, own.len(), text, kind));
            }
            own.push(column);
            Ok(())
        },
    )?;
    for (table, at, text, kind) in defaults {
        if let Some(column) = columns.get_mut(&table).and_then(|own| own.get_mut(at)) {
            column.default = fingerprint(&default_value(sql, &text, &kind));
        }
    }
    Ok(columns)
}

/// A column's default as a row stores it. Only literals are looked at: the text may come from the wire, and
/// a column with another default cannot be added to a table that has rows.
pub fn default_value(sql: &mut dyn Sql, text: &str, kind: &str) -> Value {
    if !is_literal(text) {
        return Value::Null;
    }
    let converted = if kind.is_empty() { format!("({text})") } else { format!("CAST(({text}) AS {kind})") };
    // Affinity converts like CAST, but only where nothing is lost.
    let statement = format!("SELECT CASE WHEN {converted} = ({text}) THEN {converted} ELSE ({text}) END");
    match sql.query_row(&statement, &[]) {
        Ok(Some(mut row)) if !row.is_empty() => row.swap_remove(0),
        _ => Value::Null,
    }
}

/// Whether a text is one string, one blob or one number.
fn is_literal(text: &str) -> bool {
    let quoted = text.strip_prefix(['x', 'X']).unwrap_or(text);
    let inner = quoted.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
    let is_quoted = inner.is_some_and(|inner| !inner.replace("''", "").contains('\''));
    is_quoted || text.parse::<f64>().is_ok() || ["true", "false"].contains(&text.to_lowercase().as_str())
}

/// What a foreign key does to its row when the row that it references is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDelete {
    /// The row is deleted too.
    Cascade,
    /// Its columns become NULL.
    SetNull,
    /// Its columns take their defaults.
    SetDefault,
    /// The delete is refused: `RESTRICT` and `NO ACTION`.
    Refuse,
}

/// A foreign key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignKey {
    /// The table that is referenced.
    pub parent: String,
    /// Pairs of a column here and a column there; the latter is missing where the PRIMARY KEY is meant.
    pub columns: Vec<(String, Option<String>)>,
    /// What becomes of a row whose parent is deleted.
    pub on_delete: OnDelete,
}

/// The foreign keys of each table.
pub fn read_foreign_keys(sql: &mut dyn Sql) -> Result<HashMap<String, Vec<ForeignKey>>, SqlError> {
    let mut keys: HashMap<String, Vec<ForeignKey>> = HashMap::new();
    sql.query(
        "SELECT m.name, f.seq, f.\"table\", f.\"from\", f.\"to\", f.on_delete \
         FROM main.sqlite_master AS m, pragma_foreign_key_list(m.name, 'main') AS f WHERE m.type = 'table' \
         ORDER BY m.name, f.id, f.seq",
        &[],
        &mut |row| {
            let mut fields = Fields::of(row);
            let own = keys.entry(fields.text()?).or_default();
            let (position, parent) = (fields.integer()?, fields.text()?);
            let pair = (fields.text()?, fields.optional_text());
            match own.last_mut().filter(|_| position > 0) {
                Some(key) => key.columns.push(pair),
                None => own.push(ForeignKey {
                    parent,
                    columns: vec![pair],
                    on_delete: match fields.text()?.as_str() {
                        "CASCADE" => OnDelete::Cascade,
                        "SET NULL" => OnDelete::SetNull,
                        "SET DEFAULT" => OnDelete::SetDefault,
                        _ => OnDelete::Refuse,
                    },
                }),
            }
            Ok(())
        },
    )?;
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_literals_are_evaluated() {
        for literal in ["'it''s'", "''", "x'00'", "-1", "+1.5e3", "TRUE"] {
            assert!(is_literal(literal), "{literal}");
        }
        for other in
            ["'a' || zeroblob(1000000000) || 'b'", "randomblob(8)", "1 + 1", "CURRENT_TIMESTAMP", "'"]
        {
            assert!(!is_literal(other), "{other}");
        }
    }
}
