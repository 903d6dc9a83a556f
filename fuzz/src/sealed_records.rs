//! Sealed records: what was not sealed does not open, nor does what was changed or moved.

use std::cell::OnceCell;

use shared::seal::{Binding, MasterKey, Sealer, master_key_id};

use super::with;

/// Bytes before the ciphertext: version, master key ID, data key, nonce.
const VERSION: u8 = 1;

struct Sealers {
    sealer: Sealer,
    other: Sealer,
    id: [u8; 8],
}

thread_local! {
    static SEALERS: OnceCell<Sealers> = const { OnceCell::new() };
}

fn sealers() -> Sealers {
    let key = |letter: &str| MasterKey::parse(&format!("{}=", letter.repeat(43))).expect("a master key");
    let (first, second) = (key("A"), key("E"));
    let mut id = [0; 8];
    let hex = first.id();
    for (index, byte) in id.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[2 * index..2 * index + 2], 16).expect("hexadecimal");
    }
    Sealers { sealer: Sealer::new(first, Vec::new()), other: Sealer::new(second, Vec::new()), id }
}

/// These bytes: as a record, as what comes after a record's first bytes, as what is sealed, and as a master key.
pub fn check(data: &[u8]) {
    check_master_key(data);
    with(&SEALERS, sealers, |sealers| {
        let binding = Binding::custom_csr("row", "zones/z", &[7; 32]);
        assert!(sealers.sealer.open(&binding, data).is_err(), "what nobody sealed was opened");
        let record = [&[VERSION], sealers.id.as_slice(), data].concat();
        assert!(sealers.sealer.open(&binding, &record).is_err(), "what nobody sealed was opened");
        assert_eq!(master_key_id(data).is_some(), data.len() > 8);
        check_sealed(sealers, data);
    });
}

/// The first four bytes say which bit is changed; the next, where the record is moved to. The rest is sealed.
fn check_sealed(Sealers { sealer, other, .. }: &Sealers, data: &[u8]) {
    let Some((at, rest)) = data.split_first_chunk::<4>() else { return };
    let Some((place, plaintext)) = rest.split_first() else { return };
    let spki = [*place; 32];
    let (row, scope) = plaintext.split_at(plaintext.len().min(usize::from(*place)));
    let (row, scope) = (String::from_utf8_lossy(row), String::from_utf8_lossy(scope));
    let binding = Binding::custom_csr(&row, &scope, &spki);
    let record = sealer.seal(&binding, plaintext).expect("sealed");
    assert_eq!(sealer.open(&binding, &record).expect("opened").as_slice(), plaintext);
    assert_eq!(master_key_id(&record), Some(sealer.current_id()));
    if plaintext.len() >= 16 {
        assert!(!record.windows(plaintext.len()).any(|window| window == plaintext), "the record shows what was sealed");
    }
    let resealed = sealer.reseal(&binding, &record).expect("sealed again");
    assert!(resealed != record, "the same data key or nonce was used twice");
    assert_eq!(sealer.open(&binding, &resealed).expect("opened").as_slice(), plaintext);

    let bit = usize::try_from(u32::from_le_bytes(*at)).expect("32 bits") % (record.len() * 8);
    let mut changed = record.clone();
    changed[bit / 8] ^= 1 << (bit % 8);
    assert!(sealer.open(&binding, &changed).is_err(), "opened with bit {bit} changed");
    assert!(sealer.open(&binding, &record[..bit / 8]).is_err(), "opened although it was cut off");
    assert!(sealer.open(&binding, &[record.as_slice(), &[*place]].concat()).is_err(), "opened although it is longer");
    assert!(other.open(&binding, &record).is_err(), "opened with another master key");

    let mut other_spki = spki;
    other_spki[bit % 32] ^= 1;
    let longer = format!("{row}x");
    for elsewhere in [
        Binding::custom_csr(&longer, &scope, &spki),
        Binding::custom_csr(&row, &longer, &spki),
        Binding::custom_csr(&row, &scope, &other_spki),
        Binding { column: "other", ..binding },
        Binding::pool_key(&row, &spki),
    ] {
        let is_same = elsewhere.scope == binding.scope && elsewhere.row_id == binding.row_id && elsewhere.column == binding.column;
        let is_same = is_same && elsewhere.table == binding.table && elsewhere.spki_sha256 == binding.spki_sha256;
        assert!(is_same || sealer.open(&elsewhere, &record).is_err(), "opened in another place: {elsewhere:?}");
    }
}

fn check_master_key(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(key) = MasterKey::parse(text) else { return };
    let again = MasterKey::parse(&key.to_line()).expect("its own line");
    assert_eq!((again.id(), key.to_line().trim_end()), (key.id(), text.trim_end_matches('\n')));
    assert!(!format!("{key:?}").contains(text.trim_end()), "a master key was shown");
}
