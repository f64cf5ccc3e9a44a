//! NativeQueue: one queue in the hands of the thread that took it, with the pool and the shared block as external
//! ArrayBuffers.

use std::cell::RefCell;
use std::ffi::c_void;
use std::os::fd::{AsFd, AsRawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bifurcate_datapath::engine::remote::{BLOCK_WORDS, RemoteQueue};
use bifurcate_datapath::engine::{Out, Pace, Patience};
use bifurcate_datapath::frame::BATCH_DEFAULT;
use bifurcate_linux::Error;
use bifurcate_linux::event::{Interest, Ready as Said, wait};
use napi::bindgen_prelude::{Function, Unknown};
use napi::{Env, JsValue, sys};
use napi_derive::napi;

use super::ready::Ready;
use super::run::sender;
use super::shared::PortShared;
use crate::error::OrThrow;

/// What a turn says when the queue is asked back.
const STOP: i32 = -1;

/// One queue of a port. It belongs to the thread that took it.
#[napi]
pub struct NativeQueue {
    held: Rc<RefCell<Held>>,
}

/// The queue, until it is given back.
struct Held {
    queue: Option<RemoteQueue>,
    /// Before the queue in drop order: it watches the queue's descriptor.
    ready: Option<Ready>,
    port: Arc<PortShared>,
    place: usize,
    /// `no_frames` of the queue when it was last looked at.
    no_frames: u64,
    /// Whether a wait should be a nap: frames are arriving one upon the other.
    pace: Pace,
    /// How long it may sleep while frames wait for room, or the device for frames.
    patience: Patience,
    /// Event loop rounds in a row that were kept short for that.
    short_rounds: u32,
}

/// Takes a queue of a port for the calling thread.
///
/// `place` counts from 0 in the order in which the port's queues were asked for. Throws ENOENT when there is no
/// such port or queue, EBUSY while another thread or handler has it.
///
/// `outputs` are the ports that the verdict send reaches as 1, 2 and so on; 0 is the port itself. With a list, also an
/// empty one, other ports' handlers may send out of this queue too while it is taken.
#[napi]
pub fn take_queue(env: Env, port: u32, place: u32, outputs: Option<Vec<u32>>) -> napi::Result<NativeQueue> {
    take(port, place as usize, outputs.as_deref()).or_throw(&env)
}

/// Binds the calling thread to a processor: a worker's own, for as long as it lives.
#[napi]
pub fn pin_thread(env: Env, core: u32) -> napi::Result<()> {
    bifurcate_linux::thread::pin(core).or_throw(&env)
}

fn take(id: u32, place: usize, outputs: Option<&[u32]>) -> bifurcate_linux::Result<NativeQueue> {
    const ENOENT: i32 = 2;
    const EBUSY: i32 = 16;
    let refused =
        |why: &str, errno| Error::new("takeQueue", format!("port={id} queue={place}: {why}"), errno);
    let port = PortShared::find(id).ok_or_else(|| refused("no such port is open", ENOENT))?;
    let slot = port
        .slots
        .get(place)
        .ok_or_else(|| refused("the port has no such queue", ENOENT))?;
    if outputs.is_some() {
        slot.open_to_others();
    }
    // Before the queue is taken, so that nothing has to be put back.
    let mut others = Vec::new();
    for &id in outputs.unwrap_or_default() {
        let to = PortShared::find(id).ok_or_else(|| refused("an output is not open", ENOENT))?;
        to.add_sender(&port);
        others.push(Out::new(sender(&to, place)?, &to.umem, &port.umem));
    }
    let (rx, tx) = slot
        .take()
        .ok_or_else(|| refused("it is with another handler", EBUSY))?;
    // The sending half comes with the receiving one: place 0, which is the one given back.
    let own = tx.map(|tx| Out::new(tx, &port.umem, &port.umem));
    let outs = own.into_iter().chain(others).collect();
    let mut queue = RemoteQueue::new(rx, &port.umem, BATCH_DEFAULT, outs);
    if let Some(way) = port.pass(place, true) {
        queue = queue.with_pass(way);
    }
    if let Some(program) = port.filter() {
        queue = queue.with_filter(program);
    }
    slot.counting(queue.counters());
    let no_frames = port.no_frames(place);
    Ok(NativeQueue {
        held: Rc::new(RefCell::new(Held {
            queue: Some(queue),
            ready: None,
            port,
            place,
            no_frames,
            pace: Pace::new(Instant::now()),
            patience: Patience::default(),
            short_rounds: 0,
        })),
    })
}

#[napi]
impl NativeQueue {
    /// The frame pool, as an ArrayBuffer over the pool itself. Throws E_EXTERNAL_BUFFERS where the runtime forbids
    /// that; there is no copy to fall back to.
    #[napi(ts_return_type = "ArrayBuffer")]
    pub fn pool<'e>(&self, env: &'e Env) -> napi::Result<Unknown<'e>> {
        let umem = Arc::clone(&self.held.borrow().port.umem);
        // From here on JavaScript may look at this memory at any time, so the range is never unmapped.
        umem.keep_mapped();
        external(env, umem.base().as_ptr().cast(), umem.len(), Box::new(()))
    }

    /// The shared block, as 32-bit words in the machine's order: see datapath/src/engine/remote/block.rs.
    #[napi(ts_return_type = "ArrayBuffer")]
    pub fn block<'e>(&self, env: &'e Env) -> napi::Result<Unknown<'e>> {
        let held = self.held.borrow();
        let queue = held.queue.as_ref().ok_or_else(given_back)?;
        let memory = Arc::clone(queue.block().memory());
        // Atomics may be written through a shared reference; JavaScript's own writes are as good as another
        // thread's, and RemoteQueue reads each word once and checks it.
        let at = memory.as_ptr().cast_mut().cast();
        external(env, at, BLOCK_WORDS * 4, Box::new(memory))
    }

    /// A function that does what the block says of the last batch, receives the next one and gives the number of
    /// its frames; -1 when the queue is asked back. A plain function, since a method costs 300 ns a call more.
    #[napi(getter, ts_return_type = "() => number")]
    pub fn turn<'e>(&self, env: &'e Env) -> napi::Result<Unknown<'e>> {
        let data = Rc::into_raw(Rc::clone(&self.held));
        let mut function = ptr::null_mut();
        // SAFETY: `data` is a count of the Rc that the finalizer gives back, which runs after the last call of
        // the function; both run on this thread, so the Rc is not shared between threads.
        unsafe {
            let data = data.cast_mut().cast();
            let status = sys::napi_create_function(
                env.raw(),
                c"turn".as_ptr(),
                4,
                Some(turn),
                data,
                &raw mut function,
            );
            if status != sys::Status::napi_ok {
                drop(Rc::from_raw(data.cast::<RefCell<Held>>().cast_const()));
                return Err(napi::Error::from_reason("napi_create_function failed"));
            }
            sys::napi_add_finalizer(
                env.raw(),
                function,
                data,
                Some(let_go),
                ptr::null_mut(),
                ptr::null_mut(),
            );
            Ok(Unknown::from_raw_unchecked(env.raw(), function))
        }
    }

    /// Whether its loop is never to sleep.
    #[napi(getter)]
    pub fn busy_poll(&self) -> bool {
        self.held.borrow().port.busy_poll
    }

    /// Blocks the thread until there may be frames: 1; nothing for `timeout_ms`: 0; the queue is asked back: -1.
    /// While many frames arrive it looks away for a moment instead, so that they are taken together: 1 as well.
    #[napi]
    pub fn wait(&self, env: Env, timeout_ms: u32) -> napi::Result<i32> {
        let held = &mut *self.held.borrow_mut();
        if held.port.busy_poll {
            let asked = held.port.slots[held.place].asked();
            return Ok(if asked { STOP } else { 1 });
        }
        if let Some(nap) = held.pace.nap(Instant::now()) {
            std::thread::sleep(nap);
            return Ok(1);
        }
        let slot = &held.port.slots[held.place];
        let Some(queue) = held.queue.as_mut().filter(|_| !slot.asked()) else {
            return Ok(STOP);
        };
        if !queue.prepare_to_wait() {
            return Ok(1);
        }
        let Some(fd) = queue.ready_fd() else {
            return Ok(1);
        };
        let fds = [(fd, Interest::Read), (slot.wake().as_fd(), Interest::Read)];
        let hurried = queue.is_hurried();
        let timeout = held
            .patience
            .next(hurried, Duration::from_millis(timeout_ms.into()));
        let count = wait(&fds, &mut [Said::default(); 2], Some(timeout)).or_throw(&env)?;
        held.pace.woke(Instant::now());
        Ok(if slot.asked() {
            STOP
        } else {
            i32::from(count > 0 || hurried)
        })
    }

    /// Calls `ready` once, from the event loop, when there may be frames or the queue is asked back. False when
    /// there is nothing to wait for: the next turn may always find frames.
    #[napi]
    pub fn on_ready(&self, env: Env, ready: Function<'_, (), ()>) -> napi::Result<bool> {
        let held = &mut *self.held.borrow_mut();
        if held.port.busy_poll || held.short_round() {
            return Ok(false);
        }
        if !held.queue.as_mut().ok_or_else(given_back)?.prepare_to_wait() {
            return Ok(false);
        }
        if held.ready.is_none() {
            let Some(fd) = held.queue.as_ref().ok_or_else(given_back)?.ready_fd() else {
                return Ok(false);
            };
            let wake = held.port.slots[held.place].wake();
            let watch = Ready::new(env.raw(), &[fd.as_raw_fd(), wake.as_fd().as_raw_fd()])?;
            held.ready = Some(watch);
        }
        if let Some(watch) = &held.ready {
            watch.arm(ready.raw())?;
        }
        Ok(true)
    }

    /// Frames that the handler keeps.
    #[napi]
    pub fn kept(&self) -> u32 {
        self.held
            .borrow()
            .queue
            .as_ref()
            .map_or(0, |queue| queue.kept() as u32)
    }

    /// Whether the pool ran out of free frames since the last call.
    #[napi]
    pub fn starved(&self) -> bool {
        let mut held = self.held.borrow_mut();
        let now = held.port.no_frames(held.place);
        std::mem::replace(&mut held.no_frames, now) != now
    }

    /// Does what the block says of the last batch and gives the queue back to its port. Kept frames go back to the
    /// pool. A second call does nothing.
    #[napi]
    pub fn release(&self) {
        self.held.borrow_mut().release();
    }
}

impl Held {
    /// While frames wait for room, or the device for frames, a round of the event loop is kept short: true after a
    /// moment's sleep, with a turn to follow. False when nothing of that kind goes on, or has for too long.
    fn short_round(&mut self) -> bool {
        const ROUNDS: u32 = 8;
        const LONGEST: Duration = Duration::from_millis(4);
        let hurried = self.queue.as_ref().is_some_and(RemoteQueue::is_hurried);
        self.short_rounds = if hurried { self.short_rounds + 1 } else { 0 };
        if !hurried || self.short_rounds > ROUNDS {
            self.short_rounds = 0;
            return false;
        }
        std::thread::sleep(self.patience.next(true, LONGEST));
        true
    }

    fn release(&mut self) {
        self.ready = None;
        let Some(mut queue) = self.queue.take() else {
            return;
        };
        queue.end_batch();
        let (rx, outs) = queue.into_parts();
        let tx = outs.into_iter().next().map(Out::into_tx);
        self.port.slots[self.place].give_back(rx, tx);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // A worker that was terminated never released it.
        self.release();
    }
}

fn given_back() -> napi::Error {
    napi::Error::from_reason("the queue was given back")
}

/// The plain function behind `turn`.
extern "C" fn turn(env: sys::napi_env, info: sys::napi_callback_info) -> sys::napi_value {
    let (mut data, mut result) = (ptr::null_mut(), ptr::null_mut());
    // SAFETY: `info` is this call's; data is the pointer given to napi_create_function, whose count of the Rc
    // lasts until the function is collected, which cannot be during a call of it.
    let held = unsafe {
        let (argc, argv, this) = (ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
        sys::napi_get_cb_info(env, info, argc, argv, this, &raw mut data);
        &*data.cast::<RefCell<Held>>().cast_const()
    };
    let turned = catch_unwind(AssertUnwindSafe(|| {
        let held = &mut *held.borrow_mut();
        let asked = held.port.slots[held.place].asked();
        match &mut held.queue {
            Some(queue) if !asked => {
                let count = queue.turn();
                held.pace.arrived(count);
                if count > 0 {
                    held.patience.renew();
                }
                count as i32
            }
            Some(queue) => {
                queue.end_batch();
                STOP
            }
            None => STOP,
        }
    }));
    // SAFETY: plain calls with this call's environment.
    unsafe {
        match turned {
            Ok(count) => sys::napi_create_int32(env, count, &raw mut result),
            Err(_) => sys::napi_throw_error(env, c"E_INTERNAL".as_ptr(), c"a turn panicked".as_ptr()),
        };
    }
    result
}

/// The function behind `turn` was collected, or its environment ended.
unsafe extern "C" fn let_go(_env: sys::napi_env, data: *mut c_void, _hint: *mut c_void) {
    // SAFETY: gives back the count that `NativeQueue::turn` put there, once.
    drop(unsafe { Rc::from_raw(data.cast::<RefCell<Held>>().cast_const()) });
}

/// An ArrayBuffer over memory that is not V8's; `owner` keeps it alive until the buffer is collected.
fn external<'e>(
    env: &'e Env,
    at: *mut c_void,
    len: usize,
    owner: Box<dyn std::any::Any>,
) -> napi::Result<Unknown<'e>> {
    let owner = Box::into_raw(Box::new(owner));
    let mut buffer = ptr::null_mut();
    // SAFETY: `at..at + len` stays mapped: the pool's range for ever, the block for as long as `owner`, which the
    // finalizer drops. Races with JavaScript's writes touch bytes whose every value is allowed.
    let status = unsafe {
        sys::napi_create_external_arraybuffer(
            env.raw(),
            at,
            len,
            Some(collected),
            owner.cast(),
            &raw mut buffer,
        )
    };
    if status == sys::Status::napi_ok {
        // SAFETY: a value that was just made in this environment.
        return Ok(unsafe { Unknown::from_raw_unchecked(env.raw(), buffer) });
    }
    // SAFETY: the call failed, so the finalizer never runs and the box is still this function's.
    drop(unsafe { Box::from_raw(owner) });
    let error = napi::Error::new(
        "E_EXTERNAL_BUFFERS".to_owned(),
        format!(
            "this runtime makes no ArrayBuffer over memory of {len} bytes that is not its own (status {status})"
        ),
    );
    Err(napi::JsError::from(error).into_unknown(*env).into())
}

/// A buffer made by `external` was collected, or its environment ended.
unsafe extern "C" fn collected(_env: sys::napi_env, _data: *mut c_void, owner: *mut c_void) {
    // SAFETY: the pointer that `external` made of a Box, given back once.
    drop(unsafe { Box::from_raw(owner.cast::<Box<dyn std::any::Any>>()) });
}
