//! Agents that get along.

use super::*;

#[test]
fn two_agents_share_rows_and_a_third_of_another_tenant_sees_nothing() {
    block_on(async {
        let hub = TestHub::start(":memory:").await;
        let mut alice = hub.agent("acme", "alice", 1).await;
        let mut bob = hub.agent("acme", "bob", 2).await;
        let mut eve = hub.agent("evil", "eve", 3).await;
        let batch = alice.batch([(1, text("hello"))]);
        let synced = alice.sync(vec![batch]).await;
        assert_eq!(
            synced.acks,
            [Ack { n: 1, conflicts: 0, rejected: vec![], notices: vec![], contests: vec![] }]
        );
        assert_eq!(synced.messages, 2, "an ack and done");

        let synced = bob.sync(vec![]).await;
        assert_eq!((synced.tables.len(), synced.rows.len()), (1, 1), "{synced:?}");
        assert_eq!(synced.done.unwrap().clock, [("alice".to_owned(), 1)]);
        assert_eq!(bob.sync(vec![]).await.messages, 1, "an idle sync is answered by done alone");
        assert_eq!(eve.sync(vec![]).await.rows, []);

        let stats = hub.hub.stats();
        assert_eq!((stats.connected_agents, stats.tenants, stats.rows, stats.syncs), (3, 2, 1, 4));
        assert!(stats.bytes_sent > 0 && stats.bytes_received > 0);
        hub.hub.stop().await;
    });
}

#[test]
fn a_pull_of_many_chunks_arrives_whole_from_memory_and_from_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hub.db");
    for path in [":memory:", path.to_str().unwrap()] {
        block_on(async {
            let hub = TestHub::start(path).await;
            let mut alice = hub.agent("acme", "alice", 1).await;
            let big = |row: u8| (row, Value::Blob(vec![row; 100_000]));
            let batches = vec![alice.batch((0..100).map(big)), alice.batch((100..200).map(big))];
            assert_eq!(alice.sync(batches).await.acks.len(), 2);
            let mut bob = hub.agent("acme", "bob", 2).await;
            let synced = bob.sync(vec![]).await;
            assert!(synced.messages > 20, "{}", synced.messages);
            assert_eq!(synced.rows.len(), 200);
            for (row, update) in (0_u8..).zip(synced.rows) {
                let Op::Set(cells) = &update.writes[0].op else { panic!("a delete") };
                assert_eq!(cells[0].1, Value::Blob(vec![row; 100_000]).into());
            }
        });
    }
}

#[test]
fn many_agents_at_once_all_get_through() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hub.db");
    block_on(async {
        let hub = Arc::new(TestHub::start(path.to_str().unwrap()).await);
        let mut tasks = JoinSet::new();
        for number in 1..=20 {
            let hub = Arc::clone(&hub);
            tasks.spawn(async move {
                let mut agent = hub.agent("acme", &format!("agent-{number}"), number).await;
                for row in 0..5 {
                    let batch = agent.batch([(number * 10 + row, text("x"))]);
                    let synced = agent.sync(vec![batch]).await;
                    assert_eq!(synced.acks.len(), 1, "{synced:?}");
                }
            });
        }
        while let Some(finished) = tasks.join_next().await {
            finished.unwrap();
        }
        let mut reader = hub.agent("acme", "reader", 200).await;
        let synced = reader.sync(vec![]).await;
        assert_eq!(synced.rows.len(), 100);
        assert_eq!(synced.done.unwrap().clock.len(), 20);
    });
}
