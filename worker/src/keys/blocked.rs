//! Keys that are never used, whatever made them: those that are known to others, from a list of the operator's.

use std::collections::HashSet;

/// The SHA-256 of a SubjectPublicKeyInfo, in hexadecimal digits.
const DIGITS: usize = 64;

/// Blocked keys, by the SHA-256 of their SubjectPublicKeyInfo.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlockedKeys(HashSet<[u8; 32]>);

/// A line of a list is not one of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line {0} is not the SHA-256 of a key in {DIGITS} hexadecimal digits: correct it, or put # before it")]
pub struct LineError(usize);

impl BlockedKeys {
    /// Parses a list: one key a line, in either case. Blank lines, and what follows a `#`, are passed over.
    ///
    /// # Errors
    ///
    /// [`LineError`] if a line has anything else.
    pub fn parse(list: &[u8]) -> Result<Self, LineError> {
        let mut keys = HashSet::new();
        for (index, line) in list.split(|octet| *octet == b'\n').enumerate() {
            let digits = line.split(|octet| *octet == b'#').next().unwrap_or_default().trim_ascii();
            if !digits.is_empty() {
                keys.insert(digest(digits).ok_or(LineError(index + 1))?);
            }
        }
        Ok(Self(keys))
    }

    /// Whether this key is not to be used.
    #[must_use]
    pub fn contains(&self, spki_sha256: &[u8; 32]) -> bool {
        self.0.contains(spki_sha256)
    }
}

fn digest(digits: &[u8]) -> Option<[u8; 32]> {
    if digits.len() != DIGITS {
        return None;
    }
    let digit = |octet: u8| char::from(octet).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut digest = [0; 32];
    for (octet, pair) in digest.iter_mut().zip(digits.chunks_exact(2)) {
        *octet = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_a_key_a_line_in_either_case_with_comments_and_blank_lines() {
        let lower = "0123456789abcdef".repeat(4);
        let upper = "FEDCBA9876543210".repeat(4);
        let list = format!("# leaked in 2024\n\n{lower}\r\n  {upper}\t# twice\n{lower}\n#{lower}");
        let keys = BlockedKeys::parse(list.as_bytes()).unwrap();
        assert_eq!(keys.0.len(), 2);
        let octets = [0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef];
        assert!(keys.contains(&octets.repeat(4).try_into().unwrap()));
        assert!(!keys.contains(&[0; 32]));
        assert_eq!(BlockedKeys::parse(b""), Ok(BlockedKeys::default()));
    }

    #[test]
    fn a_line_that_is_no_key_is_named() {
        let key = "ab".repeat(32);
        for bad in
            ["ab".repeat(31), "ab".repeat(33), format!("{}g", &key[1..]), format!("{key} {key}"), "sha256".into(), "\u{e9}".repeat(32)]
        {
            let list = format!("{key}\n# next\n{bad}\n{key}\n");
            assert_eq!(BlockedKeys::parse(list.as_bytes()), Err(LineError(3)), "{bad}");
        }
    }
}
