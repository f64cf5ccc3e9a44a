//! Stops polling one of two queues of an 82576 and says what that cost the other one: what Drop_En is for.
//!
//! ```text
//! drop_en SENDER[,via] ADDRESS[,via]
//! ```
//!
//! Both cards are bound to the driver of `via` (vfio unless said otherwise) already, and wired to each other. Prints a
//! line of JSON for each of the two queues, which is stopped while the other is polled: whether Drop_En stands in the
//! SRRCTL register of every queue; frames `sent` of the flows of each queue and `received` by each, the stopped one's
//! afterwards; and what the card has counted for each as dropped (RQDPC).

use std::sync::Arc;
use std::time::{Duration, Instant};

use bifurcate_datapath::device::pmd::{Config, Quiet};
use bifurcate_datapath::device::{Port, cards};
use bifurcate_datapath::frame::{Batch, Umem, UmemConfig};
use bifurcate_linux::card::Via;
use bifurcate_linux::pci::Bus;
use bifurcate_linux::{Error, Result};

/// Queues of the card that receives.
const QUEUES: usize = 2;

/// Slots of its rings.
const RING: u32 = 64;

/// UDP flows that are sent, which differ in their source port.
const FLOWS: u16 = 32;

/// Frames of each flow: those of a queue are many times its ring.
const ROUNDS: u32 = 50;

/// Bytes of a frame of 64 on the wire: the card adds the CRC.
const LENGTH: u32 = 60;

/// SRRCTL of queue n, and its Drop_En (82576EB datasheet, 8.10.2).
const SRRCTL: usize = 0xC00C;
const STRIDE: usize = 0x40;
const DROP_EN: u32 = 1 << 31;

/// Time for a link to come up after a reset, and for frames to arrive: far more than any need, even where emulation is
/// starved.
const PATIENCE: Duration = Duration::from_secs(60);

fn failed(why: &str) -> Error {
    Error::new("drop_en", why.to_owned(), 22)
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [sender, receiver] = &args[..] else {
        return Err(failed("two cards are needed; its first comment has the usage"));
    };
    let umem = Umem::map(&UmemConfig {
        frames: 4096,
        ..UmemConfig::default()
    })?;
    let (mut from, from_card) = card(sender, 1, 512, &umem)?;
    let (mut to, card) = card(receiver, QUEUES as u32, RING, &umem)?;
    let ends = Instant::now() + PATIENCE;
    while !(from_card.nic.link().up && card.nic.link().up) {
        if Instant::now() > ends {
            return Err(Error::new("drop_en", "the link does not come up", 110));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut run = Run {
        umem: &umem,
        from: &mut from,
        to: &mut to,
    };
    let queue_of = run.learn()?;
    for stopped in 0..QUEUES {
        let before = dropped(&card);
        let [sent, received] = run.stop(stopped, &queue_of)?;
        let rqdpc: Vec<u64> = dropped(&card)
            .iter()
            .zip(before)
            .map(|(now, then)| now - then)
            .collect();
        println!(
            "{{\"stopped\":{stopped},\"drop_en\":{:?},\"sent\":{sent:?},\"received\":{received:?},\"rqdpc\":{rqdpc:?}}}",
            drop_en(&card)?
        );
    }
    Ok(())
}

fn card(word: &str, queues: u32, ring_size: u32, umem: &Arc<Umem>) -> Result<(Port, Arc<Quiet>)> {
    let (address, via) = word.split_once(',').unwrap_or((word, "vfio"));
    let via: Via = via.parse()?;
    let config = Config {
        queues,
        ring_size,
        ..Config::default()
    };
    cards::open(&Bus::system(), address.parse()?, via, &config, umem)
}

/// Whether Drop_En stands in the register of each queue.
fn drop_en(card: &Quiet) -> Result<Vec<bool>> {
    let card = card.card.as_ref().ok_or_else(|| failed("a card is needed"))?;
    let registers = card.map_bar(0)?;
    Ok((0..QUEUES)
        .map(|n| registers.read32(SRRCTL + STRIDE * n) & DROP_EN != 0)
        .collect())
}

/// What the card has counted for each queue.
fn dropped(card: &Quiet) -> Vec<u64> {
    let all = card.nic.statistics();
    all.iter()
        .filter(|one| one.name == "RQDPC")
        .map(|one| one.value)
        .collect()
}

struct Run<'a> {
    umem: &'a Arc<Umem>,
    from: &'a mut Port,
    to: &'a mut Port,
}

impl Run<'_> {
    /// Sends a frame of each flow; gives the queue that each came on.
    fn learn(&mut self) -> Result<Vec<usize>> {
        let mut batch = Batch::new(self.umem, 64);
        let mut queue_of = vec![None; FLOWS.into()];
        self.send(0..FLOWS);
        let ends = Instant::now() + PATIENCE;
        while queue_of.contains(&None) {
            if Instant::now() > ends {
                return Err(Error::new(
                    "drop_en",
                    format!("flows did not arrive: {queue_of:?}"),
                    110,
                ));
            }
            for (n, pair) in self.to.queues.iter_mut().enumerate() {
                pair.rx.poll(&mut batch);
                (0..batch.len())
                    .filter_map(|at| flow(batch.bytes(at)))
                    .for_each(|flow| queue_of[usize::from(flow)] = Some(n));
                batch.clear();
            }
        }
        Ok(queue_of.into_iter().flatten().collect())
    }

    /// Sends every flow many times while queue `stopped` is not polled, and polls it afterwards; gives the frames sent
    /// for each queue, and those that came on each.
    fn stop(&mut self, stopped: usize, queue_of: &[usize]) -> Result<[[u64; QUEUES]; 2]> {
        let (mut sent, mut received) = ([0; QUEUES], [0; QUEUES]);
        let polled = 1 - stopped;
        // Frames arrive in the order of the wire: when the last one of a round is there, which comes on the polled queue,
        // the stopped one has had all of its own, or dropped them.
        let last = (0..FLOWS)
            .find(|flow| queue_of[usize::from(*flow)] == polled)
            .ok_or_else(|| failed("every flow comes on one queue"))?;
        for _ in 0..ROUNDS {
            self.send((0..FLOWS).filter(|flow| *flow != last).chain([last]));
            queue_of.iter().for_each(|queue| sent[*queue] += 1);
            let ends = Instant::now() + PATIENCE;
            while received[polled] < sent[polled] && Instant::now() < ends {
                received[polled] += self.poll(polled);
            }
            if received[polled] < sent[polled] {
                // Lost: the counts say it.
                return Ok([sent, received]);
            }
        }
        // All that it held; a poll that finds nothing has come to its end.
        loop {
            match self.poll(stopped) {
                0 => return Ok([sent, received]),
                more => received[stopped] += more,
            }
        }
    }

    /// Frames of ours that came on a queue.
    fn poll(&mut self, queue: usize) -> u64 {
        let mut batch = Batch::new(self.umem, 64);
        self.to.queues[queue].rx.poll(&mut batch);
        let ours = (0..batch.len())
            .filter(|at| flow(batch.bytes(*at)).is_some())
            .count();
        ours as u64
    }

    /// A frame of each of these flows, in their order.
    fn send(&mut self, flows: impl Iterator<Item = u16>) {
        let mut batch = Batch::new(self.umem, 64);
        batch.fill_free(FLOWS.into(), LENGTH);
        for (at, flow) in flows.enumerate() {
            write(batch.bytes_mut(at), flow);
        }
        batch.send_all(0);
        batch.sending_to(0);
        self.from.queues[0].tx.send(&mut batch);
    }
}

/// A UDP packet of a flow: Ethernet (broadcast), IPv4, UDP without a checksum.
fn write(bytes: &mut [u8], flow: u16) {
    bytes.fill(0);
    bytes[..6].fill(0xff);
    bytes[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    bytes[12..14].copy_from_slice(&[8, 0]);
    bytes[14..24].copy_from_slice(&[0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17]);
    bytes[26..34].copy_from_slice(&[192, 0, 2, 2, 192, 0, 2, 1]);
    let sum: u32 = bytes[14..34]
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    bytes[24..26].copy_from_slice(&sum.to_be_bytes());
    bytes[34..36].copy_from_slice(&(FIRST_PORT + flow).to_be_bytes());
    bytes[36..40].copy_from_slice(&[0, 9, 0, 26]);
}

/// The source port of the first flow.
const FIRST_PORT: u16 = 40_000;

/// The flow of a frame; none of a frame that is not ours.
fn flow(bytes: &[u8]) -> Option<u16> {
    let is_udp = bytes.len() >= 42 && bytes[12..14] == [8, 0] && bytes[23] == 17;
    let port = u16::from_be_bytes([*bytes.get(34)?, *bytes.get(35)?]);
    port.checked_sub(FIRST_PORT)
        .filter(|flow| is_udp && *flow < FLOWS)
}
