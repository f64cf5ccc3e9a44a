//! BPF maps: create, read, write.

use super::attr::{Command, MapCreate, MapElement, bpf, bpf_fd, info, object_name, raw};
use super::pin;
use crate::{Error, Result};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// The kinds of map in use (enum bpf_map_type).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum MapType {
    /// Key to value.
    Hash = 1,
    /// Index to value.
    Array = 2,
    /// Index to one value a processor.
    PercpuArray = 6,
    /// Index to network interface, for redirects.
    Devmap = 14,
    /// Index to AF_XDP socket.
    Xskmap = 17,
}

/// A BPF map. The kernel frees it when the last descriptor and the last program that uses it are gone.
#[derive(Debug)]
pub struct Map {
    fd: OwnedFd,
    id: u32,
    key_size: usize,
    /// What one element takes in user space, in bytes.
    element_size: usize,
}

impl Map {
    /// Creates a map; sizes in bytes. `name` is cut to 15 bytes. Asks for CAP_BPF (CAP_NET_ADMIN too, for
    /// the kinds that hold interfaces or sockets).
    pub fn create(
        kind: MapType,
        name: &str,
        key_size: u32,
        value_size: u32,
        max_entries: u32,
    ) -> Result<Self> {
        let args =
            || format!("type={kind:?} name={name} key={key_size} value={value_size} entries={max_entries}");
        let mut attr = MapCreate {
            map_type: kind as u32,
            key_size,
            value_size,
            max_entries,
            map_name: object_name(name),
            ..Default::default()
        };
        // SAFETY: the block of BPF_MAP_CREATE holds no address.
        let fd = unsafe { bpf_fd(Command::MapCreate, &mut attr) }
            .map_err(|errno| Error::new("bpf(BPF_MAP_CREATE)", args(), errno))?;
        // struct bpf_map_info: type, id, key_size, value_size
        let [_, id, ..] = info::<4>(fd.as_fd())
            .map_err(|errno| Error::new("bpf(BPF_OBJ_GET_INFO_BY_FD)", args(), errno))?;
        let element_size = if kind == MapType::PercpuArray {
            (value_size as usize).next_multiple_of(8) * possible_processors()?
        } else {
            value_size as usize
        };
        Ok(Self {
            fd,
            id,
            key_size: key_size as usize,
            element_size,
        })
    }

    /// The map that was pinned as `path`.
    pub fn pinned(path: &Path) -> Result<Self> {
        let fd = pin::open(path)?;
        // struct bpf_map_info: type, id, key_size, value_size
        let [kind, id, key_size, value_size] = info::<4>(fd.as_fd()).map_err(|errno| {
            Error::new(
                "bpf(BPF_OBJ_GET_INFO_BY_FD)",
                format!("path={}", path.display()),
                errno,
            )
        })?;
        let element_size = if kind == MapType::PercpuArray as u32 {
            (value_size as usize).next_multiple_of(8) * possible_processors()?
        } else {
            value_size as usize
        };
        Ok(Self {
            fd,
            id,
            key_size: key_size as usize,
            element_size,
        })
    }

    /// Names the map in a BPF file system: from then on it outlives the process, until the name is removed.
    pub fn pin(&self, path: &Path) -> Result<()> {
        pin::pin(self.fd.as_fd(), path)
    }

    /// The map's number in the kernel.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Sets the element of `key`. EINVAL when key or value has another length than the map's.
    pub fn update(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.check("bpf(BPF_MAP_UPDATE_ELEM)", key, value.len())?;
        let mut attr = self.element(key);
        attr.value = value.as_ptr().expose_provenance() as u64;
        // SAFETY: `check` saw that key and value are as long as the kernel will read.
        unsafe { bpf(Command::MapUpdate, &mut attr) }
            .map_err(|errno| self.error("bpf(BPF_MAP_UPDATE_ELEM)", key, errno))?;
        Ok(())
    }

    /// Removes the element of `key`; ENOENT when there is none.
    pub fn delete(&self, key: &[u8]) -> Result<()> {
        self.check("bpf(BPF_MAP_DELETE_ELEM)", key, self.element_size)?;
        // SAFETY: `check` saw that the key is as long as the kernel will read.
        unsafe { bpf(Command::MapDelete, &mut self.element(key)) }
            .map_err(|errno| self.error("bpf(BPF_MAP_DELETE_ELEM)", key, errno))?;
        Ok(())
    }

    /// The element of `key` (of a per-processor map all processors' values, each padded to 8 bytes), or
    /// none. XSKMAP and DEVMAP tell user space a number in place of what they hold, or refuse.
    pub fn lookup(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.check("bpf(BPF_MAP_LOOKUP_ELEM)", key, self.element_size)?;
        let mut value = vec![0; self.element_size];
        let mut attr = self.element(key);
        attr.value = value.as_mut_ptr().expose_provenance() as u64;
        // SAFETY: `check` saw that the key is as long as the kernel will read, and `value` is as long as
        // it will write.
        match unsafe { bpf(Command::MapLookup, &mut attr) } {
            Ok(_) => Ok(Some(value)),
            Err(libc::ENOENT) => Ok(None),
            Err(errno) => Err(self.error("bpf(BPF_MAP_LOOKUP_ELEM)", key, errno)),
        }
    }

    fn element(&self, key: &[u8]) -> MapElement {
        MapElement {
            map_fd: raw(self.fd.as_fd()),
            key: key.as_ptr().expose_provenance() as u64,
            ..Default::default()
        }
    }

    fn check(&self, call: &'static str, key: &[u8], value: usize) -> Result<()> {
        if key.len() == self.key_size && value == self.element_size {
            return Ok(());
        }
        let args = format!(
            "map={} key of {} bytes (wants {}) value of {value} bytes (wants {})",
            self.id,
            key.len(),
            self.key_size,
            self.element_size
        );
        Err(Error::new(call, args, libc::EINVAL))
    }

    fn error(&self, call: &'static str, key: &[u8], errno: i32) -> Error {
        Error::new(call, format!("map={} key={key:02x?}", self.id), errno)
    }
}

impl AsFd for Map {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// How many processors the kernel keeps per-processor values for.
fn possible_processors() -> Result<usize> {
    let path = "/sys/devices/system/cpu/possible";
    let list = std::fs::read_to_string(path).map_err(|e| Error::io("read", path, &e))?;
    last_of_list(&list)
        .map(|last| last + 1)
        .ok_or_else(|| Error::new("read", path, libc::EBADMSG))
}

/// The largest number of a list such as `0-3` or `0,2-5`.
fn last_of_list(list: &str) -> Option<usize> {
    list.trim().rsplit([',', '-']).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake;

    #[test]
    fn lists_of_processors() {
        assert_eq!(last_of_list("0-3\n"), Some(3));
        assert_eq!(last_of_list("0"), Some(0));
        assert_eq!(last_of_list("0,2-11"), Some(11));
        assert_eq!(last_of_list(""), None);
    }

    #[test]
    fn a_refusal_names_the_map() {
        let _fake = fake::set(|call| (call.number == libc::SYS_bpf).then_some(Err(libc::EPERM)));
        let error = Map::create(MapType::Xskmap, "xsks", 4, 4, 8).unwrap_err();
        assert_eq!(
            error.to_string(),
            "bpf(BPF_MAP_CREATE) type=Xskmap name=xsks key=4 value=4 entries=8: Operation not permitted (EPERM)"
        );
    }
}
