//! For tests of this crate: a broker that is played word by word, at the pace of the test.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bifurcate_linux::event::{Interest, wait_one};
use bifurcate_linux::seqpacket::{Connection, Listener, Received};

/// The answer to hello.
pub(crate) const WELCOME: &str = r#"{"type":"welcome","version":3,"broker":"test","pid":1,"netns":1}"#;

/// Where it listens. The socket's file is removed with it.
pub(crate) struct PlayedBroker {
    path: PathBuf,
    listener: Listener,
}

impl PlayedBroker {
    pub(crate) fn new(name: &str) -> PlayedBroker {
        let path = std::env::temp_dir().join(format!("bf-played-{}-{name}", std::process::id()));
        let listener = Listener::bind(&path, 1).unwrap();
        PlayedBroker { path, listener }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether nobody has connected whom it has not accepted.
    pub(crate) fn is_alone(&self) -> bool {
        self.listener.accept().unwrap().is_none()
    }

    /// The next client; waits for it.
    pub(crate) fn accept(&self) -> Client {
        until_readable(&self.listener);
        Client(self.listener.accept().unwrap().unwrap())
    }
}

impl Drop for PlayedBroker {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The broker's end of a connection.
pub(crate) struct Client(Connection);

impl Client {
    /// What the client said next; waits for it.
    pub(crate) fn hear(&self) -> String {
        until_readable(&self.0);
        let mut buffer = vec![0; 4096];
        match self.0.receive(&mut buffer).unwrap() {
            Received::Message { length, .. } => String::from_utf8(buffer[..length].to_vec()).unwrap(),
            other => panic!("no message: {other:?}"),
        }
    }

    pub(crate) fn say(&self, message: &str) {
        assert!(self.0.send(message.as_bytes(), &[]).unwrap());
    }

    /// Whether the client says nothing and keeps the connection.
    pub(crate) fn is_silent(&self) -> bool {
        matches!(self.0.receive(&mut [0; 4096]).unwrap(), Received::Nothing)
    }

    /// Whether the client has closed the connection.
    pub(crate) fn has_closed(&self) -> bool {
        matches!(self.0.receive(&mut [0; 4096]).unwrap(), Received::End)
    }
}

fn until_readable(it: &impl AsFd) {
    let came = wait_one(it.as_fd(), Interest::Read, Some(Duration::from_secs(60))).unwrap();
    assert!(came.any(), "nothing came");
}
