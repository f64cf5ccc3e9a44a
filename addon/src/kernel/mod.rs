//! The kernel as the control path sees it: the native half of control/src/kernel.ts.

mod bpf;
mod facts;
mod netns;
mod observe;
pub(crate) mod pci;
mod watch;

use crate::broker::Descriptor;
use crate::error::{OrThrow, closed, invalid};
use bifurcate_linux as linux;
use bpf::MapReference;
use napi::Env;
use napi::bindgen_prelude::Uint8Array;
use napi_derive::napi;
use std::os::fd::AsFd;
use std::sync::Arc;

pub(crate) use bpf::{BpfMap, Program};
pub(crate) use netns::Netns;

/// The kernel of this machine.
#[napi]
pub struct NativeKernel {}

/// What `createMap` makes.
#[napi(object)]
pub struct MapOptions {
    /// The kind of map.
    #[napi(
        js_name = "type",
        ts_type = "\"xskmap\" | \"array\" | \"percpu-array\" | \"hash\" | \"devmap\""
    )]
    pub kind: String,
    /// At most 15 bytes count.
    pub name: String,
    /// Bytes.
    pub key_size: u32,
    /// Bytes.
    pub value_size: u32,
    /// How many elements it holds at most.
    pub max_entries: u32,
}

/// What `loadProgram` loads.
#[napi(object, object_to_js = false)]
pub struct ProgramSource<'a> {
    /// The kind of program.
    #[napi(js_name = "type", ts_type = "\"xdp\" | \"sched-cls\" | \"socket-filter\"")]
    pub kind: String,
    /// At most 15 bytes count.
    pub name: String,
    /// Instructions of 8 bytes each, as bpf(2) takes them.
    pub instructions: Uint8Array,
    /// Which ld_imm64 instruction (by index) wants which map.
    #[napi(ts_type = "readonly MapReference[]")]
    pub maps: Vec<MapReference<'a>>,
    /// BPF_F_XDP_HAS_FRAGS.
    pub fragments: Option<bool>,
}

impl ProgramSource<'_> {
    /// Loads it with `load`.
    pub(super) fn with(
        &self,
        env: &Env,
        load: impl FnOnce(&linux::bpf::ProgramSource<'_>) -> linux::Result<linux::bpf::Program>,
    ) -> napi::Result<bpf::Program> {
        use linux::bpf::{MapReference, ProgramType};
        let kind = match self.kind.as_str() {
            "xdp" => ProgramType::Xdp,
            "sched-cls" => ProgramType::SchedCls,
            "socket-filter" => ProgramType::SocketFilter,
            other => return Err(invalid(format!("there is no program type {other:?} here"))),
        };
        let held = self
            .maps
            .iter()
            .map(|reference| reference.map.map(env))
            .collect::<napi::Result<Vec<_>>>()?;
        let maps: Vec<_> = self
            .maps
            .iter()
            .zip(&held)
            .map(|(reference, map)| MapReference {
                instruction: reference.instruction as usize,
                map: map.as_fd(),
            })
            .collect();
        let program = load(&linux::bpf::ProgramSource {
            kind,
            name: &self.name,
            instructions: &self.instructions,
            maps: &maps,
            fragments: self.fragments.unwrap_or(false),
        });
        Ok(bpf::Program(Some(program.or_throw(env)?)))
    }
}

/// What the kernel knows of a BPF program, and who holds it.
#[napi(object)]
pub struct ProgramOwner {
    /// Its number.
    pub id: u32,
    /// Its name, at most 15 bytes.
    pub name: String,
    /// Processes that hold a descriptor of it or of a link that runs it.
    pub holders: Vec<ProgramHolder>,
}

/// A process that holds a BPF program.
#[napi(object)]
pub struct ProgramHolder {
    /// Its number.
    pub pid: u32,
    /// Its command name.
    pub command: String,
}

#[napi]
impl NativeKernel {
    /// The kernel of this machine; asks it nothing yet.
    #[napi(constructor)]
    #[allow(clippy::new_without_default, reason = "the constructor is for JavaScript")]
    #[must_use]
    pub fn new() -> Self {
        Self {}
    }

    /// A namespace by name (/run/netns/NAME), by path, or the calling thread's own (null).
    #[napi]
    pub fn open_netns(
        &self,
        env: Env,
        #[napi(ts_arg_type = "string | null")] name: Option<String>,
    ) -> napi::Result<Netns> {
        Ok(Netns(Some(Arc::new(
            linux::netns::Netns::open(name.as_deref()).or_throw(&env)?,
        ))))
    }

    /// Creates a BPF map.
    #[napi]
    pub fn create_map(&self, env: Env, options: MapOptions) -> napi::Result<BpfMap> {
        use linux::bpf::{Map, MapType};
        let kind = match options.kind.as_str() {
            "xskmap" => MapType::Xskmap,
            "array" => MapType::Array,
            "percpu-array" => MapType::PercpuArray,
            "hash" => MapType::Hash,
            "devmap" => MapType::Devmap,
            other => return Err(invalid(format!("there is no map type {other:?} here"))),
        };
        let MapOptions {
            name,
            key_size,
            value_size,
            max_entries,
            ..
        } = options;
        Ok(BpfMap(Some(Arc::new(
            Map::create(kind, &name, key_size, value_size, max_entries).or_throw(&env)?,
        ))))
    }

    /// Loads a BPF program; a refusal's `args` ends with the verifier's reasons.
    #[napi]
    pub fn load_program(&self, env: Env, source: ProgramSource<'_>) -> napi::Result<bpf::Program> {
        source.with(&env, linux::bpf::Program::load)
    }

    /// The map that was pinned as `path`.
    #[napi]
    pub fn pinned_map(&self, env: Env, path: String) -> napi::Result<BpfMap> {
        let map = linux::bpf::Map::pinned(std::path::Path::new(&path)).or_throw(&env)?;
        Ok(BpfMap(Some(Arc::new(map))))
    }

    /// A name in a BPF file system itself (O_PATH), to be passed: by it another process opens what it may.
    #[napi]
    pub fn open_name(&self, env: Env, path: String) -> napi::Result<Descriptor> {
        let fd = linux::bpf::open_name(std::path::Path::new(&path)).or_throw(&env)?;
        Ok(Descriptor::from(fd))
    }

    /// The link that was pinned as `path`: closing the object leaves it attached while the name is there.
    #[napi]
    pub fn pinned_link(&self, env: Env, path: String) -> napi::Result<bpf::Attachment> {
        let link = linux::bpf::Attachment::pinned(std::path::Path::new(&path)).or_throw(&env)?;
        Ok(bpf::Attachment(Some(link)))
    }

    /// null where no such program is loaded any more.
    #[napi]
    pub fn program_owner(&self, env: Env, id: u32) -> napi::Result<Option<ProgramOwner>> {
        let Some(info) = linux::bpf::program_info(id).or_throw(&env)? else {
            return Ok(None);
        };
        let holders = linux::bpf::holders(id);
        let holders = holders
            .into_iter()
            .map(|h| ProgramHolder {
                pid: h.pid,
                command: h.command,
            })
            .collect();
        Ok(Some(ProgramOwner {
            id,
            name: info.name,
            holders,
        }))
    }

    /// Effective capabilities of the calling thread by name, e.g. "CAP_NET_ADMIN".
    #[napi]
    pub fn capabilities(&self, env: Env) -> napi::Result<Vec<&'static str>> {
        linux::process::effective_capabilities().or_throw(&env)
    }

    /// Whether the senders behind a card of that driver leave checksums and segmentation to it that it never does.
    #[napi]
    pub fn is_virtual_driver(&self, driver: String) -> bool {
        bifurcate_datapath::device::left::is_virtual(&driver)
    }

    /// uname -r.
    #[napi]
    pub fn release(&self) -> String {
        linux::process::kernel_release()
    }
}

/// What an object still has, or EBADF once it was closed.
fn open<'a, T>(env: &Env, what: &'static str, inner: Option<&'a T>) -> napi::Result<&'a T> {
    inner.ok_or_else(|| closed(env, what))
}
