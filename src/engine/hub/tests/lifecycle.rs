//! Start, stop, and what survives.

use super::*;
use crate::engine::clock::wall_now_ms;
use crate::protocol::close_code::EXPIRED;

#[test]
fn what_was_acknowledged_survives_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hub.db");
    let path = path.to_str().unwrap();
    block_on(async {
        let hub = TestHub::start(path).await;
        let mut alice = hub.agent("acme", "alice", 1).await;
        let batch = alice.batch([(1, text("kept"))]);
        alice.sync(vec![batch]).await;
        alice.sync(vec![]).await;
        alice.connection.close(0, "");
        while hub.hub.stats().connected_agents > 0 {
            tokio::task::yield_now().await;
        }
        hub.hub.stop().await;
        hub.hub.stop().await;

        let again = TestHub::start(path).await;
        let back = again.agent("acme", "alice", 1).await;
        assert_eq!(back.attached.past, [(alice.welcome.incarnation, 2)]);
        assert_eq!(back.welcome.counter, 2, "idle syncs count");
        assert_eq!((back.attached.epoch, back.last), (2, alice.last));
        let mut bob = again.agent("acme", "bob", 2).await;
        assert_eq!(bob.sync(vec![]).await.rows.len(), 1);
    });
}

#[test]
fn a_hub_that_stops_finishes_the_sync_that_is_under_way() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hub.db");
    block_on(async {
        let hub = TestHub::start(path.to_str().unwrap()).await;
        let mut alice = hub.agent("acme", "alice", 1).await;
        let idle = hub.agent("acme", "idle", 2).await;
        let batch = alice.batch([(1, text("just in time"))]);
        let (mut sender, mut receiver) = alice.begin().await;
        sender.send(&ToHub::Batch(batch)).await.unwrap();
        let ack: Option<ToAgent> = receiver.next().await.unwrap();
        assert!(matches!(ack, Some(ToAgent::Ack(_))));
        let finish = async {
            let lost = idle.connection.closed().await;
            let ConnectionLost::Closed { code, .. } = lost else { panic!("{lost:?}") };
            assert_eq!(Refusal::from_close_code(code), Some(Refusal::Stopping));
            sender.send(&ToHub::End).await.unwrap();
            assert!(Synced::read(receiver).await.done.is_some());
        };
        tokio::join!(hub.hub.stop(), finish);
        let again = TestHub::start(path.to_str().unwrap()).await;
        assert_eq!(again.hub.stats().rows, 1);
    });
}

#[test]
fn a_hub_that_is_dropped_ends_by_itself() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hub.db");
    let path = path.to_str().unwrap();
    block_on(async {
        let hub = TestHub::start(path).await;
        let alice = hub.agent("acme", "alice", 1).await;
        let mut ended = hub.hub.ended.clone();
        drop(hub);
        ended.wait_for(|ended| *ended).await.unwrap();
        let end = alice.connection.closed().await;
        assert!(matches!(end, ConnectionLost::Closed { .. }), "{end:?}");
        TestHub::start(path).await.hub.stop().await;
    });
}

#[test]
fn a_hub_that_cannot_start_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hub.db");
    let path = path.to_str().unwrap();
    block_on(async {
        let hub = TestHub::start(path).await;
        let good = HubOptions::local(&hub.credentials, ":memory:");
        let port = hub.hub.local_addr().to_string();
        let taken = Hub::start(HubOptions { listen: port, ..good.clone() }).await;
        assert!(matches!(taken, Err(HubStartError::Bind(BindError::InUse(_)))), "{taken:?}");
        let locked = Hub::start(HubOptions { data_path: path.into(), ..good.clone() }).await;
        assert!(matches!(locked, Err(HubStartError::Store(OpenStoreError::Locked(_)))), "{locked:?}");
        let nowhere = Hub::start(HubOptions { listen: "not a host:1".into(), ..good.clone() }).await;
        assert!(matches!(nowhere, Err(HubStartError::Address { .. })), "{nowhere:?}");
        let tokens = TokenOptions::of(KeySource::Secret(String::new()));
        let open = Hub::start(HubOptions { tokens, ..good }).await;
        assert!(matches!(open, Err(HubStartError::Keys(_))), "{open:?}");
    });
}

#[test]
fn a_hub_stops_although_a_stranger_is_silent() {
    block_on(async {
        let hub = TestHub::start(":memory:").await;
        let silent = hub.connect().await;
        hub.hub.stop().await;
        // Refused, if the stranger was not even through its handshake.
        let lost = silent.closed().await;
        assert!(matches!(lost, ConnectionLost::Closed { .. } | ConnectionLost::Refused), "{lost:?}");
    });
}

#[test]
fn a_session_ends_with_its_token_under_a_code_of_its_own() {
    block_on(async {
        let hub = TestHub::start(":memory:").await;
        let soon = wall_now_ms() + 1_000;
        let token =
            crate::engine::token::issue(&hub.credentials.jwt_secret, "acme", "alice", soon + 1_000).unwrap();
        let (connection, answer) = hub.greet("acme", "alice", token).await;
        assert!(matches!(answer, ToAgent::Welcome(_)), "{answer:?}");
        let lost = connection.closed().await;
        let ConnectionLost::Closed { code, .. } = lost else { panic!("{lost:?}") };
        assert_eq!(code, u64::from(EXPIRED));
        assert!(wall_now_ms() >= soon, "not before its time");
    });
}
