//! One ethtool request: a block that begins with its command, handed to SIOCETHTOOL.

use crate::{Error, Result};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::os::fd::{AsRawFd, OwnedFd};

const SIOCETHTOOL: usize = 0x8946;
/// The length of an interface's name with its NUL.
const IFNAMSIZ: usize = 16;

/// struct ifreq, as far as SIOCETHTOOL reads it.
#[repr(C)]
struct Ifreq {
    name: [u8; IFNAMSIZ],
    data: usize,
    rest: [usize; 2],
}

/// An open way to the ioctls of one interface.
#[derive(Debug)]
pub(super) struct Device {
    socket: OwnedFd,
    name: [u8; IFNAMSIZ],
    text: String,
}

/// A request's block: as long as its command reads and writes, aligned for its 64-bit fields.
#[derive(Debug, Clone)]
pub(super) struct Block {
    words: Vec<u64>,
    length: usize,
}

impl Block {
    /// A block of `length` bytes, zero but for the command it begins with.
    pub fn new(command: u32, length: usize) -> Self {
        let mut block = Self {
            words: vec![0; length.div_ceil(8)],
            length,
        };
        block.put(0, command);
        block
    }

    /// Its bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        bytes.truncate(self.length);
        bytes
    }

    /// The 32-bit number at byte `at`, a multiple of four; zero outside.
    pub fn get(&self, at: usize) -> u32 {
        let Some(word) = self.words.get(at / 8) else {
            return 0;
        };
        let bytes = word.to_ne_bytes();
        u32::from_ne_bytes(if at.is_multiple_of(8) {
            [bytes[0], bytes[1], bytes[2], bytes[3]]
        } else {
            [bytes[4], bytes[5], bytes[6], bytes[7]]
        })
    }

    /// The 64-bit number at byte `at`, a multiple of eight; zero outside.
    pub fn get_long(&self, at: usize) -> u64 {
        self.words.get(at / 8).copied().unwrap_or(0)
    }

    /// Writes a 32-bit number at byte `at`, a multiple of four within the block.
    pub fn put(&mut self, at: usize, value: u32) {
        self.put_bytes(at, &value.to_ne_bytes());
    }

    /// Writes bytes from byte `at` on; what would stand outside is left out.
    pub fn put_bytes(&mut self, at: usize, bytes: &[u8]) {
        for (at, byte) in (at..self.length).zip(bytes) {
            let mut word = self.words[at / 8].to_ne_bytes();
            word[at % 8] = *byte;
            self.words[at / 8] = u64::from_ne_bytes(word);
        }
    }

    /// The text of `length` bytes from byte `at` on, up to its first NUL.
    pub fn text(&self, at: usize, length: usize) -> String {
        let bytes = self.bytes();
        let field = bytes.get(at..(at + length).min(bytes.len())).unwrap_or(&[]);
        let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
        String::from_utf8_lossy(&field[..end]).into_owned()
    }
}

impl Device {
    /// Opens the ioctls of interface `name` in the calling thread's namespace.
    pub fn open(name: &str) -> Result<Self> {
        if name.is_empty() || name.len() >= IFNAMSIZ || name.bytes().any(|byte| byte == 0) {
            return Err(Error::new(
                "ioctl(SIOCETHTOOL)",
                format!("dev={name:?}"),
                libc::ENODEV,
            ));
        }
        let socket =
            rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
                .map_err(|e| Error::rustix("socket(AF_INET)", "for ethtool", e))?;
        let mut bytes = [0; IFNAMSIZ];
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        Ok(Self {
            socket,
            name: bytes,
            text: name.to_owned(),
        })
    }

    /// Makes a request; `call` names it in errors, `args` says with what. Gives what the ioctl returned.
    ///
    /// # Safety
    /// `block` is as long as the kernel reads and writes for the command and the counts in it.
    pub unsafe fn request(&self, call: &'static str, args: &str, block: &mut Block) -> Result<usize> {
        let request = Ifreq {
            name: self.name,
            data: block.words.as_mut_ptr().expose_provenance(),
            rest: [0; 2],
        };
        let args_ = [
            self.socket.as_raw_fd() as usize,
            SIOCETHTOOL,
            std::ptr::from_ref(&request).expose_provenance(),
            0,
            0,
            0,
        ];
        // SAFETY: `request` is a whole struct ifreq that lives through the call; it points at the block,
        // borrowed exclusively, whose length the caller vouches for.
        unsafe { crate::call::call(libc::SYS_ioctl, args_) }.map_err(|errno| {
            let separator = if args.is_empty() { "" } else { " " };
            Error::new(call, format!("dev={}{separator}{args}", self.text), errno)
        })
    }
}

/// What a driver without the operation answers becomes none.
pub(super) fn supported<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_unsupported() => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_bytes_share_the_block() {
        let mut block = Block::new(0x3c, 20);
        block.put(4, 7);
        block.put_bytes(16, &[1, 0, 0, 0, 9, 9]);
        assert_eq!(
            (block.get(0), block.get(4), block.get(16), block.get(20)),
            (0x3c, 7, 1, 0)
        );
        assert_eq!(block.bytes().len(), 20);
        assert_eq!(block.get_long(8), 0);
    }

    #[test]
    fn ifreq_is_as_long_as_the_kernel_copies() {
        assert_eq!((size_of::<Ifreq>(), std::mem::offset_of!(Ifreq, data)), (40, 16));
    }
}
