//! Identifiers: of a row, of a replica, of a piece of content.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! bytes_id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// Takes exactly the right number of bytes, or nothing: for ids read back from storage.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self, f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_bytes(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Exact;
                impl serde::de::Visitor<'_> for Exact {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        write!(f, "{} bytes", $len)
                    }
                    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<$name, E> {
                        $name::from_slice(bytes).ok_or_else(|| E::invalid_length(bytes.len(), &self))
                    }
                }
                deserializer.deserialize_bytes(Exact)
            }
        }
    };
}

bytes_id! {
    /// What makes a row the same row on every replica, whatever number or key it has there.
    RowId, 16
}

bytes_id! {
    /// One database's bookkeeping. Random, and kept inside the database: an agent id can be live twice, or
    /// come back with an empty database, and is therefore only a name for people.
    ReplicaId, 16
}

bytes_id! {
    /// A BLAKE3 hash of some content.
    Digest, 32
}

impl ReplicaId {
    /// The 63 bits that break a tie between two stamps of one instant, carried inline in each stamp. The highest bit is
    /// that of stamps which name something else there (`storage/renamed_stamps.rs`).
    pub fn tie_break(&self) -> u64 {
        let mut high = [0; 8];
        high.copy_from_slice(&self.0[..8]);
        u64::from_be_bytes(high) & (u64::MAX >> 1)
    }
}

impl Digest {
    /// The predecessor of a replica's first batch.
    pub const ZERO: Self = Self([0; 32]);
}
