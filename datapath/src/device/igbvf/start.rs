//! How an 82576 virtual function is started: the datasheet's 4.5.11.2, after the physical function is up.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bifurcate_linux::Result;

use super::IgbVf;
use super::mailbox::{Mailbox, RESET, SET_MAC};
use super::registers::{
    IVAR_VALID, QUEUE_ENABLE, RDBAH, RDBAL, RDH, RDLEN, RXDCTL, RXDCTL_THRESHOLDS, SRRCTL, SRRCTL_DROP_EN,
    SRRCTL_ONE_BUFFER_2K, TDBAH, TDBAL, TDH, TDLEN, TDT, TXDCTL, TXDCTL_THRESHOLDS, VTCTRL, VTCTRL_RST,
    VTEIAC, VTEICR, VTEIMC, VTIVAR,
};
use crate::device::pmd::Step;

/// How long the function may take to switch a queue.
const LONGEST: Duration = Duration::from_millis(100);

/// The page of steps.
pub(super) const STEPS: &[Step<IgbVf>] = &[
    Step {
        section: "4.5.4",
        what: "mask every interrupt",
        run: mask_interrupts,
    },
    Step {
        section: "4.2.2.2",
        what: "reset the function",
        run: reset,
    },
    Step {
        section: "7.10.2.9",
        what: "greet the physical function's driver",
        run: greet,
    },
    Step {
        section: "4.5.9",
        what: "receive ring",
        run: receive_ring,
    },
    Step {
        section: "4.5.10",
        what: "transmit ring",
        run: transmit_ring,
    },
    Step {
        section: "7.3.3",
        what: "a vector for the queue",
        run: interrupts,
    },
];

fn mask_interrupts(vf: &IgbVf) -> Result<()> {
    VTEIMC.write(vf.registers(), u32::MAX);
    VTEICR.write(vf.registers(), u32::MAX);
    Ok(())
}

fn reset(vf: &IgbVf) -> Result<()> {
    VTCTRL.change(vf.registers(), VTCTRL_RST, 0);
    std::thread::sleep(Duration::from_millis(2));
    Mailbox::new(vf.registers()).wait_for_reset()
}

/// The driver of the physical function switches our queues on and says which address is ours.
fn greet(vf: &IgbVf) -> Result<()> {
    let mailbox = Mailbox::new(vf.registers());
    let [_, low, high] = mailbox.ask([RESET, 0, 0])?;
    let mut mac = u64::from(low) | u64::from(high & 0xffff) << 32;
    let wanted = vf.config.mac.map(|mac| {
        let [a, b, c, d, e, f] = mac;
        u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
    });
    if let Some(wanted) = wanted.filter(|wanted| *wanted != mac) {
        mailbox.ask([SET_MAC, wanted as u32, (wanted >> 32) as u32])?;
        mac = wanted;
    }
    vf.mac.store(mac, Ordering::Relaxed);
    Ok(())
}

fn receive_ring(vf: &IgbVf) -> Result<()> {
    let (registers, ring) = (vf.registers(), vf.ring.rx);
    RXDCTL.write(registers, 0);
    RDBAL.write(registers, ring as u32);
    RDBAH.write(registers, (ring >> 32) as u32);
    RDLEN.write(registers, vf.config.ring_size * 16);
    RDH.write(registers, 0);
    SRRCTL.write(registers, SRRCTL_ONE_BUFFER_2K | SRRCTL_DROP_EN);
    RXDCTL.write(registers, RXDCTL_THRESHOLDS | QUEUE_ENABLE);
    // The tail is moved only after this, by whoever fills the ring.
    RXDCTL
        .wait(registers, LONGEST, |rxdctl| rxdctl & QUEUE_ENABLE != 0)
        .map(drop)
}

fn transmit_ring(vf: &IgbVf) -> Result<()> {
    let (registers, ring) = (vf.registers(), vf.ring.tx);
    TXDCTL.write(registers, 0);
    TDBAL.write(registers, ring as u32);
    TDBAH.write(registers, (ring >> 32) as u32);
    TDLEN.write(registers, vf.config.ring_size * 16);
    TDH.write(registers, 0);
    TDT.write(registers, 0);
    TXDCTL.write(registers, TXDCTL_THRESHOLDS | QUEUE_ENABLE);
    TXDCTL
        .wait(registers, LONGEST, |txdctl| txdctl & QUEUE_ENABLE != 0)
        .map(drop)
}

fn interrupts(vf: &IgbVf) -> Result<()> {
    if vf.vectors {
        VTIVAR.write(vf.registers(), IVAR_VALID);
        VTEIAC.write(vf.registers(), 1);
    }
    Ok(())
}
