//! The hub, in a process whose end is noticed and whose memory is measured.

use std::fmt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::parts;
use crate::place::Place;

/// Runs the hub, until it is killed. Any panic ends the process, also one that would cost a task only.
pub fn play(place: &Place) {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        print(panic);
        std::process::abort();
    }));
    parts::play("hub", place);
}

/// What a process takes of memory, in MiB; nothing where the system does not say.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    now_mib: Option<u64>,
    pub most_mib: Option<u64>,
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.now_mib, self.most_mib) {
            (Some(now), Some(most)) => write!(f, "{now} MiB, {most} MiB at most"),
            _ => write!(f, "unknown"),
        }
    }
}

/// A hub's process. Dropped, it ends.
pub struct HubProcess(Child);

impl HubProcess {
    pub fn start(place: &Place) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg("--place").arg(place.folder()).stdin(Stdio::null());
        let hub = Self(command.spawn().unwrap());
        // Whoever comes first waits for it.
        std::thread::sleep(Duration::from_millis(200));
        hub
    }

    /// Panics if the hub has.
    pub fn check(&mut self) {
        let ended = self.0.try_wait().unwrap();
        assert!(ended.is_none(), "the hub has ended: {ended:?}");
    }

    pub fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }

    pub fn memory(&self) -> Memory {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap_or_default();
        let mib = |field: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(field))?;
            line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib / 1024)
        };
        Memory { now_mib: mib("VmRSS:"), most_mib: mib("VmHWM:") }
    }
}

impl Drop for HubProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
