//! PalmDOC's compression, an LZ77 over one record. Must never write more than it has room for.
//!
//! Format: <https://wiki.mobileread.com/wiki/PalmDOC#Format>.

use super::Fault;

/// Unpacks one record to the end of `out`, at most up to `limit` bytes of it.
pub fn unpack(record: &[u8], out: &mut Vec<u8>, limit: usize) -> Result<(), Fault> {
    let start = out.len();
    let mut at = 0;
    while let Some(&byte) = record.get(at) {
        at += 1;
        // No code gives more than ten bytes.
        if limit.saturating_sub(out.len()) < 10 {
            return Err(Fault::TooLarge);
        }
        match byte {
            0x01..=0x08 => {
                let end = (at + usize::from(byte)).min(record.len());
                out.extend_from_slice(&record[at..end]);
                at = end;
            }
            0x00 | 0x09..=0x7f => out.push(byte),
            0x80..=0xbf => {
                let Some(&low) = record.get(at) else { break };
                at += 1;
                let pair = u16::from_be_bytes([byte, low]) & 0x3fff;
                let (distance, length) = (usize::from(pair >> 3), usize::from(pair & 7) + 3);
                if distance == 0 || distance > out.len() - start {
                    return Err(Fault::Damaged("a text record refers to text before it"));
                }
                // The copy may overlap what it writes: "ab" at distance 1 is "bbb".
                for from in out.len() - distance..out.len() - distance + length {
                    out.push(out[from]);
                }
            }
            0xc0.. => out.extend_from_slice(&[b' ', byte ^ 0x80]),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn unpacked(record: &[u8]) -> Result<Vec<u8>, Fault> {
        let mut out = b"before".to_vec();
        unpack(record, &mut out, 1000)?;
        Ok(out.split_off(6))
    }

    #[test]
    fn every_kind_of_code_is_read() {
        assert_eq!(unpacked(b"abc\x02\xc3\xa4\xe4").unwrap(), "abcä d".as_bytes());
        // Distance 3, length 6: overlapping.
        assert_eq!(unpacked(&[b'a', b'b', b'c', 0x80, (3 << 3) | 3]).unwrap(), b"abcabcabc");
        assert_eq!(unpacked(&[b'a', 0, 0x80]).unwrap(), b"a\0");
        assert_eq!(unpacked(b"\x05ab").unwrap(), b"ab");
    }

    #[test]
    fn references_out_of_the_record_are_damage() {
        assert!(matches!(unpacked(&[b'a', 0x80, 2 << 3]), Err(Fault::Damaged(_))));
        assert!(matches!(unpacked(&[b'a', 0x80, 0]), Err(Fault::Damaged(_))));
    }

    proptest! {
        #[test]
        fn anything_ends_within_the_limit(record in prop::collection::vec(any::<u8>(), 0..600), limit in 0usize..800) {
            let mut out = Vec::new();
            let _ = unpack(&record, &mut out, limit);
            prop_assert!(out.len() <= limit);
        }
    }
}
