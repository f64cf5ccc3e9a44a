//! Opening PCI cards by our own drivers.

use bifurcate_datapath::device::pmd::Config;
use bifurcate_datapath::device::{cards, lend};
use bifurcate_datapath::filter::Program;
use bifurcate_datapath::frame::{Pages, Umem, UmemConfig};
use bifurcate_linux::card::Via;
use bifurcate_linux::pci::Address;
use bifurcate_linux::{Error, Result};
use napi::Env;
use napi::bindgen_prelude::{ClassInstance, Uint8Array};
use napi_derive::napi;
use std::os::fd::OwnedFd;

use super::native_port::NativePort;
use super::open::{Obtained, page_name, pages, tapped};
use super::shared::PortShared;
use crate::broker::Descriptor;
use crate::error::OrThrow;
use crate::kernel::pci::bus;

/// What openPci is asked for.
#[napi(object)]
pub struct PciOptions {
    /// Where the card sits, as 0000:01:10.0.
    pub address: String,
    /// "vfio", "iommufd", "vfio-noiommu", "uio_pci_generic" or "igb_uio"; the card is bound to its driver already.
    pub via: String,
    /// The card may reach all memory of the machine: said aloud, or a mechanism without memory protection is refused.
    pub no_memory_protection: bool,
    /// Number of queues.
    pub queues: u32,
    /// Frames of the pool.
    pub frames: u32,
    /// Bytes of a frame: 2048 or 4096.
    pub frame_size: u32,
    /// Long frames of the pool: virtio merges packets of several buffers to them.
    pub jumbo_frames: u32,
    /// Slots of each ring, a power of two from 64 to 4096.
    pub ring_size: u32,
    /// "auto", "huge" or "ordinary". Without an IOMMU only huge pages will do.
    pub pages: String,
    /// Every frame on the wire, not only those addressed to the card.
    pub promiscuous: bool,
    /// Sleep until a frame comes, by the card's interrupts; else poll.
    pub interrupts: bool,
    /// An address other than the card's own, as 02:00:00:00:00:01.
    pub mac: Option<String>,
    /// Rings in the packed layout: virtio alone.
    pub packed: bool,
    /// A classic BPF program (struct sock_filter, this machine's byte order): handlers see what it wants, everything else
    /// is passed. All frames when left out.
    pub filter: Option<Uint8Array>,
    /// A pcapng file to write every received and sent frame to.
    pub tap: Option<String>,
    /// Add to that file what a port before this one has begun.
    pub tap_append: Option<bool>,
}

/// Takes a card that is bound to the mechanism's driver, starts it and opens its queues over one new pool.
#[napi]
pub fn open_pci(env: Env, options: PciOptions) -> napi::Result<NativePort> {
    port(&options).or_throw(&env)
}

fn port(options: &PciOptions) -> Result<NativePort> {
    let address: Address = options.address.parse()?;
    let via: Via = options.via.parse()?;
    if !via.protects_memory() && !options.no_memory_protection {
        let why = format!("via={via}: it has no memory protection, and noMemoryProtection was not said");
        return Err(Error::new("open", why, 1));
    }
    let config = config(options)?;
    let program = program(options)?;
    let pages = match pages(&options.pages)? {
        // The addresses of ordinary pages may change under the card.
        Pages::Auto if !via.protects_memory() => Pages::Huge,
        pages => pages,
    };
    let umem = Umem::map(&UmemConfig {
        frames: options.frames,
        frame_size: options.frame_size,
        jumbo_frames: options.jumbo_frames,
        pages,
    })?;
    let opened = cards::open(&bus(None), address, via, &config, &umem)?;
    native(options, opened, &umem, program)
}

/// What openLentCard is told of the descriptors: the broker's words.
#[napi(object)]
pub struct LentCardOptions {
    /// The I/O address of the memory's first byte.
    pub iova: i64,
    /// Where in it the rings begin.
    pub rings_at: i64,
    /// Bytes of the rings.
    pub ring_bytes: i64,
}

/// Opens a card that a broker opened and passed, over the memory that it was lent with; `via`, `pages` and
/// `noMemoryProtection` are of no account. Asks for no right. Takes the descriptors: their objects are closed afterwards,
/// also when this fails.
#[napi]
pub fn open_lent_card(
    env: Env,
    options: PciOptions,
    lent: LentCardOptions,
    mut device: ClassInstance<'_, Descriptor>,
    mut memory: ClassInstance<'_, Descriptor>,
) -> napi::Result<NativePort> {
    let device = device.take(&env);
    let memory = memory.take(&env)?;
    lent_port(&options, &lent, device?, memory).or_throw(&env)
}

fn lent_port(
    options: &PciOptions,
    lent: &LentCardOptions,
    device: OwnedFd,
    memory: OwnedFd,
) -> Result<NativePort> {
    let bytes = |n| u64::try_from(n).map_err(|_| Error::new("open", format!("lent card: {n} bytes"), 22));
    let received = lend::Received {
        device,
        memory,
        iova: bytes(lent.iova)?,
        rings_at: bytes(lent.rings_at)?,
        ring_bytes: bytes(lent.ring_bytes)?,
    };
    let pool = UmemConfig {
        frames: options.frames,
        frame_size: options.frame_size,
        jumbo_frames: options.jumbo_frames,
        pages: Pages::Auto,
    };
    let program = program(options)?;
    let address = options.address.parse()?;
    let (opened, umem) = lend::open(&bus(None), address, received, &pool, &config(options)?)?;
    native(options, opened, &umem, program)
}

fn config(options: &PciOptions) -> Result<Config> {
    Ok(Config {
        queues: options.queues,
        ring_size: options.ring_size,
        promiscuous: options.promiscuous,
        interrupts: options.interrupts,
        mac: options.mac.as_deref().map(mac).transpose()?,
        packed: options.packed,
    })
}

fn program(options: &PciOptions) -> Result<Option<Program>> {
    let program = options.filter.as_deref().map(Program::from_bytes).transpose();
    program.map_err(|wrong| Error::new("open", format!("filter: {wrong}"), 22))
}

fn native(
    options: &PciOptions,
    (port, card): cards::Opened,
    umem: &Umem,
    program: Option<Program>,
) -> Result<NativePort> {
    let obtained = Obtained {
        zero_copy: true,
        need_wakeup: false,
        multi_buffer: false,
        // What really is: a card without an interrupt for each queue polls, whatever was asked for.
        busy_poll: !card.waking.interrupts,
        pages: page_name(umem),
        refused: card.waking.refused.iter().cloned().collect(),
        tap: None,
    };
    let weak = std::sync::Arc::downgrade(&card);
    drop(card);
    let (port, tap) = tapped(port, options.tap.as_deref(), options.tap_append == Some(true))?;
    let shared = PortShared::new(port, Vec::new(), tap, obtained.busy_poll)?;
    if let Some(program) = program {
        shared.set_filter(program);
    }
    Ok(NativePort::new(shared, obtained, None).with_card(weak))
}

fn mac(text: &str) -> Result<[u8; 6]> {
    let bytes: Vec<u8> = text
        .split(':')
        .map_while(|part| u8::from_str_radix(part, 16).ok())
        .collect();
    bytes
        .try_into()
        .ok()
        .filter(|mac: &[u8; 6]| mac[0] & 1 == 0 && *mac != [0; 6])
        .ok_or_else(|| Error::new("open", format!("mac={text}: it is one card's address"), 22))
}
