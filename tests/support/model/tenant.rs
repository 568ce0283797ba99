//! One tenant: its tables, and the history of each of its rows.

use std::collections::{BTreeMap, BTreeSet};

use federation_hub::model::{
    CellValue, Op, ReplicaId, RowChange, Rule, Seq, TableHeader, TableSchema, Write,
};

use super::claims::Claims;
use super::history::{Birth, Entry, History, RowKey, What, entries};
use super::living::Raws;
use super::raw::{Raw, is_plain};
use super::schema::Schema;
use super::unions::Unions;
use super::unique::{Key, KeyBook};
use super::{Accepted, Difference, conflicts, decision, local_effects};

/// A row as somebody new must be told of it: its cells by column.
pub type Row = BTreeMap<String, CellValue>;

/// One tenant.
#[derive(Clone, Default)]
pub struct Tenant {
    /// Its tables, by their names in lower case, as they were first declared, with the indexes that stand.
    pub(super) tables: BTreeMap<String, TableSchema>,
    /// What each replica declares.
    pub(super) declared: BTreeMap<ReplicaId, Vec<TableSchema>>,
    rows: BTreeMap<RowKey, History>,
    /// How many rows have been made.
    made: usize,
    /// Where rows died by their own writes.
    died: BTreeMap<RowKey, Seq>,
    /// What the tables' definitions say.
    pub(super) schema: Schema,
    /// The last position that anybody was told of.
    read: Seq,
    /// The last batch of each replica.
    last: BTreeMap<ReplicaId, u64>,
    /// How many batches were accepted.
    batches: usize,
    /// Unique keys.
    keys: KeyBook,
    /// What was decided about unique keys, and is told.
    claims: Claims,
}

impl Tenant {
    /// Takes in declarations: the first one of each point stands.
    pub fn declare(&mut self, replica: ReplicaId, schema: &[TableSchema]) {
        for declared in schema {
            self.declare_one(declared);
        }
        self.schema = Schema::read(&self.tables, &self.keys);
        let before = self.declared.insert(replica, schema.to_vec());
        self.settle(before.as_deref().unwrap_or_default(), schema);
    }

    /// Looks at all rows of some tables under the definitions that there are now.
    pub(super) fn look_again(&mut self, tables: &BTreeSet<String>) {
        self.schema = Schema::read(&self.tables, &self.keys);
        let touched = self.rows.keys().filter(|row| tables.contains(&row.0)).cloned().collect();
        self.batches += 1;
        self.claims = decision::decide(self, &touched, BTreeSet::new(), self.read + 1).0;
    }

    fn declare_one(&mut self, declared: &TableSchema) {
        let Some(table) = self.tables.get_mut(&declared.name.to_ascii_lowercase()) else {
            let first = TableSchema { indexes: Vec::new(), ..declared.clone() };
            self.tables.insert(declared.name.to_ascii_lowercase(), first);
            return;
        };
        // A rule comes with the first declaration of its column, or before anything was written.
        let is_used = self.rows.keys().any(|row| row.0.eq_ignore_ascii_case(&declared.name));
        let is_late = |(column, rule): &(String, Rule)| {
            let is_known = table.columns.iter().any(|known| known.eq_ignore_ascii_case(column));
            is_used && is_known && table.agreed.rule(column).is_none() && !is_plain(*rule)
        };
        // Tables that reference in another way are not modelled.
        if declared.contradiction(table).is_some() || declared.agreed.rules.iter().any(is_late) {
            return;
        }
        for column in &declared.columns {
            if !table.columns.iter().any(|known| known.eq_ignore_ascii_case(column)) {
                table.columns.push(column.clone());
            }
        }
        for (column, rule) in &declared.agreed.rules {
            if table.agreed.rule(column).is_none() {
                table.agreed.rules.push((column.clone(), *rule));
            }
        }
    }

    /// Somebody was told of everything up to this position.
    pub fn read(&mut self, cursor: Seq) {
        self.read = self.read.max(cursor);
    }

    /// Takes in a batch.
    pub fn accept(&mut self, batch: &Accepted<'_>) -> Result<(), Difference> {
        let last = self.last.entry(batch.replica).or_default();
        if batch.ack.n <= *last {
            return Ok(());
        }
        *last = batch.ack.n;
        // Nobody can have seen a part of what was accepted since the last snapshot, so that one position
        // does for all of it; and a base is a snapshot's, or that of the row itself in a later one.
        let position = self.read + 1;
        let push = (batch.replica.tie_break(), batch.sync);
        self.batches += 1;
        let (mut merged, mut touched, mut left) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        for (at, change) in (0_u32..).zip(&batch.body.rows) {
            if batch.ack.rejected.iter().any(|(rejected, _)| *rejected == at) {
                continue;
            }
            let header = &batch.body.tables[usize::from(change.table)];
            let key = (header.name.to_ascii_lowercase(), change.id);
            let base = change.writes.iter().map(|write| write.base).min().unwrap_or(0);
            let deletes = |write: &&Write| write.op.is_delete();
            let done: Vec<Entry> = change
                .writes
                .iter()
                .flat_map(|it| entries(header, it, (push, self.batches), position))
                .collect();
            let is_made_again = change.is_new && self.is_made_again(&key, base, &done);
            let (targets, dead, before) = self.meant(&key, base, is_made_again, &mut left);
            self.made += 1;
            let birth = Birth { order: self.made, batch: self.batches, position, author: push.0, base };
            let unborn = History { birth, number: change.number, entries: Vec::new() };
            let length = |tenant: &Self| tenant.rows.get(&targets[0]).map_or(0, |it| it.entries.len());
            let first = length(self);
            for (at, target) in targets.iter().enumerate() {
                let was = self.raw(target, &|_| true);
                let history = self.rows.entry(target.clone()).or_insert_with(|| unborn.clone());
                history.number = history.number.or(change.number);
                let done =
                    change.writes.iter().flat_map(|it| entries(header, it, (push, self.batches), position));
                // What is done to a value is done once, however many rows are one.
                history.entries.extend(done.filter(|it| at == 0 || !matches!(it.what, What::Adjust(..))));
                // What has lost to other writes touches nothing.
                if self.raw(target, &|_| true) != was {
                    touched.insert(target.clone());
                }
            }
            for target in &dead {
                let was = self.raw(target, &|_| true);
                let done = change.writes.iter().filter(deletes);
                let done = done.flat_map(|it| entries(header, it, (push, self.batches), position));
                self.rows.get_mut(target).unwrap().entries.extend(done);
                if self.raw(target, &|_| true) != was {
                    touched.insert(target.clone());
                }
            }
            let raw = self.raw(&key, &|_| true);
            let has_won =
                raw.cells.values().flat_map(|cell| &cell.made_of).any(|it| it.batch == self.batches);
            if is_made_again && raw.is_alive && has_won {
                self.rows.get_mut(&key).unwrap().birth = birth;
            }
            for target in targets.iter().chain(&dead) {
                self.note_death(target, position);
            }
            for target in &targets {
                self.note_overwritten(target, header, change);
            }
            merged.push((targets[0].clone(), before, first..length(self)));
        }
        local_effects::forget(self, push.0);
        for row in self.rows.keys().cloned().collect::<Vec<_>>() {
            self.note_death(&row, position);
        }
        let (mut conflicts, mut told) = (0, Vec::new());
        for (key, before, of_change) in merged {
            let done: Vec<Entry> =
                self.rows[&key].entries[of_change].iter().filter(|it| !it.is_forgotten).cloned().collect();
            let counted = conflicts::count(&before, &done, &self.rule(&key.0));
            if counted > 0 {
                told.push(format!("{counted} in {key:?}: {done:#?}\n against {before:#?}"));
            }
            conflicts += counted;
        }
        let (claims, united) = decision::decide(self, &touched, left, position);
        self.claims = claims;
        self.make_room(batch.replica);
        conflicts += united;
        told.push(format!("{united} by unions"));
        if conflicts == batch.ack.conflicts {
            return Ok(());
        }
        Err(format!(
            "batch {} of {}: the hub counts {} conflicts, and there are {conflicts}: {}\n{:#?}",
            batch.ack.n,
            batch.replica,
            batch.ack.conflicts,
            told.join("\n"),
            batch.body
        ))
    }

    /// What references a row by a key that its author saw in it, and that other writes won over, means this row.
    fn note_overwritten(&mut self, row: &RowKey, header: &TableHeader, change: &RowChange) {
        let mut seen = self.raw(row, &|_| true);
        let mut has_lost = false;
        for write in &change.writes {
            let Op::Set(cells) = &write.op else { continue };
            for (column, value) in cells {
                let column = header.columns[usize::from(*column)].to_ascii_lowercase();
                let Some(cell) = seen.cells.get_mut(&column) else { continue };
                has_lost |= cell.value != *value;
                cell.value = value.clone();
            }
        }
        if has_lost {
            let keys = self.schema.unique.get(&row.0).into_iter().flatten();
            let keys: Vec<Key> = keys.filter_map(|unique| self.keys.key(unique, &seen)).collect();
            self.claims.note_meant(keys, row);
        }
    }

    /// Whether what is done to a row makes it again, which its author had deleted or knew as dead: it is his new row.
    fn is_made_again(&self, row: &RowKey, base: Seq, done: &[Entry]) -> bool {
        let raw = self.raw(row, &|_| true);
        let is_written = |column: &String| done.iter().any(|it| it.column() == Some(column));
        let is_whole = raw.cells.keys().all(is_written);
        let was_known = self.rows.get(row).is_some_and(|history| history.birth.position <= base);
        let deletes = done.iter().any(|it| it.what == What::Delete);
        let sets = done.iter().any(|it| it.what != What::Delete);
        sets && (deletes || is_whole && (was_known || !raw.is_alive))
    }

    /// Notes where a row's own writes have it die.
    fn note_death(&mut self, row: &RowKey, position: Seq) {
        if self.raw(row, &|_| true).is_alive {
            self.died.remove(row);
        } else {
            self.died.entry(row.clone()).or_insert(position);
        }
    }

    /// The rows that a write to one of them is to, those that only its delete is to, and what it is merged with. Of rows
    /// that are one, it is to those that its author knew as one and that live, or else to those that have died since, and
    /// its delete to all that he knew; where he knew of no others, or makes it again, to this one alone. Notes which row it leaves if it is a new one.
    fn meant(
        &mut self,
        row: &RowKey,
        base: Seq,
        is_made_again: bool,
        left: &mut BTreeSet<RowKey>,
    ) -> (Vec<RowKey>, Vec<RowKey>, Raw) {
        let alone = |tenant: &Self| (vec![row.clone()], tenant.raw(row, &|_| true));
        let unions = &mut self.claims.unions;
        if let Some(since) = unions.lost_since(row) {
            if base >= since {
                // Its author knew that it was another one by then: this is a new one with its key.
                left.insert(unions.entity(row));
                unions.leave(row);
            }
            let (row, raw) = alone(self);
            return (row, Vec::new(), raw);
        }
        let mut known = unions.known(row, base);
        known.retain(|member| self.rows.contains_key(member));
        if known.len() < 2 {
            let (row, raw) = alone(self);
            return (row, Vec::new(), raw);
        }
        known.sort_by_key(|member| self.birth(member).order);
        let is_alive = |member: &RowKey| self.raw(member, &|_| true).is_alive;
        let died_unseen = |member: &RowKey| self.died.get(member).is_some_and(|died| *died > base);
        let mut targets: Vec<RowKey> = known.iter().filter(|it| is_alive(it)).cloned().collect();
        if targets.is_empty() {
            targets = known.iter().filter(|it| died_unseen(it)).cloned().collect();
        }
        let (_, mut before) = alone(self);
        if targets.is_empty() {
            targets = vec![row.clone()];
        } else {
            let raws = self.raws(&|_| true);
            before = self.united(&raws, &self.claims.unions).remove(row).unwrap();
        }
        if is_made_again {
            targets = vec![row.clone()];
        }
        known.retain(|member| !targets.contains(member));
        (targets, known, before)
    }

    /// The rows that live, as somebody new must be told of them.
    pub fn rows(&self) -> &BTreeMap<RowKey, Row> {
        &self.claims.shown
    }

    /// What was decided about unique keys after the last batch.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// Unique keys.
    pub fn keys(&self) -> &KeyBook {
        &self.keys
    }

    /// How many batches were accepted.
    pub fn batches(&self) -> usize {
        self.batches
    }

    /// How a row came to be.
    pub fn birth(&self, row: &RowKey) -> Birth {
        self.rows[row].birth
    }

    /// Rows that stand for themselves, each with all that is one with it.
    pub fn united(&self, raws: &Raws, unions: &Unions) -> Raws {
        let born = |row: &RowKey| self.birth(row).order;
        unions.united(raws, born, |table, members| Raw::united(&members, &self.rule(table)))
    }

    /// What the tables' definitions say.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// All rows as some of their own writes make them.
    pub fn raws(&self, counts: &dyn Fn(&Entry) -> bool) -> Raws {
        self.rows.keys().map(|key| (key.clone(), self.raw(key, counts))).collect()
    }

    /// The rows to which something like this was done.
    pub fn rows_with(&self, is_wanted: impl Fn(&Entry) -> bool) -> BTreeSet<RowKey> {
        let rows = self.rows.iter().filter(|(_, history)| history.entries.iter().any(&is_wanted));
        rows.map(|(key, _)| key.clone()).collect()
    }

    /// Whether somebody has deleted a row: in this batch, last of all that he did to it there; or before, beyond a base, and
    /// of what was done to the row since that is remembered.
    pub fn is_deleted_by(&self, row: &RowKey, author: u64, base: Seq) -> bool {
        let Some(history) = self.rows.get(row) else { return false };
        let of_batch = history.entries.iter().filter(|entry| entry.batch == self.batches);
        if let Some(last) = of_batch.max_by_key(|entry| entry.stamp)
            && history.entries.iter().any(|it| it.batch == self.batches && it.what == What::Delete)
        {
            return last.what == What::Delete;
        }
        history.remembers_delete_of(author, base)
    }

    /// What the last batch did to a row by no statement, each with what the author had seen.
    pub fn effects(&self, row: &RowKey) -> Vec<(What, Seq)> {
        let entries = self.rows[row].entries.iter();
        let effects = entries.filter(|entry| entry.batch == self.batches && entry.is_effect);
        effects.map(|entry| (entry.what.clone(), entry.base)).collect()
    }

    /// Takes things for not done.
    pub fn forget(&mut self, is_wanted: impl Fn(&RowKey, &Entry) -> bool) {
        for (key, history) in &mut self.rows {
            for entry in &mut history.entries {
                entry.is_forgotten |= is_wanted(key, entry);
            }
        }
    }

    /// A row as some of its own writes make it.
    fn raw(&self, key: &RowKey, counts: &dyn Fn(&Entry) -> bool) -> Raw {
        let Some(history) = self.rows.get(key) else { return Raw::default() };
        let mut history = history.clone();
        history.entries.retain(|entry| !entry.is_forgotten && counts(entry));
        Raw::of(&history, &self.rule(&key.0))
    }

    /// The rules of a table's columns.
    pub fn rule(&self, table: &str) -> impl Fn(&str) -> Rule {
        let agreed = self.tables.get(table).map(|table| table.agreed.clone()).unwrap_or_default();
        move |column| agreed.rule(column).unwrap_or_default()
    }
}
