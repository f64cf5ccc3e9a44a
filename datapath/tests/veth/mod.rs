//! Two namespaces joined by a veth pair, gone when the test ends; and programs that steer frames to sockets.
#![allow(dead_code, unused_imports, reason = "each test file uses its part")]

#[path = "../place/mod.rs"]
mod place;

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use bifurcate_linux::bpf::{
    Attachment, Map, MapReference, MapType, Program, ProgramSource, ProgramType, XdpMode,
};
use bifurcate_linux::netns::Netns;
pub use place::{PATIENCE, until};

/// UDP frames to this port are for user space.
pub const PORT: u16 = 4660;

/// The near end's address, where the device under test is.
pub const NEAR: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
/// The far end's.
pub const FAR: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);

/// Namespaces `near` and `far`, with `card` in the near one and `wire` in the far one.
pub struct Lab {
    names: [String; 2],
    pub near: Netns,
    pub far: Netns,
}

impl Lab {
    /// Makes one, each end with `queues` queues. `None`, with a SKIPPED line, when this process may not.
    pub fn new(test: &str, queues: u32) -> Option<Lab> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if rustix_uid() != 0 {
            println!("SKIPPED {test}: needs root for network namespaces");
            return None;
        }
        let id = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let names = [format!("bfnear{id}"), format!("bffar{id}")];
        let guard = Names(names.clone());
        for name in &names {
            run(&format!("ip netns add {name}"));
        }
        let [near, far] = &names;
        let queue_list = format!("numrxqueues {queues} numtxqueues {queues}");
        run(&format!(
            "ip -n {near} link add card address 02:00:00:00:00:01 {queue_list} type veth \
             peer name wire address 02:00:00:00:00:02 netns {far} {queue_list}"
        ));
        for (name, device, address, peer, mac) in [
            (near, "card", NEAR, FAR, "02:00:00:00:00:02"),
            (far, "wire", FAR, NEAR, "02:00:00:00:00:01"),
        ] {
            // No router solicitations or multicast reports among the frames that are counted.
            run(&format!(
                "ip netns exec {name} sysctl -q -w net.ipv6.conf.all.disable_ipv6=1"
            ));
            run(&format!("ip -n {name} addr add {address}/24 dev {device}"));
            run(&format!("ip -n {name} link set lo up"));
            run(&format!("ip -n {name} link set {device} up"));
            run(&format!(
                "ip -n {name} neigh replace {peer} lladdr {mac} dev {device} nud permanent"
            ));
        }
        // So that what arrives has its checksum, and an answer made of it too.
        run(&format!("ip netns exec {far} ethtool -K wire tx off"));
        let lab = Lab {
            near: Netns::open(Some(near)).unwrap(),
            far: Netns::open(Some(far)).unwrap(),
            names,
        };
        std::mem::forget(guard);
        // The other end had a carrier when it was set up.
        carries(&lab.names[0], "card");
        Some(lab)
    }

    /// Waits until the kernel has noticed at both ends that the pair has a carrier again.
    pub fn carries(&self) {
        carries(&self.names[0], "card");
        carries(&self.names[1], "wire");
    }

    /// Runs a command in the near namespace.
    pub fn near_run(&self, command: &str) {
        run(&format!("ip netns exec {} {command}", self.names[0]));
    }

    /// Runs a command in the far namespace.
    pub fn far_run(&self, command: &str) {
        run(&format!("ip netns exec {} {command}", self.names[1]));
    }

    /// Sets the MTU of both ends.
    pub fn mtu(&self, mtu: u32) {
        self.near_run(&format!("ip link set card mtu {mtu}"));
        self.far_run(&format!("ip link set wire mtu {mtu}"));
    }

    /// A second pair, `card2` in the near namespace and `wire2` in the far one.
    pub fn second_pair(&self, queues: u32) {
        let queue_list = format!("numrxqueues {queues} numtxqueues {queues}");
        let far = &self.names[1];
        self.near_run(&format!(
            "ip link add card2 address 02:00:00:00:00:03 {queue_list} type veth \
             peer name wire2 address 02:00:00:00:00:04 netns {far} {queue_list}"
        ));
        self.near_run("ip link set card2 up");
        self.far_run("ip link set wire2 up");
    }

    /// A UDP socket in the far namespace, connected to the near address and `port`.
    pub fn client(&self, port: u16) -> UdpSocket {
        self.client_from(0, port)
    }

    /// The same, from a port of the caller's choice.
    pub fn client_from(&self, from: u16, port: u16) -> UdpSocket {
        self.far
            .within(|| {
                let socket = UdpSocket::bind(SocketAddr::from((FAR, from))).unwrap();
                socket.connect(SocketAddr::from((NEAR, port))).unwrap();
                socket.set_read_timeout(Some(PATIENCE)).unwrap();
                Ok(socket)
            })
            .unwrap()
    }

    /// A file in the far namespace: each write to it leaves `wire` as a frame.
    pub fn raw_sender(&self) -> std::fs::File {
        self.far
            .within(|| {
                let socket = bifurcate_linux::packet::PacketSocket::open()?;
                socket.bind(bifurcate_linux::interface::index("wire")?, false)?;
                Ok(std::fs::File::from(socket.as_fd().try_clone_to_owned().unwrap()))
            })
            .unwrap()
    }

    /// A file in the far namespace: each read of it gives a frame that came over `wire` and that its XDP program let
    /// through, or fails at once where there is none.
    pub fn raw_receiver(&self) -> std::fs::File {
        self.far
            .within(|| {
                let socket = bifurcate_linux::packet::PacketSocket::open()?;
                socket.ignore_outgoing()?;
                socket.bind(bifurcate_linux::interface::index("wire")?, true)?;
                let receiver = std::net::UdpSocket::from(socket.as_fd().try_clone_to_owned().unwrap());
                receiver.set_nonblocking(true).unwrap();
                Ok(std::fs::File::from(OwnedFd::from(receiver)))
            })
            .unwrap()
    }

    /// Lets nothing in at `device` of the far namespace but UDP over IPv4 from [`PORT`].
    pub fn only_from_port(&self, device: &str) -> Attachment {
        self.far
            .within(|| {
                let program = Program::load(&ProgramSource {
                    kind: ProgramType::Xdp,
                    name: "bf_test",
                    instructions: &pass_from_port(),
                    maps: &[],
                    fragments: true,
                })?;
                Attachment::xdp(
                    &program,
                    bifurcate_linux::interface::index(device)?,
                    XdpMode::Driver,
                )
            })
            .unwrap()
    }

    /// A UDP socket in the near namespace, in the kernel's own stack.
    pub fn server(&self, port: u16) -> UdpSocket {
        self.near
            .within(|| {
                let socket = UdpSocket::bind(SocketAddr::from((NEAR, port))).unwrap();
                socket.set_read_timeout(Some(PATIENCE)).unwrap();
                Ok(socket)
            })
            .unwrap()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        drop(Names(self.names.clone()));
    }
}

/// Removes namespaces, even when the test fails half-way through making them.
struct Names([String; 2]);

impl Drop for Names {
    fn drop(&mut self) {
        for name in &self.0 {
            let _ = Command::new("ip").args(["netns", "del", name]).output();
        }
    }
}

fn rustix_uid() -> u32 {
    std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap())
}

/// Runs a command, and fails with what it printed.
pub fn run(command: &str) {
    let words: Vec<&str> = command.split_whitespace().collect();
    let output = Command::new(words[0])
        .args(&words[1..])
        .output()
        .unwrap_or_else(|e| panic!("{command}: {e}"));
    assert!(
        output.status.success(),
        "{command}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Waits until the kernel has noticed the carrier of a device. It does so in a thread of its own, and until then drops
/// what it is to send there.
fn carries(namespace: &str, device: &str) {
    let words = format!("-n {namespace} -o link show dev {device}");
    until("the carrier", || {
        let shown = Command::new("ip").args(words.split(' ')).output().unwrap();
        String::from_utf8_lossy(&shown.stdout).contains(" state UP ")
    });
}

/// One eBPF instruction (struct bpf_insn, linux/bpf.h).
fn instruction(code: u8, dst: u8, src: u8, offset: i16, immediate: i32) -> [u8; 8] {
    let mut bytes = [0u8; 8];
    bytes[0] = code;
    bytes[1] = dst | src << 4;
    bytes[2..4].copy_from_slice(&offset.to_le_bytes());
    bytes[4..8].copy_from_slice(&immediate.to_le_bytes());
    bytes
}

/// Frames whose UDP destination port is [`PORT`] go to the socket of their queue, others to the kernel.
pub struct Steering {
    pub map: Map,
    _attachment: Attachment,
    _program: Program,
}

impl Steering {
    /// Attaches to `device` of the near namespace.
    pub fn new(lab: &Lab, device: &str, mode: XdpMode) -> Steering {
        let map = Map::create(MapType::Xskmap, "xsks", 4, 4, 16).unwrap();
        let program = lab
            .near
            .within(|| {
                Program::load(&ProgramSource {
                    kind: ProgramType::Xdp,
                    name: "bf_test",
                    instructions: &redirect_port(),
                    maps: &[MapReference {
                        instruction: 13,
                        map: map.as_fd(),
                    }],
                    fragments: mode == XdpMode::Driver,
                })
            })
            .unwrap();
        let attachment = lab
            .near
            .within(|| {
                let index = bifurcate_linux::interface::index(device)?;
                Attachment::xdp(&program, index, mode)
            })
            .unwrap();
        Steering {
            map,
            _attachment: attachment,
            _program: program,
        }
    }

    /// Puts the socket of `queue` into the map.
    pub fn insert(&self, queue: u32, socket: BorrowedFd<'_>) {
        self.map
            .update(&queue.to_ne_bytes(), &socket.as_raw_fd().to_ne_bytes())
            .unwrap();
    }
}

/// if the two bytes at 36 (UDP destination port behind an IPv4 header without options) are PORT:
/// return bpf_redirect_map(xsks, ctx->rx_queue_index, XDP_PASS); else XDP_PASS.
fn redirect_port() -> Vec<u8> {
    let wanted = i32::from(PORT.to_be());
    [
        instruction(0xbf, 6, 1, 0, 0),      // 0: r6 = ctx
        instruction(0xb7, 2, 0, 0, 36),     // 1: r2 = 36
        instruction(0xbf, 3, 10, 0, 0),     // 2: r3 = r10
        instruction(0x07, 3, 0, 0, -8),     // 3: r3 -= 8
        instruction(0xb7, 4, 0, 0, 2),      // 4: r4 = 2
        instruction(0x85, 0, 0, 0, 189),    // 5: call bpf_xdp_load_bytes
        instruction(0x55, 0, 0, 10, 0),     // 6: if r0 != 0 goto 17
        instruction(0x69, 1, 10, -8, 0),    // 7: r1 = *(u16 *)(r10 - 8)
        instruction(0x55, 1, 0, 8, wanted), // 8: if r1 != PORT goto 17
        instruction(0x61, 2, 6, 16, 0),     // 9: r2 = ctx->rx_queue_index
        instruction(0xb7, 3, 0, 0, 2),      // 10: r3 = XDP_PASS
        instruction(0xb7, 0, 0, 0, 0),      // 11: r0 = 0
        instruction(0xb7, 0, 0, 0, 0),      // 12: r0 = 0
        instruction(0x18, 1, 0, 0, 0),      // 13: r1 = the map
        instruction(0x00, 0, 0, 0, 0),      // 14
        instruction(0x85, 0, 0, 0, 51),     // 15: call bpf_redirect_map
        instruction(0x95, 0, 0, 0, 0),      // 16: exit
        instruction(0xb7, 0, 0, 0, 2),      // 17: r0 = XDP_PASS
        instruction(0x95, 0, 0, 0, 0),      // 18: exit
    ]
    .concat()
}

/// if the two bytes at 34 (UDP source port behind an IPv4 header without options) are PORT: XDP_PASS; else XDP_DROP.
fn pass_from_port() -> Vec<u8> {
    let wanted = i32::from(PORT.to_be());
    [
        instruction(0xb7, 2, 0, 0, 34),     // 0: r2 = 34
        instruction(0xbf, 3, 10, 0, 0),     // 1: r3 = r10
        instruction(0x07, 3, 0, 0, -8),     // 2: r3 -= 8
        instruction(0xb7, 4, 0, 0, 2),      // 3: r4 = 2
        instruction(0x85, 0, 0, 0, 189),    // 4: call bpf_xdp_load_bytes
        instruction(0x55, 0, 0, 4, 0),      // 5: if r0 != 0 goto 10
        instruction(0x69, 1, 10, -8, 0),    // 6: r1 = *(u16 *)(r10 - 8)
        instruction(0x55, 1, 0, 2, wanted), // 7: if r1 != PORT goto 10
        instruction(0xb7, 0, 0, 0, 2),      // 8: r0 = XDP_PASS
        instruction(0x95, 0, 0, 0, 0),      // 9: exit
        instruction(0xb7, 0, 0, 0, 1),      // 10: r0 = XDP_DROP
        instruction(0x95, 0, 0, 0, 0),      // 11: exit
    ]
    .concat()
}

/// Turns a UDP over IPv4 frame around: MAC addresses, IP addresses, ports. Its checksums stay right.
pub fn turn_around(frame: &mut [u8]) {
    for at in 0..6 {
        frame.swap(at, at + 6);
    }
    for at in 26..30 {
        frame.swap(at, at + 4);
    }
    for at in 34..36 {
        frame.swap(at, at + 2);
    }
}

/// A UDP frame from the far end to [`PORT`] of the near one, with a VLAN tag in its bytes if `tag` is given;
/// without a UDP checksum, which IPv4 allows.
pub fn udp_frame(data: &[u8], tag: Option<u16>) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    if let Some(tag) = tag {
        frame.extend([0x81, 0x00]);
        frame.extend(tag.to_be_bytes());
    }
    let udp_len = 8 + data.len() as u16;
    let mut ip = vec![0x45, 0];
    ip.extend((20 + udp_len).to_be_bytes());
    ip.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    ip.extend(FAR.octets());
    ip.extend(NEAR.octets());
    let sum = !bifurcate_datapath::frame::checksum::fold(bifurcate_datapath::frame::checksum::sum(&ip));
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    frame.extend([0x08, 0x00]);
    frame.extend(ip);
    frame.extend(9999u16.to_be_bytes());
    frame.extend(PORT.to_be_bytes());
    frame.extend(udp_len.to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(data);
    frame
}

/// The payload of a UDP over IPv4 frame.
pub fn payload(frame: &[u8]) -> &[u8] {
    &frame[42..]
}
