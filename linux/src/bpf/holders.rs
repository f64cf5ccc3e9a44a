//! Who a program belongs to: its name, and the processes that hold it or an attachment of it.

use super::attr::{info, name_of};
use super::observe::open;
use super::program::Program;
use crate::{Error, Result, process};
use std::os::fd::AsFd;

/// What the kernel knows of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgramInfo {
    /// Its number.
    pub id: u32,
    /// Its type (enum bpf_prog_type).
    pub kind: u32,
    /// The name it was loaded under, at most 15 bytes.
    pub name: String,
}

/// A process that holds a descriptor of a program or of a link that runs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its number.
    pub pid: u32,
    /// Its command name, at most 15 bytes.
    pub command: String,
}

/// The program of number `id`, or none when it is not loaded any more. Asks for CAP_SYS_ADMIN.
pub fn program_info(id: u32) -> Result<Option<ProgramInfo>> {
    let Some(fd) = open(id)? else { return Ok(None) };
    // struct bpf_prog_info: type, id, and its name at byte 64
    let words: [u32; 20] = info(fd.as_fd())
        .map_err(|errno| Error::new("bpf(BPF_OBJ_GET_INFO_BY_FD)", format!("program={id}"), errno))?;
    Ok(Some(ProgramInfo {
        id,
        kind: words[0],
        name: name_of(&words[16..]),
    }))
}

/// The processes that hold a descriptor of program `id` or of a link that runs it, by number. Only those
/// whose /proc entry the caller may read.
#[must_use]
pub fn holders(id: u32) -> Vec<Holder> {
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let mut found: Vec<Holder> = processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| holds(*pid, id))
        .filter_map(|pid| {
            Some(Holder {
                pid,
                command: process::command(pid)?,
            })
        })
        .collect();
    found.sort_by_key(|holder| holder.pid);
    found
}

fn holds(pid: u32, id: u32) -> bool {
    let Ok(files) = std::fs::read_dir(format!("/proc/{pid}/fdinfo")) else {
        return false;
    };
    files
        .flatten()
        .any(|file| std::fs::read_to_string(file.path()).is_ok_and(|text| names_program(&text, id)))
}

/// Whether an fdinfo file is that of program `id` or of a link to it: both have a `prog_id:` line
/// (bpf_prog_show_fdinfo and bpf_link_show_fdinfo, kernel/bpf/syscall.c).
fn names_program(fdinfo: &str, id: u32) -> bool {
    fdinfo
        .lines()
        .filter_map(|line| line.strip_prefix("prog_id:"))
        .any(|number| number.trim().parse() == Ok(id))
}

impl Program {
    /// The program's name, type and number as the kernel has them.
    pub fn info(&self) -> Result<ProgramInfo> {
        let words: [u32; 20] = info(self.as_fd()).map_err(|errno| {
            Error::new(
                "bpf(BPF_OBJ_GET_INFO_BY_FD)",
                format!("program={}", self.id()),
                errno,
            )
        })?;
        Ok(ProgramInfo {
            id: words[1],
            kind: words[0],
            name: name_of(&words[16..]),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_descriptor_name_their_program() {
        assert!(names_program(
            "pos:\t0\nprog_type:\t6\nprog_id:\t42\nrun_cnt:\t0\n",
            42
        ));
        assert!(names_program(
            "pos:\t0\nlink_type:\txdp\nlink_id:\t3\nprog_id:\t42\nifindex:\t2\n",
            42
        ));
        assert!(!names_program("pos:\t0\nprog_id:\t421\nlink_id:\t42\n", 42));
    }
}
