//! What has to hold when the killing is over.

use std::fmt;

use federation_hub::model::Value;
use rusqlite::Connection;

use crate::parts::{Member, start_hub};
use crate::place::{Place, agents};

/// Syncs until nothing comes or goes any more: more than this, and something is wedged.
const MOST_SYNCS: usize = 30;

/// What there was to lose.
pub struct Verdict {
    rows: usize,
    acknowledged: i64,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rows at the end, {} of them acknowledged, none lost", self.rows, self.acknowledged)
    }
}

/// Panics if anything is not as it should be.
pub fn reach(place: &Place) -> Verdict {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let verdict = runtime.block_on(async {
        let hub = start_hub(place).await;
        let mut names = agents();
        // One that sees what the hub has, and nothing else.
        names.push("newcomer".to_owned());
        let members: Vec<Member> = names.iter().map(|name| Member::new(place, name)).collect();
        settle(&members, &names).await;
        let verdict = compare(place, &members, &names).await;
        drop(members);
        hub.stop().await;
        verdict
    });
    for file in agents().iter().map(|name| place.database(name)).chain([place.hub_store()]) {
        let found: String = Connection::open(&file)
            .unwrap()
            .query_row("PRAGMA integrity_check", [], |row| row.get(0))
            .unwrap();
        assert_eq!(found, "ok", "{}", file.display());
    }
    verdict
}

async fn settle(members: &[Member], names: &[String]) {
    for round in 0.. {
        assert!(round < MOST_SYNCS, "after {MOST_SYNCS} rounds there is still something to sync");
        let mut moved = 0;
        for (member, name) in members.iter().zip(names) {
            moved += member.sync().await.unwrap_or_else(|error| panic!("{name} is wedged: {error}"));
        }
        if moved == 0 && round > 0 {
            return;
        }
    }
}

async fn compare(place: &Place, members: &[Member], names: &[String]) -> Verdict {
    let mut acknowledged = 0;
    let newcomer = members.last().unwrap();
    let notes = newcomer.rows("SELECT author, n, body FROM notes ORDER BY author, n").await;
    let marks = "SELECT author, n, mark FROM marks JOIN notes ON notes.id = note ORDER BY 1, 2, 3";
    let all_marks = newcomer.rows(marks).await;
    for (member, name) in members.iter().zip(names) {
        assert_eq!(
            member.rows("SELECT author, n, body FROM notes ORDER BY author, n").await,
            notes,
            "{name}"
        );
        assert_eq!(member.rows(marks).await, all_marks, "{name}");
        let set_aside = member.rows("SELECT count(*) FROM _federation_quarantine").await;
        assert_eq!(set_aside, vec![vec![Value::Integer(0)]], "{name}");
        assert_eq!(member.rows("PRAGMA foreign_key_check").await, Vec::<Vec<Value>>::new(), "{name}");
        let lines = std::fs::read_to_string(place.acknowledged(name)).unwrap_or_default();
        let last = lines.lines().filter_map(|line| line.parse::<i64>().ok()).max().unwrap_or(0);
        for n in 1..=last {
            let is_it = |row: &Vec<Value>| row[..2] == [Value::Text(name.clone()), Value::Integer(n)];
            assert!(notes.iter().any(is_it), "{name}'s row {n} was acknowledged, and is lost");
        }
        acknowledged += last;
    }
    assert!(acknowledged > 0, "a run in which nothing is acknowledged proves nothing");
    Verdict { rows: notes.len(), acknowledged }
}
