//! DPDK's testpmd as the other end of a socket: started, driven over its prompt, ended by its id.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A running testpmd.
pub struct Testpmd {
    child: Child,
    /// What it printed: on stdout, and on stderr, which it writes into the middle of words of the other.
    output: [Arc<Mutex<String>>; 2],
}

/// A socket's path of its own, removed at the end.
pub struct Socket(pub PathBuf);

impl Socket {
    pub fn new(name: &str) -> Socket {
        let path = std::env::temp_dir().join(format!("bf-{}-{name}.sock", std::process::id()));
        let _ = std::fs::remove_file(&path);
        Socket(path)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Whether testpmd is there; otherwise says that the test is skipped.
pub fn is_here(test: &str) -> bool {
    let here = Command::new("sh")
        .args(["-c", "command -v dpdk-testpmd"])
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !here {
        println!("SKIPPED {test}: dpdk-testpmd is not installed (Debian: dpdk-dev)");
    }
    here
}

impl Testpmd {
    /// Starts one with a virtual device and `queues` queues, and lets it swap MACs. Without huge pages: its memory is
    /// a memfd then, which is as good to share.
    pub fn start(device: &str, queues: u32) -> Testpmd {
        let mut this = Testpmd::at_its_prompt(device, queues);
        this.type_line("start");
        this
    }

    /// As `start`, but it forwards nothing until it is told to `start`: what reaches it waits in the ring.
    pub fn at_its_prompt(device: &str, queues: u32) -> Testpmd {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mut child = Command::new("stdbuf")
            .args(["-oL", "dpdk-testpmd", "--no-huge", "-m", "128", "--no-pci"])
            .arg(format!("--file-prefix=bft{}x{number}", std::process::id()))
            .args(["--lcores", "0@0,1@1", "--vdev", device])
            // Without the last, `start` throws away what waits in the rings.
            .args([
                "--",
                "-i",
                "--forward-mode=macswap",
                "--total-num-mbufs=2048",
                "--no-flush-rx",
            ])
            .args([format!("--rxq={queues}"), format!("--txq={queues}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("testpmd starts");
        let output: [Arc<Mutex<String>>; 2] = Default::default();
        let streams: [Box<dyn Read + Send>; 2] = [
            Box::new(child.stdout.take().unwrap()),
            Box::new(child.stderr.take().unwrap()),
        ];
        for (mut stream, output) in streams.into_iter().zip(&output) {
            let output = Arc::clone(output);
            std::thread::spawn(move || {
                let mut bytes = [0; 4096];
                while let Ok(count @ 1..) = stream.read(&mut bytes) {
                    output
                        .lock()
                        .unwrap()
                        .push_str(&String::from_utf8_lossy(&bytes[..count]));
                }
            });
        }
        let mut this = Testpmd { child, output };
        this.saw("testpmd> ");
        this
    }

    /// Waits until it has printed `text`.
    pub fn saw(&mut self, text: &str) {
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            let [output, errors] = [0, 1].map(|at| self.output[at].lock().unwrap().clone());
            if output.contains(text) {
                return;
            }
            let gone = self.child.try_wait().unwrap().is_some();
            assert!(
                !gone && Instant::now() < deadline,
                "testpmd did not print '{text}':\n{output}\n{errors}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn type_line(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().unwrap();
        writeln!(stdin, "{line}").expect("testpmd reads its prompt");
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Testpmd {
    fn drop(&mut self) {
        self.kill();
    }
}
