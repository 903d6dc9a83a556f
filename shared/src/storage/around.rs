//! A store around another one, with something around each of its operations.

use std::{future::Future, ops::RangeInclusive, sync::Arc, time::Duration};

use async_trait::async_trait;

use super::{
    Acceptance, AriStore, Asked, Attempt, AuditQuery, AuditRun, AuditStore, CertificateChange, CertificatePage, CertificateQuery,
    CertificateRefusal, CertificateStore, CompletionOutcome, CustomCsrs, Deletion, Deliveries, Due, DueRenewal, FigureStore, Figures,
    GeneratedCsr, Generation, Generations, HandoverCreation, Handovers, Hidden, HiddenCsrs, IdempotencyKey, Incidents, KeyHolder,
    KeyHolders, ListQuery, Maintenance, MasterKeyRow, MasterKeyUse, MasterKeys, MatchedCertificate, NewCertificate, NewChain, NewCustomCsr,
    NewIncident, NewPoolKey, NewWebhook, Page, PoolAddition, PoolKey, PoolKeys, PoolUse, Purge, Receiver, Registration, RenewalOutcome,
    Renewals, Repeat, Replacement, Resealed, Restoration, Retirement, ScopeGrant, Scopes, SealedRecord, SealedRecords, SealedRow, Signals,
    StartedExport, Store, StoreError, Sweep, Turn, Turned, Unasked, UsableCsr, Vitals, WebhookChange, WebhookCreation, Webhooks, Woken,
};
use crate::{
    audit::{Actor, NewEntry},
    bodies::edit::Edit,
    clock::Timestamp,
    custom_certificate::CustomCertificate,
    custom_csr::{CustomCsr, KeyType},
    handover::{Handover, NewHandover, Secret},
    ids::{CustomCertificateId, CustomCsrId, HandoverId, IncidentId, Scope, SetId, TenantId, WebhookId},
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

/// Passes operations on to the inner store, each within [`Around::call`]. A list says of an operation what its trait says, but for `&self`
/// and the error.
macro_rules! around {
    ($($part:ident { $($operation:ident($($argument:ident: $kind:ty),*) -> $answer:ty;)+ })+) => {
        $(
            #[async_trait]
            impl<A: Around> $part for AroundStore<A> {
                $(
                    async fn $operation(&self, $($argument: $kind),*) -> Result<$answer, StoreError> {
                        self.around.call(stringify!($operation), self.inner.$operation($($argument),*)).await
                    }
                )+
            }
        )+
    };
}

around! {
    CertificateStore {
        find_usable_csr(zone: &Scope, id: CustomCsrId, present: Option<CustomCertificateId>) -> Option<UsableCsr>;
        find_usable_csr_by_key(zone: &Scope, spki_sha256: &[u8; 32]) -> Option<UsableCsr>;
        check_certificate(new: &NewCertificate) -> Option<CertificateRefusal>;
        check_replacement(zone: &Scope, id: CustomCertificateId, chain: &NewChain) -> Option<CertificateRefusal>;
        find_upload(zone: &Scope, key: &IdempotencyKey, now: Timestamp) -> Option<Repeat>;
        accept_certificate(new: &NewCertificate, actor: &Actor, now: Timestamp) -> Option<CertificateRefusal>;
        replace_certificate(
            zone: &Scope, id: CustomCertificateId, change: &CertificateChange, actor: &Actor, now: Timestamp
        ) -> Replacement;
        find_certificate(scope: &Scope, id: CustomCertificateId) -> Option<CustomCertificate>;
        list_certificates(scope: &Scope, query: &CertificateQuery) -> CertificatePage;
        delete_certificate(scope: &Scope, id: CustomCertificateId, actor: &Actor, now: Timestamp) -> bool;
        list_all_certificates(after: Option<CustomCertificateId>, limit: u32) -> Vec<CustomCertificate>;
        list_matched_certificates(of: Option<CustomCertificateId>) -> Vec<MatchedCertificate>;
        start_export(id: CustomCertificateId, actor: &Actor, now: Timestamp) -> StartedExport;
    }
    Handovers {
        create_handover(scope: &Scope, new: &NewHandover, actor: &Actor, now: Timestamp) -> HandoverCreation;
        list_handovers(scope: &Scope, custom_csr_id: CustomCsrId) -> Vec<Handover>;
        revoke_handover(scope: &Scope, custom_csr_id: CustomCsrId, id: HandoverId, actor: &Actor, now: Timestamp) -> bool;
        find_handover(secret: &Secret) -> Option<(Handover, Scope)>;
        open_handover(id: HandoverId, scope: &Scope, actor: &Actor, now: Timestamp) -> ();
    }
    AuditStore {
        record_entries(entries: &[NewEntry], actor: &Actor, now: Timestamp) -> ();
        read_audit(query: AuditQuery) -> Box<dyn AuditRun + '_>;
        delete_archived(numbers: RangeInclusive<i64>, entry: Option<&NewEntry>, actor: &Actor, now: Timestamp) -> u64;
    }
    PoolKeys {
        add_pool_key(key: &NewPoolKey, size: u32, now: Timestamp) -> PoolAddition;
        count_pool_keys() -> u64;
        lease_pool_key(master_key_id: &str, lease: Duration) -> Option<PoolKey>;
        discard_pool_key(key: &PoolKey) -> ();
        empty_pool() -> u64;
    }
    Scopes {
        grant_scope(scope: &Scope, account: Option<&TenantId>, quota: Option<u32>, actor: &Actor, now: Timestamp) -> ();
        revoke_scope(scope: &Scope, actor: &Actor, now: Timestamp) -> bool;
        list_scopes(kind: &str) -> Vec<ScopeGrant>;
        find_scope(scope: &Scope) -> Option<ScopeGrant>;
    }
    CustomCsrs {
        accept_custom_csr(new: &NewCustomCsr, actor: &Actor, now: Timestamp) -> Acceptance;
        accept_set(new: &[NewCustomCsr], actor: &Actor, now: Timestamp) -> Acceptance;
        list_set(scope: &Scope, set_id: SetId) -> Vec<CustomCsr>;
        find_custom_csr(scope: &Scope, id: CustomCsrId) -> Option<CustomCsr>;
        list_custom_csrs(scope: &Scope, query: &ListQuery) -> Page;
        edit_custom_csr(scope: &Scope, id: CustomCsrId, edit: &Edit, actor: &Actor, now: Timestamp) -> Option<CustomCsr>;
        delete_custom_csr(scope: &Scope, id: CustomCsrId, actor: &Actor, now: Timestamp) -> Deletion;
    }
    HiddenCsrs {
        hide_custom_csr(scope: &Scope, id: CustomCsrId, destroy_after: Timestamp, actor: &Actor, now: Timestamp) -> Deletion;
        destroy_custom_csr(scope: &Scope, id: CustomCsrId, actor: &Actor, now: Timestamp) -> Deletion;
        restore_custom_csr(scope: &Scope, id: CustomCsrId, max_pending: u32, actor: &Actor, now: Timestamp) -> Restoration;
        list_hidden(scope: &Scope, limit: u32) -> Hidden;
        destroy_due(now: Timestamp) -> u64;
    }
    Generations {
        start_generations(id: CustomCsrId, most: fn(KeyType) -> u32) -> Vec<Generation>;
        complete_generation(id: CustomCsrId, made: &GeneratedCsr, now: Timestamp) -> CompletionOutcome;
        retry_generation(id: CustomCsrId, attempts: u32, delay: Duration, now: Timestamp) -> bool;
        fail_generation(id: CustomCsrId, reason: &str, now: Timestamp) -> bool;
        forget_start(id: CustomCsrId) -> ();
        defer_generation(id: CustomCsrId, delay: Duration) -> bool;
        complete_pooled(id: CustomCsrId, made: &GeneratedCsr, key: &PoolKey, now: Timestamp) -> CompletionOutcome;
    }
    MasterKeys {
        list_master_keys() -> Vec<MasterKeyRow>;
        register_master_key(id: &str, now: Timestamp) -> Registration;
        count_sealed() -> Vec<MasterKeyUse>;
        use_master_key(id: &str, actor: &Actor, now: Timestamp) -> bool;
        retire_master_key(id: &str, actor: &Actor, now: Timestamp) -> Retirement;
        list_retired() -> Vec<String>;
    }
    SealedRecords {
        list_sealed(after: Option<CustomCsrId>, limit: u32) -> Vec<SealedRow>;
        list_sealed_by(master_key_id: &str, after: Option<&SealedRecord>, limit: u32) -> Vec<SealedRecord>;
        reseal(records: &[Resealed]) -> u64;
    }
    KeyHolders {
        report_key_holder(holder: &KeyHolder, lease: Duration) -> ();
        list_key_holders() -> Vec<KeyHolder>;
        list_silent_workers(seen_within: Duration) -> Vec<String>;
    }
    Maintenance {
        sweep() -> Sweep;
        purge(ended_before: Timestamp, seen_before: Timestamp, now: Timestamp) -> Purge;
        release_jobs() -> u64;
        retire_workers(process_id: &str) -> ();
        vitals(seen_within: Duration) -> Vitals;
    }
    Webhooks {
        create_webhook(new: &NewWebhook, actor: &Actor, now: Timestamp) -> WebhookCreation;
        find_webhook(scope: &Scope, id: WebhookId) -> Option<Webhook>;
        list_webhooks(scope: &Scope) -> Vec<Webhook>;
        edit_webhook(scope: &Scope, id: WebhookId, change: &WebhookChange, actor: &Actor, now: Timestamp) -> Option<Webhook>;
        delete_webhook(scope: &Scope, id: WebhookId, actor: &Actor, now: Timestamp) -> bool;
        ping_webhook(scope: &Scope, id: WebhookId, delivery_id: &str, now: Timestamp) -> Option<Delivery>;
        list_deliveries(scope: &Scope, id: WebhookId) -> Option<Vec<Delivery>>;
        forget_told(scope: &Scope) -> u64;
        find_webhook_key() -> Option<WebhookKey>;
        add_webhook_key(key: &WebhookKey, now: Timestamp) -> ();
    }
    Deliveries {
        wake_deliveries(now: Timestamp) -> u64;
        find_receiver(id: WebhookId) -> Option<Receiver>;
        take_due(id: WebhookId, limit: u32, lease: Duration, now: Timestamp) -> Vec<Due>;
        end_attempt(webhook_id: WebhookId, due: &Due, attempt: Attempt, response_status: Option<u16>, now: Timestamp) -> ();
        tell_time(now: Timestamp) -> u64;
        purge_deliveries() -> u64;
    }
    Renewals {
        put_renewal_policy(zone: &Scope, key: RenewalKey, at: Fraction, actor: &Actor, now: Timestamp) -> RenewalPolicy;
        find_renewal_policy(zone: &Scope) -> Option<RenewalPolicy>;
        delete_renewal_policy(zone: &Scope, actor: &Actor, now: Timestamp) -> bool;
        list_due_renewals(after: &str, limit: u32, now: Timestamp) -> (Vec<DueRenewal>, Option<String>);
        renew(due: &DueRenewal, link: Option<&NewHandover>, actor: &Actor, now: Timestamp) -> RenewalOutcome;
    }
    AriStore {
        take_unasked(limit: u32, until: Timestamp, now: Timestamp) -> Vec<Unasked>;
        end_asking(unasked: &Unasked, asked: &Asked, next: Timestamp) -> ();
        look_again(before: Timestamp) -> u64;
        tell_renew_now(now: Timestamp) -> u64;
    }
    Incidents {
        list_candidates(after: Option<CustomCertificateId>, limit: u32, now: Timestamp) -> Vec<Candidate>;
        create_incident(new: &NewIncident, actor: &Actor, now: Timestamp) -> ();
        find_incident(id: IncidentId) -> Option<Incident>;
        list_incidents() -> Vec<Incident>;
        list_rekeys(id: IncidentId, after: Option<CustomCsrId>, limit: u32) -> Vec<Rekey>;
        start_incident(id: IncidentId, pause: Option<Duration>, actor: &Actor, now: Timestamp) -> Option<IncidentStatus>;
        stop_incident(id: IncidentId, actor: &Actor, now: Timestamp) -> Option<IncidentStatus>;
        forget_in_incidents(scope: &Scope) -> ();
        purge_incidents(before: Timestamp) -> u64;
        wake_incidents() -> Woken;
        take_turn(turn: &Turn, now: Timestamp) -> Turned;
        end_turns(id: IncidentId, runner: &str) -> ();
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
