//! Prometheus' own text format, from that of OpenMetrics: older readers know no other.
//!
//! What differs for the metrics here: OpenMetrics names a counter without the `_total` of its samples, and ends with a line of its own.

/// The same metrics in Prometheus' text format.
pub fn prometheus(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let mut help = None;
    for line in open_metrics.lines() {
        if line.starts_with("# HELP ") {
            // How the metric is named depends on its type, which comes next.
            help = Some(line);
            continue;
        }
        let counter = line.strip_prefix("# TYPE ").and_then(|of| of.strip_suffix(" counter"));
        match (counter, help.take()) {
            (Some(name), help) => {
                if let Some(text_of_it) = help.and_then(|help| help.strip_prefix("# HELP ")?.strip_prefix(name)) {
                    push(&mut text, &["# HELP ", name, "_total", text_of_it]);
                }
                push(&mut text, &["# TYPE ", name, "_total counter"]);
            }
            (None, help) => {
                if let Some(help) = help {
                    push(&mut text, &[help]);
                }
                if line != "# EOF" && !line.starts_with("# UNIT ") {
                    push(&mut text, &[line]);
                }
            }
        }
    }
    text
}

fn push(text: &mut String, parts: &[&str]) {
    text.extend(parts.iter().copied());
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_named_as_its_samples_and_nothing_else_changes() {
        let open_metrics =
            "# HELP a Apples.\n# TYPE a counter\na_total 1\n# HELP g Gauge.\n# TYPE g gauge\ng{x=\"# TYPE b counter\"} 2\n# EOF\n";
        let expected = "# HELP a_total Apples.\n# TYPE a_total counter\na_total 1\n# HELP g Gauge.\n# TYPE g gauge\n\
                        g{x=\"# TYPE b counter\"} 2\n";
        assert_eq!(prometheus(open_metrics), expected);
    }
}
