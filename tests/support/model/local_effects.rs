//! What foreign keys did by themselves on the replica that deleted a parent: derived by everybody, and therefore
//! nobody's write.

use std::collections::BTreeSet;

use federation_hub::model::{CellValue, Value};

use super::history::{Entry, RowKey, What};
use super::living::Raws;
use super::schema::OnDelete;
use super::tenant::Tenant;

/// Forgets, of everything that one push did, the effects of its own deletes. A push is known by its writer and
/// the count of its sync.
pub fn forget(tenant: &mut Tenant, push: (u64, u64)) {
    let deleted = tenant.deleted_by(push);
    let cascaded = cascaded(tenant, &deleted);
    let batch = tenant.batches();
    // A clause's NULL comes with the delete or, if the push is split, after it: one that came before is a write.
    let is_null = |entry: &Entry| {
        entry.batch == batch
            && matches!(&entry.what, What::Set(_, value) if *value == CellValue::Plain(Value::Null))
    };
    let before = tenant.raws(&|entry| !is_null(entry));
    let family = tenant.claims().family_before(tenant, &before);
    let mut nulled = BTreeSet::new();
    for row in tenant.rows_with(is_null) {
        for (key, parent) in family.parents(&row) {
            if key.on_delete == OnDelete::SetNull && !among(tenant, &parent, &deleted).is_empty() {
                nulled.extend(key.columns.iter().map(|(column, _)| (row.clone(), column.clone())));
            }
        }
    }
    tenant.forget(|row, entry| {
        let of_column = || entry.column().is_some_and(|it| nulled.contains(&(row.clone(), it.to_owned())));
        entry.push == push && entry.what == What::Delete && cascaded.contains(row)
            || is_null(entry) && of_column()
    });
}

/// Of rows that were deleted, those that are this one, or one with it.
fn among(tenant: &Tenant, row: &RowKey, deleted: &BTreeSet<RowKey>) -> Vec<RowKey> {
    let unions = &tenant.claims().unions;
    let members = unions.members(&unions.entity(row));
    members.into_iter().filter(|member| deleted.contains(member)).collect()
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

/// Rows whose delete follows, over CASCADE, from the delete of another row of the push. Asked are those of the batch, and
/// those that reference a row which it deleted: what was an earlier batch's own doing stays that.
fn cascaded(tenant: &Tenant, deleted: &BTreeSet<RowKey>) -> BTreeSet<RowKey> {
    let batch = tenant.batches();
    let of_batch = tenant.rows_with(|entry| entry.batch == batch);
    let deleted_now = tenant.rows_with(|entry| entry.batch == batch && entry.what == What::Delete);
    // Its author deleted a row as it was told, or as its own writes had made it.
    let own = tenant.raws(&|_| true);
    let told = told(tenant, &own);
    let all_parents = |row: &RowKey| {
        let raws = [&own, &told].into_iter();
        raws.flat_map(|raws| tenant.claims().family_before(tenant, raws).parents(row)).collect::<Vec<_>>()
    };
    let is_asked = |row: &RowKey| {
        let lost_one = |(_, parent): &(_, RowKey)| !among(tenant, parent, &deleted_now).is_empty();
        of_batch.contains(row) || all_parents(row).iter().any(lost_one)
    };
    let deleted_parents = |row: &RowKey, on_delete: OnDelete| -> Vec<RowKey> {
        let parents = all_parents(row).into_iter().filter(|(key, _)| key.on_delete == on_delete);
        parents.flat_map(|(_, parent)| among(tenant, &parent, deleted)).collect()
    };
    let parents = |row: &RowKey| match deleted_parents(row, OnDelete::Keep)[..] {
        _ if !is_asked(row) => Vec::new(),
        [] => deleted_parents(row, OnDelete::Cascade),
        // Back among the living it would keep that one.
        _ => Vec::new(),
    };
    // Rows in a circle explain nothing, unless a delete outside explains one of them.
    let mut explained: BTreeSet<RowKey> =
        deleted.iter().filter(|row| parents(row).is_empty()).cloned().collect();
    let roots = explained.clone();
    loop {
        let more: Vec<RowKey> = deleted
            .iter()
            .filter(|row| !explained.contains(*row) && parents(row).iter().any(|it| explained.contains(it)))
            .cloned()
            .collect();
        if more.is_empty() {
            return explained.difference(&roots).cloned().collect();
        }
        explained.extend(more);
    }
}
