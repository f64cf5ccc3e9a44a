//! The driver on a model of a virtual function, with the driver of the physical function behind the mailbox.

use std::collections::BTreeMap;

use super::registers::{
    MAILBOX_OURS, MAILBOX_READ, MAILBOX_REQUEST, MAILBOX_WRITTEN, RQDPC, RXDCTL, SRRCTL, SRRCTL_DROP_EN,
    V2PMAILBOX, VFGPRC, VMBMEM,
};
use super::start;
use crate::device::pmd::model::checks::{Few, Rig, checks, rig, small};
use crate::device::pmd::model::{Hook, Layout, Model};
use crate::device::pmd::{Config, Pool, Presence, Waking};
use crate::frame::{Umem, UmemConfig};

const LAYOUT: Layout = Layout {
    stride: 0x100,
    receive: 0x2800,
    transmit: 0x3800,
    control: (0, 1 << 26),
    status: (8, 0x83),
    drops: Some(0x2830),
};

/// The kernel's igb: says yes to a reset with an address, and to any address. Bits that clear when read are left to the
/// driver, which copes with seeing them twice.
fn physical(registers: &mut BTreeMap<u32, u32>, offset: u32, value: u32) {
    if offset != V2PMAILBOX.offset {
        return;
    }
    if value & MAILBOX_REQUEST != 0 {
        let request = registers[&VMBMEM.offset];
        if request == 1 {
            registers.insert(VMBMEM.at(1).offset, 0x4433_2202);
            registers.insert(VMBMEM.at(2).offset, 0x6655);
        }
        registers.insert(VMBMEM.offset, request | 0x8000_0000);
        registers.insert(offset, MAILBOX_READ | MAILBOX_WRITTEN);
    } else {
        let kept = registers[&offset] & MAILBOX_OURS;
        registers.insert(offset, kept);
    }
}

fn with(config: &Config) -> Rig {
    rig(
        Model::new(LAYOUT, Some(physical)),
        |registers, pool, config| start("model", None, registers, pool, config, Waking::default()),
        config,
    )
}

fn one() -> Rig {
    with(&small(1))
}

checks!(one);

#[test]
fn the_physical_function_says_which_address_it_has() {
    let rig = one();
    assert_eq!(rig.shared.nic.mac(), [0x02, 0x22, 0x33, 0x44, 0x55, 0x66]);
    assert_eq!(rig.model.register(SRRCTL.offset) & SRRCTL_DROP_EN, SRRCTL_DROP_EN);
    assert_eq!(rig.shared.presence(), Presence::Here);
    rig.model.set_register(RXDCTL.offset, 0);
    assert_eq!(rig.shared.presence(), Presence::Gone);
}

#[test]
fn what_finds_no_buffer_is_counted() {
    let rig = one();
    for _ in 0..100 {
        rig.model.receive(0, &[0; 60]);
    }
    let dropped = || {
        let all = rig.shared.nic.statistics();
        all.iter().find(|one| one.name == RQDPC.name).unwrap().value
    };
    assert_eq!(dropped(), 100 - 63);
    // Reading clears the register: what it counts next is added.
    rig.model.set_register(RQDPC.offset, 2);
    assert_eq!(dropped(), 100 - 63 + 2);
}

#[test]
fn good_frames_are_counted_past_the_end_of_the_register_and_no_more_when_the_card_is_gone() {
    let model = Model::new(LAYOUT, Some(physical));
    model.set_register(VFGPRC.offset, u32::MAX - 4);
    let rig = rig(
        model,
        |registers, pool, config| start("model", None, registers, pool, config, Waking::default()),
        &small(1),
    );
    let received = || {
        let all = rig.shared.nic.statistics();
        all.iter().find(|one| one.name == VFGPRC.name).unwrap().value
    };
    assert_eq!(received(), 0);
    rig.model.set_register(VFGPRC.offset, 10);
    assert_eq!(received(), 15);
    rig.model.set_register(RXDCTL.offset, 0);
    rig.model.set_register(VFGPRC.offset, 0);
    assert_eq!(received(), 15);
}

#[test]
fn it_may_ask_for_another() {
    let mac = Some([2, 0, 0, 0, 0, 7]);
    let rig = with(&Config { mac, ..small(1) });
    assert_eq!(rig.shared.nic.mac(), [2, 0, 0, 0, 0, 7]);
}

fn refused(hook: Option<Hook>) -> bifurcate_linux::Error {
    let umem = Umem::map(&UmemConfig::default()).unwrap();
    let pool = Pool::anonymous(&umem, 2, 64, 1 << 32, 2 << 32).unwrap();
    start(
        "model",
        None,
        Model::new(LAYOUT, hook),
        pool,
        &small(1),
        Waking::default(),
    )
    .err()
    .unwrap()
}

#[test]
fn a_physical_function_that_is_silent_or_says_no_is_named() {
    let silent = refused(None);
    assert_eq!(silent.code(), "ETIMEDOUT");
    assert!(
        silent.to_string().contains("greet the physical function"),
        "{silent}"
    );
    let no = refused(Some(|registers, offset, value| {
        physical(registers, offset, value);
        if offset == V2PMAILBOX.offset && value & MAILBOX_REQUEST != 0 {
            registers.insert(VMBMEM.offset, 1 | 0x4000_0000);
        }
    }));
    assert_eq!(no.code(), "EPERM");
}

#[test]
fn it_sleeps_by_a_vector_and_by_nothing_else() {
    let config = Config {
        interrupts: true,
        ..small(1)
    };
    let waking = |vectors| Waking::by_vectors(&mut Few { count: 1, vectors }, &config).unwrap();
    assert_eq!((waking(true).interrupts, waking(true).refused), (true, None));
    let line = waking(false);
    assert!(!line.interrupts);
    let why = line.refused.unwrap();
    assert!(
        why.starts_with("interrupts=yes: few gives the card no vector"),
        "{why}"
    );
}
