//! Internationalized labels as certificates have them (RFC 5890, 2.3.2.1): `xn--` and Punycode.

use idna::{
    AsciiDenyList,
    uts46::{Hyphens, Uts46},
};
use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};

/// What begins an A-label.
const PREFIX: &str = "xn--";

/// Characters that IDNA 2008 allows although they are no letters or digits (RFC 5892, 2.6 and 2.7, and appendix A).
const EXCEPTIONS: [char; 11] =
    ['-', '\u{b7}', '\u{375}', '\u{5f3}', '\u{5f4}', '\u{6fd}', '\u{6fe}', '\u{f0b}', '\u{200c}', '\u{200d}', '\u{30fb}'];

/// Whether IDNA 2008 forbids a letter or mark all the same (RFC 5892, 2.6 and 2.9).
const fn is_exception(c: char) -> bool {
    matches!(c,
        '\u{640}' | '\u{7fa}' | '\u{302e}' | '\u{302f}' | '\u{3031}'..='\u{3035}' | '\u{303b}'
        | '\u{1100}'..='\u{11ff}' | '\u{a960}'..='\u{a97c}' | '\u{d7b0}'..='\u{d7fb}')
}

/// Why public CAs refuse this lower-case label, or `None`: it has the form of an A-label, and is none.
pub(super) fn fault(label: &str) -> Option<&'static str> {
    if label.starts_with(PREFIX) {
        return (!is_a_label(label)).then_some("begins with ‘xn--’ and does not decode (IDNA 2008)");
    }
    let is_reserved = label.as_bytes().get(2..4) == Some(b"--");
    is_reserved.then_some("has ‘--’ in its third and fourth place, which is reserved for ‘xn--’")
}

/// Whether a label decodes to a U-label. UTS #46 allows more than IDNA 2008, symbols and emoji among it, so each character's category is
/// checked too.
fn is_a_label(label: &str) -> bool {
    let (decoded, result) = Uts46::new().to_unicode(label.as_bytes(), AsciiDenyList::STD3, Hyphens::Check);
    result.is_ok() && !decoded.is_ascii() && decoded.chars().all(is_allowed) && contexts_hold(&decoded)
}

fn is_allowed(c: char) -> bool {
    use GeneralCategory::{DecimalNumber, LowercaseLetter, ModifierLetter, NonspacingMark, OtherLetter, SpacingMark};
    let is_letter_or_digit =
        matches!(c.general_category(), LowercaseLetter | OtherLetter | ModifierLetter | NonspacingMark | SpacingMark | DecimalNumber);
    (is_letter_or_digit && !is_exception(c)) || c == '\u{3007}' || EXCEPTIONS.contains(&c)
}

/// Whether the characters that are allowed only among certain others are among those (RFC 5892, appendix A.3 to A.9). UTS #46 does not
/// ask for it; the rules of the joiners it checks itself.
fn contexts_hold(label: &str) -> bool {
    let characters: Vec<char> = label.chars().collect();
    let before = |at: usize| at.checked_sub(1).map(|at| characters[at]);
    let after = |at: usize| characters.get(at + 1).copied();
    characters.iter().enumerate().all(|(at, c)| match c {
        '\u{b7}' => before(at) == Some('l') && after(at) == Some('l'),
        '\u{375}' => after(at).is_some_and(is_greek),
        '\u{5f3}' | '\u{5f4}' => before(at).is_some_and(is_hebrew),
        '\u{30fb}' => label.contains(is_japanese),
        '\u{660}'..='\u{669}' => !label.contains(|other| matches!(other, '\u{6f0}'..='\u{6f9}')),
        _ => true,
    })
}

const fn is_greek(c: char) -> bool {
    matches!(c, '\u{370}'..='\u{3ff}' | '\u{1f00}'..='\u{1fff}')
}

const fn is_hebrew(c: char) -> bool {
    matches!(c, '\u{591}'..='\u{5f4}' | '\u{fb1d}'..='\u{fb4f}')
}

/// Hiragana, Katakana or Han.
const fn is_japanese(c: char) -> bool {
    matches!(c,
        '\u{3005}' | '\u{3007}' | '\u{3041}'..='\u{3096}' | '\u{309d}'..='\u{309f}' | '\u{30a1}'..='\u{30fa}' | '\u{30fd}'..='\u{30ff}'
        | '\u{31f0}'..='\u{31ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}'
        | '\u{1b000}'..='\u{1b16f}' | '\u{20000}'..='\u{323af}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_that_decode_by_idna_2008_are_fine_and_so_are_those_without_its_form() {
        let plain = ["www", "a-b", "a--b", "abc--d", "a_b", "-", "xn", "xn-", "*", "ab-"];
        // München, straße, рф, 中国, مصر, ישראל, भारत, テスト・テスト, l·l and 〇 among them, and each character that needs others, with those.
        let international = [
            "xn--mnchen-3ya",
            "xn--strae-oqa",
            "xn--p1ai",
            "xn--fiqs8s",
            "xn--wgbh1c",
            "xn--ngba1c",
            "xn--4dbrk0ce",
            "xn--5ca1b",
            "xn--h2brj9c",
            "xn--wgv71a119e",
            "xn--3e0b707e",
            "xn--o3cw4h",
            "xn--podm",
            "xn--zcka1bbjc86a",
            "xn--ll-0ea",
            "xn--collecci-ioa91d",
            "xn--wva4j",
            "xn--4db4e",
            "xn--4dbc8h",
            "xn--cckyj",
            "xn--vekv29fo7f",
            "xn--a-x7t80a",
            "xn--mgb0j",
            "xn--mgb81b",
            "xn--w6j",
        ];
        for label in plain.into_iter().chain(international) {
            assert_eq!(fault(label), None, "{label}");
        }
    }

    #[test]
    fn labels_that_do_not_decode_or_have_reserved_hyphens_are_faulty() {
        let broken = ["xn--zzzzzz99", "xn--a", "xn--", "xn---", "xn--a-", "xn--abc-", "xn--mnchen-3yb99999", "xn--99999999", "xn--a_b-3ya"];
        // A pile of poo, i❤, ☃, Ä, ſ, ½, ﬁ and ª; hyphens in U-labels; a mark that comes first.
        let not_allowed = [
            "xn--ls8h",
            "xn--i-7iq",
            "xn--n3h",
            "xn--7ba",
            "xn--kha",
            "xn--0ba",
            "xn--jm6c",
            "xn--hba",
            "xn--hgi-6qa0g",
            "xn--ab---3ra",
            "xn----dha",
            "xn--a-wbb",
        ];
        // a·b, l·, ·l, keraia and geresh without their letters, a・b, Arabic digits of both kinds, kashida, repetition marks, Jamo.
        let out_of_context = [
            "xn--ab-0ea",
            "xn--l-gda",
            "xn--l-fda",
            "xn--a-jib5p",
            "xn--wva3j",
            "xn--a-0jc",
            "xn--ab-3n4a",
            "xn--mgb9iyr",
            "xn--mgbb6e",
            "xn--37j8a",
            "xn--e8jo",
            "xn--ypd8q",
        ];
        for label in broken.into_iter().chain(not_allowed).chain(out_of_context) {
            assert!(fault(label).is_some_and(|why| why.contains("does not decode")), "{label}");
        }
        for label in ["ab--cd", "12--", "ab---d", "----"] {
            assert!(fault(label).is_some_and(|why| why.contains("third and fourth")), "{label}");
        }
    }
}
