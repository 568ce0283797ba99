//! Which indexes are the tenant's: those that are declared, and that no row contradicted when they came.

use std::collections::BTreeSet;

use federation_hub::model::{ReplicaId, TableSchema};
use rusqlite::Connection;

use super::tenant::Tenant;

impl Tenant {
    /// Settles the tables of which a replica declares something else than before.
    pub(super) fn settle(&mut self, before: &[TableSchema], now: &[TableSchema]) {
        let of = |schema: &[TableSchema], table: &str| {
            schema.iter().find(|it| it.name.eq_ignore_ascii_case(table)).map(|it| it.indexes.clone())
        };
        let mut changed = BTreeSet::new();
        for table in self.tables.keys().cloned().collect::<Vec<_>>() {
            if of(before, &table) != of(now, &table) && self.settle_table(&table) {
                changed.insert(table);
            }
        }
        if !changed.is_empty() {
            self.look_again(&changed);
        }
    }

    /// A replica's batch may have made room for an index that it declares.
    pub(super) fn make_room(&mut self, replica: ReplicaId) {
        let declared = self.declared.get(&replica).cloned().unwrap_or_default();
        let mut changed = BTreeSet::new();
        for schema in &declared {
            let table = schema.name.to_ascii_lowercase();
            for index in &schema.indexes {
                if !self.tables[&table].indexes.contains(index) && self.may_stand(&table, index) {
                    self.tables.get_mut(&table).unwrap().indexes.push(index.clone());
                    changed.insert(table.clone());
                }
            }
        }
        if !changed.is_empty() {
            self.look_again(&changed);
        }
    }

    fn settle_table(&mut self, table: &str) -> bool {
        let all = self.declared.values().flatten();
        let declared: Vec<&TableSchema> = all.filter(|it| it.name.eq_ignore_ascii_case(table)).collect();
        let is_declared = |index: &String| declared.iter().any(|it| it.indexes.contains(index));
        let stood = self.tables[table].indexes.clone();
        let mut stand: Vec<String> = stood.clone();
        stand.retain(|index| declared.is_empty() || is_declared(index));
        let others: BTreeSet<String> = declared.iter().flat_map(|it| it.indexes.clone()).collect();
        for index in others {
            if !stand.contains(&index) && self.may_stand(table, &index) {
                stand.push(index);
            }
        }
        let changed = stand != stood;
        self.tables.get_mut(table).unwrap().indexes = stand;
        changed
    }

    /// Whether no two rows that are told have one key of this index.
    fn may_stand(&self, table: &str, index: &str) -> bool {
        let sqlite = Connection::open_in_memory().unwrap();
        sqlite.execute_batch(&self.tables[table].ddl).unwrap();
        if sqlite.execute_batch(index).is_err() {
            return false;
        }
        let known = self.schema.unique.get(table).cloned().unwrap_or_default();
        for unique in self.keys().read(&sqlite, &self.tables[table].name) {
            if known.contains(&unique) {
                continue;
            }
            let rows = self.rows().iter().filter(|(row, _)| row.0 == table);
            let keys = rows.filter_map(|(_, row)| self.keys().key_of(&unique, &|column| row.get(column)));
            let mut seen = BTreeSet::new();
            if keys.into_iter().any(|key| !seen.insert(key)) {
                return false;
            }
        }
        true
    }
}
