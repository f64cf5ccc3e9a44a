//! Work that may wait, away from JavaScript's thread.

use bifurcate_linux::Result;
use napi::bindgen_prelude::PromiseRaw;
use napi::{Env, JsValue};

use crate::error::thrown;

/// Does blocking work on a thread of its own, and settles a promise with what comes of it.
pub(crate) fn promised<'e, T>(
    env: &'e Env,
    name: &str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> napi::Result<PromiseRaw<'e, T>>
where
    T: napi::bindgen_prelude::ToNapiValue + Send + 'static,
{
    let (deferred, promise) = env.create_deferred::<T, Box<dyn FnOnce(Env) -> napi::Result<T> + Send>>()?;
    let raw = promise.raw();
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            let result = work();
            deferred.resolve(Box::new(move |env| result.map_err(|error| thrown(&env, &error))));
        })
        .map_err(|error| napi::Error::from_reason(format!("cannot start a thread: {error}")))?;
    Ok(PromiseRaw::new(env.raw(), raw))
}

/// Closes something whose last close may take as long as somebody else likes: a card, which the kernel resets then, or a
/// file that another process sent.
pub(crate) fn close<T: Send + 'static>(what: T) {
    // Where there is no thread to be had, it is closed here.
    let _ = std::thread::Builder::new()
        .name("bf-close".to_owned())
        .spawn(move || drop(what));
}
