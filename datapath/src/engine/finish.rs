//! What a card would have made, made before a frame is sent: transport checksums, TCP segments.

use crate::device::{Counters, LeftToCard};
use crate::frame::segment::{Oversize, oversize};
use crate::frame::{BATCH_MAX, Batch, Frame, Verdict, checksum};

use super::Out;

/// Bytes of an Ethernet header.
const ETHERNET_HEADER: usize = 14;

/// Completes frames that are to be sent.
pub(super) struct Finish {
    left: LeftToCard,
    /// Where packets are cut to; made when the first frame needs it.
    cut: Option<Batch>,
}

impl Finish {
    pub(super) fn new(left: LeftToCard) -> Finish {
        Finish { left, cut: None }
    }

    /// Makes every frame of `batch` that is to be sent fit for a wire. Frames to an out of which one was too long
    /// are sent here, in their order; the others stay in the batch.
    #[inline(never)]
    pub(super) fn sends(&mut self, batch: &mut Batch, outs: &mut [Out], counters: &Counters) {
        if self.left.segments {
            for (port, out) in outs.iter_mut().enumerate() {
                let mtu = out.mtu();
                if has_oversize(batch, port as u8, mtu) {
                    self.cut(batch, port as u8, mtu, out, counters);
                }
            }
        }
        if self.left.checksums {
            for at in 0..batch.len() {
                if batch.verdict(at) == Some(Verdict::Send) {
                    checksum::complete_if_pending(batch.bytes_mut(at));
                }
            }
        }
    }

    #[cold]
    fn cut(&mut self, batch: &mut Batch, port: u8, mtu: usize, out: &mut Out, counters: &Counters) {
        let cut = self
            .cut
            .get_or_insert_with(|| Batch::new(batch.cache().umem(), BATCH_MAX));
        batch.sending_to(port);
        while let Some(mut frame) = batch.next_send() {
            match oversize(batch.cache().bytes(&frame), mtu) {
                Some(found) => {
                    packets(
                        &frame,
                        &found,
                        cut,
                        |cut| flush(cut, port, out, counters),
                        counters,
                        port,
                    );
                    batch.cache_mut().give(frame);
                }
                None => {
                    if self.left.checksums {
                        checksum::complete_if_pending(batch.cache().bytes_mut(&mut frame));
                    }
                    if cut.room() == 0 {
                        flush(cut, port, out, counters);
                    }
                    put(cut, frame, port);
                }
            }
        }
        flush(cut, port, out, counters);
    }
}

/// Puts the packets of a frame that is too long into `cut`, which `flush` empties when it is full.
fn packets(
    frame: &Frame,
    found: &Oversize,
    cut: &mut Batch,
    mut flush: impl FnMut(&mut Batch),
    counters: &Counters,
    port: u8,
) {
    for index in 0..found.count() {
        if cut.room() == 0 {
            flush(cut);
        }
        let len = found.len(index);
        let Some(mut packet) = cut.cache_mut().take_for(len) else {
            // The rest is lost too, as if the wire had: the sender sends it again.
            counters.no_frames.add((found.count() - index) as u64);
            return;
        };
        let cache = cut.cache();
        let made = cache.set_len(&mut packet, len)
            && found.cut(cache.bytes(frame), index, cache.bytes_mut(&mut packet));
        if made {
            put(cut, packet, port);
        } else {
            cut.cache_mut().give(packet);
        }
    }
}

fn put(cut: &mut Batch, frame: Frame, port: u8) {
    // Of the same pool, and room was made: it is taken.
    if let Err(frame) = cut.push_send(frame, port) {
        cut.cache_mut().give(frame);
    }
}

fn flush(cut: &mut Batch, port: u8, out: &mut Out, counters: &Counters) {
    out.send(cut, port, counters);
    // What found the ring full, which the queue counted.
    cut.clear();
}

fn has_oversize(batch: &Batch, port: u8, mtu: usize) -> bool {
    let longest = mtu.saturating_add(ETHERNET_HEADER);
    (0..batch.len()).any(|at| {
        batch.size(at) as usize > longest
            && batch.sends_to(at, port)
            && oversize(batch.bytes(at), mtu).is_some()
    })
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::device::{Mtu, TxQueue};
    use crate::frame::test_frames::{Build, L3};
    use crate::frame::{Pages, Umem, UmemConfig, checksum::TCP, checksum::UDP};

    /// Keeps a copy of what it sends.
    struct Sent {
        mtu: Mtu,
        frames: Arc<Mutex<Vec<Vec<u8>>>>,
        counters: Arc<Counters>,
    }

    impl TxQueue for Sent {
        fn send(&mut self, batch: &mut Batch) -> usize {
            let mut count = 0;
            while let Some(frame) = batch.next_send() {
                let bytes = batch.cache().bytes(&frame).to_vec();
                self.frames.lock().unwrap().push(bytes);
                batch.cache_mut().give(frame);
                count += 1;
            }
            count
        }

        fn mtu(&self) -> Option<&Mtu> {
            Some(&self.mtu)
        }

        fn counters(&self) -> &Arc<Counters> {
            &self.counters
        }
    }

    fn pool(frames: u32) -> Arc<Umem> {
        Umem::map(&UmemConfig {
            frames,
            frame_size: 2048,
            jumbo_frames: 8,
            pages: Pages::Ordinary,
        })
        .unwrap()
    }

    fn frame(protocol: u8, payload: usize) -> (Vec<u8>, Vec<u8>) {
        let build = Build {
            payload: (0..payload).map(|i| (i / 3) as u8).collect(),
            tags: vec![],
            l3: L3::V4,
            protocol,
            options: 0,
            padding: 0,
            seed: 9,
        };
        let mut frame = build.frame();
        let (start, field) = build.checksum_at();
        let pseudo = checksum::fold(checksum::sum(&build.pseudo_header()));
        frame[start + field..start + field + 2].copy_from_slice(&pseudo.to_be_bytes());
        (frame, build.payload)
    }

    /// Sends frames whose checksum was left; gives what went out, and what is counted.
    fn through(
        left: LeftToCard,
        umem: &Arc<Umem>,
        frames: &[Vec<u8>],
    ) -> (Vec<Vec<u8>>, crate::device::Totals) {
        let sent = Arc::new(Mutex::new(Vec::new()));
        let tx = Sent {
            mtu: Mtu::new(1500),
            frames: Arc::clone(&sent),
            counters: Arc::default(),
        };
        let mut exits = crate::engine::exits::Exits::new(vec![Out::new(Box::new(tx), umem, umem)], left);
        let mut batch = Batch::new(umem, 256);
        for frame in frames {
            let frame = batch.cache_mut().copy_in(frame).unwrap();
            batch.push_send(frame, 0).unwrap();
        }
        exits.settle(&mut batch);
        let sent = std::mem::take(&mut *sent.lock().unwrap());
        (sent, exits.counters.totals())
    }

    #[test]
    fn a_checksum_left_to_the_card_is_made_when_the_frame_is_sent() {
        let (udp, _) = frame(UDP, 100);
        let (sent, _) = through(LeftToCard::EVERYTHING, &pool(64), std::slice::from_ref(&udp));
        assert_eq!(checksum::verify(&sent[0]), Some(true));
        let (sent, _) = through(LeftToCard::NOTHING, &pool(64), std::slice::from_ref(&udp));
        assert_eq!(sent[0], udp, "frames off a wire are not looked at");
    }

    #[test]
    fn a_long_tcp_frame_leaves_as_packets_in_order_between_its_neighbours() {
        let (long, payload) = frame(TCP, 65_000);
        let (short, _) = frame(UDP, 10);
        let umem = pool(256);
        let (sent, counted) = through(LeftToCard::EVERYTHING, &umem, &[short.clone(), long, short]);
        assert_eq!(sent.len(), 2 + 65_000usize.div_ceil(1460));
        assert!(
            sent.iter()
                .all(|frame| checksum::verify(frame) == Some(true) && frame.len() <= 1514)
        );
        assert_eq!((sent[0].len(), sent[sent.len() - 1].len()), (52, 52));
        let stream: Vec<u8> = sent[1..sent.len() - 1]
            .iter()
            .flat_map(|frame| frame[54..].to_vec())
            .collect();
        assert_eq!(stream, payload);
        assert_eq!(counted, crate::device::Totals::default());
        assert_eq!(umem.in_depot(), (256, 8), "no frame is lost to the pool");
    }

    #[test]
    fn more_packets_than_a_batch_holds_all_leave() {
        let (long, _) = frame(TCP, 64_000);
        let (sent, _) = through(LeftToCard::EVERYTHING, &pool(2048), &vec![long; 7]);
        assert_eq!(sent.len(), 7 * 44);
        assert!(sent.len() > BATCH_MAX);
    }

    #[test]
    fn a_pool_that_runs_out_loses_packets_and_counts_them() {
        let (long, _) = frame(TCP, 65_000);
        let umem = pool(8);
        let (sent, counted) = through(LeftToCard::EVERYTHING, &umem, &[long]);
        assert_eq!(sent.len() as u64 + counted.no_frames, 45);
        assert_eq!(umem.in_depot(), (8, 8));
    }
}
