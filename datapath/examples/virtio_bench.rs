//! One end of a vhost-user socket, polled as fast as it goes, and what that reached as a line of JSON.
//!
//! ```text
//! virtio_bench driver|device --path SOCKET [--server] --do receive|send|reflect|probe
//!              [--seconds 3] [--burst 32] [--length 64] [--core N] [--layout split|packed] [--queues 1]
//!              [--ring 256] [--frames 4096] [--first N] [--wait 20] [--plain]
//! ```
//!
//! `receive` drops what comes; `send` writes Ethernet, IPv4 and UDP headers into free frames and sends them, as
//! testpmd's txonly does; `reflect` swaps the MAC addresses and sends back, after `--first` frames of its own; `probe`
//! sends one frame, waits for its reflection and says how long that took, over and over. `--plain` leaves out merging
//! buffers, event index, indirect tables and in-order use.
//!
//! The line has packets, seconds, and busy cycles a packet: of the time stamp counter, over the turns that testpmd's
//! `record-core-cycles` counts (22.11, app/test-pmd): where packets are received, those that found some; where they are
//! sent, all that had some to send, also when the ring had no room for any.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bifurcate_datapath::device::{Port, QueuePair, State, vhost, virtio};
use bifurcate_datapath::engine::{Discard, Handler, Lane, Out, Reflect};
use bifurcate_datapath::frame::{Batch, Umem, UmemConfig};
use bifurcate_datapath::ring::virtio::feature;
use bifurcate_datapath::vhost_user::Inner;
use bifurcate_linux::{Error, Result, thread};

/// `--name value` and `--name` arguments.
struct Args(Vec<String>);

impl Args {
    fn text(&self, name: &str) -> Option<&str> {
        let at = self.0.iter().position(|arg| arg == name)?;
        self.0.get(at + 1).map(String::as_str)
    }

    fn number(&self, name: &str, default: u32) -> Result<u32> {
        self.text(name).map_or(Ok(default), |text| {
            text.parse()
                .map_err(|_| usage(&format!("{name} wants a number, not {text}")))
        })
    }

    fn flag(&self, name: &str) -> bool {
        self.0.iter().any(|arg| arg == name)
    }
}

fn usage(why: &str) -> Error {
    Error::new(
        "virtio_bench",
        format!("{why}; its first comment has the usage"),
        22,
    )
}

fn main() -> Result<()> {
    let args = Args(std::env::args().skip(1).collect());
    let umem = Umem::map(&UmemConfig {
        frames: args.number("--frames", 4096)?,
        ..UmemConfig::default()
    })?;
    if args.text("--core").is_some() {
        thread::pin(args.number("--core", 0)?)?;
    }
    let (mut port, status) = open(&args, &umem)?;
    let pair = port.queues.remove(0);
    wait_for_peer(&status, args.number("--wait", 20)?)?;
    match args.text("--do") {
        Some("receive") => turn(&args, pair, &umem, Box::new(Discard), &status),
        Some("reflect") => turn(&args, pair, &umem, Box::new(Reflect), &status),
        Some("send") => send(&args, pair, &umem, &status),
        Some("probe") => probe(&args, pair, &umem),
        _ => Err(usage("--do receive, send, reflect or probe?")),
    }
}

fn open(args: &Args, umem: &Arc<Umem>) -> Result<(Port, Arc<Inner>)> {
    let path: PathBuf = args
        .text("--path")
        .ok_or_else(|| usage("--path is missing"))?
        .into();
    let server = args.flag("--server");
    let queues = args.number("--queues", 1)?;
    let is_driver = args.0.first().is_some_and(|end| end == "driver");
    let mut without = match args.text("--layout") {
        Some("packed") => 0,
        // The driver chooses; the device end offers both.
        None if !is_driver => 0,
        None | Some("split") => feature::RING_PACKED,
        Some(other) => return Err(usage(&format!("--layout {other}"))),
    };
    if args.flag("--plain") {
        without |= feature::EVENT_IDX | feature::INDIRECT_DESC | feature::IN_ORDER | feature::MRG_RXBUF;
    }
    match args.0.first().map(String::as_str) {
        Some("driver") => {
            let config = virtio::Config {
                server,
                queues,
                without,
                ring_size: args.number("--ring", 256)? as u16,
                ..virtio::Config::new(path)
            };
            virtio::open(&config, umem).map(|opened| (opened.port, opened.status))
        }
        Some("device") => {
            let config = vhost::Config {
                path,
                server,
                queues,
                without,
            };
            vhost::open(&config, umem).map(|opened| (opened.port, opened.status))
        }
        _ => Err(usage("driver or device?")),
    }
}

fn wait_for_peer(status: &Inner, seconds: u32) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(seconds.into());
    while !status.status().connected {
        if Instant::now() > deadline {
            return Err(usage("nobody came to the other end"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// The processor's time stamp counter.
fn cycles() -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: reads a counter that every x86-64 has.
    unsafe {
        std::arch::x86_64::_rdtsc()
    }
    #[cfg(not(target_arch = "x86_64"))]
    0
}

/// Counts turns between two moments: some settling time, then the seconds asked for.
struct Meter {
    settle: Duration,
    length: Duration,
    began: Option<Instant>,
    packets: u64,
    busy: u64,
    bursts: u64,
    looked: u32,
    start: Instant,
}

impl Meter {
    fn new(args: &Args) -> Result<Meter> {
        Ok(Meter {
            settle: Duration::from_millis(500),
            length: Duration::from_secs(args.number("--seconds", 3)?.into()),
            began: None,
            packets: 0,
            busy: 0,
            bursts: 0,
            looked: 0,
            start: Instant::now(),
        })
    }

    /// Adds a turn that had something to do, `packets` of which moved; false when the time is over.
    #[inline]
    fn add(&mut self, had: usize, packets: usize, busy: u64) -> bool {
        if had > 0 {
            self.packets += packets as u64;
            self.busy += busy;
            self.bursts += u64::from(packets > 0);
        }
        self.looked += 1;
        self.looked & 1023 != 0 || self.look()
    }

    #[cold]
    fn look(&mut self) -> bool {
        let now = Instant::now();
        match self.began {
            None if self.packets > 0 && now - self.start > self.settle => {
                (self.packets, self.busy, self.bursts) = (0, 0, 0);
                self.began = Some(now);
                true
            }
            // Nothing has come at all: do not wait for ever.
            None => now - self.start < Duration::from_secs(20),
            Some(began) => now - began < self.length,
        }
    }

    fn print(&self, status: &Inner) {
        let seconds = self.began.map_or(0.0, |began| began.elapsed().as_secs_f64());
        println!(
            "{{\"packets\":{},\"seconds\":{seconds:.3},\"pps\":{:.0},\"cycles\":{:.1},\"burst\":{:.1},\"features\":\"{:#x}\"}}",
            self.packets,
            self.packets as f64 / seconds.max(1e-9),
            self.busy as f64 / self.packets.max(1) as f64,
            self.packets as f64 / self.bursts.max(1) as f64,
            status.status().features,
        );
    }
}

fn turn(
    args: &Args,
    pair: QueuePair,
    umem: &Arc<Umem>,
    handler: Box<dyn Handler>,
    status: &Inner,
) -> Result<()> {
    let QueuePair { mut rx, mut tx, .. } = pair;
    let first = args.number("--first", 0)?;
    let burst = args.number("--burst", 32)? as usize;
    let mut batch = Batch::new(umem, burst);
    let frame = frame(args.number("--length", 64)? as usize);
    let mut sent = 0;
    if first > 0 {
        // Buffers to receive into, before anything comes back. An end that only answers takes nothing here: what has
        // come already is all there is to go round.
        rx.poll(&mut batch);
        batch.clear();
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    while sent < first && Instant::now() < deadline {
        for _ in 0..(first - sent).min(32) {
            if let Some(frame) = batch.cache_mut().copy_in(&frame) {
                let _ = batch.push_send(frame, 0);
            }
        }
        sent += tx.send(&mut batch) as u32;
        batch.clear();
    }
    drop(batch);
    let out = Out::new(tx, umem, umem);
    let mut lane = Lane::new(rx, umem, burst, handler, vec![out]);
    let mut meter = Meter::new(args)?;
    loop {
        let from = cycles();
        let got = lane.turn();
        if !meter.add(got, got, cycles().wrapping_sub(from)) {
            break;
        }
    }
    meter.print(status);
    Ok(())
}

fn send(args: &Args, mut pair: QueuePair, umem: &Arc<Umem>, status: &Inner) -> Result<()> {
    let burst = args.number("--burst", 32)? as usize;
    let length = args.number("--length", 64)?;
    let headers = frame(42);
    let mut batch = Batch::new(umem, burst);
    let mut meter = Meter::new(args)?;
    loop {
        let from = cycles();
        batch.fill_free(burst, length);
        let had = batch.len();
        batch.each(|bytes| {
            bytes[..42].copy_from_slice(&headers[..42]);
            bifurcate_datapath::engine::Verdict::Send
        });
        let sent = pair.tx.send(&mut batch);
        batch.clear();
        if !meter.add(had, sent, cycles().wrapping_sub(from)) {
            break;
        }
    }
    meter.print(status);
    Ok(())
}

/// One frame there and back at a time: percentiles of the round trip in nanoseconds.
fn probe(args: &Args, mut pair: QueuePair, umem: &Arc<Umem>) -> Result<()> {
    let mut batch = Batch::new(umem, 32);
    let frame = frame(args.number("--length", 64)? as usize);
    let length = Duration::from_secs(args.number("--seconds", 3)?.into());
    let until = Instant::now() + Duration::from_secs(10);
    while pair.rx.state() != State::Up && Instant::now() < until {
        pair.rx.poll(&mut batch);
        batch.clear();
    }
    let mut times: Vec<u64> = Vec::with_capacity(1 << 22);
    let (began, tsc) = (Instant::now(), cycles());
    let mut lost = 0u32;
    while began.elapsed() < length && times.len() < times.capacity() {
        let Some(copy) = batch.cache_mut().copy_in(&frame) else {
            break;
        };
        let _ = batch.push_send(copy, 0);
        let from = cycles();
        pair.tx.send(&mut batch);
        batch.clear();
        let mut polls = 0u32;
        while pair.rx.poll(&mut batch) == 0 && polls < 10_000_000 {
            polls += 1;
        }
        if batch.is_empty() {
            lost += 1;
        } else {
            times.push(cycles().wrapping_sub(from));
        }
        batch.clear();
    }
    if times.is_empty() {
        let what = format!("no frame came back of {lost} sent: nothing reflects at the other end");
        return Err(Error::new("virtio_bench", what, 110));
    }
    let per_ns = cycles().wrapping_sub(tsc) as f64 / began.elapsed().as_nanos() as f64;
    times.drain(..times.len() / 10);
    times.sort_unstable();
    let at = |part: f64| {
        let index = (times.len() as f64 * part) as usize;
        times
            .get(index.min(times.len().saturating_sub(1)))
            .copied()
            .unwrap_or(0) as f64
            / per_ns
    };
    println!(
        "{{\"trips\":{},\"lost\":{lost},\"p50\":{:.0},\"p99\":{:.0},\"p999\":{:.0}}}",
        times.len(),
        at(0.5),
        at(0.99),
        at(0.999)
    );
    Ok(())
}

/// A UDP datagram (to port 9, RFC 863 discard) between two addresses of RFC 5737, cut or padded to `length`.
fn frame(length: usize) -> Vec<u8> {
    let ip = (length.max(42) - 14) as u16;
    let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00, 0x45, 0];
    bytes.extend(ip.to_be_bytes());
    bytes.extend([0, 0, 0x40, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
    bytes.extend(1024u16.to_be_bytes());
    bytes.extend(9u16.to_be_bytes());
    bytes.extend((ip - 20).to_be_bytes());
    bytes.extend([0, 0]);
    bytes.resize(length, 0);
    bytes
}
