//! Frames that are not as long as they say.

use federation_hub::engine::hub_limits::HubLimits;
use federation_hub::protocol::frame::MAX_FRAME_BYTES;

use super::raw::{cut_off, enter, send};
use crate::site::Site;

/// A frame that claims a length: of its own body, or another one.
fn frame(claims: Option<usize>, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(claims.unwrap_or(body.len())).unwrap();
    [&length.to_be_bytes()[..], body].concat()
}

/// A compressed body that claims a decompressed size.
fn packed(claims: usize, payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(claims).unwrap();
    [&[1][..], &size.to_be_bytes(), &zstd::bulk::compress(payload, 1).unwrap()].concat()
}

async fn each_costs_its_own_connection(limits: HubLimits, attacks: &[(&str, Vec<u8>)]) {
    let site = Site::with(":memory:", |options| options.limits = limits).await;
    let good = site.agent("acme", "good").await;
    good.run("CREATE TABLE notes(id TEXT PRIMARY KEY)").await;
    for (name, bytes) in attacks {
        let attacker = enter(&site).await;
        let _stream = send(&attacker, bytes.clone()).await;
        cut_off(&attacker).await;
        good.run(&format!("INSERT INTO notes VALUES('{name}')")).await;
        assert_eq!(good.sync().await.pushed, 1, "{name}");
    }
}

#[tokio::test]
async fn oversize_and_lying_lengths() {
    let end = rmp_serde::to_vec("End").unwrap();
    let plain = [&[0][..], &end].concat();
    let attacks = [
        ("four gigabytes", vec![0xff; 4]),
        ("one byte more than a frame may have", frame(Some(MAX_FRAME_BYTES + 1), &[])),
        ("nothing", frame(None, &[])),
        ("a kind that is none", frame(None, &[9, 0xc0])),
        ("less than there is", [frame(Some(2), &plain), vec![0xff; 16]].concat()),
    ];
    each_costs_its_own_connection(HubLimits::default(), &attacks).await;
}

#[tokio::test]
async fn decompression_bombs() {
    let zeros = vec![0; MAX_FRAME_BYTES + 1];
    let attacks = [
        ("more than a frame may have", frame(None, &packed(MAX_FRAME_BYTES + 1, &zeros))),
        ("more than it claims", frame(None, &packed(16, &zeros))),
        ("less than it claims", frame(None, &packed(MAX_FRAME_BYTES, &[0; 16]))),
        ("nothing to decompress", frame(None, &[1, 0, 0, 1, 0])),
    ];
    each_costs_its_own_connection(HubLimits::default(), &attacks).await;
}

/// Breaks if `maxBatchBytes` is not kept, plain or compressed.
#[tokio::test]
async fn more_than_this_hub_takes() {
    let limits = HubLimits { max_batch_bytes: 2 << 20, ..HubLimits::default() };
    let attacks = [
        ("plain", frame(Some((2 << 20) + 1), &[0])),
        ("compressed", frame(None, &packed((2 << 20) + 1, &vec![0; (2 << 20) + 1]))),
    ];
    each_costs_its_own_connection(limits, &attacks).await;
}
