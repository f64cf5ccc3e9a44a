//! The driver on a model of its card.

use std::sync::Arc;

use super::registers::{
    DAQF, EIMC, EIMS, ETQF, FTQF, IMIR, IMIREXT, IMS, MDIC, MDIC_READY, MRQC, MRQC_RSS, QUEUE_ENABLE, RAH,
    RAL, RCTL, RDT, RETA, RQDPC, RSSRK, RXDCTL, SAQF, SPQF, SRRCTL, SRRCTL_DROP_EN, STATUS, STATUS_LU,
};
use super::{Igb, start};
use crate::device::pmd::model::checks::{
    POLLING, Rig, asleep, checks, flows_are_hashed_as_published, rig, small,
};
use crate::device::pmd::model::{Layout, Model};
use crate::device::pmd::{Config, Filter, Link, Presence, Waking};

const LAYOUT: Layout = Layout {
    stride: 0x40,
    receive: 0xC000,
    transmit: 0xE000,
    control: (0, 1 << 26),
    // Link up, full duplex, 1,000 Mb/s.
    status: (8, 0x83),
    drops: Some(0xC030),
};

fn with(config: &Config) -> Rig {
    let model = Model::new(LAYOUT, Some(phy));
    model.set_register(RAL.offset, 0x0012_3402);
    model.set_register(RAH.offset, 0x8000_5678);
    rig(
        model,
        |registers, pool, config| start("model", None, registers, pool, config, POLLING),
        config,
    )
}

/// The PHY answers at once.
fn phy(registers: &mut std::collections::BTreeMap<u32, u32>, offset: u32, value: u32) {
    if offset == MDIC.offset {
        registers.insert(offset, value | MDIC_READY);
    }
}

fn one() -> Rig {
    with(&small(1))
}

checks!(one);

#[test]
fn every_queue_is_on_and_drops_for_itself_alone() {
    let rig = with(&small(4));
    for n in 0..4 {
        assert_eq!(
            rig.model.register(SRRCTL.at(n).offset) & SRRCTL_DROP_EN,
            SRRCTL_DROP_EN,
            "queue {n}"
        );
        assert_eq!(
            rig.model.register(RXDCTL.at(n).offset) & QUEUE_ENABLE,
            QUEUE_ENABLE,
            "queue {n}"
        );
        assert_eq!(
            rig.model.register(RDT.at(n).offset),
            63,
            "queue {n} has its frames"
        );
    }
    assert_eq!(rig.model.register(RXDCTL.at(4).offset), 0);
    assert_eq!(rig.model.register(MRQC.offset), MRQC_RSS);
    assert_eq!(rig.model.register(RETA.at(0).offset), 0x0302_0100);
}

#[test]
fn its_key_is_the_published_one() {
    flows_are_hashed_as_published(&with(&small(2)), RSSRK);
}

#[test]
fn a_queue_that_nobody_polls_costs_only_its_own_frames_and_they_are_counted() {
    let mut rig = with(&small(2));
    for _ in 0..100 {
        rig.model.receive(1, &[1; 60]);
        assert!(rig.model.receive(0, &[0; 60]));
        assert_eq!(rig.queues[0].rx.poll(&mut rig.batch), 1);
        rig.batch.clear();
    }
    let statistics = rig.shared.nic.statistics();
    let drops: Vec<u64> = statistics
        .iter()
        .filter(|one| one.name == RQDPC.name)
        .map(|one| one.value)
        .collect();
    assert_eq!(drops, [0, 100 - 63]);
}

#[test]
fn its_address_link_and_presence_are_told() {
    let rig = one();
    assert_eq!(rig.shared.nic.mac(), [0x02, 0x34, 0x12, 0x00, 0x78, 0x56]);
    assert_eq!(
        rig.shared.nic.link(),
        Link {
            up: true,
            speed: 1000,
            full_duplex: true
        }
    );
    assert_eq!(rig.shared.presence(), Presence::Here);
    rig.model.set_register(STATUS.offset, 0x83 & !STATUS_LU);
    assert_eq!(
        (rig.shared.presence(), rig.shared.nic.link().up),
        (Presence::Down, false)
    );
    // A reset leaves queue 0 enabled: that says nothing.
    assert_ne!(rig.model.register(RXDCTL.at(0).offset) & QUEUE_ENABLE, 0);
    rig.model.set_register(RCTL.offset, 0);
    assert_eq!(rig.shared.presence(), Presence::Gone, "somebody reset it");
    rig.model.set_register(RCTL.offset, u32::MAX);
    assert_eq!(rig.shared.presence(), Presence::Gone, "unplugged");
}

#[test]
fn filters_are_written_numbered_and_taken_back() {
    let rig = with(&small(2));
    let nic = &rig.shared.nic;
    let arp = nic.add_filter(&Filter::EtherType(0x0806), 1).unwrap();
    assert_eq!(
        rig.model.register(ETQF.at(0).offset),
        1 << 31 | 1 << 26 | 1 << 16 | 0x0806
    );
    let dns = Filter::FiveTuple {
        protocol: 17,
        source: None,
        destination: None,
        source_port: None,
        destination_port: Some(53),
    };
    let five = nic.add_filter(&dns, 1).unwrap();
    assert_eq!(
        rig.model.register(FTQF.at(0).offset),
        0xe000_0000 | 1 << 16 | 1 << 15 | 1 << 8 | 17
    );
    assert_eq!(nic.add_filter(&dns, 2).unwrap_err().code(), "EINVAL");
    for _ in 0..7 {
        nic.add_filter(&dns, 0).unwrap();
    }
    assert_eq!(nic.add_filter(&dns, 0).unwrap_err().code(), "ENOSPC");
    nic.remove_filter(arp).unwrap();
    nic.remove_filter(five).unwrap();
    assert_eq!(
        (
            rig.model.register(ETQF.at(0).offset),
            rig.model.register(FTQF.at(0).offset)
        ),
        (0, 0)
    );
    assert_eq!(nic.remove_filter(five).unwrap_err().code(), "ENOENT");
}

/// SAQF, DAQF, SPQF, IMIR, IMIREXT and FTQF of five-tuple filter `n`.
fn five_tuple(rig: &Rig, n: u32) -> [u32; 6] {
    [SAQF, DAQF, SPQF, IMIR, IMIREXT, FTQF].map(|register| rig.model.register(register.at(n).offset))
}

// The numbers are the datasheet's (7.1.1.5, 8.11), not this driver's names for them. Addresses and ports are in network
// order: the byte that is first on the wire is the lowest of the register, as the kernel's igb writes a port too
// (htons, drivers/net/ethernet/intel/igb/igb_ptp.c).
#[test]
fn a_filter_of_all_five_fields_compares_each_as_it_is_on_the_wire() {
    let rig = with(&small(4));
    let filter = Filter::FiveTuple {
        protocol: 6,
        source: Some([192, 0, 2, 1]),
        destination: Some([198, 51, 100, 7]),
        source_port: Some(0x1234),
        destination_port: Some(443),
    };
    rig.shared.nic.add_filter(&filter, 3).unwrap();
    let (size_bypass, flags_bypass) = (1 << 12, 1 << 19);
    let (queue_enable, any_function, queue) = (1 << 8, 1 << 15, 3 << 16);
    assert_eq!(
        five_tuple(&rig, 0),
        [
            0x0102_00c0,
            0x0764_33c6,
            0x3412,
            // 443 is 0x01bb. Bit 17, which would let every port by, is clear; so is 16: no interrupt at once.
            0xbb01,
            size_bypass | flags_bypass,
            // Bits 28 to 31, which would let a field by, are clear.
            6 | queue_enable | any_function | queue,
        ]
    );
    assert_eq!(five_tuple(&rig, 1), [0; 6], "one filter's registers are written");
}

#[test]
fn a_filter_of_a_protocol_alone_lets_everything_else_by_and_leaves_nothing_of_the_one_before() {
    let rig = with(&small(2));
    let nic = &rig.shared.nic;
    let all = Filter::FiveTuple {
        protocol: 17,
        source: Some([10, 0, 0, 1]),
        destination: Some([10, 0, 0, 2]),
        source_port: Some(1),
        destination_port: Some(2),
    };
    let before = nic.add_filter(&all, 1).unwrap();
    nic.remove_filter(before).unwrap();
    let alone = Filter::FiveTuple {
        protocol: 1,
        source: None,
        destination: None,
        source_port: None,
        destination_port: None,
    };
    nic.add_filter(&alone, 0).unwrap();
    let (source, destination, source_port) = (1 << 29, 1 << 30, 1 << 31);
    assert_eq!(
        five_tuple(&rig, 0),
        [
            0,
            0,
            0,
            1 << 17,
            1 << 12 | 1 << 19,
            1 | 1 << 8 | 1 << 15 | source | destination | source_port,
        ]
    );
}

#[test]
fn a_stop_masks_interrupts_and_receives_no_more() {
    let rig = one();
    let model = Arc::clone(&rig.model);
    drop(rig);
    assert_eq!(
        (model.register(RCTL.offset), model.register(EIMC.offset)),
        (0, u32::MAX)
    );
}

#[test]
fn a_card_that_does_not_switch_a_queue_on_names_the_step() {
    let refuses: crate::device::pmd::model::Hook = |registers, offset, value| {
        phy(registers, offset, value);
        if offset == RXDCTL.at(0).offset {
            registers.insert(offset, 0);
        }
    };
    let umem = crate::frame::Umem::map(&crate::frame::UmemConfig::default()).unwrap();
    let config = small(1);
    let pool = crate::device::pmd::Pool::anonymous(&umem, 2, 64, 1 << 32, 2 << 32).unwrap();
    let error = start(
        "model",
        None,
        Model::new(LAYOUT, Some(refuses)),
        pool,
        &config,
        Waking::default(),
    )
    .err()
    .unwrap();
    assert_eq!(error.code(), "ETIMEDOUT");
    assert!(
        error.to_string().contains("receive rings") && error.to_string().contains("RXDCTL"),
        "{error}"
    );
}

#[test]
fn a_driver_is_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Igb>();
}

/// With queues that are to sleep where there are `count` interrupts.
fn sleeping(queues: u32, count: u32, vectors: bool) -> Rig {
    let begin = move |registers, pool, config: &Config| {
        let waking = asleep(config.queues, count, vectors);
        start("model", None, registers, pool, config, waking)
    };
    rig(Model::new(LAYOUT, Some(phy)), begin, &small(queues))
}

#[test]
fn each_sleep_arms_the_interrupt_anew_and_none_is_begun_on_a_frame() {
    let mut rig = sleeping(1, 1, true);
    for round in 0..3 {
        rig.model.set_register(EIMS.offset, 0);
        assert!(
            rig.queues[0].rx.prepare_to_wait(),
            "round {round}: nothing is there"
        );
        assert_eq!(rig.model.register(EIMS.offset), 1, "round {round}");
        rig.model.receive(0, &[0; 60]);
        assert!(
            !rig.queues[0].rx.prepare_to_wait(),
            "round {round}: a frame came before"
        );
        rig.model.set_register(EIMC.offset, 0);
        assert_eq!(rig.queues[0].rx.poll(&mut rig.batch), 1);
        assert_eq!(
            rig.model.register(EIMC.offset),
            1,
            "round {round}: none while it polls"
        );
        rig.batch.clear();
    }
}

#[test]
fn queues_that_have_no_interrupt_each_poll_and_it_is_said_why() {
    let mut few = sleeping(2, 1, false);
    assert!(!few.shared.waking.interrupts);
    assert_eq!(
        few.shared.waking.refused.as_deref(),
        Some("interrupts=yes: few gives the card 1 for 2 queues, which need one each; the queues poll")
    );
    let masked = (few.model.register(EIMS.offset), few.model.register(IMS.offset));
    assert!(few.queues[0].rx.prepare_to_wait());
    assert_eq!(
        (few.model.register(EIMS.offset), few.model.register(IMS.offset)),
        masked,
        "none is armed that nobody waits for"
    );
    for (queues, count, vectors) in [(1, 1, false), (1, 3, true), (2, 2, true)] {
        let enough = sleeping(queues, count, vectors);
        let waking = Waking {
            interrupts: true,
            vectors,
            refused: None,
        };
        assert_eq!(enough.shared.waking, waking, "{count} for {queues}");
    }
    assert_eq!(with(&small(2)).shared.waking.refused, None, "nobody asked");
}
