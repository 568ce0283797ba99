//! What is encoded comes back as it was.

use federation_hub::model::RowId;
use federation_hub::protocol::frame::{LENGTH_BYTES, decode, decode_length, decode_payload, encode};
use federation_hub::protocol::message::{BatchBody, ToAgent, ToHub};
use federation_hub::storage::row_codec;
use proptest::collection::vec;
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::arbitrary::{any_row_state, batch_body, cell_value, to_agent, to_hub};

/// A message, sent and received.
fn travelled<M: Serialize + DeserializeOwned>(message: &M) -> M {
    let frame = encode(message).unwrap();
    let (prefix, rest) = frame.split_first_chunk::<LENGTH_BYTES>().unwrap();
    assert_eq!(decode_length(*prefix).unwrap(), rest.len());
    decode(rest).unwrap()
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
    fn an_identity_is_sixteen_bytes_and_nothing_else(bytes in vec(any::<u8>(), 0..40)) {
        let encoded = rmp_serde::to_vec(serde_bytes::Bytes::new(&bytes)).unwrap();
        prop_assert_eq!(decode_payload::<RowId>(&encoded).is_ok(), bytes.len() == 16);
    }
}
