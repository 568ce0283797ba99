//! What came of proving a tenant's definitions. Proofs of all of them are most of what reading its rules takes, and when
//! these change, all but a few are as they were. Those that stand were proved when they were declared; a file that an
//! earlier release has written may have others.

use std::collections::HashMap;

use crate::model::TableSchema;
use crate::storage::fitting::fitting;

/// What came of it, by table.
#[derive(Default)]
pub struct Proofs(HashMap<i64, (TableSchema, Option<TableSchema>)>);

impl Proofs {
    /// A table's definition as far as it is what it claims ([`fitting`]); none if the table is not.
    pub fn harmless(&mut self, table: i64, schema: &TableSchema) -> Option<TableSchema> {
        match self.0.get(&table) {
            Some((known, harmless)) if known == schema => harmless.clone(),
            _ => {
                let harmless = fitting(schema).ok().map(|(harmless, _)| harmless);
                self.0.insert(table, (schema.clone(), harmless.clone()));
                harmless
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Agreement, KeyKind};

    /// Breaks if a definition is taken for harmless because the one before it was.
    #[test]
    fn a_definition_that_has_changed_is_proved_again() {
        let mut proofs = Proofs::default();
        let notes = TableSchema {
            name: "notes".into(),
            key: KeyKind::Natural,
            columns: vec!["id".into()],
            ddl: "CREATE TABLE notes(id TEXT PRIMARY KEY)".into(),
            indexes: vec![],
            agreed: Agreement { key_columns: vec!["id".into()], ..Agreement::default() },
        };
        let evil = TableSchema { ddl: "DROP TABLE notes".into(), ..notes.clone() };
        let partly = TableSchema { indexes: vec!["DROP TABLE notes".into()], ..notes.clone() };
        for (schema, harmless) in [
            (&notes, Some(&notes)),
            (&notes, Some(&notes)),
            (&evil, None),
            (&evil, None),
            (&partly, Some(&notes)),
            (&notes, Some(&notes)),
        ] {
            assert_eq!(proofs.harmless(1, schema).as_ref(), harmless);
        }
    }
}
