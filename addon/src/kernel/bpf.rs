//! BPF maps, programs and attachments as JavaScript objects.

use super::open;
use crate::broker::Descriptor;
use crate::error::OrThrow;
use bifurcate_linux::bpf;
use napi::Env;
use napi::bindgen_prelude::{ClassInstance, Uint8Array};
use napi_derive::napi;
use std::os::fd::AsFd;
use std::sync::Arc;

/// A BPF map.
#[napi]
pub struct BpfMap(pub(super) Option<Arc<bpf::Map>>);

impl BpfMap {
    /// The map, for as long as the caller keeps it.
    pub(crate) fn map(&self, env: &Env) -> napi::Result<Arc<bpf::Map>> {
        open(env, "BpfMap", self.0.as_ref()).cloned()
    }
}

#[napi]
impl BpfMap {
    /// The map's number in the kernel.
    #[napi(getter)]
    pub fn id(&self, env: Env) -> napi::Result<u32> {
        Ok(self.map(&env)?.id())
    }

    /// Sets the element of `key`.
    #[napi]
    pub fn update(&self, env: Env, key: &[u8], value: &[u8]) -> napi::Result<()> {
        self.map(&env)?.update(key, value).or_throw(&env)
    }

    /// Removes the element of `key`.
    #[napi]
    pub fn delete(&self, env: Env, key: &[u8]) -> napi::Result<()> {
        self.map(&env)?.delete(key).or_throw(&env)
    }

    /// The element of `key`, or null.
    #[napi]
    pub fn lookup(&self, env: Env, key: &[u8]) -> napi::Result<Option<Uint8Array>> {
        Ok(self.map(&env)?.lookup(key).or_throw(&env)?.map(Uint8Array::from))
    }

    /// Names the map in a BPF file system: it then outlives the process, until the name is removed.
    #[napi]
    pub fn pin(&self, env: Env, path: String) -> napi::Result<()> {
        self.map(&env)?.pin(std::path::Path::new(&path)).or_throw(&env)
    }

    /// Another descriptor of the map, to be passed.
    #[napi]
    pub fn descriptor(&self, env: Env) -> napi::Result<Descriptor> {
        let map = self.map(&env)?;
        let fd = map.as_fd().try_clone_to_owned();
        fd.map(Descriptor::from)
            .map_err(|error| bifurcate_linux::Error::io("fcntl", "F_DUPFD_CLOEXEC", &error))
            .or_throw(&env)
    }

    /// Gives the descriptor back; the map stays while a program uses it.
    #[napi]
    pub fn close(&mut self) {
        self.0 = None;
    }
}

/// Which instruction wants which map.
#[napi(object, object_to_js = false)]
pub struct MapReference<'a> {
    /// The number of an ld_imm64 instruction, in units of eight bytes.
    pub instruction: u32,
    /// The map.
    #[napi(ts_type = "BpfMap")]
    pub map: ClassInstance<'a, BpfMap>,
}

/// Which call instruction calls which function of the kernel.
#[napi(object, object_to_js = false)]
pub struct CallReference {
    /// The number of the instruction, in units of 8 bytes.
    pub instruction: u32,
    /// The function's name, e.g. "bpf_xdp_metadata_rx_hash".
    pub name: String,
}

/// A loaded BPF program.
#[napi]
pub struct Program(pub(super) Option<bpf::Program>);

/// What a program made of a frame.
#[napi(object)]
pub struct TestRun {
    /// What it returned.
    pub verdict: u32,
    /// The frame as it left it.
    pub frame: Uint8Array,
}

impl Program {
    /// The program.
    pub(crate) fn program(&self, env: &Env) -> napi::Result<&bpf::Program> {
        open(env, "Program", self.0.as_ref())
    }
}

#[napi]
impl Program {
    /// The program's number in the kernel.
    #[napi(getter)]
    pub fn id(&self, env: Env) -> napi::Result<u32> {
        Ok(self.program(&env)?.id())
    }

    /// BPF_PROG_TEST_RUN on one frame of at least 14 bytes.
    #[napi]
    pub fn test_run(&self, env: Env, frame: &[u8]) -> napi::Result<TestRun> {
        let run = self.program(&env)?.test_run(frame).or_throw(&env)?;
        Ok(TestRun {
            verdict: run.verdict,
            frame: run.frame.into(),
        })
    }

    /// Gives the descriptor back; the program stays while it is attached.
    #[napi]
    pub fn close(&mut self) {
        self.0 = None;
    }
}

/// An attached program: close(), or the end of the process, detaches it.
#[napi]
pub struct Attachment(pub(super) Option<bpf::Attachment>);

#[napi]
impl Attachment {
    /// True while the kernel still has it: a deleted interface takes its attachments along.
    #[napi]
    pub fn attached(&self, env: Env) -> napi::Result<bool> {
        self.0
            .as_ref()
            .map_or(Ok(false), bpf::Attachment::attached)
            .or_throw(&env)
    }

    /// Puts another program in the place of the one that runs, at once.
    #[napi]
    pub fn update(&self, env: Env, program: &Program) -> napi::Result<()> {
        let link = open(&env, "Attachment", self.0.as_ref())?;
        link.update(program.program(&env)?).or_throw(&env)
    }

    /// Names the link in a BPF file system: it then outlives the process, until the name is removed.
    #[napi]
    pub fn pin(&self, env: Env, path: String) -> napi::Result<()> {
        let link = open(&env, "Attachment", self.0.as_ref())?;
        link.pin(std::path::Path::new(&path)).or_throw(&env)
    }

    /// Detaches, unless it is pinned.
    #[napi]
    pub fn close(&mut self) {
        self.0 = None;
    }
}
