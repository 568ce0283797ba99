//! Who is later, among agents whose clocks are right.

use std::time::Duration;

use federation_hub::engine::agent::AgentOptions;
use federation_hub::engine::clock::wall_now_ms;
use federation_hub::model::Value;
use tokio::time::sleep;

use crate::relay::{Relay, Weather};
use crate::site::{Member, Site};

/// Waits until the clock of this machine shows another time, and one more.
async fn a_moment() {
    let now_ms = wall_now_ms();
    while wall_now_ms() < now_ms + 2 {
        sleep(Duration::from_micros(300)).await;
    }
}

/// Edits one row on two agents in turn, a moment apart, and has both sync, either first. The later edit stands.
async fn the_later_edit_stands(a: &Member, b: &Member, rounds: usize) {
    a.run("CREATE TABLE notes(id TEXT PRIMARY KEY, title TEXT)").await;
    a.run("INSERT INTO notes VALUES('x', 'first')").await;
    a.sync().await;
    b.sync().await;
    for round in 0..rounds {
        let (earlier, later) = if round % 2 == 0 { (a, b) } else { (b, a) };
        earlier.run(&format!("UPDATE notes SET title = 'earlier {round}'")).await;
        a_moment().await;
        later.run(&format!("UPDATE notes SET title = 'later {round}'")).await;
        let (first, second) = if round % 4 < 2 { (earlier, later) } else { (later, earlier) };
        first.sync().await;
        assert_eq!(second.sync().await.conflicts, 1);
        first.sync().await;
        for agent in [a, b] {
            let title = Value::Text(format!("later {round}"));
            assert_eq!(agent.rows("SELECT title FROM notes").await, [[title]], "{round}");
        }
    }
}

/// Breaks if the estimate of the hub's clock is applied although it may be nothing but its own error.
#[tokio::test]
async fn of_two_edits_a_moment_apart_on_one_machine_the_later_wins() {
    let site = Site::start(":memory:").await;
    let (a, b) = (site.agent("acme", "a").await, site.agent("acme", "b").await);
    the_later_edit_stands(&a, &b, 40).await;
}

/// Breaks if what the hub says counts as its time when it arrives: whoever is far away would always be earlier.
#[tokio::test]
async fn the_later_wins_from_far_away() {
    let site = Site::start(":memory:").await;
    let relay = Relay::before(site.hub.local_addr()).await;
    relay.set(Weather { delay: Duration::from_millis(15), ..Weather::FAIR });
    let near = site.agent("acme", "near").await;
    let options = AgentOptions { endpoint: relay.endpoint(), ..site.options("acme", "far") };
    let far = Member::connect(options).await;
    the_later_edit_stands(&near, &far, 8).await;
}
