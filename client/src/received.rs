//! What came with a grant, opened: AF_XDP sockets of a flow, or a card with the memory that it reaches.

use std::os::fd::OwnedFd;

use bifurcate_datapath::device::lend;
use bifurcate_datapath::device::pmd::Config;
use bifurcate_datapath::device::{LeftToCard, Port, af_xdp};
use bifurcate_datapath::engine::pass::TapPass;
use bifurcate_datapath::frame::{Pages, UmemConfig};
use bifurcate_linux::pci::Bus;
use bifurcate_linux::tap::TapQueue;

use crate::error::{Error, Result};
use crate::message::{Granted, Request, Transmit};

/// A lease's queues, ready to be polled.
pub struct Opened {
    /// Its queues, and their pool.
    pub port: Port,
    /// The way back into the kernel, one for each queue; none where it was not granted.
    pub ways: Vec<TapPass>,
    /// The address of a card, which its driver here has read.
    pub mac: Option<String>,
}

fn unexpected(came: usize, granted: &Granted, expected: usize) -> Error {
    let queues = granted.queues;
    Error::Protocol(format!(
        "{came} descriptors came with a lease of {queues} queues, not {expected}"
    ))
}

/// Opens the sockets of a flow.
pub fn flow(granted: &Granted, descriptors: Vec<OwnedFd>) -> Result<Opened> {
    let queues = granted.queues as usize;
    let expected = 1 + queues * if granted.pass { 2 } else { 1 };
    let came = descriptors.len();
    let mut descriptors = descriptors.into_iter();
    let (Some(memory), true) = (descriptors.next(), came == expected && queues > 0) else {
        return Err(unexpected(came, granted, expected));
    };
    let sockets: Vec<OwnedFd> = descriptors.by_ref().take(queues).collect();
    let ways = descriptors
        .map(|queue| TapPass::received(TapQueue::from(queue), granted.mtu))
        .collect();
    let opened = af_xdp::receive(af_xdp::Received {
        name: granted.device.clone(),
        sockets,
        memory,
        pool: pool(granted),
        ring_size: granted.ring_size,
        filled: granted.filled,
        transmit: granted.transmit != Transmit::None,
        obtained: af_xdp::Obtained {
            zero_copy: granted.zero_copy,
            need_wakeup: granted.need_wakeup,
            multi_buffer: granted.multi_buffer,
            busy_poll: granted.busy_poll,
            refused: Vec::new(),
        },
        left: if granted.left_to_card {
            LeftToCard::EVERYTHING
        } else {
            LeftToCard::NOTHING
        },
        mtu: granted.mtu,
    })?;
    Ok(Opened {
        port: opened.port,
        ways,
        mac: None,
    })
}

/// Starts a card, by whichever driver here knows it.
pub fn card(request: &Request, granted: &Granted, descriptors: Vec<OwnedFd>) -> Result<Opened> {
    let came = descriptors.len();
    let [memory, device] = <[OwnedFd; 2]>::try_from(descriptors).map_err(|_| unexpected(came, granted, 2))?;
    let Some(memory_of) = granted.card else {
        return Err(Error::Protocol(
            "it does not say where the card's memory is".into(),
        ));
    };
    let lent = lend::Received {
        device,
        memory,
        iova: memory_of.iova,
        rings_at: memory_of.rings_at,
        ring_bytes: memory_of.ring_bytes,
    };
    let config = Config {
        queues: granted.queues,
        ring_size: granted.ring_size,
        interrupts: !request.busy_poll,
        ..Config::default()
    };
    // Which card it is, is this process's own word.
    let address = request.device.parse()?;
    // The queues have the card between them: it is closed with the last of them.
    let ((port, card), _) = lend::open(&Bus::system(), address, lent, &pool(granted), &config)?;
    let mac = card.nic.mac().map(|byte| format!("{byte:02x}")).join(":");
    Ok(Opened {
        port,
        ways: Vec::new(),
        mac: Some(mac),
    })
}

fn pool(granted: &Granted) -> UmemConfig {
    UmemConfig {
        frames: granted.frames,
        frame_size: granted.frame_size,
        jumbo_frames: granted.jumbo_frames,
        pages: Pages::Auto,
    }
}
