//! A card in one namespace, its peer in another, and a third behind a second card: gone when dropped.
#![allow(dead_code, unused_imports, reason = "each test file uses its part")]

#[path = "../place/mod.rs"]
mod place;

use std::net::UdpSocket;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bifurcate_linux::netns::Netns;
pub use place::{PATIENCE, until};

/// The card's MAC address.
pub const CARD_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// The peer's.
pub const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// `card` (10.77.0.1, fd77::1) with two queues in `host`, `peer` (10.77.0.2, fd77::2) in `far`.
pub struct Lab {
    host_name: String,
    far_name: String,
    /// The card's namespace.
    pub host: Arc<Netns>,
    /// The peer's.
    pub far: Netns,
    /// The card's index.
    pub card: u32,
}

impl Lab {
    /// Builds it; `None`, with the reason printed, where this process may not.
    pub fn new(test: &str) -> Option<Lab> {
        if !std::fs::read_to_string("/proc/self/status").is_ok_and(|status| status.contains("\nUid:\t0\t0\t"))
        {
            println!("SKIPPED {test}: namespaces need root");
            return None;
        }
        let stem = format!(
            "bfback{}n{}",
            std::process::id(),
            NUMBER.fetch_add(1, Ordering::Relaxed)
        );
        let (host, far) = (format!("{stem}h"), format!("{stem}f"));
        // Dropped also when a step below fails.
        let names = Names(vec![host.clone(), far.clone()]);
        ip(&format!("netns add {host}"));
        ip(&format!("netns add {far}"));
        ip(&format!(
            "-n {host} link add card address 02:00:00:00:00:01 numrxqueues 2 numtxqueues 2 type veth \
             peer name peer address 02:00:00:00:00:02 numrxqueues 2 numtxqueues 2 netns {far}"
        ));
        for (namespace, device, last) in [(&host, "card", 1), (&far, "peer", 2)] {
            ip(&format!("-n {namespace} link set lo up"));
            ip(&format!("-n {namespace} addr add 10.77.0.{last}/24 dev {device}"));
            ip(&format!(
                "-n {namespace} addr add fd77::{last}/64 dev {device} nodad"
            ));
            ip(&format!("-n {namespace} link set {device} up"));
        }
        let open = |name: &str| Netns::open(Some(name)).expect("the namespace was just made");
        let lab = Lab {
            host: Arc::new(open(&host)),
            far: open(&far),
            card: index(&host, "card"),
            host_name: host,
            far_name: far,
        };
        std::mem::forget(names);
        carries(&lab.host_name, "card");
        bound_windows(&lab.host);
        bound_windows(&lab.far);
        Some(lab)
    }

    /// Runs `ip -n HOST ...`.
    pub fn host_ip(&self, args: &str) -> String {
        ip(&format!("-n {} {args}", self.host_name))
    }

    /// Runs `ip -n FAR ...`.
    pub fn far_ip(&self, args: &str) -> String {
        ip(&format!("-n {} {args}", self.far_name))
    }

    /// Runs a command in the host's namespace; its output.
    pub fn host_run(&self, words: &str) -> String {
        let output = run(&format!("ip netns exec {} {words}", self.host_name));
        assert!(
            output.status.success(),
            "{words}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// A third namespace behind a second card of the host: `port` here, an interface with `address` and `mac`
    /// there. It goes with the lab.
    pub fn behind(&self, address: &str, mac: &str) -> Netns {
        let name = format!("{}b", self.host_name);
        ip(&format!("netns add {name}"));
        self.host_ip(&format!(
            "link add port type veth peer name behind address {mac} netns {name}"
        ));
        self.host_ip("link set port up");
        ip(&format!("-n {name} addr add {address} dev behind"));
        ip(&format!("-n {name} link set behind up"));
        carries(&self.host_name, "port");
        // rp_filter wants a way back to the sender of what it lets in.
        ip(&format!("-n {name} route add default dev behind"));
        let netns = Netns::open(Some(&name)).expect("the namespace was just made");
        bound_windows(&netns);
        netns
    }

    /// The host namespace's name.
    pub fn host_name(&self) -> &str {
        &self.host_name
    }

    /// A command in the peer's namespace.
    pub fn far_command(&self, words: &str) -> Output {
        run(&format!("ip netns exec {} {words}", self.far_name))
    }

    /// The index of one of the host's interfaces.
    pub fn index(&self, device: &str) -> u32 {
        index(&self.host_name, device)
    }

    /// A UDP socket in the host's namespace; a receive gives up after [`PATIENCE`].
    pub fn udp(&self, address: &str) -> UdpSocket {
        udp(&self.host, address)
    }

    /// UDP datagrams of the host that were refused for their checksum, both IP versions.
    pub fn checksum_errors(&self) -> u64 {
        self.counter("Udp", "InCsumErrors") + self.counter6("Udp6InCsumErrors")
    }

    fn counter(&self, group: &str, name: &str) -> u64 {
        let text = self.host_file("/proc/thread-self/net/snmp");
        let mut lines = text.lines().filter(|line| line.starts_with(&format!("{group}:")));
        let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
        let at = names
            .split(' ')
            .position(|word| word == name)
            .expect("the counter is known");
        values
            .split(' ')
            .nth(at)
            .and_then(|value| value.parse().ok())
            .expect("a number")
    }

    fn counter6(&self, name: &str) -> u64 {
        let text = self.host_file("/proc/thread-self/net/snmp6");
        let line = text
            .lines()
            .find(|line| line.split_whitespace().next() == Some(name))
            .expect("the counter is known");
        line.split_whitespace()
            .nth(1)
            .and_then(|value| value.parse().ok())
            .expect("a number")
    }

    /// A file as a thread in the host's namespace sees it.
    pub fn host_file(&self, path: &str) -> String {
        self.host
            .within(|| Ok(std::fs::read_to_string(path).expect("a file of /proc")))
            .expect("setns")
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let behind = format!("{}b", self.host_name);
        drop(Names(vec![behind, self.host_name.clone(), self.far_name.clone()]));
    }
}

/// Namespaces that go when this does.
pub struct Names(pub Vec<String>);

impl Drop for Names {
    fn drop(&mut self) {
        for name in &self.0 {
            let _ = Command::new("ip").args(["netns", "del", name]).output();
        }
    }
}

/// Lets less be under way to a TCP receiver in `netns` than a ring of 1,024 frames holds: however long a loop is kept
/// from running, none is lost for want of room.
fn bound_windows(netns: &Netns) {
    let bytes = || {
        Ok(std::fs::write(
            "/proc/sys/net/ipv4/tcp_rmem",
            "4096 131072 524288",
        ))
    };
    netns.within(bytes).expect("setns").expect("a limit");
}

/// Waits until the kernel has noticed the carrier of a device that was up before its peer. It does so in a thread of its
/// own, and until then drops what it is to send there, and a bridge takes nothing from there.
fn carries(namespace: &str, device: &str) {
    until("the carrier", || {
        ip(&format!("-n {namespace} -o link show dev {device}")).contains(" state UP ")
    });
}

/// A UDP socket in `netns`; a receive gives up after [`PATIENCE`].
pub fn udp(netns: &Netns, address: &str) -> UdpSocket {
    let socket = netns
        .within(|| Ok(UdpSocket::bind(address).expect("bind")))
        .expect("setns");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    socket
}

/// How many datagrams come on `socket`, of which `expected` are waited for; and one more, to see too many.
pub fn count(socket: &UdpSocket, expected: usize) -> usize {
    let within = |time| socket.set_read_timeout(Some(time)).expect("a timeout");
    let mut buffer = vec![0; 65_536];
    let mut seen = 0;
    within(PATIENCE);
    while seen < expected && socket.recv(&mut buffer).is_ok() {
        seen += 1;
    }
    within(Duration::from_millis(50));
    seen += usize::from(socket.recv(&mut buffer).is_ok());
    within(PATIENCE);
    seen
}

/// Runs `ip` with words separated by spaces; its output.
pub fn ip(args: &str) -> String {
    let output = run(&format!("ip {args}"));
    assert!(
        output.status.success(),
        "ip {args}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a command given as words separated by spaces.
pub fn run(words: &str) -> Output {
    let mut words = words.split_whitespace();
    Command::new(words.next().expect("a command"))
        .args(words)
        .output()
        .expect("the command is installed")
}

fn index(namespace: &str, device: &str) -> u32 {
    let line = ip(&format!("-n {namespace} -o link show dev {device}"));
    line.split(':')
        .next()
        .and_then(|number| number.trim().parse().ok())
        .expect("an index")
}
