//! What the process itself may do, and on which kernel it runs.

use crate::{Error, Result};

/// Capability names by bit number (include/uapi/linux/capability.h).
const CAPABILITIES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// The calling thread's effective capabilities by name, e.g. `CAP_NET_ADMIN`.
pub fn effective_capabilities() -> Result<Vec<&'static str>> {
    let path = "/proc/thread-self/status";
    let status = std::fs::read_to_string(path).map_err(|e| Error::io("read", path, &e))?;
    let mask = effective_mask(&status).ok_or_else(|| Error::new("read", path, libc::EBADMSG))?;
    Ok(names(mask))
}

/// `uname -r`.
#[must_use]
pub fn kernel_release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// The name of process `pid` (its `comm`, at most 15 bytes), or none when it is gone.
#[must_use]
pub fn command(pid: u32) -> Option<String> {
    let comm = std::fs::read(format!("/proc/{pid}/comm")).ok()?;
    Some(String::from_utf8_lossy(&comm).trim_end().to_owned())
}

/// The `CapEff:` line of proc_pid_status(5), a mask in hex.
fn effective_mask(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn names(mask: u64) -> Vec<&'static str> {
    CAPABILITIES
        .iter()
        .enumerate()
        .filter(|(bit, _)| mask >> bit & 1 == 1)
        .map(|(_, name)| *name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_gives_names_by_bit() {
        let mask = effective_mask("Name:\tx\nCapPrm:\t0000000000000000\nCapEff:\t0000008000003000\n");
        assert_eq!(mask, Some(1 << 39 | 1 << 13 | 1 << 12));
        assert_eq!(names(mask.unwrap()), ["CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_BPF"]);
        assert_eq!(names(1 << 40), ["CAP_CHECKPOINT_RESTORE"]);
    }

    #[test]
    fn the_release_is_a_version() {
        assert!(kernel_release().starts_with(|first: char| first.is_ascii_digit()));
    }
}
