//! Traffic control: the clsact qdisc, and BPF filters on it (tc-bpf(8)).

use super::message::{Message, Received, attributes, flag, u32_at};
use super::socket::{Protocol, Socket};
use crate::bpf::TcDirection;
use crate::{Error, Result};
use std::os::fd::{AsRawFd, BorrowedFd};

/// What decides whether a packet matches.
#[derive(Debug, Clone, Copy)]
pub enum Classifier<'a> {
    /// A loaded program of type sched-cls.
    Program {
        /// Its descriptor.
        program: BorrowedFd<'a>,
        /// The name that `tc filter show` prints.
        name: &'a str,
    },
    /// A classic BPF program: struct sock_filter, eight bytes each, seeing the frame from its Ethernet
    /// header on.
    Classic(&'a [u8]),
}

/// What becomes of a packet that matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// What the program returned, a TC_ACT code: -1 goes on to the next filter, 0 lets it through, 2
    /// drops it.
    Direct,
    /// It arrives, from then on, on this interface (act_mirred). The program returns -1 for a match.
    RedirectIngress(u32),
}

/// A filter that was added; dropping it deletes it, and the clsact qdisc when it was made for it.
#[derive(Debug)]
pub struct Filter {
    socket: std::sync::Mutex<Socket>,
    ifindex: u32,
    parent: u32,
    priority: u16,
    made_qdisc: bool,
}

pub(super) const RTM_NEWQDISC: u16 = 36;
const RTM_DELQDISC: u16 = 37;
const RTM_NEWTFILTER: u16 = 44;
pub(super) const RTM_DELTFILTER: u16 = 45;
const RTM_GETTFILTER: u16 = 46;
const TCA_KIND: u16 = 1;
pub(super) const TCA_OPTIONS: u16 = 2;
const TCA_BPF_ACT: u16 = 1;
const TCA_BPF_OPS_LEN: u16 = 4;
const TCA_BPF_OPS: u16 = 5;
const TCA_BPF_FD: u16 = 6;
pub(super) const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_FLAGS: u16 = 8;
const TCA_BPF_FLAG_ACT_DIRECT: u32 = 1;
const TCA_ACT_KIND: u16 = 1;
const TCA_ACT_OPTIONS: u16 = 2;
const TCA_MIRRED_PARMS: u16 = 2;
const TCA_INGRESS_REDIR: u32 = 3;
const TC_ACT_STOLEN: u32 = 4;
/// TC_H_CLSACT, and the ingress and egress sides of that qdisc (TC_H_MAKE of its major number).
pub(super) const CLSACT: u32 = 0xffff_fff1;
const CLSACT_HANDLE: u32 = 0xffff_0000;
pub(super) const INGRESS: u32 = 0xffff_fff2;
const EGRESS: u32 = 0xffff_fff3;
pub(super) const TCMSG: usize = 20;

impl Filter {
    /// Adds a filter to interface `ifindex` of the calling thread's namespace, with the clsact qdisc when
    /// the interface has none. The kernel chooses the priority: it comes after the filters already there.
    pub fn add(
        ifindex: u32,
        direction: TcDirection,
        classifier: &Classifier<'_>,
        action: Action,
    ) -> Result<Self> {
        let mut socket = Socket::open(Protocol::Route)?;
        let made_qdisc = add_clsact(&mut socket, ifindex)?;
        let parent = match direction {
            TcDirection::Ingress => INGRESS,
            TcDirection::Egress => EGRESS,
        };
        let mut filter = Self {
            socket: socket.into(),
            ifindex,
            parent,
            priority: 0,
            made_qdisc,
        };
        match filter.insert(classifier, action) {
            Ok(priority) => {
                filter.priority = priority;
                Ok(filter)
            }
            // Dropped with priority zero it takes away the qdisc alone.
            Err(error) => Err(error),
        }
    }

    fn insert(&mut self, classifier: &Classifier<'_>, action: Action) -> Result<u16> {
        let args = format!("ifindex={} bpf action={action:?}", self.ifindex);
        let call = "netlink(RTM_NEWTFILTER)";
        let (ifindex, parent) = (self.ifindex, self.parent);
        let socket = self
            .socket
            .get_mut()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let taken: Vec<u16> = socket.dump("netlink(RTM_GETTFILTER)", &dump(ifindex, parent), |r| {
            priority(r, ifindex)
        })?;
        let priority = free_priority(&taken).ok_or_else(|| Error::new(call, &args, libc::ENOSPC))?;
        socket.change(
            call,
            &args,
            newtfilter(ifindex, parent, priority, classifier, action)?,
        )?;
        Ok(priority)
    }

    /// True while the filter is there; deleting the interface or its clsact qdisc takes it away.
    pub fn present(&self) -> Result<bool> {
        let mut socket = self
            .socket
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let found = socket.dump("netlink(RTM_GETTFILTER)", &dump(self.ifindex, self.parent), |r| {
            priority(r, self.ifindex)
        });
        match found {
            Ok(found) => Ok(found.contains(&self.priority)),
            Err(error) if matches!(error.errno, libc::ENODEV | libc::EINVAL | libc::ENOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The filter's priority, by which `tc filter del` finds it.
    #[must_use]
    pub fn priority(&self) -> u16 {
        self.priority
    }
}

impl Drop for Filter {
    fn drop(&mut self) {
        let (ifindex, parent, priority) = (self.ifindex, self.parent, self.priority);
        let socket = self
            .socket
            .get_mut()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        // What is gone already, with its interface or by somebody's hand, needs no deleting.
        if priority != 0 {
            let message = Message::new(RTM_DELTFILTER, 0, &tcmsg(ifindex, 0, parent, info(priority)));
            let _ = socket.change("netlink(RTM_DELTFILTER)", "", message);
        }
        if self.made_qdisc {
            remove_idle_clsact(socket, ifindex);
        }
    }
}

/// Takes the clsact qdisc away when no filter is on it.
pub(super) fn remove_idle_clsact(socket: &mut Socket, ifindex: u32) {
    let others = [INGRESS, EGRESS].iter().any(|parent| {
        let found = socket.dump("netlink(RTM_GETTFILTER)", &dump(ifindex, *parent), |r| {
            priority(r, ifindex)
        });
        found.map_or(true, |found| !found.is_empty())
    });
    if !others {
        let body = tcmsg(ifindex, CLSACT_HANDLE, CLSACT, 0);
        let _ = socket.change("netlink(RTM_DELQDISC)", "", Message::new(RTM_DELQDISC, 0, &body));
    }
}

/// Gives an interface the clsact qdisc; true when it had none before.
fn add_clsact(socket: &mut Socket, ifindex: u32) -> Result<bool> {
    let body = tcmsg(ifindex, CLSACT_HANDLE, CLSACT, 0);
    let message = Message::new(RTM_NEWQDISC, flag::CREATE | flag::EXCL, &body).string(TCA_KIND, "clsact");
    match socket.change(
        "netlink(RTM_NEWQDISC)",
        &format!("ifindex={ifindex} clsact"),
        message,
    ) {
        Ok(()) => Ok(true),
        Err(error) if error.errno == libc::EEXIST => Ok(false),
        Err(error) => Err(error),
    }
}

fn newtfilter(
    ifindex: u32,
    parent: u32,
    priority: u16,
    classifier: &Classifier<'_>,
    action: Action,
) -> Result<Message> {
    let body = tcmsg(ifindex, 0, parent, info(priority));
    if let Classifier::Classic(code) = classifier
        && (code.is_empty() || !code.len().is_multiple_of(8) || code.len() / 8 > 4096)
    {
        let args = format!("ifindex={ifindex} classic program of {} bytes", code.len());
        return Err(Error::new("netlink(RTM_NEWTFILTER)", args, libc::EINVAL));
    }
    Ok(Message::new(RTM_NEWTFILTER, flag::CREATE | flag::EXCL, &body)
        .string(TCA_KIND, "bpf")
        .nested(TCA_OPTIONS, |m| {
            let m = match action {
                Action::Direct => m.number(TCA_BPF_FLAGS, TCA_BPF_FLAG_ACT_DIRECT),
                Action::RedirectIngress(to) => m.nested(TCA_BPF_ACT, |acts| {
                    // Actions are numbered from one.
                    acts.nested(1, |act| {
                        act.string(TCA_ACT_KIND, "mirred")
                            .nested(TCA_ACT_OPTIONS, |options| {
                                options.attribute(TCA_MIRRED_PARMS, &mirred(to))
                            })
                    })
                }),
            };
            match classifier {
                Classifier::Program { program, name } => m
                    .number(TCA_BPF_FD, program.as_raw_fd() as u32)
                    .string(TCA_BPF_NAME, name),
                Classifier::Classic(code) => m
                    .attribute(TCA_BPF_OPS_LEN, &((code.len() / 8) as u16).to_ne_bytes())
                    .attribute(TCA_BPF_OPS, code),
            }
        }))
}

/// struct tc_mirred: index, capabilities, action, two counts, then what to do and where.
fn mirred(ifindex: u32) -> [u8; 28] {
    let mut parameters = [0; 28];
    parameters[8..12].copy_from_slice(&TC_ACT_STOLEN.to_ne_bytes());
    parameters[20..24].copy_from_slice(&TCA_INGRESS_REDIR.to_ne_bytes());
    parameters[24..28].copy_from_slice(&ifindex.to_ne_bytes());
    parameters
}

/// struct tcmsg: family, ifindex, handle, parent, info.
pub(super) fn tcmsg(ifindex: u32, handle: u32, parent: u32, info: u32) -> [u8; TCMSG] {
    let mut body = [0; TCMSG];
    for (at, word) in [ifindex, handle, parent, info].into_iter().enumerate() {
        body[4 + at * 4..8 + at * 4].copy_from_slice(&word.to_ne_bytes());
    }
    body
}

/// A filter's priority and protocol (all of them) in one word.
pub(super) fn info(priority: u16) -> u32 {
    u32::from(priority) << 16 | u32::from((libc::ETH_P_ALL as u16).to_be())
}

pub(super) fn dump(ifindex: u32, parent: u32) -> Message {
    Message::new(RTM_GETTFILTER, 0, &tcmsg(ifindex, 0, parent, 0))
}

/// The priority in an RTM_NEWTFILTER.
pub(super) fn priority(received: &Received<'_>, ifindex: u32) -> Option<u16> {
    let here = received.kind == RTM_NEWTFILTER && u32_at(received.body, 4)? == ifindex;
    let filter = attributes(received.body.get(TCMSG..)?).any(|a| a.kind == TCA_KIND);
    (here && filter).then_some((u32_at(received.body, 16)? >> 16) as u16)
}

/// A priority behind all that are taken, counted from where tc(8) begins when it is free to choose.
fn free_priority(taken: &[u16]) -> Option<u16> {
    const FIRST: u16 = 0xc000;
    taken
        .iter()
        .max()
        .map_or(Some(FIRST), |last| (*last).max(FIRST - 1).checked_add(1))
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;

    /// The bytes that iproute2's `tc filter add ... bpf bytecode '1,6 0 0 4294967295' action mirred ingress
    /// redirect` sends, but for two flags that it leaves out: nested attributes say so here.
    #[test]
    fn a_redirecting_filter_is_what_tc_sends() {
        let code = [6, 0, 0, 0, 0xff, 0xff, 0xff, 0xff];
        let message = newtfilter(
            3,
            INGRESS,
            0,
            &Classifier::Classic(&code),
            Action::RedirectIngress(2),
        )
        .unwrap();
        #[rustfmt::skip]
        let expected = [
            124, 0, 0, 0, 0x2c, 0, 0x05, 0x06, 1, 0, 0, 0, 0, 0, 0, 0,
            0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0xf2, 0xff, 0xff, 0xff, 0, 3, 0, 0,
            8, 0, 1, 0, b'b', b'p', b'f', 0,
            0x50, 0, 2, 0x80,
            0x38, 0, 1, 0x80, 0x34, 0, 1, 0x80,
            0x0b, 0, 1, 0, b'm', b'i', b'r', b'r', b'e', b'd', 0, 0,
            0x24, 0, 2, 0x80, 0x20, 0, 2, 0,
            0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0,
            6, 0, 4, 0, 1, 0, 0, 0,
            0x0c, 0, 5, 0, 6, 0, 0, 0, 0xff, 0xff, 0xff, 0xff,
        ];
        assert_eq!(message.finish(1, flag::ACK), expected);
    }

    #[test]
    fn a_new_filter_comes_after_the_others() {
        assert_eq!(free_priority(&[]), Some(0xc000));
        assert_eq!(free_priority(&[1, 7]), Some(0xc000));
        assert_eq!(free_priority(&[49152, 1]), Some(49153));
        assert_eq!(free_priority(&[0xffff]), None);
    }

    #[test]
    fn half_an_instruction_is_refused() {
        for code in [&[][..], &[6, 0, 0, 0][..]] {
            let error = newtfilter(3, INGRESS, 1, &Classifier::Classic(code), Action::Direct).unwrap_err();
            assert_eq!(error.code(), "EINVAL");
        }
    }
}
