//! What the IOMMU stopped, as the kernel's log says it: a card that reached for memory it was not given.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;

use crate::pci::Address;
use crate::{Error, Result};

/// The kernel's log from now on (Documentation/ABI/testing/dev-kmsg).
#[derive(Debug)]
pub struct FaultLog {
    file: File,
    /// As drivers write it in the log, with and without its domain.
    names: [String; 2],
}

impl FaultLog {
    /// Faults of the function at `address` from now on.
    ///
    /// # Errors
    /// What open(2) reports: `EPERM` without CAP_SYSLOG where `kernel.dmesg_restrict` is set.
    pub fn open(address: Address) -> Result<FaultLog> {
        let path = "/dev/kmsg";
        let io = |e: &std::io::Error| Error::io("open", path, e);
        let mut file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)
            .map_err(|e| io(&e))?;
        file.seek(SeekFrom::End(0)).map_err(|e| io(&e))?;
        let whole = address.to_string();
        let short = whole.split_once(':').map_or("", |(_, rest)| rest).to_owned();
        Ok(FaultLog {
            file,
            names: [whole, short],
        })
    }

    /// The next fault, as the kernel wrote it; none when there is none yet. Never waits.
    pub fn next_fault(&mut self) -> Option<String> {
        let mut record = [0; 8192];
        loop {
            match self.file.read(&mut record) {
                Ok(0) => return None,
                Ok(count) => {
                    let text = String::from_utf8_lossy(&record[..count]);
                    if let Some(fault) = fault(&text, &self.names) {
                        return Some(fault);
                    }
                }
                // EPIPE: records were lost before they were read; the next read goes on after them.
                Err(e) if e.raw_os_error() == Some(libc::EPIPE) => {}
                Err(_) => return None,
            }
        }
    }
}

/// The message of a record when it is an IOMMU's about one of `names`: Intel's (drivers/iommu/intel/dmar.c: "DMAR: [DMA
/// Write] Request device [01:00.0] fault addr"), AMD's (drivers/iommu/amd/iommu.c: "Event logged [IO_PAGE_FAULT"), and
/// Arm's ("arm-smmu").
fn fault(record: &str, names: &[String]) -> Option<String> {
    let message = record.split_once(';')?.1.lines().next()?;
    let iommu = ["DMAR: [", "IO_PAGE_FAULT", "arm-smmu"];
    let ours = names
        .iter()
        .any(|name| !name.is_empty() && message.contains(name.as_str()));
    (ours && iommu.iter().any(|word| message.contains(word))).then(|| message.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_one_of_the_card_alone() {
        let names = ["0000:01:00.0".to_owned(), "01:00.0".to_owned()];
        let intel = "3,901,5120,-;DMAR: [DMA Write NO_PASID] Request device [01:00.0] fault addr 0x5a000000 \
                     [fault reason 0x05] PTE Write access is not set\n SUBSYSTEM=pci\n";
        assert!(
            fault(intel, &names)
                .unwrap()
                .starts_with("DMAR: [DMA Write NO_PASID]")
        );
        let amd = "3,9,1,-;vfio-pci 0000:01:00.0: AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x0010 address=0x5a000000]\n";
        assert!(fault(amd, &names).is_some());
        for other in [
            "3,901,5120,-;DMAR: [DMA Write NO_PASID] Request device [02:00.0] fault addr 0x5a000000",
            "6,900,5119,-;pci 0000:01:00.0: [8086:10c9] type 00",
            "nonsense",
        ] {
            assert_eq!(fault(other, &names), None, "{other}");
        }
    }
}
