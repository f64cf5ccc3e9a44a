//! Functions on a bus that is a folder laid out like sysfs.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::{Bus, Resource};

/// A bus of one card (`0000:01:00.0`, with igb) and its virtual function, in one group with a bridge of no driver.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let root = std::env::temp_dir().join(format!("bf-pci-{}-{name}", std::process::id()));
        let card = root.join("devices/0000:01:00.0");
        for folder in ["net/eth7", "vfio-dev/vfio3"] {
            fs::create_dir_all(card.join(folder)).unwrap();
        }
        fs::create_dir_all(root.join("devices/0000:01:10.0")).unwrap();
        fs::create_dir_all(root.join("drivers/igb")).unwrap();
        fs::create_dir_all(root.join("drivers/vfio-pci")).unwrap();
        fs::create_dir_all(root.join("groups/12/devices/0000:01:00.0")).unwrap();
        fs::create_dir_all(root.join("groups/12/devices/0000:00:1c.0")).unwrap();
        let files = [
            ("vendor", "0x8086\n"),
            ("device", "0x10c9\n"),
            ("class", "0x020000\n"),
            ("driver_override", "(null)\n"),
            ("config", ""),
            ("sriov_totalvfs", "7\n"),
            ("sriov_numvfs", "1\n"),
            (
                "resource",
                "0x00000000fe800000 0x00000000fe81ffff 0x0000000000040200\n0x0 0x0 0x0\n",
            ),
        ];
        for (name, text) in files {
            fs::write(card.join(name), text).unwrap();
        }
        symlink(root.join("drivers/igb"), card.join("driver")).unwrap();
        symlink(root.join("groups/12"), card.join("iommu_group")).unwrap();
        symlink(root.join("devices/0000:01:10.0"), card.join("virtfn0")).unwrap();
        symlink(&card, root.join("devices/0000:01:10.0/physfn")).unwrap();
        Folder(root)
    }

    fn bus(&self) -> Bus {
        Bus::at(&self.0)
    }

    fn text(&self, file: impl AsRef<Path>) -> String {
        fs::read_to_string(self.0.join(file)).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_card_is_told_with_its_driver_group_memory_and_functions() {
    let folder = Folder::new("facts");
    let all = folder.bus().functions().unwrap();
    assert_eq!(all.len(), 2);
    let card = &all[0];
    assert_eq!(card.ids().unwrap(), (0x8086, 0x10c9));
    assert_eq!(
        (card.class().unwrap(), card.driver().as_deref()),
        (0x02_0000, Some("igb"))
    );
    assert_eq!(card.driver_override(), None);
    let group = card.group().unwrap().unwrap();
    assert_eq!(group.number, 12);
    assert_eq!(
        group.members.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["0000:00:1c.0", "0000:01:00.0"]
    );
    let memory = Resource {
        len: 0x2_0000,
        is_memory: true,
    };
    assert_eq!(card.resource(0).unwrap(), memory);
    assert_eq!(card.resource(1).unwrap().len, 0);
    assert_eq!(card.resource(6).unwrap_err().code(), "EINVAL");
    assert_eq!(card.interfaces(), ["eth7"]);
    let sriov = card.sriov().unwrap();
    assert_eq!((sriov.total, sriov.functions.len()), (7, 1));
    let function = folder.bus().function(sriov.functions[0]).unwrap();
    assert_eq!(function.physical_function(), Some(card.address));
    assert_eq!(function.group().unwrap(), None);
}

#[test]
fn an_address_where_nothing_is_is_refused() {
    let folder = Folder::new("nothing");
    let error = folder
        .bus()
        .function("0000:09:00.0".parse().unwrap())
        .unwrap_err();
    assert_eq!(error.code(), "ENODEV");
}

#[test]
fn a_driver_that_the_kernel_has_not_is_named_before_anything_changes() {
    let folder = Folder::new("missing");
    let card = folder.bus().function("0000:01:00.0".parse().unwrap()).unwrap();
    let error = card.bind_to("igb_uio").unwrap_err();
    assert_eq!(error.code(), "ENOENT");
    assert!(error.to_string().contains("igb_uio"), "{error}");
    assert_eq!(folder.text("devices/0000:01:00.0/driver_override"), "(null)\n");
}

#[test]
fn binding_overrides_unbinds_and_probes_and_says_when_the_driver_did_not_take_the_card() {
    let folder = Folder::new("bind");
    let card = folder.bus().function("0000:01:00.0".parse().unwrap()).unwrap();
    // A folder does not act on what is written: the card stays where it was.
    let error = card.bind_to("vfio-pci").unwrap_err();
    assert_eq!(error.code(), "ENODEV");
    assert_eq!(folder.text("devices/0000:01:00.0/driver_override"), "vfio-pci");
    assert_eq!(folder.text("drivers/igb/unbind"), "0000:01:00.0");
    assert_eq!(folder.text("drivers_probe"), "0000:01:00.0");
    assert_eq!(card.driver_override().as_deref(), Some("vfio-pci"));
    assert_eq!(card.give_back().unwrap().as_deref(), Some("igb"));
    assert_eq!(card.driver_override(), None);
}

#[test]
fn a_function_without_a_line_has_an_interrupt_once_its_driver_has_switched_one_on() {
    let folder = Folder::new("irq");
    let card = folder.bus().function("0000:01:10.0".parse().unwrap()).unwrap();
    assert!(!card.has_interrupt(), "it says nothing of a line");
    fs::write(card.folder().join("irq"), "0\n").unwrap();
    assert!(!card.has_interrupt());
    fs::create_dir_all(card.folder().join("msi_irqs")).unwrap();
    assert!(!card.has_interrupt());
    fs::write(card.folder().join("msi_irqs/57"), "msix\n").unwrap();
    assert!(card.has_interrupt());
    fs::remove_dir_all(card.folder().join("msi_irqs")).unwrap();
    fs::write(card.folder().join("irq"), "11\n").unwrap();
    assert!(card.has_interrupt());
}

#[test]
fn a_function_has_one_owner_at_a_time_and_none_when_that_one_lets_go() {
    let folder = Folder::new("lock");
    let card = folder.bus().function("0000:01:00.0".parse().unwrap()).unwrap();
    // A lock of an opened file, not of a process: the second is refused in this one as in another.
    let first = card.lock().unwrap();
    let error = card.lock().unwrap_err();
    assert_eq!(error.code(), "EBUSY");
    assert!(
        error.to_string().contains("0000:01:00.0: another process has it"),
        "{error}"
    );
    // Who only looks is not kept out.
    card.open_config().unwrap();
    drop(first);
    let next = card.lock().unwrap();
    assert_eq!(card.lock().unwrap_err().code(), "EBUSY");
    drop(next);
}

#[test]
fn the_number_of_virtual_functions_changes_by_way_of_none() {
    let folder = Folder::new("vfs");
    let card = folder.bus().function("0000:01:00.0".parse().unwrap()).unwrap();
    card.set_virtual_functions(3).unwrap();
    assert_eq!(folder.text("devices/0000:01:00.0/sriov_numvfs"), "3");
    card.set_virtual_functions(0).unwrap();
    assert_eq!(folder.text("devices/0000:01:00.0/sriov_numvfs"), "0");
}
