//! What the process itself may do, on which kernel it runs, and telling its supervisor how it is.

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

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

/// Tells who started this process how it is, e.g. `READY=1` (sd_notify(3)): one datagram to the socket that the
/// environment variable `NOTIFY_SOCKET` names. False where there is no such variable: nobody wants to know.
///
/// # Errors
/// What sendto(2) reports; the socket's name is in the error.
pub fn notify_supervisor(state: &str) -> Result<bool> {
    match std::env::var_os("NOTIFY_SOCKET") {
        Some(name) if !name.is_empty() => notify(&name, state).map(|()| true),
        _ => Ok(false),
    }
}

/// A name that begins with `@` is abstract (unix(7)).
fn notify(name: &OsStr, state: &str) -> Result<()> {
    let send = || {
        let address = match name.as_bytes() {
            [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest)?,
            _ => SocketAddr::from_pathname(name)?,
        };
        UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address)
    };
    send()
        .map(drop)
        .map_err(|e| Error::io("sendto", format!("NOTIFY_SOCKET={}", name.display()), &e))
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
    fn a_supervisor_hears_the_state_at_a_path_and_at_an_abstract_name() {
        let name = format!("bf-notify-{}", std::process::id());
        let path = std::env::temp_dir().join(&name);
        let at_path = UnixDatagram::bind(&path).unwrap();
        let abstract_name = SocketAddr::from_abstract_name(&name).unwrap();
        let at_name = UnixDatagram::bind_addr(&abstract_name).unwrap();
        notify(path.as_os_str(), "READY=1").unwrap();
        notify(OsStr::new(&format!("@{name}")), "READY=1").unwrap();
        std::fs::remove_file(&path).unwrap();
        for socket in [at_path, at_name] {
            let mut buffer = [0; 16];
            let length = socket.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], b"READY=1");
        }
        let error = notify(path.as_os_str(), "READY=1").unwrap_err();
        assert_eq!(error.code(), "ENOENT");
    }

    #[test]
    fn the_release_is_a_version() {
        assert!(kernel_release().starts_with(|first: char| first.is_ascii_digit()));
    }
}
