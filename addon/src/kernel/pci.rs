//! PCI functions: who has one, taking it for user space, giving it back.

use bifurcate_datapath::device::cards;
use bifurcate_linux::Result;
use bifurcate_linux::pci::{Address, Bus, ConfigSpace, Function};
use bifurcate_linux::vfio;
use napi::Env;
use napi_derive::napi;

use crate::error::OrThrow;

/// Another function of an IOMMU group.
#[napi(object)]
pub struct PciGroupMember {
    /// Where it sits.
    pub address: String,
    /// The kernel driver that has it; null when none has.
    pub driver: Option<String>,
}

/// A PCI function as sysfs shows it.
#[napi(object)]
pub struct PciFunction {
    /// Where it sits, as 0000:01:10.0.
    pub address: String,
    /// Vendor id.
    pub vendor: u32,
    /// Device id.
    pub device: u32,
    /// Class, subclass and interface: 0x020000 is an Ethernet controller.
    pub class: u32,
    /// The kernel driver that has it; null when none has.
    pub driver: Option<String>,
    /// The only driver that may have it (driver_override); null when any may.
    pub driver_override: Option<String>,
    /// Its IOMMU group; null without an IOMMU.
    pub iommu_group: Option<u32>,
    /// Every function of that group, itself included.
    pub group_members: Vec<PciGroupMember>,
    /// The network interfaces that its driver made.
    pub interfaces: Vec<String>,
    /// Most virtual functions it can have; 0 without SR-IOV.
    pub sriov_total: u32,
    /// The virtual functions it has now.
    pub virtual_functions: Vec<String>,
    /// The physical function that it is a virtual function of; null when it is none.
    pub physical_function: Option<String>,
    /// The driver here that drives such a card; null when none does.
    pub supported: Option<String>,
}

/// Every PCI function. `root`: another bus than /sys/bus/pci, laid out like it.
#[napi]
pub fn pci_functions(env: Env, root: Option<String>) -> napi::Result<Vec<PciFunction>> {
    let read = || {
        bus(root)
            .functions()?
            .iter()
            .map(facts)
            .collect::<Result<Vec<_>>>()
    };
    read().or_throw(&env)
}

/// The PCI function at `address`. Throws ENODEV when there is none, EINVAL when that is no address.
#[napi]
pub fn pci_function(env: Env, address: String, root: Option<String>) -> napi::Result<PciFunction> {
    function(&address, root)
        .and_then(|found| facts(&found))
        .or_throw(&env)
}

/// Gives the function to a kernel driver, by driver_override: vfio-pci, uio_pci_generic or igb_uio.
#[napi]
pub fn pci_bind(env: Env, address: String, driver: String, root: Option<String>) -> napi::Result<()> {
    function(&address, root)
        .and_then(|found| found.bind_to(&driver))
        .or_throw(&env)
}

/// Gives the function back to the driver that the kernel chooses for it; gives that driver's name.
#[napi]
pub fn pci_give_back(env: Env, address: String, root: Option<String>) -> napi::Result<Option<String>> {
    function(&address, root)
        .and_then(|found| found.give_back())
        .or_throw(&env)
}

/// Makes `count` virtual functions of a physical one; 0 removes them. With `probe` false the kernel binds none of its
/// drivers to them.
#[napi]
pub fn pci_set_virtual_functions(
    env: Env,
    address: String,
    count: u32,
    probe: bool,
    root: Option<String>,
) -> napi::Result<()> {
    let set = || {
        let found = function(&address, root)?;
        found.set_drivers_autoprobe(probe)?;
        let set = found.set_virtual_functions(count);
        found.set_drivers_autoprobe(true)?;
        set
    };
    set().or_throw(&env)
}

/// Whether the kernel has a driver of that name now: its module is loaded, or built in.
#[napi]
pub fn pci_has_driver(driver: String, root: Option<String>) -> bool {
    bus(root).has_driver(&driver)
}

/// A function that nobody else can bind or open meanwhile.
#[napi]
pub struct PciLock(Option<ConfigSpace>);

#[napi]
impl PciLock {
    /// Lets others have it. The end of the process does so too.
    #[napi]
    pub fn close(&mut self) {
        self.0 = None;
    }
}

/// Locks the function at `address` against who would open, take or give it back. Throws EBUSY when somebody has it.
#[napi]
pub fn pci_lock(env: Env, address: String, root: Option<String>) -> napi::Result<PciLock> {
    function(&address, root)
        .and_then(|found| found.lock())
        .map(|config| PciLock(Some(config)))
        .or_throw(&env)
}

/// Whether the function at `address` is open by VFIO somewhere, or its registers are mapped, as its IOMMU group tells;
/// null where that tells nothing.
#[napi]
pub fn pci_is_open(env: Env, address: String, root: Option<String>) -> napi::Result<Option<bool>> {
    function(&address, root)
        .and_then(|found| vfio::is_open(&found))
        .or_throw(&env)
}

pub(crate) fn bus(root: Option<String>) -> Bus {
    root.map_or_else(Bus::system, Bus::at)
}

fn function(address: &str, root: Option<String>) -> Result<Function> {
    bus(root).function(address.parse::<Address>()?)
}

fn facts(function: &Function) -> Result<PciFunction> {
    let (vendor, device) = function.ids()?;
    let group = function.group()?;
    let sriov = function.sriov();
    let members = group.as_ref().map_or(&[][..], |group| &group.members);
    let mut interfaces = function.interfaces();
    interfaces.extend(function.virtio_interfaces());
    Ok(PciFunction {
        address: function.address.to_string(),
        vendor: vendor.into(),
        device: device.into(),
        class: function.class()?,
        driver: function.driver(),
        driver_override: function.driver_override(),
        iommu_group: group.as_ref().map(|group| group.number),
        group_members: members
            .iter()
            .map(|member| PciGroupMember {
                address: member.to_string(),
                driver: function.sibling(*member).driver(),
            })
            .collect(),
        interfaces,
        sriov_total: sriov.as_ref().map_or(0, |sriov| sriov.total),
        virtual_functions: sriov
            .iter()
            .flat_map(|sriov| &sriov.functions)
            .map(ToString::to_string)
            .collect(),
        physical_function: function.physical_function().map(|address| address.to_string()),
        supported: cards::driver_of(vendor, device).map(str::to_owned),
    })
}
