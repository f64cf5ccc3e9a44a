//! The mailbox between a virtual function and its physical function's driver: 16 words and a register that says whose
//! turn it is (82576EB datasheet, 7.10.2.9). What the words mean is between the two drivers: the kernel's igb answers
//! the requests here (drivers/net/ethernet/intel/igb/e1000_mbx.h).

use std::cell::Cell;
use std::time::{Duration, Instant};

use bifurcate_linux::{Error, Result};

use super::registers::{
    MAILBOX_ACK, MAILBOX_OURS, MAILBOX_READ, MAILBOX_REQUEST, MAILBOX_RESET_DONE, MAILBOX_RESETTING,
    MAILBOX_WRITTEN, V2PMAILBOX, VMBMEM,
};
use crate::device::pmd::Registers;

/// Requests.
pub(super) const RESET: u32 = 1;
pub(super) const SET_MAC: u32 = 2;
/// The answer is yes; no.
const YES: u32 = 0x8000_0000;
const NO: u32 = 0x4000_0000;
/// The physical function's driver is ready for requests.
const CLEAR_TO_SEND: u32 = 0x2000_0000;

/// How long the other driver may take: it works in an interrupt of the kernel's.
const LONGEST: Duration = Duration::from_secs(1);

const ETIMEDOUT: i32 = 110;
const EPERM: i32 = 1;

/// Our end.
pub(super) struct Mailbox<'a> {
    registers: &'a dyn Registers,
    /// Bits that reading the register has cleared and nobody has used.
    seen: Cell<u32>,
}

impl Mailbox<'_> {
    pub(super) fn new(registers: &dyn Registers) -> Mailbox<'_> {
        Mailbox {
            registers,
            seen: Cell::new(0),
        }
    }

    /// Waits until the physical function is not being reset.
    pub(super) fn wait_for_reset(&self) -> Result<()> {
        self.wait("the end of a reset", |this| {
            let now = V2PMAILBOX.read(this.registers);
            this.seen.set(this.seen.get() | now);
            now & MAILBOX_RESETTING == 0
        })
    }

    /// Asks, and waits for the answer: its words, the first without what says yes.
    pub(super) fn ask<const WORDS: usize>(&self, request: [u32; WORDS]) -> Result<[u32; WORDS]> {
        self.lock()?;
        self.take(MAILBOX_WRITTEN | MAILBOX_READ);
        for (n, word) in (0..).zip(request) {
            VMBMEM.at(n).write(self.registers, word);
        }
        V2PMAILBOX.write(self.registers, MAILBOX_REQUEST);
        self.wait("the request to be read", |this| this.take(MAILBOX_READ))?;
        self.wait("an answer", |this| this.take(MAILBOX_WRITTEN))?;
        self.lock()?;
        let mut answer = [0; WORDS];
        for (n, word) in (0..).zip(&mut answer) {
            *word = VMBMEM.at(n).read(self.registers);
        }
        V2PMAILBOX.write(self.registers, MAILBOX_ACK);
        let said = answer[0] & !CLEAR_TO_SEND;
        if said & NO != 0 || said & YES == 0 || said & 0xffff != request[0] {
            let why = format!(
                "request {} answered {:#x}: the physical function's driver refused",
                request[0], answer[0]
            );
            return Err(Error::new("mailbox", why, EPERM));
        }
        Ok(answer)
    }

    /// Whether the physical function was reset since the last look: our queues are off then.
    pub(super) fn was_reset(&self) -> bool {
        V2PMAILBOX.read(self.registers) & (MAILBOX_RESET_DONE | MAILBOX_RESETTING) != 0
    }

    fn lock(&self) -> Result<()> {
        self.wait("the memory", |this| {
            V2PMAILBOX.write(this.registers, MAILBOX_OURS);
            let now = V2PMAILBOX.read(this.registers);
            this.seen.set(this.seen.get() | now);
            now & MAILBOX_OURS != 0
        })
    }

    /// Whether one of the bits was set since somebody last asked for it.
    fn take(&self, bits: u32) -> bool {
        let all = self.seen.get() | V2PMAILBOX.read(self.registers);
        self.seen.set(all & !bits);
        all & bits != 0
    }

    fn wait(&self, what: &str, done: impl Fn(&Self) -> bool) -> Result<()> {
        let end = Instant::now() + LONGEST;
        loop {
            // Before it is asked: a thread that stood still beyond the end asks once more.
            let late = Instant::now() > end;
            if done(self) {
                return Ok(());
            }
            if late {
                let why = format!(
                    "waited {LONGEST:?} for {what}: is the physical function up, with the kernel's driver?"
                );
                return Err(Error::new("mailbox", why, ETIMEDOUT));
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}
