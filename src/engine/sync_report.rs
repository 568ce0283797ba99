//! What a sync tells its caller.

use crate::protocol::message::Done;

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

    /// Tells of a table whose rows wait until the application has made it.
    pub(super) fn note_held_back(&mut self, table: &str) {
        self.note(format!(
            "table {table} of this tenant is not made here (createSchema: false): its rows are held back until the \
             application has made it"
        ));
    }

    /// Tells of tables that the hub does not take: one notice each, in place of one for each of their rows.
    pub(super) fn tell_refused(&mut self, done: &Done) {
        for (table, reason) in &done.refused {
            self.notices.retain(|notice| !notice.ends_with(reason.as_str()));
            self.note(format!("table {table} is not shared: {reason}"));
        }
    }
}
