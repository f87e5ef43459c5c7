//! JSON documents that end with their own checksum.
//!
//! The seal is the same for every format version. So a program can tell a document of a newer version, which it
//! refuses, from a damaged one, which it quarantines.

use serde::Serialize;
use xxhash_rust::xxh3::xxh3_128;

const BEFORE_CHECKSUM: &str = ",\n  \"checksum\": \"";
const AFTER_CHECKSUM: &str = "\"\n}\n";

/// The document does not match its checksum, or has none.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BrokenSeal;

/// Writes `document`, a JSON object, with its checksum as the last member.
pub(crate) fn seal<T: Serialize>(document: &T) -> Result<Vec<u8>, serde_json::Error> {
    let mut bytes = serde_json::to_vec_pretty(document)?;
    // Remove the closing brace, because one more member follows.
    bytes.truncate(bytes.len().saturating_sub("\n}".len()));
    let checksum = hex(xxh3_128(&bytes));
    bytes.extend_from_slice(BEFORE_CHECKSUM.as_bytes());
    bytes.extend_from_slice(checksum.as_bytes());
    bytes.extend_from_slice(AFTER_CHECKSUM.as_bytes());
    Ok(bytes)
}

/// Checks the seal and returns the document's text, checksum member included.
pub(crate) fn unseal(bytes: &[u8]) -> Result<&str, BrokenSeal> {
    let text = std::str::from_utf8(bytes).map_err(|_| BrokenSeal)?;
    let start = text.rfind(BEFORE_CHECKSUM).ok_or(BrokenSeal)?;
    let (sealed, tail) = text.split_at(start);
    let expected = hex(xxh3_128(sealed.as_bytes()));
    let found = tail
        .strip_prefix(BEFORE_CHECKSUM)
        .and_then(|rest| rest.strip_suffix(AFTER_CHECKSUM));
    (found == Some(expected.as_str()))
        .then_some(text)
        .ok_or(BrokenSeal)
}

/// A 128-bit hash as 32 lower-case hexadecimal digits.
pub(crate) fn hex(hash: u128) -> String {
    format!("{hash:032x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed() -> Vec<u8> {
        seal(&serde_json::json!({ "format": 1, "nested": { "a": [1, 2] }, "none": {} })).unwrap()
    }

    #[test]
    fn a_sealed_document_is_json_and_opens() {
        let bytes = sealed();
        let text = unseal(&bytes).unwrap();
        let value: serde_json::Value = serde_json::from_str(text).unwrap();
        assert_eq!(value["format"], 1);
        assert_eq!(value["nested"]["a"][1], 2);
        assert_eq!(value["checksum"].as_str().unwrap().len(), 32);
    }

    #[test]
    fn every_changed_byte_breaks_the_seal() {
        let bytes = sealed();
        for at in 0..bytes.len() {
            for change in [0x01, 0x20, 0x80] {
                let mut damaged = bytes.clone();
                damaged[at] ^= change;
                assert_eq!(unseal(&damaged), Err(BrokenSeal), "byte {at} ^ {change}");
            }
        }
    }

    #[test]
    fn every_truncation_and_anything_appended_breaks_the_seal() {
        let bytes = sealed();
        for len in 0..bytes.len() {
            assert_eq!(unseal(&bytes[..len]), Err(BrokenSeal), "{len} bytes");
        }
        for tail in ["\n", " ", "}", "x"] {
            let longer = [&bytes, tail.as_bytes()].concat();
            assert_eq!(unseal(&longer), Err(BrokenSeal), "{tail:?} appended");
        }
    }
}
