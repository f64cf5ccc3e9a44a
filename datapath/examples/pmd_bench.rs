//! Drives two cards that are wired to each other by our own drivers, and prints what that reached as a line of JSON.
//!
//! ```text
//! pmd_bench forward ADDRESS[,via] ADDRESS[,via] [--seconds 5] [--burst 32] [--first 64] [--ring 512] [--core N]
//!                   [--destination MAC]
//! pmd_bench rate    ADDRESS[,via] ADDRESS[,via] --rate N [--seconds 5] ...
//! ```
//!
//! The cards are bound to the driver of `via` (vfio unless said otherwise) already. `forward` puts `--first` frames of
//! 64 bytes (CRC included) on the wire out of each card and sends what arrives on one card out of the other, as
//! testpmd does in io mode with `--tx-first`: so the frames go round, and the line says how many arrived on both cards
//! in the given time. `rate` sends `--rate` frames a second out of the first card and counts those that arrive on the
//! second; its line has sent, received and lost.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bifurcate_datapath::device::pmd::{Config, Quiet};
use bifurcate_datapath::device::{Port, cards};
use bifurcate_datapath::engine::{Forward, Lane, Out};
use bifurcate_datapath::frame::{Batch, Pages, Umem, UmemConfig};
use bifurcate_linux::card::Via;
use bifurcate_linux::pci::Bus;
use bifurcate_linux::{Error, Result, thread};

/// Bytes of a frame of 64 on the wire: the card adds the CRC.
const LENGTH: u32 = 60;

/// Turns between two looks at the clock.
const TURNS_A_LOOK: u32 = 256;

/// Time for a link to come up after a reset.
const LINK: Duration = Duration::from_secs(10);

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
}

fn usage(why: &str) -> Error {
    Error::new("pmd_bench", format!("{why}; its first comment has the usage"), 22)
}

fn main() -> Result<()> {
    let args = Args(std::env::args().skip(1).collect());
    let [what, first, second, ..] = &args.0[..] else {
        return Err(usage("two cards are needed"));
    };
    if let Some(core) = args.text("--core") {
        thread::pin(core.parse().map_err(|_| usage("--core wants a number"))?)?;
    }
    let vias = [via(first)?, via(second)?];
    let umem = Umem::map(&UmemConfig {
        frames: 8192,
        pages: if vias.iter().all(|via| via.protects_memory()) {
            Pages::Auto
        } else {
            Pages::Huge
        },
        ..UmemConfig::default()
    })?;
    let config = Config {
        ring_size: args.number("--ring", 512)?,
        ..Config::default()
    };
    let (left, left_card) = card(first, vias[0], &config, &umem)?;
    let (right, right_card) = card(second, vias[1], &config, &umem)?;
    let ends = Instant::now() + LINK;
    while !(left_card.nic.link().up && right_card.nic.link().up) {
        if Instant::now() > ends {
            return Err(Error::new("pmd_bench", "the link does not come up", 110));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let to = match args.text("--destination") {
        Some(text) => mac(text)?,
        None => right_card.nic.mac(),
    };
    match what.as_str() {
        "forward" => forward(&args, left, right, &umem, to),
        "rate" => rate(&args, left, right, &umem, to),
        _ => Err(usage("forward or rate")),
    }
}

fn via(word: &str) -> Result<Via> {
    word.split_once(',').map_or(Ok(Via::Vfio), |(_, via)| via.parse())
}

fn card(word: &str, via: Via, config: &Config, umem: &Arc<Umem>) -> Result<(Port, Arc<Quiet>)> {
    let address = word.split(',').next().unwrap_or_default().parse()?;
    cards::open(&Bus::system(), address, via, config, umem)
}

fn mac(text: &str) -> Result<[u8; 6]> {
    let bytes: Vec<u8> = text
        .split(':')
        .map_while(|part| u8::from_str_radix(part, 16).ok())
        .collect();
    bytes
        .try_into()
        .map_err(|_| usage("--destination wants a MAC address"))
}

/// Fills the batch with frames to `to`, to be sent.
fn make(batch: &mut Batch, count: usize, to: [u8; 6]) {
    batch.fill_free(count, LENGTH);
    for at in 0..batch.len() {
        let bytes = batch.bytes_mut(at);
        bytes.fill(0);
        bytes[..6].copy_from_slice(&to);
        bytes[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
        // A local experimental EtherType (IEEE 802): no kernel takes it for anything.
        bytes[12..14].copy_from_slice(&[0x88, 0xb5]);
    }
    batch.send_all(0);
    batch.sending_to(0);
}

fn forward(args: &Args, left: Port, right: Port, umem: &Arc<Umem>, to: [u8; 6]) -> Result<()> {
    let burst = args.number("--burst", 32)? as usize;
    let first = args.number("--first", 64)? as usize;
    let seconds = Duration::from_secs(args.number("--seconds", 5)?.into());
    let counters = [left.counters(), right.counters()];
    let mut first_batch = Batch::new(umem, 256);
    let (mut rx, mut tx) = (Vec::new(), Vec::new());
    let mut pairs: Vec<_> = left.queues.into_iter().chain(right.queues).collect();
    // virtio's driver fills its ring with the first poll: both rings have buffers before the first frame is sent.
    for pair in &mut pairs {
        pair.rx.poll(&mut first_batch);
        first_batch.clear();
    }
    for mut pair in pairs {
        make(&mut first_batch, first, to);
        pair.tx.send(&mut first_batch);
        first_batch.clear();
        rx.push(pair.rx);
        tx.push(pair.tx);
    }
    drop(first_batch);
    tx.reverse();
    let mut lanes: Vec<Lane> = rx
        .into_iter()
        .zip(tx)
        .map(|(rx, tx)| {
            let out = Out::new(tx, umem, umem);
            Lane::new(rx, umem, burst, Box::new(Forward { port: 0 }), vec![out])
        })
        .collect();
    let run = |lanes: &mut Vec<Lane>, time: Duration| {
        let begin = Instant::now();
        while begin.elapsed() < time {
            for _ in 0..TURNS_A_LOOK {
                for lane in &mut *lanes {
                    lane.turn();
                }
            }
        }
        begin.elapsed()
    };
    let received = || {
        counters
            .iter()
            .flatten()
            .map(|queue| queue.totals().received)
            .sum::<u64>()
    };
    run(&mut lanes, Duration::from_millis(500));
    let before = received();
    let took = run(&mut lanes, seconds);
    let packets = received() - before;
    let full: u64 = counters
        .iter()
        .flatten()
        .map(|queue| queue.totals().ring_full)
        .sum();
    println!(
        "{{\"packets\":{packets},\"seconds\":{:.3},\"pps\":{:.0},\"ring_full\":{full}}}",
        took.as_secs_f64(),
        packets as f64 / took.as_secs_f64()
    );
    Ok(())
}

fn rate(args: &Args, left: Port, right: Port, umem: &Arc<Umem>, to: [u8; 6]) -> Result<()> {
    let rate = f64::from(args.number("--rate", 10_000)?);
    let seconds = f64::from(args.number("--seconds", 5)?);
    let (mut out, mut into) = (Batch::new(umem, 256), Batch::new(umem, 64));
    let (mut from, mut at) = (left.queues, right.queues);
    let (mut sent, mut received) = (0u64, 0u64);
    for pair in &mut at {
        pair.rx.poll(&mut into);
        into.clear();
    }
    let begin = Instant::now();
    loop {
        let elapsed = begin.elapsed().as_secs_f64();
        let owed = ((elapsed.min(seconds) * rate) as u64)
            .saturating_sub(sent)
            .min(64);
        if owed > 0 {
            make(&mut out, owed as usize, to);
            sent += from[0].tx.send(&mut out) as u64;
            out.clear();
        }
        for pair in &mut at {
            received += pair.rx.poll(&mut into) as u64;
            into.clear();
        }
        // What is on its way has a second to arrive.
        if elapsed > seconds + 1.0 {
            break;
        }
    }
    let lost = sent.saturating_sub(received);
    println!("{{\"sent\":{sent},\"received\":{received},\"lost\":{lost},\"rate\":{rate:.0}}}");
    Ok(())
}
