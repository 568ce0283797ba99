//! The agent's half of a sync, as a state machine: what was said goes in, what it means comes out.
//!
//! ```text
//! sent(n) ─┐                        ┌─► Step::Acked   (in the order of the batches)
//! sent(n+1)┼─► receive(ToAgent) ────┼─► Step::Tables  (at most once)
//! asked(2) ─┤                        ├─► Step::Compared (one for each check)
//! ended() ─┘                        ├─► Step::Rows    (positions only grow)
//!                                   └─► Step::Done    (after every ack)
//! ```

use std::collections::VecDeque;

use thiserror::Error;

use super::check::Prints;
use super::message::{Ack, Done, Refused, Rows, ToAgent};
use crate::model::{Seq, TableSchema};

/// What an answer of the hub means to the agent.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// A batch is durable.
    Acked(Ack),
    /// Tables that the agent may lack.
    Tables(Vec<TableSchema>),
    /// Fingerprints that were asked for.
    Compared(Prints),
    /// Rows to apply.
    Rows(Rows),
    /// The sync is complete.
    Done(Done),
}

/// Why a sync cannot go on.
#[derive(Debug, Error)]
pub enum ExchangeError {
    /// The hub said no, and why.
    #[error("{}", .0.message)]
    Refused(Refused),
    /// The hub broke the rules of the conversation; it is of another make or version.
    #[error("the hub answered out of order: {0}")]
    OutOfOrder(&'static str),
}

/// One sync, as the agent sees it.
#[derive(Debug)]
pub struct AgentExchange {
    unacknowledged: VecDeque<u64>,
    /// How many ranges each check asked for that is not answered.
    checks: VecDeque<usize>,
    cursor: Seq,
    last_row: Seq,
    tables_seen: bool,
    is_done: bool,
}

impl AgentExchange {
    /// A sync that begins at the agent's cursor.
    pub fn new(cursor: Seq) -> Self {
        Self {
            unacknowledged: VecDeque::new(),
            checks: VecDeque::new(),
            cursor,
            last_row: 0,
            tables_seen: false,
            is_done: false,
        }
    }

    /// Batch `n` has been sent.
    pub fn sent(&mut self, n: u64) {
        self.unacknowledged.push_back(n);
    }

    /// A check of this many ranges has been sent, which asks for no rows.
    pub fn asked(&mut self, ranges: usize) {
        self.checks.push_back(ranges);
    }

    /// Takes the hub's next message.
    pub fn receive(&mut self, message: ToAgent) -> Result<Step, ExchangeError> {
        if self.is_done {
            return Err(ExchangeError::OutOfOrder("a message after the end"));
        }
        match message {
            ToAgent::Refused(refused) => Err(ExchangeError::Refused(refused)),
            ToAgent::Ack(ack) => match self.unacknowledged.pop_front() {
                Some(n) if n == ack.n => Ok(Step::Acked(ack)),
                _ => Err(ExchangeError::OutOfOrder("an acknowledgement of a batch that was not sent")),
            },
            ToAgent::Compared(prints) => match self.checks.pop_front() {
                Some(ranges) if ranges == prints.len() => Ok(Step::Compared(prints)),
                _ => Err(ExchangeError::OutOfOrder("fingerprints that were not asked for")),
            },
            ToAgent::Tables(tables) if !self.tables_seen && self.last_row == 0 => {
                self.tables_seen = true;
                Ok(Step::Tables(tables))
            }
            ToAgent::Rows(rows) => {
                self.check_rows(&rows)?;
                Ok(Step::Rows(rows))
            }
            ToAgent::Done(done) if self.unacknowledged.is_empty() && self.checks.is_empty() => {
                if done.cursor < self.cursor.max(self.last_row) {
                    return Err(ExchangeError::OutOfOrder("a cursor that goes back"));
                }
                self.is_done = true;
                Ok(Step::Done(done))
            }
            ToAgent::Done(_) => Err(ExchangeError::OutOfOrder("the end before every answer")),
            ToAgent::Welcome(_) | ToAgent::Attached(_) | ToAgent::Tables(_) => {
                Err(ExchangeError::OutOfOrder("a message of another part of the conversation"))
            }
        }
    }

    fn check_rows(&mut self, rows: &Rows) -> Result<(), ExchangeError> {
        if !self.unacknowledged.is_empty() {
            return Err(ExchangeError::OutOfOrder("rows before every acknowledgement"));
        }
        for row in &rows.rows {
            if row.seq < self.last_row {
                return Err(ExchangeError::OutOfOrder("rows out of order"));
            }
            if usize::from(row.table) >= rows.tables.len() {
                return Err(ExchangeError::OutOfOrder("a row of a table that was not named"));
            }
            self.last_row = row.seq;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Hlc, RowId, RowUpdate, TableHeader};
    use crate::protocol::message::Refusal;

    fn ack(n: u64) -> ToAgent {
        ToAgent::Ack(Ack { n, conflicts: 0, rejected: vec![], notices: vec![], contests: vec![] })
    }

    fn rows(seq: Seq) -> ToAgent {
        let row = RowUpdate {
            table: 0,
            id: RowId([1; 16]),
            number: None,
            seq,
            whole: true,
            united: None,
            writes: vec![],
        };
        let table = TableHeader { name: "t".into(), columns: vec![] };
        ToAgent::Rows(Rows { tables: vec![table], rows: vec![row] })
    }

    fn done(cursor: Seq) -> ToAgent {
        ToAgent::Done(Done {
            cursor,
            highest: Hlc::ZERO,
            hub_now_ms: 0,
            clock: vec![],
            retired: None,
            horizon: 0,
            refused: vec![],
            notices: vec![],
        })
    }

    #[test]
    fn an_orderly_sync_passes() {
        let mut exchange = AgentExchange::new(3);
        exchange.sent(7);
        exchange.sent(8);
        for message in [ack(7), ack(8), ToAgent::Tables(vec![]), rows(4), rows(9), rows(9), done(9)] {
            exchange.receive(message).unwrap();
        }
        assert!(exchange.receive(done(9)).is_err());
    }

    #[test]
    fn what_is_out_of_order_is_refused() {
        for messages in [
            vec![ack(8)],
            vec![ack(7), ack(7)],
            vec![rows(4)],
            vec![done(9)],
            vec![ack(7), rows(9), rows(4)],
            vec![ack(7), done(2)],
            vec![ack(7), rows(9), done(8)],
            vec![ack(7), rows(9), ToAgent::Tables(vec![])],
            vec![ToAgent::Compared(vec![])],
        ] {
            let mut exchange = AgentExchange::new(3);
            exchange.sent(7);
            let outcome = messages.iter().try_for_each(|m| exchange.receive(m.clone()).map(drop));
            assert!(matches!(outcome, Err(ExchangeError::OutOfOrder(_))), "{messages:?}");
        }
    }

    #[test]
    fn fingerprints_are_as_many_as_were_asked_for_and_come_before_the_end() {
        let mut exchange = AgentExchange::new(3);
        exchange.asked(2);
        assert!(matches!(exchange.receive(done(9)), Err(ExchangeError::OutOfOrder(_))));
        exchange.receive(ToAgent::Compared(vec![None, None])).unwrap();
        exchange.receive(done(9)).unwrap();
        let mut exchange = AgentExchange::new(3);
        exchange.asked(2);
        assert!(exchange.receive(ToAgent::Compared(vec![None])).is_err());
    }

    #[test]
    fn a_refusal_comes_through_at_any_point() {
        let refused = Refused::new(Refusal::Stale, "attach again");
        let mut exchange = AgentExchange::new(0);
        exchange.sent(1);
        assert!(matches!(
            exchange.receive(ToAgent::Refused(refused.clone())),
            Err(ExchangeError::Refused(said)) if said == refused
        ));
    }
}
