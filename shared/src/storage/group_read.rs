//! Several reads in one statement: what many requests ask for at the same time costs one trip to the database.
//!
//! While some groups are read, the next one gathers; a request that comes alone goes at once and alone.

use std::{collections::HashMap, sync::Arc};

use tokio::sync::{
    Semaphore,
    mpsc::{UnboundedReceiver, UnboundedSender},
    oneshot,
};

use super::{Dialect, SqlStore, rows::Reader, statements as sql, value::values};
use crate::{
    error::StoreError,
    ids::{CustomCsrId, Scope},
    model::CustomCsr,
};

/// Reads that share a statement at most.
const GROUP: usize = 64;

/// Groups that are read at once.
const GROUPS: usize = 2;

/// Which custom CSR, and whom to answer.
pub(super) struct GroupedRead {
    scope: Scope,
    id: CustomCsrId,
    answer: oneshot::Sender<Result<Option<CustomCsr>, StoreError>>,
}

impl<DB: Dialect> SqlStore<DB> {
    /// Reads one custom CSR, with others that are asked for at the same time.
    pub(super) async fn read_grouped(
        &self,
        reads: &UnboundedSender<GroupedRead>,
        scope: &Scope,
        id: CustomCsrId,
    ) -> Result<Option<CustomCsr>, StoreError> {
        let (answer, answered) = oneshot::channel();
        let closed = || StoreError::Unavailable("the database is being closed".to_owned());
        reads.send(GroupedRead { scope: scope.clone(), id, answer }).map_err(|_| closed())?;
        answered.await.map_err(|_| closed())?
    }

    /// Reads groups for as long as the store lives.
    pub(super) async fn read_groups(self: Arc<Self>, mut reads: UnboundedReceiver<GroupedRead>) {
        let places = Arc::new(Semaphore::new(GROUPS));
        // Never closed, so never refused.
        while let Ok(place) = Arc::clone(&places).acquire_owned().await {
            let mut group = Vec::new();
            if reads.recv_many(&mut group, GROUP).await == 0 {
                return;
            }
            // What other requests are about to ask for comes along: they have their turn first.
            tokio::task::yield_now().await;
            while group.len() < GROUP
                && let Ok(read) = reads.try_recv()
            {
                group.push(read);
            }
            let this = Arc::clone(&self);
            tokio::spawn(async move {
                this.read_group(group).await;
                drop(place);
            });
        }
    }

    async fn read_group(&self, group: Vec<GroupedRead>) {
        match self.find_group(&group).await {
            Ok(found) => {
                for GroupedRead { scope, id, answer } in group {
                    // An ID of another scope is not found.
                    let one = found.get(&id).filter(|csr| csr.scope == scope).cloned();
                    let _ = answer.send(Ok(one));
                }
            }
            Err(error) => {
                for GroupedRead { answer, .. } in group {
                    let _ = answer.send(Err(error.clone()));
                }
            }
        }
    }

    /// Reads one custom CSR by a statement of its own.
    pub(super) async fn find_alone(&self, scope: &Scope, id: CustomCsrId) -> Result<Option<CustomCsr>, StoreError> {
        let rows = self.rows(sql::FIND_CUSTOM_CSR, values![id.to_string(), scope.to_string()]).await?;
        rows.first().map(|row| Reader::<DB>(row).custom_csr()).transpose()
    }

    /// Those of a group that exist, by ID; in a scope of the group, which need not be the one that the ID was asked for in.
    async fn find_group(&self, group: &[GroupedRead]) -> Result<HashMap<CustomCsrId, CustomCsr>, StoreError> {
        if let [GroupedRead { scope, id, .. }] = group {
            return Ok(self.find_alone(scope, *id).await?.into_iter().map(|csr| (csr.id, csr)).collect());
        }
        let ids: Vec<_> = group.iter().map(|read| read.id.to_string()).collect();
        let scopes: Vec<_> = group.iter().map(|read| read.scope.to_string()).collect();
        let json = |texts: &[String]| serde_json::to_string(texts).map_err(|error| StoreError::Internal(error.to_string()));
        let rows = self.rows(DB::FIND_CUSTOM_CSRS, values![json(&ids)?, json(&scopes)?]).await?;
        rows.iter().map(|row| Reader::<DB>(row).custom_csr().map(|csr| (csr.id, csr))).collect()
    }
}
