//! What foreign keys did by themselves on the replica that deleted a parent: derived by everybody, and therefore
//! nobody's write.

use std::collections::BTreeSet;

use federation_hub::model::{CellValue, Seq, Value};

use super::history::{RowKey, What};
use super::living::{Raws, replacement};
use super::schema::{ForeignKey, OnDelete};
use super::tenant::Tenant;

/// Forgets, of everything that an author's last batch did, the effects of its deletes.
pub fn forget(tenant: &mut Tenant, author: u64) {
    let batch = tenant.batches();
    // Its author deleted a row as it was told, or as its own writes had made it.
    let (mut before, earlier) = (tenant.raws(&|_| true), tenant.raws(&|entry| entry.batch != batch));
    for row in tenant.rows_with(|it| it.batch == batch && (it.is_effect || it.what == What::Delete)) {
        if tenant.birth(&row).batch != batch {
            before.insert(row.clone(), earlier[&row].clone());
        }
    }
    let seen = Seen { told: told(tenant, &before), before };
    let (mut gone, mut cut) = (BTreeSet::new(), BTreeSet::new());
    for row in tenant.rows_with(|entry| entry.batch == batch && entry.is_effect) {
        if tenant.birth(&row).batch == batch {
            continue;
        }
        for (what, base) in tenant.effects(&row) {
            let by = (author, base);
            match what {
                What::Delete if seen.has_gone_with_a_parent(tenant, &row, by) => {
                    gone.insert(row.clone());
                }
                What::Set(column, value) if seen.is_cut(tenant, &row, (&column, &value), by) => {
                    cut.insert((row.clone(), column));
                }
                _ => {}
            }
        }
    }
    tenant.forget(|row, entry| {
        let of_column = || entry.column().is_some_and(|it| cut.contains(&(row.clone(), it.to_owned())));
        entry.batch == batch && (entry.what == What::Delete && gone.contains(row) || of_column())
    });
}

/// Rows before the batch.
struct Seen {
    /// As their own writes had made them.
    before: Raws,
    /// As they were told.
    told: Raws,
}

/// Who deleted, and what he had seen.
type By = (u64, Seq);

impl Seen {
    /// The rows that a row may have referenced where it was deleted.
    fn parents(&self, tenant: &Tenant, row: &RowKey, on_delete: OnDelete) -> BTreeSet<RowKey> {
        let raws = [&self.before, &self.told].into_iter();
        let all = raws.flat_map(|raws| tenant.claims().family_before(tenant, raws).parents(row));
        all.filter(|(key, _)| key.on_delete == on_delete).map(|(_, parent)| parent).collect()
    }

    fn has_gone_with_a_parent(&self, tenant: &Tenant, row: &RowKey, by: By) -> bool {
        // Back among the living it would keep those.
        let kept = self.parents(tenant, row, OnDelete::Keep);
        tenant.is_deleted_by(row, by.0, by.1)
            && !kept.iter().any(|parent| is_deleted(tenant, parent, by))
            && self.is_any_gone(tenant, self.parents(tenant, row, OnDelete::Cascade), by)
    }

    /// Whether one of these rows was deleted, or went with one that was.
    fn is_any_gone(&self, tenant: &Tenant, rows: BTreeSet<RowKey>, by: By) -> bool {
        let (mut seen, mut open) = (rows.clone(), rows);
        while let Some(row) = open.pop_first() {
            if is_deleted(tenant, &row, by) {
                return true;
            }
            let parents = self.parents(tenant, &row, OnDelete::Cascade);
            open.extend(parents.into_iter().filter(|parent| seen.insert(parent.clone())));
        }
        false
    }

    /// Whether a clause has put this where the hub puts it as well.
    fn is_cut(&self, tenant: &Tenant, row: &RowKey, cell: (&str, &CellValue), by: By) -> bool {
        let schema = tenant.schema();
        let can = |key: &ForeignKey| {
            let value = |column: &str| replacement(key, schema.column(&key.child, column));
            let is_taken = |column: &str| {
                let column = schema.column(&key.child, column);
                column.is_nullable && replacement(key, column) == Value::Null
            };
            key.columns.iter().all(|(column, _)| is_taken(column))
                && key.columns.iter().any(|(column, _)| column == cell.0)
                && *cell.1 == CellValue::Plain(value(cell.0))
        };
        let family = tenant.claims().family_before(tenant, &self.before);
        family.parents(row).into_iter().any(|(key, parent)| {
            matches!(key.on_delete, OnDelete::SetNull | OnDelete::SetDefault)
                && can(key)
                && self.is_any_gone(tenant, [parent].into(), by)
        })
    }
}

/// Whether a row, or one that is one with it, was deleted.
fn is_deleted(tenant: &Tenant, row: &RowKey, by: By) -> bool {
    let unions = &tenant.claims().unions;
    unions.members(&unions.entity(row)).iter().any(|member| tenant.is_deleted_by(member, by.0, by.1))
}

/// Rows as they were told before the batch, each also under the identity that it had before it was united.
fn told(tenant: &Tenant, own: &Raws) -> Raws {
    let claims = tenant.claims();
    let mut told = own.clone();
    for (row, raw) in &mut told {
        for (column, value) in claims.shown.get(&claims.unions.entity(row)).into_iter().flatten() {
            if let Some(cell) = raw.cells.get_mut(column) {
                cell.value = value.clone();
            }
        }
    }
    told
}
