//! Tasks that a store owns.

use std::{
    future::Future,
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::{sync::watch, task::JoinSet};

/// Tasks that live as long as the store that owns them, and whether one of them panicked.
pub struct Tasks {
    running: Mutex<JoinSet<()>>,
    panicked: watch::Sender<bool>,
}

impl Tasks {
    /// None yet.
    pub fn new() -> Self {
        Self { running: Mutex::default(), panicked: watch::Sender::new(false) }
    }

    /// Runs this until the store is closed.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let alarm = self.alarm();
        self.lock().spawn(async move {
            let _alarm = alarm;
            task.await;
        });
    }

    /// Sounds when a task that holds it panics.
    pub fn alarm(&self) -> Alarm {
        Alarm(self.panicked.clone())
    }

    /// Waits until a task panics, for as long as there are any.
    pub async fn panicked(&self) {
        let mut panicked = self.panicked.subscribe();
        if panicked.wait_for(|panicked| *panicked).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Ends them.
    pub async fn end(&self) {
        let mut running = mem::take(&mut *self.lock());
        running.shutdown().await;
    }

    fn lock(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sounds when a task panics.
#[derive(Clone)]
pub struct Alarm(watch::Sender<bool>);

impl Drop for Alarm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("a task of the database panicked");
            self.0.send_replace(true);
        }
    }
}
