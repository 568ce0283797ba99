//! What is encoded comes back as it was.

use federation_hub::model::RowId;
use federation_hub::protocol::frame::{LENGTH_BYTES, decode, decode_length, decode_payload, encode};
use federation_hub::protocol::message::{BatchBody, ToAgent, ToHub};
use federation_hub::storage::row_codec;
use federation_hub::storage::row_meta::{CellMeta, Pending, RowMeta, Tombstone};
use federation_hub::storage::ruled::{PendingAdjustment, RuledCell};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::arbitrary::{
    adjustment, any_row_state, batch_body, cell_value, row_id, seq, stamp, to_agent, to_hub,
};

/// A message, sent and received.
fn travelled<M: Serialize + DeserializeOwned>(message: &M) -> M {
    let frame = encode(message).unwrap();
    let (prefix, rest) = frame.split_first_chunk::<LENGTH_BYTES>().unwrap();
    assert_eq!(decode_length(*prefix).unwrap(), rest.len());
    decode(rest).unwrap()
}

fn pending() -> impl Strategy<Value = Option<Pending>> {
    option::of((seq(), 0_u64..3).prop_map(|(base, mark)| Pending { base, mark }))
}

/// Any bookkeeping of a row. Cells that share a stamp are kept together, so their order is that of their stamps.
fn row_meta() -> impl Strategy<Value = RowMeta> {
    let cells = prop::collection::btree_map(0_u16..4, (stamp(), any::<u64>(), pending()), 0..4);
    let deleted = option::of((stamp(), pending()).prop_map(|(stamp, pending)| Tombstone { stamp, pending }));
    let done =
        (0_u64..3, seq(), adjustment()).prop_map(|(mark, base, what)| PendingAdjustment { mark, base, what });
    let ruled = (0_u16..4, cell_value(), vec(done, 0..3)).prop_map(|(column, shown, pending)| RuledCell {
        column,
        shown,
        pending,
    });
    let rare = (option::of(any::<i64>()), option::of(row_id()), vec(ruled, 0..2));
    (seq(), any::<bool>(), deleted, rare, cells).prop_map(
        |(seen, held, deleted, (number, united, ruled), cells)| {
            let cells = cells
                .into_iter()
                .map(|(column, (stamp, fingerprint, pending))| CellMeta {
                    column,
                    stamp,
                    fingerprint,
                    pending,
                })
                .collect();
            RowMeta { seen, held, deleted, number, united, cells, ruled }
        },
    )
}

proptest! {
    #[test]
    fn what_an_agent_says_arrives(message in to_hub()) {
        prop_assert_eq!(travelled::<ToHub>(&message), message);
    }

    #[test]
    fn what_a_hub_says_arrives(message in to_agent()) {
        prop_assert_eq!(travelled::<ToAgent>(&message), message);
    }

    #[test]
    fn a_batch_arrives(body in batch_body()) {
        let bytes = rmp_serde::to_vec(&body).unwrap();
        prop_assert_eq!(decode_payload::<BatchBody>(&bytes).unwrap(), body);
    }

    #[test]
    fn a_value_arrives(value in cell_value()) {
        prop_assert_eq!(travelled(&value), value);
    }

    #[test]
    fn a_stored_row_is_read_as_it_was(state in any_row_state()) {
        prop_assert_eq!(row_codec::decode(&row_codec::encode(&state).unwrap()).unwrap(), state);
    }

    #[test]
    fn the_bookkeeping_of_a_row_is_read_as_it_was(meta in row_meta()) {
        let mut read = RowMeta::decode(&meta.encode().unwrap()).unwrap();
        read.cells.sort_by_key(|cell| cell.column);
        prop_assert_eq!(read, meta);
    }

    #[test]
    fn an_identity_is_sixteen_bytes_and_nothing_else(bytes in vec(any::<u8>(), 0..40)) {
        let encoded = rmp_serde::to_vec(serde_bytes::Bytes::new(&bytes)).unwrap();
        prop_assert_eq!(decode_payload::<RowId>(&encoded).is_ok(), bytes.len() == 16);
    }
}
