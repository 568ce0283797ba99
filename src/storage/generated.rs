//! Generated columns: what they are made of, which no pragma tells.

use std::collections::HashMap;

use super::driver::{Sql, SqlError};
use super::fields::Fields;
use super::sql_text::{Token, first_list, names, span, tokens};

/// The columns of a table, as far as one can be made of others.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct TableColumns {
    names: Vec<String>,
    /// The generated ones, with the expression that makes them.
    generated: Vec<(String, String)>,
}

/// The columns of tables, by the tables' names.
pub type ColumnsOfTables = HashMap<String, TableColumns>;

impl TableColumns {
    /// The columns of each table of `main`, by the table's name.
    ///
    /// # Errors
    /// SQLite's.
    pub fn read(sql: &mut dyn Sql) -> Result<ColumnsOfTables, SqlError> {
        let mut tables = ColumnsOfTables::new();
        sql.query(
            "SELECT m.name, x.name, x.hidden IN (2, 3), CASE WHEN x.hidden IN (2, 3) THEN m.sql END \
             FROM main.sqlite_master AS m, pragma_table_xinfo(m.name, 'main') AS x \
             WHERE m.type = 'table' AND m.rootpage",
            &[],
            &mut |row| {
                let mut fields = Fields::of(row);
                let table = tables.entry(fields.text()?).or_default();
                table.names.push(fields.text()?);
                let is_generated = fields.integer()? != 0;
                if is_generated && table.generated.is_empty() {
                    table.generated = expressions(&fields.text()?);
                }
                Ok(())
            },
        )?;
        Ok(tables)
    }

    /// What columns of these names hold in the end: columns that are written, and the generated ones among them
    /// or that those are made of, with their expressions; one that reads another comes after it. Names that are
    /// no columns are left out.
    pub fn behind(&self, read: &[String]) -> (Vec<String>, Vec<(String, String)>) {
        let (mut seen, mut generated) = (Vec::new(), Vec::new());
        for name in read {
            self.follow(name, &mut seen, &mut generated);
        }
        let is_written = |name: &String| generated.iter().all(|(made, _)| made != name);
        (seen.into_iter().filter(is_written).collect(), generated)
    }

    /// `seen` is what has been followed already.
    fn follow(&self, name: &str, seen: &mut Vec<String>, generated: &mut Vec<(String, String)>) {
        let Some(column) = self.names.iter().find(|column| column.eq_ignore_ascii_case(name)) else { return };
        if seen.contains(column) {
            return;
        }
        seen.push(column.clone());
        if let Some((_, expression)) = self.generated.iter().find(|(made, _)| made.eq_ignore_ascii_case(name))
        {
            for read in names(expression) {
                self.follow(&read, seen, generated);
            }
            generated.push((column.clone(), expression.clone()));
        }
    }
}

/// How long the generated columns of a `CREATE TABLE` are when all are written out over stored ones, in mentions of columns.
/// SQLite does write them out: a chain in which each mentions the one before it twice is small, and keeps it busy for ever.
pub fn written_out(ddl: &str) -> u64 {
    let generated: HashMap<String, Vec<String>> = expressions(ddl)
        .into_iter()
        .map(|(name, expression)| (name.to_lowercase(), names(&expression)))
        .collect();
    let mut known = HashMap::new();
    generated.keys().fold(0, |sum: u64, name| sum.saturating_add(length_of(name, &generated, &mut known)))
}

fn length_of(name: &str, generated: &HashMap<String, Vec<String>>, known: &mut HashMap<String, u64>) -> u64 {
    let name = name.to_lowercase();
    let Some(mentioned) = generated.get(&name) else { return 1 };
    if let Some(length) = known.get(&name) {
        return *length;
    }
    // A column that is made of itself ends here, and at SQLite.
    known.insert(name.clone(), 1);
    let length = mentioned.iter().fold(1, |sum: u64, it| sum.saturating_add(length_of(it, generated, known)));
    known.insert(name, length);
    length
}

/// The generated columns of a `CREATE TABLE`, with their expressions.
pub fn expressions(ddl: &str) -> Vec<(String, String)> {
    let tokens = tokens(ddl).unwrap_or_default();
    let (columns, _) = first_list(&tokens).unwrap_or_default();
    columns.into_iter().filter_map(|column| expression(ddl, column)).collect()
}

fn expression(ddl: &str, column: &[Token<'_>]) -> Option<(String, String)> {
    let name = column.first()?.name()?;
    let mut depth = 0_usize;
    let at = column.iter().position(|token| {
        if token.is("(") {
            depth += 1;
        } else if token.is(")") {
            depth -= 1;
        }
        depth == 0 && token.is("AS")
    })?;
    let (_, rest) = first_list(&column[at..])?;
    let inner = column.get(at + 2..column.len() - rest.len() - 1)?;
    Some((name, span(ddl, inner)?.to_owned()))
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;
    use crate::storage::sqlite_driver::RusqliteSql;

    fn behind(ddl: &str, read: &[&str]) -> (Vec<String>, Vec<(String, String)>) {
        let mut sql = RusqliteSql::new(Connection::open_in_memory().unwrap());
        sql.run(ddl).unwrap();
        let read: Vec<String> = read.iter().map(|&name| name.to_owned()).collect();
        TableColumns::read(&mut sql).unwrap()["t"].behind(&read)
    }

    #[test]
    fn a_chain_is_as_long_as_what_it_stands_for() {
        let long = |columns: &str| written_out(&format!("CREATE TABLE t(a TEXT, {columns})"));
        assert_eq!(long("b"), 0);
        assert_eq!(
            long("b AS (a), \"c\" TEXT GENERATED ALWAYS AS (b || B || 'b' || lower(a)) STORED"),
            2 + 6
        );
        assert_eq!(long("b AS (c), c AS (b)"), 5, "SQLite refuses it");
        let doubled: Vec<_> = (1..100).map(|n| format!("g{n} AS (g{0} || g{0})", n - 1)).collect();
        assert_eq!(long(&format!("g0 AS (a), {}", doubled.join(", "))), u64::MAX);
    }

    #[test]
    fn a_generated_column_is_followed_to_what_is_written() {
        let ddl = "CREATE TABLE t(a TEXT CHECK(CAST(a AS INT) > 0), \"b,c\" DEFAULT (lower('x')),
             d TEXT COLLATE NOCASE GENERATED ALWAYS AS (replace(E, ')', \"b,c\") /* ) */) STORED,
             e AS (lower(A)) UNIQUE, f AS(1), UNIQUE(a, d));
             ALTER TABLE t ADD COLUMN g INT AS (f + (2))";
        let made = |name: &str, expression: &str| (name.to_owned(), expression.to_owned());
        let (written, generated) = behind(ddl, &["D", "nothing", "a"]);
        assert_eq!(written, ["a", "b,c"]);
        assert_eq!(generated, [made("e", "lower(A)"), made("d", "replace(E, ')', \"b,c\")")]);
        assert_eq!(behind(ddl, &["g"]), (vec![], vec![made("f", "1"), made("g", "f + (2)")]));
        assert_eq!(behind(ddl, &["b,c"]), (vec!["b,c".to_owned()], vec![]));
    }
}
