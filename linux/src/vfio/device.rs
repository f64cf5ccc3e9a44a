//! A function opened through VFIO: its regions, its interrupts, its reset.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use super::uapi::{
    CONFIG_REGION, DEVICE_CAN_RESET, DEVICE_GET_INFO, DEVICE_GET_IRQ_INFO, DEVICE_GET_REGION_INFO,
    DEVICE_RESET, DEVICE_SET_IRQS, DeviceInfo, IRQ_ACTION_TRIGGER, IRQ_ACTION_UNMASK, IRQ_DATA_EVENTFD,
    IRQ_DATA_NONE, IRQ_INTX, IRQ_MSI, IRQ_MSIX, IRQ_REQUEST, IrqInfo, IrqSet, REGION_CAN_MMAP, RegionInfo,
    VECTORS_MAX, plain, size_of_argument, with,
};
use crate::event::EventFd;
use crate::pci::{Address, Bar, ConfigSpace};
use crate::{Error, Result};

/// A function in our hands.
#[derive(Debug)]
pub struct VfioDevice {
    fd: OwnedFd,
    address: Address,
    can_reset: bool,
    /// Raised when the kernel wants the function back. None where it cannot say so.
    request: Option<EventFd>,
}

/// Interrupts that are switched on: one event a vector.
#[derive(Debug)]
pub struct VfioInterrupts {
    /// The events, by vector.
    pub events: Vec<EventFd>,
    index: u32,
}

impl VfioInterrupts {
    /// Whether they are MSI-X.
    #[must_use]
    pub fn is_msix(&self) -> bool {
        self.index == IRQ_MSIX
    }

    /// Whether each interrupt must be let through again after it came (INTx).
    #[must_use]
    pub fn is_line(&self) -> bool {
        self.index == IRQ_INTX
    }
}

impl VfioDevice {
    /// A function that another process opened and passed.
    ///
    /// # Errors
    /// `ENOTTY` for what is no VFIO device; what VFIO reports.
    pub fn received(fd: OwnedFd, address: Address) -> Result<VfioDevice> {
        VfioDevice::new(fd, address)
    }

    pub(super) fn new(fd: OwnedFd, address: Address) -> Result<VfioDevice> {
        let mut info = DeviceInfo {
            argsz: size_of_argument::<DeviceInfo>(),
            ..DeviceInfo::default()
        };
        let what = || format!("address={address}");
        with(
            fd.as_fd(),
            DEVICE_GET_INFO,
            &mut info,
            "ioctl(VFIO_DEVICE_GET_INFO)",
            what,
        )?;
        let mut device = VfioDevice {
            fd,
            address,
            can_reset: info.flags & DEVICE_CAN_RESET != 0,
            request: None,
        };
        if device.vectors(IRQ_REQUEST).is_ok_and(|count| count > 0) {
            let event = EventFd::new()?;
            device.set(IRQ_REQUEST, std::slice::from_ref(&event))?;
            device.request = Some(event);
        }
        Ok(device)
    }

    /// Configuration space, as VFIO lets it be seen and changed.
    ///
    /// # Errors
    /// Whatever VFIO reports.
    pub fn config(&self) -> Result<ConfigSpace> {
        let region = self.region(CONFIG_REGION)?;
        let fd = rustix::io::fcntl_dupfd_cloexec(&self.fd, 0)
            .map_err(|e| Error::rustix("fcntl", "F_DUPFD_CLOEXEC vfio device", e))?;
        Ok(ConfigSpace::new(fd, region.offset, self.address.to_string()))
    }

    /// Maps base address register `bar`.
    ///
    /// # Errors
    /// `ENXIO` when it is no memory; what mmap(2) reports.
    pub fn map_bar(&self, bar: u32) -> Result<Bar> {
        let region = self.region(bar)?;
        let what = format!("address={} bar={bar}", self.address);
        if bar > 5 || region.flags & REGION_CAN_MMAP == 0 {
            return Err(Error::new(
                "mmap",
                format!("{what}: no memory that can be mapped"),
                libc::ENXIO,
            ));
        }
        Bar::map(self.fd.as_fd(), region.offset, region.size as usize, &what)
    }

    /// Switches on `wanted` vectors: MSI-X where there is, else one MSI, else the interrupt line.
    ///
    /// # Errors
    /// `EOPNOTSUPP` of the call `interrupts` when the function has none; what VFIO reports.
    pub fn enable_interrupts(&self, wanted: u32) -> Result<VfioInterrupts> {
        for (index, most) in [(IRQ_MSIX, VECTORS_MAX as u32), (IRQ_MSI, 1), (IRQ_INTX, 1)] {
            let count = self.vectors(index)?.min(most).min(wanted.max(1));
            if count == 0 {
                continue;
            }
            let events = (0..count).map(|_| EventFd::new()).collect::<Result<Vec<_>>>()?;
            self.set(index, &events)?;
            return Ok(VfioInterrupts { events, index });
        }
        Err(Error::no_interrupt(self.address, "vfio"))
    }

    /// Lets the interrupt line through again: VFIO holds it back after each interrupt.
    ///
    /// # Errors
    /// Whatever VFIO reports.
    pub fn unmask_line(&self) -> Result<()> {
        let mut set = IrqSet {
            argsz: 20,
            flags: IRQ_DATA_NONE | IRQ_ACTION_UNMASK,
            index: IRQ_INTX,
            start: 0,
            count: 1,
            ..IrqSet::default()
        };
        let what = || format!("address={} unmask INTx", self.address);
        with(
            self.fd.as_fd(),
            DEVICE_SET_IRQS,
            &mut set,
            "ioctl(VFIO_DEVICE_SET_IRQS)",
            what,
        )
        .map(drop)
    }

    /// Resets the function; nothing where VFIO knows no way.
    ///
    /// # Errors
    /// Whatever the reset reports.
    pub fn reset(&self) -> Result<()> {
        if !self.can_reset {
            return Ok(());
        }
        let what = || format!("address={}", self.address);
        plain(self.fd.as_fd(), DEVICE_RESET, 0, "ioctl(VFIO_DEVICE_RESET)", what).map(drop)
    }

    /// Whether the kernel wants the function back, since it is being unplugged or unbound: it waits until the
    /// function is closed.
    #[must_use]
    pub fn is_wanted_back(&self) -> bool {
        // The event stays raised: whoever asks again gets the same answer.
        self.request.as_ref().is_some_and(|event| {
            let raised = event.lower();
            if raised {
                event.raise();
            }
            raised
        })
    }

    fn region(&self, index: u32) -> Result<RegionInfo> {
        let mut region = RegionInfo {
            argsz: size_of_argument::<RegionInfo>(),
            index,
            ..RegionInfo::default()
        };
        let what = || format!("address={} region={index}", self.address);
        with(
            self.fd.as_fd(),
            DEVICE_GET_REGION_INFO,
            &mut region,
            "ioctl(VFIO_DEVICE_GET_REGION_INFO)",
            what,
        )?;
        Ok(region)
    }

    fn vectors(&self, index: u32) -> Result<u32> {
        let mut info = IrqInfo {
            argsz: size_of_argument::<IrqInfo>(),
            index,
            ..IrqInfo::default()
        };
        let what = || format!("address={} irq={index}", self.address);
        with(
            self.fd.as_fd(),
            DEVICE_GET_IRQ_INFO,
            &mut info,
            "ioctl(VFIO_DEVICE_GET_IRQ_INFO)",
            what,
        )?;
        Ok(info.count)
    }

    fn set(&self, index: u32, events: &[EventFd]) -> Result<()> {
        let mut set = IrqSet {
            argsz: 20 + 4 * events.len() as u32,
            flags: IRQ_DATA_EVENTFD | IRQ_ACTION_TRIGGER,
            index,
            start: 0,
            count: events.len() as u32,
            ..IrqSet::default()
        };
        for (slot, event) in set.eventfds.iter_mut().zip(events) {
            *slot = event.as_fd().as_raw_fd();
        }
        let what = || format!("address={} irq={index} vectors={}", self.address, events.len());
        with(
            self.fd.as_fd(),
            DEVICE_SET_IRQS,
            &mut set,
            "ioctl(VFIO_DEVICE_SET_IRQS)",
            what,
        )
        .map(drop)
    }
}
