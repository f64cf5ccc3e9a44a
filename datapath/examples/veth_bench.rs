//! Sends, or receives and drops, on one end of a veth pair, and prints what that reached as a line of JSON.
//!
//! ```text
//! veth_bench send    --dev DEV [--netns NS] [--seconds 5] [--core N] [--length 64] [--flows 64]
//!                    [--to MAC] [--port 4660] [--rate N]
//! veth_bench receive --dev DEV [--netns NS] [--seconds 5] [--core N] [--backend af_xdp|af_packet]
//!                    [--queues 1] [--burst 32] [--frames 4096] [--ring 2048] [--busy] [--generic] [--metadata]
//! ```
//!
//! `send` sends UDP frames by AF_XDP on queue 0 as fast as they go, or at `--rate` frames a second. `receive`
//! waits for the first frame, then counts for the given time; its line has packets, seconds, and the processor
//! time that the process took meanwhile (getrusage). For af_xdp every frame that arrives is redirected to the
//! socket of its queue; for af_packet the filter accepts all.

use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bifurcate_datapath::device::af_packet::{self, Filter, Instruction};
use bifurcate_datapath::device::af_xdp::{self, Mode, ZeroCopy};
use bifurcate_datapath::device::{Port, Totals};
use bifurcate_datapath::engine::{Discard, Lane, Options, start};
use bifurcate_datapath::frame::{Batch, Umem, UmemConfig, checksum};
use bifurcate_linux::bpf::{
    Attachment, Map, MapReference, MapType, Program, ProgramSource, ProgramType, XdpMode,
};
use bifurcate_linux::netns::Netns;
use bifurcate_linux::{Error, Result, interface, thread};

/// `--name value` and `--name` arguments.
struct Args(Vec<String>);

impl Args {
    fn text(&self, name: &str) -> Option<&str> {
        let at = self.0.iter().position(|arg| arg == name)?;
        self.0.get(at + 1).map(String::as_str)
    }

    fn number(&self, name: &str, default: u32) -> Result<u32> {
        let Some(text) = self.text(name) else {
            return Ok(default);
        };
        text.parse()
            .map_err(|_| usage(&format!("{name} wants a number, not {text}")))
    }

    fn flag(&self, name: &str) -> bool {
        self.0.iter().any(|arg| arg == name)
    }
}

fn usage(why: &str) -> Error {
    Error::new(
        "veth_bench",
        format!("{why}; its first comment has the usage"),
        22,
    )
}

fn main() -> Result<()> {
    let args = Args(std::env::args().skip(1).collect());
    let netns = Netns::open(args.text("--netns"))?;
    let device = args.text("--dev").ok_or_else(|| usage("--dev is missing"))?;
    let seconds = Duration::from_secs(args.number("--seconds", 5)?.into());
    match args.0.first().map(String::as_str) {
        Some("send") => send(&args, &netns, device, seconds),
        Some("receive") => receive(&args, &netns, device, seconds),
        _ => Err(usage("send or receive?")),
    }
}

fn pool(args: &Args) -> Result<Arc<Umem>> {
    Umem::map(&UmemConfig {
        frames: args.number("--frames", 4096)?,
        ..UmemConfig::default()
    })
}

fn pin(args: &Args) -> Result<Vec<u32>> {
    if args.text("--core").is_some() {
        Ok(vec![args.number("--core", 0)?])
    } else {
        Ok(vec![])
    }
}

fn send(args: &Args, netns: &Netns, device: &str, seconds: Duration) -> Result<()> {
    let umem = pool(args)?;
    let config = af_xdp::Config {
        zero_copy: ZeroCopy::Off,
        ..af_xdp::Config::new(device)
    };
    let mut opened = netns.within(|| af_xdp::open(&config, &umem, None))?;
    if let Some(&core) = pin(args)?.first() {
        thread::pin(core)?;
    }
    let (flows, port) = (
        args.number("--flows", 64)?.clamp(1, 60_000) as u16,
        args.number("--port", 4660)? as u16,
    );
    let to = mac(args.text("--to").unwrap_or("ff:ff:ff:ff:ff:ff"))?;
    let length = args.number("--length", 64)?.clamp(60, 1514) as usize;
    let frames: Vec<Vec<u8>> = (0..flows)
        .map(|flow| udp_frame(to, 1024 + flow, port, length))
        .collect();
    let tx = &mut opened.port.queues[0].tx;
    let mut batch = Batch::new(&umem, 32);
    let mut next = 0usize;
    let rate = args.number("--rate", 0)?;
    let (began, cpu) = (Instant::now(), thread::process_cpu_time());
    while began.elapsed() < seconds {
        for _ in 0..32 {
            let Some(frame) = batch.cache_mut().copy_in(&frames[next % frames.len()]) else {
                break;
            };
            next += 1;
            let _ = batch.push_send(frame, 0);
        }
        tx.send(&mut batch);
        batch.clear();
        if rate > 0 {
            let due = began + Duration::from_secs_f64(next as f64 / f64::from(rate));
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    }
    let (elapsed, cpu) = (began.elapsed(), thread::process_cpu_time() - cpu);
    print(
        "send",
        "af_xdp",
        tx.counters().totals().sent,
        elapsed,
        cpu,
        &tx.counters().totals(),
    );
    Ok(())
}

fn receive(args: &Args, netns: &Netns, device: &str, seconds: Duration) -> Result<()> {
    let umem = pool(args)?;
    let queues = args.number("--queues", 1)?;
    let backend = args.text("--backend").unwrap_or("af_xdp");
    let (port, _steering) = match backend {
        "af_xdp" => {
            let (port, steering) = netns.within(|| open_af_xdp(args, device, queues, &umem))?;
            (port, Some(steering))
        }
        "af_packet" => {
            let everything = [Instruction {
                code: 0x06,
                jt: 0,
                jf: 0,
                k: 0x4_0000,
            }];
            let config = af_packet::Config {
                queues,
                metadata: args.flag("--metadata"),
                ..af_packet::Config::new(device, Filter::Classic(&everything))
            };
            (netns.within(|| af_packet::open(&config, &umem))?, None)
        }
        other => return Err(usage(&format!("no backend {other}"))),
    };
    let counters = port.counters();
    let burst = args.number("--burst", 32)? as usize;
    let lanes = port
        .queues
        .into_iter()
        .map(|pair| Lane::new(pair.rx, &umem, burst, Box::new(Discard), vec![]))
        .collect();
    let run = start(
        lanes,
        &Options {
            cores: pin(args)?,
            busy_poll: args.flag("--busy"),
        },
    )?;
    let totals = || {
        counters.iter().fold(Totals::default(), |mut sum, queue| {
            sum += queue.totals();
            sum
        })
    };
    while totals().received == 0 {
        std::thread::sleep(Duration::from_millis(10));
    }
    let (began, cpu, before) = (Instant::now(), thread::process_cpu_time(), totals().received);
    std::thread::sleep(seconds);
    let (elapsed, cpu, after) = (
        began.elapsed(),
        thread::process_cpu_time() - cpu,
        totals().received,
    );
    run.stop();
    run.join()?;
    print("receive", backend, after - before, elapsed, cpu, &totals());
    Ok(())
}

type XdpSteering = (Attachment, Program, Map);

fn open_af_xdp(args: &Args, device: &str, queues: u32, umem: &Arc<Umem>) -> Result<(Port, XdpSteering)> {
    let generic = args.flag("--generic");
    let config = af_xdp::Config {
        queues: (0..queues).collect(),
        ring_size: args.number("--ring", 2048)?,
        mode: if generic { Mode::Generic } else { Mode::Driver },
        ..af_xdp::Config::new(device)
    };
    let opened = af_xdp::open(&config, umem, None)?;
    let map = Map::create(MapType::Xskmap, "bench_xsks", 4, 4, queues)?;
    for socket in &opened.sockets {
        map.update(
            &socket.queue().to_ne_bytes(),
            &socket.as_fd().as_raw_fd().to_ne_bytes(),
        )?;
    }
    // return bpf_redirect_map(xsks, ctx->rx_queue_index, XDP_PASS)
    let code = [
        [0x61, 0x12, 16, 0, 0, 0, 0, 0],
        [0x18, 0x01, 0, 0, 0, 0, 0, 0],
        [0x00, 0x00, 0, 0, 0, 0, 0, 0],
        [0xb7, 0x03, 0, 0, 2, 0, 0, 0],
        [0x85, 0x00, 0, 0, 51, 0, 0, 0],
        [0x95, 0x00, 0, 0, 0, 0, 0, 0],
    ]
    .concat();
    let program = Program::load(&ProgramSource {
        kind: ProgramType::Xdp,
        name: "veth_bench",
        instructions: &code,
        maps: &[MapReference {
            instruction: 1,
            map: map.as_fd(),
        }],
        fragments: !generic,
    })?;
    let mode = if generic {
        XdpMode::Generic
    } else {
        XdpMode::Driver
    };
    let attachment = Attachment::xdp(&program, interface::index(device)?, mode)?;
    Ok((opened.port, (attachment, program, map)))
}

fn mac(text: &str) -> Result<[u8; 6]> {
    let bytes: Vec<u8> = text
        .split(':')
        .filter_map(|part| u8::from_str_radix(part, 16).ok())
        .collect();
    bytes
        .try_into()
        .map_err(|_| usage(&format!("{text} is no MAC address")))
}

/// A UDP frame of `length` bytes, from 198.18.0.1 to 198.18.0.2 (RFC 2544's addresses for benchmarks).
fn udp_frame(to: [u8; 6], from_port: u16, to_port: u16, length: usize) -> Vec<u8> {
    let mut frame = vec![0u8; length];
    frame[..6].copy_from_slice(&to);
    frame[6..14].copy_from_slice(&[2, 0, 0, 0, 0, 1, 0x08, 0]);
    let ip = &mut frame[14..34];
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&((length - 14) as u16).to_be_bytes());
    (ip[8], ip[9]) = (64, 17);
    ip[12..20].copy_from_slice(&[198, 18, 0, 1, 198, 18, 0, 2]);
    let sum = !checksum::fold(checksum::sum(ip));
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    frame[34..36].copy_from_slice(&from_port.to_be_bytes());
    frame[36..38].copy_from_slice(&to_port.to_be_bytes());
    frame[38..40].copy_from_slice(&((length - 34) as u16).to_be_bytes());
    frame
}

fn print(role: &str, backend: &str, packets: u64, elapsed: Duration, cpu: Duration, totals: &Totals) {
    let (seconds, cpu_seconds) = (elapsed.as_secs_f64(), cpu.as_secs_f64());
    let nanoseconds = if packets > 0 {
        cpu_seconds * 1e9 / packets as f64
    } else {
        0.0
    };
    println!(
        "{{\"role\":\"{role}\",\"backend\":\"{backend}\",\"packets\":{packets},\"seconds\":{seconds:.3},\
         \"mpps\":{:.4},\"cpuSeconds\":{cpu_seconds:.3},\"cpuNanosecondsPerPacket\":{nanoseconds:.1},\
         \"noFrames\":{},\"ringFull\":{},\"invalidDescriptor\":{},\"tooLong\":{}}}",
        packets as f64 / seconds / 1e6,
        totals.no_frames,
        totals.ring_full,
        totals.invalid_descriptor,
        totals.too_long,
    );
}
