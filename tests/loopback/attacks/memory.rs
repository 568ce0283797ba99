//! Messages that cost the hub more than they cost their sender.

use federation_hub::engine::agent::AgentOptions;
use federation_hub::engine::hub_limits::{HubLimits, LEAST_MEMORY_BYTES};
use federation_hub::model::{Digest, ReplicaId};
use federation_hub::protocol::extent::MAX_VALUES;
use federation_hub::protocol::frame::{LENGTH_BYTES, MAX_FRAME_BYTES, encode};
use federation_hub::protocol::message::{Attach, Batch, Refusal, SyncBegin, ToAgent, ToHub};
use federation_hub::transport::{Connection, FrameReceiver, FrameSender};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::raw::{PATIENCE, cut_off, enter, send};
use crate::site::{Member, Site};

const NOTES: &str = "CREATE TABLE notes(id TEXT PRIMARY KEY, body BLOB)";

/// Streams of one connection at once.
const STREAMS: usize = 8;

/// Bytes of a claimed frame that are sent, and no more: enough for the hub to have room for the rest.
const PART_BYTES: usize = 80 << 10;

/// It is about who is served at all, also where a machine has other things to do.
async fn patient(site: &Site) -> Member {
    Member::connect(AgentOptions { request_timeout_ms: 60_000, ..site.options("acme", "good") }).await
}

fn sync(replica: ReplicaId, epoch: u64) -> SyncBegin {
    SyncBegin { replica, epoch, cursor: 0, resume: 0, counter: 1, schema: None, refresh: vec![] }
}

/// A batch of about as many empty texts as a message may have.
fn bomb(replica: ReplicaId) -> (ToHub, usize) {
    let count = MAX_VALUES - 100;
    let length = u32::try_from(count).unwrap().to_be_bytes();
    // One table without a name, of so many columns without names; no rows, no collisions.
    let body = [&[0x93, 0x91, 0x92, 0xa0, 0xdd][..], &length, &vec![0xa0; count], &[0x90, 0x90]].concat();
    let batch = ToHub::Batch(Batch { n: 1, previous: Digest([replica.0[0]; 32]), body });
    let bytes = encode(&batch).unwrap().len();
    (batch, bytes)
}

async fn attach(connection: &Connection, replica: ReplicaId) -> u64 {
    let attach = ToHub::Attach(Attach { replica, cursor: 0, is_new: true });
    let (_sender, mut receiver) = send(connection, encode(&attach).unwrap()).await;
    match timeout(PATIENCE, receiver.next()).await.unwrap().unwrap() {
        Some(ToAgent::Attached(attached)) => attached.epoch,
        other => panic!("{other:?}"),
    }
}

/// The refusal that a stream ends with, if any.
async fn refusal(mut receiver: FrameReceiver) -> Option<Refusal> {
    loop {
        match receiver.next().await {
            Ok(Some(ToAgent::Refused(refused))) => return Some(refused.reason),
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => return None,
        }
    }
}

/// Sends such a batch on every stream of so many connections; what became of them, while `meanwhile` goes on.
async fn bombard(site: &Site, connections: u8, meanwhile: impl Future<Output = ()>) -> Vec<Option<Refusal>> {
    let mut attack = JoinSet::new();
    let mut sent = 0;
    for n in 0..connections {
        let (connection, replica) = (enter(site).await, ReplicaId([0xe0 + n; 16]));
        let epoch = attach(&connection, replica).await;
        let (bomb, bytes) = bomb(replica);
        sent += bytes * STREAMS;
        for _ in 0..STREAMS {
            let frames =
                [encode(&ToHub::Sync(sync(replica, epoch))).unwrap(), encode(&bomb).unwrap()].concat();
            let (sender, receiver) = send(&connection, frames).await;
            let connection = connection.clone();
            attack.spawn(async move {
                let refusal = refusal(receiver).await;
                drop((sender, connection));
                refusal
            });
        }
    }
    assert!(sent < 64 << 10, "all of it is {sent} bytes");
    meanwhile.await;
    attack.join_all().await
}

async fn sync_some(good: &Member) {
    good.run(NOTES).await;
    for n in 0..5 {
        good.run(&format!("INSERT INTO notes VALUES('{n}', 'through')")).await;
        assert_eq!(good.sync().await.pushed, 1);
    }
}

/// Breaks if a tenant's rate counts what its messages are on the wire, and not what they hold.
#[tokio::test]
async fn batches_that_compress_well_pass_no_rate() {
    let limits = HubLimits { max_bytes_per_second: 1 << 20, ..HubLimits::default() };
    let site = Site::with(":memory:", |options| options.limits = limits).await;
    let good = patient(&site).await;
    let refusals = Box::pin(bombard(&site, 1, sync_some(&good))).await;
    let refused = refusals.iter().filter(|it| **it == Some(Refusal::Quota)).count();
    assert!(refused >= STREAMS - 2, "compressed bytes get around the rate: {refusals:?}");
}

/// Breaks if what a message holds is not counted before it is decoded, or if others wait for it.
#[tokio::test]
async fn batches_that_are_small_on_the_wire_and_large_in_memory() {
    let limits = HubLimits { max_bytes_per_second: 1 << 40, ..HubLimits::default() };
    let site = Site::with(":memory:", |options| options.limits = limits).await;
    let good = patient(&site).await;
    Box::pin(bombard(&site, 2, sync_some(&good))).await;
    let peak = site.hub.stats().memory_peak_bytes;
    assert!(peak <= limits.max_memory_bytes * 3 / 4, "{peak} bytes");
    assert!(peak >= MAX_VALUES as u64 * 64, "a batch was counted: {peak} bytes");
    while site.hub.stats().memory_bytes > 1 << 20 {
        tokio::task::yield_now().await;
    }
}

/// Begins a frame that claims to be as large as any.
async fn begin_frame(connection: &Connection) -> (FrameSender, FrameReceiver) {
    let claim = u32::try_from(MAX_FRAME_BYTES).unwrap().to_be_bytes();
    let mut bytes = claim.to_vec();
    bytes.resize(LENGTH_BYTES + PART_BYTES, 0);
    send(connection, bytes).await
}

/// Breaks if frames that are begun and not ended take more of the hub's memory than their tenant may have, or if another
/// tenant finds none.
#[tokio::test]
async fn large_frames_that_are_begun_and_never_ended() {
    let limits = HubLimits { max_memory_bytes: LEAST_MEMORY_BYTES, ..HubLimits::default() };
    let site = Site::with(":memory:", |options| options.limits = limits).await;
    let good = patient(&site).await;
    good.run(NOTES).await;
    let mut begun = JoinSet::new();
    let mut connections = Vec::new();
    for _ in 0..4 {
        let connection = enter(&site).await;
        for _ in 0..STREAMS - 2 {
            let (sender, receiver) = begin_frame(&connection).await;
            begun.spawn(async move {
                let refusal = refusal(receiver).await;
                drop(sender);
                refusal
            });
        }
        connections.push(connection);
    }
    let fit = usize::try_from(LEAST_MEMORY_BYTES / 2).unwrap() / MAX_FRAME_BYTES;
    for refused in 0..4 * (STREAMS - 2) - fit {
        let refusal = timeout(PATIENCE, begun.join_next()).await;
        assert_eq!(refusal.unwrap().unwrap().unwrap(), Some(Refusal::Quota), "after {refused} others");
    }
    let held = site.hub.stats().memory_bytes;
    assert!(held <= LEAST_MEMORY_BYTES / 2, "{held} bytes");
    assert!(held > (fit as u64 - 1) * MAX_FRAME_BYTES as u64, "the others have their room: {held} bytes");
    good.run("INSERT INTO notes VALUES('large', randomblob(5000000))").await;
    assert_eq!(good.sync().await.pushed, 1);
    assert_eq!(begun.len(), fit, "and are not disturbed");
    connections.clear();
    begun.shutdown().await;
    while site.hub.stats().memory_bytes > 0 {
        tokio::task::yield_now().await;
    }
}

/// Breaks if somebody can have the hub read nonsense for ever on one connection.
#[tokio::test]
async fn nonsense_in_messages_again_and_again() {
    let site = Site::start(":memory:").await;
    let attacker = enter(&site).await;
    for _ in 0..7 {
        let (_sender, receiver) = send(&attacker, encode(&ToHub::End).unwrap()).await;
        assert_eq!(refusal(receiver).await, Some(Refusal::Protocol));
        assert!(attacker.close_reason().is_none(), "a few are forgiven");
    }
    let _last = send(&attacker, encode(&ToHub::End).unwrap()).await;
    cut_off(&attacker).await;
}
