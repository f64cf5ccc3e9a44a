//! What stands at tc ingress of an interface, and taking a filter away that another process left there.

use super::message::{Message, attributes, u32_at};
use super::socket::{Protocol, Socket};
use super::tc::{
    CLSACT, INGRESS, RTM_DELTFILTER, RTM_NEWQDISC, TCA_BPF_NAME, TCA_OPTIONS, TCMSG, dump, info, priority,
    remove_idle_clsact, tcmsg,
};
use crate::Result;

const RTM_GETQDISC: u16 = 38;

/// What stands at tc ingress of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ingress {
    /// It has the clsact qdisc.
    pub clsact: bool,
    /// The names of the BPF filters there, in the order of their priorities.
    pub filters: Vec<String>,
}

/// Tells what stands at tc ingress of interface `ifindex` of the calling thread's namespace.
///
/// # Errors
/// `ENODEV` when there is no such interface.
pub fn look(ifindex: u32) -> Result<Ingress> {
    let mut socket = Socket::open(Protocol::Route)?;
    let clsact = has_clsact(&mut socket, ifindex)?;
    let filters = match clsact {
        true => named(&mut socket, ifindex)?
            .into_iter()
            .map(|(_, name)| name)
            .collect(),
        // A dump of the filters of a qdisc that is not there is refused.
        false => Vec::new(),
    };
    Ok(Ingress { clsact, filters })
}

/// Deletes the BPF filters of that name at tc ingress of interface `ifindex`, whoever made them, and with `qdisc`
/// also the clsact qdisc, when nothing else is on it then. What is gone already is no error.
///
/// # Errors
/// `EPERM` without CAP_NET_ADMIN.
pub fn delete(ifindex: u32, name: &str, qdisc: bool) -> Result<()> {
    let mut socket = Socket::open(Protocol::Route)?;
    if !has_clsact(&mut socket, ifindex)? {
        return Ok(());
    }
    for (priority, found) in named(&mut socket, ifindex)? {
        if found == name {
            let message = Message::new(RTM_DELTFILTER, 0, &tcmsg(ifindex, 0, INGRESS, info(priority)));
            let args = format!("ifindex={ifindex} name={name}");
            socket.change("netlink(RTM_DELTFILTER)", &args, message)?;
        }
    }
    if qdisc {
        remove_idle_clsact(&mut socket, ifindex);
    }
    Ok(())
}

fn has_clsact(socket: &mut Socket, ifindex: u32) -> Result<bool> {
    let message = Message::new(RTM_GETQDISC, 0, &tcmsg(ifindex, 0, 0, 0));
    let found = socket.dump("netlink(RTM_GETQDISC)", &message, |received| {
        let here = received.kind == RTM_NEWQDISC && u32_at(received.body, 4)? == ifindex;
        (here && u32_at(received.body, 12)? == CLSACT).then_some(())
    })?;
    Ok(!found.is_empty())
}

/// The priorities and names of the BPF filters at tc ingress; a filter without a name has an empty one.
fn named(socket: &mut Socket, ifindex: u32) -> Result<Vec<(u16, String)>> {
    socket.dump("netlink(RTM_GETTFILTER)", &dump(ifindex, INGRESS), |received| {
        let priority = priority(received, ifindex)?;
        let options = attributes(received.body.get(TCMSG..)?).find(|a| a.kind == TCA_OPTIONS)?;
        let name = attributes(options.value).find(|a| a.kind == TCA_BPF_NAME)?;
        let text = name.value.split(|byte| *byte == 0).next().unwrap_or_default();
        Some((priority, String::from_utf8_lossy(text).into_owned()))
    })
}
