//! Plots as SVG, on a ground of their own so that they read well on light and dark pages alike.

use std::{fmt::Write as _, time::Duration};

use crate::numbers::{grouped, ms};

/// Bars of one unit, with their own scale.
pub struct Panel {
    pub title: String,
    pub bars: Vec<Bar>,
}

pub struct Bar {
    pub label: String,
    pub value: f64,
    pub kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Csrd,
    /// The limit that a part of it sets.
    Limit,
    Peer,
}

/// From the median to the 99th percentile.
pub struct Span {
    pub label: String,
    pub p50: Duration,
    pub p99: Duration,
}

const WIDTH: f64 = 860.0;
const LABELS: f64 = 300.0;
const RIGHT: f64 = 110.0;
const LINE: f64 = 24.0;
const INK: &str = "#1f2328";
const QUIET: &str = "#59636e";

impl Kind {
    const fn color(self) -> &'static str {
        match self {
            Self::Csrd => "#0969da",
            Self::Limit => "#8c959f",
            Self::Peer => "#bc4c00",
        }
    }
}

fn begin(height: f64, title: &str) -> String {
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img" aria-label="{title}" font-family="system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif" font-size="13">
<rect x="0.5" y="0.5" width="{}" height="{}" rx="8" fill="#ffffff" stroke="#d1d9e0"/>
<text x="20" y="30" font-size="16" font-weight="600" fill="{INK}">{title}</text>
"##,
        WIDTH - 1.0,
        height - 1.0
    )
}

fn text(x: f64, y: f64, anchor: &str, fill: &str, text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{fill}\">{text}</text>\n")
}

/// A second, of everything: one group of bars for each kind of work.
#[expect(clippy::cast_precision_loss, reason = "few bars")]
pub fn bars(panels: &[Panel]) -> String {
    let lines: usize = panels.iter().map(|panel| panel.bars.len()).sum();
    let height = 74.0 + lines as f64 * LINE + panels.len() as f64 * 40.0;
    let mut svg = begin(height, "Throughput: custom CSRs or requests a second");
    let mut x = 20.0;
    for (kind, name) in
        [(Kind::Csrd, "csrd"), (Kind::Limit, "limit set by its parts"), (Kind::Peer, "cfssl: not durable, no authentication")]
    {
        let _ = writeln!(svg, r#"<rect x="{x}" y="42" width="12" height="12" rx="2" fill="{}"/>"#, kind.color());
        svg += &text(x + 18.0, 53.0, "start", QUIET, name);
        x += 60.0 + name.chars().count() as f64 * 7.0;
    }
    let mut y = 64.0;
    for Panel { title, bars } in panels {
        y += 30.0;
        svg += &text(20.0, y, "start", INK, title).replace("<text", "<text font-weight=\"600\"");
        y += 10.0;
        let most = bars.iter().map(|bar| bar.value).fold(f64::MIN_POSITIVE, f64::max);
        for Bar { label, value, kind } in bars {
            let width = (value / most * (WIDTH - LABELS - RIGHT)).max(1.0);
            svg += &text(LABELS - 10.0, y + 15.0, "end", INK, label);
            let _ =
                writeln!(svg, r#"<rect x="{LABELS}" y="{:.1}" width="{width:.1}" height="16" rx="2" fill="{}"/>"#, y + 3.0, kind.color());
            svg += &text(LABELS + width + 8.0, y + 15.0, "start", INK, &grouped(*value));
            y += LINE;
        }
    }
    svg + "</svg>\n"
}

/// Latencies on a logarithmic scale: a dot for the median, an end for the 99th percentile.
#[expect(clippy::cast_precision_loss, reason = "few lines")]
pub fn spans(spans: &[Span]) -> String {
    let micros = |time: Duration| (time.as_secs_f64() * 1e6).max(1.0);
    let least = spans.iter().map(|span| micros(span.p50)).fold(f64::MAX, f64::min).min(1e3);
    let most = spans.iter().map(|span| micros(span.p99)).fold(1.0, f64::max).max(1e4);
    let (low, high) = (least.log10().floor(), most.log10().ceil());
    let right = 140.0;
    let place = |micros: f64| LABELS + (micros.log10() - low) / (high - low) * (WIDTH - LABELS - right);
    let (top, bottom) = (78.0, 78.0 + spans.len() as f64 * LINE);
    let mut svg = begin(bottom + 40.0, "Latency as the client sees it: p50 (dot) to p99 (end), logarithmic");
    let mut decade = low;
    while decade <= high {
        let x = place(10_f64.powf(decade));
        let _ = writeln!(svg, r##"<line x1="{x:.1}" y1="{:.1}" x2="{x:.1}" y2="{bottom:.1}" stroke="#d1d9e0"/>"##, top - 10.0);
        let (unit, power) = if decade < 3.0 {
            ("µs", 0.0)
        } else if decade < 6.0 {
            ("ms", 3.0)
        } else {
            ("s", 6.0)
        };
        let label = format!("{} {unit}", 10_f64.powf(decade - power));
        svg += &text(x, bottom + 20.0, "middle", QUIET, &label);
        svg += &text(x, top - 16.0, "middle", QUIET, &label);
        decade += 1.0;
    }
    for (index, Span { label, p50, p99 }) in spans.iter().enumerate() {
        let y = top + (index as f64 + 0.5) * LINE;
        let (from, to) = (place(micros(*p50)), place(micros(*p99)));
        svg += &text(LABELS - 10.0, y + 4.0, "end", INK, label);
        let color = Kind::Csrd.color();
        let _ = writeln!(
            svg,
            r#"<line x1="{from:.1}" y1="{y:.1}" x2="{to:.1}" y2="{y:.1}" stroke="{color}" stroke-width="3"/><line x1="{to:.1}" y1="{:.1}" x2="{to:.1}" y2="{:.1}" stroke="{color}" stroke-width="3"/><circle cx="{from:.1}" cy="{y:.1}" r="5" fill="{color}"/>"#,
            y - 6.0,
            y + 6.0
        );
        svg += &text(to + 10.0, y + 4.0, "start", QUIET, &format!("{} – {}", ms(*p50), ms(*p99)));
    }
    svg + "</svg>\n"
}
