//! Which of the definitions that replicas declare are the tenant's: handed to newcomers, and ruled on.
//!
//! The text of a table that stands goes on standing while somebody declares it, has all columns of the table and is
//! contradicted by no row. Else one that is declared, has them and is not contradicted takes its place; where there is none,
//! the columns that it lacks are added to it, as those define them who have them. An index stands from when it is declared,
//! fits on the text and is contradicted by no row, until nobody declares it. What nobody declares at all stays for whoever
//! comes next.

mod text;

use std::collections::{BTreeMap, BTreeSet, HashSet};

use rusqlite::{Connection, params};

use super::against_rows::{self, ValueJudge, Verdict, can_fail, is_as_it_was};
use super::definitions::{self, Definition};
use super::derive::Deriver;
use super::dropped::{self, TextDigest};
use super::rules::{self, TenantRules};
use super::session::Replica;
use super::tables::{self, NOBODY, Table};
use super::tenant::Tenant;
use crate::model::{RowState, Seq, TableSchema};
use crate::storage::declaring::Declaring;
use crate::storage::driver::SqlError;
use crate::storage::fitting::{Fitting, Made, index_columns, index_name};
use crate::storage::hub_store::{StoreError, StoreStats};

/// What proofs may cost for one declaration, or one batch, in rows looked at.
const BUDGET: i64 = 2_000_000;

/// What is told of a definition that an operator has removed.
const DROPPED: &str = "the hub's operator has removed it";

/// What one piece of a declaration may cost, its last table aside, in units of about 50 µs.
pub const PIECE_COST: i64 = 400;

/// What the proofs of one piece may cost, the last one aside, in rows looked at.
const PIECE_ROWS: i64 = 2_000;

/// What trying out a definition costs, and each so many bytes of it.
const COST_OF_TEXT: (i64, i64) = (8, 64);

/// Settles which definitions of a tenant stand.
pub struct Settling<'a> {
    /// The store.
    pub conn: &'a Connection,
    /// The tenant.
    pub tenant: &'a mut Tenant,
    /// Its rules, if they are known.
    pub rules: &'a mut Option<TenantRules>,
    /// Tables whose standing text rows were found to contradict.
    pub refuted: BTreeSet<i64>,
    /// Nobody has been told of a position above this one.
    pub since: Seq,
    budget: i64,
    /// Texts of the table at hand that an operator has removed.
    dropped: HashSet<TextDigest>,
    /// What the proofs of one piece may cost; none if everything is done at once.
    piece: Option<i64>,
    /// Whether something is left to be proved in another piece.
    is_left: bool,
    /// Indexes that rows were held against, by their tables: that is not done again for the same declaration.
    judged: BTreeSet<(i64, String)>,
    /// The names of the indexes that stand, with their tables; read when they are asked for.
    names: Option<BTreeMap<String, i64>>,
}

/// Who has declared, and what: it need not be told of that.
pub struct Declarer<'a> {
    /// Its tie-break.
    pub writer: u64,
    /// Its tables.
    pub schema: &'a [TableSchema],
}

impl<'a> Settling<'a> {
    /// Begins.
    pub fn new(conn: &'a Connection, tenant: &'a mut Tenant, rules: &'a mut Option<TenantRules>) -> Self {
        let since = tenant.seq;
        let (refuted, judged) = (BTreeSet::new(), BTreeSet::new());
        Self {
            conn,
            tenant,
            rules,
            refuted,
            since,
            budget: BUDGET,
            piece: None,
            is_left: false,
            judged,
            dropped: HashSet::new(),
            names: None,
        }
    }

    /// Goes on with a declaration, with as much as a piece may cost.
    pub fn resume(&mut self, state: &mut Declaring) {
        self.budget -= state.spent_rows;
        self.piece = Some(PIECE_ROWS);
        self.judged = std::mem::take(&mut state.judged);
    }

    /// Leaves the rest to another piece.
    pub fn suspend(self, state: &mut Declaring) {
        state.spent_rows = BUDGET - self.budget;
        state.judged = self.judged;
    }

    /// Settles tables until that has cost as much as it may, and takes those out that are settled. Returns what it cost, and
    /// whether something else stands now.
    pub fn settle_some(
        &mut self,
        tables: &mut BTreeSet<i64>,
        declarer: Option<&Declarer<'_>>,
        allowed: i64,
    ) -> Result<(i64, bool), StoreError> {
        let (mut cost, mut changed, mut left) = (0, false, BTreeSet::new());
        while cost < allowed
            && let Some(id) = tables.pop_first()
        {
            self.is_left = false;
            if let Some(table) = Table::by_id(self.conn, self.tenant.id, id)? {
                cost += cost_of_texts(self.conn, self.tenant.id, id)?;
                changed |= self.settle_table(table, declarer)?;
            }
            if self.is_left {
                left.insert(id);
            }
        }
        tables.append(&mut left);
        Ok((cost, changed))
    }

    /// Settles tables of which others declare now than before, and has their rows looked at under what stands then. What is
    /// more than a piece stays in `tables`.
    pub fn settle(&mut self, stats: &mut StoreStats, tables: &mut BTreeSet<i64>) -> Result<(), StoreError> {
        self.piece = Some(PIECE_ROWS);
        let (_, changed) = self.settle_some(tables, None, PIECE_COST)?;
        if changed { self.derive(stats) } else { Ok(()) }
    }

    fn settle_table(
        &mut self,
        mut table: Table,
        declarer: Option<&Declarer<'_>>,
    ) -> Result<bool, StoreError> {
        let mut all = definitions::of_table(self.conn, self.tenant.id, table.id)?;
        let before = all.clone();
        self.dropped = dropped::definitions(self.conn, self.tenant.id, table.id)?;
        self.explain_dropped(&table, &mut all);
        let is_declared = all.iter().any(|it| !it.is_index && it.is_declared());
        let forgets = is_declared && !definitions::has_unknown_replicas(self.conn, self.tenant.id)?;
        let stood = (table.schema.ddl.clone(), table.schema.indexes.clone());
        let text = self.choose_text(&table, &mut all, forgets)?;
        if let Some((text, texts)) = text {
            table.schema.ddl.clone_from(&text.table().ddl);
            table.schema.indexes = self.choose_indexes(&table, text, (&texts, &mut all), forgets)?;
        }
        for definition in &mut all {
            definition.is_standing = if definition.is_index {
                table.schema.indexes.contains(&definition.text)
            } else {
                table.schema.ddl == definition.text
            };
        }
        for (before, now) in before.iter().zip(&all) {
            if before != now {
                let is_news = now.why.is_some() && now.why != before.why;
                now.save(self.conn, self.tenant, is_news)?;
            }
        }
        definitions::forget_undeclared(self.conn, self.tenant.id, table.id)?;
        if stood == (table.schema.ddl.clone(), table.schema.indexes.clone()) {
            return Ok(false);
        }
        if let Some(names) = &mut self.names {
            names.retain(|_, holder| *holder != table.id);
            names
                .extend(table.schema.indexes.iter().filter_map(|it| index_name(it)).map(|it| (it, table.id)));
        }
        let named = |it: &&TableSchema| it.name.eq_ignore_ascii_case(&table.schema.name);
        let own = declarer.and_then(|it| Some((it.writer, it.schema.iter().find(named)?)));
        let writer = own.filter(|(_, schema)| table.is_known_by(schema)).map_or(NOBODY, |(writer, _)| writer);
        table.save(self.conn, (self.tenant, self.since), writer)?;
        if let Some(rules) = self.rules {
            // They may have been read since at the very position that the table keeps.
            rules.outdate();
        }
        Ok(true)
    }

    /// Whether an operator has removed a text of the table at hand.
    fn is_dropped(&self, text: &str) -> bool {
        !self.dropped.is_empty() && self.dropped.contains(&dropped::digest(text))
    }

    /// Says of definitions why they do not stand although nothing contradicts them, and no more of those that may stand again.
    fn explain_dropped(&self, table: &Table, all: &mut [Definition]) {
        for definition in all {
            if self.is_dropped(&definition.text) {
                let what = match index_name(&definition.text).filter(|_| definition.is_index) {
                    Some(name) => format!("index {name} of table {}", table.schema.name),
                    None => format!("the definition of table {}", table.schema.name),
                };
                let why = format!(
                    "{what}, as agent {} declares it, is not adopted: {DROPPED}. It stays as it is where it is made so",
                    definition.agent
                );
                (definition.why, definition.witness) = (Some(why), None);
            } else if definition.why.as_ref().is_some_and(|why| why.contains(DROPPED)) {
                definition.why = None;
            }
        }
    }

    /// The indexes that stand on a text: those that stood come first.
    fn choose_indexes(
        &mut self,
        table: &Table,
        mut fitting: Fitting,
        (texts, all): (&[Made], &mut [Definition]),
        forgets: bool,
    ) -> Result<Vec<String>, StoreError> {
        let made = texts.iter().flat_map(|text| &text.columns);
        let known: BTreeSet<String> =
            table.schema.columns.iter().chain(made).map(|name| name.to_lowercase()).collect();
        let stood = &table.schema.indexes;
        let later =
            all.iter().filter(|it| it.is_index && !stood.contains(&it.text)).map(|it| it.text.clone());
        let candidates: Vec<String> = stood.iter().cloned().chain(later).collect();
        for index in candidates {
            let has_stood = stood.contains(&index);
            let mut own = all.iter_mut().find(|it| it.is_index && it.text == index);
            let is_declared = own.as_ref().is_some_and(|it| it.is_declared());
            let stays = is_declared || has_stood && !forgets;
            if !stays || self.is_dropped(&index) {
                continue;
            }
            let outcome =
                self.judge_index(table, &mut fitting, &index, (has_stood, own.as_deref(), &known))?;
            if let Some(own) = &mut own {
                match outcome {
                    Outcome::Stands | Outcome::Waits => (own.why, own.witness) = (None, None),
                    Outcome::IsAsItWas => {}
                    Outcome::Refused(why, witness) => {
                        let name = index_name(&index).unwrap_or_else(|| index.chars().take(80).collect());
                        (own.why, own.witness) = (
                            Some(format!(
                                "index {name} of table {}, which agent {} declares, is not adopted: {why}",
                                table.schema.name, own.agent
                            )),
                            witness,
                        );
                    }
                }
            }
        }
        Ok(fitting.into_table().indexes)
    }

    fn judge_index(
        &mut self,
        table: &Table,
        fitting: &mut Fitting,
        index: &str,
        (has_stood, own, known): (bool, Option<&Definition>, &BTreeSet<String>),
    ) -> Result<Outcome, StoreError> {
        let lacks = |name: &String| known.contains(&name.to_lowercase()) && !fitting.made().has(name);
        if index_columns(index).iter().any(lacks) {
            return Ok(Outcome::Waits);
        }
        if !has_stood && self.judged.contains(&(table.id, index.to_owned())) {
            return Ok(Outcome::IsAsItWas);
        }
        if self.is_taken(table.id, index)? {
            return Ok(Outcome::Refused("another table's index has that name".into(), None));
        }
        if let Err(why) = fitting.add(index) {
            return Ok(Outcome::Refused(why, None));
        }
        let is_unique = index.get(..13).is_some_and(|start| start.eq_ignore_ascii_case("CREATE UNIQUE"));
        if has_stood || !(is_unique || can_fail(index)) {
            return Ok(Outcome::Stands);
        }
        let witness = own.and_then(|own| own.witness);
        if let Some(witness) = witness
            && is_as_it_was(self.conn, self.tenant.id, &witness)?
        {
            fitting.remove_last().map_err(of_scratch)?;
            return Ok(Outcome::IsAsItWas);
        }
        let candidate = fitting.table().clone();
        let Some(verdict) = self.judge(table.id, &candidate, false)? else {
            fitting.remove_last().map_err(of_scratch)?;
            return Ok(Outcome::IsAsItWas);
        };
        self.judged.insert((table.id, index.to_owned()));
        let why = match verdict {
            Verdict::Fits => return Ok(Outcome::Stands),
            Verdict::Contradicted(witness) => Outcome::Refused(
                "rows of this tenant contradict it. It stays that agent's own, and rows that it refuses are set aside \
                 there"
                    .into(),
                witness,
            ),
            // Nobody is kept from a row by an index that is not unique, unless it fails over the row.
            Verdict::TooMany if !is_unique => return Ok(Outcome::Stands),
            Verdict::TooMany => Outcome::Refused(
                "there are too many rows to look at. It stays that agent's own, and rows that it refuses are set aside \
                 there"
                    .into(),
                None,
            ),
        };
        fitting.remove_last().map_err(of_scratch)?;
        Ok(why)
    }

    /// Holds a table's rows against a definition; none if that is left to another piece.
    fn judge(
        &mut self,
        table: i64,
        candidate: &TableSchema,
        values: bool,
    ) -> Result<Option<Verdict>, StoreError> {
        if self.piece.is_some_and(|rows| rows <= 0) {
            self.is_left = true;
            return Ok(None);
        }
        let before = self.budget;
        let budget = (values, &mut self.budget);
        let verdict = against_rows::judge(self.conn, self.tenant.id, self.rules, (table, candidate), budget)?;
        self.piece = self.piece.map(|rows| rows - (before - self.budget));
        Ok(Some(verdict))
    }

    /// Whether an index that stands on another table has the name of this one.
    fn is_taken(&mut self, table: i64, index: &str) -> Result<bool, StoreError> {
        let Some(name) = index_name(index) else { return Ok(false) };
        if self.names.is_none() {
            let mut names = BTreeMap::new();
            for (id, indexes) in tables::indexes(self.conn, self.tenant.id)? {
                names.extend(indexes.iter().filter_map(|it| index_name(it)).map(|name| (name, id)));
            }
            self.names = Some(names);
        }
        Ok(self.names.as_ref().and_then(|names| names.get(&name)).is_some_and(|holder| *holder != table))
    }

    /// Looks at the rows of tables that have other rules now, but for those of which there are very many.
    pub fn derive(&mut self, stats: &mut StoreStats) -> Result<(), StoreError> {
        let rules = TenantRules::of(self.conn, self.tenant.id, self.rules.take())?;
        let touched = rules.changed(self.conn, self.tenant.id)?;
        self.look_at(stats, rules, &touched)
    }

    /// Looks at some rows of a table of which there are very many. Says whether there were any.
    pub fn derive_left(&mut self, stats: &mut StoreStats) -> Result<bool, StoreError> {
        let Some(rows) = rules::left(self.conn, self.tenant.id)? else { return Ok(false) };
        let rules = TenantRules::of(self.conn, self.tenant.id, self.rules.take())?;
        self.look_at(stats, rules, &rows)?;
        Ok(true)
    }

    fn look_at(
        &mut self,
        stats: &mut StoreStats,
        mut rules: TenantRules,
        touched: &BTreeSet<i64>,
    ) -> Result<(), StoreError> {
        let before = self.tenant.rows;
        if !touched.is_empty() {
            let mut deriver = Deriver::new(self.conn, self.tenant, &mut rules)?;
            deriver.derive(touched)?;
            deriver.count_rows();
        }
        stats.rows = stats.rows.saturating_sub(before).saturating_add(self.tenant.rows);
        *self.rules = Some(rules);
        Ok(())
    }
}

/// What becomes of an index.
enum Outcome {
    Stands,
    /// A column of it is not in the text.
    Waits,
    /// What contradicted it still does, or nobody has looked yet.
    IsAsItWas,
    Refused(String, Option<definitions::Witness>),
}

/// Tables of which a replica declares a text that asks less of rows than the one that stands, with what judges its rows.
pub struct Watch(Vec<(i64, ValueJudge)>);

impl Watch {
    /// Looks at the tables that a batch names.
    pub fn over(
        conn: &Connection,
        tenant: i64,
        replica: &Replica,
        tables: impl Iterator<Item = i64>,
    ) -> Result<Self, StoreError> {
        let mut watched = Vec::new();
        for table in tables {
            let all = laxer(conn, tenant, table)?;
            let Some(declaration) = replica.declaration.filter(|_| !all.is_empty()) else { continue };
            let declared = definitions::list(conn, tenant, declaration)?;
            let stands = definitions::of_table(conn, tenant, table)?;
            let stands = stands.iter().find(|it| !it.is_index && it.is_standing);
            if let Some(stands) =
                stands.filter(|it| it.why.is_none() && all.iter().any(|id| declared.contains(id)))
            {
                watched.push((table, ValueJudge::new(&stands.text)?));
            }
        }
        Ok(Self(watched))
    }

    /// Whether rows of a table are looked at.
    pub fn is_over(&self, table: i64) -> bool {
        self.0.iter().any(|(watched, _)| *watched == table)
    }

    /// The tables whose standing text refuses one of these rows.
    pub fn refuted(&mut self, rules: &TenantRules, rows: &[(i64, RowState)]) -> BTreeSet<i64> {
        let mut refuted = BTreeSet::new();
        for (table, judge) in &mut self.0 {
            let Some(known) = rules.table(*table) else { continue };
            let mut own = rows.iter().filter(|(of, _)| of == table);
            if own.any(|(_, state)| judge.refuses(&known, state)) {
                refuted.insert(*table);
            }
        }
        refuted
    }
}

fn laxer(conn: &Connection, tenant: i64, table: i64) -> Result<Vec<i64>, StoreError> {
    let sql = "SELECT id FROM definition WHERE tenant = ?1 AND tbl = ?2 AND laxer";
    let mut statement = conn.prepare_cached(sql)?;
    let ids = statement.query_map([tenant, table], |row| row.get(0))?;
    Ok(ids.collect::<Result<_, _>>()?)
}

/// The tables of which a replica declares an index that rows contradicted, and no longer do as they did.
pub fn to_be_retried(conn: &Connection, tenant: i64, replica: &Replica) -> Result<BTreeSet<i64>, StoreError> {
    let sql = "SELECT id, tbl, witness FROM definition WHERE tenant = ?1 AND why IS NOT NULL AND witness IS NOT NULL";
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query(params![tenant])?;
    let (mut declared, mut found) = (None, BTreeSet::new());
    while let Some(row) = rows.next()? {
        let Some(declaration) = replica.declaration else { break };
        if declared.is_none() {
            declared = Some(definitions::list(conn, tenant, declaration)?);
        }
        let (id, table): (i64, i64) = (row.get(0)?, row.get(1)?);
        let witness = row.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?;
        let witness = rmp_serde::from_slice(witness).map_err(|_| super::damaged("a definition"))?;
        if declared.as_ref().is_some_and(|it| it.contains(&id)) && !is_as_it_was(conn, tenant, &witness)? {
            found.insert(table);
        }
    }
    Ok(found)
}

/// About what it costs to settle a table: each of its definitions is tried out, beside the text that stands.
pub fn cost_of_texts(conn: &Connection, tenant: i64, table: i64) -> Result<i64, StoreError> {
    let sql = "SELECT count(*), coalesce(sum(octet_length(text)), 0) FROM definition WHERE tenant = ?1 AND tbl = ?2";
    let (count, bytes): (i64, i64) =
        conn.prepare_cached(sql)?.query_row([tenant, table], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let (each, bytes_of_one) = COST_OF_TEXT;
    Ok((1 + count) * each + bytes / bytes_of_one)
}

/// A failure of the scratch database, which is in memory.
fn of_scratch(error: SqlError) -> StoreError {
    StoreError::Failed(error.message)
}
