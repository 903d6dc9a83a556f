//! PEM as it really arrives: the lax grammar of RFC 7468, and line ends as mail programs, shells and JSON encoders change them.
//!
//! The crate `pem` takes an empty line inside the base64 for the end of headers, so the grammar is read here.

use std::{iter::Peekable, str::Chars};

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

use crate::printable::{escape, is_printable};

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";
/// The longest label.
const LABEL_MAX_CHARS: usize = 64;
/// The line of certificates in PEM has 64 characters (RFC 7468, section 2).
const LINE_CHARS: usize = 64;

/// Padding may be missing, and unused bits may be set.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true).with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// One PEM block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The text after `BEGIN`.
    pub label: String,
    /// The bytes in base64.
    pub der: Vec<u8>,
}

/// The text with each kind of line end as LF, each other white space as a space, and what JSON and shells escape as itself: no base64 has a
/// backslash. Characters that nobody sees are dropped, such as a byte order mark and the zeros of UTF-16.
#[must_use]
pub fn normalized(text: &str) -> String {
    let mut normal = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        match if c == '\\' { escaped(&mut characters) } else { c } {
            '\n' | '\r' => normal.push('\n'),
            c if c.is_whitespace() => normal.push(' '),
            c if is_printable(c) => normal.push(c),
            _ => {}
        }
    }
    normal
}

/// The character that stands after backslashes: a line end or a slash of JSON, one by its number, or the end of a line that a shell goes on with.
fn escaped(rest: &mut Peekable<Chars<'_>>) -> char {
    while rest.next_if_eq(&'\\').is_some() {}
    match rest.peek() {
        Some('n' | 'r' | 't') => {
            rest.next();
            '\n'
        }
        Some('/' | '\n' | '\r') => rest.next().unwrap_or_default(),
        Some('u') => {
            let digits: String = rest.clone().skip(1).take(4).filter(char::is_ascii_hexdigit).collect();
            let number = u32::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 4);
            number.and_then(char::from_u32).map_or('\\', |c| {
                rest.nth(4);
                c
            })
        }
        _ => '\\',
    }
}

/// The blocks of a normalized text. Text around them is skipped.
///
/// # Errors
///
/// Which block is broken, and why.
pub fn blocks(text: &str) -> Result<Vec<Block>, String> {
    let (mut rest, mut blocks) = (text, Vec::new());
    while let Some((before, begun)) = rest.split_once(BEGIN) {
        let number = blocks.len() + 1;
        check_begun(number, before)?;
        let label = begun.split_once(DASHES).and_then(|(label, after)| Some((read_label(label)?, after)));
        let Some((label, after)) = label else { return Err(format!("the BEGIN line of PEM block {number} is cut off")) };
        let cut_off = || format!("PEM block {number} ({label}) is cut off: its END line is missing");
        let (body, after) = after.split_once(END).ok_or_else(cut_off)?;
        if body.contains(BEGIN) {
            return Err(cut_off());
        }
        let (end, after) = after.split_once(DASHES).ok_or_else(cut_off)?;
        if read_label(end).as_ref() != Some(&label) {
            return Err(format!("the END line of PEM block {number} does not say {label} as its BEGIN line does"));
        }
        let der = decode(body).ok_or_else(|| format!("PEM block {number} ({label}) is broken: {}", why_not_base64(body)))?;
        if der.is_empty() {
            return Err(format!("PEM block {number} ({label}) is empty"));
        }
        blocks.push(Block { label, der });
        rest = after;
    }
    check_begun(blocks.len() + 1, rest)?;
    Ok(blocks)
}

/// Text around blocks has no END line: it would be that of a block without its first line.
fn check_begun(number: usize, text: &str) -> Result<(), String> {
    if text.contains(END) { Err(format!("PEM block {number} has its END line without its BEGIN line")) } else { Ok(()) }
}

fn why_not_base64(text: &str) -> String {
    let foreign = text.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=') || c.is_whitespace()));
    foreign.map_or_else(
        || "what it holds is not base64, or not all of it".to_owned(),
        |c| format!("what it holds is not base64, which has no character {}", escape(&format!("‘{c}’"))),
    )
}

/// A label in upper case, as each is that RFC 7468 has: some programs write them in lower case.
fn read_label(text: &str) -> Option<String> {
    let label = text.split_whitespace().collect::<Vec<_>>().join(" ").to_ascii_uppercase();
    let is_label = !text.contains('\n') && label.len() <= LABEL_MAX_CHARS && label.bytes().all(|b| matches!(b, b' '..=b'~'));
    is_label.then_some(label)
}

/// Base64 with white space anywhere.
#[must_use]
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let characters: String = text.split_whitespace().collect();
    BASE64.decode(characters).ok()
}

/// Whether a text has the first or the last line of a private key's block, in whatever case, and with its spaces as forms and URLs write them.
#[must_use]
pub fn has_private_key(text: &str) -> bool {
    let text = normalized(text).to_ascii_uppercase().replace("%20", " ").replace(['+', '_'], " ");
    let is_marked = |at: usize| text[..at].trim_end().ends_with(|c: char| !c.is_ascii() || c == '-');
    let lines = ["BEGIN ", "END "].into_iter().flat_map(|word| text.match_indices(word));
    lines.filter(|(at, _)| is_marked(*at)).any(|(at, word)| {
        let rest = &text[at + word.len()..];
        let (label, after) = rest.split_at(rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == ' ')).unwrap_or(rest.len()));
        let label = label.split_whitespace().collect::<Vec<_>>().join(" ");
        // In a sentence, no dash follows.
        let is_line = after.starts_with(|c: char| !c.is_ascii() || c == '-');
        is_line && ["PRIVATE KEY", "PRIVATE KEY BLOCK"].iter().any(|end| label.ends_with(end))
    })
}

/// A block with lines of 64 characters, and a newline at its end.
#[must_use]
pub fn encode(label: &str, der: &[u8]) -> String {
    let base64 = BASE64.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    let mut rest = base64.as_str();
    while !rest.is_empty() {
        let (line, others) = rest.split_at(rest.len().min(LINE_CHARS));
        text.extend([line, "\n"]);
        rest = others;
    }
    text + &format!("-----END {label}-----\n")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Vec<Block>, String> {
        blocks(&normalized(text))
    }

    #[test]
    fn white_space_line_ends_and_text_around_do_not_matter() {
        let expected = vec![Block { label: "CERTIFICATE".to_owned(), der: b"abcdef".to_vec() }];
        for text in [
            "-----BEGIN CERTIFICATE-----\nYWJj\nZGVm\n-----END CERTIFICATE-----\n",
            "-----BEGIN CERTIFICATE-----\r\nYWJj\r\n\r\nZGVm\r\n\r\n-----END CERTIFICATE-----",
            "-----BEGIN CERTIFICATE-----\rYW Jj\r\tZG\u{a0}Vm\r-----END CERTIFICATE-----\r",
            "-----BEGIN CERTIFICATE-----YWJjZGVm-----END CERTIFICATE-----",
            "-----BEGIN certificate-----\nYWJjZGVm\n-----END Certificate-----\n",
            "-----BEGIN\u{a0}CERTIFICATE----- YWJj ZGVm -----END\tCERTIFICATE-----",
            "\u{feff}subject=\\x\n\"-----BEGIN CERTIFICATE-----\\r\\nYWJj\\\\nZGVm\\n-----END CERTIFICATE-----\"\nthe end",
            "-----BEGIN CERTIFICATE-----\\\nYWJj\\u005AGVm\\\r\n-----END\\u0020CERTIFICATE-----",
            "\u{feff}-\0-\0-\0-\0-\0B\0E\0G\0I\0N\0 CERTIFICATE-----\u{200e}YWJj\u{ad}ZGVm\u{1b}-----END CERTIFICATE-----\0",
        ] {
            assert_eq!(read(text).as_ref(), Ok(&expected), "{text:?}");
        }
        assert_eq!(read("-----BEGIN A-----\n\\/\\/\\/\\/\n-----END A-----").unwrap()[0].der, [255, 255, 255]);
        for text in ["no block at all", "\\", "\\u12", "\\u+123", "\\ud800", ""] {
            assert_eq!(read(text), Ok(Vec::new()), "{text:?}");
        }
    }

    #[test]
    fn a_broken_block_is_named_with_what_is_wrong_with_it() {
        let good = "-----BEGIN A-----\nYWJj\n-----END A-----\n";
        for (text, why) in [
            ("-----BEGIN B----", "BEGIN line of PEM block 2"),
            ("-----BEGIN B\n-----", "BEGIN line of PEM block 2"),
            ("-----BEGIN B-----\nYWJj", "PEM block 2 (B) is cut off"),
            ("-----BEGIN B-----\nYWJj\n-----END B----", "PEM block 2 (B) is cut off"),
            ("-----BEGIN B-----\nYWJj\n-----BEGIN B-----\nYWJj\n-----END B-----", "PEM block 2 (B) is cut off"),
            ("-----BEGIN B-----\nYWJj\n-----END C-----", "END line of PEM block 2"),
            (
                "-----BEGIN B-----\nYW*j\n-----END B-----",
                "PEM block 2 (B) is broken: what it holds is not base64, which has no character ‘*’",
            ),
            ("-----BEGIN B-----\nYWJjA\n-----END B-----", "PEM block 2 (B) is broken: what it holds is not base64, or not all of it"),
            ("YWJj\n-----END B-----", "PEM block 2 has its END line without"),
            ("YWJj\n-----END B-----\n-----BEGIN C-----\nYWJj\n-----END C-----", "PEM block 2 has its END line without"),
            ("-----BEGIN B-----\n \n-----END B-----", "PEM block 2 (B) is empty"),
        ] {
            let said = read(&format!("{good}{text}")).unwrap_err();
            assert!(said.contains(why), "{text}: {said}");
        }
    }

    #[test]
    fn a_private_key_is_seen_whole_or_cut_off_in_whatever_case() {
        for label in ["PRIVATE KEY", "RSA PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "OPENSSH PRIVATE KEY", "ec private key"] {
            assert!(has_private_key(&format!("x\n-----BEGIN {label}-----\nAA")), "{label}");
            assert!(has_private_key(&format!("-----begin {label}----")), "{label}");
            assert!(has_private_key(&format!("AAAA\n-----END {label}-----\n")), "{label}");
            let other_spaces = label.replace(' ', " \u{a0}\t");
            assert!(has_private_key(&format!("-----BEGIN\u{a0}{other_spaces}-----")), "{other_spaces}");
            for space in ["%20", "+", "_", "\u{200b} "] {
                assert!(has_private_key(&format!("-----BEGIN {label}-----").replace(' ', space)), "{label} with {space}");
            }
            let utf_16: String = format!("-----BEGIN {label}-----").chars().flat_map(|c| [c, '\0']).collect();
            assert!(has_private_key(&utf_16), "{label}");
        }
        assert!(has_private_key("-----BEGIN PGP PRIVATE KEY BLOCK-----"));
        assert!(has_private_key("–––BEGIN PRIVATE KEY–––"));
        for text in [
            "-----BEGIN CERTIFICATE-----",
            "begin by making a private key",
            "Please note - end users never share their private key.",
            "3 - begin by making a private key",
            "-----BEGIN PUBLIC KEY----- PRIVATE KEY",
            "",
        ] {
            assert!(!has_private_key(text), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_read_as_it_was(der in proptest::collection::vec(any::<u8>(), 1..300), label in "[A-Z0-9]{1,20}( [A-Z0-9]{1,20})?") {
            prop_assert_eq!(read(&encode(&label, &der)), Ok(vec![Block { label, der }]));
        }

        #[test]
        fn no_text_panics(text: String, tail: String) {
            let _ = read(&format!("{text}-----BEGIN {tail}-----{text}-----END {tail}-----"));
            let _ = has_private_key(&format!("{text}-BEGIN {tail}"));
        }
    }
}
