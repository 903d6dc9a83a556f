//! Text for terminals and line readers: characters on which they would act are escaped.

use std::{borrow::Cow, fmt::Write};

/// Whether a terminal shows a character as itself: no control (Unicode categories Cc and Cf, which has the bidirectional
/// controls) and no line or paragraph separator.
#[must_use]
pub const fn is_printable(c: char) -> bool {
    !matches!(c,
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}'
        | '\u{890}'..='\u{891}' | '\u{8e2}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e007f}')
}

/// Replaces each character that is not printable by `\uXXXX`, as in JSON. Escaped JSON stays the same JSON.
#[must_use]
pub fn escape(text: &str) -> Cow<'_, str> {
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) || text.chars().all(is_printable) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_printable(c) {
            escaped.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(escaped, "\\u{unit:04x}");
            }
        }
    }
    Cow::Owned(escaped)
}

/// The text for a message: cut to a bound, with `…` after a cut, and escaped.
#[must_use]
pub fn excerpt(text: &str, max_chars: usize) -> String {
    let end = text.char_indices().nth(max_chars).map(|(at, _)| at);
    end.map_or_else(|| escape(text).into_owned(), |end| format!("{}…", escape(&text[..end])))
}

/// The bytes in lower-case hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    let digit = |half: u8| char::from(b"0123456789abcdef"[usize::from(half)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_terminal_or_a_line_reader_acts_on_is_escaped_and_letters_stay() {
        let acted_on = "\u{9b}31m\u{85}\u{2028}\u{2029}\u{202e}\u{2066}\u{200f}\u{feff}\u{1b}\r\n\t\0\u{e0041}";
        let escaped = escape(acted_on);
        assert!(escaped.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{escaped}");
        let letters = "Müller \u{5d0}\u{627} 日本 😀 \\ \"";
        assert_eq!(escape(letters), letters);
    }

    proptest! {
        #[test]
        fn escaped_json_is_the_same_json_on_one_line(text: String) {
            let json = serde_json::to_string(&text).unwrap();
            let escaped = escape(&json);
            prop_assert!(escaped.chars().all(is_printable));
            prop_assert_eq!(serde_json::from_str::<String>(&escaped).unwrap(), text);
        }
    }
}
