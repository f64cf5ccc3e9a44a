//! A file that this process has, and no other, as a JavaScript object.

use std::path::Path;

use bifurcate_linux::lock;
use napi::Env;
use napi_derive::napi;

use crate::error::OrThrow;

/// The lock on a file. It is held until it is closed or the process ends, also when the object is forgotten.
#[napi]
pub struct FileLock(Option<lock::FileLock>);

/// Locks the file at `path`, which is made where there is none; null when another has the lock.
#[napi]
pub fn lock_file(env: Env, path: String) -> napi::Result<Option<FileLock>> {
    let lock = lock::FileLock::take(Path::new(&path)).or_throw(&env)?;
    Ok(lock.map(|lock| FileLock(Some(lock))))
}

#[napi]
impl FileLock {
    /// Gives the lock back.
    #[napi]
    pub fn close(&mut self) {
        self.0 = None;
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // What the lock is about goes on without the object, which the collector may take at any time.
        std::mem::forget(self.0.take());
    }
}
