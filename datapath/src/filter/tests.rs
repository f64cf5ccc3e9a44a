//! Each instruction by hand, and any program over any packet.

use proptest::prelude::*;

use super::{INSTRUCTIONS_MAX, Instruction, Program, ProgramError};

fn op(code: u16, k: u32) -> Instruction {
    Instruction {
        code,
        jt: 0,
        jf: 0,
        k,
    }
}

fn jump(code: u16, k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code, jt, jf, k }
}

/// Runs `body`, then `ret a`.
fn value(body: &[Instruction], packet: &[u8]) -> u32 {
    let mut program = body.to_vec();
    program.push(op(0x16, 0));
    Program::new(&program).unwrap().run(packet)
}

const PACKET: &[u8] = &[0x81, 0x02, 0xff, 0x04, 0x46, 0x06];

#[test]
fn loads_are_big_endian_and_reach_exactly_to_the_end() {
    assert_eq!(value(&[op(0x20, 0)], PACKET), 0x8102_ff04);
    assert_eq!(value(&[op(0x20, 2)], PACKET), 0xff04_4606);
    assert_eq!(value(&[op(0x28, 4)], PACKET), 0x4606);
    assert_eq!(value(&[op(0x30, 5)], PACKET), 0x06);
    // ld #7; ldx at the end: what does not fit returns 0, not A.
    for bad in [
        op(0x20, 3),
        op(0x28, 5),
        op(0x30, 6),
        op(0x20, u32::MAX),
        op(0xb1, 6),
    ] {
        assert_eq!(value(&[op(0x00, 7), bad], PACKET), 0, "{bad:?}");
    }
}

#[test]
fn indirect_loads_add_x_and_do_not_wrap() {
    assert_eq!(value(&[op(0x01, 2), op(0x50, 1)], PACKET), 0x04);
    assert_eq!(value(&[op(0x01, 2), op(0x48, 2)], PACKET), 0x4606);
    assert_eq!(value(&[op(0x01, 2), op(0x40, 0)], PACKET), 0xff04_4606);
    assert_eq!(value(&[op(0x00, 7), op(0x01, u32::MAX), op(0x50, 2)], PACKET), 0);
}

#[test]
fn length_header_length_memory_and_transfers() {
    assert_eq!(value(&[op(0x80, 0)], PACKET), 6);
    assert_eq!(value(&[op(0x81, 0), op(0x87, 0)], PACKET), 6);
    assert_eq!(value(&[op(0xb1, 4), op(0x87, 0)], PACKET), 24);
    assert_eq!(
        value(&[op(0x00, 9), op(0x02, 15), op(0x00, 0), op(0x60, 15)], PACKET),
        9
    );
    assert_eq!(
        value(&[op(0x01, 9), op(0x03, 3), op(0x61, 3), op(0x87, 0)], PACKET),
        9
    );
    assert_eq!(
        value(&[op(0x00, 5), op(0x07, 0), op(0x00, 0), op(0x87, 0)], PACKET),
        5
    );
    let program = Program::new(&[op(0x80, 0), op(0x16, 0)]).unwrap();
    assert_eq!(program.run_truncated(PACKET, 1500), 1500);
}

#[test]
fn arithmetic_wraps_and_division_by_x_zero_ends_with_zero() {
    let alu = |code: u16, a: u32, b: u32| {
        let k = value(&[op(0x00, a), op(code, b)], &[]);
        let x = value(&[op(0x00, a), op(0x01, b), op(code | 8, 0)], &[]);
        assert_eq!(k, x, "{code:#x}");
        k
    };
    assert_eq!(alu(0x04, u32::MAX, 2), 1);
    assert_eq!(alu(0x14, 1, 2), u32::MAX);
    assert_eq!(alu(0x24, 1 << 31, 2), 0);
    assert_eq!(alu(0x34, 7, 2), 3);
    assert_eq!(alu(0x94, 7, 4), 3);
    assert_eq!(alu(0x44, 5, 2), 7);
    assert_eq!(alu(0x54, 6, 3), 2);
    assert_eq!(alu(0xa4, 6, 3), 5);
    assert_eq!(alu(0x64, 3, 31), 1 << 31);
    assert_eq!(alu(0x74, 1 << 31, 31), 1);
    assert_eq!(value(&[op(0x00, 1), op(0x84, 0)], &[]), u32::MAX);
    // Division and remainder by X = 0 end the run with 0; a shift by X = 32 leaves 0 and goes on.
    for code in [0x3c, 0x9c] {
        let program = [op(0x00, 7), op(0x01, 0), op(code, 0), op(0x06, 1)];
        assert_eq!(Program::new(&program).unwrap().run(&[]), 0);
    }
    for code in [0x6c, 0x7c] {
        assert_eq!(
            value(&[op(0x00, 7), op(0x01, 32), op(code, 0), op(0x04, 1)], &[]),
            1
        );
    }
}

#[test]
fn comparisons_are_unsigned_and_jump_by_count() {
    let taken = |code: u16, a: u32, b: u32| {
        let tail = [op(0x06, 0), op(0x06, 1)];
        let k = [&[op(0x00, a), jump(code, b, 1, 0)][..], &tail].concat();
        let x = [&[op(0x00, a), op(0x01, b), jump(code | 8, 0, 1, 0)][..], &tail].concat();
        let run = |program: &[Instruction]| Program::new(program).unwrap().run(&[]);
        assert_eq!(run(&k), run(&x));
        run(&k) == 1
    };
    assert!(taken(0x15, 5, 5) && !taken(0x15, 5, 6));
    assert!(taken(0x25, u32::MAX, 1) && !taken(0x25, 5, 5));
    assert!(taken(0x35, 5, 5) && !taken(0x35, 4, 5));
    assert!(taken(0x45, 6, 2) && !taken(0x45, 4, 3));
    let over = [op(0x05, 1), op(0x06, 0), op(0x06, 3)];
    assert_eq!(Program::new(&over).unwrap().run(&[]), 3);
}

#[test]
fn a_program_that_may_not_run_is_refused_with_the_place() {
    let error = |program: &[Instruction]| Program::new(program).unwrap_err();
    let ret = op(0x06, 0);
    assert_eq!(error(&[]), ProgramError::Length(0));
    assert_eq!(
        error(&vec![ret; INSTRUCTIONS_MAX + 1]),
        ProgramError::Length(INSTRUCTIONS_MAX + 1)
    );
    assert_eq!(error(&[op(0x00, 0)]), ProgramError::NoReturn);
    assert_eq!(
        error(&[op(0xb0, 0), ret]),
        ProgramError::Unknown { at: 0, code: 0xb0 }
    );
    assert_eq!(
        error(&[op(0x120, 0), ret]),
        ProgramError::Unknown { at: 0, code: 0x120 }
    );
    assert_eq!(error(&[op(0x05, 1), ret]), ProgramError::Jump { at: 0 });
    assert_eq!(error(&[op(0x05, u32::MAX), ret]), ProgramError::Jump { at: 0 });
    assert_eq!(error(&[jump(0x15, 0, 0, 1), ret]), ProgramError::Jump { at: 0 });
    assert_eq!(error(&[op(0x60, 16), ret]), ProgramError::Memory { at: 0 });
    assert_eq!(error(&[op(0x03, 256), ret]), ProgramError::Memory { at: 0 });
    assert_eq!(error(&[op(0x34, 0), ret]), ProgramError::Constant { at: 0 });
    assert_eq!(error(&[op(0x64, 32), ret]), ProgramError::Constant { at: 0 });
    assert_eq!(Program::from_bytes(&[0; 9]).unwrap_err(), ProgramError::Bytes(9));
}

#[test]
fn a_known_program_from_bytes_finds_dns() {
    // udp dst port 53 over IPv4 without options, written out by hand: ldh [12] == 0x800; ldb [23] == 17;
    // ldh [20] & 0x1fff == 0; ldxb 4*([14]&0xf); ldh [x+16] == 53.
    let program = [
        op(0x28, 12),
        jump(0x15, 0x800, 0, 8),
        op(0x30, 23),
        jump(0x15, 17, 0, 6),
        op(0x28, 20),
        jump(0x45, 0x1fff, 4, 0),
        op(0xb1, 14),
        op(0x48, 16),
        jump(0x15, 53, 0, 1),
        op(0x06, 262_144),
        op(0x06, 0),
    ];
    let bytes: Vec<u8> = program
        .iter()
        .flat_map(|i| {
            let mut b = i.code.to_ne_bytes().to_vec();
            b.extend([i.jt, i.jf]);
            b.extend(i.k.to_ne_bytes());
            b
        })
        .collect();
    let program = Program::from_bytes(&bytes).unwrap();
    assert_eq!(program.len(), 11);
    let mut packet = [0u8; 60];
    packet[12] = 0x08;
    packet[14] = 0x45;
    packet[23] = 17;
    packet[37] = 53;
    assert!(program.matches(&packet));
    packet[37] = 54;
    assert!(!program.matches(&packet));
    packet[37] = 53;
    packet[14] = 0x46; // an IP option moves the port
    assert!(!program.matches(&packet));
    packet[41] = 53;
    assert!(program.matches(&packet));
    packet[21] = 1; // a later fragment has no port
    assert!(!program.matches(&packet));
    assert!(!program.matches(&packet[..30]));
}

fn any_instruction() -> impl Strategy<Value = Instruction> {
    let code = prop_oneof![
        8 => proptest::sample::select(vec![
            0x20u16, 0x28, 0x30, 0x40, 0x48, 0x50, 0x80, 0x00, 0x60, 0x01, 0x61, 0x81, 0xb1, 0x02, 0x03, 0x84,
            0x06, 0x16, 0x07, 0x87, 0x05, 0x04, 0x0c, 0x14, 0x1c, 0x24, 0x2c, 0x34, 0x3c, 0x44, 0x4c, 0x54, 0x5c,
            0x64, 0x6c, 0x74, 0x7c, 0x94, 0x9c, 0xa4, 0xac, 0x15, 0x1d, 0x25, 0x2d, 0x35, 0x3d, 0x45, 0x4d,
        ]),
        1 => any::<u16>(),
    ];
    let k = prop_oneof![6 => 0u32..20, 1 => any::<u32>()];
    (code, 0u8..6, 0u8..6, k).prop_map(|(code, jt, jf, k)| Instruction { code, jt, jf, k })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_program_and_no_packet_panics(
        mut program in proptest::collection::vec(any_instruction(), 0..40),
        packet in proptest::collection::vec(any::<u8>(), 0..80),
        wire in any::<u32>(),
    ) {
        program.push(op(0x16, 0));
        if let Ok(program) = Program::new(&program) {
            let first = program.run_truncated(&packet, wire);
            prop_assert_eq!(first, program.run_truncated(&packet, wire));
        }
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), packet: Vec<u8>) {
        if let Ok(program) = Program::from_bytes(&bytes) {
            let _ = program.run(&packet);
        }
    }
}
