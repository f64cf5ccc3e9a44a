//! A card whose every frame goes to user space, by AF_XDP or AF_PACKET, and is passed back.
#![allow(dead_code, reason = "each test file uses its part")]

use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bifurcate_datapath::device::af_packet;
use bifurcate_datapath::device::af_xdp::{self, Config, Mode, ZeroCopy};
use bifurcate_datapath::device::{Counters, Port, QueueCounters};
use bifurcate_datapath::engine::pass::{PASSED_TC_INDEX, TapDevice};
use bifurcate_datapath::engine::{Handler, Lane, Options, Run, start};
use bifurcate_datapath::frame::{Batch, Pages, Umem, UmemConfig, Verdict};
use bifurcate_linux::bpf::{
    Attachment, Map, MapReference, MapType, Program, ProgramSource, ProgramType, TcDirection, XdpMode,
};

use super::lab::Lab;

/// Counts the frames that are longer than any packet, those that stand for several, and leaves the rest to another.
pub struct CountLong<H> {
    pub inner: H,
    pub seen: Arc<AtomicU64>,
}

impl<H: Handler> Handler for CountLong<H> {
    fn handle(&mut self, batch: &mut Batch) {
        let long = (0..batch.len())
            .filter(|at| batch.bytes(*at).len() > 1514)
            .count();
        self.seen.fetch_add(long as u64, Ordering::Relaxed);
        self.inner.handle(batch);
    }
}

/// Passes every frame.
struct PassAll;

impl Handler for PassAll {
    fn handle(&mut self, batch: &mut Batch) {
        batch.each(|_| Verdict::Pass);
    }
}

/// The card's two queues in user space, each passed back by its own thread.
pub struct Through {
    run: Option<Run>,
    loops: Vec<Arc<Counters>>,
    queues: Vec<QueueCounters>,
    long: Arc<AtomicU64>,
    attachment: Option<Attachment>,
}

impl Through {
    /// By AF_XDP sockets.
    pub fn xdp(lab: &Lab, mode: XdpMode) -> Through {
        Through::start(lab, taken_by_xdp(lab, "card", 2, mode))
    }

    /// By AF_PACKET sockets, the kernel's own copy dropped at tc ingress.
    pub fn packet(lab: &Lab) -> Through {
        Through::start(lab, taken_by_packet(lab, "card", 2))
    }

    /// Turns the queues of `port`, each in its own thread and with its own way back.
    fn start(lab: &Lab, (port, attachment): (Port, Attachment)) -> Through {
        let (_, ways) = TapDevice::open(&lab.host, lab.card, 2).expect("a TAP");
        let queues = port.counters();
        let umem = port.umem;
        let long = Arc::<AtomicU64>::default();
        let lanes: Vec<_> = port
            .queues
            .into_iter()
            .zip(ways)
            .map(|(pair, way)| {
                let handler = CountLong {
                    inner: PassAll,
                    seen: Arc::clone(&long),
                };
                Lane::new(pair.rx, &umem, 64, Box::new(handler), vec![]).with_pass(Box::new(way))
            })
            .collect();
        let loops = lanes.iter().map(|lane| Arc::clone(lane.counters())).collect();
        let run = Some(start(lanes, &Options::default()).expect("threads"));
        Through {
            run,
            loops,
            queues,
            long,
            attachment: Some(attachment),
        }
    }

    /// Frames received in user space, and their bytes.
    pub fn received(&self) -> (u64, u64) {
        let totals = self.queues.iter().map(|queue| queue.rx.totals());
        totals.fold((0, 0), |(frames, bytes), rx| {
            (frames + rx.received, bytes + rx.received_bytes)
        })
    }

    /// Frames among them that were longer than any packet of 1,500 bytes.
    pub fn long(&self) -> u64 {
        self.long.load(Ordering::Relaxed)
    }

    /// Frames received in user space, passed, and lost on the way.
    pub fn totals(&self) -> (u64, u64, u64) {
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
        // The kernel has its frames back before the loops end.
        self.attachment = None;
        if let Some(run) = self.run.take() {
            run.stop();
            let _ = run.join();
        }
    }
}

/// All frames of the first `queues` queues of an interface of the host, to AF_XDP sockets.
pub fn taken_by_xdp(lab: &Lab, device: &str, queues: u32, mode: XdpMode) -> (Port, Attachment) {
    let config = Config {
        queues: (0..queues).collect(),
        ring_size: 1024,
        zero_copy: ZeroCopy::Off,
        mode: if mode == XdpMode::Generic {
            Mode::Generic
        } else {
            Mode::Driver
        },
        multi_buffer: true,
        ..Config::new(device)
    };
    let opened = lab
        .host
        .within(|| af_xdp::open(&config, &pool(), None))
        .expect("AF_XDP on veth");
    let map = Map::create(MapType::Xskmap, "bf_all", 4, 4, queues).expect("a map");
    for socket in &opened.sockets {
        map.update(
            &socket.queue().to_ne_bytes(),
            &socket.as_fd().as_raw_fd().to_ne_bytes(),
        )
        .expect("in the map");
    }
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
        .within(|| Attachment::xdp(&program, lab.index(device), mode))
        .expect("XDP on veth");
    (opened.port, attachment)
}

/// All frames of an interface of the host, to `queues` AF_PACKET sockets; the kernel's own copies dropped.
pub fn taken_by_packet(lab: &Lab, device: &str, queues: u32) -> (Port, Attachment) {
    let filter = program(ProgramType::SocketFilter, &unless_passed(0x4_0000, 0));
    let config = af_packet::Config {
        queues,
        ..af_packet::Config::new(device, af_packet::Filter::Program(filter.as_fd()))
    };
    let port = lab
        .host
        .within(|| af_packet::open(&config, &pool()))
        .expect("AF_PACKET on veth");
    let drop = program(ProgramType::SchedCls, &unless_passed(2, -1));
    let attach = || Attachment::tc(&drop, lab.index(device), TcDirection::Ingress);
    (port, lab.host.within(attach).expect("tc on veth"))
}

fn pool() -> Arc<Umem> {
    Umem::map(&UmemConfig {
        frames: 4096,
        frame_size: 2048,
        // A batch of them in each of two loops, and what their caches keep.
        jumbo_frames: 160,
        pages: Pages::Ordinary,
    })
    .expect("a pool")
}

fn program(kind: ProgramType, instructions: &[u8]) -> Program {
    Program::load(&ProgramSource {
        kind,
        name: "bf_packet",
        instructions,
        maps: &[],
        fragments: false,
    })
    .expect("the verifier takes it")
}

/// return bpf_redirect_map(map, ctx->rx_queue_index, XDP_PASS)
fn everything() -> Vec<u8> {
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

/// return skb->tc_index == PASSED_TC_INDEX ? passed : new
fn unless_passed(new: i32, passed: i32) -> Vec<u8> {
    [
        instruction(0x61, 0x12, 44, 0), // r2 = skb->tc_index
        instruction(0xb4, 0x00, 0, passed),
        instruction(0x15, 0x02, 1, i32::from(PASSED_TC_INDEX)),
        instruction(0xb4, 0x00, 0, new),
        instruction(0x95, 0x00, 0, 0), // exit
    ]
    .concat()
}

fn instruction(code: u8, registers: u8, offset: i16, immediate: i32) -> [u8; 8] {
    let mut bytes = [code, registers, 0, 0, 0, 0, 0, 0];
    bytes[2..4].copy_from_slice(&offset.to_ne_bytes());
    bytes[4..8].copy_from_slice(&immediate.to_ne_bytes());
    bytes
}
