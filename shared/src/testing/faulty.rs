//! A store that fails on purpose: the nth call of a method, before or after it took effect.

use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
};

use crate::storage::{Around, AroundStore, Store, StoreError};

/// Whether a call that fails took effect all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// It did nothing.
    Before,
    /// It did what it was asked for, and only its answer was lost.
    After,
}

/// A fault of one method.
#[derive(Debug, Clone)]
pub struct Fault {
    /// The method's name.
    pub method: &'static str,
    /// The first call that fails, from 0.
    pub from: u32,
    /// How many calls fail.
    pub calls: u32,
    /// Whether they took effect.
    pub when: When,
    /// With what they fail.
    pub error: StoreError,
}

/// What happens when a method is called, before the call does anything.
type Meanwhile = (&'static str, Box<dyn Fn() + Send + Sync>);

/// A store whose calls fail as its faults say, and reach another store otherwise.
pub type FaultyStore = AroundStore<Faults>;

/// Which calls fail, and how many there were.
pub struct Faults {
    planned: Vec<Fault>,
    meanwhile: Option<Meanwhile>,
    calls: Mutex<HashMap<&'static str, u32>>,
}

impl FaultyStore {
    /// This store, with these faults.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>, faults: Vec<Fault>) -> Self {
        Self::with(inner, Faults { planned: faults, meanwhile: None, calls: Mutex::default() })
    }

    /// Without a fault: this happens whenever the method is called, as if another process did it at that moment.
    #[must_use]
    pub fn meanwhile(inner: Arc<dyn Store>, method: &'static str, happens: impl Fn() + Send + Sync + 'static) -> Self {
        Self::with(inner, Faults { planned: Vec::new(), meanwhile: Some((method, Box::new(happens))), calls: Mutex::default() })
    }

    /// How often a method was called.
    #[must_use]
    pub fn calls_of(&self, method: &str) -> u32 {
        self.around.calls.lock().unwrap_or_else(PoisonError::into_inner).get(method).copied().unwrap_or_default()
    }
}

impl Around for Faults {
    async fn call<T: Send>(
        &self,
        method: &'static str,
        inner: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        if let Some((_, happens)) = self.meanwhile.as_ref().filter(|(when, _)| *when == method) {
            happens();
        }
        let call = {
            let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
            let call = calls.entry(method).or_default();
            *call += 1;
            *call - 1
        };
        let fault = self
            .planned
            .iter()
            .find(|fault| fault.method == method && (fault.from..fault.from.saturating_add(fault.calls)).contains(&call));
        match fault {
            None => inner.await,
            Some(Fault { when: When::Before, error, .. }) => Err(error.clone()),
            Some(Fault { when: When::After, error, .. }) => {
                inner.await?;
                Err(error.clone())
            }
        }
    }
}
