//! Virtual tables: no table of ours, and perhaps none that can be used here. Whoever opens a file may lack the module
//! that makes one, or what that module wants to find; SQLite then refuses whatever so much as asks for its columns.

use super::choice::SyncOptions;
use super::driver::{Sql, SqlError, SqlErrorKind};
use super::index_parts::{Belongs, belongs, is_libsqls};
use super::sql_text::{Token, tokens};

/// Why a virtual table, and what belongs to one, is not shared.
const PART: &str = "a virtual table, or part of one";

/// What a database has for searching, and what no other database can use.
#[derive(Debug, Default)]
pub struct SearchIndexes {
    /// Its virtual tables.
    pub virtual_tables: Vec<VirtualTable>,
    /// What those keep their rows in, as far as SQLite knows.
    pub shadows: Vec<String>,
    /// The names of libsql's vector indexes.
    pub vector_indexes: Vec<String>,
}

impl SearchIndexes {
    /// Why a table is none of the application's, if it is none: what it holds is an index over other rows.
    pub fn why_part(&self, name: &str, options: &SyncOptions) -> Option<String> {
        if self.shadows.iter().any(|other| other == name) {
            return Some(PART.into());
        }
        if is_libsqls(name, self.vector_indexes.iter()) {
            return Some("part of a vector index".into());
        }
        let mut perhaps = None;
        for table in &self.virtual_tables {
            // Where SQLite knows some of its parts, it knows all.
            let is_known = || self.shadows.iter().any(|it| belongs(it, &table.name, &table.module).is_some());
            match belongs(name, &table.name, &table.module) {
                Some(Belongs::Surely) => return Some(PART.into()),
                Some(Belongs::Perhaps) if !is_known() => perhaps = Some(table),
                _ => {}
            }
        }
        let table = perhaps.filter(|_| !options.names(name))?;
        Some(format!(
            "by its name it may be part of the virtual table {}, and what the module {} keeps is not known here; name \
             it in tables.include to share it",
            table.name, table.module
        ))
    }
}

/// A virtual table of an application's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualTable {
    /// Its name.
    pub name: String,
    /// The module that makes it.
    pub module: String,
    /// Why it cannot be used here, in SQLite's words, if it cannot.
    pub fault: Option<String>,
}

impl VirtualTable {
    /// Looks whether one of this definition can be used here.
    ///
    /// # Errors
    /// Those that say nothing of the virtual table, such as a lock.
    pub fn look_at(sql: &mut dyn Sql, name: String, definition: &str) -> Result<Self, SqlError> {
        let found = sql.query_row("SELECT 1 FROM pragma_table_xinfo(?, 'main')", &[name.as_str().into()]);
        let fault = match found {
            Ok(_) => None,
            Err(error) if matches!(error.kind, SqlErrorKind::Other | SqlErrorKind::Statement) => {
                Some(error.message)
            }
            Err(error) => return Err(error),
        };
        Ok(Self { name, module: module_of(definition).unwrap_or_default(), fault })
    }

    /// Why it is not shared.
    pub fn reason(&self) -> String {
        match &self.fault {
            None => PART.into(),
            Some(fault) => format!("a virtual table that cannot be used here: {fault}"),
        }
    }

    /// What is to be said of an index that cannot be used here, and that triggers are to keep; each with its table and
    /// its text. They do not run for what a sync brings.
    pub fn out_of_date<'t>(
        &self,
        triggers: impl Iterator<Item = (&'t str, &'t str, &'t str)>,
    ) -> Option<String> {
        let fault = self.fault.as_ref()?;
        let names = |text: &str| {
            let tokens = tokens(text).unwrap_or_default();
            tokens.iter().filter_map(Token::name).any(|name| name.eq_ignore_ascii_case(&self.name))
        };
        let keeping: Vec<String> = triggers
            .filter(|(_, _, text)| names(text))
            .map(|(table, trigger, _)| format!("{trigger} of {table}"))
            .collect();
        (!keeping.is_empty()).then(|| {
            format!(
                "the virtual table {} cannot be used here ({fault}): it does not have what a sync brings, which \
                 triggers would put there: {}",
                self.name,
                keeping.join(", ")
            )
        })
    }
}

/// The module in `CREATE VIRTUAL TABLE … USING module(…)`.
fn module_of(definition: &str) -> Option<String> {
    let tokens = tokens(definition)?;
    let using = tokens.iter().position(|token| token.is("USING"))?;
    tokens.get(using + 1)?.name()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_is_read_from_the_definition() {
        for definition in [
            "CREATE VIRTUAL TABLE t USING fts5(a)",
            "CREATE VIRTUAL TABLE \"USING\" using\n\"fts5\"(a)",
            "CREATE VIRTUAL TABLE [a using b] /* USING x */ USING fts5",
        ] {
            assert_eq!(module_of(definition).as_deref(), Some("fts5"), "{definition}");
        }
        assert_eq!(module_of("CREATE VIRTUAL TABLE t"), None);
    }
}
