//! Figures as people read them.

use std::time::Duration;

pub fn ms(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1e3;
    if ms < 10.0 { format!("{ms:.2} ms") } else { format!("{} ms", grouped(ms)) }
}

#[expect(clippy::cast_precision_loss, reason = "of no importance here")]
pub fn mib(bytes: u64) -> String {
    if bytes == 0 { "–".to_owned() } else { format!("{:.0} MiB", bytes as f64 / 1024.0 / 1024.0) }
}

/// A number for people: three digits that matter at least, thousands set apart.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rounded and not negative")]
pub fn grouped(number: f64) -> String {
    if number < 100.0 {
        return format!("{number:.1}");
    }
    let digits = (number.round() as u64).to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
