//! Small BPF programs that count what they see, and let it go on.

use bifurcate_linux::bpf::{
    Attachment, Map, MapReference, MapType, Program, ProgramSource, ProgramType, TcDirection, XdpMode,
};

use super::lab::Lab;

/// A program on the card that counts frames.
pub struct Counter {
    map: Map,
    _program: Program,
    _attachment: Attachment,
}

impl Counter {
    /// Counts every frame that XDP on the card sees in `mode`.
    pub fn xdp(lab: &Lab, mode: XdpMode) -> Counter {
        // Count, then XDP_PASS (2).
        let code = [count(), vec![ins(0xb7, 0, 0, 0, 2), ins(0x95, 0, 0, 0, 0)]].concat();
        Counter::load(ProgramType::Xdp, &code, 2, |program| {
            lab.host
                .within(|| Attachment::xdp(program, lab.card, mode))
                .expect("XDP attaches to veth")
        })
    }

    /// Counts the frames at the card's tc ingress that carry the mark of a passed frame.
    pub fn passed(lab: &Lab, mark: u16) -> Counter {
        // r2 = skb->tc_index; if r2 == mark count; TC_ACT_UNSPEC (-1): go on.
        let counting = count();
        let mut code = vec![
            ins(0x61, 2, 1, 44, 0),
            ins(0x55, 2, 0, counting.len() as i16, i32::from(mark)),
        ];
        code.extend(counting);
        code.extend([ins(0xb4, 0, 0, 0, -1), ins(0x95, 0, 0, 0, 0)]);
        Counter::load(ProgramType::SchedCls, &code, 2 + 2, |program| {
            lab.host
                .within(|| Attachment::tc(program, lab.card, TcDirection::Ingress))
                .expect("tc attaches to veth")
        })
    }

    /// Counts the frames at the card's tc ingress whose tag names VLAN `id`.
    pub fn tagged(lab: &Lab, id: u16) -> Counter {
        // r2 = skb->vlan_tci & 0xfff (the kernel takes the tag out of the frame before tc sees it).
        let counting = count();
        let mut code = vec![
            ins(0x61, 2, 1, 24, 0),
            ins(0x57, 2, 0, 0, 0xfff),
            ins(0x55, 2, 0, counting.len() as i16, i32::from(id)),
        ];
        code.extend(counting);
        code.extend([ins(0xb4, 0, 0, 0, -1), ins(0x95, 0, 0, 0, 0)]);
        Counter::load(ProgramType::SchedCls, &code, 3 + 2, |program| {
            lab.host
                .within(|| Attachment::tc(program, lab.card, TcDirection::Ingress))
                .expect("tc attaches to veth")
        })
    }

    fn load(
        kind: ProgramType,
        code: &[[u8; 8]],
        map_at: usize,
        attach: impl Fn(&Program) -> Attachment,
    ) -> Counter {
        let map = Map::create(MapType::Array, "bf_count", 4, 8, 1).expect("a map");
        use std::os::fd::AsFd;
        let program = Program::load(&ProgramSource {
            kind,
            name: "bf_count",
            instructions: &code.concat(),
            maps: &[MapReference {
                instruction: map_at,
                map: map.as_fd(),
            }],
            fragments: true,
        })
        .expect("the verifier takes it");
        let attachment = attach(&program);
        Counter {
            map,
            _program: program,
            _attachment: attachment,
        }
    }

    /// Frames so far.
    pub fn count(&self) -> u64 {
        let value = self
            .map
            .lookup(&0u32.to_ne_bytes())
            .expect("a map")
            .expect("an array has every element");
        u64::from_ne_bytes(value.try_into().expect("eight bytes"))
    }
}

/// Adds one to element 0 of the map in instruction 2.
fn count() -> Vec<[u8; 8]> {
    vec![
        ins(0x62, 10, 0, -4, 0), // *(u32 *)(fp - 4) = 0
        ins(0xbf, 2, 10, 0, 0),  // r2 = fp
        ins(0x18, 1, 0, 0, 0),   // r1 = map
        ins(0, 0, 0, 0, 0),      //
        ins(0x07, 2, 0, 0, -4),  // r2 -= 4
        ins(0x85, 0, 0, 0, 1),   // bpf_map_lookup_elem
        ins(0x15, 0, 0, 2, 0),   // none: on
        ins(0xb7, 1, 0, 0, 1),   // r1 = 1
        ins(0xdb, 0, 1, 0, 0),   // atomic *(u64 *)r0 += r1
    ]
}

fn ins(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> [u8; 8] {
    let mut bytes = [code, to | from << 4, 0, 0, 0, 0, 0, 0];
    bytes[2..4].copy_from_slice(&offset.to_ne_bytes());
    bytes[4..8].copy_from_slice(&immediate.to_ne_bytes());
    bytes
}
