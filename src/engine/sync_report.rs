//! What a sync tells its caller.

use std::collections::BTreeMap;

use crate::storage::told::some_of;

/// How many names one notice lists.
const MAX_NAMES: usize = 20;

/// What a sync did, in rows and bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SyncReport {
    /// Rows that others changed and that were inserted, updated or deleted here.
    pub pulled: u64,
    /// Rows changed here that the hub has made durable.
    pub pushed: u64,
    /// Pushed cells whose value differed from a write of another replica that this one had not seen.
    pub conflicts: u64,
    /// Rows of others that are set aside, because they cannot be applied here at present.
    pub quarantined: u64,
    /// Rows changed here that cannot be shared.
    pub rejected: u64,
    /// Rows that were not as the hub has them, though nobody had written them as far as capture saw, and that were
    /// restored, or offered to the hub.
    pub healed: u64,
    /// Whether something was written here that is not sent, because the token permits no writing, or the hub has no
    /// room for it.
    pub is_held_back: bool,
    /// How long the sync took, in ms.
    pub duration_ms: f64,
    /// Bytes of frames sent.
    pub bytes_sent: u64,
    /// Bytes of frames received.
    pub bytes_received: u64,
    /// What people should know: rows that were set aside or rejected, and why.
    pub notices: Vec<String>,
}

impl SyncReport {
    /// Adds a notice once; many rows can have one reason.
    pub(super) fn note(&mut self, notice: String) {
        if !self.notices.contains(&notice) {
            self.notices.push(notice);
        }
    }

    /// Adds each of these notices once.
    pub(super) fn note_all(&mut self, notices: impl IntoIterator<Item = String>) {
        notices.into_iter().for_each(|notice| self.note(notice));
    }

    /// Tells of tables that the hub does not take: one notice for each reason, in place of one for each of their rows.
    pub(super) fn tell_refused(&mut self, refused: &[(String, String)]) {
        for (_, reason) in refused {
            self.notices.retain(|notice| !notice.ends_with(reason.as_str()));
        }
        for (reason, tables) in by_reason(refused) {
            self.note(match tables[..] {
                [table] => format!("table {table} is not shared: {reason}"),
                _ => format!("tables {} are not shared: {reason}", some_of(&tables, MAX_NAMES, "others")),
            });
        }
    }

    /// Tells of tables that this agent does not share, and why; but for those of which the hub has said why just now.
    pub(super) fn tell_left_alone(&mut self, left_alone: &[(String, String)], refused: &[(String, String)]) {
        let is_told = |table: &str| refused.iter().any(|(name, _)| name.eq_ignore_ascii_case(table));
        for (why, tables) in by_reason(left_alone.iter().filter(|(table, _)| !is_told(table))) {
            self.note(format!("not shared: {} ({why})", some_of(&tables, MAX_NAMES, "others")));
        }
    }
}

/// Tables, each with the reason for something, by these reasons.
fn by_reason<'a>(tables: impl IntoIterator<Item = &'a (String, String)>) -> BTreeMap<&'a str, Vec<&'a str>> {
    let mut by_reason: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (table, reason) in tables {
        by_reason.entry(reason).or_default().push(table);
    }
    by_reason
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Breaks if a thousand tables make a thousand notices, or one that nobody can read.
    #[test]
    fn tables_with_one_reason_are_one_notice_of_a_readable_length() {
        let mut report = SyncReport::default();
        let tables = |count: usize, why: &str| {
            (0..count).map(|n| (format!("t{n}"), why.to_owned())).collect::<Vec<_>>()
        };
        report.note("a row of t7 is rejected: no room".into());
        report.tell_refused(&tables(1_000, "no room"));
        report.tell_left_alone(&[tables(2, "a view"), tables(21, "too many")].concat(), &[]);
        report.tell_left_alone(&tables(2, "no room here either"), &tables(2, "no room"));
        let [refused, view, many] = &report.notices[..] else { panic!("{:?}", report.notices) };
        assert!(
            refused.starts_with("tables t0, t1, ")
                && refused.ends_with("t19 and 980 others are not shared: no room")
        );
        assert_eq!(view, "not shared: t0, t1 (a view)");
        assert!(many.ends_with("t19 and 1 others (too many)"), "{many}");
    }
}
