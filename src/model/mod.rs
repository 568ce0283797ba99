//! The pure heart: what a change is, and which of two wins.
//!
//! Nothing here reads a clock, a file, a socket or randomness (invariant I3); whoever calls passes them in.
//! The layer above, `protocol`, moves these values; `storage` writes them down.

mod change;
mod clock;
mod effective;
mod id;
mod made;
mod merge;
mod rule;
mod rule_set;
mod ruled;
mod schema;
mod stamp;
mod value;

pub use change::{ColumnIndex, Op, RowChange, RowUpdate, Seq, TableHeader, Write};
pub use clock::{ClockOrder, VectorClock};
pub use effective::{NOBODY, Remainder, Verdict};
pub use id::{Digest, ReplicaId, RowId};
pub use made::{Addition, Made};
pub use merge::{Cell, Merged, RowState};
pub use rule::{Adjustment, Number, Rule, sqlite_order};
pub use ruled::{Contest, RuleBook};
pub use schema::{AgreedReference, Agreement, ByColumn, KeyKind, NeedsApplication, Origin, TableSchema};
pub use stamp::{Hlc, Stamp, StampSource};
pub use value::{CellValue, Value, whole};
