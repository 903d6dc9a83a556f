//! A store around another one, with something around each of its operations.

use std::{future::Future, ops::RangeInclusive, sync::Arc, time::Duration};

use async_trait::async_trait;

use super::{
    Acceptance, AriStore, Asked, Attempt, AuditQuery, AuditRun, AuditStore, CertificateChange, CertificatePage, CertificateQuery,
    CertificateRefusal, CertificateStore, CompletionOutcome, CustomCsrs, Deletion, Deliveries, Due, DueRenewal, FigureStore, Figures,
    GeneratedCsr, Generation, Generations, HandoverCreation, Handovers, Hidden, HiddenCsrs, IdempotencyKey, Incidents, KeyHolder,
    KeyHolders, ListQuery, Maintenance, MasterKeyRow, MasterKeyUse, MasterKeys, NewCertificate, NewChain, NewCustomCsr, NewIncident,
    NewPoolKey, NewWebhook, Page, PoolAddition, PoolKey, PoolKeys, PoolUse, Purge, Receiver, Registration, RenewalOutcome, Renewals,
    Repeat, Replacement, Resealed, Restoration, Retirement, ScopeGrant, Scopes, SealedRecord, SealedRecords, SealedRow, Signals,
    StartedExport, Store, StoreError, Sweep, Turn, Turned, Unasked, UsableCsr, Vitals, WebhookChange, WebhookCreation, Webhooks, Woken,
};
use crate::{
    audit::{Actor, NewEntry},
    bodies::edit::Edit,
    clock::Timestamp,
    custom_certificate::CustomCertificate,
    custom_csr::{CustomCsr, KeyType},
    handover::{Handover, NewHandover, Secret},
    ids::{CustomCertificateId, CustomCsrId, HandoverId, IncidentId, Scope, TenantId, WebhookId},
    incident::{Candidate, Incident, IncidentStatus, Rekey},
    renewal::{Fraction, RenewalKey, RenewalPolicy},
    webhook::{Delivery, Webhook},
    webhook_secret::WebhookKey,
};

/// What is done around every operation of a store.
pub trait Around: Send + Sync + 'static {
    /// Runs an operation, or answers in its place. Its name is that of the store's method.
    fn call<T: Send>(
        &self,
        operation: &'static str,
        inner: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> impl Future<Output = Result<T, StoreError>> + Send;
}

/// A store around another one.
pub struct AroundStore<A> {
    inner: Arc<dyn Store>,
    pub(crate) around: A,
}

impl<A: Around> AroundStore<A> {
    /// This store, with this around each operation.
    #[must_use]
    pub fn with(inner: Arc<dyn Store>, around: A) -> Self {
        Self { inner, around }
    }
}

#[async_trait]
impl<A: Around> CertificateStore for AroundStore<A> {
    async fn find_usable_csr(
        &self,
        zone: &Scope,
        id: CustomCsrId,
        present: Option<CustomCertificateId>,
    ) -> Result<Option<UsableCsr>, StoreError> {
        self.around.call("find_usable_csr", self.inner.find_usable_csr(zone, id, present)).await
    }
    async fn find_usable_csr_by_key(&self, zone: &Scope, spki_sha256: &[u8; 32]) -> Result<Option<UsableCsr>, StoreError> {
        self.around.call("find_usable_csr_by_key", self.inner.find_usable_csr_by_key(zone, spki_sha256)).await
    }
    async fn check_certificate(&self, new: &NewCertificate) -> Result<Option<CertificateRefusal>, StoreError> {
        self.around.call("check_certificate", self.inner.check_certificate(new)).await
    }
    async fn check_replacement(
        &self,
        zone: &Scope,
        id: CustomCertificateId,
        chain: &NewChain,
    ) -> Result<Option<CertificateRefusal>, StoreError> {
        self.around.call("check_replacement", self.inner.check_replacement(zone, id, chain)).await
    }
    async fn find_upload(&self, zone: &Scope, key: &IdempotencyKey, now: Timestamp) -> Result<Option<Repeat>, StoreError> {
        self.around.call("find_upload", self.inner.find_upload(zone, key, now)).await
    }
    async fn accept_certificate(
        &self,
        new: &NewCertificate,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<Option<CertificateRefusal>, StoreError> {
        self.around.call("accept_certificate", self.inner.accept_certificate(new, actor, now)).await
    }
    async fn replace_certificate(
        &self,
        zone: &Scope,
        id: CustomCertificateId,
        change: &CertificateChange,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<Replacement, StoreError> {
        self.around.call("replace_certificate", self.inner.replace_certificate(zone, id, change, actor, now)).await
    }
    async fn find_certificate(&self, scope: &Scope, id: CustomCertificateId) -> Result<Option<CustomCertificate>, StoreError> {
        self.around.call("find_certificate", self.inner.find_certificate(scope, id)).await
    }
    async fn list_certificates(&self, scope: &Scope, query: &CertificateQuery) -> Result<CertificatePage, StoreError> {
        self.around.call("list_certificates", self.inner.list_certificates(scope, query)).await
    }
    async fn delete_certificate(&self, scope: &Scope, id: CustomCertificateId, actor: &Actor, now: Timestamp) -> Result<bool, StoreError> {
        self.around.call("delete_certificate", self.inner.delete_certificate(scope, id, actor, now)).await
    }
    async fn list_all_certificates(&self, after: Option<CustomCertificateId>, limit: u32) -> Result<Vec<CustomCertificate>, StoreError> {
        self.around.call("list_all_certificates", self.inner.list_all_certificates(after, limit)).await
    }
    async fn start_export(&self, id: CustomCertificateId, actor: &Actor, now: Timestamp) -> Result<StartedExport, StoreError> {
        self.around.call("start_export", self.inner.start_export(id, actor, now)).await
    }
}

#[async_trait]
impl<A: Around> Handovers for AroundStore<A> {
    async fn create_handover(
        &self,
        scope: &Scope,
        new: &NewHandover,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<HandoverCreation, StoreError> {
        self.around.call("create_handover", self.inner.create_handover(scope, new, actor, now)).await
    }
    async fn list_handovers(&self, scope: &Scope, custom_csr_id: CustomCsrId) -> Result<Vec<Handover>, StoreError> {
        self.around.call("list_handovers", self.inner.list_handovers(scope, custom_csr_id)).await
    }
    async fn revoke_handover(
        &self,
        scope: &Scope,
        custom_csr_id: CustomCsrId,
        id: HandoverId,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.around.call("revoke_handover", self.inner.revoke_handover(scope, custom_csr_id, id, actor, now)).await
    }
    async fn find_handover(&self, secret: &Secret) -> Result<Option<(Handover, Scope)>, StoreError> {
        self.around.call("find_handover", self.inner.find_handover(secret)).await
    }
    async fn open_handover(&self, id: HandoverId, scope: &Scope, actor: &Actor, now: Timestamp) -> Result<(), StoreError> {
        self.around.call("open_handover", self.inner.open_handover(id, scope, actor, now)).await
    }
}

#[async_trait]
impl<A: Around> AuditStore for AroundStore<A> {
    async fn record_entries(&self, entries: &[NewEntry], actor: &Actor, now: Timestamp) -> Result<(), StoreError> {
        self.around.call("record_entries", self.inner.record_entries(entries, actor, now)).await
    }
    async fn read_audit<'a>(&'a self, query: AuditQuery) -> Result<Box<dyn AuditRun + 'a>, StoreError> {
        self.around.call("read_audit", self.inner.read_audit(query)).await
    }
    async fn delete_archived(
        &self,
        numbers: RangeInclusive<i64>,
        entry: Option<&NewEntry>,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        self.around.call("delete_archived", self.inner.delete_archived(numbers, entry, actor, now)).await
    }
}

#[async_trait]
impl<A: Around> PoolKeys for AroundStore<A> {
    async fn add_pool_key(&self, key: &NewPoolKey, size: u32, now: Timestamp) -> Result<PoolAddition, StoreError> {
        self.around.call("add_pool_key", self.inner.add_pool_key(key, size, now)).await
    }
    async fn count_pool_keys(&self) -> Result<u64, StoreError> {
        self.around.call("count_pool_keys", self.inner.count_pool_keys()).await
    }
    async fn lease_pool_key(&self, master_key_id: &str, lease: Duration) -> Result<Option<PoolKey>, StoreError> {
        self.around.call("lease_pool_key", self.inner.lease_pool_key(master_key_id, lease)).await
    }
    async fn discard_pool_key(&self, key: &PoolKey) -> Result<(), StoreError> {
        self.around.call("discard_pool_key", self.inner.discard_pool_key(key)).await
    }
    async fn empty_pool(&self) -> Result<u64, StoreError> {
        self.around.call("empty_pool", self.inner.empty_pool()).await
    }
}

#[async_trait]
impl<A: Around> Scopes for AroundStore<A> {
    async fn grant_scope(
        &self,
        scope: &Scope,
        account: Option<&TenantId>,
        quota: Option<u32>,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.around.call("grant_scope", self.inner.grant_scope(scope, account, quota, actor, now)).await
    }
    async fn revoke_scope(&self, scope: &Scope, actor: &Actor, now: Timestamp) -> Result<bool, StoreError> {
        self.around.call("revoke_scope", self.inner.revoke_scope(scope, actor, now)).await
    }
    async fn list_scopes(&self, kind: &str) -> Result<Vec<ScopeGrant>, StoreError> {
        self.around.call("list_scopes", self.inner.list_scopes(kind)).await
    }
    async fn find_scope(&self, scope: &Scope) -> Result<Option<ScopeGrant>, StoreError> {
        self.around.call("find_scope", self.inner.find_scope(scope)).await
    }
}

#[async_trait]
impl<A: Around> CustomCsrs for AroundStore<A> {
    async fn accept_custom_csr(&self, new: &NewCustomCsr, actor: &Actor, now: Timestamp) -> Result<Acceptance, StoreError> {
        self.around.call("accept_custom_csr", self.inner.accept_custom_csr(new, actor, now)).await
    }
    async fn find_custom_csr(&self, scope: &Scope, id: CustomCsrId) -> Result<Option<CustomCsr>, StoreError> {
        self.around.call("find_custom_csr", self.inner.find_custom_csr(scope, id)).await
    }
    async fn list_custom_csrs(&self, scope: &Scope, query: &ListQuery) -> Result<Page, StoreError> {
        self.around.call("list_custom_csrs", self.inner.list_custom_csrs(scope, query)).await
    }
    async fn edit_custom_csr(
        &self,
        scope: &Scope,
        id: CustomCsrId,
        edit: &Edit,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<Option<CustomCsr>, StoreError> {
        self.around.call("edit_custom_csr", self.inner.edit_custom_csr(scope, id, edit, actor, now)).await
    }
    async fn delete_custom_csr(&self, scope: &Scope, id: CustomCsrId, actor: &Actor, now: Timestamp) -> Result<Deletion, StoreError> {
        self.around.call("delete_custom_csr", self.inner.delete_custom_csr(scope, id, actor, now)).await
    }
}

#[async_trait]
impl<A: Around> HiddenCsrs for AroundStore<A> {
    async fn hide_custom_csr(
        &self,
        scope: &Scope,
        id: CustomCsrId,
        destroy_after: Timestamp,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<Deletion, StoreError> {
        self.around.call("hide_custom_csr", self.inner.hide_custom_csr(scope, id, destroy_after, actor, now)).await
    }
    async fn destroy_custom_csr(&self, scope: &Scope, id: CustomCsrId, actor: &Actor, now: Timestamp) -> Result<Deletion, StoreError> {
        self.around.call("destroy_custom_csr", self.inner.destroy_custom_csr(scope, id, actor, now)).await
    }
    async fn restore_custom_csr(
        &self,
        scope: &Scope,
        id: CustomCsrId,
        max_pending: u32,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<Restoration, StoreError> {
        self.around.call("restore_custom_csr", self.inner.restore_custom_csr(scope, id, max_pending, actor, now)).await
    }
    async fn list_hidden(&self, scope: &Scope, limit: u32) -> Result<Hidden, StoreError> {
        self.around.call("list_hidden", self.inner.list_hidden(scope, limit)).await
    }
    async fn destroy_due(&self, now: Timestamp) -> Result<u64, StoreError> {
        self.around.call("destroy_due", self.inner.destroy_due(now)).await
    }
}

#[async_trait]
impl<A: Around> Generations for AroundStore<A> {
    async fn start_generations(&self, id: CustomCsrId, most: fn(KeyType) -> u32) -> Result<Vec<Generation>, StoreError> {
        self.around.call("start_generations", self.inner.start_generations(id, most)).await
    }
    async fn complete_generation(&self, id: CustomCsrId, made: &GeneratedCsr, now: Timestamp) -> Result<CompletionOutcome, StoreError> {
        self.around.call("complete_generation", self.inner.complete_generation(id, made, now)).await
    }
    async fn retry_generation(&self, id: CustomCsrId, attempts: u32, delay: Duration, now: Timestamp) -> Result<bool, StoreError> {
        self.around.call("retry_generation", self.inner.retry_generation(id, attempts, delay, now)).await
    }
    async fn fail_generation(&self, id: CustomCsrId, reason: &str, now: Timestamp) -> Result<bool, StoreError> {
        self.around.call("fail_generation", self.inner.fail_generation(id, reason, now)).await
    }
    async fn forget_start(&self, id: CustomCsrId) -> Result<(), StoreError> {
        self.around.call("forget_start", self.inner.forget_start(id)).await
    }
    async fn defer_generation(&self, id: CustomCsrId, delay: Duration) -> Result<bool, StoreError> {
        self.around.call("defer_generation", self.inner.defer_generation(id, delay)).await
    }
    async fn complete_pooled(
        &self,
        id: CustomCsrId,
        made: &GeneratedCsr,
        key: &PoolKey,
        now: Timestamp,
    ) -> Result<CompletionOutcome, StoreError> {
        self.around.call("complete_pooled", self.inner.complete_pooled(id, made, key, now)).await
    }
}

#[async_trait]
impl<A: Around> MasterKeys for AroundStore<A> {
    async fn list_master_keys(&self) -> Result<Vec<MasterKeyRow>, StoreError> {
        self.around.call("list_master_keys", self.inner.list_master_keys()).await
    }
    async fn register_master_key(&self, id: &str, now: Timestamp) -> Result<Registration, StoreError> {
        self.around.call("register_master_key", self.inner.register_master_key(id, now)).await
    }
    async fn count_sealed(&self) -> Result<Vec<MasterKeyUse>, StoreError> {
        self.around.call("count_sealed", self.inner.count_sealed()).await
    }
    async fn use_master_key(&self, id: &str, actor: &Actor, now: Timestamp) -> Result<bool, StoreError> {
        self.around.call("use_master_key", self.inner.use_master_key(id, actor, now)).await
    }
    async fn retire_master_key(&self, id: &str, actor: &Actor, now: Timestamp) -> Result<Retirement, StoreError> {
        self.around.call("retire_master_key", self.inner.retire_master_key(id, actor, now)).await
    }
    async fn list_retired(&self) -> Result<Vec<String>, StoreError> {
        self.around.call("list_retired", self.inner.list_retired()).await
    }
}

#[async_trait]
impl<A: Around> SealedRecords for AroundStore<A> {
    async fn list_sealed(&self, after: Option<CustomCsrId>, limit: u32) -> Result<Vec<SealedRow>, StoreError> {
        self.around.call("list_sealed", self.inner.list_sealed(after, limit)).await
    }
    async fn list_sealed_by(&self, master_key_id: &str, after: Option<&SealedRecord>, limit: u32) -> Result<Vec<SealedRecord>, StoreError> {
        self.around.call("list_sealed_by", self.inner.list_sealed_by(master_key_id, after, limit)).await
    }
    async fn reseal(&self, records: &[Resealed]) -> Result<u64, StoreError> {
        self.around.call("reseal", self.inner.reseal(records)).await
    }
}

#[async_trait]
impl<A: Around> KeyHolders for AroundStore<A> {
    async fn report_key_holder(&self, holder: &KeyHolder, lease: Duration) -> Result<(), StoreError> {
        self.around.call("report_key_holder", self.inner.report_key_holder(holder, lease)).await
    }
    async fn list_key_holders(&self) -> Result<Vec<KeyHolder>, StoreError> {
        self.around.call("list_key_holders", self.inner.list_key_holders()).await
    }
    async fn list_silent_workers(&self, seen_within: Duration) -> Result<Vec<String>, StoreError> {
        self.around.call("list_silent_workers", self.inner.list_silent_workers(seen_within)).await
    }
}

#[async_trait]
impl<A: Around> Maintenance for AroundStore<A> {
    async fn sweep(&self) -> Result<Sweep, StoreError> {
        self.around.call("sweep", self.inner.sweep()).await
    }
    async fn purge(&self, ended_before: Timestamp, seen_before: Timestamp, now: Timestamp) -> Result<Purge, StoreError> {
        self.around.call("purge", self.inner.purge(ended_before, seen_before, now)).await
    }
    async fn release_jobs(&self) -> Result<u64, StoreError> {
        self.around.call("release_jobs", self.inner.release_jobs()).await
    }
    async fn vitals(&self, seen_within: Duration) -> Result<Vitals, StoreError> {
        self.around.call("vitals", self.inner.vitals(seen_within)).await
    }
}

#[async_trait]
impl<A: Around> Webhooks for AroundStore<A> {
    async fn create_webhook(&self, new: &NewWebhook, actor: &Actor, now: Timestamp) -> Result<WebhookCreation, StoreError> {
        self.around.call("create_webhook", self.inner.create_webhook(new, actor, now)).await
    }
    async fn find_webhook(&self, scope: &Scope, id: WebhookId) -> Result<Option<Webhook>, StoreError> {
        self.around.call("find_webhook", self.inner.find_webhook(scope, id)).await
    }
    async fn list_webhooks(&self, scope: &Scope) -> Result<Vec<Webhook>, StoreError> {
        self.around.call("list_webhooks", self.inner.list_webhooks(scope)).await
    }
    async fn edit_webhook(
        &self,
        scope: &Scope,
        id: WebhookId,
        change: &WebhookChange,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<Option<Webhook>, StoreError> {
        self.around.call("edit_webhook", self.inner.edit_webhook(scope, id, change, actor, now)).await
    }
    async fn delete_webhook(&self, scope: &Scope, id: WebhookId, actor: &Actor, now: Timestamp) -> Result<bool, StoreError> {
        self.around.call("delete_webhook", self.inner.delete_webhook(scope, id, actor, now)).await
    }
    async fn ping_webhook(&self, scope: &Scope, id: WebhookId, delivery_id: &str, now: Timestamp) -> Result<Option<Delivery>, StoreError> {
        self.around.call("ping_webhook", self.inner.ping_webhook(scope, id, delivery_id, now)).await
    }
    async fn list_deliveries(&self, scope: &Scope, id: WebhookId) -> Result<Option<Vec<Delivery>>, StoreError> {
        self.around.call("list_deliveries", self.inner.list_deliveries(scope, id)).await
    }
    async fn find_webhook_key(&self) -> Result<Option<WebhookKey>, StoreError> {
        self.around.call("find_webhook_key", self.inner.find_webhook_key()).await
    }
    async fn add_webhook_key(&self, key: &WebhookKey, now: Timestamp) -> Result<(), StoreError> {
        self.around.call("add_webhook_key", self.inner.add_webhook_key(key, now)).await
    }
}

#[async_trait]
impl<A: Around> Deliveries for AroundStore<A> {
    async fn wake_deliveries(&self, now: Timestamp) -> Result<u64, StoreError> {
        self.around.call("wake_deliveries", self.inner.wake_deliveries(now)).await
    }
    async fn find_receiver(&self, id: WebhookId) -> Result<Option<Receiver>, StoreError> {
        self.around.call("find_receiver", self.inner.find_receiver(id)).await
    }
    async fn take_due(&self, id: WebhookId, limit: u32, lease: Duration, now: Timestamp) -> Result<Vec<Due>, StoreError> {
        self.around.call("take_due", self.inner.take_due(id, limit, lease, now)).await
    }
    async fn end_attempt(
        &self,
        webhook_id: WebhookId,
        delivery_id: &str,
        attempt: Attempt,
        response_status: Option<u16>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.around.call("end_attempt", self.inner.end_attempt(webhook_id, delivery_id, attempt, response_status, now)).await
    }
    async fn tell_time(&self, now: Timestamp) -> Result<u64, StoreError> {
        self.around.call("tell_time", self.inner.tell_time(now)).await
    }
    async fn purge_deliveries(&self) -> Result<u64, StoreError> {
        self.around.call("purge_deliveries", self.inner.purge_deliveries()).await
    }
}

#[async_trait]
impl<A: Around> Renewals for AroundStore<A> {
    async fn put_renewal_policy(
        &self,
        zone: &Scope,
        key: RenewalKey,
        at: Fraction,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<RenewalPolicy, StoreError> {
        self.around.call("put_renewal_policy", self.inner.put_renewal_policy(zone, key, at, actor, now)).await
    }
    async fn find_renewal_policy(&self, zone: &Scope) -> Result<Option<RenewalPolicy>, StoreError> {
        self.around.call("find_renewal_policy", self.inner.find_renewal_policy(zone)).await
    }
    async fn delete_renewal_policy(&self, zone: &Scope, actor: &Actor, now: Timestamp) -> Result<bool, StoreError> {
        self.around.call("delete_renewal_policy", self.inner.delete_renewal_policy(zone, actor, now)).await
    }
    async fn list_due_renewals(&self, after: &str, limit: u32, now: Timestamp) -> Result<(Vec<DueRenewal>, Option<String>), StoreError> {
        self.around.call("list_due_renewals", self.inner.list_due_renewals(after, limit, now)).await
    }
    async fn renew(
        &self,
        due: &DueRenewal,
        link: Option<&NewHandover>,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<RenewalOutcome, StoreError> {
        self.around.call("renew", self.inner.renew(due, link, actor, now)).await
    }
}

#[async_trait]
impl<A: Around> AriStore for AroundStore<A> {
    async fn take_unasked(&self, limit: u32, until: Timestamp, now: Timestamp) -> Result<Vec<Unasked>, StoreError> {
        self.around.call("take_unasked", self.inner.take_unasked(limit, until, now)).await
    }
    async fn end_asking(&self, unasked: &Unasked, asked: &Asked, next: Timestamp) -> Result<(), StoreError> {
        self.around.call("end_asking", self.inner.end_asking(unasked, asked, next)).await
    }
    async fn look_again(&self, before: Timestamp) -> Result<u64, StoreError> {
        self.around.call("look_again", self.inner.look_again(before)).await
    }
    async fn tell_renew_now(&self, now: Timestamp) -> Result<u64, StoreError> {
        self.around.call("tell_renew_now", self.inner.tell_renew_now(now)).await
    }
}

#[async_trait]
impl<A: Around> Incidents for AroundStore<A> {
    async fn list_candidates(&self, after: Option<CustomCertificateId>, limit: u32, now: Timestamp) -> Result<Vec<Candidate>, StoreError> {
        self.around.call("list_candidates", self.inner.list_candidates(after, limit, now)).await
    }
    async fn create_incident(&self, new: &NewIncident, actor: &Actor, now: Timestamp) -> Result<(), StoreError> {
        self.around.call("create_incident", self.inner.create_incident(new, actor, now)).await
    }
    async fn find_incident(&self, id: IncidentId) -> Result<Option<Incident>, StoreError> {
        self.around.call("find_incident", self.inner.find_incident(id)).await
    }
    async fn list_incidents(&self) -> Result<Vec<Incident>, StoreError> {
        self.around.call("list_incidents", self.inner.list_incidents()).await
    }
    async fn list_rekeys(&self, id: IncidentId, after: Option<CustomCsrId>, limit: u32) -> Result<Vec<Rekey>, StoreError> {
        self.around.call("list_rekeys", self.inner.list_rekeys(id, after, limit)).await
    }
    async fn start_incident(
        &self,
        id: IncidentId,
        pause: Option<Duration>,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<Option<IncidentStatus>, StoreError> {
        self.around.call("start_incident", self.inner.start_incident(id, pause, actor, now)).await
    }
    async fn stop_incident(&self, id: IncidentId, actor: &Actor, now: Timestamp) -> Result<Option<IncidentStatus>, StoreError> {
        self.around.call("stop_incident", self.inner.stop_incident(id, actor, now)).await
    }
    async fn forget_in_incidents(&self, scope: &Scope) -> Result<(), StoreError> {
        self.around.call("forget_in_incidents", self.inner.forget_in_incidents(scope)).await
    }
    async fn purge_incidents(&self, before: Timestamp) -> Result<u64, StoreError> {
        self.around.call("purge_incidents", self.inner.purge_incidents(before)).await
    }
    async fn wake_incidents(&self) -> Result<Woken, StoreError> {
        self.around.call("wake_incidents", self.inner.wake_incidents()).await
    }
    async fn take_turn(&self, turn: &Turn, now: Timestamp) -> Result<Turned, StoreError> {
        self.around.call("take_turn", self.inner.take_turn(turn, now)).await
    }
    async fn end_turns(&self, id: IncidentId, runner: &str) -> Result<(), StoreError> {
        self.around.call("end_turns", self.inner.end_turns(id, runner)).await
    }
}

#[async_trait]
impl<A: Around> FigureStore for AroundStore<A> {
    async fn figures(&self) -> Result<Figures, StoreError> {
        self.around.call("figures", self.inner.figures()).await
    }

    fn pools(&self) -> Vec<PoolUse> {
        self.inner.pools()
    }
}

#[async_trait]
impl<A: Around> Store for AroundStore<A> {
    async fn ping(&self) -> Result<(), StoreError> {
        self.around.call("ping", self.inner.ping()).await
    }

    fn moved(&self) -> Option<String> {
        self.inner.moved()
    }

    async fn failed(&self) {
        self.inner.failed().await;
    }

    async fn close(&self) {
        self.inner.close().await;
    }

    fn signals(&self) -> &Signals {
        self.inner.signals()
    }
}
