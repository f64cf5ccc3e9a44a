//! Registers as rows: name, offset, access, meaning, section. How one may be used is in its type.

use std::marker::PhantomData;
use std::time::{Duration, Instant};

use bifurcate_linux::pci::Bar;
use bifurcate_linux::{Error, Result};

/// A device's 32-bit registers: a card's, or a model's.
pub trait Registers: Send + Sync {
    /// Reads the register at byte `offset`.
    fn read(&self, offset: u32) -> u32;
    /// Writes the register at byte `offset`, after everything written to memory before.
    fn write(&self, offset: u32, value: u32);
}

impl Registers for Bar {
    #[inline]
    fn read(&self, offset: u32) -> u32 {
        self.read32(offset as usize)
    }

    #[inline]
    fn write(&self, offset: u32, value: u32) {
        self.write32(offset as usize, value);
    }
}

/// May be read and written.
#[derive(Clone, Copy, Debug)]
pub enum ReadWrite {}
/// May only be read.
#[derive(Clone, Copy, Debug)]
pub enum ReadOnly {}
/// May only be written.
#[derive(Clone, Copy, Debug)]
pub enum WriteOnly {}
/// Reading it clears it.
#[derive(Clone, Copy, Debug)]
pub enum ReadClear {}

/// How a register may be used.
pub trait Access {
    /// As the tables print it.
    const NAME: &'static str;
}
impl Access for ReadWrite {
    const NAME: &'static str = "RW";
}
impl Access for ReadOnly {
    const NAME: &'static str = "RO";
}
impl Access for WriteOnly {
    const NAME: &'static str = "WO";
}
impl Access for ReadClear {
    const NAME: &'static str = "RC";
}

/// May be read.
pub trait Readable: Access {}
impl Readable for ReadWrite {}
impl Readable for ReadOnly {}
impl Readable for ReadClear {}

/// May be written.
pub trait Writable: Access {}
impl Writable for ReadWrite {}
impl Writable for WriteOnly {}

/// One register, or the first of an array of them.
#[derive(Clone, Copy, Debug)]
pub struct Register<A> {
    /// What the datasheet calls it.
    pub name: &'static str,
    /// Byte offset.
    pub offset: u32,
    /// Bytes from one element of the array to the next; 0: no array.
    pub stride: u32,
    access: PhantomData<A>,
}

/// A row of a driver's table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// What the datasheet calls it.
    pub name: &'static str,
    /// Byte offset, of the first element of an array.
    pub offset: u32,
    /// Bytes from one element to the next; 0: no array.
    pub stride: u32,
    /// RW, RO, WO or RC.
    pub access: &'static str,
    /// What it is.
    pub meaning: &'static str,
    /// Section of the datasheet.
    pub section: &'static str,
}

impl<A> Register<A> {
    /// A register; `stride` as in [`Register::stride`].
    #[must_use]
    pub const fn new(name: &'static str, offset: u32, stride: u32) -> Register<A> {
        Register {
            name,
            offset,
            stride,
            access: PhantomData,
        }
    }

    /// Element `n` of the array.
    #[must_use]
    pub const fn at(&self, n: u32) -> Register<A> {
        Register::new(self.name, self.offset + n * self.stride, 0)
    }
}

impl<A: Readable> Register<A> {
    /// Reads it.
    pub fn read(&self, registers: &dyn Registers) -> u32 {
        registers.read(self.offset)
    }

    /// Reads it until `done` likes what it reads.
    ///
    /// # Errors
    /// `ETIMEDOUT` after `longest`, naming the register and what it read last; `ENODEV` when the card is gone.
    pub fn wait(
        &self,
        registers: &dyn Registers,
        longest: Duration,
        done: impl Fn(u32) -> bool,
    ) -> Result<u32> {
        let end = Instant::now() + longest;
        loop {
            // Before it is read: a thread that stood still beyond the end reads once more.
            let late = Instant::now() > end;
            let value = self.read(registers);
            if value == u32::MAX {
                return Err(Error::new(
                    "card",
                    format!("register {} reads as all ones", self.name),
                    ENODEV,
                ));
            }
            if done(value) {
                return Ok(value);
            }
            if late {
                let why = format!("register {}={value:#x} after {longest:?}", self.name);
                return Err(Error::new("card", why, ETIMEDOUT));
            }
            std::thread::sleep(Duration::from_micros(100));
        }
    }
}

const ENODEV: i32 = 19;
const ETIMEDOUT: i32 = 110;

impl<A: Writable> Register<A> {
    /// Writes it.
    pub fn write(&self, registers: &dyn Registers, value: u32) {
        registers.write(self.offset, value);
    }
}

impl Register<ReadWrite> {
    /// Sets `set` and clears `clear`, leaving the other bits.
    pub fn change(&self, registers: &dyn Registers, set: u32, clear: u32) {
        let value = self.read(registers);
        self.write(registers, value & !clear | set);
    }
}

/// Makes a constant of each row, and `TABLE` of all of them.
macro_rules! registers {
    ($($name:ident $offset:literal $(+ $stride:literal * n)? $access:ident $meaning:literal $section:literal;)*) => {
        $(
            #[doc = $meaning]
            #[doc = concat!("(section ", $section, ").")]
            pub const $name: $crate::device::pmd::Register<$crate::device::pmd::$access> =
                $crate::device::pmd::Register::new(stringify!($name), $offset, 0 $(+ $stride)?);
        )*
        /// Every register that this driver uses.
        pub const TABLE: &[$crate::device::pmd::Row] = &[$(
            $crate::device::pmd::Row {
                name: stringify!($name),
                offset: $offset,
                stride: 0 $(+ $stride)?,
                access: <$crate::device::pmd::$access as $crate::device::pmd::registers::Access>::NAME,
                meaning: $meaning,
                section: $section,
            },
        )*];
    };
}
pub(crate) use registers;
