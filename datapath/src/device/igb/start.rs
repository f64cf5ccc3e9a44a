//! How an 82576 is started: the steps of the datasheet's section 4.5, in its order.

use std::time::Duration;

use bifurcate_linux::Result;

use super::Igb;
use super::registers::{
    CTRL, CTRL_EXT, CTRL_EXT_DRV_LOAD, CTRL_MASTER_DISABLE, CTRL_RST, CTRL_SLU, CTRL_VME, EIAC, EICR, EIMC,
    GPIE, GPIE_MSIX, ICR, IMC, IVAR, IVAR_VALID, MDIC, MDIC_ERROR, MDIC_READ_CONTROL, MDIC_READY,
    MDIC_WRITE_CONTROL, MRQC, MRQC_RSS, MTA, PHY_NEGOTIATE, PHY_OFF, QUEUE_ENABLE, RAH, RAH_AV, RAL, RCTL,
    RCTL_BAM, RCTL_MPE, RCTL_RXEN, RCTL_SECRC, RCTL_UPE, RDBAH, RDBAL, RDH, RDLEN, RETA, RSSRK, RXCSUM,
    RXCSUM_PCSD, RXDCTL, RXDCTL_THRESHOLDS, SRRCTL, SRRCTL_DROP_EN, SRRCTL_ONE_BUFFER_2K, STATUS,
    STATUS_MASTER, TCTL, TCTL_INIT, TDBAH, TDBAL, TDH, TDLEN, TDT, TXDCTL, TXDCTL_THRESHOLDS,
};
use crate::device::pmd::{RSS_KEY, Step};

/// How long the card may take for a reset or to switch a queue.
const LONGEST: Duration = Duration::from_millis(100);

/// The page of steps.
pub(super) const STEPS: &[Step<Igb>] = &[
    Step {
        section: "4.5.4",
        what: "mask every interrupt",
        run: mask_interrupts,
    },
    Step {
        section: "5.2.3.3",
        what: "stop requests to memory",
        run: master_disable,
    },
    Step {
        section: "4.5.5",
        what: "reset",
        run: reset,
    },
    Step {
        section: "4.5.4",
        what: "mask every interrupt again",
        run: mask_interrupts,
    },
    Step {
        section: "4.5.7",
        what: "bring the link up, keep VLAN tags in frames",
        run: link_up,
    },
    Step {
        section: "3.5.2.2",
        what: "have the PHY negotiate",
        run: negotiate,
    },
    Step {
        section: "4.5.8",
        what: "clear the statistics by reading them",
        run: clear_statistics,
    },
    Step {
        section: "4.5.9",
        what: "addresses to receive",
        run: addresses,
    },
    Step {
        section: "7.1.1.7",
        what: "spread flows over the queues",
        run: receive_side_scaling,
    },
    Step {
        section: "4.5.9",
        what: "receive rings",
        run: receive_rings,
    },
    Step {
        section: "4.5.9",
        what: "receive",
        run: receive,
    },
    Step {
        section: "4.5.10",
        what: "transmit rings",
        run: transmit_rings,
    },
    Step {
        section: "7.3.3",
        what: "a vector a queue",
        run: interrupts,
    },
];

fn mask_interrupts(igb: &Igb) -> Result<()> {
    let registers = igb.registers();
    EIMC.write(registers, u32::MAX);
    IMC.write(registers, u32::MAX);
    ICR.read(registers);
    EICR.write(registers, u32::MAX);
    Ok(())
}

fn master_disable(igb: &Igb) -> Result<()> {
    let registers = igb.registers();
    CTRL.change(registers, CTRL_MASTER_DISABLE, 0);
    // A card that does not say it has stopped is reset all the same: the datasheet says so too.
    match STATUS.wait(registers, LONGEST, |status| status & STATUS_MASTER == 0) {
        Err(error) if error.code() != "ETIMEDOUT" => Err(error),
        _ => Ok(()),
    }
}

fn reset(igb: &Igb) -> Result<()> {
    let registers = igb.registers();
    RCTL.write(registers, 0);
    TCTL.write(registers, 0);
    CTRL.change(registers, CTRL_RST, 0);
    // The registers must not be touched for a millisecond.
    std::thread::sleep(Duration::from_millis(2));
    CTRL.wait(registers, LONGEST, |ctrl| ctrl & CTRL_RST == 0)
        .map(drop)
}

fn link_up(igb: &Igb) -> Result<()> {
    let registers = igb.registers();
    CTRL.change(registers, CTRL_SLU, CTRL_VME | CTRL_MASTER_DISABLE);
    CTRL_EXT.change(registers, CTRL_EXT_DRV_LOAD, 0);
    Ok(())
}

/// The PHY forgets what it negotiated when the card is reset.
fn negotiate(igb: &Igb) -> Result<()> {
    let registers = igb.registers();
    let operate = |operation: u32| {
        MDIC.write(registers, operation);
        MDIC.wait(registers, LONGEST, |mdic| mdic & (MDIC_READY | MDIC_ERROR) != 0)
    };
    let control = operate(MDIC_READ_CONTROL)? & 0xffff;
    operate(MDIC_WRITE_CONTROL | control & !PHY_OFF | PHY_NEGOTIATE).map(drop)
}

fn clear_statistics(igb: &Igb) -> Result<()> {
    igb.statistics.refresh(igb.registers());
    igb.statistics.forget();
    Ok(())
}

fn addresses(igb: &Igb) -> Result<()> {
    let registers = igb.registers();
    if let Some(mac) = igb.config.mac {
        RAL.at(0)
            .write(registers, u32::from_le_bytes([mac[0], mac[1], mac[2], mac[3]]));
        RAH.at(0).write(
            registers,
            u32::from(u16::from_le_bytes([mac[4], mac[5]])) | RAH_AV,
        );
    }
    for n in 0..128 {
        MTA.at(n).write(registers, 0);
    }
    Ok(())
}

fn receive_side_scaling(igb: &Igb) -> Result<()> {
    let registers = igb.registers();
    let queues = igb.config.queues;
    if queues == 1 {
        MRQC.write(registers, 0);
        return Ok(());
    }
    for (n, word) in (0..).zip(RSS_KEY) {
        RSSRK.at(n).write(registers, word);
    }
    for n in 0..32 {
        let entry = |i: u32| ((4 * n + i) % queues) << (8 * i);
        RETA.at(n)
            .write(registers, entry(0) | entry(1) | entry(2) | entry(3));
    }
    RXCSUM.change(registers, RXCSUM_PCSD, 0);
    MRQC.write(registers, MRQC_RSS);
    Ok(())
}

fn receive_rings(igb: &Igb) -> Result<()> {
    let registers = igb.registers();
    for (n, ring) in (0..).zip(&igb.rings) {
        RXDCTL.at(n).write(registers, 0);
        RDBAL.at(n).write(registers, ring.rx as u32);
        RDBAH.at(n).write(registers, (ring.rx >> 32) as u32);
        RDLEN.at(n).write(registers, igb.config.ring_size * 16);
        RDH.at(n).write(registers, 0);
        SRRCTL
            .at(n)
            .write(registers, SRRCTL_ONE_BUFFER_2K | SRRCTL_DROP_EN);
        RXDCTL.at(n).write(registers, RXDCTL_THRESHOLDS | QUEUE_ENABLE);
        // The tail is moved only after this, by whoever fills the ring.
        RXDCTL
            .at(n)
            .wait(registers, LONGEST, |rxdctl| rxdctl & QUEUE_ENABLE != 0)?;
    }
    Ok(())
}

fn receive(igb: &Igb) -> Result<()> {
    let everything = if igb.config.promiscuous {
        RCTL_UPE | RCTL_MPE
    } else {
        0
    };
    RCTL.write(igb.registers(), RCTL_RXEN | RCTL_BAM | RCTL_SECRC | everything);
    Ok(())
}

fn transmit_rings(igb: &Igb) -> Result<()> {
    let registers = igb.registers();
    for (n, ring) in (0..).zip(&igb.rings) {
        TXDCTL.at(n).write(registers, 0);
        TDBAL.at(n).write(registers, ring.tx as u32);
        TDBAH.at(n).write(registers, (ring.tx >> 32) as u32);
        TDLEN.at(n).write(registers, igb.config.ring_size * 16);
        TDH.at(n).write(registers, 0);
        TDT.at(n).write(registers, 0);
        TXDCTL.at(n).write(registers, TXDCTL_THRESHOLDS | QUEUE_ENABLE);
        TXDCTL
            .at(n)
            .wait(registers, LONGEST, |txdctl| txdctl & QUEUE_ENABLE != 0)?;
    }
    TCTL.write(registers, TCTL_INIT);
    Ok(())
}

fn interrupts(igb: &Igb) -> Result<()> {
    let registers = igb.registers();
    if !igb.vectors {
        return Ok(());
    }
    GPIE.write(registers, GPIE_MSIX);
    for queue in 0..igb.config.queues {
        // Register n: receive queue n in byte 0, transmit queue n in byte 1, receive queue n + 8 in byte 2.
        let shift = 16 * (queue / 8);
        IVAR.at(queue % 8)
            .change(registers, (queue | IVAR_VALID) << shift, 0xff << shift);
    }
    EIAC.write(registers, (1 << igb.config.queues) - 1);
    Ok(())
}
