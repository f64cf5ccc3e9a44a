//! A broker for one client, played by a thread by PROTOCOL.md.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::thread::JoinHandle;

use bifurcate_client::{Broker, Error, Request};
use bifurcate_linux::event::{Interest, wait_one};
use bifurcate_linux::seqpacket::{Connection, Listener, Received};

/// A broker for one client, which speaks `version` and answers the first request with this grant and descriptors; gives
/// what the client said.
struct FakeBroker {
    path: PathBuf,
    said: JoinHandle<Vec<String>>,
}

impl FakeBroker {
    fn start(name: &str, version: u32, granted: String, descriptors: Vec<OwnedFd>) -> FakeBroker {
        let path = std::env::temp_dir().join(format!("bf-client-{}-{name}", std::process::id()));
        let listener = Listener::bind(&path, 1).unwrap();
        let said = std::thread::spawn(move || {
            wait_one(listener.as_fd(), Interest::Read, None).unwrap();
            let client = listener.accept().unwrap().unwrap();
            let mut said = vec![hear(&client).unwrap()];
            let welcome =
                format!(r#"{{"type":"welcome","version":{version},"broker":"test","pid":1,"netns":1}}"#);
            client.send(welcome.as_bytes(), &[]).unwrap();
            if let Some(request) = hear(&client) {
                said.push(request);
                let passed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
                client.send(granted.as_bytes(), &passed).unwrap();
            }
            said
        });
        FakeBroker { path, said }
    }

    fn said(self) -> Vec<String> {
        let said = self.said.join().unwrap();
        std::fs::remove_file(&self.path).unwrap();
        said
    }
}

/// The next message; none when the client has closed the connection.
fn hear(client: &Connection) -> Option<String> {
    let mut buffer = vec![0; 65_536];
    loop {
        wait_one(client.as_fd(), Interest::Read, None).unwrap();
        match client.receive(&mut buffer).unwrap() {
            Received::Nothing => {}
            Received::End => return None,
            Received::Message { length, .. } => {
                return Some(String::from_utf8(buffer[..length].to_vec()).unwrap());
            }
        }
    }
}

/// Asks one that speaks `version` and answers so for a lease; gives why it got none, and what it said.
pub fn refused(
    name: &str,
    version: u32,
    request: &Request,
    granted: String,
    descriptors: Vec<OwnedFd>,
) -> (Error, Vec<String>) {
    let broker = FakeBroker::start(name, version, granted, descriptors);
    let lease = Broker::connect_at(&broker.path).and_then(|it| it.lease(request));
    (lease.err().expect("it is no lease"), broker.said())
}
