//! Waiting for a queue in Node's event loop: libuv watches the socket and the stop event, and costs no CPU.

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::os::fd::RawFd;
use std::ptr;
use std::rc::Rc;

use napi::sys;

/// `UV_POLL` of `uv_handle_type` (uv.h).
const UV_POLL: c_int = 8;
/// `UV_READABLE | UV_DISCONNECT` of `uv_poll_event` (uv.h).
const EVENTS: c_int = 1 | 4;

// libuv as the node executable exports it (uv.h); addons may use it, and Node keeps its ABI within a major version.
unsafe extern "C" {
    fn uv_handle_size(kind: c_int) -> usize;
    fn uv_handle_set_data(handle: *mut c_void, data: *mut c_void);
    fn uv_handle_get_data(handle: *const c_void) -> *mut c_void;
    fn uv_poll_init(event_loop: *mut sys::uv_loop_s, handle: *mut c_void, fd: c_int) -> c_int;
    fn uv_poll_start(
        handle: *mut c_void,
        events: c_int,
        fired: extern "C" fn(*mut c_void, c_int, c_int),
    ) -> c_int;
    fn uv_poll_stop(handle: *mut c_void) -> c_int;
    fn uv_unref(handle: *mut c_void);
    fn uv_close(handle: *mut c_void, closed: extern "C" fn(*mut c_void));
}

/// Watches up to two descriptors in the event loop of the thread that made it.
pub(crate) struct Ready {
    shared: Rc<Watch>,
}

/// What the callbacks need. Each open handle holds one count of it in its data pointer.
struct Watch {
    env: sys::napi_env,
    handles: Cell<[*mut c_void; 2]>,
    /// Handles that libuv has not let go.
    open: Cell<usize>,
    callback: Cell<sys::napi_ref>,
    /// Tells Node to wait for `open` to reach 0 before it takes the event loop away.
    cleanup: Cell<sys::napi_async_cleanup_hook_handle>,
    closing: Cell<bool>,
}

impl Ready {
    /// Prepares to watch `fds`; the descriptors must stay open until the Ready is dropped.
    pub(crate) fn new(env: sys::napi_env, fds: &[RawFd]) -> napi::Result<Ready> {
        assert!(
            (1..=2).contains(&fds.len()),
            "a Ready watches one descriptor or two"
        );
        let mut event_loop = ptr::null_mut();
        // SAFETY: `env` is the environment of the calling thread (the caller is a callback of it).
        let status = unsafe { sys::napi_get_uv_event_loop(env, &raw mut event_loop) };
        check(status, "napi_get_uv_event_loop")?;
        let watch = Rc::new(Watch {
            env,
            handles: Cell::new([ptr::null_mut(); 2]),
            open: Cell::new(0),
            callback: Cell::new(ptr::null_mut()),
            cleanup: Cell::new(ptr::null_mut()),
            closing: Cell::new(false),
        });
        let ready = Ready {
            shared: Rc::clone(&watch),
        };
        for (index, fd) in fds.iter().copied().enumerate() {
            // SAFETY: the memory has the size that libuv names, and is aligned for any of its types (16, as malloc
            // gives); it is freed here when libuv refuses it, in `closed` otherwise. The loop is this thread's.
            let handle: *mut c_void = unsafe {
                let handle = std::alloc::alloc_zeroed(layout()).cast();
                let status = uv_poll_init(event_loop, handle, fd);
                if status != 0 {
                    std::alloc::dealloc(handle.cast(), layout());
                    return Err(napi::Error::from_reason(format!(
                        "uv_poll_init fd={fd}: {status}"
                    )));
                }
                uv_handle_set_data(handle, Rc::into_raw(Rc::clone(&watch)).cast_mut().cast());
                handle
            };
            let mut handles = watch.handles.get();
            handles[index] = handle;
            watch.handles.set(handles);
            watch.open.set(watch.open.get() + 1);
        }
        let mut cleanup = ptr::null_mut();
        // SAFETY: the argument is kept alive by the count that each open handle holds, and the hook is removed
        // when the last of them is closed.
        let status = unsafe {
            sys::napi_add_async_cleanup_hook(
                env,
                Some(torn_down),
                Rc::as_ptr(&watch).cast_mut().cast(),
                &raw mut cleanup,
            )
        };
        check(status, "napi_add_async_cleanup_hook")?;
        watch.cleanup.set(cleanup);
        Ok(ready)
    }

    /// The event loop may end although this is waiting.
    pub(crate) fn unref(&self) {
        for handle in self
            .shared
            .handles
            .get()
            .into_iter()
            .filter(|handle| !handle.is_null())
        {
            // SAFETY: initialised by `new` and not closing: only drop closes it.
            unsafe { uv_unref(handle) };
        }
    }

    /// Calls `callback` once, when a descriptor is readable or in trouble. A later call takes its place.
    pub(crate) fn arm(&self, callback: sys::napi_value) -> napi::Result<()> {
        self.shared.forget_callback();
        let mut reference = ptr::null_mut();
        // SAFETY: `callback` is a live value of this environment: the caller has it as an argument.
        let status = unsafe { sys::napi_create_reference(self.shared.env, callback, 1, &raw mut reference) };
        check(status, "napi_create_reference")?;
        self.shared.callback.set(reference);
        for handle in self
            .shared
            .handles
            .get()
            .into_iter()
            .filter(|handle| !handle.is_null())
        {
            // SAFETY: it was initialised by `new` and is not closing: only drop closes it, or
            // the end of the environment, after which no callback of it runs.
            let status = unsafe { uv_poll_start(handle, EVENTS, fired) };
            if status != 0 {
                return Err(napi::Error::from_reason(format!("uv_poll_start: {status}")));
            }
        }
        Ok(())
    }
}

impl Drop for Ready {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl Watch {
    fn stop(&self) {
        for handle in self.handles.get() {
            if !handle.is_null() {
                // SAFETY: initialised and, since `close` empties the list, not closing.
                unsafe { uv_poll_stop(handle) };
            }
        }
    }

    fn close(&self) {
        if self.closing.replace(true) {
            return;
        }
        self.stop();
        self.forget_callback();
        for handle in self.handles.replace([ptr::null_mut(); 2]) {
            if !handle.is_null() {
                // SAFETY: initialised, and closed once: the list is empty now.
                unsafe { uv_close(handle, closed) };
            }
        }
    }

    fn forget_callback(&self) {
        let reference = self.callback.replace(ptr::null_mut());
        if !reference.is_null() {
            // SAFETY: made by `arm` in this environment and taken out of the cell, so deleted once.
            unsafe { sys::napi_delete_reference(self.env, reference) };
        }
    }
}

/// A descriptor is ready: calls back once.
extern "C" fn fired(handle: *mut c_void, _status: c_int, _events: c_int) {
    // SAFETY: libuv calls with a handle of `Ready::new`, whose data is a counted Watch; the extra count taken
    // here keeps it for the length of the call, which may close the handle.
    let watch = unsafe {
        let data = uv_handle_get_data(handle).cast::<Watch>().cast_const();
        Rc::increment_strong_count(data);
        Rc::from_raw(data)
    };
    watch.stop();
    let reference = watch.callback.replace(ptr::null_mut());
    if reference.is_null() {
        return;
    }
    let env = watch.env;
    // SAFETY: libuv runs this on the environment's own thread, outside any scope, so one is opened; every
    // value is used within it. The reference was made by `arm` and is deleted once.
    unsafe {
        let (mut scope, mut function, mut global, mut result) =
            (ptr::null_mut(), ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
        sys::napi_open_handle_scope(env, &raw mut scope);
        sys::napi_get_reference_value(env, reference, &raw mut function);
        sys::napi_delete_reference(env, reference);
        sys::napi_get_global(env, &raw mut global);
        let status = sys::napi_make_callback(
            env,
            ptr::null_mut(),
            global,
            function,
            0,
            ptr::null(),
            &raw mut result,
        );
        if status == sys::Status::napi_pending_exception {
            let mut exception = ptr::null_mut();
            sys::napi_get_and_clear_last_exception(env, &raw mut exception);
            sys::napi_fatal_exception(env, exception);
        }
        sys::napi_close_handle_scope(env, scope);
    }
}

/// libuv has let a handle go.
extern "C" fn closed(handle: *mut c_void) {
    // SAFETY: called once a handle; the count in its data is given back here, and its memory, allocated with
    // the same layout, is not used by libuv any more.
    let watch = unsafe {
        let watch = Rc::from_raw(uv_handle_get_data(handle).cast::<Watch>().cast_const());
        std::alloc::dealloc(handle.cast(), layout());
        watch
    };
    watch.open.set(watch.open.get() - 1);
    let cleanup = watch.cleanup.get();
    if watch.open.get() == 0 && !cleanup.is_null() {
        watch.cleanup.set(ptr::null_mut());
        // SAFETY: added by `new` and removed once.
        unsafe { sys::napi_remove_async_cleanup_hook(cleanup) };
    }
}

/// The environment ends (a worker was terminated, say): its handles have to leave the event loop first.
unsafe extern "C" fn torn_down(_handle: sys::napi_async_cleanup_hook_handle, data: *mut c_void) {
    // SAFETY: open handles hold counts of the Watch, and the hook is removed with the last of them, so it is
    // alive here; the hook runs on its thread.
    let watch = unsafe { &*data.cast::<Watch>().cast_const() };
    watch.close();
}

fn layout() -> std::alloc::Layout {
    // SAFETY: a call without preconditions.
    let size = unsafe { uv_handle_size(UV_POLL) };
    std::alloc::Layout::from_size_align(size, 16).expect("libuv's handles are a few hundred bytes")
}

fn check(status: sys::napi_status, call: &str) -> napi::Result<()> {
    if status == sys::Status::napi_ok {
        return Ok(());
    }
    Err(napi::Error::new(napi::Status::from(status), call.to_owned()))
}
