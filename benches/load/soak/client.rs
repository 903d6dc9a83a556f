//! A tenant's client: it makes custom CSRs, has them signed, uploads, renews and deletes, and repeats what fails as the documentation says.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use shared::printable::hex;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{
    Shared,
    authority::{Leaf, PublicKey},
    ledger::Fate,
};
use crate::http::{Connection, request, unchunked};

/// Between two requests of one client: the machine has other work too.
const PACE: Duration = Duration::from_millis(100);
/// Before what failed is tried again.
const PAUSE: Duration = Duration::from_millis(300);
/// An answer that takes longer is a fault of the service: it promises 503 within seconds, whatever the database does.
const ANSWER_TIME: Duration = Duration::from_mins(1);
/// No fault lasts so long.
const PATIENCE: Duration = Duration::from_mins(5);
/// One key in so many is RSA.
const RSA_EACH: u64 = 20;
/// One life in so many leaves its custom CSR and certificate behind.
const KEPT_EACH: u64 = 3;

/// It was said to the ledger already: this life is over.
struct Unexpected;

/// What came back.
enum Answer {
    Status(u16, Value),
    /// Why there is no answer.
    None(String),
}

/// A kind of request, and how its answers are understood.
#[derive(Clone, Copy)]
struct Purpose {
    name: &'static str,
    success: u16,
    /// The code that says that an earlier attempt, whose answer was lost, was carried out.
    done_before: Option<u64>,
}

impl Purpose {
    const CREATE: Self = Self::new("create", 201);
    const REKEY: Self = Self::new("rekey", 201);
    const READ: Self = Self::new("read", 200);
    const LIST: Self = Self::new("list", 200);
    const UPLOAD: Self = Self::new("upload", 201);
    const RENEW: Self = Self { done_before: Some(1482), ..Self::new("renew", 200) };
    const DELETE_CSR: Self = Self { done_before: Some(1419), ..Self::new("delete", 200) };
    const DELETE_CERTIFICATE: Self = Self { done_before: Some(1481), ..Self::new("delete", 200) };
    const DELETE_IN_USE: Self = Self::new("delete in use", 409);
    const READ_DELETED: Self = Self::new("read deleted", 404);

    const fn new(name: &'static str, success: u16) -> Self {
        Self { name, success, done_before: None }
    }
}

pub struct Client {
    number: usize,
    shared: Arc<Shared>,
    connection: Option<Connection>,
    /// The API process that it asks.
    api: usize,
    next: Instant,
    requests: u64,
}

impl Client {
    pub fn new(number: usize, shared: Arc<Shared>) -> Self {
        Self { number, shared, connection: None, api: number, next: Instant::now(), requests: 0 }
    }

    /// Life after life. The last one is lived to its end.
    pub async fn run(mut self, end: Instant) {
        for number in 0.. {
            if Instant::now() >= end {
                return;
            }
            self.api += 1;
            self.connection = None;
            if self.life(number).await.is_err() {
                sleep(Duration::from_secs(1)).await;
            }
        }
    }

    /// A custom CSR from its creation over upload, renewal and rekey to its deletion.
    async fn life(&mut self, number: u64) -> Result<(), Unexpected> {
        let zone = self.shared.zones[self.number % self.shared.zones.len()].clone();
        let host = format!("life-{number}.client-{}.acme-widgets.com", self.number);
        let key_type = if (number + self.number as u64).is_multiple_of(RSA_EACH) { "rsa2048" } else { "p256v1" };
        let first = self.create(&zone, &host, key_type).await?;
        let key = self.until_active(&zone, &first).await?;
        self.list(&zone, &host, &first).await?;

        let certificate = self.upload(&zone, &first, &key, &host).await?;
        self.delete_in_use(&zone, &first).await?;
        self.renew(&zone, &certificate, &first, &key, &host).await?;
        let second = self.rekey(&zone, &first).await?;
        let key = self.until_active(&zone, &second).await?;
        self.renew(&zone, &certificate, &second, &key, &host).await?;
        self.check_certificate(&zone, &certificate).await?;
        self.delete_csr(&zone, &first).await?;
        self.read_old(number).await?;
        if number.is_multiple_of(KEPT_EACH) {
            self.shared.ledger().keep(&zone, &second);
            return Ok(());
        }
        self.delete_certificate(&zone, &certificate).await?;
        self.delete_csr(&zone, &second).await
    }

    async fn create(&mut self, zone: &str, host: &str, key_type: &str) -> Result<String, Unexpected> {
        let body = json!({
            "country": "US", "state": "California", "locality": "San Francisco", "organization": "Acme Widgets, Inc.",
            "common_name": host, "sans": [host], "name": host, "key_type": key_type,
        });
        let answer = self.ask_once_only(Purpose::CREATE, &format!("/zones/{zone}/custom_csrs"), &body).await?;
        self.accepted(&answer)
    }

    async fn rekey(&mut self, zone: &str, id: &str) -> Result<String, Unexpected> {
        let answer = self.ask_once_only(Purpose::REKEY, &format!("/zones/{zone}/custom_csrs/{id}/rekey"), &json!({})).await?;
        self.accepted(&answer)
    }

    fn accepted(&self, answer: &Value) -> Result<String, Unexpected> {
        let id = self.text(answer, "/result/id")?;
        self.shared.ledger().accepted(&id);
        Ok(id)
    }

    /// The key of a custom CSR, once it has one.
    async fn until_active(&mut self, zone: &str, id: &str) -> Result<PublicKey, Unexpected> {
        let give_up = Instant::now() + PATIENCE;
        loop {
            let answer = self.ask(Purpose::READ, "GET", &format!("/zones/{zone}/custom_csrs/{id}"), &[("Prefer", "wait=10")], None).await?;
            match self.text(&answer, "/result/status")?.as_str() {
                "active" => {
                    let key = self.key_of(id, &answer)?;
                    self.shared.ledger().active(id, key.spki_sha256);
                    return Ok(key);
                }
                "failed" => {
                    self.shared.ledger().failed(id);
                    return Err(self.unexpected(&format!("the custom CSR {id} failed: {answer}")));
                }
                _ if Instant::now() > give_up => return Err(self.unexpected(&format!("the custom CSR {id} is pending for {PATIENCE:?}"))),
                _ => {}
            }
        }
    }

    fn key_of(&self, id: &str, answer: &Value) -> Result<PublicKey, Unexpected> {
        let csr = self.text(answer, "/result/csr")?;
        PublicKey::of_csr(&csr).map_err(|error| self.unexpected(&format!("the custom CSR {id}: {error:#}")))
    }

    /// The newest of a zone; what was just accepted is among them.
    async fn list(&mut self, zone: &str, host: &str, id: &str) -> Result<(), Unexpected> {
        let path = format!("/zones/{zone}/custom_csrs?per_page=20&search={host}");
        let answer = self.ask(Purpose::LIST, "GET", &path, &[], None).await?;
        let rows = answer.pointer("/result").and_then(Value::as_array).cloned().unwrap_or_default();
        if rows.iter().any(|row| row["id"] == id) {
            return Ok(());
        }
        Err(self.unexpected(&format!("the custom CSR {id} is in no list of {zone}: {answer}")))
    }

    fn issue(&self, key: &PublicKey, host: &str) -> Result<Leaf, Unexpected> {
        self.shared.authority.issue(key, &[host.to_owned()]).map_err(|error| self.unexpected(&format!("the CA signs nothing: {error:#}")))
    }

    async fn upload(&mut self, zone: &str, csr: &str, key: &PublicKey, host: &str) -> Result<String, Unexpected> {
        let leaf = self.issue(key, host)?;
        let body = json!({"certificate": leaf.pem, "custom_csr_id": csr});
        let answer = self.ask_once_only(Purpose::UPLOAD, &format!("/zones/{zone}/custom_certificates"), &body).await?;
        let id = self.text(&answer, "/result/id")?;
        self.shared.ledger().stored(&id, csr, leaf.fingerprint);
        Ok(id)
    }

    /// Replaces a certificate by another one, for the same custom CSR or for the one that took its place.
    async fn renew(&mut self, zone: &str, certificate: &str, csr: &str, key: &PublicKey, host: &str) -> Result<(), Unexpected> {
        let leaf = self.issue(key, host)?;
        let body = json!({"certificate": leaf.pem, "custom_csr_id": csr});
        self.ask(Purpose::RENEW, "PATCH", &format!("/zones/{zone}/custom_certificates/{certificate}"), &[], Some(&body)).await?;
        self.shared.ledger().stored(certificate, csr, leaf.fingerprint);
        Ok(())
    }

    async fn check_certificate(&mut self, zone: &str, id: &str) -> Result<(), Unexpected> {
        let answer = self.ask(Purpose::READ, "GET", &format!("/zones/{zone}/custom_certificates/{id}"), &[], None).await?;
        let expected = self.shared.ledger().certificates.get(id).cloned();
        let is_as_stored = expected.is_some_and(|stored| {
            answer["result"]["custom_csr_id"] == stored.custom_csr_id && answer["result"]["fingerprint_sha256"] == hex(&stored.fingerprint)
        });
        if is_as_stored {
            Ok(())
        } else {
            Err(self.unexpected(&format!("the certificate {id} is not the last one that was stored: {answer}")))
        }
    }

    /// Its certificate protects it.
    async fn delete_in_use(&mut self, zone: &str, id: &str) -> Result<(), Unexpected> {
        self.ask(Purpose::DELETE_IN_USE, "DELETE", &format!("/zones/{zone}/custom_csrs/{id}"), &[], None).await.map(drop)
    }

    async fn delete_csr(&mut self, zone: &str, id: &str) -> Result<(), Unexpected> {
        let path = format!("/zones/{zone}/custom_csrs/{id}");
        self.ask(Purpose::DELETE_CSR, "DELETE", &path, &[], None).await?;
        self.shared.ledger().deleted(id);
        self.ask(Purpose::READ_DELETED, "GET", &path, &[], None).await.map(drop)
    }

    async fn delete_certificate(&mut self, zone: &str, id: &str) -> Result<(), Unexpected> {
        self.ask(Purpose::DELETE_CERTIFICATE, "DELETE", &format!("/zones/{zone}/custom_certificates/{id}"), &[], None).await?;
        self.shared.ledger().certificates.remove(id);
        Ok(())
    }

    /// Something that was kept before: it is there, and has the key that it had.
    async fn read_old(&mut self, number: u64) -> Result<(), Unexpected> {
        let by = usize::try_from(number * 7919 + self.requests).unwrap_or_default();
        let kept = self.shared.ledger().kept(by);
        let Some((zone, id)) = kept else { return Ok(()) };
        let answer = self.ask(Purpose::READ, "GET", &format!("/zones/{zone}/custom_csrs/{id}"), &[], None).await?;
        let key = self.key_of(&id, &answer)?.spki_sha256;
        let before = self.shared.ledger().csrs.get(&id).copied();
        if before == Some(Fate::Active(key)) {
            Ok(())
        } else {
            Err(self.unexpected(&format!("the custom CSR {id} has another key than before")))
        }
    }

    fn text(&self, answer: &Value, pointer: &str) -> Result<String, Unexpected> {
        let text = answer.pointer(pointer).and_then(Value::as_str);
        text.map(str::to_owned).ok_or_else(|| self.unexpected(&format!("no {pointer} in {answer}")))
    }

    fn unexpected(&self, what: &str) -> Unexpected {
        self.shared.ledger().unexpected(format!("client {}: {what}", self.number));
        Unexpected
    }

    /// A POST that makes one thing, however often it is repeated.
    async fn ask_once_only(&mut self, purpose: Purpose, path: &str, body: &Value) -> Result<Value, Unexpected> {
        let key = format!("client-{}-request-{}", self.number, self.requests);
        self.ask(purpose, "POST", path, &[("Idempotency-Key", &key)], Some(body)).await
    }

    /// Asks until it is answered with what is expected. What a fault explains is asked again: no answer, and 503 with code 1471.
    async fn ask(
        &mut self,
        purpose: Purpose,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Value, Unexpected> {
        let authorization = format!("Bearer {}", self.shared.token);
        let headers = [headers, &[("Authorization", &authorization)]].concat();
        let request = request(method, &format!("/api/v4{path}"), &headers, &body.map_or_else(String::new, Value::to_string));
        let (give_up, mut may_be_done) = (Instant::now() + PATIENCE, false);
        loop {
            sleep_until(self.next).await;
            self.next = Instant::now() + PACE;
            self.requests += 1;
            let answer = match timeout(ANSWER_TIME, self.exchange(&request)).await {
                Ok(answer) => answer,
                Err(_) => Answer::None(format!("none within {ANSWER_TIME:?}")),
            };
            let (status, code) = match &answer {
                Answer::Status(status, envelope) => (Some(*status), envelope.pointer("/errors/0/code").and_then(Value::as_u64)),
                Answer::None(_) => (None, None),
            };
            let said = match (&answer, code) {
                (Answer::None(why), _) => format!("no answer: {why}"),
                (Answer::Status(status, _), Some(code)) => format!("{status}/{code}"),
                (Answer::Status(status, _), None) => status.to_string(),
            };
            self.shared.ledger().count(purpose.name, said.clone());
            match answer {
                Answer::Status(status, envelope) if status == purpose.success => return Ok(envelope),
                Answer::Status(_, envelope) if may_be_done && code.is_some() && code == purpose.done_before => return Ok(envelope),
                Answer::Status(503, _) if code == Some(1471) => {}
                Answer::None(_) if !said.contains("none within") => {}
                Answer::Status(_, envelope) => return Err(self.unexpected(&format!("{method} {path}: {said}: {envelope}"))),
                Answer::None(_) => return Err(self.unexpected(&format!("{method} {path}: {said}"))),
            }
            if Instant::now() > give_up {
                return Err(self.unexpected(&format!("{method} {path}: {said} for {PATIENCE:?} ({status:?})")));
            }
            // The other API process may be well.
            (may_be_done, self.connection, self.api) = (true, None, self.api + 1);
            sleep(PAUSE).await;
        }
    }

    async fn exchange(&mut self, request: &[u8]) -> Answer {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => match Connection::open(self.shared.fleet.api(self.api)).await {
                Ok(connection) => connection,
                Err(_) => return Answer::None("connection refused".to_owned()),
            },
        };
        let Ok(answer) = connection.ask(request).await else { return Answer::None("connection broken".to_owned()) };
        let body = if answer.chunked { unchunked(answer.body) } else { Ok(answer.body.to_vec()) };
        let envelope = body.and_then(|body| Ok(serde_json::from_slice(&body)?));
        let status = answer.status;
        self.connection = Some(connection);
        match envelope {
            Ok(envelope) => Answer::Status(status, envelope),
            Err(error) => Answer::Status(status, json!({"errors": [{"code": 0, "message": format!("no envelope: {error}")}]})),
        }
    }
}
