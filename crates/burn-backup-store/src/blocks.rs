//! The hashes of a part: one hash of each block, and one of the whole part. Blocks can be hashed in parallel, and
//! checked one by one.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

/// The length of every block of a part except the last one.
pub(crate) const BLOCK_BYTES: usize = 8 * 1024 * 1024;

/// Bytes are hashed in pieces of this length, while a piece is in the processor's cache.
pub(crate) const PIECE_BYTES: usize = 1024 * 1024;

/// The number of blocks of a part with this many bytes.
pub(crate) fn count(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK_BYTES as u64)
}

/// A 128-bit XXH3 hash; in a manifest, 32 lower-case hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hash(u128);

impl Hash {
    /// The hash of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(xxh3_128(bytes))
    }

    pub(crate) fn finish(hasher: &Xxh3) -> Self {
        Self(hasher.digest128())
    }

    /// The hash of a part: the hash of its only block, or the hash of its blocks' hashes.
    pub(crate) fn of_blocks(blocks: &[Self]) -> Self {
        match blocks {
            [] => Self::of(&[]),
            [only] => *only,
            several => {
                let hashes = several.iter().flat_map(|block| block.0.to_be_bytes());
                Self::of(&hashes.collect::<Vec<_>>())
            }
        }
    }
}

impl std::fmt::Display for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl From<Hash> for String {
    fn from(hash: Hash) -> Self {
        hash.to_string()
    }
}

impl TryFrom<String> for Hash {
    type Error = &'static str;

    fn try_from(digits: String) -> Result<Self, Self::Error> {
        let hash = u128::from_str_radix(&digits, 16).ok().map(Self);
        hash.filter(|hash| hash.to_string() == digits)
            .ok_or("a hash has 32 lower-case hexadecimal digits")
    }
}

/// The length and the hashes of a part's bytes.
#[derive(Clone, Default)]
pub struct PartDigest {
    /// The hashes of the complete blocks.
    blocks: Vec<Hash>,
    /// The block in progress.
    hasher: Xxh3,
    bytes: u64,
}

impl PartDigest {
    /// Adds the next bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let in_block = (self.bytes % BLOCK_BYTES as u64) as usize;
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK_BYTES - in_block));
            self.hasher.update(now);
            self.bytes += now.len() as u64;
            if self.bytes.is_multiple_of(BLOCK_BYTES as u64) {
                self.blocks.push(Hash::finish(&self.hasher));
                self.hasher.reset();
            }
            bytes = later;
        }
    }

    /// Whether the two have the same length and the same hashes.
    pub fn is_same(&self, other: &Self) -> bool {
        self.blocks() == other.blocks()
    }

    /// The number of bytes, and the hash of each block.
    pub(crate) fn blocks(&self) -> (u64, Vec<Hash>) {
        let mut blocks = self.blocks.clone();
        if !self.bytes.is_multiple_of(BLOCK_BYTES as u64) {
            blocks.push(Hash::finish(&self.hasher));
        }
        (self.bytes, blocks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|at| (at / 7 + at / 70_000) as u8).collect()
    }

    #[test]
    fn a_part_has_the_same_hashes_for_any_chunks() {
        for len in [
            0,
            1,
            BLOCK_BYTES - 1,
            BLOCK_BYTES,
            BLOCK_BYTES + 1,
            2 * BLOCK_BYTES,
            2 * BLOCK_BYTES + 5,
        ] {
            let whole = bytes(len);
            let blocks: Vec<_> = whole.chunks(BLOCK_BYTES).map(Hash::of).collect();
            assert_eq!(blocks.len() as u64, count(len as u64));
            for step in [len.max(1), 3 * 1024 * 1024, 999_999] {
                let mut digest = PartDigest::default();
                whole.chunks(step).for_each(|bytes| digest.update(bytes));
                assert_eq!(
                    digest.blocks(),
                    (len as u64, blocks.clone()),
                    "{len} in steps of {step}"
                );
            }
        }
    }

    #[test]
    fn the_hash_of_one_block_is_that_of_its_bytes_and_of_several_that_of_their_hashes() {
        let (first, second) = (Hash::of(b"first"), Hash::of(b"second"));
        assert_eq!(Hash::of_blocks(&[first]), first);
        assert_eq!(Hash::of_blocks(&[]), Hash::of(b""));
        let hashes = [first.0.to_be_bytes(), second.0.to_be_bytes()].concat();
        assert_eq!(Hash::of_blocks(&[first, second]), Hash::of(&hashes));
    }

    #[test]
    fn a_hash_is_read_as_it_is_written_and_nothing_else_is_one() {
        let hash = Hash(0xabc);
        let digits = String::from(hash);
        assert_eq!(digits, format!("{}abc", "0".repeat(29)));
        assert_eq!(Hash::try_from(digits.clone()), Ok(hash));
        for wrong in [
            "",
            "abc",
            &digits.to_uppercase(),
            &format!("+{}", &digits[1..]),
        ] {
            assert!(Hash::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
    }
}
