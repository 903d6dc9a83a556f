//! `Accept`: which of the media types that an operation has the client wants most (RFC 9110, 12.5.1).

use poem::http::{HeaderMap, header};

use super::header::elements;

/// Picks one of `offers`, the first of which is the usual one: it is sent too if the client names none of them.
#[must_use]
pub fn choose<'a>(headers: &HeaderMap, offers: &[&'a str]) -> &'a str {
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let ranges: Vec<_> = values.flat_map(elements).filter_map(Range::parse).collect();
    let quality = |offer: &str| {
        let fitting = ranges.iter().filter(|range| range.fits(offer));
        fitting.max_by_key(|range| range.precision()).map_or(0, |range| range.quality)
    };
    let mut best = (offers.first().copied().unwrap_or_default(), 0);
    for offer in offers {
        let quality = quality(offer);
        if quality > best.1 {
            best = (offer, quality);
        }
    }
    best.0
}

/// A media range with its quality in thousandths.
struct Range<'a> {
    name: &'a str,
    quality: u16,
}

impl<'a> Range<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let name = parts.next().filter(|name| !name.is_empty())?;
        let weight = parts.filter_map(|part| part.split_once('=')).find(|(key, _)| key.trim().eq_ignore_ascii_case("q"));
        let quality = weight.map_or(Some(1000), |(_, value)| thousandths(value.trim()))?;
        Some(Self { name, quality })
    }

    fn fits(&self, offer: &str) -> bool {
        let of_type = |kind: &str| offer.get(..kind.len()).is_some_and(|start| start.eq_ignore_ascii_case(kind));
        match self.name.strip_suffix('*') {
            Some("*/") => true,
            Some(kind) => kind.ends_with('/') && of_type(kind),
            None => self.name.eq_ignore_ascii_case(offer),
        }
    }

    /// A type counts more than `type/*`, and that more than `*/*`.
    fn precision(&self) -> u8 {
        match self.name {
            "*/*" => 0,
            name if name.ends_with("/*") => 1,
            _ => 2,
        }
    }
}

/// `0.5` as 500; `None` if it is no quality.
fn thousandths(text: &str) -> Option<u16> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !matches!(whole, "0" | "1") || fraction.len() > 3 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let digits: u16 = format!("{fraction:0<3}").parse().ok()?;
    Some(if whole == "1" { 1000 } else { digits })
}

#[cfg(test)]
mod tests {
    use poem::http::HeaderValue;

    use super::*;

    const OFFERS: [&str; 3] = ["application/json", "application/x-pem-file", "application/pkcs10"];

    fn chosen(values: &[&'static str]) -> &'static str {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::ACCEPT, HeaderValue::from_static(value));
        }
        choose(&headers, &OFFERS)
    }

    #[test]
    fn the_usual_type_is_sent_unless_another_one_is_wanted_more() {
        for usual in [
            &[][..],
            &["*/*"],
            &["application/*"],
            &["text/html"],
            &["application/json, application/pkcs10;q=0.9"],
            &["image/*;q=x"],
            &[""],
        ] {
            assert_eq!(chosen(usual), "application/json", "{usual:?}");
        }
        for pem in [
            "application/x-pem-file",
            "application/x-pem-file;note=\"a, application/json\"",
            "Application/X-PEM-file;q=0.1",
            "*/*;q=0.5, application/x-pem-file",
            "application/json;q=0, application/x-pem-file;q=0.001",
        ] {
            assert_eq!(chosen(&[pem]), "application/x-pem-file", "{pem}");
        }
        assert_eq!(chosen(&["application/json;q=0.5", "application/pkcs10; q=0.8"]), "application/pkcs10");
    }
}
