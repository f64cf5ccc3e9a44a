//! How an 82574 is started: the steps of the datasheet's section 4.6, in its order.

use std::time::Duration;

use bifurcate_linux::Result;

use super::E1000e;
use super::registers::{
    CTRL, CTRL_EXT, CTRL_EXT_DRV_LOAD, CTRL_EXT_PBA_CLEAR, CTRL_MASTER_DISABLE, CTRL_RST, CTRL_SLU_ASDE,
    CTRL_VME, EIAC, GCR, GCR_MUST, ICR, IMC, IMS_RXQ, IVAR, IVAR_EVERY, IVAR_VALID, MRQC, MRQC_RSS, MTA,
    RADV, RAH, RAH_AV, RAL, RCTL, RCTL_BAM, RCTL_MPE, RCTL_RXEN, RCTL_SECRC, RCTL_UPE, RDBAH, RDBAL, RDH,
    RDLEN, RDT, RDTR, RETA, RFCTL, RFCTL_EXSTEN, RSSRK, RXCSUM, RXCSUM_PCSD, RXDCTL, RXDCTL_THRESHOLDS,
    STATUS, STATUS_MASTER, TARC, TARC_ENABLE, TCTL, TCTL_INIT, TDBAH, TDBAL, TDH, TDLEN, TDT, TIPG,
    TIPG_INIT, TXDCTL, TXDCTL_THRESHOLDS,
};
use crate::device::pmd::{RSS_KEY, Step};

/// How long the card may take for a reset.
const LONGEST: Duration = Duration::from_millis(100);

/// The page of steps.
pub(super) const STEPS: &[Step<E1000e>] = &[
    Step {
        section: "4.6.1",
        what: "mask every interrupt",
        run: mask_interrupts,
    },
    Step {
        section: "3.1.3.10",
        what: "stop requests to memory",
        run: master_disable,
    },
    Step {
        section: "4.6.2",
        what: "reset",
        run: reset,
    },
    Step {
        section: "4.6.1",
        what: "mask every interrupt again",
        run: mask_interrupts,
    },
    Step {
        section: "4.6.3",
        what: "bring the link up, keep VLAN tags in frames",
        run: link_up,
    },
    Step {
        section: "4.6.4",
        what: "clear the statistics by reading them",
        run: clear_statistics,
    },
    Step {
        section: "4.6.5",
        what: "addresses to receive",
        run: addresses,
    },
    Step {
        section: "7.1.8",
        what: "spread flows over the queues",
        run: receive_side_scaling,
    },
    Step {
        section: "4.6.5",
        what: "receive rings, extended descriptors",
        run: receive_rings,
    },
    Step {
        section: "4.6.5",
        what: "receive",
        run: receive,
    },
    Step {
        section: "4.6.6",
        what: "transmit rings",
        run: transmit_rings,
    },
    Step {
        section: "7.4",
        what: "a vector a queue",
        run: interrupts,
    },
];

fn mask_interrupts(nic: &E1000e) -> Result<()> {
    IMC.write(nic.registers(), u32::MAX);
    ICR.read(nic.registers());
    Ok(())
}

fn master_disable(nic: &E1000e) -> Result<()> {
    let registers = nic.registers();
    CTRL.change(registers, CTRL_MASTER_DISABLE, 0);
    // A card that does not say it has stopped is reset all the same: the datasheet says so too.
    match STATUS.wait(registers, LONGEST, |status| status & STATUS_MASTER == 0) {
        Err(error) if error.code() != "ETIMEDOUT" => Err(error),
        _ => Ok(()),
    }
}

fn reset(nic: &E1000e) -> Result<()> {
    let registers = nic.registers();
    RCTL.write(registers, 0);
    TCTL.write(registers, 0);
    CTRL.change(registers, CTRL_RST, 0);
    std::thread::sleep(Duration::from_millis(2));
    CTRL.wait(registers, LONGEST, |ctrl| ctrl & CTRL_RST == 0)
        .map(drop)
}

fn link_up(nic: &E1000e) -> Result<()> {
    let registers = nic.registers();
    GCR.change(registers, GCR_MUST, 0);
    CTRL.change(registers, CTRL_SLU_ASDE, CTRL_VME | CTRL_MASTER_DISABLE);
    CTRL_EXT.change(registers, CTRL_EXT_DRV_LOAD, 0);
    Ok(())
}

fn clear_statistics(nic: &E1000e) -> Result<()> {
    nic.statistics.refresh(nic.registers());
    nic.statistics.forget();
    Ok(())
}

fn addresses(nic: &E1000e) -> Result<()> {
    let registers = nic.registers();
    if let Some(mac) = nic.config.mac {
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

fn receive_side_scaling(nic: &E1000e) -> Result<()> {
    let registers = nic.registers();
    RXCSUM.change(registers, RXCSUM_PCSD, 0);
    if nic.config.queues == 1 {
        MRQC.write(registers, 0);
        return Ok(());
    }
    for (n, word) in (0..).zip(RSS_KEY) {
        RSSRK.at(n).write(registers, word);
    }
    for n in 0..32 {
        // Bit 7 of an entry is the queue; entries take turns.
        RETA.at(n).write(registers, 0x8000_8000);
    }
    MRQC.write(registers, MRQC_RSS);
    Ok(())
}

fn receive_rings(nic: &E1000e) -> Result<()> {
    let registers = nic.registers();
    RDTR.write(registers, 0);
    RADV.write(registers, 0);
    RFCTL.change(registers, RFCTL_EXSTEN, 0);
    for (n, ring) in (0..).zip(&nic.rings) {
        RDBAL.at(n).write(registers, ring.rx as u32);
        RDBAH.at(n).write(registers, (ring.rx >> 32) as u32);
        RDLEN.at(n).write(registers, nic.config.ring_size * 16);
        RDH.at(n).write(registers, 0);
        RDT.at(n).write(registers, 0);
        RXDCTL.at(n).write(registers, RXDCTL_THRESHOLDS);
    }
    Ok(())
}

fn receive(nic: &E1000e) -> Result<()> {
    let everything = if nic.config.promiscuous {
        RCTL_UPE | RCTL_MPE
    } else {
        0
    };
    RCTL.write(nic.registers(), RCTL_RXEN | RCTL_BAM | RCTL_SECRC | everything);
    Ok(())
}

fn transmit_rings(nic: &E1000e) -> Result<()> {
    let registers = nic.registers();
    for (n, ring) in (0..).zip(&nic.rings) {
        TDBAL.at(n).write(registers, ring.tx as u32);
        TDBAH.at(n).write(registers, (ring.tx >> 32) as u32);
        TDLEN.at(n).write(registers, nic.config.ring_size * 16);
        TDH.at(n).write(registers, 0);
        TDT.at(n).write(registers, 0);
        TXDCTL.at(n).write(registers, TXDCTL_THRESHOLDS);
        TARC.at(n).change(registers, TARC_ENABLE, 0);
    }
    TIPG.write(registers, TIPG_INIT);
    TCTL.write(registers, TCTL_INIT);
    Ok(())
}

fn interrupts(nic: &E1000e) -> Result<()> {
    let registers = nic.registers();
    if !nic.vectors {
        return Ok(());
    }
    CTRL_EXT.change(registers, CTRL_EXT_PBA_CLEAR, 0);
    let mut ivar = IVAR_EVERY;
    for queue in 0..nic.config.queues {
        ivar |= (queue | IVAR_VALID) << (4 * queue);
    }
    IVAR.write(registers, ivar);
    EIAC.write(
        registers,
        IMS_RXQ | if nic.config.queues > 1 { IMS_RXQ << 1 } else { 0 },
    );
    Ok(())
}
