//! The driver on a model of its card.

use std::sync::Arc;

use bifurcate_linux::Result;
use proptest::prelude::*;
use proptest::test_runner::{Config as Runs, TestRunner};

use super::model::{Made, Model};
use super::registers::status;
use crate::device::pmd::model::checks;
use crate::device::pmd::{Config, Presence, Quiet};
use crate::device::{QueuePair, State};
use crate::frame::{Batch, Pages, Umem, UmemConfig};
use crate::ring::virtio::feature;

const FRAMES: u32 = 1024;

struct Rig {
    model: Arc<Model>,
    queues: Vec<QueuePair>,
    umem: Arc<Umem>,
    batch: Batch,
    quiet: Arc<Quiet>,
}

fn pool(jumbo_frames: u32) -> Arc<Umem> {
    let pages = Pages::Ordinary;
    Umem::map(&UmemConfig {
        frames: FRAMES,
        frame_size: 2048,
        jumbo_frames,
        pages,
    })
    .unwrap()
}

fn begin(made: Made, config: &Config, umem: &Arc<Umem>, before: impl FnOnce(&Model)) -> Result<Rig> {
    let model = Model::new(made);
    before(&model);
    let (port, quiet) = model.open(config, umem)?;
    Ok(Rig {
        model,
        queues: port.queues,
        umem: Arc::clone(umem),
        batch: Batch::new(umem, 64),
        quiet,
    })
}

fn small(queues: u32, packed: bool) -> Config {
    Config {
        queues,
        ring_size: 64,
        packed,
        ..Config::default()
    }
}

fn offering(more: u64, less: u64) -> Made {
    let made = Made::default();
    Made {
        offers: made.offers & !less | more,
        ..made
    }
}

fn rig(queues: u32, packed: bool) -> Rig {
    begin(
        offering(feature::RING_PACKED, 0),
        &small(queues, packed),
        &pool(2),
        |_| (),
    )
    .unwrap()
}

fn packet(n: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| (n * 7 + at) as u8).collect()
}

impl Rig {
    fn poll(&mut self, queue: usize) -> Vec<Vec<u8>> {
        checks::poll(&mut self.queues[queue], &mut self.batch)
    }

    fn send(&mut self, queue: usize, packets: &[Vec<u8>]) -> usize {
        checks::send(&mut self.queues[queue], &mut self.batch, packets)
    }
}

#[test]
fn packets_come_and_go_whole_in_either_layout_and_on_every_pair() {
    for (packed, less) in [
        (false, 0),
        (true, 0),
        (false, feature::EVENT_IDX),
        (true, feature::EVENT_IDX | feature::INDIRECT_DESC | feature::MQ),
    ] {
        let pairs = if less & feature::MQ == 0 { 3 } else { 1 };
        let made = offering(feature::RING_PACKED | feature::IN_ORDER, less);
        let mut rig = begin(made, &small(pairs, packed), &pool(2), |_| ()).unwrap();
        let last = pairs - 1;
        let features = rig.model.features();
        assert_eq!(features & feature::RING_PACKED != 0, packed);
        assert_eq!(features & less, 0);
        assert_eq!(
            rig.poll(last as usize),
            Vec::<Vec<u8>>::new(),
            "its buffers are there now"
        );
        for round in 0..60 {
            let lengths = [14, 60, 61, 64, 1000, 1513, 1514, 1522];
            let some: Vec<Vec<u8>> = (0..)
                .zip(lengths)
                .map(|(n, len)| packet(round + n, len))
                .collect();
            for bytes in &some {
                assert!(rig.model.receive(last, bytes), "round {round}");
            }
            assert_eq!(rig.poll(last as usize), some, "packed {packed}, round {round}");
            assert_eq!(rig.send(last as usize, &some), some.len());
            assert_eq!(rig.model.transmit(last), some, "packed {packed}, round {round}");
        }
        assert_eq!(rig.model.faults(), 0);
        let totals = rig.queues[last as usize].rx.counters().totals();
        assert_eq!((totals.received, totals.invalid_descriptor), (480, 0));
    }
}

#[test]
fn a_packet_in_several_buffers_is_one_packet() {
    for packed in [false, true] {
        let mut rig = rig(1, packed);
        rig.poll(0);
        let long = packet(1, 5000);
        assert!(rig.model.receive(0, &long));
        assert!(rig.model.receive(0, &packet(2, 60)));
        assert_eq!(rig.poll(0), [long.clone(), packet(2, 60)]);
        assert_eq!(rig.send(0, std::slice::from_ref(&long)), 1, "and goes as one");
        assert_eq!(rig.model.transmit(0), [long]);
    }
    // Without jumbo frames there is nothing to merge to, so it is not agreed on.
    let rig = begin(Made::default(), &small(1, false), &pool(0), |_| ()).unwrap();
    assert_eq!(rig.model.features() & feature::MRG_RXBUF, 0);
}

#[test]
fn the_control_queue_is_told_what_was_asked_for() {
    for packed in [false, true] {
        let config = Config {
            promiscuous: false,
            mac: Some([2, 0, 0, 0, 0, 9]),
            ..small(4, packed)
        };
        let made = offering(feature::RING_PACKED, 0);
        let rig = begin(made, &config, &pool(0), |_| ()).unwrap();
        let expected: [&[u8]; 3] = [&[4, 0, 4, 0], &[0, 0, 0], &[1, 1, 2, 0, 0, 0, 0, 9]];
        assert_eq!(rig.model.commands(), expected, "packed {packed}");
        assert_eq!(rig.model.faults(), 0, "packed {packed}");
        assert_eq!(rig.quiet.nic.mac(), [2, 0, 0, 0, 0, 9]);
    }
    let rig = rig(1, false);
    assert_eq!(rig.model.commands(), [[0, 0, 1]], "one pair needs no command");
    assert_eq!(rig.quiet.nic.mac(), [2, 0, 0, 0, 0, 0x2a]);
}

#[test]
fn what_the_device_lacks_is_refused_by_name_and_every_frame_is_free_again() {
    let mac = Config {
        mac: Some([2, 0, 0, 0, 0, 9]),
        ..small(1, false)
    };
    let interrupts = Config {
        interrupts: true,
        ..small(4, false)
    };
    let vectors = Made {
        vectors: 3,
        ..Made::default()
    };
    let cases: [(Made, Config, &str, &str); 9] = [
        (
            offering(0, feature::VERSION_1),
            small(1, false),
            "EOPNOTSUPP",
            "VERSION_1",
        ),
        (
            offering(0, feature::ACCESS_PLATFORM),
            small(1, false),
            "EOPNOTSUPP",
            "passes by the IOMMU",
        ),
        (offering(0, 0), small(1, true), "EOPNOTSUPP", "RING_PACKED"),
        (
            offering(0, feature::MQ),
            small(2, false),
            "EOPNOTSUPP",
            "queues=2",
        ),
        (
            offering(0, feature::INDIRECT_DESC),
            small(2, false),
            "EOPNOTSUPP",
            "queues=2",
        ),
        (offering(0, 0), small(5, false), "EINVAL", "the device has 4"),
        (
            offering(0, feature::CTRL_MAC_ADDR),
            mac,
            "EOPNOTSUPP",
            "CTRL_MAC_ADDR",
        ),
        (vectors, interrupts, "ENOMEM", "vector 3"),
        (
            Made {
                slots: 4,
                ..Made::default()
            },
            small(1, false),
            "EOPNOTSUPP",
            "4 slots",
        ),
    ];
    for (made, config, code, why) in cases {
        let umem = pool(0);
        let error = begin(made, &config, &umem, |_| ()).err().unwrap();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains(why), "{error}");
        assert_eq!(umem.in_depot().0, FRAMES as usize);
    }
    let umem = pool(0);
    let error = begin(Made::default(), &small(2, false), &umem, Model::mute)
        .err()
        .unwrap();
    assert_eq!(error.code(), "ETIMEDOUT");
    assert!(error.to_string().contains("the number of queue pairs"), "{error}");
    assert_eq!(umem.in_depot().0, FRAMES as usize);
}

#[test]
fn rings_are_as_large_as_the_device_lets_them_be() {
    let made = Made {
        slots: 48,
        ..Made::default()
    };
    let mut rig = begin(made, &small(1, false), &pool(0), |_| ()).unwrap();
    rig.poll(0);
    let taken = (0..64).filter(|n| rig.model.receive(0, &packet(*n, 60))).count();
    assert_eq!(taken, 32, "a power of two of the 48");
}

#[test]
fn each_pair_has_a_vector_for_receiving_and_sending_has_none() {
    let config = Config {
        interrupts: true,
        ..small(3, false)
    };
    let rig = begin(Made::default(), &config, &pool(0), |_| ()).unwrap();
    let vectors: Vec<u32> = (0..6).map(|ring| rig.model.vector(ring)).collect();
    assert_eq!(vectors, [0, 0xffff, 1, 0xffff, 2, 0xffff]);
}

#[test]
fn link_and_presence_are_told() {
    let mut rig = rig(1, false);
    assert_eq!(rig.quiet.presence(), Presence::Here);
    rig.model.set_link(false);
    assert_eq!(
        (rig.quiet.presence(), rig.quiet.nic.link().up),
        (Presence::Down, false)
    );
    rig.model.set_link(true);
    for gone in [0, 0xff, status::DRIVER_OK | status::NEEDS_RESET] {
        rig.model.set_status(gone);
        assert_eq!(rig.quiet.presence(), Presence::Gone, "status {gone:#x}");
    }
    std::thread::sleep(std::time::Duration::from_millis(110));
    for _ in 0..128 {
        rig.poll(0);
    }
    assert_eq!(rig.queues[0].rx.state(), State::Gone, "and a loop sees it");
}

#[test]
fn a_close_resets_the_card_before_its_frames_are_free() {
    let mut rig = rig(2, false);
    rig.poll(0);
    rig.send(1, &[packet(0, 60), packet(1, 60)]);
    let Rig {
        model,
        queues,
        umem,
        batch,
        quiet,
        ..
    } = rig;
    drop(batch);
    drop(queues);
    assert_eq!(model.status() & status::DRIVER_OK, status::DRIVER_OK);
    assert!(umem.in_depot().0 < FRAMES as usize);
    drop(quiet);
    assert_eq!(model.status(), 0);
    assert_eq!(umem.in_depot().0, FRAMES as usize);
}

#[derive(Clone, Debug)]
enum Step {
    Receive(usize),
    Scribble(usize, u16),
    Poll,
    Send(usize),
    Transmit,
}

#[test]
fn a_hostile_card_harms_nobody() {
    let mut runner = TestRunner::new(Runs {
        cases: 96,
        failure_persistence: None,
        ..Runs::default()
    });
    let step = prop_oneof![
        3 => (14usize..6000).prop_map(Step::Receive),
        // The rings are the first part of the memory; anywhere in it now and then.
        4 => (0usize..1200, any::<u16>()).prop_map(|(at, value)| Step::Scribble(at, value)),
        1 => (any::<usize>(), any::<u16>()).prop_map(|(at, value)| Step::Scribble(at, value)),
        3 => Just(Step::Poll),
        2 => (1usize..20).prop_map(Step::Send),
        1 => Just(Step::Transmit),
    ];
    let steps = (any::<bool>(), proptest::collection::vec(step, 1..120));
    let run = |(packed, steps): (bool, Vec<Step>)| {
        let mut rig = rig(1, packed);
        let umem = Arc::clone(&rig.umem);
        for step in steps {
            match step {
                Step::Receive(len) => {
                    rig.model.receive(0, &packet(1, len));
                }
                Step::Scribble(at, value) => rig.model.scribble(at, value),
                Step::Poll => {
                    rig.queues[0].rx.poll(&mut rig.batch);
                    for (offset, len) in rig.batch.places() {
                        prop_assert!(len > 0 && (offset + len) as usize <= umem.len());
                        let across = offset < umem.area() && offset / 2048 != (offset + len - 1) / 2048;
                        prop_assert!(!across, "across two frames");
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
                Step::Transmit => drop(rig.model.transmit(0)),
            }
        }
        drop(rig);
        prop_assert_eq!(umem.in_depot().0, FRAMES as usize);
        Ok(())
    };
    runner.run(&steps, run).unwrap();
}

#[test]
fn pairs_that_have_no_interrupt_each_poll_and_it_is_said_why() {
    let umem = pool(0);
    let open = |queues, count, vectors| {
        let waking = checks::asleep(queues, count, vectors);
        let model = Model::new(Made::default());
        let (_, quiet) = model.open_waking(&small(queues, false), &umem, waking).unwrap();
        (
            quiet.waking.interrupts,
            quiet.waking.refused.clone(),
            model.vector(0),
        )
    };
    let (sleeps, refused, vector) = open(2, 1, false);
    let refused = refused.unwrap();
    assert!(refused.contains("1 for 2 queues"), "{refused}");
    assert_eq!((sleeps, vector), (false, 0xffff));
    assert_eq!(open(2, 2, true), (true, None, 0));
    assert_eq!(open(1, 1, false), (true, None, 0xffff));
}
