//! Agents that are wrong, slow, or gone (I17).

use super::*;
use crate::engine::token::Grant;

#[test]
fn who_cannot_prove_who_he_is_is_refused_before_anything_else() {
    block_on(async {
        let hub = TestHub::start(":memory:").await;
        let other = crate::engine::token::issue("another secret", "acme", "alice", EXPIRY_MS).unwrap();
        let expired = crate::engine::token::issue(&hub.credentials.jwt_secret, "acme", "alice", 1).unwrap();
        let tokens = [String::new(), other, expired, hub.token("acme", "bob"), hub.token("evil", "alice")];
        for token in tokens {
            let (connection, answer) = hub.greet("acme", "alice", token).await;
            let ToAgent::Refused(refused) = answer else { panic!("{answer:?}") };
            assert_eq!(refused.reason, Refusal::Unauthenticated);
            let lost = connection.closed().await;
            let ConnectionLost::Closed { code, .. } = lost else { panic!("{lost:?}") };
            assert_eq!(Refusal::from_close_code(code), Some(Refusal::Unauthenticated));
        }
        assert_eq!(hub.hub.stats().connected_agents, 0);
    });
}

#[test]
fn only_a_small_hello_is_read_from_a_stranger() {
    block_on(async {
        let hub = TestHub::start(":memory:").await;
        let long = Hello { tenant: "acme".into(), agent: "a".into(), token: "x".repeat(20_000) };
        let plain = [b"\0\0\x50\0\0".to_vec(), vec![0; 100]].concat();
        let compressed = frame_of(&ToHub::Hello(long));
        let sync = frame_of(&ToHub::End);
        for bytes in [plain, compressed, sync, b"\0\0\0\x01\x09".to_vec()] {
            let connection = hub.connect().await;
            let (mut sender, _receiver) = connection.open().await.unwrap();
            sender.send_encoded(bytes).await.unwrap();
            let lost = connection.closed().await;
            let ConnectionLost::Closed { code, .. } = lost else { panic!("{lost:?}") };
            assert_eq!(Refusal::from_close_code(code), Some(Refusal::Protocol));
        }
    });
}

#[test]
fn a_malformed_frame_costs_its_own_connection_and_nothing_else() {
    block_on(async {
        let hub = TestHub::start(":memory:").await;
        let mut good = hub.agent("acme", "good", 1).await;
        let four_gigabytes = vec![0xff, 0xff, 0xff, 0xff, 0];
        let truncated = frame_of(&ToHub::Attach(Attach { replica: good.replica, cursor: 0, is_new: true }));
        let truncated = truncated[..truncated.len() - 1].to_vec();
        let garbage = b"\0\0\0\x05\0\xc1\xc1\xc1\xc1".to_vec();
        for (name, bytes) in [("huge", four_gigabytes), ("truncated", truncated), ("garbage", garbage)] {
            let bad = hub.agent("acme", "bad", 9).await;
            let lost = bad.closed_for(bytes).await;
            let ConnectionLost::Closed { code, .. } = lost else { panic!("{name}: {lost:?}") };
            assert_eq!(Refusal::from_close_code(code), Some(Refusal::Protocol), "{name}");
            let batch = good.batch([(1, text(name))]);
            assert_eq!(good.sync(vec![batch]).await.acks.len(), 1);
        }
    });
}

#[test]
fn messages_out_of_order_are_refused_and_the_connection_goes_on() {
    block_on(async {
        let hub = TestHub::start(":memory:").await;
        let mut alice = hub.agent("acme", "alice", 1).await;
        let (mut sender, receiver) = alice.connection.open().await.unwrap();
        sender.send(&ToHub::End).await.unwrap();
        let synced = Synced::read(receiver).await;
        assert_eq!(synced.refused.unwrap().reason, Refusal::Protocol);
        assert!(alice.sync(vec![]).await.done.is_some());
    });
}

#[test]
fn a_refused_batch_ends_its_sync_and_an_older_session_is_told_to_attach() {
    block_on(async {
        let hub = TestHub::start(":memory:").await;
        let mut alice = hub.agent("acme", "alice", 1).await;
        alice.welcome.hub_now_ms += 120_000;
        let early = alice.batch([(1, text("future"))]);
        let synced = alice.sync(vec![early]).await;
        assert_eq!(synced.refused.unwrap().reason, Refusal::Clock);
        assert!(synced.acks.is_empty() && synced.done.is_none());

        let mut again = hub.agent("acme", "alice", 1).await;
        assert_eq!(alice.sync(vec![]).await.refused.unwrap().reason, Refusal::Stale);
        assert!(again.sync(vec![]).await.done.is_some());
    });
}

#[test]
fn who_says_nothing_loses_the_connection() {
    block_on(async {
        let credentials = Credentials::generate([7; 32]).unwrap();
        let limits =
            HubLimits { handshake_timeout_ms: 1_000, frame_timeout_ms: 1_000, ..HubLimits::default() };
        let options = HubOptions { limits, ..HubOptions::local(&credentials, ":memory:") };
        let hub = Hub::start(options).await.unwrap();
        let hub = TestHub { hub, credentials };
        let silent = hub.connect().await;
        let mut alice = hub.agent("acme", "alice", 1).await;
        let _sync = alice.begin().await;
        for connection in [silent, alice.connection] {
            let lost = connection.closed().await;
            let ConnectionLost::Closed { code, .. } = lost else { panic!("{lost:?}") };
            assert_eq!(Refusal::from_close_code(code), Some(Refusal::Protocol));
        }
    });
}

#[test]
fn an_agent_that_vanishes_is_forgotten() {
    block_on(async {
        let hub = TestHub::start(":memory:").await;
        let mut alice = hub.agent("acme", "alice", 1).await;
        let (_sender, mut receiver) = alice.begin().await;
        alice.connection.close(0, "gone in mid-sync");
        assert!(matches!(receiver.next::<ToAgent>().await, Err(ReceiveError::Lost(_))));
        while hub.hub.stats().connected_agents > 0 {
            tokio::task::yield_now().await;
        }
        hub.hub.stop().await;
    });
}

#[test]
fn who_may_only_read_pulls_and_whatever_it_pushes_is_refused() {
    block_on(async {
        let hub = TestHub::start(":memory:").await;
        let mut writer = hub.agent("acme", "writer", 1).await;
        let batch = writer.batch([(1, text("for all"))]);
        writer.sync(vec![batch]).await;

        let tokens = TokenOptions::of(KeySource::Secret(hub.credentials.jwt_secret.clone()));
        let grant = Grant { permissions: Some(vec!["read".into()]), token_id: None };
        let token = tokens.issue("acme", "reader", EXPIRY_MS, &grant).unwrap();
        let mut reader = hub.agent_with("acme", "reader", token, 2).await;
        assert!(writer.welcome.may_write && !reader.welcome.may_write);
        let batch = reader.batch([(1, text("not for him to say")), (2, text("nor this"))]);
        let synced = reader.sync(vec![batch]).await;
        assert_eq!(synced.refused.unwrap().reason, Refusal::Forbidden);
        assert!(synced.acks.is_empty());
        assert_eq!(reader.sync(vec![]).await.rows.len(), 1, "it reads as before");
        assert_eq!(hub.hub.stats().rows, 1);
        assert!(writer.sync(vec![]).await.rows.is_empty());
    });
}
