//! The atomics and cells of the rings: the standard ones, or loom's when a model is checked.

#[cfg(loom)]
pub(super) use loom::{cell::UnsafeCell, sync::Arc, sync::atomic::AtomicU32, sync::atomic::Ordering};
#[cfg(not(loom))]
pub(super) use std::sync::{Arc, atomic::AtomicU32, atomic::Ordering};

/// A cell with loom's closure interface over the standard one.
#[cfg(not(loom))]
#[derive(Debug, Default)]
pub(super) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(loom))]
impl<T> UnsafeCell<T> {
    pub(super) fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }

    pub(super) fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
        f(self.0.get())
    }

    pub(super) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        f(self.0.get())
    }
}
