//! The numbers of the kernel's functions that BPF programs may call (kfuncs), from the kernel's own types (BTF).
//!
//! Source: `include/uapi/linux/btf.h`, `Documentation/bpf/btf.rst`.

use crate::{Error, Result};
use std::collections::HashMap;
use std::sync::OnceLock;

/// Where the kernel shows its types; anyone may read it.
const VMLINUX: &str = "/sys/kernel/btf/vmlinux";
const MAGIC: u16 = 0xeb9f;
/// struct btf_type: name, info, size or type.
const TYPE: usize = 12;
/// Functions that programs of ours may call start with this.
const PREFIX: &[u8] = b"bpf_xdp_metadata_rx_";

const FUNC: u32 = 12;

/// The number of the kernel's function `name`, as a call instruction has it.
///
/// # Errors
/// `ENOENT` when the kernel has no such function, or shows no types (CONFIG_DEBUG_INFO_BTF).
pub(super) fn function(name: &str) -> Result<i32> {
    static FUNCTIONS: OnceLock<std::result::Result<HashMap<String, i32>, i32>> = OnceLock::new();
    let functions = FUNCTIONS.get_or_init(|| {
        let bytes = std::fs::read(VMLINUX).map_err(|error| error.raw_os_error().unwrap_or(libc::EIO))?;
        functions(&bytes).ok_or(libc::EINVAL)
    });
    let missing = |errno| {
        Error::new(
            "find a kernel function",
            format!("name={name} types={VMLINUX}"),
            errno,
        )
    };
    match functions {
        Ok(found) => found.get(name).copied().ok_or_else(|| missing(libc::ENOENT)),
        Err(errno) => Err(missing(*errno)),
    }
}

/// The functions of a BTF blob whose names start with [`PREFIX`]; none when the blob is not whole.
fn functions(blob: &[u8]) -> Option<HashMap<String, i32>> {
    // struct btf_header: magic, version, flags, length, then offset and length of types and of names.
    if u16::from_ne_bytes(blob.get(..2)?.try_into().ok()?) != MAGIC {
        return None;
    }
    let field = |index: usize| word(blob, 4 + 4 * index);
    let body = blob.get(field(0)? as usize..)?;
    let section = |offset: u32, length: u32| body.get(offset as usize..)?.get(..length as usize);
    let (types, names) = (section(field(1)?, field(2)?)?, section(field(3)?, field(4)?)?);
    let mut found = HashMap::new();
    // Type 0 is void and does not stand there.
    let (mut at, mut number) = (0, 1i32);
    while at < types.len() {
        let (name, info) = (word(types, at)? as usize, word(types, at + 4)?);
        let kind = info >> 24 & 31;
        if kind == FUNC {
            let name = names.get(name..)?;
            if name.starts_with(PREFIX) {
                let end = name.iter().position(|byte| *byte == 0)?;
                found.insert(String::from_utf8_lossy(&name[..end]).into_owned(), number);
            }
        }
        at = at.checked_add(TYPE + behind(kind, info as usize & 0xffff)?)?;
        number = number.checked_add(1)?;
    }
    Some(found)
}

/// Bytes behind a type's first three words; none for a kind that came later than this.
fn behind(kind: u32, members: usize) -> Option<usize> {
    Some(match kind {
        // INT, VAR, DECL_TAG
        1 | 14 | 17 => 4,
        // PTR, FWD, TYPEDEF, VOLATILE, CONST, RESTRICT, FUNC, FLOAT, TYPE_TAG
        2 | 7..=12 | 16 | 18 => 0,
        // ARRAY
        3 => 12,
        // STRUCT, UNION, DATASEC, ENUM64
        4 | 5 | 15 | 19 => 12 * members,
        // ENUM, FUNC_PROTO
        6 | 13 => 8 * members,
        _ => return None,
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: &[u8] = b"\0int\0bpf_xdp_metadata_rx_hash\0other\0";

    /// A blob of the types given, each with its words behind.
    fn blob(types: &[[u32; 3]], behind: &[&[u32]]) -> Vec<u8> {
        let mut words = Vec::new();
        for (first, rest) in types.iter().zip(behind) {
            words.extend_from_slice(first);
            words.extend_from_slice(rest);
        }
        let types = words.len() as u32 * 4;
        let mut out = Vec::from(MAGIC.to_ne_bytes());
        out.extend([1, 0]);
        for field in [24, 0, types, types, NAMES.len() as u32] {
            out.extend(field.to_ne_bytes());
        }
        out.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
        out.extend(NAMES);
        out
    }

    #[test]
    fn a_function_is_found_behind_types_of_every_length() {
        let types = [
            [1, 1 << 24, 4],      // int
            [0, 4 << 24 | 2, 8],  // a struct of two members
            [0, 13 << 24 | 1, 1], // a prototype of one argument
            [32, 12 << 24, 3],    // other()
            [5, 12 << 24, 3],     // bpf_xdp_metadata_rx_hash()
        ];
        let found = functions(&blob(&types, &[&[32], &[0; 6], &[0; 2], &[], &[]])).unwrap();
        assert_eq!(found, HashMap::from([("bpf_xdp_metadata_rx_hash".to_owned(), 5)]));
    }

    #[test]
    fn a_blob_that_is_cut_or_unknown_has_none() {
        let whole = blob(&[[5, 12 << 24, 3]], &[&[]]);
        assert!(functions(&whole).is_some());
        for cut in 0..whole.len() {
            assert_eq!(functions(&whole[..cut]), None, "{cut}");
        }
        assert_eq!(functions(&blob(&[[5, 31 << 24, 3]], &[&[]])), None);
    }
}
