//! The registers of an 82576 virtual function that the driver uses (82576EB datasheet, revision 2.63, section 8.28).

use crate::device::pmd::registers;

registers! {
    VTCTRL      0x0000 ReadWrite "VF Control: reset" "8.28";
    VTSTATUS    0x0008 ReadOnly  "VF Status: the link" "8.28";
    VMBMEM      0x0800 + 0x4 * n ReadWrite "Mailbox memory, 16 words" "8.28";
    V2PMAILBOX  0x0C40 ReadWrite "Mailbox: whose turn it is; some bits clear when read" "8.28";
    VFGPRC      0x0F10 ReadOnly  "good frames received, never cleared" "8.28";
    VFGPTC      0x0F14 ReadOnly  "good frames sent, never cleared" "8.28";
    VTEIMS      0x1524 ReadWrite "Extended Interrupt Mask Set" "8.28";
    VTEIMC      0x1528 WriteOnly "Extended Interrupt Mask Clear" "8.28";
    VTEIAC      0x152C ReadWrite "Extended Interrupt Auto Clear" "8.28";
    VTEICR      0x1580 ReadWrite "Extended Interrupt Cause: written ones clear" "8.28";
    VTIVAR      0x1700 ReadWrite "Interrupt Vector Allocation: receive queue 0 in byte 0, transmit queue 0 in byte 1" "8.28";
    SRRCTL      0x280C + 0x100 * n ReadWrite "Split and Replication Receive Control: buffer size, Drop_En" "8.28";
    RDBAL       0x2800 + 0x100 * n ReadWrite "Receive Descriptor Base Address, low half" "8.28";
    RDBAH       0x2804 + 0x100 * n ReadWrite "Receive Descriptor Base Address, high half" "8.28";
    RDLEN       0x2808 + 0x100 * n ReadWrite "Receive Descriptor Ring Length, in bytes" "8.28";
    RDH         0x2810 + 0x100 * n ReadWrite "Receive Descriptor Head" "8.28";
    RDT         0x2818 + 0x100 * n ReadWrite "Receive Descriptor Tail" "8.28";
    RXDCTL      0x2828 + 0x100 * n ReadWrite "Receive Descriptor Control: thresholds, ENABLE" "8.28";
    RQDPC       0x2830 + 0x100 * n ReadClear "Receive Queue Drop Packet Count" "8.28";
    TDBAL       0x3800 + 0x100 * n ReadWrite "Transmit Descriptor Base Address, low half" "8.28";
    TDBAH       0x3804 + 0x100 * n ReadWrite "Transmit Descriptor Base Address, high half" "8.28";
    TDLEN       0x3808 + 0x100 * n ReadWrite "Transmit Descriptor Ring Length, in bytes" "8.28";
    TDH         0x3810 + 0x100 * n ReadWrite "Transmit Descriptor Head" "8.28";
    TDT         0x3818 + 0x100 * n ReadWrite "Transmit Descriptor Tail" "8.28";
    TXDCTL      0x3828 + 0x100 * n ReadWrite "Transmit Descriptor Control: thresholds, ENABLE" "8.28";
}

/// VTCTRL: reset this function.
pub const VTCTRL_RST: u32 = 1 << 26;
/// VTSTATUS: both directions at once.
pub const STATUS_FD: u32 = 1 << 0;
/// VTSTATUS: link up.
pub const STATUS_LU: u32 = 1 << 1;
/// V2PMAILBOX: we have written a request.
pub const MAILBOX_REQUEST: u32 = 1 << 0;
/// V2PMAILBOX: we have read what the physical function wrote.
pub const MAILBOX_ACK: u32 = 1 << 1;
/// V2PMAILBOX: the memory is ours.
pub const MAILBOX_OURS: u32 = 1 << 2;
/// V2PMAILBOX: the physical function has written. Clears when read.
pub const MAILBOX_WRITTEN: u32 = 1 << 4;
/// V2PMAILBOX: the physical function has read. Clears when read.
pub const MAILBOX_READ: u32 = 1 << 5;
/// V2PMAILBOX: the physical function is being reset.
pub const MAILBOX_RESETTING: u32 = 1 << 6;
/// V2PMAILBOX: the physical function was reset. Clears when read.
pub const MAILBOX_RESET_DONE: u32 = 1 << 7;
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
/// VTIVAR: the entry counts.
pub const IVAR_VALID: u32 = 0x80;
