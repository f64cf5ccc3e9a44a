//! A socket's path that tests use, and how they wait.
#![allow(dead_code, reason = "each test file uses some of it")]

use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A socket's path that is removed with it.
pub struct Place(pub PathBuf);

impl Place {
    pub fn new(name: &str) -> Place {
        Place(std::env::temp_dir().join(format!("bf-trouble-{}-{name}.sock", std::process::id())))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Longest a test waits for what must come: a machine may stand still for seconds.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until something comes about.
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "{what} does not come about");
        std::thread::sleep(Duration::from_millis(1));
    }
}
