//! The 82574's registers that the driver uses (82574 datasheet, revision 3.4, chapter 10): general 10.2.2, interrupts
//! 10.2.4, receiving 10.2.5, sending 10.2.6, statistics 10.2.7.

use crate::device::pmd::registers;

registers! {
    CTRL        0x0000 ReadWrite "Device Control" "10.2.2";
    STATUS      0x0008 ReadOnly  "Device Status" "10.2.2";
    CTRL_EXT    0x0018 ReadWrite "Extended Device Control" "10.2.2";
    GCR         0x5B00 ReadWrite "PCIe Control" "10.2.3";
    ICR         0x00C0 ReadClear "Interrupt Cause Read" "10.2.4";
    IMS         0x00D0 ReadWrite "Interrupt Mask Set" "10.2.4";
    IMC         0x00D8 WriteOnly "Interrupt Mask Clear" "10.2.4";
    EIAC        0x00DC ReadWrite "Extended Interrupt Auto Clear: a vector that was sent clears its cause" "10.2.4";
    IVAR        0x00E4 ReadWrite "Interrupt Vector Allocation" "10.2.4";
    RCTL        0x0100 ReadWrite "Receive Control" "10.2.5";
    RDBAL       0x2800 + 0x100 * n ReadWrite "Receive Descriptor Base Address, low half" "10.2.5";
    RDBAH       0x2804 + 0x100 * n ReadWrite "Receive Descriptor Base Address, high half" "10.2.5";
    RDLEN       0x2808 + 0x100 * n ReadWrite "Receive Descriptor Ring Length, in bytes" "10.2.5";
    RDH         0x2810 + 0x100 * n ReadWrite "Receive Descriptor Head" "10.2.5";
    RDT         0x2818 + 0x100 * n ReadWrite "Receive Descriptor Tail" "10.2.5";
    RDTR        0x2820 ReadWrite "Receive Interrupt Packet Delay Timer" "10.2.5";
    RADV        0x282C ReadWrite "Receive Interrupt Absolute Delay Timer" "10.2.5";
    RXDCTL      0x2828 + 0x100 * n ReadWrite "Receive Descriptor Control: thresholds" "10.2.5";
    RXCSUM      0x5000 ReadWrite "Receive Checksum Control" "10.2.5";
    RFCTL       0x5008 ReadWrite "Receive Filter Control: extended descriptors" "10.2.5";
    MTA         0x5200 + 0x4 * n ReadWrite "Multicast Table Array" "10.2.5";
    RAL         0x5400 + 0x8 * n ReadWrite "Receive Address, low half" "10.2.5";
    RAH         0x5404 + 0x8 * n ReadWrite "Receive Address, high half, and Address Valid" "10.2.5";
    MRQC        0x5818 ReadWrite "Multiple Receive Queues Command" "10.2.5";
    RETA        0x5C00 + 0x4 * n ReadWrite "Redirection Table: four entries a register" "10.2.5";
    RSSRK       0x5C80 + 0x4 * n ReadWrite "RSS Random Key" "10.2.5";
    TCTL        0x0400 ReadWrite "Transmit Control" "10.2.6";
    TIPG        0x0410 ReadWrite "Transmit Inter Packet Gap" "10.2.6";
    TDBAL       0x3800 + 0x100 * n ReadWrite "Transmit Descriptor Base Address, low half" "10.2.6";
    TDBAH       0x3804 + 0x100 * n ReadWrite "Transmit Descriptor Base Address, high half" "10.2.6";
    TDLEN       0x3808 + 0x100 * n ReadWrite "Transmit Descriptor Ring Length, in bytes" "10.2.6";
    TDH         0x3810 + 0x100 * n ReadWrite "Transmit Descriptor Head" "10.2.6";
    TDT         0x3818 + 0x100 * n ReadWrite "Transmit Descriptor Tail" "10.2.6";
    TXDCTL      0x3828 + 0x100 * n ReadWrite "Transmit Descriptor Control: thresholds" "10.2.6";
    TARC        0x3840 + 0x100 * n ReadWrite "Transmit Arbitration Count: a queue takes part" "10.2.6";
    CRCERRS     0x4000 ReadClear "frames with a bad CRC" "10.2.7";
    MPC         0x4010 ReadClear "frames that found the receive FIFO full" "10.2.7";
    GPRC        0x4074 ReadClear "good frames received" "10.2.7";
    GPTC        0x4080 ReadClear "good frames sent" "10.2.7";
    RNBC        0x40A0 ReadClear "frames that found no receive buffer" "10.2.7";
    ROC         0x40AC ReadClear "frames longer than any that may come" "10.2.7";
    TPR         0x40D0 ReadClear "frames received, good or bad" "10.2.7";
    TPT         0x40D4 ReadClear "frames sent, good or bad" "10.2.7";
}

/// CTRL: no new requests to the host's memory.
pub const CTRL_MASTER_DISABLE: u32 = 1 << 2;
/// CTRL: set link up, at the speed that is found.
pub const CTRL_SLU_ASDE: u32 = 1 << 6 | 1 << 5;
/// CTRL: reset everything but the PHY.
pub const CTRL_RST: u32 = 1 << 26;
/// CTRL: strip VLAN tags.
pub const CTRL_VME: u32 = 1 << 30;
/// STATUS: both directions at once.
pub const STATUS_FD: u32 = 1 << 0;
/// STATUS: link up.
pub const STATUS_LU: u32 = 1 << 1;
/// STATUS: requests to the host's memory are under way, or may be.
pub const STATUS_MASTER: u32 = 1 << 19;
/// CTRL_EXT: a driver has the card.
pub const CTRL_EXT_DRV_LOAD: u32 = 1 << 28;
/// CTRL_EXT: MSI-X vectors are cleared by the message (PBA support).
pub const CTRL_EXT_PBA_CLEAR: u32 = 1 << 31;
/// GCR: as the datasheet's 10.2.3 says it must be set.
pub const GCR_MUST: u32 = 1 << 22;
/// RCTL: receive.
pub const RCTL_RXEN: u32 = 1 << 1;
/// RCTL: every unicast.
pub const RCTL_UPE: u32 = 1 << 3;
/// RCTL: every multicast.
pub const RCTL_MPE: u32 = 1 << 4;
/// RCTL: broadcast.
pub const RCTL_BAM: u32 = 1 << 15;
/// RCTL: strip the CRC. Buffers of 2 KiB are what the other bits say when they are zero.
pub const RCTL_SECRC: u32 = 1 << 26;
/// RFCTL: extended receive descriptors.
pub const RFCTL_EXSTEN: u32 = 1 << 15;
/// RXCSUM: the descriptor has the RSS hash, not the packet's checksum.
pub const RXCSUM_PCSD: u32 = 1 << 13;
/// MRQC: queues by RSS; hash of IPv4 and IPv6, with TCP ports.
pub const MRQC_RSS: u32 = 1 | 1 << 16 | 1 << 17 | 1 << 18 | 1 << 20;
/// RXDCTL and TXDCTL: thresholds count descriptors; prefetch 8, host 8 (1 for sending), write back each.
pub const RXDCTL_THRESHOLDS: u32 = 1 << 24 | 8 | 8 << 8 | 1 << 16;
/// TXDCTL: the same; and bit 22, which 10.2.6 says must be set.
pub const TXDCTL_THRESHOLDS: u32 = 1 << 24 | 1 << 22 | 8 | 1 << 8 | 1 << 16;
/// TARC: the queue takes part, with a weight of 3.
pub const TARC_ENABLE: u32 = 1 << 10 | 3;
/// TCTL: send; pad short frames; the collision threshold and distance for full duplex; bit 28 must be set.
pub const TCTL_INIT: u32 = 1 << 1 | 1 << 3 | 0xf << 4 | 0x3f << 12 | 1 << 28;
/// TIPG: what IEEE 802.3 asks for between frames.
pub const TIPG_INIT: u32 = 8 | 8 << 10 | 6 << 20;
/// RAH: the address counts.
pub const RAH_AV: u32 = 1 << 31;
/// IMS: receive queue 0, receive queue 1, when there is a vector each.
pub const IMS_RXQ: u32 = 1 << 20;
/// IMS: the receive timer, when there is one interrupt for everything.
pub const IMS_RXT0: u32 = 1 << 7;
/// IVAR: the entry counts; receive queues have bits 0 to 3 and 4 to 7. Bit 31: every cause is a message.
pub const IVAR_VALID: u32 = 8;
/// IVAR: a message on every write-back.
pub const IVAR_EVERY: u32 = 1 << 31;
