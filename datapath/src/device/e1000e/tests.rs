//! The driver on a model of its card.

use super::registers::{IMS, IMS_RXQ, RDT, RFCTL, RFCTL_EXSTEN, RSSRK};
use super::start;
use crate::device::pmd::Config;
use crate::device::pmd::model::checks::{
    POLLING, Rig, asleep, checks, flows_are_hashed_as_published, rig, small,
};
use crate::device::pmd::model::{Layout, Model};

const LAYOUT: Layout = Layout {
    stride: 0x100,
    receive: 0x2800,
    transmit: 0x3800,
    control: (0, 1 << 26),
    status: (8, 0x83),
    drops: None,
};

fn with(config: &Config) -> Rig {
    rig(
        Model::new(LAYOUT, None),
        |registers, pool, config| start("model", None, registers, pool, config, POLLING),
        config,
    )
}

fn one() -> Rig {
    with(&small(1))
}

checks!(one);

#[test]
fn both_queues_have_frames_and_extended_descriptors() {
    let rig = with(&small(2));
    assert_eq!(rig.model.register(RFCTL.offset) & RFCTL_EXSTEN, RFCTL_EXSTEN);
    assert_eq!(
        (
            rig.model.register(RDT.at(0).offset),
            rig.model.register(RDT.at(1).offset)
        ),
        (63, 63)
    );
    assert_eq!(rig.queues.len(), 2);
}

#[test]
fn its_key_is_the_published_one() {
    flows_are_hashed_as_published(&with(&small(2)), RSSRK);
}

#[test]
fn three_queues_are_more_than_the_card_has() {
    let error = small(3).check("e1000e", super::QUEUES_MAX).unwrap_err();
    assert!(error.to_string().contains("1 to 2"), "{error}");
}

#[test]
fn queues_that_have_no_interrupt_each_poll_and_it_is_said_why() {
    let sleeping = |queues, count, vectors| {
        let begin = move |registers, pool, config: &Config| {
            let waking = asleep(config.queues, count, vectors);
            start("model", None, registers, pool, config, waking)
        };
        rig(Model::new(LAYOUT, None), begin, &small(queues))
    };
    let mut few = sleeping(2, 1, false);
    let refused = few.shared.waking.refused.clone().unwrap();
    assert!(refused.contains("1 for 2 queues"), "{refused}");
    let masked = few.model.register(IMS.offset);
    assert!(few.queues[1].rx.prepare_to_wait());
    assert_eq!(few.model.register(IMS.offset), masked);
    let mut enough = sleeping(2, 2, true);
    assert_eq!(enough.shared.waking.refused, None);
    assert!(enough.queues[1].rx.prepare_to_wait());
    assert_eq!(enough.model.register(IMS.offset), IMS_RXQ << 1);
}
