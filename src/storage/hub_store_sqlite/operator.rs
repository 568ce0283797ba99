//! What the hub's operator asks of the store: what there is, and that some of it goes.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rusqlite::{Connection, params};

use super::definitions::{self, Definition};
use super::dropped::{self, TextDigest};
use super::presence::Sightings;
use super::removal;
use super::rules::TenantRules;
use super::standing::Settling;
use super::tables::{self, Table};
use super::tenant::Tenant;
use super::weight::Weight;
use super::{damaged, refused};
use crate::model::{ReplicaId, TableSchema};
use crate::protocol::message::Refusal;
use crate::storage::fitting::index_name;
use crate::storage::hub_operator::{
    AgentDetails, DefinitionDetails, MAX_AGENTS_TOLD, Obeyed, Order, Removal, RowCount, TableDetails,
    TenantDetails, TenantSummary,
};
use crate::storage::hub_store::{StoreError, StoreStats};

/// Rows that are counted at a time.
const COUNTED: i64 = 2_000;

/// Names that an error tells.
const NAMES_TOLD: usize = 5;

/// Names that are looked at for one like another.
const NAMES_LOOKED_AT: usize = 10_000;

/// See [`crate::storage::hub_operator::OperatorStore::tenants`].
pub fn tenants(
    conn: &Connection,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<TenantSummary>, StoreError> {
    let sql = "SELECT name, rows, live_bytes + dead_bytes,
                   (SELECT count(DISTINCT agent) FROM replica WHERE replica.tenant = tenant.id), replicas
               FROM tenant WHERE ?1 IS NULL OR name > ?1 ORDER BY name LIMIT ?2";
    let mut statement = conn.prepare_cached(sql)?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let found = statement.query_map(params![after, limit], |row| {
        let unsigned = |index| row.get::<_, i64>(index).map(i64::cast_unsigned);
        let (rows, bytes, agents, replicas) = (unsigned(1)?, unsigned(2)?, unsigned(3)?, unsigned(4)?);
        Ok(TenantSummary { name: row.get(0)?, rows, bytes, agents, replicas })
    })?;
    Ok(found.collect::<Result<_, _>>()?)
}

/// See [`crate::storage::hub_operator::OperatorStore::describe`].
pub fn describe(conn: &Connection, sightings: &Sightings, name: &str) -> Result<TenantDetails, StoreError> {
    let tenant = known_tenant(conn, name)?;
    let (agents, count) = agents(conn, sightings, tenant.id)?;
    let Weight { live, dead } = tenant.weight;
    let declaring = declaring(conn, tenant.id)?;
    let mut found = Vec::new();
    for (id, schema) in tables::all(conn, tenant.id)? {
        found.push(table(conn, tenant.id, (id, schema), &declaring)?);
    }
    Ok(TenantDetails {
        summary: TenantSummary {
            name: name.to_owned(),
            rows: tenant.rows,
            bytes: live + dead,
            agents: count,
            replicas: tenant.replicas,
        },
        dead_bytes: dead,
        highest: tenant.highest,
        tables: found,
        agents,
        dropped: dropped::tables(conn, tenant.id)?,
    })
}

/// A tenant's agents, and how many there are.
fn agents(
    conn: &Connection,
    sightings: &Sightings,
    tenant: i64,
) -> Result<(Vec<AgentDetails>, u64), StoreError> {
    let mut statement = conn.prepare_cached("SELECT id, agent, seen_ms FROM replica WHERE tenant = ?1")?;
    let mut rows = statement.query([tenant])?;
    let mut agents = BTreeMap::<String, AgentDetails>::new();
    while let Some(row) = rows.next()? {
        let id = row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?;
        let id = ReplicaId::from_slice(id).ok_or_else(|| damaged("a replica's id"))?;
        let (name, written_ms): (String, i64) = (row.get(1)?, row.get(2)?);
        let seen_ms = sightings.seen_ms(tenant, id, written_ms);
        let agent = agents.entry(name.clone());
        let agent = agent.or_insert(AgentDetails { name, replicas: 0, seen_ms });
        (agent.replicas, agent.seen_ms) = (agent.replicas + 1, agent.seen_ms.max(seen_ms));
    }
    let count = agents.len() as u64;
    let mut agents: Vec<AgentDetails> = agents.into_values().collect();
    agents.sort_by_key(|agent| std::cmp::Reverse(agent.seen_ms));
    agents.truncate(MAX_AGENTS_TOLD);
    Ok((agents, count))
}

/// How many replicas declare each definition.
fn declaring(conn: &Connection, tenant: i64) -> Result<HashMap<i64, u64>, StoreError> {
    let mut statement = conn.prepare_cached("SELECT id, replicas FROM declaration WHERE tenant = ?1")?;
    let found = statement.query_map([tenant], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?)))?;
    let mut declaring = HashMap::new();
    for declaration in found {
        let (id, replicas) = declaration?;
        for definition in definitions::list(conn, tenant, id)? {
            *declaring.entry(definition).or_default() += replicas.cast_unsigned();
        }
    }
    Ok(declaring)
}

fn table(
    conn: &Connection,
    tenant: i64,
    (id, schema): (i64, TableSchema),
    declaring: &HashMap<i64, u64>,
) -> Result<TableDetails, StoreError> {
    let dropped = dropped::definitions(conn, tenant, id)?;
    let declared = definitions::of_table(conn, tenant, id)?;
    let undeclared = std::iter::once((false, &schema.ddl)).chain(schema.indexes.iter().map(|it| (true, it)));
    let is_declared = |(is_index, text): &(bool, &String)| {
        text.is_empty() || declared.iter().any(|it| it.is_index == *is_index && it.text == **text)
    };
    let undeclared: Vec<Definition> =
        undeclared.filter(|it| !is_declared(it)).map(|(is_index, text)| left_over(is_index, text)).collect();
    let details = |it: &Definition| DefinitionDetails {
        name: name_of(it.is_index, &it.text, &schema.name),
        is_index: it.is_index,
        text: it.text.clone(),
        agent: Some(it.agent.clone()).filter(|agent| !agent.is_empty()),
        replicas: declaring.get(&it.id).copied().unwrap_or(0),
        is_standing: it.is_standing,
        is_dropped: dropped.contains(&dropped::digest(&it.text)),
        why: it.why.clone(),
    };
    let definitions = declared.iter().chain(&undeclared).map(details).collect();
    Ok(TableDetails { id, columns: schema.columns.clone(), definitions, name: schema.name })
}

/// A text that stands, and that nobody declares any more.
fn left_over(is_index: bool, text: &str) -> Definition {
    Definition {
        id: 0,
        is_index,
        text: text.to_owned(),
        agent: String::new(),
        declarers: 0,
        is_standing: true,
        why: None,
        witness: None,
        is_laxer: false,
    }
}

/// What a definition is called.
fn name_of(is_index: bool, text: &str, table: &str) -> String {
    let shortened = || text.chars().take(80).collect();
    if is_index { index_name(text).unwrap_or_else(shortened) } else { table.to_owned() }
}

/// See [`crate::storage::hub_operator::OperatorStore::count_rows`].
pub fn count_rows(
    conn: &Connection,
    tenant: &str,
    table: i64,
    after: Option<[u8; 16]>,
) -> Result<RowCount, StoreError> {
    let Some(tenant) = Tenant::find(conn, tenant)? else { return Ok(RowCount::default()) };
    let sql = "SELECT id, length(body) + coalesce(length(effective), 0), dead, withheld FROM row_state
               WHERE tenant = ?1 AND tbl = ?2 AND id > ?3 ORDER BY id LIMIT ?4";
    let mut statement = conn.prepare_cached(sql)?;
    let behind = after.as_ref().map_or(&[][..], |id| &id[..]);
    let mut rows = statement.query(params![tenant.id, table, behind, COUNTED])?;
    let (mut count, mut looked_at, mut last) = (RowCount::default(), 0, None);
    while let Some(row) = rows.next()? {
        let (bytes, is_dead, is_withheld): (u32, bool, bool) = (row.get(1)?, row.get(2)?, row.get(3)?);
        let Weight { live, dead } = Weight::of(bytes as usize, is_dead);
        count.bytes += live + dead;
        count.rows += u64::from(!is_dead && !is_withheld);
        (looked_at, last) = (looked_at + 1, Some(row.get(0)?));
    }
    count.next = last.filter(|_| looked_at == COUNTED);
    Ok(count)
}

/// See [`crate::storage::hub_operator::OperatorStore::obey`].
pub fn obey(
    conn: &Connection,
    (stats, rules): (&mut StoreStats, &mut Option<TenantRules>),
    name: &str,
    order: &Order,
    now_ms: i64,
) -> Result<Obeyed, StoreError> {
    let mut tenant = known_tenant(conn, name)?;
    match order {
        Order::DropTable(table) => drop_table(conn, &mut tenant, rules, table, now_ms),
        Order::DropDefinition(table, name) => {
            drop_definition(conn, (&mut tenant, stats, rules), (table, name), now_ms)
        }
        Order::Readmit(table, None) => readmit(conn, &tenant, table),
        Order::Readmit(table, Some(name)) => {
            let table = known_table(conn, &tenant, table)?;
            if !dropped::readmit_definition(conn, tenant.id, table.id, name)? {
                return refused(
                    Refusal::Protocol,
                    format!("nothing named {name:?} was removed of table {}", table.schema.name),
                );
            }
            settle(conn, (&mut tenant, stats, rules), table.id)?;
            Ok(Obeyed::default())
        }
        Order::Erase => {
            conn.prepare_cached("DELETE FROM tenant WHERE id = ?1")?.execute([tenant.id])?;
            stats.tenants = stats.tenants.saturating_sub(1);
            stats.rows = stats.rows.saturating_sub(tenant.rows);
            let all = Removal { tenant: tenant.id, table: 0 };
            removal::begin(conn, all)?;
            Ok(Obeyed { removal: Some(all), ..Obeyed::default() })
        }
    }
}

/// Takes a table out of the tenant's, at once. Its rows are told to nobody from then on.
///
/// Rows of other tables stay as they are: one that was kept because a row of this table references it stays until it is
/// written again.
fn drop_table(
    conn: &Connection,
    tenant: &mut Tenant,
    rules: &mut Option<TenantRules>,
    name: &str,
    now_ms: i64,
) -> Result<Obeyed, StoreError> {
    let table = known_table(conn, tenant, name)?;
    let name = &table.schema.name;
    let known = TenantRules::of(conn, tenant.id, rules.take())?;
    let referenced_by = known.referencing(table.id);
    let declared = definitions::of_table(conn, tenant.id, table.id)?;
    let texts = declared.iter().filter(|it| !it.is_index).map(|it| &it.text).chain([&table.schema.ddl]);
    let texts: BTreeSet<TextDigest> = texts.map(|text| dropped::digest(text)).collect();
    dropped::note_table(conn, tenant.id, (name, table.id), &texts.into_iter().collect::<Vec<_>>(), now_ms)?;
    definitions::forget_table(conn, tenant.id, table.id)?;
    for sql in [
        "DELETE FROM table_schema WHERE tenant = ?1 AND id = ?2",
        "DELETE FROM table_rules WHERE tenant = ?1 AND tbl = ?2",
        "DELETE FROM dropped_definition WHERE tenant = ?1 AND tbl = ?2",
    ] {
        conn.prepare_cached(sql)?.execute([tenant.id, table.id])?;
    }
    let removal = Removal { tenant: tenant.id, table: table.id };
    removal::begin(conn, removal)?;
    Ok(Obeyed { removal: Some(removal), referenced_by, texts: Vec::new() })
}

fn readmit(conn: &Connection, tenant: &Tenant, table: &str) -> Result<Obeyed, StoreError> {
    if !dropped::readmit(conn, tenant.id, table)? {
        let names = dropped::tables(conn, tenant.id)?.into_iter().filter(|it| !it.is_readmitted);
        let names: Vec<String> = names.map(|it| it.name).collect();
        let help = one_of(table, &names, "no table of this tenant was removed, or all are readmitted");
        return refused(Refusal::Protocol, format!("no table {table:?} was removed: {help}"));
    }
    // Those who have it declare it again.
    removal::end_sessions(conn, tenant.id)?;
    Ok(Obeyed::default())
}

/// Has texts of a table stand no more, whoever declares them.
fn drop_definition(
    conn: &Connection,
    (tenant, stats, rules): (&mut Tenant, &mut StoreStats, &mut Option<TenantRules>),
    (table, name): (&str, &str),
    now_ms: i64,
) -> Result<Obeyed, StoreError> {
    let table = known_table(conn, tenant, table)?;
    let declared = definitions::of_table(conn, tenant.id, table.id)?;
    let indexes = declared.iter().filter(|it| it.is_index).map(|it| &it.text).chain(&table.schema.indexes);
    let named: Vec<(String, &String)> =
        indexes.map(|text| (name_of(true, text, &table.schema.name), text)).collect();
    let is_named = |(other, _): &&(String, &String)| other.eq_ignore_ascii_case(name);
    let mut texts: BTreeSet<String> =
        named.iter().filter(is_named).map(|(_, text)| (*text).clone()).collect();
    let is_text = texts.is_empty() && name.eq_ignore_ascii_case(&table.schema.name);
    if is_text {
        texts.insert(table.schema.ddl.clone());
    }
    if texts.is_empty() {
        let names: Vec<String> = named.into_iter().map(|(name, _)| name).collect();
        let help = one_of(name, &names, "it has no indexes; its own name stands for its CREATE TABLE");
        return refused(
            Refusal::Protocol,
            format!("table {} has no definition {name:?}: {help}", table.schema.name),
        );
    }
    for text in &texts {
        dropped::note_definition(conn, (tenant.id, table.id), (name, text), now_ms)?;
    }
    settle(conn, (tenant, stats, rules), table.id)?;
    let stands = Table::by_id(conn, tenant.id, table.id)?.map(|it| it.schema.ddl);
    if is_text && stands.is_some_and(|ddl| texts.contains(&ddl)) {
        return refused(
            Refusal::Protocol,
            format!(
                "no other text of table {} is declared that could stand in its place: let an agent declare one first, or \
                 remove the table (dropTable)",
                table.schema.name
            ),
        );
    }
    Ok(Obeyed { texts: texts.into_iter().collect(), ..Obeyed::default() })
}

fn settle(
    conn: &Connection,
    (tenant, stats, rules): (&mut Tenant, &mut StoreStats, &mut Option<TenantRules>),
    table: i64,
) -> Result<(), StoreError> {
    // All of it: what stands then is the answer.
    let mut tables = BTreeSet::from([table]);
    while !tables.is_empty() {
        Settling::new(conn, tenant, rules).settle(stats, &mut tables)?;
    }
    tenant.save(conn)
}

fn known_tenant(conn: &Connection, name: &str) -> Result<Tenant, StoreError> {
    if let Some(tenant) = Tenant::find(conn, name)? {
        return Ok(tenant);
    }
    let limit = i64::try_from(NAMES_LOOKED_AT).unwrap_or(i64::MAX);
    let mut statement = conn.prepare_cached("SELECT name FROM tenant ORDER BY name LIMIT ?1")?;
    let names: Vec<String> = statement.query_map([limit], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let help = one_of(name, &names, "it knows none");
    refused(Refusal::Protocol, format!("the hub knows no tenant {name:?}: {help}"))
}

fn known_table(conn: &Connection, tenant: &Tenant, name: &str) -> Result<Table, StoreError> {
    if let Some(table) = Table::find(conn, tenant.id, name)? {
        return Ok(table);
    }
    if dropped::is_dropped(conn, tenant.id, name)? {
        return refused(Refusal::Protocol, format!("table {name:?} was removed already"));
    }
    let names: Vec<String> = tables::all(conn, tenant.id)?.into_iter().map(|(_, it)| it.name).collect();
    let help = one_of(name, &names, "it has none");
    refused(Refusal::Protocol, format!("the tenant has no table {name:?}: {help}"))
}

/// Which names there are instead of one that is not among them.
fn one_of(name: &str, names: &[String], none: &str) -> String {
    let plain = |name: &str| name.to_lowercase().replace(['-', '_'], "");
    let wanted = plain(name);
    let alike = names.iter().map(|other| (edits(&wanted, &plain(other)), other));
    let alike = alike.filter(|(edits, other)| *edits <= other.chars().count().max(name.chars().count()) / 3);
    if let Some((_, other)) = alike.min() {
        return format!("did you mean {other:?}?");
    }
    let told: Vec<String> = names.iter().take(NAMES_TOLD).map(|it| format!("{it:?}")).collect();
    match names.len() {
        0 => none.to_owned(),
        count if count > NAMES_TOLD => {
            format!("there are {} and {} more", told.join(", "), count - NAMES_TOLD)
        }
        _ => format!("there are {}", told.join(", ")),
    }
}

/// How many characters are to be added, removed or replaced to turn one text into the other; only of the first ones of long
/// names.
fn edits(one: &str, other: &str) -> usize {
    const LONGEST: usize = 64;
    let other: Vec<char> = other.chars().take(LONGEST).collect();
    let mut above: Vec<usize> = (0..=other.len()).collect();
    for (row, letter) in one.chars().take(LONGEST).enumerate() {
        let mut line = vec![row + 1];
        for (at, there) in other.iter().enumerate() {
            let replaced = above[at] + usize::from(*there != letter);
            line.push(replaced.min(above[at + 1] + 1).min(line[at] + 1));
        }
        above = line;
    }
    above[other.len()]
}
