//! A PCI card in the hands of this process, by whichever mechanism: its registers, its memory accesses, its interrupts.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::str::FromStr;
use std::sync::Mutex;
use std::sync::PoisonError;

use crate::dma::{DmaTable, FaultLog, Guardian};
use crate::event::EventFd;
use crate::memory::{HUGE_PAGE, Mapping, MemoryFile, PageKind};
use crate::pci::{Address, Bar, Bus, ConfigSpace, Function};
use crate::uio::{UioDevice, UioDriver};
use crate::vfio::{AddressSpace, VfioDevice, VfioInterrupts, open_cdev, open_group};
use crate::{Error, Result};

/// A way for a process to have a card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// VFIO, by the IOMMU group.
    Vfio,
    /// VFIO, by the card's own file and an iommufd.
    Iommufd,
    /// VFIO on a machine without an IOMMU (`enable_unsafe_noiommu_mode`): no memory protection.
    VfioNoIommu,
    /// `uio_pci_generic`: no memory protection.
    UioPciGeneric,
    /// `igb_uio`: no memory protection.
    IgbUio,
}

impl Via {
    /// Every way.
    pub const ALL: [Via; 5] = [
        Via::Vfio,
        Via::Iommufd,
        Via::VfioNoIommu,
        Via::UioPciGeneric,
        Via::IgbUio,
    ];

    /// Its name on a command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Via::Vfio => "vfio",
            Via::Iommufd => "iommufd",
            Via::VfioNoIommu => "vfio-noiommu",
            Via::UioPciGeneric => "uio_pci_generic",
            Via::IgbUio => "igb_uio",
        }
    }

    /// The kernel driver that a card has to be bound to.
    #[must_use]
    pub fn driver(self) -> &'static str {
        match self {
            Via::Vfio | Via::Iommufd | Via::VfioNoIommu => "vfio-pci",
            Via::UioPciGeneric => "uio_pci_generic",
            Via::IgbUio => "igb_uio",
        }
    }

    /// Whether the card reaches only the memory that is mapped for it.
    #[must_use]
    pub fn protects_memory(self) -> bool {
        matches!(self, Via::Vfio | Via::Iommufd)
    }
}

impl FromStr for Via {
    type Err = Error;

    fn from_str(text: &str) -> Result<Via> {
        let names = Via::ALL.map(Via::name).join(", ");
        let found = Via::ALL.into_iter().find(|via| via.name() == text);
        found.ok_or_else(|| Error::new("pci", format!("via={text}: it is one of {names}"), libc::EINVAL))
    }
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The first I/O address that memory is mapped at: above what 32 bits reach, so away from the windows that an IOMMU
/// keeps to itself (0xfee00000, interrupts), and within the 39 bits that the smallest have.
pub const IOVA_BASE: u64 = 1 << 32;

/// A card in our hands, exclusively. Dropped, it is quiet, and its memory is nobody's but ours again.
#[derive(Debug)]
pub struct Card {
    function: Function,
    via: Via,
    access: Access,
    /// By VFIO what it lets be seen; otherwise by sysfs.
    config: ConfigSpace,
    /// Configuration space by sysfs, locked: one owner a card. None of a card that was lent: its lender sees to that.
    lock: Option<ConfigSpace>,
    interrupts: Option<VfioInterrupts>,
    memory: Mutex<Memory>,
}

#[derive(Debug)]
enum Access {
    Vfio { space: AddressSpace, device: VfioDevice },
    Uio(UioDevice),
    Lent { device: VfioDevice, memory: LentMemory },
}

/// The memory that a lender has mapped for a card: one file, the pool at its beginning, then the rings.
#[derive(Debug)]
pub struct LentMemory {
    /// The file.
    pub file: OwnedFd,
    /// The I/O address of its first byte.
    pub iova: u64,
    /// Where the rings begin, a multiple of [`HUGE_PAGE`].
    pub rings_at: u64,
    /// Bytes of the rings.
    pub ring_bytes: usize,
}

#[derive(Debug)]
struct Memory {
    next: u64,
    /// What the IOMMU says of the card. None where nothing protects, or the log is not ours to read.
    faults: Option<FaultLog>,
    guardian: Option<Guardian>,
}

impl Card {
    /// Takes the card at `address`, which is bound to the driver of `via` already. It cannot touch the host's memory
    /// before [`Card::start_dma`].
    ///
    /// # Errors
    /// `ENODEV` for an address where nothing is; `EBUSY` when another process has the card; `ENXIO` when it is not
    /// bound to the right driver, or in no IOMMU group; and what the mechanism reports.
    pub fn open(bus: &Bus, address: Address, via: Via) -> Result<Card> {
        let function = bus.function(address)?;
        let driver = function.driver();
        if driver.as_deref() != Some(via.driver()) {
            let has = driver.map_or("no driver has it".to_owned(), |driver| format!("{driver} has it"));
            let why = format!("address={address} via={via}: {has}, and {} should", via.driver());
            return Err(Error::new("pci", why, libc::ENXIO));
        }
        let lock = function.lock()?;
        let (access, config) = match via {
            Via::Vfio | Via::VfioNoIommu => vfio(open_group(&function, via == Via::Vfio)?)?,
            Via::Iommufd => vfio(open_cdev(&function)?)?,
            Via::UioPciGeneric => by_uio(UioDevice::open(&function, UioDriver::PciGeneric)?)?,
            Via::IgbUio => by_uio(UioDevice::open(&function, UioDriver::IgbUio)?)?,
        };
        config.set_bus_master(false)?;
        Ok(Card {
            function,
            via,
            access,
            config,
            lock: Some(lock),
            interrupts: None,
            memory: Mutex::new(Memory {
                next: IOVA_BASE,
                faults: via
                    .protects_memory()
                    .then(|| FaultLog::open(address).ok())
                    .flatten(),
                guardian: None,
            }),
        })
    }

    /// A card that another process opened, mapped the memory of, and passed ([`crate::vfio::lend`]). Asks for no right.
    /// It reaches that memory and nothing else, whatever is done here.
    ///
    /// # Errors
    /// `ENODEV` for an address where nothing is; `ENOTTY` for a descriptor that is no VFIO device; `EINVAL` for rings
    /// that begin where they cannot.
    pub fn received(bus: &Bus, address: Address, device: OwnedFd, memory: LentMemory) -> Result<Card> {
        let aligned = |at: u64| at.is_multiple_of(HUGE_PAGE as u64);
        if !aligned(memory.rings_at) || !aligned(memory.iova) {
            let why = format!(
                "address={address} iova={:#x} rings_at={:#x}: they are multiples of {HUGE_PAGE}",
                memory.iova, memory.rings_at
            );
            return Err(Error::new("card", why, libc::EINVAL));
        }
        let function = bus.function(address)?;
        let device = VfioDevice::received(device, address)?;
        let config = device.config()?;
        config.set_bus_master(false)?;
        Ok(Card {
            function,
            via: Via::Vfio,
            access: Access::Lent { device, memory },
            config,
            lock: None,
            interrupts: None,
            memory: Mutex::new(Memory {
                next: IOVA_BASE,
                faults: FaultLog::open(address).ok(),
                guardian: None,
            }),
        })
    }

    /// The card as sysfs shows it.
    #[must_use]
    pub fn function(&self) -> &Function {
        &self.function
    }

    /// How it was taken.
    #[must_use]
    pub fn via(&self) -> Via {
        self.via
    }

    /// Its configuration space.
    #[must_use]
    pub fn config(&self) -> &ConfigSpace {
        &self.config
    }

    /// Maps the registers of base address register `bar`.
    ///
    /// # Errors
    /// `ENXIO` when it is no memory.
    pub fn map_bar(&self, bar: u32) -> Result<Bar> {
        match &self.access {
            Access::Vfio { device, .. } | Access::Lent { device, .. } => device.map_bar(bar),
            Access::Uio(device) => device.map_bar(bar),
        }
    }

    /// Lets the card have the first `len` bytes of `mapping`, and gives the addresses by which it reaches them. With an
    /// IOMMU it reaches them and nothing else. The mapping has to outlive the card.
    ///
    /// # Errors
    /// `ENOMEM` when the process may lock no more memory; `EINVAL` for memory in ordinary pages when there is no
    /// IOMMU.
    pub fn map_memory(&self, mapping: &Mapping, pages: PageKind, len: usize) -> Result<DmaTable> {
        let space = match &self.access {
            Access::Vfio { space, .. } => space,
            Access::Uio(_) => return DmaTable::physical(mapping, pages),
            // Mapped already, by the lender: the pool is the file's beginning.
            Access::Lent { memory, .. } if len as u64 <= memory.rings_at => {
                return Ok(DmaTable::contiguous(memory.iova, len));
            }
            Access::Lent { memory, .. } => {
                let why = format!("lent len={}: {len} are wanted", memory.rings_at);
                return Err(Error::new("card", why, libc::ENOMEM));
            }
        };
        if !space.protects() {
            return DmaTable::physical(mapping, pages);
        }
        let mut memory = self.memory();
        let iova = memory.next;
        let len = pages.round_up(len);
        space.map(mapping, len, iova)?;
        memory.next += len.next_multiple_of(HUGE_PAGE) as u64;
        Ok(DmaTable::contiguous(iova, len))
    }

    /// Memory of at least `bytes` bytes for the card's rings, all zero, and the addresses by which it reaches them.
    ///
    /// # Errors
    /// `ENOMEM`, also when a lender has mapped less.
    pub fn ring_memory(&self, bytes: usize) -> Result<(Mapping, DmaTable)> {
        if let Access::Lent { memory, .. } = &self.access {
            if bytes > memory.ring_bytes {
                let why = format!("rings of {bytes} bytes, of which {} were lent", memory.ring_bytes);
                return Err(Error::new("card", why, libc::ENOMEM));
            }
            let rings = Mapping::of(
                memory.file.as_fd(),
                memory.rings_at,
                memory.ring_bytes,
                "lent rings",
            )?;
            let table = DmaTable::contiguous(memory.iova + memory.rings_at, rings.len());
            return Ok((rings, table));
        }
        let pages = if self.via.protects_memory() {
            PageKind::Ordinary
        } else {
            PageKind::Huge
        };
        let rings = Mapping::shared(&MemoryFile::create("bifurcate-rings", bytes, pages)?)?;
        let table = self.map_memory(&rings, pages, rings.len())?;
        Ok((rings, table))
    }

    /// Lets the card read and write memory, all of which has been mapped by now. Without an IOMMU a guardian process
    /// comes first.
    ///
    /// # Errors
    /// What writing configuration space or forking reports.
    pub fn start_dma(&self) -> Result<()> {
        let mut memory = self.memory();
        if let (false, None, Some(lock)) = (self.via.protects_memory(), &memory.guardian, &self.lock) {
            memory.guardian = Some(Guardian::start(lock)?);
        }
        self.config.set_bus_master(true)
    }

    /// Stops the card reading and writing memory; when this returns, it has stopped.
    ///
    /// # Errors
    /// What writing configuration space reports.
    pub fn stop_dma(&self) -> Result<()> {
        let mut memory = self.memory();
        self.config.set_bus_master(false)?;
        if let Some(guardian) = memory.guardian.take() {
            guardian.dismiss();
        }
        Ok(())
    }

    /// What the IOMMU stopped of this card since the last time that this was asked, as the kernel's log says it. None
    /// where nothing was, where no IOMMU stands before it, or where this process may not read the log.
    #[must_use]
    pub fn dma_fault(&self) -> Option<String> {
        self.memory().faults.as_mut()?.next_fault()
    }

    /// Resets the card, where the mechanism knows a way.
    ///
    /// # Errors
    /// What the reset reports.
    pub fn reset(&self) -> Result<()> {
        match &self.access {
            Access::Vfio { device, .. } | Access::Lent { device, .. } => device.reset(),
            Access::Uio(_) => Ok(()),
        }
    }

    /// Switches interrupts on, `wanted` vectors where there are as many; gives how many there are: 1 under UIO.
    ///
    /// # Errors
    /// `EOPNOTSUPP` of the call `interrupts` when it has none by its mechanism; what VFIO reports.
    pub fn enable_interrupts(&mut self, wanted: u32) -> Result<u32> {
        match &self.access {
            Access::Vfio { device, .. } | Access::Lent { device, .. } => {
                let interrupts = device.enable_interrupts(wanted)?;
                let count = interrupts.events.len() as u32;
                self.interrupts = Some(interrupts);
                Ok(count)
            }
            Access::Uio(_) if self.function.has_interrupt() => Ok(1),
            Access::Uio(_) => Err(Error::no_interrupt(self.function.address, self.via)),
        }
    }

    /// Whether the card's interrupts are MSI-X, a vector each. False: one interrupt for everything.
    #[must_use]
    pub fn has_vectors(&self) -> bool {
        match (&self.access, &self.interrupts) {
            (Access::Vfio { .. } | Access::Lent { .. }, Some(interrupts)) => interrupts.is_msix(),
            (Access::Uio(_), _) => self.via == Via::IgbUio && self.config.msix_vectors().is_ok_and(|n| n > 0),
            _ => false,
        }
    }

    /// The descriptor that becomes readable when interrupt `vector` has come. `None` when there is none.
    #[must_use]
    pub fn interrupt_fd(&self, vector: u32) -> Option<BorrowedFd<'_>> {
        match &self.access {
            Access::Vfio { .. } | Access::Lent { .. } => self.event(vector).map(AsFd::as_fd),
            Access::Uio(device) => (vector == 0).then(|| device.as_fd()),
        }
    }

    /// Lets the next interrupt of `vector` through, where the mechanism holds it back after each.
    pub fn unmask_interrupt(&self) {
        // A refusal leaves the sleeper to its timeout, by which it looks anyway.
        let _ = match (&self.access, &self.interrupts) {
            (Access::Vfio { device, .. } | Access::Lent { device, .. }, Some(interrupts))
                if interrupts.is_line() =>
            {
                device.unmask_line()
            }
            (Access::Vfio { .. } | Access::Lent { .. }, _) => Ok(()),
            (Access::Uio(device), _) => device.unmask(&self.config),
        };
    }

    /// Takes note of what came of interrupt `vector`.
    pub fn acknowledge_interrupt(&self, vector: u32) {
        match &self.access {
            Access::Vfio { .. } | Access::Lent { .. } => {
                self.event(vector).map(EventFd::lower);
            }
            Access::Uio(device) => {
                device.acknowledge();
            }
        }
    }

    /// Whether the kernel wants the card back: it is being unplugged or unbound. A card that is gone answers so too.
    #[must_use]
    pub fn is_wanted_back(&self) -> bool {
        match &self.access {
            Access::Vfio { device, .. } | Access::Lent { device, .. } => device.is_wanted_back(),
            Access::Uio(_) => !self.function.folder().exists(),
        }
    }

    fn event(&self, vector: u32) -> Option<&EventFd> {
        self.interrupts.as_ref()?.events.get(vector as usize)
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        // A number and an owned process: whole at every moment.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        // One that fails is gone; the guardian, dropped undismissed, then tries on its own.
        let _ = self.stop_dma();
    }
}

fn vfio((space, device): (AddressSpace, VfioDevice)) -> Result<(Access, ConfigSpace)> {
    let config = device.config()?;
    Ok((Access::Vfio { space, device }, config))
}

fn by_uio(device: UioDevice) -> Result<(Access, ConfigSpace)> {
    let config = device.config()?;
    Ok((Access::Uio(device), config))
}
