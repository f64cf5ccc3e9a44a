//! The kernel's refusals as JavaScript errors, with the properties `code`, `call` and `args`.

use bifurcate_linux::Error;
use napi::bindgen_prelude::{JsObjectValue, Object};
use napi::{Env, JsError, JsValue};

/// Turns a refused system call into an `Error` object for JavaScript: the message says everything, `code`
/// is the errno's name, `call` and `args` what was tried.
pub(crate) fn thrown(env: &Env, error: &Error) -> napi::Error {
    let plain = napi::Error::new(error.code(), error.to_string());
    let value = JsError::from(plain).into_unknown(*env);
    let mut object = Object::from_raw(env.raw(), value.raw());
    let filled = object
        .set_named_property("call", error.call)
        .and_then(|()| object.set_named_property("args", error.args.as_str()));
    match filled {
        Ok(()) => value.into(),
        Err(error) => error,
    }
}

/// What a call of `linux` gave, with its error made for JavaScript.
pub(crate) trait OrThrow<T> {
    /// The value, or the error as an exception of `env`.
    fn or_throw(self, env: &Env) -> napi::Result<T>;
}

impl<T> OrThrow<T> for bifurcate_linux::Result<T> {
    fn or_throw(self, env: &Env) -> napi::Result<T> {
        self.map_err(|error| thrown(env, &error))
    }
}

/// A descriptor that is not open, the same number on every platform (asm-generic/errno-base.h).
const EBADF: i32 = 9;

/// The error of using a `what` after its `close()`.
pub(crate) fn closed(env: &Env, what: &'static str) -> napi::Error {
    thrown(env, &Error::new(what, "it was closed", EBADF))
}

/// The error of an argument that no call of the kernel was made with.
pub(crate) fn invalid(why: impl Into<String>) -> napi::Error {
    napi::Error::new(napi::Status::InvalidArg, why.into())
}
