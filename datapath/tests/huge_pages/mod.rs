//! Huge pages for a test: reserved while it lasts, and taken from under a hole.

use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;

const RESERVED: &str = "/proc/sys/vm/nr_hugepages";

/// Bytes of one page.
pub const PAGE: usize = 2 << 20;

/// Pages that this test has added to the kernel's reserve; given back when it ends.
pub struct HugePages(u64);

impl HugePages {
    /// Adds pages. `None`, and the reason printed as a skip, where that cannot be.
    pub fn reserve(test: &str, count: u64) -> Option<HugePages> {
        let before = reserved();
        for _ in 0..10 {
            if write(before + count).is_ok() && reserved() >= before + count {
                return Some(HugePages(count));
            }
            // Memory may be there, and in pieces, or full of what was read from files.
            let _ = std::fs::write("/proc/sys/vm/drop_caches", "1");
            let _ = std::fs::write("/proc/sys/vm/compact_memory", "1");
        }
        let _ = write(before);
        println!("SKIPPED {test}: {count} huge pages cannot be reserved: root is needed, and memory");
        None
    }

    /// Punches a hole into all of a file of huge pages, and leaves the kernel none to fill it with: who touches it gets
    /// SIGBUS.
    pub fn punch(&mut self, file: impl AsFd, len: usize) {
        let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_fd().as_raw_fd());
        let length = len.to_string();
        let status = Command::new("fallocate")
            .args(["--punch-hole", "--offset", "0", "--length", &length, &path])
            .status()
            .unwrap();
        assert!(status.success());
        let count = |name: &str| -> u64 {
            let text = std::fs::read_to_string("/proc/meminfo").unwrap();
            let line = text.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        // What is promised to a mapping stays.
        let spare = count("HugePages_Free:") - count("HugePages_Rsvd:");
        write(reserved() - spare).unwrap();
        self.0 = self.0.saturating_sub(spare);
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        let _ = write(reserved().saturating_sub(self.0));
    }
}

fn reserved() -> u64 {
    std::fs::read_to_string(RESERVED)
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0)
}

fn write(count: u64) -> std::io::Result<()> {
    std::fs::write(RESERVED, count.to_string())
}
