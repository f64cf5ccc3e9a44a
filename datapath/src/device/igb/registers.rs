//! The 82576's registers that the driver uses (82576EB datasheet, revision 2.63, chapter 8): general
//! 8.2, interrupts 8.8, receiving 8.10, filters 8.11, sending 8.12, statistics 8.18.
//!
//! ICR, IMS and IMC are at their alias addresses (8.1.3), which every controller of the family has and the kernel's igb
//! uses too; QEMU's emulation knows them by no other.

use crate::device::pmd::registers;

registers! {
    CTRL        0x0000 ReadWrite "Device Control" "8.2.1";
    STATUS      0x0008 ReadOnly  "Device Status" "8.2.2";
    CTRL_EXT    0x0018 ReadWrite "Extended Device Control" "8.2.3";
    MDIC        0x0020 ReadWrite "MDI Control: the PHY's registers" "8.2.4";
    RCTL        0x0100 ReadWrite "Receive Control" "8.10";
    TCTL        0x0400 ReadWrite "Transmit Control" "8.12";
    IMC         0x00D8 WriteOnly "Interrupt Mask Clear: causes other than queues" "8.8";
    ICR         0x00C0 ReadClear "Interrupt Cause Read: causes other than queues" "8.8";
    IMS         0x00D0 ReadWrite "Interrupt Mask Set: causes other than queues" "8.8";
    GPIE        0x1514 ReadWrite "General Purpose Interrupt Enable: MSI-X mode" "8.8";
    EIMS        0x1524 ReadWrite "Extended Interrupt Mask Set" "8.8";
    EIMC        0x1528 WriteOnly "Extended Interrupt Mask Clear" "8.8";
    EIAC        0x152C ReadWrite "Extended Interrupt Auto Clear: a vector that was sent clears its cause" "8.8";
    EICR        0x1580 ReadWrite "Extended Interrupt Cause: written ones clear" "8.8";
    IVAR        0x1700 + 0x4 * n ReadWrite "Interrupt Vector Allocation: queue n and n + 8" "8.8";
    SRRCTL      0xC00C + 0x40 * n ReadWrite "Split and Replication Receive Control: buffer size, Drop_En" "8.10";
    RDBAL       0xC000 + 0x40 * n ReadWrite "Receive Descriptor Base Address, low half" "8.10";
    RDBAH       0xC004 + 0x40 * n ReadWrite "Receive Descriptor Base Address, high half" "8.10";
    RDLEN       0xC008 + 0x40 * n ReadWrite "Receive Descriptor Ring Length, in bytes" "8.10";
    RDH         0xC010 + 0x40 * n ReadWrite "Receive Descriptor Head" "8.10";
    RDT         0xC018 + 0x40 * n ReadWrite "Receive Descriptor Tail" "8.10";
    RXDCTL      0xC028 + 0x40 * n ReadWrite "Receive Descriptor Control: thresholds, ENABLE" "8.10";
    RQDPC       0xC030 + 0x40 * n ReadClear "Receive Queue Drop Packet Count" "8.10";
    RXCSUM      0x5000 ReadWrite "Receive Checksum Control" "8.10";
    MTA         0x5200 + 0x4 * n ReadWrite "Multicast Table Array" "8.10";
    RAL         0x5400 + 0x8 * n ReadWrite "Receive Address, low half" "8.10";
    RAH         0x5404 + 0x8 * n ReadWrite "Receive Address, high half, and Address Valid" "8.10";
    MRQC        0x5818 ReadWrite "Multiple Receive Queues Command" "8.10";
    RETA        0x5C00 + 0x4 * n ReadWrite "Redirection Table: four entries a register" "8.10";
    RSSRK       0x5C80 + 0x4 * n ReadWrite "RSS Random Key" "8.10";
    ETQF        0x5CB0 + 0x4 * n ReadWrite "EType Queue Filter" "8.11";
    SAQF        0x5980 + 0x4 * n ReadWrite "Source Address Queue Filter" "8.11";
    DAQF        0x59A0 + 0x4 * n ReadWrite "Destination Address Queue Filter" "8.11";
    SPQF        0x59C0 + 0x4 * n ReadWrite "Source Port Queue Filter" "8.11";
    FTQF        0x59E0 + 0x4 * n ReadWrite "Five-tuple Queue Filter" "8.11";
    IMIR        0x5A80 + 0x4 * n ReadWrite "Immediate Interrupt Rx: destination port of five-tuple filter n" "8.11";
    IMIREXT     0x5AA0 + 0x4 * n ReadWrite "Immediate Interrupt Rx Extended: size and flags bypass" "8.11";
    TDBAL       0xE000 + 0x40 * n ReadWrite "Transmit Descriptor Base Address, low half" "8.12";
    TDBAH       0xE004 + 0x40 * n ReadWrite "Transmit Descriptor Base Address, high half" "8.12";
    TDLEN       0xE008 + 0x40 * n ReadWrite "Transmit Descriptor Ring Length, in bytes" "8.12";
    TDH         0xE010 + 0x40 * n ReadWrite "Transmit Descriptor Head" "8.12";
    TDT         0xE018 + 0x40 * n ReadWrite "Transmit Descriptor Tail" "8.12";
    TXDCTL      0xE028 + 0x40 * n ReadWrite "Transmit Descriptor Control: thresholds, ENABLE" "8.12";
    CRCERRS     0x4000 ReadClear "frames with a bad CRC" "8.18";
    MPC         0x4010 ReadClear "frames that found the receive FIFO full" "8.18";
    GPRC        0x4074 ReadClear "good frames received" "8.18";
    GPTC        0x4080 ReadClear "good frames sent" "8.18";
    RNBC        0x40A0 ReadClear "frames that found no receive buffer" "8.18";
    ROC         0x40AC ReadClear "frames longer than any that may come" "8.18";
    TPR         0x40D0 ReadClear "frames received, good or bad" "8.18";
    TPT         0x40D4 ReadClear "frames sent, good or bad" "8.18";
}

/// CTRL: no new requests to the host's memory.
pub const CTRL_MASTER_DISABLE: u32 = 1 << 2;
/// CTRL: set link up.
pub const CTRL_SLU: u32 = 1 << 6;
/// CTRL: reset everything but the PHY.
pub const CTRL_RST: u32 = 1 << 26;
/// CTRL: strip VLAN tags.
pub const CTRL_VME: u32 = 1 << 30;
/// STATUS: both directions at once; link up.
pub const STATUS_FD: u32 = 1 << 0;
/// STATUS: link up.
pub const STATUS_LU: u32 = 1 << 1;
/// STATUS: requests to the host's memory are under way, or may be.
pub const STATUS_MASTER: u32 = 1 << 19;
/// CTRL_EXT: a driver has the card.
pub const CTRL_EXT_DRV_LOAD: u32 = 1 << 28;
/// MDIC: write register 0 (control) of the PHY at address 1: the data stand in the low 16 bits.
pub const MDIC_WRITE_CONTROL: u32 = 1 << 21 | 0b01 << 26;
/// MDIC: read it.
pub const MDIC_READ_CONTROL: u32 = 1 << 21 | 0b10 << 26;
/// MDIC: the operation is done.
pub const MDIC_READY: u32 = 1 << 28;
/// MDIC: there was no answer.
pub const MDIC_ERROR: u32 = 1 << 30;
/// The PHY's control register (IEEE 802.3, 22.2.4.1): negotiate; negotiate again; powered down; isolated.
pub const PHY_NEGOTIATE: u32 = 1 << 12 | 1 << 9;
/// The PHY's control register: powered down, isolated.
pub const PHY_OFF: u32 = 1 << 11 | 1 << 10;
/// RCTL: receive; every unicast; every multicast; broadcast; strip the CRC.
pub const RCTL_RXEN: u32 = 1 << 1;
/// RCTL: every unicast.
pub const RCTL_UPE: u32 = 1 << 3;
/// RCTL: every multicast.
pub const RCTL_MPE: u32 = 1 << 4;
/// RCTL: broadcast.
pub const RCTL_BAM: u32 = 1 << 15;
/// RCTL: strip the CRC.
pub const RCTL_SECRC: u32 = 1 << 26;
/// TCTL: send; pad short frames; the collision threshold and distance that 8.12.1 asks for.
pub const TCTL_INIT: u32 = 1 << 1 | 1 << 3 | 0xf << 4 | 0x40 << 12;
/// SRRCTL: buffers of 2 KiB, advanced descriptors with one buffer.
pub const SRRCTL_ONE_BUFFER_2K: u32 = 2 | 1 << 25;
/// SRRCTL: drop what finds no buffer in this queue instead of holding up the others.
pub const SRRCTL_DROP_EN: u32 = 1 << 31;
/// RXDCTL and TXDCTL: the queue is on.
pub const QUEUE_ENABLE: u32 = 1 << 25;
/// RXDCTL: prefetch 8, host 8, write back each (thresholds in descriptors).
pub const RXDCTL_THRESHOLDS: u32 = 8 | 8 << 8 | 1 << 16;
/// TXDCTL: the same for sending.
pub const TXDCTL_THRESHOLDS: u32 = 8 | 1 << 8 | 1 << 16;
/// MRQC: queues by RSS; hash of IPv4 and IPv6 with TCP and UDP ports.
pub const MRQC_RSS: u32 = 0b010 | 1 << 16 | 1 << 17 | 1 << 20 | 1 << 21 | 1 << 22 | 1 << 23;
/// RXCSUM: the descriptor has the RSS hash, not the packet's checksum.
pub const RXCSUM_PCSD: u32 = 1 << 13;
/// GPIE: MSI-X with a vector a cause; causes clear when read or sent.
pub const GPIE_MSIX: u32 = 1 << 4 | 1 << 0;
/// IVAR: the entry counts.
pub const IVAR_VALID: u32 = 0x80;
/// IMS: a receive descriptor was written back, when there is one interrupt for everything.
pub const IMS_RXDW: u32 = 1 << 7;
/// RAH: the address counts.
pub const RAH_AV: u32 = 1 << 31;
/// ETQF: the filter is on; it chooses a queue, whose number begins at bit 16.
pub const ETQF_ENABLE: u32 = 1 << 26;
/// ETQF: it chooses a queue.
pub const ETQF_QUEUE_ENABLE: u32 = 1 << 31;
/// ETQF and FTQF: bit at which the queue's number begins.
pub const FILTER_QUEUE_SHIFT: u32 = 16;
/// FTQF: it chooses a queue.
pub const FTQF_QUEUE_ENABLE: u32 = 1 << 8;
/// FTQF: do not compare the virtual function.
pub const FTQF_VF_BYPASS: u32 = 1 << 15;
/// FTQF: do not compare the source address.
pub const FTQF_SOURCE_BYPASS: u32 = 1 << 29;
/// FTQF: do not compare the destination address.
pub const FTQF_DESTINATION_BYPASS: u32 = 1 << 30;
/// FTQF: do not compare the source port.
pub const FTQF_SOURCE_PORT_BYPASS: u32 = 1 << 31;
/// IMIR: do not compare the destination port.
pub const IMIR_PORT_BYPASS: u32 = 1 << 17;
/// IMIREXT: do not compare the size; do not compare TCP's flags.
pub const IMIREXT_BYPASS: u32 = 1 << 12 | 1 << 19;
/// Most EtherType filters.
pub const ETQF_COUNT: u32 = 8;
/// Most five-tuple filters.
pub const FTQF_COUNT: u32 = 8;
