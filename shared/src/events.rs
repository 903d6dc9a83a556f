//! Events: their types, when certificates expire, and what is told of each.

use std::{collections::BTreeSet, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    clock::Timestamp,
    custom_certificate::LAST_SECOND,
    custom_csr::CustomCsr,
    ids::{HandoverId, Scope},
    renewal::{self, RenewalStatus},
    x509::certificate::leaf_details,
};

/// All types of events.
pub const TYPES: [&str; 11] = [
    "custom_csr.active",
    "custom_csr.failed",
    "custom_csr.stale",
    "custom_csr.incident_rekeyed",
    "custom_certificate.uploaded",
    "custom_certificate.replaced",
    "custom_certificate.deleted",
    EXPIRING,
    "custom_certificate.expired",
    "custom_certificate.renewal_due",
    "custom_certificate.renew_now",
];
/// What stands for all of them in a webhook.
pub const ALL: &str = "*";
/// A try that somebody asked for: no event, but told like one.
pub const PING: &str = "ping";

const EXPIRING: &str = "custom_certificate.expiring";
const DAY: Duration = Duration::from_hours(24);

/// An active custom CSR is stale when it has had no certificate for this long.
pub const STALE_AFTER: Duration = Duration::from_hours(24 * 30);
/// No certificate is told to expire earlier than this before its notAfter.
pub const EXPIRING_WITHIN: Duration = Duration::from_hours(24 * 30);
/// A certificate that lives as long as this is told to expire at fixed moments.
const LONG_LIFE: Duration = Duration::from_hours(24 * 90);

/// The moments at which a certificate is told to expire, and after them the one at which it is expired.
#[must_use]
pub fn expiry_moments(not_before: Timestamp, not_after: Timestamp) -> BTreeSet<Timestamp> {
    let life = Duration::from_micros(not_after.micros().saturating_sub(not_before.micros()).max(0).unsigned_abs());
    let before =
        if life >= LONG_LIFE { [30, 14, 7, 3, 1].map(|days| DAY * days).to_vec() } else { vec![life / 3, life / 6, life / 12, DAY] };
    before.into_iter().map(|before| not_after.minus(before)).chain([not_after.plus(LAST_SECOND)]).collect()
}

/// What a trigger of the database writes of a custom CSR.
#[derive(Deserialize, Serialize)]
struct CsrRow {
    id: String,
    scope: String,
    account_id: Option<String>,
    status: String,
    error: Option<String>,
    created_at: i64,
    updated_at: i64,
    country: String,
    state: String,
    locality: String,
    organization: String,
    organizational_unit: Option<String>,
    common_name: String,
    name: Option<String>,
    description: Option<String>,
    sans: String,
    key_type: String,
    replaces: Option<String>,
    set_id: Option<String>,
    /// Only if the event is about a certificate.
    certificate_ids: Option<Vec<String>>,
}

impl From<&CustomCsr> for CsrRow {
    fn from(csr: &CustomCsr) -> Self {
        let (request, subject) = (csr.request.clone(), csr.request.subject.clone());
        Self {
            id: csr.id.to_string(),
            scope: csr.scope.to_string(),
            account_id: csr.account.as_ref().map(ToString::to_string),
            status: csr.status.as_str().to_owned(),
            error: csr.error.clone(),
            created_at: csr.created_at.micros(),
            updated_at: csr.updated_at.micros(),
            country: subject.country,
            state: subject.state,
            locality: subject.locality,
            organization: subject.organization,
            organizational_unit: subject.organizational_unit,
            common_name: subject.common_name,
            name: request.name,
            description: request.description,
            sans: Value::from(request.sans).to_string(),
            key_type: request.key_type.as_str().to_owned(),
            replaces: csr.replaces.map(|id| id.to_string()),
            set_id: csr.set_id.map(|id| id.to_string()),
            certificate_ids: Some(csr.certificate_ids.iter().map(ToString::to_string).collect()),
        }
    }
}

/// What a trigger of the database writes of a custom certificate. The chain is there where an older version wrote the row.
#[derive(Deserialize)]
struct CertificateRow {
    id: String,
    scope: String,
    custom_csr_id: String,
    hosts: String,
    issuer: String,
    signature: String,
    not_after: i64,
    not_before: Option<i64>,
    serial_number: Option<String>,
    fingerprint_sha256: Option<String>,
    bundle_method: String,
    certificate_type: String,
    priority: i64,
    uploaded_at: i64,
    modified_at: i64,
    chain_pem: Option<String>,
    renewal_state: Option<String>,
    renewal_leaf: Option<String>,
    ari_leaf: Option<String>,
    renew_after: Option<i64>,
    renewal_explanation_url: Option<String>,
    renewal_told: Option<RenewalTold>,
}

/// The part of an event about a certificate to renew.
#[derive(Deserialize, Serialize)]
struct RenewalTold {
    /// The custom CSR to sign.
    custom_csr: Option<CsrRow>,
    /// Why there is no custom CSR.
    error: Option<String>,
}

/// The part of a renewal's event beside the certificate, as JSON for the row: the custom CSR to sign, or why there is none.
///
/// # Errors
///
/// If it cannot be written as JSON.
pub fn renewal_told(csr: Option<&CustomCsr>, error: Option<&str>) -> serde_json::Result<String> {
    serde_json::to_string(&RenewalTold { custom_csr: csr.map(CsrRow::from), error: error.map(str::to_owned) })
}

#[derive(Serialize)]
struct Told<'a> {
    #[serde(rename = "type")]
    event: &'a str,
    timestamp: String,
    data: Value,
}

/// The hand-over link of an event, if its row names one as `handover_id`.
#[must_use]
pub fn handover(row: &str) -> Option<HandoverId> {
    #[derive(Deserialize)]
    struct Linked {
        handover_id: Option<String>,
    }
    HandoverId::parse(&serde_json::from_str::<Linked>(row).ok()?.handover_id?)
}

/// The body of an event for a webhook: what GET shows of the resource, without its PEM, and the URL of the [`handover`] link if there is one.
/// `None` if the row cannot be read.
#[must_use]
pub fn body(event: &str, occurred_at: Timestamp, row: &str, handover_url: Option<&str>) -> Option<String> {
    let mut data = match event.split_once('.') {
        Some(("custom_csr", _)) => csr(&serde_json::from_str(row).ok()?)?,
        Some(("custom_certificate", _)) => certificate(event, occurred_at, &serde_json::from_str(row).ok()?)?,
        _ => serde_json::from_str(row).ok()?,
    };
    if let Some(url) = handover_url {
        data.as_object_mut()?.insert("handover_url".to_owned(), url.into());
    }
    serde_json::to_string(&Told { event, timestamp: occurred_at.rfc3339(), data }).ok()
}

fn time(micros: i64) -> String {
    Timestamp::from_micros(micros).rfc3339()
}

fn csr(row: &CsrRow) -> Option<Value> {
    let scope = Scope::parse(&row.scope)?;
    let zone_id = match &scope {
        Scope::Zone(id) => Some(id.as_str()),
        Scope::Account(_) => None,
    };
    let sans: Value = serde_json::from_str(&row.sans).ok()?;
    let mut data = json!({
        "id": row.id, "status": row.status, "error": row.error, "created_at": time(row.created_at), "updated_at": time(row.updated_at),
        "account_tag": row.account_id, "zone_id": zone_id, "country": row.country, "state": row.state, "locality": row.locality,
        "organization": row.organization, "organizational_unit": row.organizational_unit, "common_name": row.common_name,
        "name": row.name, "description": row.description, "sans": sans, "key_type": row.key_type, "replaces": row.replaces,
        "set_id": row.set_id,
        // Events about a custom CSR are written before it has any.
        "custom_certificate_ids": row.certificate_ids.clone().unwrap_or_default(),
    });
    if row.error.is_none() {
        data.as_object_mut()?.shift_remove("error");
    }
    Some(data)
}

fn certificate(event: &str, now: Timestamp, row: &CertificateRow) -> Option<Value> {
    let zone = Scope::parse(&row.scope)?;
    let not_after = Timestamp::from_micros(row.not_after);
    let (not_before, serial_number, fingerprint) = match &row.chain_pem {
        Some(chain) => {
            let leaf = leaf_details(chain)?;
            (leaf.not_before.micros(), leaf.serial_number, leaf.fingerprint_sha256)
        }
        None => (row.not_before?, row.serial_number.clone()?, row.fingerprint_sha256.clone()?),
    };
    let hosts: Value = serde_json::from_str(&row.hosts).ok()?;
    let renewal = renewal::status(row.renewal_state.as_deref().and_then(RenewalStatus::parse), row.renewal_leaf.as_deref(), &fingerprint);
    let is_asked = row.ari_leaf.as_deref() == Some(&*fingerprint);
    let mut data = json!({
        "id": row.id, "zone_id": zone.id().as_str(), "status": if now < not_after.plus(LAST_SECOND) { "active" } else { "expired" },
        "custom_csr_id": row.custom_csr_id, "hosts": hosts, "issuer": row.issuer, "signature": row.signature,
        "expires_on": time(row.not_after), "uploaded_on": time(row.uploaded_at), "modified_on": time(row.modified_at),
        "bundle_method": row.bundle_method, "type": row.certificate_type, "priority": row.priority,
        "fingerprint_sha256": fingerprint, "serial_number": serial_number, "not_before": time(not_before), "renewal": renewal.as_str(),
        "renew_after": row.renew_after.filter(|_| is_asked).map(time),
        "renewal_explanation_url": row.renewal_explanation_url.as_deref().filter(|_| is_asked),
    });
    if event == EXPIRING {
        let left = not_after.micros().saturating_sub(now.micros()).max(0).unsigned_abs();
        data["days_left"] = left.div_ceil(u64::try_from(DAY.as_micros()).ok()?).into();
    }
    if let Some(told) = &row.renewal_told {
        data["custom_csr"] = told.custom_csr.as_ref().map_or(Some(Value::Null), csr)?;
        if let Some(error) = &told.error {
            data["renewal_error"] = error.as_str().into();
        }
    }
    Some(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(days: f64) -> Vec<f64> {
        let life = Duration::from_secs_f64(days * 86_400.0);
        let not_after = Timestamp::from_micros(0).plus(life);
        let before = |moment: Timestamp| f64::from(i32::try_from(not_after.secs() - moment.secs()).unwrap()) / 86_400.0;
        expiry_moments(Timestamp::from_micros(0), not_after).into_iter().map(before).collect()
    }

    #[test]
    fn a_long_life_is_told_of_at_fixed_moments_and_a_short_one_at_parts_of_it() {
        let expired = -1.0 / 86_400.0;
        for days in [90.0, 398.0] {
            assert_eq!(moments(days), [30.0, 14.0, 7.0, 3.0, 1.0, expired]);
        }
        assert_eq!(moments(48.0), [16.0, 8.0, 4.0, 1.0, expired]);
        assert_eq!(moments(6.0), [2.0, 1.0, 0.5, expired], "a sixth is a day: one moment");
    }

    #[test]
    fn what_is_told_of_an_expiry_counts_the_days_that_are_left() {
        let day = 86_400_000_000_i64;
        let row = json!({
            "id": "c", "scope": "zones/z", "custom_csr_id": "i", "hosts": "[\"a.b\"]", "issuer": "CA", "signature": "S",
            "not_after": 100 * day, "not_before": 0, "serial_number": "0a", "fingerprint_sha256": "ff", "bundle_method": "force",
            "certificate_type": "sni_custom", "priority": 7, "uploaded_at": 0, "modified_at": 0, "chain_pem": null,
        });
        let told = |event, at| -> Value {
            serde_json::from_str(&body(event, Timestamp::from_micros(at), &row.to_string(), None).unwrap()).unwrap()
        };
        assert_eq!(told(EXPIRING, 70 * day)["data"]["days_left"], 30);
        assert_eq!(told(EXPIRING, 70 * day + 1)["data"]["days_left"], 30);
        assert_eq!(told(EXPIRING, 99 * day)["data"]["days_left"], 1);
        let expired = told("custom_certificate.expired", 100 * day + 1_000_000);
        assert_eq!((&expired["data"]["status"], expired["data"].get("days_left")), (&json!("expired"), None));
        assert_eq!(expired["timestamp"], "1970-04-11T00:00:01.000000Z");
        assert_eq!(body(EXPIRING, Timestamp::from_micros(0), "{}", None), None);
    }

    #[test]
    fn an_event_that_carries_a_link_has_its_url() {
        let id = HandoverId::new(Timestamp::from_micros(0));
        assert_eq!(handover(&json!({ "id": "c", "handover_id": id.to_string() }).to_string()), Some(id));
        for row in ["{}", r#"{"handover_id":null}"#, r#"{"handover_id":"x"}"#, r#"{"description":"\"handover_id\""}"#] {
            assert_eq!(handover(row), None, "{row}");
        }
        let told: Value = serde_json::from_str(&body(PING, Timestamp::from_micros(0), "{}", Some("https://a.b/c")).unwrap()).unwrap();
        assert_eq!(told["data"], json!({ "handover_url": "https://a.b/c" }));
    }
}
