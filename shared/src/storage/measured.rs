//! A store that measures and traces its operations.

use std::{future::Future, sync::Arc};

use tokio::time::Instant;

use super::{Around, AroundStore, Queue, Store, StoreError};
use crate::{
    metrics::metrics,
    trace::{self, Span},
};

/// The same store on the database of this queue, with every operation in the metrics and in traces.
#[must_use]
pub fn measured(store: Arc<dyn Store>, queue: &Queue) -> Arc<dyn Store> {
    Arc::new(AroundStore::with(store, Measuring { database: queue.database() }))
}

struct Measuring {
    /// The kind of database.
    database: &'static str,
}

impl Around for Measuring {
    async fn call<T: Send>(
        &self,
        operation: &'static str,
        inner: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let span = Span::operation(operation, self.database);
        let mut call = Call { operation, began: Instant::now(), error: Some(ABANDONED), span };
        let done = trace::within(call.span.as_ref(), inner).await;
        call.error = done.as_ref().err().map(StoreError::kind);
        done
    }
}

/// How an operation ends whose caller did not wait for it: its time ran out, or a client left.
pub const ABANDONED: &str = "abandoned";

/// An operation. When it is dropped, it is counted and its span ends, whether it was finished or not.
struct Call {
    operation: &'static str,
    began: Instant,
    error: Option<&'static str>,
    span: Option<Span>,
}

impl Drop for Call {
    fn drop(&mut self) {
        if let Some(metrics) = metrics() {
            metrics.store_called(self.operation, self.began.elapsed(), self.error);
        }
        if let (Some(span), Some(error)) = (&self.span, self.error) {
            span.failed(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, task::Poll};

    use super::*;
    use crate::{
        metrics,
        testing::{
            TestDatabase,
            faulty::{Fault, FaultyStore, When},
        },
    };

    #[tokio::test]
    async fn an_operation_counts_with_its_error_whether_its_caller_waits_or_not() {
        let test = TestDatabase::new().await;
        let error = StoreError::Unavailable("by a test".into());
        let fault = Fault { method: "ping", from: 1, calls: 1, when: When::Before, error };
        let faulty = Arc::new(FaultyStore::new(Arc::clone(&test.database.store), vec![fault]));
        let store = measured(faulty, &test.database.queue);
        let metrics = metrics::begin();
        assert!(store.ping().await.is_ok());
        assert!(store.ping().await.is_err());
        // Another task answers it.
        let mut left = store.ping();
        assert!(poll_fn(|cx| Poll::Ready(left.as_mut().poll(cx).is_pending())).await);
        drop(left);
        let served = metrics.open_metrics();
        for line in [
            "csrd_store_duration_seconds_count{operation=\"ping\"} 3\n",
            "csrd_store_errors_total{operation=\"ping\",kind=\"unavailable\"} 1\n",
            "csrd_store_errors_total{operation=\"ping\",kind=\"abandoned\"} 1\n",
        ] {
            assert!(served.contains(line), "{line}{served}");
        }
    }
}
