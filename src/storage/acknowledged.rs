//! What a hub has answered to batches, until it is booked: in turns, because a first push can be thousands of batches, and
//! booking them at once would hold up the application for seconds.

use super::bookkeeping::SentBatch;
use super::refused_rows::RefusedRow;

/// Batches that one turn of the database's thread books: 2,000 rows at most, some milliseconds of it (I7).
pub const BATCHES_PER_TURN: usize = 8;

/// Batches that the hub has acknowledged, in order.
#[derive(Debug, Default)]
pub struct Acknowledged {
    batches: Vec<(SentBatch, u64)>,
    refused: Vec<RefusedRow>,
}

/// What one turn books.
#[derive(Debug, Default)]
pub struct Booking {
    /// The batches, in order.
    pub acked: Vec<SentBatch>,
    /// Rows of these that the hub did not take.
    pub refused: Vec<RefusedRow>,
    /// Rows of these that it took.
    pub rows: u64,
}

impl Acknowledged {
    /// Adds the next batch: its rows that the hub took, and those that it did not take.
    pub fn add(&mut self, sent: SentBatch, rows: u64, refused: impl IntoIterator<Item = RefusedRow>) {
        self.batches.push((sent, rows));
        self.refused.extend(refused);
    }

    /// Whether there is nothing to book.
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Whether it takes several turns.
    pub fn takes_turns(&self) -> bool {
        self.batches.len() > BATCHES_PER_TURN
    }

    /// Takes out what the next turn books.
    pub fn next_turn(&mut self) -> Booking {
        let now = self.batches.len().min(BATCHES_PER_TURN);
        let rest = self.batches.split_off(now);
        let batches = std::mem::replace(&mut self.batches, rest);
        let last = batches.last().map_or(0, |(sent, _)| sent.mark);
        let (refused, later) =
            std::mem::take(&mut self.refused).into_iter().partition(|row| row.mark <= last);
        self.refused = later;
        Booking {
            acked: batches.iter().map(|(sent, _)| *sent).collect(),
            refused,
            rows: batches.iter().map(|(_, rows)| rows).sum(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Digest, RowId};

    #[test]
    fn each_batch_is_booked_once_in_order_with_its_refused_rows() {
        let mut acknowledged = Acknowledged::default();
        for mark in 1..=20 {
            let refused = (mark % 5 == 0).then_some(RefusedRow { mark, table: 1, id: RowId([0; 16]) });
            acknowledged.add(SentBatch { mark, digest: Digest::ZERO }, mark, refused);
        }
        let (mut marks, mut rows) = (Vec::new(), 0);
        while !acknowledged.is_empty() {
            let booking = acknowledged.next_turn();
            assert!(booking.acked.len() <= BATCHES_PER_TURN);
            let refused: Vec<_> = booking.refused.iter().map(|row| row.mark).collect();
            let expected: Vec<_> =
                booking.acked.iter().map(|sent| sent.mark).filter(|mark| mark % 5 == 0).collect();
            assert_eq!(refused, expected);
            marks.extend(booking.acked.iter().map(|sent| sent.mark));
            rows += booking.rows;
        }
        assert_eq!(marks, (1..=20).collect::<Vec<_>>());
        assert_eq!(rows, 210);
    }
}
