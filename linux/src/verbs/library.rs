//! libibverbs, loaded at run time: its functions, each by the version of its symbol.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::OnceLock;

use super::layout::{
    IbvAh, IbvAhAttr, IbvAsyncEvent, IbvCompChannel, IbvContext, IbvCq, IbvDevice, IbvGidEntry, IbvMr, IbvPd,
    IbvQp, IbvQpAttr, IbvQpInitAttr,
};
use crate::{Error, Result};

/// The library's name for the loader. Its major version has been 1 since 2006.
const NAME: &CStr = c"libibverbs.so.1";

macro_rules! functions {
    ($($version:literal $name:ident: fn($($argument:ty),*) $(-> $result:ty)?;)*) => {
        /// The functions that are called from here.
        pub(super) struct Library {
            $(pub(super) $name: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
        }

        impl Library {
            /// Looks every function up.
            fn look_up(handle: *mut c_void) -> Result<Library> {
                Ok(Library {
                    $($name: {
                        let symbol = const {
                            match CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                                Ok(name) => name,
                                Err(_) => panic!("a name without zero bytes"),
                            }
                        };
                        let found = find(handle, symbol, $version)?;
                        // SAFETY: the symbol of that version is a function with the signature that rdma-core's
                        // infiniband/verbs.h declares, written above; a function and a data pointer are alike on the
                        // platforms that have dlsym.
                        unsafe {
                            std::mem::transmute::<
                                *mut c_void,
                                unsafe extern "C" fn($($argument),*) $(-> $result)?,
                            >(found)
                        }
                    },)*
                })
            }
        }
    };
}

functions! {
    c"IBVERBS_1.1" ibv_get_device_list: fn(*mut c_int) -> *mut *mut IbvDevice;
    c"IBVERBS_1.1" ibv_free_device_list: fn(*mut *mut IbvDevice);
    c"IBVERBS_1.1" ibv_get_device_name: fn(*mut IbvDevice) -> *const c_char;
    c"IBVERBS_1.1" ibv_open_device: fn(*mut IbvDevice) -> *mut IbvContext;
    c"IBVERBS_1.1" ibv_close_device: fn(*mut IbvContext) -> c_int;
    c"IBVERBS_1.1" ibv_get_async_event: fn(*mut IbvContext, *mut IbvAsyncEvent) -> c_int;
    c"IBVERBS_1.1" ibv_ack_async_event: fn(*mut IbvAsyncEvent);
    c"IBVERBS_1.11" _ibv_query_gid_table: fn(*mut IbvContext, *mut IbvGidEntry, usize, u32, usize) -> isize;
    c"IBVERBS_1.1" ibv_alloc_pd: fn(*mut IbvContext) -> *mut IbvPd;
    c"IBVERBS_1.1" ibv_dealloc_pd: fn(*mut IbvPd) -> c_int;
    c"IBVERBS_1.1" ibv_reg_mr: fn(*mut IbvPd, *mut c_void, usize, c_int) -> *mut IbvMr;
    c"IBVERBS_1.1" ibv_dereg_mr: fn(*mut IbvMr) -> c_int;
    c"IBVERBS_1.0" ibv_create_comp_channel: fn(*mut IbvContext) -> *mut IbvCompChannel;
    c"IBVERBS_1.0" ibv_destroy_comp_channel: fn(*mut IbvCompChannel) -> c_int;
    c"IBVERBS_1.1" ibv_create_cq: fn(*mut IbvContext, c_int, *mut c_void, *mut IbvCompChannel, c_int) -> *mut IbvCq;
    c"IBVERBS_1.1" ibv_destroy_cq: fn(*mut IbvCq) -> c_int;
    c"IBVERBS_1.1" ibv_get_cq_event: fn(*mut IbvCompChannel, *mut *mut IbvCq, *mut *mut c_void) -> c_int;
    c"IBVERBS_1.1" ibv_ack_cq_events: fn(*mut IbvCq, u32);
    c"IBVERBS_1.1" ibv_create_qp: fn(*mut IbvPd, *mut IbvQpInitAttr) -> *mut IbvQp;
    c"IBVERBS_1.1" ibv_modify_qp: fn(*mut IbvQp, *mut IbvQpAttr, c_int) -> c_int;
    c"IBVERBS_1.1" ibv_destroy_qp: fn(*mut IbvQp) -> c_int;
    c"IBVERBS_1.1" ibv_create_ah: fn(*mut IbvPd, *mut IbvAhAttr) -> *mut IbvAh;
    c"IBVERBS_1.1" ibv_destroy_ah: fn(*mut IbvAh) -> c_int;
}

fn find(handle: *mut c_void, symbol: &CStr, version: &CStr) -> Result<*mut c_void> {
    // SAFETY: `handle` was given by dlopen and is never closed; both strings end with a zero byte.
    let found = unsafe { libc::dlvsym(handle, symbol.as_ptr(), version.as_ptr()) };
    if found.is_null() {
        let (symbol, version) = (symbol.to_string_lossy(), version.to_string_lossy());
        return Err(Error::new(
            "dlvsym",
            format!("libibverbs.so.1 {symbol}@{version}: the library is too old"),
            libc::ELIBBAD,
        ));
    }
    Ok(found)
}

/// The library; loaded at the first call, for good: it keeps threads and handlers of its own.
///
/// # Errors
/// `ENOENT` when it is not installed, `ELIBBAD` when it lacks a function.
pub(super) fn library() -> Result<&'static Library> {
    static LIBRARY: OnceLock<Result<Library>> = OnceLock::new();
    LIBRARY.get_or_init(load).as_ref().map_err(Clone::clone)
}

/// Whether rdma-core is installed, in a version that is new enough.
#[must_use]
pub fn is_there() -> bool {
    library().is_ok()
}

fn load() -> Result<Library> {
    // SAFETY: the name ends with a zero byte. Loading runs the library's own initialisation, which registers nothing
    // but itself.
    let handle = unsafe { libc::dlopen(NAME.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    if handle.is_null() {
        // SAFETY: gives null or a string of the loader's that stays until this thread's next call of it.
        let text = unsafe { libc::dlerror() };
        let why = if text.is_null() {
            NAME.to_string_lossy().into_owned()
        } else {
            // SAFETY: not null, and ends with a zero byte.
            unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
        };
        return Err(Error::new("dlopen", why, libc::ENOENT));
    }
    Library::look_up(handle)
}

/// The error of a call that gave null, or −1, and left its reason in `errno`.
pub(super) fn failed(call: &'static str, args: impl Into<String>) -> Error {
    let error = Error::last(call, args);
    // Some providers forget to say why.
    if error.errno == 0 {
        return Error {
            errno: libc::EIO,
            ..error
        };
    }
    error
}

/// What a call says that gives 0 or an error number; a few give −1 and set `errno`.
pub(super) fn checked(call: &'static str, args: impl FnOnce() -> String, result: c_int) -> Result<()> {
    match result {
        0 => Ok(()),
        -1 => Err(failed(call, args())),
        errno => Err(Error::new(call, args(), errno.abs())),
    }
}
