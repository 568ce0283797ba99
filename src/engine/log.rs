//! The log of a process that runs hubs: what happened, and the audit trail, on standard error.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use thiserror::Error;
use tracing::level_filters::LevelFilter;
use tracing::subscriber::set_global_default;
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::{Layer as _, Registry};

use super::audit;

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Human,
    /// An object in each line.
    Json,
}

/// What is logged, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// How lines are written.
    pub format: LogFormat,
    /// The least important that is written of what happens in the library. The audit trail is written in any case.
    pub level: LevelFilter,
}

impl fmt::Display for LogOptions {
    /// As whoever starts a hub says it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let format = match self.format {
            LogFormat::Human => "human",
            LogFormat::Json => "json",
        };
        write!(f, "log: '{format}', logLevel: '{}'", self.level)
    }
}

/// A process has one log. Have all its hubs log in the same way, or all but one not at all.
#[derive(Debug, Error)]
pub enum LogError {
    /// Another hub of the process has begun another one.
    #[error(
        "another hub of this process logs otherwise ({0}): a process has one log, pass the same log and logLevel"
    )]
    Otherwise(LogOptions),
    /// The program listens to `tracing` itself. Turn the hub's log off: everything reaches the program's own.
    #[error("this program has a log of its own, which gets what the hub would log: pass log: 'off'")]
    Taken,
}

/// Lines that wait for standard error to be read, at most. More are dropped, and counted.
const MAX_WAITING_LINES: usize = 4_096;

/// Standard error, written to by a thread of its own: whoever starts a hub may not read it, and the hub must not wait for that.
/// None until there is a line.
static STDERR: Mutex<Option<(NonBlocking, WorkerGuard)>> = Mutex::new(None);

/// Lines that writers dropped which are no more.
static DROPPED_BEFORE: AtomicUsize = AtomicUsize::new(0);

/// Writes lines to [`STDERR`].
struct Lines;

impl MakeWriter<'_> for Lines {
    type Writer = NonBlocking;

    fn make_writer(&self) -> NonBlocking {
        let begin = || {
            let builder = NonBlockingBuilder::default().lossy(true);
            builder.buffered_lines_limit(MAX_WAITING_LINES).finish(std::io::stderr())
        };
        let mut writer = STDERR.lock().unwrap_or_else(PoisonError::into_inner);
        writer.get_or_insert_with(begin).0.clone()
    }
}

/// Waits until the lines that were logged are written, for about a second at most. Blocks.
pub fn flush() {
    let Some((writer, guard)) = STDERR.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
    // Its thread writes what waits, and ends. The next line begins another one.
    drop(guard);
    DROPPED_BEFORE.fetch_add(writer.error_counter().dropped_lines(), Ordering::Relaxed);
}

/// Lines that were dropped since the process began, because nobody reads its standard error.
pub fn dropped_lines() -> u64 {
    let writer = STDERR.lock().unwrap_or_else(PoisonError::into_inner);
    let now = writer.as_ref().map_or(0, |(writer, _)| writer.error_counter().dropped_lines());
    (DROPPED_BEFORE.load(Ordering::Relaxed) + now) as u64
}

/// The log that this process has; once begun, it stays.
static BEGUN: Mutex<Option<LogOptions>> = Mutex::new(None);

/// Begins the process's log, unless it is the one that it has already.
pub fn begin(options: LogOptions) -> Result<(), LogError> {
    let mut begun = BEGUN.lock().unwrap_or_else(PoisonError::into_inner);
    match *begun {
        Some(had) if had == options => return Ok(()),
        Some(had) => return Err(LogError::Otherwise(had)),
        None => {}
    }
    // Other crates are heard only when something is wrong: what they tell otherwise is about packets.
    let wanted = Targets::new()
        .with_default(options.level.min(LevelFilter::WARN))
        .with_target("federation_hub", options.level)
        .with_target(audit::TARGET, LevelFilter::INFO);
    let lines = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(Lines);
    let installed = match options.format {
        LogFormat::Human => set_global_default(Registry::default().with(lines.with_filter(wanted))),
        LogFormat::Json => {
            set_global_default(Registry::default().with(lines.json().flatten_event(true).with_filter(wanted)))
        }
    };
    installed.map_err(|_| LogError::Taken)?;
    *begun = Some(options);
    Ok(())
}
