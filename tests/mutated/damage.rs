//! What becomes of bytes on their way.

/// Bytes that mean something, to MessagePack, to a length, or to QUIC.
const TELLING: [u8; 16] =
    [0, 1, 0x40, 0x7f, 0x80, 0x90, 0xa0, 0xc0, 0xc1, 0xc4, 0xc6, 0xca, 0xcf, 0xdb, 0xdd, 0xff];

/// The most that is put in or taken out at once.
const PIECE: usize = 40;

/// Damages some bytes in one to four ways. `other` is something of the same kind, to splice in.
pub fn damage(bytes: &mut Vec<u8>, other: &[u8], dice: &mut fastrand::Rng) {
    for _ in 0..dice.usize(1..5) {
        if bytes.is_empty() {
            bytes.push(dice.u8(..));
        }
        let at = dice.usize(..bytes.len());
        let end = (at + dice.usize(1..=PIECE)).min(bytes.len());
        match dice.u8(..10) {
            0..3 => bytes[at] ^= 1 << dice.u8(..8),
            3 => bytes[at] = *dice.choice(&TELLING).unwrap(),
            4 => drop(bytes.drain(at..end)),
            5 => {
                let piece: Vec<u8> = (0..dice.usize(1..=PIECE)).map(|_| dice.u8(..)).collect();
                bytes.splice(at..at, piece);
            }
            6 => {
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
            // A length, or a number, that is out of all bounds.
            7 => bytes[at..end.min(at + 4)].fill(0xff),
            8 => bytes.truncate(at),
            _ => {
                let from = dice.usize(..=other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
        }
    }
}
