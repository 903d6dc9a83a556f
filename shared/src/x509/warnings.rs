//! Warnings about a chain that was accepted.

use std::time::Duration;

use super::{
    issues::warning,
    leaf_names::Names,
    parsed::Parsed,
    path::{End, Path},
    readings::Readings,
    text,
};
use crate::{clock::Timestamp, codes::WarningCode, custom_certificate::BundleMethod, issue::Warning};

/// A leaf with less time left than this, or than a part of its lifetime, gets a warning.
const SOON: Duration = Duration::from_hours(14 * 24);
/// That part: a fifth.
const SOON_PART: i64 = 5;

/// The warnings about a path and about the names of its leaf, sorted by code.
#[must_use]
pub fn warnings(
    readings: &Readings,
    path: &Path,
    names: &Names,
    csr_sans: &[String],
    method: BundleMethod,
    now: Timestamp,
) -> Vec<Warning> {
    let sent = readings.different();
    let mut warnings = vec![names.difference(csr_sans), names.nothing_for_browsers(), lacks_intermediate(sent, path)];
    if method != BundleMethod::Force {
        warnings.extend([order_changed(sent, path), left_out(readings, path)]);
    }
    if let Some((leaf, intermediates)) = path.stored().split_first() {
        let (leaf, intermediates) = (&sent[*leaf], intermediates.iter().map(|index| &sent[*index]));
        warnings.extend([outlives(leaf, intermediates, now), expires_soon(leaf, now)]);
    }
    let mut warnings: Vec<Warning> = warnings.into_iter().flatten().collect();
    warnings.sort_by_key(|warning| warning.code);
    warnings
}

/// 2003: an intermediate is missing.
fn lacks_intermediate(sent: &[Parsed<'_>], path: &Path) -> Option<Warning> {
    let is_on_path = |certificate: &Parsed<'_>| path.sent.iter().any(|index| sent[*index].subject == certificate.subject);
    // A CA of another name that is on no path shows that the path should go on.
    let goes_on = || sent.iter().any(|certificate| certificate.is_ca() && !is_on_path(certificate));
    let last = &sent[*path.sent.last()?];
    (path.end == End::Open && path.anchored.is_none() && (path.sent.len() == 1 || goes_on()))
        .then(|| warning(WarningCode::IntermediateMissing, text::name(&last.certificate.issuer)))
}

/// 2004.
fn expires_soon(leaf: &Parsed<'_>, now: Timestamp) -> Option<Warning> {
    let micros = |from: Timestamp, to: Timestamp| to.micros().saturating_sub(from.micros());
    let soon = i64::try_from(SOON.as_micros()).unwrap_or(i64::MAX).min(micros(leaf.not_before, leaf.not_after) / SOON_PART);
    (micros(now, leaf.not_after) < soon).then(|| warning(WarningCode::ExpiresSoon, leaf.not_after.rfc3339()))
}

/// 2007.
fn order_changed(sent: &[Parsed<'_>], path: &Path) -> Option<Warning> {
    let places: Vec<usize> = path.sent.iter().map(|index| sent[*index].place).collect();
    let text = || places.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
    (!places.is_sorted()).then(|| warning(WarningCode::OrderChanged, text()))
}

/// 2008: what was sent and is not stored, or was sent twice.
fn left_out(readings: &Readings, path: &Path) -> Option<Warning> {
    let sent = readings.different();
    let strangers = (0..sent.len()).filter(|index| !path.sent.contains(index)).map(|index| sent[index].label());
    let repeats = (0..sent.len()).filter(|index| readings.order().iter().filter(|other| *other == index).count() > 1);
    let repeats = repeats.map(|index| format!("what repeats {}", sent[index].label()));
    let all: Vec<String> = strangers.chain(repeats).collect();
    (!all.is_empty()).then(|| warning(WarningCode::CertificatesLeftOut, all.join("; ")))
}

/// 2009.
fn outlives<'a>(leaf: &Parsed<'_>, intermediates: impl Iterator<Item = &'a Parsed<'a>>, now: Timestamp) -> Option<Warning> {
    let said = |certificate: &Parsed<'_>| {
        if !certificate.is_valid(now) {
            return Some(format!("{} {}", certificate.label(), certificate.invalidity(now)));
        }
        (certificate.not_after < leaf.not_after)
            .then(|| format!("{} expires at {}, before the leaf", certificate.label(), certificate.not_after.rfc3339()))
    };
    let all: Vec<String> = intermediates.filter_map(said).collect();
    (!all.is_empty()).then(|| warning(WarningCode::LeafOutlives, all.join("; ")))
}
