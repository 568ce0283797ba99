//! Pushes count once: lost batches, lost acknowledgements, late batches, copies and older states of a database
//! (invariant I12).

use super::{all_sync, memories, newcomer, replica, titles, uses};
use crate::world::{Agent, Fate};
use federation_hub::model::Value;
use federation_hub::protocol::hub_request::Caller;
use federation_hub::protocol::message::{BatchBody, Refusal};
use federation_hub::storage::hub_store::StoreError;

fn caller_a() -> Caller {
    Caller { tenant: "acme".into(), agent: "a".into() }
}

/// If an agent did not mark what was lost as unsent again, the lost batch's rows stayed here for good. If it did so
/// although the hub has them, the increment counted twice.
#[test]
fn a_batch_that_never_arrived_is_composed_anew_and_one_whose_answer_was_lost_is_not() {
    for fate in [Fate::LosesBatch, Fate::LosesAnswer] {
        let (mut hub, mut a, mut b) = memories();
        a.run("INSERT INTO notes VALUES('y', 'two')").run("UPDATE skills SET uses = uses + 1");
        assert_eq!(a.sync_with(&mut hub, fate, &mut |_| {}), None);
        a.run("UPDATE notes SET title = 'two, edited' WHERE id = 'y'");
        let counts = a.sync(&mut hub);
        assert_eq!(counts.conflicts, 0, "{fate:?}");
        all_sync(&mut hub, &mut [&mut a, &mut b]);
        assert_eq!(titles(&mut b), ["one", "two, edited"], "{fate:?}");
        assert_eq!(uses(&mut b), Value::Integer(11), "{fate:?}");
    }
}

/// If the agent sent again what it had no answer to, its increment counted twice, and its old title was in conflict
/// with the edit of the one who had seen it.
#[test]
fn a_lost_acknowledgement_followed_by_anothers_edit_undoes_nothing() {
    let (mut hub, mut a, mut b) = memories();
    a.run("UPDATE notes SET title = 'by a'").run("UPDATE skills SET uses = uses + 1");
    a.sync_with(&mut hub, Fate::LosesAnswer, &mut |_| {});
    b.sync(&mut hub);
    b.run("UPDATE notes SET title = 'by b, who saw it'").run("UPDATE skills SET uses = uses + 5");
    assert_eq!(b.sync(&mut hub).conflicts, 0);
    let counts = a.sync(&mut hub);
    all_sync(&mut hub, &mut [&mut a, &mut b]);
    assert_eq!(titles(&mut a), ["by b, who saw it"]);
    assert_eq!(uses(&mut a), Value::Integer(16));
    assert_eq!((counts.pushed, counts.conflicts), (2, 0), "they count once, when that is known");
}

/// If batches of earlier epochs were taken, the late one took the place of the one composed anew: the agent took
/// itself for a copy, and the increment that was in both counted twice, or was dropped.
#[test]
fn a_late_batch_of_an_earlier_epoch_does_not_land() {
    let (mut hub, mut a, mut b) = memories();
    a.run("UPDATE notes SET title = 'first'").run("UPDATE skills SET uses = uses + 1");
    a.sync_with(&mut hub, Fate::LosesBatch, &mut |_| {});
    // The connection broke. The agent comes back, and composes anew what did not arrive; then it does arrive.
    a.run("UPDATE notes SET title = 'second'").run("UPDATE skills SET uses = uses + 1");
    let (who, epoch, late) = a.lost.clone().unwrap();
    a.sync_with(&mut hub, Fate::LosesBatch, &mut |_| {});
    let outcome = hub.push(&caller_a(), who, epoch, 9, &late);
    all_sync(&mut hub, &mut [&mut a, &mut b]);
    assert_eq!(titles(&mut b), ["second"]);
    assert_eq!(uses(&mut b), Value::Integer(12));
    assert_eq!(a.notices, Vec::<String>::new());
    assert!(matches!(outcome, Err(StoreError::Refused(Refusal::Stale, _))), "{outcome:?}");
}

/// If a number alone told a batch, what the copy sends would be acknowledged and lost.
#[test]
fn a_replayed_batch_does_nothing_and_another_one_of_its_number_is_refused() {
    let (mut hub, mut a, mut b) = memories();
    a.run("UPDATE skills SET uses = uses + 1");
    a.sync_with(&mut hub, Fate::LosesBatch, &mut |_| {});
    let (who, epoch, batch) = a.lost.take().unwrap();
    for _ in 0..3 {
        let ack = hub.push(&caller_a(), who, epoch, 9, &batch).unwrap();
        assert_eq!(ack.n, batch.n);
    }
    // What a copy of the database would send from here on.
    let mut other = batch.clone();
    other.body = rmp_serde::to_vec(&BatchBody::default()).unwrap();
    let refusal = hub.push(&caller_a(), who, epoch, 9, &other).unwrap_err();
    assert!(matches!(refusal, StoreError::Refused(Refusal::Stale, _)), "{refusal:?}");
    all_sync(&mut hub, &mut [&mut a, &mut b]);
    assert_eq!(uses(&mut b), Value::Integer(11));
}

/// Goes on with a copy of a database, as another process or another machine does.
fn clone_of(agent: &mut Agent) -> Agent {
    let copy = agent.copy();
    let mut clone = newcomer(7);
    clone.restore(&copy);
    clone
}

/// If a copy kept its replica's id, its batches would be refused as another's for ever: it never syncs again.
#[test]
fn two_copies_of_one_database_are_two_replicas_and_both_are_heard() {
    let (mut hub, mut a, mut b) = memories();
    let mut clone = clone_of(&mut a);
    for round in 0..3 {
        for (name, agent) in [("a", &mut a), ("clone", &mut clone)] {
            agent.run(&format!("INSERT INTO notes VALUES('{round} {name}', '{round} {name}')"));
            agent.run("UPDATE skills SET uses = uses + 1");
            agent.sync(&mut hub);
        }
    }
    assert_ne!(replica(&mut a), replica(&mut clone));
    all_sync(&mut hub, &mut [&mut a, &mut b, &mut clone]);
    assert_eq!(titles(&mut b), ["0 a", "0 clone", "1 a", "1 clone", "2 a", "2 clone", "one"]);
    assert_eq!(uses(&mut b), Value::Integer(16));
}

/// Under one id the two would take each other's writes for their own, and one would go under without a conflict.
#[test]
fn two_copies_that_edit_one_row_apart_are_in_conflict_with_each_other() {
    let (mut hub, mut a, mut b) = memories();
    let mut clone = clone_of(&mut a);
    a.run("UPDATE notes SET title = 'by a'").sync(&mut hub);
    clone.run("UPDATE notes SET title = 'by the copy'");
    assert_eq!(clone.sync(&mut hub).conflicts, 1);
    all_sync(&mut hub, &mut [&mut a, &mut b, &mut clone]);
}

#[test]
fn an_older_export_gets_back_what_it_forgot_and_pushes_what_it_holds_once() {
    let (mut hub, mut a, mut b) = memories();
    a.run("INSERT INTO notes VALUES('unsent', 'in the export')").run("UPDATE skills SET uses = uses + 1");
    let export = a.copy();
    a.sync(&mut hub);
    a.run("INSERT INTO notes VALUES('later', 'after the export')").run("UPDATE skills SET uses = uses + 2");
    a.run("DELETE FROM notes WHERE id = 'x'").sync(&mut hub);
    let before = replica(&mut a);
    a.restore(&export);
    a.run("INSERT INTO notes VALUES('z', 'in the restored one')").run("UPDATE skills SET uses = uses + 4");
    all_sync(&mut hub, &mut [&mut a, &mut b]);
    assert_ne!(replica(&mut a), before);
    assert_eq!(titles(&mut a), ["after the export", "in the export", "in the restored one"]);
    // Of the increment in the export nobody can know that it was sent later; it is unsent here, and the hub
    // has it from the batch that this database has forgotten.
    assert_eq!(uses(&mut b), Value::Integer(18));
}

/// If increments of unknown fate were sent again, the one under way counted twice.
#[test]
fn a_copy_made_while_a_batch_was_under_way_drops_its_increments_and_says_so() {
    for fate in [Fate::LosesBatch, Fate::LosesAnswer] {
        let (mut hub, mut a, mut b) = memories();
        a.run("UPDATE skills SET uses = uses + 1").run("INSERT INTO notes VALUES('y', 'under way')");
        a.sync_with(&mut hub, fate, &mut |_| {});
        let mut clone = clone_of(&mut a);
        a.sync(&mut hub);
        a.run("UPDATE skills SET uses = uses + 2").sync(&mut hub);
        clone.run("UPDATE skills SET uses = uses + 4");
        all_sync(&mut hub, &mut [&mut a, &mut b, &mut clone]);
        assert_eq!(titles(&mut b), ["one", "under way"], "{fate:?}");
        assert_eq!(uses(&mut b), Value::Integer(17), "{fate:?}");
        let told: Vec<&String> =
            clone.notices.iter().filter(|it| it.contains("under way are dropped")).collect();
        assert_eq!(told.len(), 1, "{:?}", clone.notices);
    }
}

#[test]
fn an_agent_that_comes_back_empty_under_its_name_is_another_replica() {
    let (mut hub, mut a, mut b) = memories();
    a.run("UPDATE skills SET uses = uses + 1").sync(&mut hub);
    let mut again = Agent::new("acme", "a", 8);
    again.options = super::counting();
    again.run(super::MEMORY).run("INSERT INTO notes VALUES('y', 'two')");
    all_sync(&mut hub, &mut [&mut again, &mut b]);
    again.run("UPDATE skills SET uses = uses + 1").run("INSERT INTO notes VALUES('z', 'three')");
    a.run("UPDATE notes SET title = 'still here' WHERE id = 'x'");
    all_sync(&mut hub, &mut [&mut a, &mut again, &mut b]);
    assert_eq!(titles(&mut a), ["still here", "two", "three"]);
    assert_eq!(uses(&mut a), Value::Integer(12));
}

/// Breaks if what a long push has left to be booked is booked in one turn, which held up the application for seconds, or if
/// a part of it is lost, counted twice or sent again.
#[test]
fn many_batches_whose_acknowledgements_got_lost_are_booked_in_turns() {
    let (mut hub, mut a, mut b) = memories();
    a.limits.rows = 2;
    a.run(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 61)
         INSERT INTO notes SELECT 'n' || i, 'note ' || i FROM n",
    );
    a.run("UPDATE skills SET uses = uses + 1");
    a.sync_with(&mut hub, Fate::LosesAnswer, &mut |_| {});
    a.run("UPDATE notes SET title = title || ', edited' WHERE title = 'note 7'");
    let counts = a.sync(&mut hub);
    assert_eq!(a.bookings, 3, "31 batches, 8 in a turn");
    assert_eq!(counts.pushed, 62 + 1, "all that the hub had taken, and the edit");
    all_sync(&mut hub, &mut [&mut a, &mut b]);
    assert_eq!(titles(&mut a), titles(&mut b));
    assert!(titles(&mut b).contains(&"note 7, edited".to_owned()));
    assert_eq!(uses(&mut b), Value::Integer(11));
}
