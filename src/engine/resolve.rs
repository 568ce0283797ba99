//! Conflicts that the application resolves itself: asked on the replica whose write the hub found concurrent.
//!
//! The answer is an ordinary write, captured as such and sent by the next sync. Until then, and where there is no
//! answer, the later write stands.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::agent_error::AgentError;
use super::sync::SyncJob;
use super::turn::turn;
use crate::model::{CellValue, Rule, Stamp, Value};
use crate::protocol::message::Contested;
use crate::storage::resolution::{Resolution, write};

/// One of two concurrent writes.
#[derive(Clone, Debug, PartialEq)]
pub struct Side {
    /// What was written.
    pub value: Value,
    /// When, in ms since the epoch, by the hub's clock.
    pub written_at_ms: u64,
    /// By which agent; empty if nobody knows.
    pub agent: String,
}

/// Two concurrent writes of one cell.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// The table.
    pub table: String,
    /// The column.
    pub column: String,
    /// What was written here.
    pub local: Side,
    /// What was written elsewhere.
    pub remote: Side,
}

/// Whatever resolves conflicts: a function of the application.
pub trait ConflictResolver: Send + Sync {
    /// Asks what follows from two writes. An error is told to people, and the later write stands. Whoever drops
    /// `answer` has none.
    fn resolve(&self, question: Question, answer: oneshot::Sender<Result<Value, String>>);
}

impl SyncJob<'_> {
    /// Has the application resolve what this sync has found. Returns what people should know.
    pub(super) async fn resolve(&self, contests: Vec<Contested>) -> Result<Vec<String>, AgentError> {
        let mut notices = Vec::new();
        let Some(resolver) = self.resolver.clone() else { return Ok(notices) };
        for contest in contests {
            if self.options.rule(&contest.table, &contest.column) != Some(Rule::Resolver) {
                continue;
            }
            let place = format!("{}.{}", contest.table, contest.column);
            let (Some(local), Some(remote)) =
                (side(&contest.local, &self.agent_id), side(&contest.remote, &contest.agent))
            else {
                continue;
            };
            let question = Question {
                table: contest.table.clone(),
                column: contest.column.clone(),
                local: local.clone(),
                remote: remote.clone(),
            };
            match ask(&resolver, question).await {
                Ok(value) => {
                    let resolution = Resolution { contest, local: local.value, remote: remote.value, value };
                    if let Err(why) = self.write_resolution(resolution).await? {
                        notices
                            .push(format!("what the resolver of {place} returned cannot be written: {why}"));
                    }
                }
                Err(why) => notices
                    .push(format!("the resolver of {place} failed, so that the later write stands: {why}")),
            }
        }
        Ok(notices)
    }

    async fn write_resolution(&self, resolution: Resolution) -> Result<Result<(), String>, AgentError> {
        let Some(cached) = self.database.catalog.clone() else { return Ok(Ok(())) };
        turn(self.driver, self.patience, move |sql| write(sql, &cached.catalog, &resolution)).await
    }
}

fn side((stamp, value): &(Stamp, CellValue), agent: &str) -> Option<Side> {
    match value {
        CellValue::Plain(value) => {
            Some(Side { value: value.clone(), written_at_ms: stamp.hlc.ms(), agent: agent.to_owned() })
        }
        CellValue::Ref(_) => None,
    }
}

async fn ask(resolver: &Arc<dyn ConflictResolver>, question: Question) -> Result<Value, String> {
    let (answer, answered) = oneshot::channel();
    resolver.resolve(question, answer);
    answered.await.unwrap_or_else(|_| Err("it gave no answer".to_owned()))
}
