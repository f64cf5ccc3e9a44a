//! bpf(2): maps, programs, attachments, and what the kernel tells about them.

mod attachment;
mod attr;
mod btf;
mod holders;
mod map;
mod observe;
mod pin;
mod program;

pub use attachment::{Attachment, TcDirection, XdpMode, has_tcx};
pub use holders::{Holder, ProgramInfo, holders, program_info};
pub use map::{Map, MapType};
pub use observe::{Counting, Runs, run_on, runs};
pub use pin::open_name;
pub use program::{Bound, CallReference, MapReference, Program, ProgramSource, ProgramType, TestRun};
