//! The program as it is given, and the check that turns it into one that may run.

use std::fmt;

/// Most instructions of a program (`BPF_MAXINSNS`, linux/bpf_common.h).
pub const INSTRUCTIONS_MAX: usize = 4096;

/// Words of scratch memory (`BPF_MEMWORDS`, linux/filter.h).
pub(super) const MEMORY_WORDS: usize = 16;

/// One classic BPF instruction (`struct sock_filter`, linux/filter.h).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Class, size, mode and operation (linux/bpf_common.h).
    pub code: u16,
    /// Instructions to skip when a comparison holds.
    pub jt: u8,
    /// Instructions to skip when it does not.
    pub jf: u8,
    /// The constant.
    pub k: u32,
}

/// Why a program may not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgramError {
    /// It has no instruction, or more than [`INSTRUCTIONS_MAX`].
    Length(usize),
    /// Its bytes are no whole number of instructions of 8 bytes.
    Bytes(usize),
    /// An instruction that classic BPF does not have.
    Unknown {
        /// Number of the instruction.
        at: usize,
        /// Its code.
        code: u16,
    },
    /// A jump out of the program.
    Jump {
        /// Number of the instruction.
        at: usize,
    },
    /// A scratch word beyond the sixteenth.
    Memory {
        /// Number of the instruction.
        at: usize,
    },
    /// Division by the constant 0, or a shift by a constant of 32 and more.
    Constant {
        /// Number of the instruction.
        at: usize,
    },
    /// The last instruction returns nothing.
    NoReturn,
}

impl fmt::Display for ProgramError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length(n) => write!(
                f,
                "a filter program has 1 to {INSTRUCTIONS_MAX} instructions, not {n}"
            ),
            Self::Bytes(n) => write!(
                f,
                "a filter program is made of instructions of 8 bytes, not of {n} bytes"
            ),
            Self::Unknown { at, code } => write!(f, "instruction {at}: classic BPF has no code {code:#06x}"),
            Self::Jump { at } => write!(f, "instruction {at} jumps out of the program"),
            Self::Memory { at } => write!(f, "instruction {at}: there are {MEMORY_WORDS} scratch words"),
            Self::Constant { at } => write!(f, "instruction {at} divides by 0 or shifts by 32 or more"),
            Self::NoReturn => write!(f, "the last instruction does not return"),
        }
    }
}

impl std::error::Error for ProgramError {}

/// Bytes that a load takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    Word,
    Half,
    Byte,
}

/// The second operand of arithmetic and of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    K(u32),
    X,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alu {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    And,
    Or,
    Xor,
    Lsh,
    Rsh,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Test {
    Equal,
    Greater,
    GreaterEqual,
    Set,
}

/// A checked instruction: jumps stay inside the program, scratch indices inside the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    LoadAbsolute(Size, u32),
    LoadIndirect(Size, u32),
    LoadLength,
    LoadConstant(u32),
    LoadMemory(u8),
    LoadXConstant(u32),
    LoadXMemory(u8),
    LoadXLength,
    LoadXHeader(u32),
    Store(u8),
    StoreX(u8),
    Alu(Alu, Source),
    Negate,
    Jump(u32),
    JumpIf(Test, Source, u8, u8),
    ReturnConstant(u32),
    ReturnA,
    CopyAToX,
    CopyXToA,
}

/// A program that was checked: it ends, whatever the packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    pub(super) ops: Box<[Op]>,
}

impl Program {
    /// Checks a program, by the rules the kernel has for one that is attached to a socket: known codes only,
    /// jumps forward and inside, a return at the end.
    ///
    /// Loads of the kernel's ancillary data (`SKF_AD_OFF`) are allowed and, as in libpcap, out of range.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn new(instructions: &[Instruction]) -> Result<Program, ProgramError> {
        let len = instructions.len();
        if len == 0 || len > INSTRUCTIONS_MAX {
            return Err(ProgramError::Length(len));
        }
        let ops = instructions
            .iter()
            .enumerate()
            .map(|(at, i)| check(at, i, len))
            .collect::<Result<Box<[Op]>, _>>()?;
        match ops.last() {
            Some(Op::ReturnA | Op::ReturnConstant(_)) => Ok(Program { ops }),
            _ => Err(ProgramError::NoReturn),
        }
    }

    /// Checks a program that is given as the bytes of an array of `struct sock_filter`, native byte order.
    ///
    /// # Errors
    /// As [`Program::new`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Program, ProgramError> {
        let (chunks, rest) = bytes.as_chunks::<8>();
        if !rest.is_empty() {
            return Err(ProgramError::Bytes(bytes.len()));
        }
        let instructions: Vec<_> = chunks
            .iter()
            .map(|&[c0, c1, jt, jf, k0, k1, k2, k3]| Instruction {
                code: u16::from_ne_bytes([c0, c1]),
                jt,
                jf,
                k: u32::from_ne_bytes([k0, k1, k2, k3]),
            })
            .collect();
        Program::new(&instructions)
    }

    /// Number of instructions.
    #[must_use]
    #[allow(
        clippy::len_without_is_empty,
        reason = "a program has at least one instruction"
    )]
    pub fn len(&self) -> usize {
        self.ops.len()
    }
}

/// The codes, by their names in linux/bpf_common.h and linux/filter.h: class | size or operation | mode or
/// source.
fn check(at: usize, instruction: &Instruction, len: usize) -> Result<Op, ProgramError> {
    let &Instruction { code, jt, jf, k } = instruction;
    let memory = || {
        u8::try_from(k)
            .ok()
            .filter(|&k| usize::from(k) < MEMORY_WORDS)
            .ok_or(ProgramError::Memory { at })
    };
    let unknown = ProgramError::Unknown { at, code };
    Ok(match code {
        0x20 => Op::LoadAbsolute(Size::Word, k), // LD W ABS
        0x28 => Op::LoadAbsolute(Size::Half, k), // LD H ABS
        0x30 => Op::LoadAbsolute(Size::Byte, k), // LD B ABS
        0x40 => Op::LoadIndirect(Size::Word, k), // LD W IND
        0x48 => Op::LoadIndirect(Size::Half, k), // LD H IND
        0x50 => Op::LoadIndirect(Size::Byte, k), // LD B IND
        0x80 => Op::LoadLength,                  // LD W LEN
        0x00 => Op::LoadConstant(k),             // LD W IMM
        0x60 => Op::LoadMemory(memory()?),       // LD W MEM
        0x01 => Op::LoadXConstant(k),            // LDX W IMM
        0x61 => Op::LoadXMemory(memory()?),      // LDX W MEM
        0x81 => Op::LoadXLength,                 // LDX W LEN
        0xb1 => Op::LoadXHeader(k),              // LDX B MSH
        0x02 => Op::Store(memory()?),            // ST
        0x03 => Op::StoreX(memory()?),           // STX
        0x84 => Op::Negate,                      // ALU NEG
        0x06 => Op::ReturnConstant(k),           // RET K
        0x16 => Op::ReturnA,                     // RET A
        0x07 => Op::CopyAToX,                    // MISC TAX
        0x87 => Op::CopyXToA,                    // MISC TXA
        0x05 => {
            // JMP JA; the kernel forbids jumping backwards, and so every program ends.
            if k as usize >= len - at - 1 {
                return Err(ProgramError::Jump { at });
            }
            Op::Jump(k)
        }
        _ => {
            let source = if code & 0x08 == 0 { Source::K(k) } else { Source::X };
            match (code & 0x07, code & !0x0f) {
                // ALU
                (0x04, operation) => {
                    let alu = match operation {
                        0x00 => Alu::Add,
                        0x10 => Alu::Sub,
                        0x20 => Alu::Mul,
                        0x30 => Alu::Div,
                        0x40 => Alu::Or,
                        0x50 => Alu::And,
                        0x60 => Alu::Lsh,
                        0x70 => Alu::Rsh,
                        0x90 => Alu::Mod,
                        0xa0 => Alu::Xor,
                        _ => return Err(unknown),
                    };
                    let bad = match (alu, source) {
                        (Alu::Div | Alu::Mod, Source::K(k)) => k == 0,
                        (Alu::Lsh | Alu::Rsh, Source::K(k)) => k >= 32,
                        _ => false,
                    };
                    if bad {
                        return Err(ProgramError::Constant { at });
                    }
                    Op::Alu(alu, source)
                }
                // JMP
                (0x05, operation) => {
                    let test = match operation {
                        0x10 => Test::Equal,
                        0x20 => Test::Greater,
                        0x30 => Test::GreaterEqual,
                        0x40 => Test::Set,
                        _ => return Err(unknown),
                    };
                    if usize::from(jt.max(jf)) >= len - at - 1 {
                        return Err(ProgramError::Jump { at });
                    }
                    Op::JumpIf(test, source, jt, jf)
                }
                _ => return Err(unknown),
            }
        }
    })
}
