//! One driver's connection: what it asks, and the rings that come of it. Knows messages, and no socket.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use bifurcate_linux::event::EventFd;
use bifurcate_linux::{Error, Result};

use crate::ring::virtio::{Options, PackedDevice, Places, SIZE_MAX, SplitDevice, Window, feature};
use crate::vhost_user::message::Addresses;
use crate::vhost_user::{Malformed, Message, PROTOCOL_FEATURES, protocol, request};

use super::memory::Memory;
use super::queue::{AnyRing, Live, Queue};

const EPROTO: i32 = 71;

/// What the device offers.
pub(super) const FEATURES: u64 = feature::MRG_RXBUF
    | feature::MQ
    | feature::GUEST_ANNOUNCE
    | feature::INDIRECT_DESC
    | feature::EVENT_IDX
    | feature::VERSION_1
    | feature::RING_PACKED
    | feature::IN_ORDER
    | PROTOCOL_FEATURES;

/// Parts of the protocol that it knows.
const PROTOCOL: u64 = protocol::MQ | protocol::REPLY_ACK | protocol::NET_MTU | protocol::STATUS;

/// What the driver has said of one ring.
#[derive(Default)]
struct Vring {
    size: u32,
    addresses: Option<Addresses>,
    base: u32,
    kick: Option<EventFd>,
    call: Option<EventFd>,
    /// The kick has come: the ring is started (section "Ring states").
    started: bool,
    enabled: bool,
}

/// One connection.
pub struct Session {
    rings: Vec<Arc<Queue>>,
    vrings: Vec<Vring>,
    offered: u64,
    features: u64,
    protocol: u64,
    /// The driver's status (VIRTIO 1.2, section 2.1), where it tells it.
    status: u8,
    memory: Option<Arc<Memory>>,
    trouble: EventFd,
}

impl Session {
    pub(super) fn new(rings: &[Arc<Queue>], offered: u64, trouble: &EventFd) -> Result<Session> {
        Ok(Session {
            vrings: rings.iter().map(|_| Vring::default()).collect(),
            rings: rings.to_vec(),
            offered,
            features: 0,
            protocol: 0,
            status: 0,
            memory: None,
            trouble: trouble.duplicate()?,
        })
    }

    /// A session of its own with `pairs` queue pairs, for a fuzz target or a test: its rings move nothing.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`.
    pub fn alone(pairs: usize) -> Result<Session> {
        let trouble = EventFd::new()?;
        let rings = (0..2 * pairs)
            .map(|_| Queue::new(&trouble))
            .collect::<Result<Vec<_>>>()?;
        Session::new(&rings, FEATURES, &trouble)
    }

    /// The virtio features that both ends have.
    #[must_use]
    pub fn features(&self) -> u64 {
        self.features
    }

    /// Whether any ring runs.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.rings.iter().any(|ring| ring.lock().is_some())
    }

    /// Whether the driver's memory vanished.
    pub(super) fn is_lost(&self) -> bool {
        self.memory.as_ref().is_some_and(|memory| memory.is_lost())
    }

    /// Does what a message asks; gives the reply where there is one.
    ///
    /// # Errors
    /// When the driver asked for what cannot be: the connection is then to be ended.
    pub fn handle(&mut self, mut message: Message) -> Result<Option<Message>> {
        let asked = message.request;
        let carries = [
            request::SET_MEM_TABLE,
            request::SET_VRING_KICK,
            request::SET_VRING_CALL,
            request::SET_VRING_ERR,
        ];
        if !message.fds.is_empty() && !carries.contains(&asked) {
            return Err(wrong(Malformed::Descriptors(asked, message.fds.len())));
        }
        let acknowledge = self.protocol & protocol::REPLY_ACK != 0 && message.needs_reply();
        let answer = self.answer(&mut message)?;
        Ok(match answer {
            Some(payload) => Some(Message::new(asked, payload).as_reply()),
            None if acknowledge => Some(Message::of_number(asked, 0).as_reply()),
            None => None,
        })
    }

    /// The payload of the reply, for a request that has one.
    fn answer(&mut self, message: &mut Message) -> Result<Option<Vec<u8>>> {
        let number = |number: u64| Ok(Some(number.to_ne_bytes().to_vec()));
        match message.request {
            request::GET_FEATURES => return number(self.offered),
            request::SET_FEATURES => self.set_features(message.number().map_err(wrong)?)?,
            request::GET_PROTOCOL_FEATURES => return number(PROTOCOL),
            request::SET_PROTOCOL_FEATURES => {
                let wanted = message.number().map_err(wrong)?;
                if wanted & !PROTOCOL != 0 {
                    return refuse(format!("protocol features {wanted:#x}, offered {PROTOCOL:#x}"));
                }
                self.protocol = wanted;
            }
            request::GET_QUEUE_NUM => return number(self.rings.len() as u64 / 2),
            request::SET_MEM_TABLE => {
                let table = message.memory().map_err(wrong)?;
                let fds = std::mem::take(&mut message.fds);
                self.set_memory(&table, fds)?;
            }
            request::SET_VRING_NUM => {
                let state = message.state().map_err(wrong)?;
                let packed = self.features & feature::RING_PACKED != 0;
                let possible = (1..=u32::from(SIZE_MAX)).contains(&state.num);
                if !possible || !packed && !state.num.is_power_of_two() {
                    return refuse(format!("a ring of {} slots", state.num));
                }
                self.change(state.index, |vring| vring.size = state.num)?;
            }
            request::SET_VRING_BASE => {
                let state = message.state().map_err(wrong)?;
                self.change(state.index, |vring| vring.base = state.num)?;
            }
            request::SET_VRING_ADDR => {
                let addresses = message.addresses().map_err(wrong)?;
                self.change(addresses.index, |vring| vring.addresses = Some(addresses))?;
            }
            request::GET_VRING_BASE => {
                let state = message.state().map_err(wrong)?;
                let base = self.stop(state.index)?;
                let reply = Message::of_state(message.request, state.index, base);
                return Ok(Some(reply.payload));
            }
            request::SET_VRING_KICK => {
                let (index, fd) = message.event().map_err(wrong)?;
                let kick = event(fd)?;
                self.change(index, |vring| (vring.kick, vring.started) = (kick, true))?;
            }
            request::SET_VRING_CALL => {
                let (index, fd) = message.event().map_err(wrong)?;
                let call = event(fd)?;
                self.change(index, |vring| vring.call = call)?;
            }
            request::SET_VRING_ENABLE => {
                let state = message.state().map_err(wrong)?;
                self.change(state.index, |vring| vring.enabled = state.num != 0)?;
            }
            request::SET_STATUS => {
                self.status = message.number().map_err(wrong)? as u8;
                if self.status == 0 {
                    self.stop_all();
                }
            }
            request::GET_STATUS => return number(u64::from(self.status)),
            // The device shares with every driver; it has no use for an error event, and the guest announces itself.
            request::SET_OWNER | request::SET_VRING_ERR | request::NET_SET_MTU | request::SEND_RARP => {}
            request::RESET_OWNER => self.stop_all(),
            other => return refuse(format!("request {other}, which was not offered")),
        }
        Ok(None)
    }

    fn set_features(&mut self, wanted: u64) -> Result<()> {
        if wanted & !self.offered != 0 {
            let what = feature::list(wanted & !self.offered);
            return refuse(format!("{what}, which was not offered"));
        }
        if wanted & feature::VERSION_1 == 0 {
            return refuse("features without VIRTIO_F_VERSION_1: a legacy driver".into());
        }
        // Features change how rings are read.
        if wanted != self.features {
            self.stop_all();
        }
        self.features = wanted;
        for index in 0..self.vrings.len() {
            self.start_if_ready(index)?;
        }
        Ok(())
    }

    fn set_memory(
        &mut self,
        table: &[crate::vhost_user::message::MemoryRegion],
        fds: Vec<OwnedFd>,
    ) -> Result<()> {
        let memory = Memory::map(table, fds, &self.trouble)?;
        // Rings that run go on in the new memory, where they stood in the old.
        let running: Vec<usize> = (0..self.rings.len())
            .filter(|&index| self.stop_ring(index))
            .collect();
        self.memory = Some(memory);
        for index in running {
            self.start_if_ready(index)?;
        }
        Ok(())
    }

    /// Changes what is known of a ring, and starts, stops or restarts it accordingly.
    fn change(&mut self, index: u32, change: impl FnOnce(&mut Vring)) -> Result<()> {
        let at = self.at(index)?;
        self.stop_ring(at);
        change(&mut self.vrings[at]);
        self.start_if_ready(at)
    }

    fn at(&self, index: u32) -> Result<usize> {
        if (index as usize) < self.vrings.len() {
            Ok(index as usize)
        } else {
            refuse(format!("ring {index} of {}", self.vrings.len()))
        }
    }

    /// GET_VRING_BASE: stops the ring until its next kick.
    fn stop(&mut self, index: u32) -> Result<u32> {
        let at = self.at(index)?;
        self.stop_ring(at);
        let vring = &mut self.vrings[at];
        (vring.started, vring.kick) = (false, None);
        Ok(vring.base)
    }

    /// Takes the ring from its loop and notes where it stood; true when it ran.
    fn stop_ring(&mut self, at: usize) -> bool {
        match self.rings[at].stop() {
            Some(base) => {
                self.vrings[at].base = base;
                true
            }
            None => false,
        }
    }

    fn stop_all(&mut self) {
        for at in 0..self.rings.len() {
            self.stop_ring(at);
            self.vrings[at].started = false;
        }
    }

    fn start_if_ready(&mut self, at: usize) -> Result<()> {
        let vring = &mut self.vrings[at];
        // Without PROTOCOL_FEATURES nobody enables rings: they are from the start.
        let enabled = vring.enabled || self.features & PROTOCOL_FEATURES == 0;
        let (Some(memory), Some(addresses)) = (&self.memory, vring.addresses) else {
            return Ok(());
        };
        if !enabled || !vring.started || vring.size == 0 || self.features & feature::VERSION_1 == 0 {
            return Ok(());
        }
        // A message said again finds the ring running: it goes on from where it stands, not from where it once began.
        if let Some(base) = self.rings[at].stop() {
            vring.base = base;
        }
        let packed = self.features & feature::RING_PACKED != 0;
        let size = vring.size as u16;
        let (desc, driver, device) = Places::lengths(size, packed);
        let place = |what: &str, address: u64, len: usize| {
            memory.regions.ring_at(address, len).ok_or_else(|| {
                refused(format!(
                    "ring {at}: its {what} at {address:#x} is outside of memory"
                ))
            })
        };
        let desc = place("descriptor table", addresses.desc, desc)?;
        let driver = place("available ring", addresses.avail, driver)?;
        let device = place("used ring", addresses.used, device)?;
        // SAFETY: each lies in one region for the length that such a ring has, and the regions' keep holds them mapped.
        let places = unsafe { Places::new(desc, driver, device, size, packed, memory.regions.keep()) }
            .ok_or_else(|| refused(format!("ring {at}: {size} slots at places that are not aligned")))?;
        let options = Options::of(self.features);
        let ring = if packed {
            let base = vring.base;
            AnyRing::Packed(
                PackedDevice::new(places, options, base)
                    .ok_or_else(|| refused(format!("ring {at}: base {base:#x} beyond {size} slots")))?,
            )
        } else {
            AnyRing::Split(SplitDevice::new(places, options, vring.base as u16))
        };
        let copy = |event: &Option<EventFd>| event.as_ref().map(EventFd::duplicate).transpose();
        self.rings[at].start(Live {
            ring,
            window: Window::new(Arc::clone(&memory.regions)),
            merges: self.features & feature::MRG_RXBUF != 0,
            memory: Arc::clone(memory),
            call: copy(&vring.call)?,
            kick: copy(&vring.kick)?,
            broken: false,
            armed: false,
        });
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.stop_all();
    }
}

/// An event that came with a message.
fn event(fd: Option<OwnedFd>) -> Result<Option<EventFd>> {
    fd.map(|fd| {
        EventFd::received(fd).ok_or_else(|| refused("a notification descriptor that is no eventfd".into()))
    })
    .transpose()
}

fn refused(what: String) -> Error {
    Error::new("vhost-user", format!("the driver asked for {what}"), EPROTO)
}

fn refuse<T>(what: String) -> Result<T> {
    Err(refused(what))
}

fn wrong(what: Malformed) -> Error {
    Error::new("vhost-user", what.to_string(), EPROTO)
}
