//! What happens to agents: messages, the steps of their syncs, and how these end.

use super::Simulation;
use crate::network::{ConnectionId, Event, IDLE_MS, Packet, StreamId, Turn, decode};
use crate::process::foreign;
use crate::sync::{Flow, Remedy};
use crate::weather::Way;

impl Simulation {
    pub(super) fn arrive(&mut self, connection: ConnectionId, stream: StreamId, packet: Packet) {
        let Some(at) = self.network.process(connection) else { return };
        let process = &mut self.processes[at];
        let session = process.session;
        let message = match packet {
            Packet::Frame(frame) => {
                if let Some(other) = foreign(&frame, process.birth.tenant, self.case.tenants) {
                    self.broken = Some(format!("process {at} is told of {other}"));
                }
                Some(decode(&frame))
            }
            Packet::End => None,
            Packet::Closed | Packet::Goodbye => {
                let is_used =
                    process.sync.as_ref().is_some_and(|sync| sync.uses(connection, session.as_ref()));
                if session.is_some_and(|it| it.connection == connection) {
                    (process.session, process.attached) = (None, None);
                }
                if is_used {
                    self.fail(at, Remedy::Reconnect);
                }
                return;
            }
        };
        let Some(sync) = &mut process.sync else { return };
        if sync.listens_to(connection, stream, session.as_ref()) && sync.arrive(message) {
            self.advance(at);
        }
    }

    /// A process takes the next step of its sync.
    pub(super) fn advance(&mut self, at: usize) {
        let flow = self.processes[at].step(at, &mut self.network);
        let turn = self.processes[at].turn();
        match flow {
            Flow::Soon(ms) => self.network.queue.after(ms, Event::Process(at, turn)),
            Flow::Wait => {
                let progress = self.processes[at].sync.as_ref().map_or(0, |sync| sync.progress);
                self.network.queue.after(IDLE_MS, Event::Patience(at, turn, progress));
            }
            Flow::Complete => {
                let session = self.processes[at].session;
                if let Some(sync) = self.processes[at].sync.take() {
                    // What was on its way to the agent tells nothing about the hub that was restored meanwhile.
                    self.has_old_time &= session.is_none_or(|it| it.incarnation != self.hub.incarnation());
                    self.trace.push(format!(
                        "{} process {at} synced: {:?}",
                        self.since_beginning(),
                        sync.moved
                    ));
                    self.moved.insert(at, sync.moved);
                }
                *self.completed.entry(at).or_default() += 1;
                self.note("syncs completed");
            }
            Flow::Failed(remedy) => self.fail(at, remedy),
            Flow::Died => self.bury(at),
            Flow::Broken(what) => self.broken = Some(format!("process {at}: {what}")),
        }
    }

    pub(super) fn lose_patience(&mut self, at: usize, turn: Turn, progress: u64) {
        let process = &mut self.processes[at];
        let session = process.session;
        let Some(sync) = process.sync.as_ref().filter(|sync| sync.progress == progress) else { return };
        if process.turn() != turn {
            return;
        }
        let connection = sync.connection(session.as_ref());
        if connection.is_none_or(|connection| self.network.is_silent(connection)) {
            // Nothing was heard for so long that the connection is given up.
            process.session = None;
            if let Some(connection) = connection {
                self.network.send(connection, Way::ToHub, 0, Packet::Closed);
                self.network.forget(connection);
            }
            self.fail(at, Remedy::Reconnect);
        } else {
            self.fail(at, Remedy::None);
        }
    }

    /// A sync has failed; the agent tries once more, if that may help.
    pub(super) fn fail(&mut self, at: usize, remedy: Remedy) {
        self.note("syncs failed");
        self.trace.push(format!("{} process {at} fails: {remedy:?}", self.since_beginning()));
        let process = &mut self.processes[at];
        if !process.clean_up() {
            self.bury(at);
            return;
        }
        if remedy == Remedy::Reconnect {
            process.hang_up(&mut self.network);
        }
        match &mut process.sync {
            Some(sync) if !sync.is_retry && remedy != Remedy::None => {
                sync.retry();
                let turn = process.turn();
                self.network.queue.after(1, Event::Process(at, turn));
            }
            _ => process.sync = None,
        }
    }
}
