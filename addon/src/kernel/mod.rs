//! The kernel as the control path sees it: the native half of control/src/kernel.ts.

use crate::error::OrThrow;
use napi::Env;
use napi_derive::napi;

/// The kernel of this machine.
#[napi]
pub struct NativeKernel {}

#[napi]
impl NativeKernel {
    /// The kernel of this machine; asks it nothing yet.
    #[napi(constructor)]
    #[allow(clippy::new_without_default, reason = "the constructor is for JavaScript")]
    #[must_use]
    pub fn new() -> Self {
        Self {}
    }

    /// Effective capabilities of the calling thread by name, e.g. "CAP_NET_ADMIN".
    #[napi]
    pub fn capabilities(&self, env: Env) -> napi::Result<Vec<&'static str>> {
        bifurcate_linux::process::effective_capabilities().or_throw(&env)
    }

    /// uname -r.
    #[napi]
    pub fn release(&self) -> String {
        bifurcate_linux::process::kernel_release()
    }
}
