//! What an operator sees of a hub's tenants, and removes: the part of `FederationHubServer` that is about them.

use napi::Env;
use napi::bindgen_prelude::PromiseRaw;
use napi_derive::napi;

use super::federation_hub::number;
use super::federation_hub_server::{FederationHubServer, current};
use super::js_thread;
use crate::engine::operator::{Described, DroppedTableReport, ErasedReport, OperateError};
use crate::storage::hub_operator::{
    AgentDetails, DefinitionDetails, DroppedTable, RowCount, TableDetails, TenantSummary,
};

/// A tenant that a hub knows.
#[napi(object, object_from_js = false)]
pub struct HubTenant {
    /// Its name.
    pub tenant_id: String,
    /// Its live rows.
    pub rows: f64,
    /// What its rows take of the hub's store, in bytes, deleted ones included that some agent has not heard of.
    pub bytes: f64,
    /// Agents that have not retired.
    pub agents: f64,
    /// Their databases.
    pub replicas: f64,
}

/// Everything that a hub knows of a tenant, but its rows.
#[napi(object, object_from_js = false)]
pub struct HubTenantDescription {
    /// Its name.
    pub tenant_id: String,
    /// Its live rows.
    pub rows: f64,
    /// What its rows take of the hub's store, in bytes, deleted ones included that some agent has not heard of.
    pub bytes: f64,
    /// What these deleted ones take of it.
    pub deleted_bytes: f64,
    /// When its latest write was made, in milliseconds since the epoch, by its author's clock as far as the hub believed that;
    /// 0 if there is none.
    pub latest_write_at: f64,
    /// Its tables, in the order of their first declaration.
    pub tables: Vec<HubTable>,
    /// Its agents, those that were heard of last first; at most 10,000.
    pub agents: Vec<HubAgent>,
    /// How many agents there are.
    pub agent_count: f64,
    /// Their databases.
    pub replicas: f64,
    /// Tables that were removed by `dropTable()`, the last first.
    pub dropped_tables: Vec<HubDroppedTable>,
}

/// A table of a tenant.
#[napi(object, object_from_js = false)]
pub struct HubTable {
    /// Its name.
    pub name: String,
    /// Its columns, but for an `INTEGER PRIMARY KEY`, which does not travel.
    pub columns: Vec<String>,
    /// Its live rows.
    pub rows: f64,
    /// What its rows take of the hub's store, in bytes.
    pub bytes: f64,
    /// What defines it, and its indexes: all that agents declare, whether it is the tenant's or not.
    pub definitions: Vec<HubDefinition>,
}

/// A text that defines a table or an index.
#[napi(object, object_from_js = false)]
pub struct HubDefinition {
    /// The index's name; of a `CREATE TABLE`, the table's.
    pub name: String,
    /// What it makes.
    #[napi(ts_type = "'table' | 'index'")]
    pub kind: String,
    /// The text.
    pub sql: String,
    /// The agent that was the first to declare it; none if nobody declares it any more.
    pub declared_by: Option<String>,
    /// How many databases declare it.
    pub replicas: f64,
    /// Whether it is the tenant's: handed to newcomers, and ruled on.
    pub stands: bool,
    /// Whether it was removed by `dropDefinition()`.
    pub is_dropped: bool,
    /// Why it does not stand, if there is something to be said.
    pub reason: Option<String>,
}

/// An agent of a tenant.
#[napi(object, object_from_js = false)]
pub struct HubAgent {
    /// Its name.
    pub agent_id: String,
    /// Its databases.
    pub replicas: f64,
    /// When the last of them has synced or connected, in milliseconds since the epoch.
    pub last_seen: f64,
}

/// A table that was removed.
#[napi(object, object_from_js = false)]
pub struct HubDroppedTable {
    /// Its name.
    pub name: String,
    /// When, in milliseconds since the epoch.
    pub dropped_at: f64,
    /// Whether those who have it as it was may share it again.
    pub is_readmitted: bool,
}

/// What `dropTable()` has removed.
#[napi(object, object_from_js = false)]
pub struct DropTableReport {
    /// Rows that lived.
    pub rows: f64,
    /// Bytes that its rows took of the hub's store.
    pub bytes: f64,
    /// Tables with foreign keys to it. Their rows stay, and wait where the table is not.
    pub referenced_by: Vec<String>,
}

/// What `eraseTenant()` has removed.
#[napi(object, object_from_js = false)]
pub struct EraseTenantReport {
    /// Rows that lived.
    pub rows: f64,
    /// Bytes that its rows took of the hub's store.
    pub bytes: f64,
    /// Bytes by which the file has become smaller.
    pub compacted: f64,
    /// Whether the store's log was emptied, which holds what was written before. It is not while somebody reads a large pull for
    /// long, or a backup is made: `compact()` tries again.
    pub is_log_emptied: bool,
}

#[napi]
impl FederationHubServer {
    /// The tenants that the hub knows, by name.
    #[napi(ts_return_type = "Promise<HubTenant[]>")]
    pub fn tenants<'env>(&self, env: &'env Env) -> napi::Result<PromiseRaw<'env, Vec<HubTenant>>> {
        let hub = current(&self.running);
        js_thread::promise(env, &[], |_| async move {
            let all = hub.ok_or(OperateError::NotRunning)?.tenants().await?;
            Ok(all.into_iter().map(HubTenant::from).collect::<Vec<_>>())
        })
    }

    /// Everything that the hub knows of a tenant, but its rows: tables, definitions and who declared them, agents, and what
    /// was removed. It counts all rows, while agents go on.
    #[napi(ts_return_type = "Promise<HubTenantDescription>")]
    pub fn describe<'env>(
        &self,
        env: &'env Env,
        tenant_id: String,
    ) -> napi::Result<PromiseRaw<'env, HubTenantDescription>> {
        let hub = current(&self.running);
        js_thread::promise(env, &[], |_| async move {
            let described = hub.ok_or(OperateError::NotRunning)?.describe(&tenant_id).await?;
            Ok(HubTenantDescription::from(described))
        })
    }

    /// Removes a table of a tenant from the hub, with its rows, definitions and rules. Agents keep it, with its rows, and share
    /// it no more; whoever has another table of that name is taken from then on. Revoke first whoever is to blame. See
    /// `readmit()`, and docs/operations.md.
    #[napi(ts_return_type = "Promise<DropTableReport>")]
    pub fn drop_table<'env>(
        &self,
        env: &'env Env,
        tenant_id: String,
        table: String,
    ) -> napi::Result<PromiseRaw<'env, DropTableReport>> {
        let hub = current(&self.running);
        js_thread::promise(env, &[], |_| async move {
            let report = hub.ok_or(OperateError::NotRunning)?.drop_table(&tenant_id, &table).await?;
            let DroppedTableReport { removed, referenced_by } = report;
            Ok(DropTableReport { rows: number(removed.rows), bytes: number(removed.bytes), referenced_by })
        })
    }

    /// Has definitions of a table stand no more, whoever declares them: the indexes of this name, or the `CREATE TABLE` that
    /// stands if `name` is the table's own; another one that is declared takes the latter's place. Agents keep what they have.
    /// Resolves to the texts. `readmit(tenantId, table, name)` takes it back.
    #[napi(ts_return_type = "Promise<string[]>")]
    pub fn drop_definition<'env>(
        &self,
        env: &'env Env,
        tenant_id: String,
        table: String,
        name: String,
    ) -> napi::Result<PromiseRaw<'env, Vec<String>>> {
        let hub = current(&self.running);
        js_thread::promise(env, &[], |_| async move {
            Ok(hub.ok_or(OperateError::NotRunning)?.drop_definition(&tenant_id, &table, &name).await?)
        })
    }

    /// Lets agents share a table again that was removed, also as it was: they offer all rows of it that they have. With
    /// `name`, lets a definition of a table stand again.
    #[napi(
        ts_args_type = "tenantId: string, table: string, name?: string | undefined",
        ts_return_type = "Promise<void>"
    )]
    pub fn readmit<'env>(
        &self,
        env: &'env Env,
        tenant_id: String,
        table: String,
        name: Option<String>,
    ) -> napi::Result<PromiseRaw<'env, ()>> {
        let hub = current(&self.running);
        js_thread::promise(env, &[], |_| async move {
            Ok(hub.ok_or(OperateError::NotRunning)?.readmit(&tenant_id, &table, name.as_deref()).await?)
        })
    }

    /// Removes everything of a tenant from the hub, in short pieces, and overwrites it. The tenant has to be revoked, because
    /// agents that are let in offer again all that they hold: to the hub they are those of a new tenant. Revocations stay.
    #[napi(ts_return_type = "Promise<EraseTenantReport>")]
    pub fn erase_tenant<'env>(
        &self,
        env: &'env Env,
        tenant_id: String,
    ) -> napi::Result<PromiseRaw<'env, EraseTenantReport>> {
        let hub = current(&self.running);
        js_thread::promise(env, &[], |_| async move {
            let report = hub.ok_or(OperateError::NotRunning)?.erase_tenant(&tenant_id).await?;
            let ErasedReport { removed, compacted, is_log_emptied } = report;
            let (rows, bytes, compacted) = (number(removed.rows), number(removed.bytes), number(compacted));
            Ok(EraseTenantReport { rows, bytes, compacted, is_log_emptied })
        })
    }

    /// Gives free pages of the hub's file back to the file system, in short pieces. Resolves to the bytes by which the file has
    /// become smaller.
    #[napi(ts_return_type = "Promise<number>")]
    pub fn compact<'env>(&self, env: &'env Env) -> napi::Result<PromiseRaw<'env, f64>> {
        let hub = current(&self.running);
        js_thread::promise(env, &[], |_| async move {
            Ok(number(hub.ok_or(OperateError::NotRunning)?.compact().await?))
        })
    }
}

impl From<TenantSummary> for HubTenant {
    fn from(summary: TenantSummary) -> Self {
        let TenantSummary { name, rows, bytes, agents, replicas } = summary;
        let (rows, bytes) = (number(rows), number(bytes));
        Self { tenant_id: name, rows, bytes, agents: number(agents), replicas: number(replicas) }
    }
}

impl From<Described> for HubTenantDescription {
    fn from(Described { tenant, counts }: Described) -> Self {
        Self {
            tenant_id: tenant.summary.name,
            rows: number(tenant.summary.rows),
            bytes: number(tenant.summary.bytes),
            deleted_bytes: number(tenant.dead_bytes),
            latest_write_at: number(tenant.highest.ms()),
            tables: tenant.tables.into_iter().zip(counts).map(HubTable::from).collect(),
            agents: tenant.agents.into_iter().map(HubAgent::from).collect(),
            agent_count: number(tenant.summary.agents),
            replicas: number(tenant.summary.replicas),
            dropped_tables: tenant.dropped.into_iter().map(HubDroppedTable::from).collect(),
        }
    }
}

impl From<(TableDetails, RowCount)> for HubTable {
    fn from((table, count): (TableDetails, RowCount)) -> Self {
        let TableDetails { name, columns, definitions, .. } = table;
        let definitions = definitions.into_iter().map(HubDefinition::from).collect();
        Self { name, columns, rows: number(count.rows), bytes: number(count.bytes), definitions }
    }
}

impl From<DefinitionDetails> for HubDefinition {
    fn from(it: DefinitionDetails) -> Self {
        Self {
            name: it.name,
            kind: if it.is_index { "index" } else { "table" }.to_owned(),
            sql: it.text,
            declared_by: it.agent,
            replicas: number(it.replicas),
            stands: it.is_standing,
            is_dropped: it.is_dropped,
            reason: it.why,
        }
    }
}

impl From<AgentDetails> for HubAgent {
    fn from(it: AgentDetails) -> Self {
        Self { agent_id: it.name, replicas: number(it.replicas), last_seen: time(it.seen_ms) }
    }
}

impl From<DroppedTable> for HubDroppedTable {
    fn from(it: DroppedTable) -> Self {
        Self { name: it.name, dropped_at: time(it.at_ms), is_readmitted: it.is_readmitted }
    }
}

#[expect(clippy::cast_precision_loss, reason = "times within 2^53 ms")]
fn time(ms: i64) -> f64 {
    ms as f64
}
