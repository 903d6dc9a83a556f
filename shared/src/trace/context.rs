//! Names of spans in the form of the header `traceparent` (W3C Trace Context), which the column of that name has too.

use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

/// The length of a `traceparent` of version 00, in bytes. Later versions may add to it.
const LENGTH: usize = 55;
/// The longest header that is read, in bytes.
const MAX_BYTES: usize = 512;

/// Reads the name of a span in another process, or returns `None` if it is not one. A `tracestate` that cannot be read, or is too long to
/// keep, is left out.
pub fn parse(traceparent: &str, tracestate: Option<&str>) -> Option<SpanContext> {
    let text = traceparent.trim_matches([' ', '\t']);
    let (head, rest) = text.split_at_checked(LENGTH).filter(|_| text.len() <= MAX_BYTES)?;
    let mut parts = head.split('-');
    let (version, trace, span, flags) = (hex(parts.next()?, 2)?, hex(parts.next()?, 32)?, hex(parts.next()?, 16)?, hex(parts.next()?, 2)?);
    let is_whole = if version == "00" { rest.is_empty() } else { rest.is_empty() || rest.starts_with('-') };
    if version == "ff" || !is_whole {
        return None;
    }
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED;
    let state = tracestate.filter(|state| state.len() <= MAX_BYTES).and_then(|state| state.parse::<TraceState>().ok()).unwrap_or_default();
    let context = SpanContext::new(TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?, flags, true, state);
    context.is_valid().then_some(context)
}

/// This many hexadecimal digits in lower case.
fn hex(text: &str, digits: usize) -> Option<&str> {
    (text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))).then_some(text)
}

/// The name of a span for other processes.
pub fn traceparent(span: &SpanContext) -> String {
    format!("00-{}-{}-{:02x}", span.trace_id(), span.span_id(), (span.trace_flags() & TraceFlags::SAMPLED).to_u8())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    #[test]
    fn what_names_a_span_is_read_and_written_again() {
        for (text, is_recorded) in [
            (format!("00-{TRACE}-{SPAN}-01"), true),
            (format!(" 00-{TRACE}-{SPAN}-00\t"), false),
            // Unknown flags and later versions are allowed.
            (format!("00-{TRACE}-{SPAN}-03"), true),
            (format!("cc-{TRACE}-{SPAN}-01"), true),
            (format!("cc-{TRACE}-{SPAN}-01-what-comes"), true),
        ] {
            let read = parse(&text, Some("vendor=1,other=2")).unwrap();
            assert_eq!(traceparent(&read), format!("00-{TRACE}-{SPAN}-0{}", u8::from(is_recorded)), "{text}");
            assert!(read.is_remote() && read.trace_state().get("other") == Some("2"));
        }
    }

    #[test]
    fn what_names_none_is_passed_over() {
        for text in [
            String::new(),
            "nonsense".to_owned(),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("00-{TRACE}-{SPAN}-01."),
            format!("cc-{TRACE}-{SPAN}-01."),
            format!("00-{TRACE}-{SPAN}-1"),
            format!("00-{}-{SPAN}-01", "0".repeat(32)),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00-+{}-{SPAN}-01", &TRACE[1..]),
            format!("00-{}-{SPAN}g-01", &TRACE[1..]),
            format!("00-{}ü-{SPAN}-01", &TRACE[2..]),
            format!("cc-{TRACE}-{SPAN}-01-{}", "x".repeat(MAX_BYTES)),
        ] {
            assert!(parse(&text, None).is_none(), "{text}");
        }
    }

    #[test]
    fn a_state_that_is_too_long_or_broken_is_left_out() {
        let text = format!("00-{TRACE}-{SPAN}-01");
        for state in ["x", &format!("vendor={}", "x".repeat(MAX_BYTES))] {
            assert_eq!(parse(&text, Some(state)).unwrap().trace_state().header(), "", "{state}");
        }
    }
}
