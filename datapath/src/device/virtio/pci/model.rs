//! A virtio card in memory: structures that the driver can start, and rings that it serves as a device would, only when
//! it is told to. It reaches what the driver told it of through a table of the memory it was given, as behind an IOMMU.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bifurcate_linux::Result;

use super::registers::{
    CONFIG_MSIX_VECTOR, DEVICE_FEATURE, DEVICE_FEATURE_SELECT, DEVICE_STATUS, DRIVER_FEATURE,
    DRIVER_FEATURE_SELECT, Field, MAC_HIGH, MAC_LOW, MAX_PAIRS, NET_STATUS, NUM_QUEUES, Part, QUEUE_DESC,
    QUEUE_DEVICE, QUEUE_DRIVER, QUEUE_ENABLE, QUEUE_MSIX_VECTOR, QUEUE_NOTIFY_OFF, QUEUE_SELECT, QUEUE_SIZE,
    Structures, status,
};
use super::start::{Wanted, start};
use crate::device::Port;
use crate::device::pmd::{Config, Pool, Quiet, Waking};
use crate::frame::Umem;
use crate::ring::virtio::{
    DeviceRing, Head, INDIRECT, Keep, NET_HEADER, NUM_BUFFERS_AT, Options, PIECES_MAX, PackedDevice, Piece,
    Places, Region, Regions, SplitDevice, WRITE, Window, feature,
};

/// Bytes of a slot, by which `Pool::anonymous` counts.
const SLOT: usize = 16;

/// What a model is.
#[derive(Clone, Debug)]
pub struct Made {
    /// Features that it offers.
    pub offers: u64,
    /// Queue pairs that it has.
    pub pairs: u32,
    /// Slots of its rings at most.
    pub slots: u32,
    /// Vectors that it has room for.
    pub vectors: u32,
}

/// What the driver told of a ring.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    size: u32,
    vector: u32,
    enabled: bool,
    desc: u64,
    driver: u64,
    device: u64,
}

struct Inner {
    features: u64,
    status: u32,
    device_select: u32,
    driver_select: u32,
    queue_select: u32,
    told: BTreeMap<u32, Told>,
    rings: BTreeMap<u32, Box<dyn DeviceRing>>,
    window: Option<Window>,
    regions: Option<Arc<Regions>>,
    link: u32,
    commands: Vec<Vec<u8>>,
    /// Answers no command.
    mute: bool,
    kicks: u64,
    faults: u64,
}

/// A virtio card in memory.
pub struct Model {
    made: Made,
    inner: Mutex<Inner>,
    pool: Mutex<Option<Pool>>,
}

/// Everything that the driver can use, split rings, and room for it.
impl Default for Made {
    fn default() -> Made {
        Made {
            offers: feature::VERSION_1
                | feature::ACCESS_PLATFORM
                | feature::INDIRECT_DESC
                | feature::EVENT_IDX
                | feature::MRG_RXBUF
                | feature::MAC
                | feature::STATUS
                | feature::CTRL_VQ
                | feature::CTRL_RX
                | feature::CTRL_MAC_ADDR
                | feature::MQ,
            pairs: 4,
            slots: 256,
            vectors: 8,
        }
    }
}

impl Model {
    /// A card that was just switched on.
    #[must_use]
    pub fn new(made: Made) -> Arc<Model> {
        Arc::new(Model {
            made,
            inner: Mutex::new(Inner {
                features: 0,
                status: 0,
                device_select: 0,
                driver_select: 0,
                queue_select: 0,
                told: BTreeMap::new(),
                rings: BTreeMap::new(),
                window: None,
                regions: None,
                link: 1,
                commands: Vec::new(),
                mute: false,
                kicks: 0,
                faults: 0,
            }),
            pool: Mutex::default(),
        })
    }

    /// Starts the driver on it, and gives it what the driver gives it.
    ///
    /// # Errors
    /// What starting a card reports.
    pub fn open(self: &Arc<Model>, config: &Config, umem: &Arc<Umem>) -> Result<(Port, Arc<Quiet>)> {
        let waking = Waking {
            interrupts: config.interrupts,
            vectors: config.interrupts,
            refused: None,
        };
        self.open_waking(config, umem, waking)
    }

    /// As [`Model::open`], with queues that wait so.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn open_waking(
        self: &Arc<Model>,
        config: &Config,
        umem: &Arc<Umem>,
        waking: Waking,
    ) -> Result<(Port, Arc<Quiet>)> {
        let structures: Arc<dyn Structures> = Arc::clone(self) as _;
        let wanted = Wanted {
            name: "model",
            card: None,
            config,
            umem,
            reach: umem.len() as u32,
            protected: true,
            waking,
        };
        let memory = |bytes: usize| {
            let pool = Pool::anonymous(umem, 1, (bytes / SLOT) as u32, 1 << 32, 2 << 32)?;
            self.give(&pool);
            Ok(pool)
        };
        start(&wanted, &structures, memory)
    }

    /// Lets it reach the pool's frames and rings, where the pool says they are.
    ///
    /// # Panics
    /// When they overlap.
    pub fn give(&self, pool: &Pool) {
        let keep: Keep = Arc::new(pool.clone());
        let region = |at: u64, base, len: usize| {
            // SAFETY: the pool maps frames and rings for as long as the clone in `keep` lives.
            unsafe { Region::new(at, at, len as u64, base, Arc::clone(&keep)) }.unwrap()
        };
        let slots = pool.slots();
        let regions = Regions::new(vec![
            region(pool.frames.address(0), pool.umem.base(), pool.umem.len()),
            region(pool.slots_table().address(0), slots.base(), slots.len()),
        ]);
        let regions = Arc::new(regions.unwrap());
        let mut inner = self.inner();
        inner.window = Some(Window::new(Arc::clone(&regions)));
        inner.regions = Some(regions);
        drop(inner);
        *self.pool.lock().unwrap_or_else(PoisonError::into_inner) = Some(pool.clone());
    }

    /// Features that the driver took.
    #[must_use]
    pub fn features(&self) -> u64 {
        self.inner().features
    }

    /// DEVICE_STATUS.
    #[must_use]
    pub fn status(&self) -> u32 {
        self.inner().status
    }

    /// Sets DEVICE_STATUS as the device would.
    pub fn set_status(&self, to: u32) {
        self.inner().status = to;
    }

    /// The link goes or comes.
    pub fn set_link(&self, up: bool) {
        self.inner().link = up.into();
    }

    /// Answers no command from now on.
    pub fn mute(&self) {
        self.inner().mute = true;
    }

    /// Commands of the control queue, class and number first.
    #[must_use]
    pub fn commands(&self) -> Vec<Vec<u8>> {
        self.inner().commands.clone()
    }

    /// How often the driver notified it.
    #[must_use]
    pub fn kicks(&self) -> u64 {
        self.inner().kicks
    }

    /// How often the driver named memory that the card may not reach.
    #[must_use]
    pub fn faults(&self) -> u64 {
        self.inner().faults
    }

    /// The vector of a ring.
    #[must_use]
    pub fn vector(&self, ring: u32) -> u32 {
        self.inner().told[&ring].vector
    }

    /// A packet arrives for pair `pair`; false when it found no buffers.
    pub fn receive(&self, pair: u32, packet: &[u8]) -> bool {
        let mut inner = self.inner();
        let merges = inner.features & feature::MRG_RXBUF != 0;
        let (ring, mut window) = match inner.take(2 * pair) {
            Some(taken) => taken,
            None => return false,
        };
        let (mut ring, mut faults) = (ring, 0);
        let put = put(&mut *ring, &mut window, packet, merges, &mut faults);
        inner.back(2 * pair, ring, window);
        inner.faults += faults;
        put
    }

    /// Sends what pair `pair` has; gives the packets without their headers.
    pub fn transmit(&self, pair: u32) -> Vec<Vec<u8>> {
        let mut inner = self.inner();
        let number = 2 * pair + 1;
        let Some((mut ring, mut window)) = inner.take(number) else {
            return Vec::new();
        };
        let (mut packets, mut faults) = (Vec::new(), 0);
        drain(&mut *ring, &mut window, &mut faults, |bytes, _| {
            packets.push(bytes.get(NET_HEADER as usize..).unwrap_or_default().to_vec());
            0
        });
        inner.back(number, ring, window);
        inner.faults += faults;
        packets
    }

    /// Writes two bytes anywhere into the memory of rings, as a device that has gone wrong would.
    pub fn scribble(&self, at: usize, value: u16) {
        let pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slots) = pool.as_ref().map(Pool::slots) {
            let at = at % (slots.len() / 2) * 2;
            // SAFETY: within the mapping, aligned; the driver copies what it reads there once.
            unsafe { slots.base().as_ptr().add(at).cast::<u16>().write_volatile(value) }
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn control(&self) -> u32 {
        2 * self.made.pairs
    }

    fn obey(&self) {
        let mut inner = self.inner();
        let number = if inner.features & feature::MQ != 0 {
            self.control()
        } else {
            2
        };
        if inner.mute {
            return;
        }
        let Some((mut ring, mut window)) = inner.take(number) else {
            return;
        };
        let (mut commands, mut faults) = (Vec::new(), 0);
        drain(&mut *ring, &mut window, &mut faults, |bytes, answer| {
            commands.push(bytes.to_vec());
            if let Some(answer) = answer {
                // SAFETY: one byte that the window found, for the device to write.
                unsafe { answer.write_volatile(0) };
            }
            1
        });
        inner.back(number, ring, window);
        inner.faults += faults;
        inner.commands.extend(commands);
    }
}

/// A packet into the ring's next buffers.
fn put(
    ring: &mut dyn DeviceRing,
    window: &mut Window,
    packet: &[u8],
    merges: bool,
    faults: &mut u64,
) -> bool {
    let mut bytes = vec![0; NET_HEADER as usize];
    bytes.extend(packet);
    let mut heads = [Head::default(); 64];
    let Ok(there) = ring.look(&mut heads) else {
        return false;
    };
    let most = if merges { there } else { there.min(1) };
    // Where each buffer's part goes, and how much of each buffer is used.
    let (mut parts, mut ends, mut at) = (Vec::new(), Vec::new(), 0);
    for head in &heads[..most] {
        let mut pieces = [Piece::default(); PIECES_MAX];
        let count = ring.pieces(head, window, &mut pieces).unwrap_or(0);
        let begin = at;
        for piece in &pieces[..count] {
            let len = (piece.len as usize).min(bytes.len() - at);
            match window.at(piece.addr, len as u32) {
                Some(to) if piece.write => parts.push((to, at, len)),
                _ => *faults += 1,
            }
            at += len;
        }
        ends.push(at - begin);
        if at == bytes.len() {
            break;
        }
    }
    if at < bytes.len() {
        return false;
    }
    bytes[NUM_BUFFERS_AT..NUM_BUFFERS_AT + 2].copy_from_slice(&(ends.len() as u16).to_le_bytes());
    for (to, from, len) in parts {
        // SAFETY: the window found `len` bytes there; the driver lent them to the device.
        unsafe { std::ptr::copy_nonoverlapping(bytes[from..].as_ptr(), to, len) };
    }
    for (head, used) in heads.iter().zip(ends) {
        ring.complete(head, used as u32);
    }
    ring.publish();
    ring.wants_call();
    true
}

/// Descriptors of a packed ring's indirect table that have a flag beside WRITE (section 2.8.7).
fn stray_flags(head: &Head, window: &mut Window, packed: bool) -> u64 {
    if !packed || head.flags & INDIRECT == 0 {
        return 0;
    }
    let Some(table) = window.at(head.addr, head.len) else {
        return 0;
    };
    // SAFETY: the window found that many bytes; the driver lent them to the device.
    let bytes = unsafe { std::slice::from_raw_parts(table, head.len as usize) };
    let flags = bytes
        .chunks_exact(16)
        .map(|entry| u16::from_le_bytes([entry[14], entry[15]]));
    flags.filter(|flags| flags & !WRITE != 0).count() as u64
}

/// Takes every buffer: its readable bytes, and where the last byte to write is. `took` gives how many were written.
fn drain(
    ring: &mut dyn DeviceRing,
    window: &mut Window,
    faults: &mut u64,
    mut took: impl FnMut(&[u8], Option<*mut u8>) -> u32,
) {
    let mut heads = [Head::default(); 32];
    while let Ok(count @ 1..) = ring.look(&mut heads) {
        for head in &heads[..count] {
            let mut pieces = [Piece::default(); PIECES_MAX];
            let there = ring.pieces(head, window, &mut pieces).unwrap_or(0);
            *faults += stray_flags(head, window, ring.is_packed());
            let (mut bytes, mut answer) = (Vec::new(), None);
            for piece in &pieces[..there] {
                match window.at(piece.addr, piece.len) {
                    Some(at) if piece.write => answer = Some(at),
                    // SAFETY: the window found that many bytes; the driver lent them to the device.
                    Some(at) => bytes.extend(unsafe { std::slice::from_raw_parts(at, piece.len as usize) }),
                    None => *faults += 1,
                }
            }
            let written = took(&bytes, answer);
            ring.complete(head, written);
        }
        ring.publish();
        ring.wants_call();
    }
}

impl Inner {
    /// The device's half of a ring that is on, made when it is first asked for.
    fn take(&mut self, number: u32) -> Option<(Box<dyn DeviceRing>, Window)> {
        let told = self.told.get(&number).copied().filter(|told| told.enabled)?;
        let regions = self.regions.clone()?;
        if self.status & status::DRIVER_OK == 0 {
            return None;
        }
        let window = self.window.take()?;
        if let Some(ring) = self.rings.remove(&number) {
            return Some((ring, window));
        }
        let packed = self.features & feature::RING_PACKED != 0;
        let (desc, driver, device) = Places::lengths(told.size as u16, packed);
        let at = |addr, len| regions.ring_at(addr, len);
        let (desc, driver, device) = (
            at(told.desc, desc)?,
            at(told.driver, driver)?,
            at(told.device, device)?,
        );
        let options = Options::of(self.features);
        // SAFETY: `ring_at` found each part, and the regions keep them mapped.
        let places = unsafe { Places::new(desc, driver, device, told.size as u16, packed, regions.keep()) }?;
        let ring: Box<dyn DeviceRing> = if packed {
            // Slot 0 of either end, wrap counters of 1.
            Box::new(PackedDevice::new(places, options, 0x8000_8000)?)
        } else {
            Box::new(SplitDevice::new(places, options, 0))
        };
        Some((ring, window))
    }

    fn back(&mut self, number: u32, mut ring: Box<dyn DeviceRing>, window: Window) {
        ring.enable_kicks();
        self.rings.insert(number, ring);
        self.window = Some(window);
    }
}

impl Structures for Model {
    fn read(&self, field: Field) -> u32 {
        let inner = self.inner();
        let told = inner.told.get(&inner.queue_select).copied().unwrap_or_default();
        let there = inner.queue_select <= self.control();
        match (field.part, field.offset) {
            (Part::Isr, _) => 0,
            (Part::Device, offset) if offset == MAC_LOW.offset => u32::from_le_bytes([2, 0, 0, 0]),
            (Part::Device, offset) if offset == MAC_HIGH.offset => 0x2a00,
            (Part::Device, offset) if offset == NET_STATUS.offset => inner.link,
            (Part::Device, offset) if offset == MAX_PAIRS.offset => self.made.pairs,
            (_, offset) if offset == DEVICE_FEATURE.offset => {
                (self.made.offers >> (32 * inner.device_select)) as u32
            }
            (_, offset) if offset == NUM_QUEUES.offset => self.control() + 1,
            (_, offset) if offset == DEVICE_STATUS.offset => inner.status,
            (_, offset) if offset == QUEUE_SIZE.offset && there => {
                if told.size > 0 {
                    told.size
                } else {
                    self.made.slots
                }
            }
            (_, offset) if offset == QUEUE_MSIX_VECTOR.offset => told.vector,
            (_, offset) if offset == QUEUE_NOTIFY_OFF.offset => inner.queue_select,
            _ => 0,
        }
    }

    fn write(&self, field: Field, value: u32) {
        let mut inner = self.inner();
        let select = inner.queue_select;
        let vectors = self.made.vectors;
        let wide = u64::from(value);
        match field.offset {
            offset if offset == DEVICE_FEATURE_SELECT.offset => inner.device_select = value & 1,
            offset if offset == DRIVER_FEATURE_SELECT.offset => inner.driver_select = value & 1,
            offset if offset == DRIVER_FEATURE.offset => {
                let shift = 32 * inner.driver_select;
                inner.features = inner.features & !(0xffff_ffff << shift) | wide << shift;
            }
            offset if offset == DEVICE_STATUS.offset && value == 0 => {
                inner.status = 0;
                inner.features = 0;
                inner.told.clear();
                inner.rings.clear();
            }
            offset if offset == DEVICE_STATUS.offset => {
                let takes = inner.features & !self.made.offers == 0;
                inner.status = value & !if takes { 0 } else { status::FEATURES_OK };
            }
            offset if offset == CONFIG_MSIX_VECTOR.offset => {}
            offset if offset == QUEUE_SELECT.offset => inner.queue_select = value,
            offset => {
                let told = inner.told.entry(select).or_default();
                match offset {
                    _ if offset == QUEUE_SIZE.offset => told.size = value,
                    _ if offset == QUEUE_MSIX_VECTOR.offset => {
                        told.vector = if value < vectors { value } else { 0xffff };
                    }
                    _ if offset == QUEUE_ENABLE.offset => told.enabled = value == 1,
                    _ => {
                        for (field, place) in [
                            (QUEUE_DESC, &mut told.desc),
                            (QUEUE_DRIVER, &mut told.driver),
                            (QUEUE_DEVICE, &mut told.device),
                        ] {
                            if offset == field.offset {
                                *place = *place & !0xffff_ffff | wide;
                            } else if offset == field.offset + 4 {
                                *place = *place & 0xffff_ffff | wide << 32;
                            }
                        }
                    }
                }
            }
        }
    }

    fn notify(&self, _offset: u32, queue: u16) {
        self.inner().kicks += 1;
        let control = if self.features() & feature::MQ != 0 {
            self.control()
        } else {
            2
        };
        if u32::from(queue) == control {
            self.obey();
        }
    }

    fn can_notify(&self, offset: u32) -> bool {
        offset <= self.control()
    }
}
