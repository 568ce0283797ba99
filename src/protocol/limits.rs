//! The bounds on what one side takes from the other (invariant I17), in one place.
//!
//! A frame's own bound is [`super::frame::MAX_FRAME_BYTES`].

use super::frame::MAX_FRAME_BYTES;

/// The largest frame that a hub reads before it knows who is calling, in bytes: a token and two names.
pub const MAX_HELLO_BYTES: usize = 16 << 10;

/// The longest token, in bytes: it goes into the frame above, with two names.
pub const MAX_TOKEN_BYTES: usize = 8 << 10;

/// The longest tenant or agent name, in bytes.
pub const MAX_ID_BYTES: usize = 512;

/// The longest table or column name, in bytes.
pub const MAX_NAME_BYTES: usize = 255;

/// The most tables that a tenant may have, and that a database shares.
pub const MAX_TABLES: usize = 1_000;

/// The most columns that a shared table may have. A query has 2,000 of them at most, and reads a row's key and generated
/// columns that are referenced besides.
pub const MAX_COLUMNS: usize = 1_900;

/// The most [`crate::model::Origin`]s of a table: as many renamed columns, and renamings of one, as no application comes near.
pub const MAX_ORIGINS: usize = 4 * MAX_COLUMNS;

/// The most columns that a PRIMARY KEY may have: as many names of the longest kind as a table's text has room for. SQLite
/// takes any number; but a row is looked up by two comparisons for each, and an expression has at most 1,000 in a row.
pub const MAX_KEY_COLUMNS: usize = 255;

/// What all of a tenant's table definitions may take, in bytes: they travel in one message.
pub const MAX_SCHEMA_BYTES: usize = 8 << 20;

/// The largest row that a hub stores, in bytes: the row and its table's header must fit in one frame.
pub const MAX_ROW_BYTES: usize = MAX_FRAME_BYTES - (1 << 20);

/// How many batches of one sync may wait for the store before the hub stops reading more.
pub const MAX_BATCHES_IN_FLIGHT: usize = 4;

/// How many bytes of batches of one sync may wait for the store before the hub stops reading more.
pub const MAX_BYTES_IN_FLIGHT: usize = 2 * MAX_FRAME_BYTES;

/// The rows of one [`super::message::Rows`], at most.
pub const CHUNK_ROWS: usize = 2_000;

/// The bytes of rows after which a [`super::message::Rows`] is full. A single row may exceed it.
pub const CHUNK_BYTES: usize = 256 << 10;

/// The entries of one [`super::message::Done::clock`], at most; the newest are told (I10).
pub const MAX_CLOCK_ENTRIES: usize = 4_096;

/// The entries of one [`super::message::Ack::notices`], at most.
pub const MAX_ACK_NOTICES: usize = 20;

/// The entries of one [`super::message::Done::notices`], at most.
pub const MAX_DONE_NOTICES: usize = 20;

/// The definitions of one table that are remembered, at most: texts of it and of indexes, each of which some live
/// replica declares.
pub const MAX_DEFINITIONS: usize = 128;

/// Those of them that make the table, at most: each of these is tried out whenever it is decided which one stands.
pub const MAX_TEXTS: usize = 16;

/// The entries of one [`super::message::BatchBody::collisions`], at most.
pub const MAX_COLLISIONS: usize = 64;

/// The entries of one [`super::message::Attached::past`], at most. An agent that has not been heard of for so many
/// restarts of its hub starts again.
pub const MAX_PAST_INCARNATIONS: usize = 16;

/// The entries of one [`super::message::Attached::rejected`], at most; the last are told.
pub const MAX_TOLD_REJECTED: usize = 1_000;

/// The bytes of values in one [`super::message::Ack::contests`], at most.
pub const MAX_CONTEST_BYTES: usize = 4 << 20;

/// How far ahead of the hub's time a stamp may be, in ms.
pub const MAX_CLOCK_LEAD_MS: u64 = 60_000;

/// The ranges of one [`super::check::Check`], at most.
pub const MAX_CHECK_RANGES: usize = 64;

/// The rows that the hub looks at for one [`super::check::Check`], and those that one range leaves out, at most.
pub const MAX_CHECK_ROWS: usize = 256;

/// The bytes of rows after which the hub looks at no other for one [`super::check::Check`].
pub const MAX_CHECK_BYTES: usize = 4 << 20;
