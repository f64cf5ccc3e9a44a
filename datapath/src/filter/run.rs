//! The interpreter. Every load is checked against the packet; one that does not fit ends the run with 0.

use super::program::{Alu, MEMORY_WORDS, Op, Program, Size, Source, Test};

impl Program {
    /// Runs the program over a packet (Ethernet header first). Gives what it returns: 0 for "no match", else
    /// the number of bytes it wants.
    #[must_use]
    #[inline]
    pub fn run(&self, packet: &[u8]) -> u32 {
        self.run_truncated(packet, packet.len() as u32)
    }

    /// Whether the program wants the packet.
    #[must_use]
    #[inline]
    pub fn matches(&self, packet: &[u8]) -> bool {
        self.run(packet) != 0
    }

    /// Runs the program over the first bytes of a packet that had `wire_len` bytes: what `len` gives.
    #[must_use]
    pub fn run_truncated(&self, packet: &[u8], wire_len: u32) -> u32 {
        let (mut a, mut x) = (0u32, 0u32);
        let mut memory = [0u32; MEMORY_WORDS];
        let mut at = 0usize;
        // Jumps only go forward and stay inside, and the last op returns: `get` never fails, and a program
        // ends after as many steps as it has ops.
        while let Some(op) = self.ops.get(at) {
            at += 1;
            match *op {
                Op::LoadAbsolute(size, k) => match load(packet, k, size) {
                    Some(value) => a = value,
                    None => return 0,
                },
                Op::LoadIndirect(size, k) => {
                    match x.checked_add(k).and_then(|offset| load(packet, offset, size)) {
                        Some(value) => a = value,
                        None => return 0,
                    }
                }
                Op::LoadLength => a = wire_len,
                Op::LoadConstant(k) => a = k,
                Op::LoadMemory(i) => a = memory[usize::from(i) % MEMORY_WORDS],
                Op::LoadXConstant(k) => x = k,
                Op::LoadXMemory(i) => x = memory[usize::from(i) % MEMORY_WORDS],
                Op::LoadXLength => x = wire_len,
                Op::LoadXHeader(k) => match load(packet, k, Size::Byte) {
                    Some(value) => x = (value & 0xf) << 2,
                    None => return 0,
                },
                Op::Store(i) => memory[usize::from(i) % MEMORY_WORDS] = a,
                Op::StoreX(i) => memory[usize::from(i) % MEMORY_WORDS] = x,
                Op::Alu(alu, source) => match arithmetic(alu, a, operand(source, x)) {
                    Some(value) => a = value,
                    None => return 0,
                },
                Op::Negate => a = a.wrapping_neg(),
                Op::Jump(k) => at += k as usize,
                Op::JumpIf(test, source, jt, jf) => {
                    let holds = compare(test, a, operand(source, x));
                    at += usize::from(if holds { jt } else { jf });
                }
                Op::ReturnConstant(k) => return k,
                Op::ReturnA => return a,
                Op::CopyAToX => x = a,
                Op::CopyXToA => a = x,
            }
        }
        0
    }
}

#[inline]
fn operand(source: Source, x: u32) -> u32 {
    match source {
        Source::K(k) => k,
        Source::X => x,
    }
}

#[inline]
fn load(packet: &[u8], offset: u32, size: Size) -> Option<u32> {
    let rest = packet.get(offset as usize..)?;
    match size {
        Size::Word => rest.first_chunk().map(|b| u32::from_be_bytes(*b)),
        Size::Half => rest.first_chunk().map(|b| u32::from(u16::from_be_bytes(*b))),
        Size::Byte => rest.first().map(|b| u32::from(*b)),
    }
}

/// `None` for a division by 0, which ends the run.
#[inline]
fn arithmetic(alu: Alu, a: u32, b: u32) -> Option<u32> {
    Some(match alu {
        Alu::Add => a.wrapping_add(b),
        Alu::Sub => a.wrapping_sub(b),
        Alu::Mul => a.wrapping_mul(b),
        Alu::Div => return a.checked_div(b),
        Alu::Mod => return a.checked_rem(b),
        Alu::And => a & b,
        Alu::Or => a | b,
        Alu::Xor => a ^ b,
        // A shift by 32 and more leaves nothing.
        Alu::Lsh => a.checked_shl(b).unwrap_or(0),
        Alu::Rsh => a.checked_shr(b).unwrap_or(0),
    })
}

#[inline]
fn compare(test: Test, a: u32, b: u32) -> bool {
    match test {
        Test::Equal => a == b,
        Test::Greater => a > b,
        Test::GreaterEqual => a >= b,
        Test::Set => a & b != 0,
    }
}
