//! A tenant's rows as one batch works on them: loaded once, written when they differ.

use std::collections::{BTreeMap, HashMap};

use rusqlite::{Connection, OptionalExtension, Row as SqlRow, params};

use super::damaged;
use super::weight::Weight;
use crate::model::{NOBODY, RowId, RowState, Seq};
use crate::storage::hub_store::StoreError;
use crate::storage::row_codec;

/// A row.
pub struct Row {
    /// Its number in the store.
    pub no: i64,
    /// Its table.
    pub table: i64,
    /// Its identity.
    pub id: RowId,
    /// The position at which it was first accepted, or made again after it was deleted.
    pub born: Seq,
    /// The tie-break of the replica that made it.
    pub author: u64,
    /// What its author had seen.
    pub base: Seq,
    /// The row that it is one with, if that one's identity stands for both.
    pub survivor: Option<RowId>,
    /// Where in the order it was united, and is told of; 0 if it stands for itself.
    pub united_at: Seq,
    /// The merge of its own writes.
    pub raw: RowState,
    /// What readers have been told, before this batch.
    pub before: RowState,
    /// What they are told instead of `raw`.
    pub effective: Option<RowState>,
    /// Its unique keys are taken: it is told as dead until one is free.
    pub withheld: bool,
    /// Where in the order it died by its own writes; 0 if it lives by them.
    pub died: Seq,
    /// What the store says of that.
    pub was_withheld: bool,
    /// Whether it was among the tenant's live rows.
    was_live: bool,
    /// What it takes of the store.
    weight: Weight,
}

impl Row {
    /// What readers are told now.
    pub fn told(&self) -> &RowState {
        self.effective.as_ref().unwrap_or(&self.raw)
    }

    /// Whether readers were told, before this batch, that it is dead.
    pub fn was_told_dead(&self) -> bool {
        !self.before.cells.is_empty() && !self.before.is_alive()
    }

    /// Whether the row goes under an identity of its own.
    pub fn stands_for_itself(&self) -> bool {
        self.survivor.is_none()
    }

    /// Whether it waits to be collected: it is dead, or one with another row that goes on for both.
    fn waits_for_collection(&self) -> bool {
        !self.stands_for_itself() || !self.withheld && !self.told().is_alive()
    }

    /// Notes where its own writes have it die.
    pub fn note_death(&mut self, position: Seq) {
        if self.raw.is_alive() {
            self.died = 0;
        } else if self.died == 0 {
            self.died = position;
        }
    }
}

const FIELDS: &str = "row, tbl, id, born, author, base, survivor, united_at, withheld, body, effective, died";

/// The rows of one tenant that a batch has looked at.
pub struct Rows<'a> {
    conn: &'a Connection,
    tenant: i64,
    loaded: BTreeMap<i64, Row>,
    by_id: HashMap<(i64, RowId), i64>,
    next: Option<i64>,
    /// What the rows that were written take now, and what they took before.
    weights: (Weight, Weight),
}

impl<'a> Rows<'a> {
    /// No row yet.
    pub fn new(conn: &'a Connection, tenant: i64) -> Self {
        Self {
            conn,
            tenant,
            loaded: BTreeMap::new(),
            by_id: HashMap::new(),
            next: None,
            weights: Default::default(),
        }
    }

    /// The number of the row of an identity; loads it.
    pub fn find(&mut self, table: i64, id: RowId) -> Result<Option<i64>, StoreError> {
        if let Some(no) = self.by_id.get(&(table, id)) {
            return Ok(Some(*no));
        }
        let sql = format!("SELECT {FIELDS} FROM row_state WHERE tenant = ?1 AND tbl = ?2 AND id = ?3");
        let mut statement = self.conn.prepare_cached(&sql)?;
        let found =
            statement.query_row(params![self.tenant, table, &id.0[..]], |row| Ok(read(row))).optional()?;
        found.transpose()?.map(|row| Ok(self.add(row))).transpose()
    }

    /// Loads the row of a number.
    pub fn load(&mut self, no: i64) -> Result<(), StoreError> {
        if self.loaded.contains_key(&no) {
            return Ok(());
        }
        let sql = format!("SELECT {FIELDS} FROM row_state WHERE row = ?1 AND tenant = ?2");
        let mut statement = self.conn.prepare_cached(&sql)?;
        let row = statement.query_row(params![no, self.tenant], |row| Ok(read(row))).optional()?;
        let row = row.ok_or_else(|| damaged("the index of references"))??;
        self.add(row);
        Ok(())
    }

    fn add(&mut self, row: Row) -> i64 {
        let no = row.no;
        self.by_id.insert((row.table, row.id), no);
        self.loaded.insert(no, row);
        no
    }

    /// Makes a row, which is stored once it has a state.
    pub fn create(
        &mut self,
        (table, id): (i64, RowId),
        born: Seq,
        author: u64,
        base: Seq,
    ) -> Result<i64, StoreError> {
        let no = match self.next {
            Some(next) => next,
            None => self
                .conn
                .prepare_cached("SELECT coalesce(max(row), 0) + 1 FROM row_state")?
                .query_row([], |row| row.get(0))?,
        };
        self.next = Some(no + 1);
        Ok(self.add(Row {
            no,
            table,
            id,
            born,
            author,
            base,
            survivor: None,
            united_at: 0,
            raw: RowState::default(),
            before: RowState::default(),
            effective: None,
            withheld: false,
            died: 0,
            was_withheld: false,
            was_live: false,
            weight: Weight::default(),
        }))
    }

    /// A row that was loaded or made.
    pub fn get(&self, no: i64) -> Result<&Row, StoreError> {
        self.loaded.get(&no).ok_or_else(|| damaged("the index of rows"))
    }

    /// A row that was loaded or made.
    pub fn get_mut(&mut self, no: i64) -> Result<&mut Row, StoreError> {
        self.loaded.get_mut(&no).ok_or_else(|| damaged("the index of rows"))
    }

    /// How many of the rows looked at were live before the batch, and how many are now.
    pub fn live(&self) -> (u64, u64) {
        let rows = self.loaded.values();
        let is_live = |row: &&Row| row.stands_for_itself() && row.told().is_alive();
        (rows.clone().filter(|row| row.was_live).count() as u64, rows.filter(is_live).count() as u64)
    }

    /// What a tenant's rows take, of which these took so much before the batch.
    pub fn weigh(&self, tenant: Weight) -> Weight {
        tenant.changed(self.weights.0, self.weights.1)
    }

    /// Forgets a row that was made and is not to be stored.
    pub fn forget(&mut self, no: i64) {
        if let Some(row) = self.loaded.remove(&no) {
            self.by_id.remove(&(row.table, row.id));
        }
    }

    /// The rows that are one with the row of this number, itself among them, in the order of their birth.
    pub fn members(&mut self, no: i64) -> Result<Vec<i64>, StoreError> {
        let (table, id) = {
            let row = self.get(no)?;
            (row.table, row.id)
        };
        let united: Vec<i64> = self
            .conn
            .prepare_cached("SELECT row FROM row_state WHERE tenant = ?1 AND survivor = ?2 AND tbl = ?3")?
            .query_map(params![self.tenant, &id.0[..], table], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        for other in &united {
            self.load(*other)?;
        }
        let mut members = vec![no];
        members.extend(united);
        members.sort_by_key(|no| self.loaded.get(no).map(|row| (row.born, row.id)));
        Ok(members)
    }

    /// Writes a row down as it is.
    pub fn store(&mut self, no: i64) -> Result<(), StoreError> {
        let encode = |state: &RowState| {
            row_codec::encode(state).map_err(|error| StoreError::Failed(error.to_string()))
        };
        let tenant = self.tenant;
        let row = self.get(no)?;
        let (writer, other_seq, seq) = if row.stands_for_itself() {
            let (writer, other_seq) = authorship(row.told());
            (writer, other_seq, row.told().seq())
        } else {
            (NOBODY, row.united_at, row.united_at)
        };
        let body = encode(&row.raw)?;
        let effective = row.effective.as_ref().map(encode).transpose()?;
        let is_dead = row.waits_for_collection();
        let weight = Weight::of(body.len() + effective.as_ref().map_or(0, Vec::len), is_dead);
        let survivor = row.survivor.map(|id| id.0);
        let survivor = survivor.as_ref().map(|id| &id[..]);
        let sql = "INSERT INTO row_state
                 (row, tenant, tbl, seq, writer, other_seq, survivor, united_at, withheld, body, effective,
                  id, born, author, dead, base, died)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)
             ON CONFLICT (row) DO UPDATE SET seq = excluded.seq, writer = excluded.writer,
                 other_seq = excluded.other_seq, survivor = excluded.survivor,
                 united_at = excluded.united_at, withheld = excluded.withheld, body = excluded.body,
                 effective = excluded.effective, dead = excluded.dead, born = excluded.born,
                 author = excluded.author, base = excluded.base, died = excluded.died
             WHERE tenant = excluded.tenant AND tbl = excluded.tbl";
        self.conn.prepare_cached(sql)?.execute(params![
            no,
            tenant,
            row.table,
            seq.cast_signed(),
            writer.cast_signed(),
            other_seq.cast_signed(),
            survivor,
            row.united_at.cast_signed(),
            row.withheld,
            body,
            effective,
            &row.id.0[..],
            row.born.cast_signed(),
            row.author.cast_signed(),
            is_dead,
            row.base.cast_signed(),
            row.died.cast_signed()
        ])?;
        let row = self.get_mut(no)?;
        row.was_withheld = row.withheld;
        let before = std::mem::replace(&mut row.weight, weight);
        self.weights = (
            self.weights.0.changed(weight, Weight::default()),
            self.weights.1.changed(before, Weight::default()),
        );
        Ok(())
    }
}

fn read(row: &SqlRow<'_>) -> Result<Row, StoreError> {
    let id = |index: usize| -> Result<Option<RowId>, StoreError> {
        match row.get_ref(index)?.as_blob_or_null().map_err(rusqlite::Error::from)? {
            None => Ok(None),
            Some(bytes) => RowId::from_slice(bytes).map(Some).ok_or_else(|| damaged("a row's identity")),
        }
    };
    let unsigned = |index: usize| row.get::<_, i64>(index).map(i64::cast_unsigned);
    let state = |bytes: &[u8]| row_codec::decode(bytes).map_err(|_| damaged("a row"));
    let body = row.get_ref(9)?.as_blob().map_err(rusqlite::Error::from)?;
    let effective = row.get_ref(10)?.as_blob_or_null().map_err(rusqlite::Error::from)?;
    let bytes = body.len() + effective.map_or(0, <[u8]>::len);
    let (raw, effective) = (state(body)?, effective.map(state).transpose()?);
    let survivor = id(6)?;
    // What is one with another row was told under that one's identity.
    let before = match survivor {
        Some(_) => RowState::default(),
        None => effective.clone().unwrap_or_else(|| raw.clone()),
    };
    let withheld: bool = row.get(8)?;
    let is_dead = survivor.is_some() || !withheld && !before.is_alive();
    Ok(Row {
        no: row.get(0)?,
        table: row.get(1)?,
        was_live: before.is_alive(),
        weight: Weight::of(bytes, is_dead),
        id: id(2)?.ok_or_else(|| damaged("a row's identity"))?,
        born: unsigned(3)?,
        author: unsigned(4)?,
        base: unsigned(5)?,
        survivor,
        united_at: unsigned(7)?,
        withheld,
        died: unsigned(11)?,
        was_withheld: withheld,
        before,
        raw,
        effective,
    })
}

/// Whose the row's last change was, and the last position that someone else must be told of: what the index
/// by position keeps.
fn authorship(state: &RowState) -> (u64, Seq) {
    let cells = state.cells.values().map(|cell| (cell.seq, cell.writer));
    let registers = cells.chain(state.deleted.iter().map(|delete| (delete.seq, delete.writer)));
    let last = registers.clone().max().map_or(0, |(_, writer)| writer);
    let others = registers.filter(|(_, writer)| *writer != last).map(|(seq, _)| seq).max();
    (last, others.unwrap_or(0).max(state.whole_since))
}
