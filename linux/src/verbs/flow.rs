//! Flow rules, which bring raw packets to a queue pair. Not run on hardware: no software device has them.

use std::fmt;
use std::sync::Arc;

use super::device::{Device, made};
use super::layout::{
    FLOW_SPEC_IPV4_EXT, FLOW_SPEC_IPV6, FLOW_SPEC_TCP, FLOW_SPEC_UDP, IbvFlow, IbvQp, VerbsContext,
};
use super::queue_pair::QueuePair;
use super::spread::{Hashed, Spread};
use crate::{Error, Result};

/// Bytes of `struct ibv_flow_attr`, which a rule begins with.
const ATTR: usize = 20;
/// Where in it the size of the whole rule stands, the number of its specifications, and its port.
const AT_SIZE: usize = 8;
const AT_SPECS: usize = 12;
const AT_PORT: usize = 13;
/// Bytes of a specification before its fields: type and size.
const SPEC_HEAD: usize = 6;
/// Longest rule that is taken: a dozen specifications.
const RULE_MAX: usize = 1024;

/// A flow rule of a card, for as long as it lives.
pub struct Flow {
    raw: *mut IbvFlow,
    destroy: unsafe extern "C" fn(*mut IbvFlow) -> i32,
    /// Destroyed after the rule.
    _target: Target,
}

/// Where a rule brings packets.
#[derive(Clone, Debug)]
pub enum Target {
    /// To one queue.
    QueuePair(Arc<QueuePair>),
    /// To several, by their hash.
    Spread(Arc<Spread>),
}

impl Target {
    fn raw(&self) -> *mut IbvQp {
        match self {
            Target::QueuePair(pair) => pair.raw,
            Target::Spread(spread) => spread.raw,
        }
    }

    fn device(&self) -> &Device {
        match self {
            Target::QueuePair(pair) => pair.domain().device(),
            Target::Spread(spread) => spread.domain().device(),
        }
    }
}

// SAFETY: the library's functions may be called for one rule from any thread (rdma-core, "Multi-thread aware").
unsafe impl Send for Flow {}
// SAFETY: as for Send; nothing is done with it but its end.
unsafe impl Sync for Flow {}

impl Flow {
    /// Brings the packets that a rule names to queues of raw packets. `rule` is a `struct ibv_flow_attr` with its
    /// specifications, as the control path lowers an expression to; its port is filled in here.
    ///
    /// # Errors
    /// `EINVAL` for bytes that are no rule, or a rule that the card cannot do; `EOPNOTSUPP` when it has no flow rules;
    /// `ENOMEM`, `EPERM`.
    pub fn create(target: &Target, port: u8, rule: &[u8]) -> Result<Flow> {
        let device = target.device();
        let args = || format!("device={} rule={} bytes", device.name(), rule.len());
        if !is_whole(rule) {
            return Err(Error::new("ibv_create_flow", args(), libc::EINVAL));
        }
        let (Some(create), Some(destroy)) = (create_of(device), destroy_of(device)) else {
            return Err(Error::new("ibv_create_flow", args(), libc::EOPNOTSUPP));
        };
        // Aligned for the widest of its fields.
        let mut words = vec![0u64; rule.len().div_ceil(8)];
        for (word, bytes) in words.iter_mut().zip(rule.chunks(8)) {
            let mut whole = [0; 8];
            whole[..bytes.len()].copy_from_slice(bytes);
            *word = u64::from_ne_bytes(whole);
        }
        let mut at_port = words[AT_PORT / 8].to_ne_bytes();
        at_port[AT_PORT % 8] = port;
        words[AT_PORT / 8] = u64::from_ne_bytes(at_port);
        // SAFETY: the target is there, and kept so; the rule is whole, as was just seen, and read during the call
        // alone.
        let raw = unsafe { create(target.raw(), words.as_mut_ptr().cast()) };
        Ok(Flow {
            raw: made(raw, "ibv_create_flow", args)?,
            destroy,
            _target: target.clone(),
        })
    }
}

/// What of the packets that a rule brings tells flows apart: the addresses and ports that it says they have.
#[must_use]
pub fn hashed(rule: &[u8]) -> Hashed {
    let mut hashed = Hashed::default();
    for kind in specifications(rule).unwrap_or_default() {
        match kind {
            FLOW_SPEC_IPV4_EXT => hashed.ipv4 = true,
            FLOW_SPEC_IPV6 => hashed.ipv6 = true,
            FLOW_SPEC_TCP => hashed.tcp = true,
            FLOW_SPEC_UDP => hashed.udp = true,
            _ => {}
        }
    }
    hashed
}

fn is_whole(rule: &[u8]) -> bool {
    specifications(rule).is_some()
}

/// The kinds of a rule's specifications. `None` when the bytes are no `struct ibv_flow_attr` with as many of them as it
/// says, each within.
fn specifications(rule: &[u8]) -> Option<Vec<u32>> {
    if rule.len() < ATTR || rule.len() > RULE_MAX {
        return None;
    }
    let word = |at: usize| usize::from(u16::from_ne_bytes([rule[at], rule[at + 1]]));
    if word(AT_SIZE) != rule.len() {
        return None;
    }
    let mut at = ATTR;
    let mut kinds = Vec::new();
    for _ in 0..rule[AT_SPECS] {
        if at + SPEC_HEAD > rule.len() {
            return None;
        }
        let size = word(at + 4);
        if size < SPEC_HEAD || size > rule.len() - at {
            return None;
        }
        kinds.push(u32::from_ne_bytes([
            rule[at],
            rule[at + 1],
            rule[at + 2],
            rule[at + 3],
        ]));
        at += size;
    }
    (at == rule.len()).then_some(kinds)
}

type Create = unsafe extern "C" fn(*mut IbvQp, *mut std::ffi::c_void) -> *mut IbvFlow;
type Destroy = unsafe extern "C" fn(*mut IbvFlow) -> i32;

fn create_of(device: &Device) -> Option<Create> {
    device.operation(
        |extended| {
            // SAFETY: only the place of the field is worked out; it lies in one piece of memory with `extended`.
            unsafe { &raw const (*extended).create_flow }
        },
        std::mem::offset_of!(VerbsContext, create_flow),
    )
}

fn destroy_of(device: &Device) -> Option<Destroy> {
    device.operation(
        |extended| {
            // SAFETY: as in `create_of`.
            unsafe { &raw const (*extended).destroy_flow }
        },
        std::mem::offset_of!(VerbsContext, destroy_flow),
    )
}

impl fmt::Debug for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flow").finish_non_exhaustive()
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        // SAFETY: made once and destroyed once; its target is there still.
        unsafe { (self.destroy)(self.raw) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A rule with one specification of `size` bytes.
    fn rule(size: u16) -> Vec<u8> {
        let whole = ATTR + usize::from(size);
        let mut bytes = vec![0; whole];
        bytes[AT_SIZE..AT_SIZE + 2].copy_from_slice(&(whole as u16).to_ne_bytes());
        bytes[AT_SPECS] = 1;
        bytes[ATTR + 4..ATTR + 6].copy_from_slice(&size.to_ne_bytes());
        bytes
    }

    #[test]
    fn a_rule_is_taken_only_when_its_sizes_add_up() {
        assert!(is_whole(&rule(16)));
        assert!(!is_whole(&rule(16)[..35]), "cut off");
        let mut longer = rule(16);
        longer[ATTR + 4] = 17;
        assert!(!is_whole(&longer), "a specification beyond the end");
        let mut endless = rule(16);
        endless[ATTR + 4..ATTR + 6].fill(0);
        assert!(!is_whole(&endless), "a specification of no length");
        let mut more = rule(16);
        more[AT_SPECS] = 2;
        assert!(!is_whole(&more), "a specification that is not there");
        assert!(!is_whole(&[0; 8]));
        assert_eq!(hashed(&more), Hashed::default());
    }

    #[test]
    fn what_a_rule_says_of_packets_is_what_their_hash_is_of() {
        let mut udp = rule(16);
        udp[ATTR] = FLOW_SPEC_UDP as u8;
        assert_eq!(
            hashed(&udp),
            Hashed {
                udp: true,
                ..Hashed::default()
            }
        );
    }
}
