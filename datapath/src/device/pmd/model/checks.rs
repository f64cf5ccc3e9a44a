//! What every driver over the descriptor-ring engine is held to, on a model of its card.

use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::{Config as Runs, TestRunner};

use super::Model;
use crate::device::pmd::{Config, Interrupts, Pool, Quiet, ReadWrite, Register, Registers, Waking};
use crate::device::{Port, QueuePair};
use crate::frame::{Batch, Pages, Umem, UmemConfig};

/// What starts a driver on a model gives.
pub type Started = bifurcate_linux::Result<(Port, Arc<Quiet>)>;

/// A driver, the model under it, and what the tests need of both.
pub struct Rig {
    /// The card.
    pub model: Arc<Model>,
    /// Its queues.
    pub queues: Vec<QueuePair>,
    /// Its pool.
    pub umem: Arc<Umem>,
    /// A batch over the pool.
    pub batch: Batch,
    /// The driver.
    pub shared: Arc<Quiet>,
}

const FRAMES: u32 = 512;
const FRAMES_AT: u64 = 0x1_0000_0000;
const SLOTS_AT: u64 = 0x2_0000_0000;

/// Starts `start` on `model`.
pub fn rig(
    model: Arc<Model>,
    start: impl FnOnce(Arc<dyn Registers>, Pool, &Config) -> Started,
    config: &Config,
) -> Rig {
    let umem = Umem::map(&UmemConfig {
        frames: FRAMES,
        frame_size: 2048,
        jumbo_frames: 2,
        pages: Pages::Ordinary,
    })
    .unwrap();
    let pool = Pool::anonymous(
        &umem,
        2 * config.queues as usize,
        config.ring_size,
        FRAMES_AT,
        SLOTS_AT,
    )
    .unwrap();
    model.give(&pool);
    let (port, shared) = start(Arc::clone(&model) as Arc<dyn Registers>, pool, config).unwrap();
    Rig {
        model,
        queues: port.queues,
        batch: Batch::new(&umem, 32),
        umem,
        shared,
    }
}

/// Polling queues, of a card that has a vector for each.
pub const POLLING: Waking = Waking {
    interrupts: false,
    vectors: true,
    refused: None,
};

/// A mechanism with so many interrupts, all of which a card may have.
pub struct Few {
    /// How many.
    pub count: u32,
    /// They are vectors.
    pub vectors: bool,
}

impl Interrupts for Few {
    fn via(&self) -> &'static str {
        "few"
    }

    fn enable(&mut self, wanted: u32) -> bifurcate_linux::Result<u32> {
        Ok(self.count.min(wanted.max(1)))
    }

    fn are_vectors(&self) -> bool {
        self.vectors
    }
}

/// How `queues` queues wait that are to sleep where there are `count` interrupts.
pub fn asleep(queues: u32, count: u32, vectors: bool) -> Waking {
    let config = Config {
        interrupts: true,
        ..small(queues)
    };
    Waking::of(&mut Few { count, vectors }, &config).unwrap()
}

/// Small rings.
pub fn small(queues: u32) -> Config {
    Config {
        queues,
        ring_size: 64,
        ..Config::default()
    }
}

fn frame(n: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| (n * 7 + at) as u8).collect()
}

/// Polls a queue into an empty batch, which is empty again afterwards; gives the frames.
pub fn poll(queue: &mut QueuePair, batch: &mut Batch) -> Vec<Vec<u8>> {
    queue.rx.poll(batch);
    let got = (0..batch.len()).map(|at| batch.bytes(at).to_vec()).collect();
    batch.clear();
    got
}

/// Sends frames of those bytes by an empty batch, which is empty again afterwards; gives how many the queue took.
pub fn send(queue: &mut QueuePair, batch: &mut Batch, frames: &[Vec<u8>]) -> usize {
    for bytes in frames {
        let frame = batch
            .cache_mut()
            .copy_in(bytes)
            .expect("the pool has a free frame");
        batch.push_send(frame, 0).expect("the batch has room");
    }
    batch.sending_to(0);
    let sent = queue.tx.send(batch);
    batch.clear();
    sent
}

impl Rig {
    fn poll(&mut self, queue: usize) -> Vec<Vec<u8>> {
        poll(&mut self.queues[queue], &mut self.batch)
    }

    fn send(&mut self, queue: usize, frames: &[Vec<u8>]) -> usize {
        send(&mut self.queues[queue], &mut self.batch, frames)
    }
}

/// The key stands in the registers so that the card hashes as everybody does: Toeplitz over a TCP packet of
/// Microsoft's "Verifying the RSS Hash Calculation". `key` is the first of the registers that hold it.
pub fn flows_are_hashed_as_published(rig: &Rig, key: Register<ReadWrite>) {
    let key: Vec<u8> = (0..10)
        .flat_map(|n| rig.model.register(key.at(n).offset).to_le_bytes())
        .collect();
    let window = |bit: usize| {
        let bits = (bit..bit + 32).map(|at| u32::from(key[at / 8] >> (7 - at % 8) & 1));
        bits.fold(0, |word, bit| word << 1 | bit)
    };
    let [from, to] = [[66, 9, 149, 187], [161, 142, 100, 80]];
    let [from_port, to_port] = [2794u16, 1766].map(u16::to_be_bytes);
    let packet = [&from[..], &to, &from_port, &to_port].concat();
    let set = (0..8 * packet.len()).filter(|bit| packet[bit / 8] >> (7 - bit % 8) & 1 == 1);
    assert_eq!(set.fold(0, |hash, bit| hash ^ window(bit)), 0x51cc_c178);
}

/// Everything comes as it was sent, in order, many times round each ring.
pub fn frames_come_and_go_whole(mut rig: Rig) {
    let last = rig.queues.len() - 1;
    for round in 0..40 {
        let lengths = [60, 61, 590, 1514];
        let frames: Vec<Vec<u8>> = (0..17).map(|n| frame(round * 17 + n, lengths[n % 4])).collect();
        for bytes in &frames {
            assert!(rig.model.receive(last as u32, bytes), "round {round}");
        }
        assert_eq!(rig.poll(last), frames, "round {round}");
        assert_eq!(rig.send(last, &frames), 17);
        assert_eq!(rig.model.transmit(last as u32), frames, "round {round}");
    }
    let totals = rig.queues[last].rx.counters().totals();
    assert_eq!(
        (totals.received, totals.invalid_descriptor, totals.no_frames),
        (680, 0, 0)
    );
    assert_eq!(rig.model.faults(), 0);
}

/// A doorbell a batch for sending, and fewer for receiving.
pub fn doorbells_are_few(mut rig: Rig) {
    let before = rig.model.doorbells();
    for _ in 0..16 {
        for n in 0..8 {
            assert!(rig.model.receive(0, &frame(n, 60)));
        }
        let frames = rig.poll(0);
        rig.send(0, &frames);
        rig.model.transmit(0);
    }
    assert_eq!(rig.model.doorbells() - before, 32);
}

/// A full transmit ring drops and counts; room comes back when the card has sent.
pub fn a_full_ring_is_counted(mut rig: Rig) {
    let frames: Vec<Vec<u8>> = (0..32).map(|n| frame(n, 60)).collect();
    let sent: usize = (0..4).map(|_| rig.send(0, &frames)).sum();
    assert_eq!(sent, 63);
    assert_eq!(rig.queues[0].tx.counters().totals().ring_full, 128 - 63);
    assert_eq!(rig.model.transmit(0).len(), 63);
    assert_eq!(rig.send(0, &frames), 32);
}

/// A pool without free frames stops receiving and loses nothing that it holds; with frames again it goes on.
pub fn an_empty_pool_waits(mut rig: Rig) {
    let mut held = Vec::new();
    while let Some(frame) = rig.batch.cache_mut().take() {
        held.push(frame);
    }
    assert!(rig.model.receive(0, &frame(1, 60)));
    assert!(rig.poll(0).is_empty());
    assert!(rig.queues[0].rx.is_starving());
    assert_eq!(rig.queues[0].rx.counters().totals().no_frames, 1);
    held.drain(..).for_each(|frame| rig.batch.cache_mut().give(frame));
    assert_eq!(rig.poll(0), [frame(1, 60)]);
    assert!(!rig.queues[0].rx.is_starving());
}

/// What cannot be sent is refused and counted.
pub fn lengths_are_checked_when_sending(mut rig: Rig) {
    assert_eq!(
        rig.send(0, &[frame(0, 13), frame(1, 1523), frame(2, 5000), frame(3, 1522)]),
        1
    );
    let totals = rig.queues[0].tx.counters().totals();
    assert_eq!((totals.handler_invalid, totals.too_long), (1, 2));
    assert_eq!(rig.model.transmit(0), [frame(3, 1522)]);
}

/// A frame in pieces, one with an error, one that is too short, one longer than its buffer: each dropped and counted,
/// and the next one comes.
pub fn wrong_descriptors_are_dropped(mut rig: Rig) {
    let good = frame(9, 60);
    let (dd, eop, error) = (1, 2, 1 << 31);
    let model = Arc::clone(&rig.model);
    model.receive_as(0, &good, dd, 60);
    model.receive_as(0, &good, dd, 60);
    model.receive_as(0, &good, dd | eop, 60);
    model.receive_as(0, &good, dd | eop | error, 60);
    model.receive_as(0, &good, dd | eop, 13);
    model.receive_as(0, &good, dd | eop, 0xffff);
    model.receive(0, &good);
    assert_eq!(rig.poll(0), [good]);
    let totals = rig.queues[0].rx.counters().totals();
    assert_eq!(
        (totals.too_long, totals.invalid_descriptor, totals.received),
        (1, 3, 1)
    );
}

/// When the last half is gone, the card was told to stop and every frame is free again.
pub fn a_close_gives_every_frame_back(mut rig: Rig) {
    rig.send(0, &[frame(0, 60), frame(1, 60)]);
    assert!(rig.model.receive(0, &frame(2, 60)));
    let Rig {
        queues,
        umem,
        batch,
        shared,
        ..
    } = rig;
    drop(batch);
    drop(queues);
    assert_eq!(Arc::strong_count(&shared), 1);
    let out = umem.in_depot().0;
    assert!(
        out < FRAMES as usize,
        "frames stay lost while the card may write them"
    );
    drop(shared);
    assert_eq!(umem.in_depot().0, FRAMES as usize);
}

/// What a card that has gone wrong may do.
#[derive(Clone, Debug)]
enum Step {
    Receive {
        status: u32,
        claimed: u32,
    },
    Scribble {
        receiving: bool,
        slot: u32,
        word: u64,
        value: u64,
    },
    Poll,
    Send(usize),
    Transmit,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let status = prop_oneof![Just(0b11), Just(1), Just(0), any::<u32>()];
    let value = prop_oneof![
        any::<u64>(),
        Just(u64::MAX),
        Just(1 << 32),
        Just(0xffff << 32 | 3)
    ];
    proptest::collection::vec(
        prop_oneof![
            4 => (status, any::<u32>()).prop_map(|(status, claimed)| Step::Receive { status, claimed }),
            3 => (any::<bool>(), any::<u32>(), any::<u64>(), value)
                .prop_map(|(receiving, slot, word, value)| Step::Scribble { receiving, slot, word, value }),
            3 => Just(Step::Poll),
            2 => (1usize..20).prop_map(Step::Send),
            1 => Just(Step::Transmit),
        ],
        1..120,
    )
}

/// Whatever the card writes: no panic, no frame outside the pool, no frame in two hands, and none lost at the end.
pub fn a_hostile_card_harms_nobody(make: impl Fn() -> Rig) {
    let mut runner = TestRunner::new(Runs {
        cases: 64,
        failure_persistence: None,
        ..Runs::default()
    });
    let run = |steps: Vec<Step>| {
        let mut rig = make();
        let umem = Arc::clone(&rig.umem);
        for step in steps {
            match step {
                Step::Receive { status, claimed } => {
                    rig.model.receive_as(0, &frame(3, 60), status, claimed);
                }
                Step::Scribble {
                    receiving,
                    slot,
                    word,
                    value,
                } => {
                    rig.model.scribble(receiving, 0, slot, word, value);
                }
                Step::Poll => {
                    rig.queues[0].rx.poll(&mut rig.batch);
                    for (offset, len) in rig.batch.places() {
                        prop_assert!(len >= 14 && offset + len <= umem.area());
                        prop_assert!(offset / 2048 == (offset + len - 1) / 2048, "across two frames");
                    }
                    rig.batch.clear();
                }
                Step::Send(count) => {
                    rig.batch.fill_free(count, 60);
                    rig.batch.send_all(0);
                    rig.batch.sending_to(0);
                    rig.queues[0].tx.send(&mut rig.batch);
                    rig.batch.clear();
                }
                Step::Transmit => {
                    rig.model.transmit(0);
                }
            }
        }
        drop(rig);
        prop_assert_eq!(umem.in_depot().0, FRAMES as usize);
        Ok(())
    };
    runner.run(&steps(), run).unwrap();
}

/// One test a check, for the driver that `$rig` starts.
macro_rules! checks {
    ($rig:expr) => {
        #[test]
        fn frames_come_and_go_whole() {
            $crate::device::pmd::model::checks::frames_come_and_go_whole($rig());
        }

        #[test]
        fn doorbells_are_few() {
            $crate::device::pmd::model::checks::doorbells_are_few($rig());
        }

        #[test]
        fn a_full_ring_is_counted() {
            $crate::device::pmd::model::checks::a_full_ring_is_counted($rig());
        }

        #[test]
        fn an_empty_pool_waits() {
            $crate::device::pmd::model::checks::an_empty_pool_waits($rig());
        }

        #[test]
        fn lengths_are_checked_when_sending() {
            $crate::device::pmd::model::checks::lengths_are_checked_when_sending($rig());
        }

        #[test]
        fn wrong_descriptors_are_dropped() {
            $crate::device::pmd::model::checks::wrong_descriptors_are_dropped($rig());
        }

        #[test]
        fn a_close_gives_every_frame_back() {
            $crate::device::pmd::model::checks::a_close_gives_every_frame_back($rig());
        }

        #[test]
        fn a_hostile_card_harms_nobody() {
            $crate::device::pmd::model::checks::a_hostile_card_harms_nobody($rig);
        }
    };
}
pub(crate) use checks;
