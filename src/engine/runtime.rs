//! The thread and the socket that all agents of a process share.
//!
//! A current-thread runtime: measured, it beats a multi-threaded one in every figure here, because nothing
//! that an agent does between two waits takes long.

use std::future::Future;
use std::sync::{LazyLock, OnceLock};

use thiserror::Error;
use tokio::runtime::{Builder, Handle};

use crate::transport::AgentEndpoint;

/// The background thread could not be started: the system is out of threads or memory.
#[derive(Clone, Debug, Error)]
#[error("cannot start the background thread: {0}")]
pub struct RuntimeError(String);

/// The shared runtime, started at its first use. It lives as long as the process, and keeps none alive.
pub fn handle() -> Result<&'static Handle, RuntimeError> {
    static RUNTIME: OnceLock<Result<Handle, RuntimeError>> = OnceLock::new();
    RUNTIME.get_or_init(start).as_ref().map_err(Clone::clone)
}

/// The UDP socket that all agents on the shared thread connect from, made at its first use. It keeps no process alive.
pub fn endpoint() -> AgentEndpoint {
    static ENDPOINT: LazyLock<AgentEndpoint> = LazyLock::new(AgentEndpoint::new);
    ENDPOINT.clone()
}

/// Runs a future on the shared thread.
pub fn spawn(future: impl Future<Output = ()> + Send + 'static) -> Result<(), RuntimeError> {
    handle()?.spawn(future);
    Ok(())
}

fn start() -> Result<Handle, RuntimeError> {
    let failed = |error: std::io::Error| RuntimeError(error.to_string());
    let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let handle = runtime.handle().clone();
    std::thread::Builder::new()
        .name("federation-agents".into())
        .spawn(move || runtime.block_on(std::future::pending::<()>()))
        .map_err(failed)?;
    Ok(handle)
}
