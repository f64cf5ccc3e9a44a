//! A card whose every frame goes to user space and is passed back: everything on it works as if nothing were there.

#[path = "netns_pass/lab.rs"]
mod lab;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bifurcate_datapath::device::af_xdp::{self, Config, Mode, ZeroCopy};
use bifurcate_datapath::device::{Counters, QueueCounters};
use bifurcate_datapath::engine::pass::TapDevice;
use bifurcate_datapath::engine::{Handler, Lane, Options, Run, start};
use bifurcate_datapath::frame::{Batch, Pages, Umem, UmemConfig, Verdict};
use bifurcate_linux::bpf::{
    Attachment, Map, MapReference, MapType, Program, ProgramSource, ProgramType, XdpMode,
};

use lab::{Lab, count, udp};

/// Passes every frame.
struct PassAll;

impl Handler for PassAll {
    fn handle(&mut self, batch: &mut Batch) {
        batch.each(|_| Verdict::Pass);
    }
}

/// The card's two queues in user space, each passed back by its own thread.
struct Through {
    run: Option<Run>,
    loops: Vec<Arc<Counters>>,
    queues: Vec<QueueCounters>,
    _attachment: Attachment,
}

impl Through {
    fn new(lab: &Lab, mode: XdpMode) -> Through {
        let umem = Umem::map(&UmemConfig {
            frames: 4096,
            frame_size: 2048,
            jumbo_frames: 256,
            pages: Pages::Ordinary,
        })
        .expect("a pool");
        let config = Config {
            queues: vec![0, 1],
            ring_size: 1024,
            zero_copy: ZeroCopy::Off,
            mode: if mode == XdpMode::Generic {
                Mode::Generic
            } else {
                Mode::Driver
            },
            multi_buffer: true,
            ..Config::new("card")
        };
        let opened = lab
            .host
            .within(|| af_xdp::open(&config, &umem, None))
            .expect("AF_XDP on veth");
        let map = Map::create(MapType::Xskmap, "bf_all", 4, 4, 2).expect("a map");
        for socket in &opened.sockets {
            map.update(
                &socket.queue().to_ne_bytes(),
                &socket.as_fd().as_raw_fd().to_ne_bytes(),
            )
            .expect("in the map");
        }
        let (_, ways) = TapDevice::open(&lab.host, lab.card, 2).expect("a TAP");
        let queues = opened.port.counters();
        let lanes: Vec<_> = opened
            .port
            .queues
            .into_iter()
            .zip(ways)
            .map(|(pair, way)| {
                Lane::new(pair.rx, &umem, 64, Box::new(PassAll), vec![]).with_pass(Box::new(way))
            })
            .collect();
        let loops = lanes.iter().map(|lane| Arc::clone(lane.counters())).collect();
        let run = Some(start(lanes, &Options::default()).expect("threads"));
        let program = Program::load(&ProgramSource {
            kind: ProgramType::Xdp,
            name: "bf_all",
            instructions: &everything(),
            maps: &[MapReference {
                instruction: 1,
                map: map.as_fd(),
            }],
            fragments: true,
        })
        .expect("the verifier takes it");
        let attachment = lab
            .host
            .within(|| Attachment::xdp(&program, lab.card, mode))
            .expect("XDP on veth");
        Through {
            run,
            loops,
            queues,
            _attachment: attachment,
        }
    }

    /// Frames received in user space, passed, and lost on the way.
    fn totals(&self) -> (u64, u64, u64) {
        let (mut received, mut lost, mut passed) = (0, 0, 0);
        for queue in &self.queues {
            let rx = queue.rx.totals();
            received += rx.received;
            lost += rx.ring_full + rx.no_frames + rx.too_long + rx.invalid_descriptor;
        }
        for counters in &self.loops {
            let totals = counters.totals();
            passed += totals.passed;
            lost += totals.dropped;
        }
        (received, passed, lost)
    }
}

impl Drop for Through {
    fn drop(&mut self) {
        if let Some(run) = self.run.take() {
            run.stop();
            let _ = run.join();
        }
    }
}

/// return bpf_redirect_map(map, ctx->rx_queue_index, XDP_PASS)
fn everything() -> Vec<u8> {
    let instruction = |code: u8, registers: u8, offset: i16, immediate: i32| {
        let mut bytes = [code, registers, 0, 0, 0, 0, 0, 0];
        bytes[2..4].copy_from_slice(&offset.to_ne_bytes());
        bytes[4..8].copy_from_slice(&immediate.to_ne_bytes());
        bytes
    };
    [
        instruction(0x61, 0x12, 16, 0), // r2 = ctx->rx_queue_index
        instruction(0x18, 0x01, 0, 0),  // r1 = the map
        instruction(0x00, 0x00, 0, 0),  //
        instruction(0xb7, 0x03, 0, 2),  // r3 = XDP_PASS
        instruction(0x85, 0x00, 0, 51), // bpf_redirect_map
        instruction(0x95, 0x00, 0, 0),  // exit
    ]
    .concat()
}

/// Sends `bytes` bytes by TCP from the peer to `address` of the card, and has them all sent back.
fn echo(lab: &Lab, address: &str, bytes: usize) {
    let address: SocketAddr = address.parse().expect("an address");
    let listener = lab
        .host
        .within(|| Ok(TcpListener::bind(address).expect("bind")))
        .expect("setns");
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .expect("a timeout");
        let mut all = vec![0; bytes];
        stream.read_exact(&mut all).expect("all of it");
        stream.write_all(&all).expect("sent back");
    });
    let stream = lab
        .far
        .within(|| Ok(TcpStream::connect_timeout(&address, Duration::from_secs(10)).expect("connect")));
    let mut stream = stream.expect("setns");
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("a timeout");
    let sent: Vec<u8> = (0..bytes).map(|i| (i * 7 + i / 251) as u8).collect();
    stream.write_all(&sent).expect("sent");
    let mut back = vec![0; bytes];
    stream.read_exact(&mut back).expect("all of it");
    assert!(back == sent, "what came back is something else");
    server.join().expect("the server ended well");
}

fn everything_works(lab: &Lab, through: &Through) {
    // So that ARP and neighbour discovery go through user space too.
    lab.far_ip("neigh flush all");
    lab.host_ip("neigh flush all");
    // Senders leave the checksum to the card; no retransmission could help if it were not completed.
    echo(lab, "10.77.0.1:8080", 4_000_000);
    echo(lab, "[fd77::1]:8080", 1_000_000);
    let (server, client) = (lab.udp("10.77.0.1:9000"), udp(&lab.far, "10.77.0.2:0"));
    for _ in 0..100 {
        client.send_to(b"hello", "10.77.0.1:9000").expect("sent");
    }
    assert_eq!(count(&server, 100), 100);
    if lab.has_vlan_interfaces() {
        tagged_traffic_works(lab);
    } else {
        println!("this kernel has no VLAN interfaces: tagged traffic was not tried");
    }
    assert_eq!(lab.checksum_errors(), 0);
    let (received, ..) = through.totals();
    assert!(received >= 1000, "only {received} frames went through user space");
}

fn tagged_traffic_works(lab: &Lab) {
    lab.host_ip("link add link card name card.9 type vlan id 9");
    lab.host_ip("addr add 10.79.0.1/24 dev card.9");
    lab.host_ip("link set card.9 up");
    lab.far_ip("link add link peer name peer.9 type vlan id 9");
    lab.far_ip("addr add 10.79.0.2/24 dev peer.9");
    lab.far_ip("link set peer.9 up");
    echo(lab, "10.79.0.1:8080", 500_000);
}

/// Every frame that user space received was passed, once: a loop would show as more received than sent.
fn counts_agree(lab: &Lab, through: &Through) {
    lab.far_ip("link set peer down");
    // What is in the rings still is on its way.
    let end = Instant::now() + Duration::from_secs(5);
    let (received, passed, lost) = loop {
        std::thread::sleep(Duration::from_millis(20));
        let (received, passed, lost) = through.totals();
        if received == passed + lost || Instant::now() > end {
            break (received, passed, lost);
        }
    };
    let shown = lab.far_ip("-s -o link show dev peer");
    assert_eq!(
        (received, lost),
        (passed, 0),
        "received {received}, passed {passed}; {shown}"
    );
    let words: Vec<&str> = shown.split_whitespace().collect();
    // "TX: bytes packets errors ..." then the numbers.
    let at = words.iter().position(|word| *word == "TX:").expect("statistics");
    let sent: u64 = words[at + 1..]
        .iter()
        .filter_map(|word| word.parse().ok())
        .nth(1)
        .expect("packets");
    assert!(
        received <= sent,
        "{received} frames in user space, but the peer sent {sent}"
    );
}

#[test]
fn all_traffic_works_through_native_xdp() {
    let Some(lab) = Lab::new("all_traffic_works_through_native_xdp") else {
        return;
    };
    let through = Through::new(&lab, XdpMode::Driver);
    everything_works(&lab, &through);
    counts_agree(&lab, &through);
}

#[test]
fn all_traffic_works_through_generic_xdp() {
    let Some(lab) = Lab::new("all_traffic_works_through_generic_xdp") else {
        return;
    };
    // In generic mode veth hands over whole segments of TSO, longer than any frame of the pool.
    let output = lab.far_command("ethtool -K peer tso off gso off");
    assert!(output.status.success(), "{output:?}");
    let through = Through::new(&lab, XdpMode::Generic);
    everything_works(&lab, &through);
    counts_agree(&lab, &through);
}

#[test]
fn frames_of_9000_bytes_pass_whole() {
    for mode in [XdpMode::Driver, XdpMode::Generic] {
        let Some(lab) = Lab::new("frames_of_9000_bytes_pass_whole") else {
            return;
        };
        lab.host_ip("link set card mtu 9000");
        lab.far_ip("link set peer mtu 9000");
        let output = lab.far_command("ethtool -K peer tso off gso off");
        assert!(output.status.success(), "{output:?}");
        let through = Through::new(&lab, mode);
        let (server, client) = (lab.udp("10.77.0.1:9000"), udp(&lab.far, "10.77.0.2:0"));
        for round in 0..20u8 {
            // One by one: the receive buffer of a socket holds a dozen.
            client.send_to(&[round; 8972], "10.77.0.1:9000").expect("sent");
            let mut got = [0; 9000];
            assert_eq!(server.recv(&mut got).expect("it arrives"), 8972, "{mode:?}");
            assert!(got[..8972].iter().all(|byte| *byte == round));
        }
        echo(&lab, "10.77.0.1:8080", 2_000_000);
        assert_eq!(lab.checksum_errors(), 0);
        counts_agree(&lab, &through);
    }
}
