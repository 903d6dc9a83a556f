//! Several reads in one statement: what many requests ask for at the same time costs one trip to the database.
//!
//! While some groups are read, the next one gathers; a request that comes alone goes at once and alone.

use std::{collections::HashMap, sync::Arc};

use tokio::sync::{
    Semaphore,
    mpsc::{Receiver, Sender},
    oneshot,
};

use super::{Dialect, SqlStore, StoreError, custom_csrs::FIND_CUSTOM_CSR, group_commit::no_turn, row::Reader, value::values};
use crate::{
    custom_csr::CustomCsr,
    ids::{CustomCsrId, Scope},
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
        reads: &Sender<GroupedRead>,
        scope: &Scope,
        id: CustomCsrId,
    ) -> Result<Option<CustomCsr>, StoreError> {
        let (answer, answered) = oneshot::channel();
        reads.try_send(GroupedRead { scope: scope.clone(), id, answer }).map_err(|error| no_turn(&error))?;
        answered.await.map_err(|_| StoreError::Unavailable("the read ended without an answer".to_owned()))?
    }

    /// Reads groups for as long as the store lives.
    pub(super) async fn read_groups(self: Arc<Self>, mut reads: Receiver<GroupedRead>) {
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
            // Whose caller has left is not read: after an outage those who still wait would wait for them.
            group.retain(|read| !read.answer.is_closed());
            let this = Arc::clone(&self);
            tokio::spawn(async move {
                this.read_group(group).await;
                drop(place);
            });
        }
    }

    async fn read_group(&self, group: Vec<GroupedRead>) {
        let group = match <[GroupedRead; 1]>::try_from(group) {
            Ok([GroupedRead { scope, id, answer }]) => {
                let _ = answer.send(self.find_alone(&scope, id).await);
                return;
            }
            Err(group) => group,
        };
        match self.find_group(&group).await {
            Ok(found) => {
                for GroupedRead { scope, id, answer } in group {
                    // Two may ask for the same one.
                    let one = found.get(&(id.to_string(), scope.to_string()));
                    let _ = answer.send(one.map_or(Ok(None), |csr| csr.clone().map(Some)));
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
        let rows = self.rows(FIND_CUSTOM_CSR, values![id.to_string(), scope.to_string()]).await?;
        rows.first().map(|row| Reader::<DB>(row).custom_csr()).transpose()
    }

    /// Those of a group that exist, by ID and scope. One that cannot be read is an error for who asked for it, and for nobody else.
    async fn find_group(&self, group: &[GroupedRead]) -> Result<Found, StoreError> {
        if group.is_empty() {
            return Ok(Found::new());
        }
        let pairs: Vec<_> = group.iter().map(|read| [read.id.to_string(), read.scope.to_string()]).collect();
        let pairs = serde_json::to_string(&pairs).map_err(|error| StoreError::Internal(error.to_string()))?;
        let rows = self.rows(DB::FIND_CUSTOM_CSRS, values![pairs]).await?;
        let read = |row: &DB::Row| {
            let reader = Reader::<DB>(row);
            Ok(((reader.text("id")?, reader.text("scope")?), reader.custom_csr()))
        };
        rows.iter().map(read).collect()
    }
}

/// What a group found, by ID and scope.
type Found = HashMap<(String, String), Result<CustomCsr, StoreError>>;
