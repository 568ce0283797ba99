//! What came of proving a tenant's definitions. Proofs of all of them are most of what reading its rules takes, and when
//! these change, all but a few are as they were.

use std::collections::HashMap;

use crate::model::TableSchema;
use crate::storage::scratch::prove_harmless;

/// What came of it, by table.
#[derive(Default)]
pub struct Proofs(HashMap<i64, (TableSchema, bool)>);

impl Proofs {
    /// Whether a table's definition is what it claims ([`prove_harmless`]).
    pub fn is_harmless(&mut self, table: i64, schema: &TableSchema) -> bool {
        match self.0.get(&table) {
            Some((known, is_harmless)) if known == schema => *is_harmless,
            _ => {
                let is_harmless = prove_harmless(schema).is_ok();
                self.0.insert(table, (schema.clone(), is_harmless));
                is_harmless
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
        let evil = TableSchema { indexes: vec!["DROP TABLE notes".into()], ..notes.clone() };
        for (schema, is_harmless) in
            [(&notes, true), (&notes, true), (&evil, false), (&evil, false), (&notes, true)]
        {
            assert_eq!(proofs.is_harmless(1, schema), is_harmless);
        }
    }
}
