//! The structures and numbers of `infiniband/verbs.h` (rdma-core; its ABI has been stable since libibverbs 1.1).
//!
//! Of structures that only the library makes, the beginning alone is declared: what follows is never looked at.

use std::ffi::{c_char, c_int, c_void};

/// What a field of `infiniband/verbs.h` is like: its name, its place and its size in bytes.
#[cfg(test)]
pub(super) type Field = (&'static str, usize, usize);

/// A structure of the header as it is declared here. `size`: `None` where the beginning alone is declared.
#[cfg(test)]
pub(super) struct Layout {
    pub(super) name: &'static str,
    pub(super) size: Option<usize>,
    pub(super) fields: Vec<Field>,
}

/// Declares structures of C, and for tests what their layout is. A field that is several of the header's, or a part of a
/// union, is called "-" there and not compared: the place of the next field, or the size of the whole, tells.
macro_rules! structures {
    ($($(#[$doc:meta])* $kind:ident $name:ident = $c:literal {
        $($(#[$field_doc:meta])* $field:ident $(($c_field:literal))?: $type:ty,)*
    })*) => {
        $($(#[$doc])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug)]
        pub struct $name {
            $($(#[$field_doc])* pub(super) $field: $type,)*
        })*

        /// The layout of every structure, in the order of this file.
        #[cfg(test)]
        pub(super) fn layouts() -> Vec<Layout> {
            vec![$(Layout {
                name: $c,
                size: structures!(@size $kind $name),
                fields: vec![$((
                    structures!(@name $field $($c_field)?),
                    std::mem::offset_of!($name, $field),
                    size_of::<$type>(),
                ),)*],
            },)*]
        }
    };
    (@size whole $name:ident) => { Some(size_of::<$name>()) };
    (@size head $name:ident) => { None };
    (@name $field:ident $c_field:literal) => { $c_field };
    (@name $field:ident) => { stringify!($field) };
}

/// Numbers of the header, and for tests their names there.
macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $value:expr, $c:literal;)*) => {
        $($(#[$doc])* pub(super) const $name: $type = $value;)*

        /// Every number under its name in the header.
        #[cfg(test)]
        pub(super) fn numbers() -> Vec<(&'static str, u64)> {
            vec![$(($c, $name as u64),)*]
        }
    };
}

/// `union ibv_gid`: an IPv6 address, or an IPv4 one mapped into it; aligned as the two numbers that it may also be.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug)]
pub(super) struct RawGid(pub(super) [u8; 16]);

/// An operation that is not called from here: only its place counts.
type Other = Option<unsafe extern "C" fn()>;

structures! {
    /// A card that the library found.
    head IbvDevice = "ibv_device" {
        device_ops("_ops"): [Other; 2],
        node_type: c_int,
        transport_type: c_int,
        name: [c_char; 64],
    }

    /// The operations of an opened card that need no system call.
    whole ContextOps = "ibv_context_ops" {
        first("-"): [Other; 11],
        poll_cq: Option<unsafe extern "C" fn(*mut IbvCq, c_int, *mut IbvWc) -> c_int>,
        req_notify_cq: Option<unsafe extern "C" fn(*mut IbvCq, c_int) -> c_int>,
        cq_event("-"): [Other; 7],
        post_srq_recv: Other,
        create_qp("-"): [Other; 4],
        post_send: Option<unsafe extern "C" fn(*mut IbvQp, *mut IbvSendWr, *mut *mut IbvSendWr) -> c_int>,
        post_recv: Option<unsafe extern "C" fn(*mut IbvQp, *mut IbvRecvWr, *mut *mut IbvRecvWr) -> c_int>,
        create_ah("-"): [Other; 5],
    }

    /// An opened card.
    whole IbvContext = "ibv_context" {
        device: *mut IbvDevice,
        ops: ContextOps,
        cmd_fd: c_int,
        async_fd: c_int,
        num_comp_vectors: c_int,
        mutex: libc::pthread_mutex_t,
        abi_compat: *mut c_void,
    }

    /// What stands in front of an opened card: operations that came later, the newest first.
    whole VerbsContext = "verbs_context" {
        query_port: Option<unsafe extern "C" fn(*mut IbvContext, u8, *mut IbvPortAttr, usize) -> c_int>,
        advise_mr: Other,
        alloc_null_mr: Other,
        read_counters: Other,
        attach_counters_point_flow: Other,
        create_counters: Other,
        destroy_counters: Other,
        reg_dm_mr: Other,
        alloc_dm: Other,
        free_dm: Other,
        modify_flow_action_esp: Other,
        destroy_flow_action: Other,
        create_flow_action_esp: Other,
        modify_qp_rate_limit: Other,
        alloc_parent_domain: Other,
        dealloc_td: Other,
        alloc_td: Other,
        modify_cq: Other,
        post_srq_ops: Other,
        destroy_rwq_ind_table: Option<unsafe extern "C" fn(*mut IbvRwqIndTable) -> c_int>,
        create_rwq_ind_table:
            Option<unsafe extern "C" fn(*mut IbvContext, *mut IbvRwqIndTableInitAttr) -> *mut IbvRwqIndTable>,
        destroy_wq: Option<unsafe extern "C" fn(*mut IbvWq) -> c_int>,
        modify_wq: Option<unsafe extern "C" fn(*mut IbvWq, *mut IbvWqAttr) -> c_int>,
        create_wq: Option<unsafe extern "C" fn(*mut IbvContext, *mut IbvWqInitAttr) -> *mut IbvWq>,
        query_rt_values: Other,
        create_cq_ex: Other,
        private("priv"): *mut c_void,
        query_device_ex: Other,
        destroy_flow("ibv_destroy_flow"): Option<unsafe extern "C" fn(*mut IbvFlow) -> c_int>,
        placeholder2("ABI_placeholder2"): Other,
        create_flow("ibv_create_flow"): Option<unsafe extern "C" fn(*mut IbvQp, *mut c_void) -> *mut IbvFlow>,
        placeholder1("ABI_placeholder1"): Other,
        open_qp: Other,
        create_qp_ex: Option<unsafe extern "C" fn(*mut IbvContext, *mut IbvQpInitAttrEx) -> *mut IbvQp>,
        get_srq_num: Other,
        create_srq_ex: Other,
        open_xrcd: Other,
        close_xrcd: Other,
        placeholder3("_ABI_placeholder3"): u64,
        size("sz"): usize,
        context: IbvContext,
    }

    /// A port of a card.
    whole IbvPortAttr = "ibv_port_attr" {
        state: c_int,
        max_mtu: c_int,
        active_mtu: c_int,
        gid_tbl_len: c_int,
        port_cap_flags: u32,
        max_msg_sz: u32,
        bad_pkey_cntr: u32,
        qkey_viol_cntr: u32,
        pkey_tbl_len: u16,
        lid: u16,
        sm_lid: u16,
        lmc: u8,
        max_vl_num: u8,
        sm_sl: u8,
        subnet_timeout: u8,
        init_type_reply: u8,
        active_width: u8,
        active_speed: u8,
        phys_state: u8,
        link_layer: u8,
        flags: u8,
        port_cap_flags2: u16,
    }

    /// An entry of a port's table of addresses.
    whole IbvGidEntry = "ibv_gid_entry" {
        gid: RawGid,
        gid_index: u32,
        port_num: u32,
        gid_type: u32,
        ndev_ifindex: u32,
    }

    /// A protection domain.
    whole IbvPd = "ibv_pd" {
        context: *mut IbvContext,
        handle: u32,
    }

    /// Memory that a card may reach.
    whole IbvMr = "ibv_mr" {
        context: *mut IbvContext,
        pd: *mut IbvPd,
        addr: *mut c_void,
        length: usize,
        handle: u32,
        lkey: u32,
        rkey: u32,
    }

    /// Where completion events come.
    whole IbvCompChannel = "ibv_comp_channel" {
        context: *mut IbvContext,
        fd: c_int,
        refcnt: c_int,
    }

    /// A completion queue.
    head IbvCq = "ibv_cq" {
        context: *mut IbvContext,
        channel: *mut IbvCompChannel,
        cq_context: *mut c_void,
        handle: u32,
        cqe: c_int,
    }

    /// A work completion.
    whole IbvWc = "ibv_wc" {
        wr_id: u64,
        status: u32,
        opcode: c_int,
        vendor_err: u32,
        byte_len: u32,
        imm_data: u32,
        qp_num: u32,
        src_qp: u32,
        wc_flags: u32,
        pkey_index: u16,
        slid: u16,
        sl: u8,
        dlid_path_bits: u8,
    }

    /// A queue pair.
    head IbvQp = "ibv_qp" {
        context: *mut IbvContext,
        qp_context: *mut c_void,
        pd: *mut IbvPd,
        send_cq: *mut IbvCq,
        recv_cq: *mut IbvCq,
        srq: *mut c_void,
        handle: u32,
        qp_num: u32,
        state: c_int,
        qp_type: c_int,
    }

    /// How much a queue pair holds.
    whole IbvQpCap = "ibv_qp_cap" {
        max_send_wr: u32,
        max_recv_wr: u32,
        max_send_sge: u32,
        max_recv_sge: u32,
        max_inline_data: u32,
    }

    /// What a queue pair is made of.
    whole IbvQpInitAttr = "ibv_qp_init_attr" {
        qp_context: *mut c_void,
        send_cq: *mut IbvCq,
        recv_cq: *mut IbvCq,
        srq: *mut c_void,
        cap: IbvQpCap,
        qp_type: c_int,
        sq_sig_all: c_int,
    }

    /// The way to another port.
    whole IbvGlobalRoute = "ibv_global_route" {
        dgid: RawGid,
        flow_label: u32,
        sgid_index: u8,
        hop_limit: u8,
        traffic_class: u8,
    }

    /// What an address handle is made of.
    whole IbvAhAttr = "ibv_ah_attr" {
        grh: IbvGlobalRoute,
        dlid: u16,
        sl: u8,
        src_path_bits: u8,
        static_rate: u8,
        is_global: u8,
        port_num: u8,
    }

    /// An address handle.
    whole IbvAh = "ibv_ah" {
        context: *mut IbvContext,
        pd: *mut IbvPd,
        handle: u32,
    }

    /// What of a queue pair is changed.
    whole IbvQpAttr = "ibv_qp_attr" {
        qp_state: c_int,
        cur_qp_state: c_int,
        path_mtu: c_int,
        path_mig_state: c_int,
        qkey: u32,
        rq_psn: u32,
        sq_psn: u32,
        dest_qp_num: u32,
        qp_access_flags: u32,
        cap: IbvQpCap,
        ah_attr: IbvAhAttr,
        alt_ah_attr: IbvAhAttr,
        pkey_index: u16,
        alt_pkey_index: u16,
        en_sqd_async_notify: u8,
        sq_draining: u8,
        max_rd_atomic: u8,
        max_dest_rd_atomic: u8,
        min_rnr_timer: u8,
        port_num: u8,
        timeout: u8,
        retry_cnt: u8,
        rnr_retry: u8,
        alt_port_num: u8,
        alt_timeout: u8,
        rate_limit: u32,
    }

    /// A piece of memory of a work request.
    whole IbvSge = "ibv_sge" {
        addr: u64,
        length: u32,
        lkey: u32,
    }

    /// A request to receive into memory.
    whole IbvRecvWr = "ibv_recv_wr" {
        wr_id: u64,
        next: *mut IbvRecvWr,
        sg_list: *mut IbvSge,
        num_sge: c_int,
    }

    /// A request to send from memory. Of the union `wr` the member `ud` alone is declared, and room for the others.
    whole IbvSendWr = "ibv_send_wr" {
        wr_id: u64,
        next: *mut IbvSendWr,
        sg_list: *mut IbvSge,
        num_sge: c_int,
        opcode: c_int,
        send_flags: u32,
        imm_data: u32,
        ah("wr.ud.ah"): *mut IbvAh,
        remote_qpn("wr.ud.remote_qpn"): u32,
        remote_qkey("wr.ud.remote_qkey"): u32,
        rest("-"): [u64; 2],
        remote_srqn("qp_type.xrc.remote_srqn"): u32,
        mw("-"): [u64; 6],
    }

    /// Something that happened to a card or to an object of it.
    whole IbvAsyncEvent = "ibv_async_event" {
        element: *mut c_void,
        event_type: c_int,
    }

    /// A flow rule.
    whole IbvFlow = "ibv_flow" {
        comp_mask: u32,
        context: *mut IbvContext,
        handle: u32,
    }


    /// How packets are spread over work queues.
    whole IbvRxHashConf = "ibv_rx_hash_conf" {
        rx_hash_function: u8,
        rx_hash_key_len: u8,
        rx_hash_key: *mut u8,
        rx_hash_fields_mask: u64,
    }

    /// What a queue pair is made of that spreads packets over work queues.
    whole IbvQpInitAttrEx = "ibv_qp_init_attr_ex" {
        qp_context: *mut c_void,
        send_cq: *mut IbvCq,
        recv_cq: *mut IbvCq,
        srq: *mut c_void,
        cap: IbvQpCap,
        qp_type: c_int,
        sq_sig_all: c_int,
        comp_mask: u32,
        pd: *mut IbvPd,
        xrcd: *mut c_void,
        create_flags: u32,
        max_tso_header: u16,
        rwq_ind_tbl: *mut IbvRwqIndTable,
        rx_hash_conf: IbvRxHashConf,
        source_qpn: u32,
        send_ops_flags: u64,
    }

    /// A receive queue of its own.
    head IbvWq = "ibv_wq" {
        context: *mut IbvContext,
        wq_context: *mut c_void,
        pd: *mut IbvPd,
        cq: *mut IbvCq,
        wq_num: u32,
        handle: u32,
        state: c_int,
        wq_type: c_int,
        post_recv: Option<unsafe extern "C" fn(*mut IbvWq, *mut IbvRecvWr, *mut *mut IbvRecvWr) -> c_int>,
    }

    /// What a receive queue is made of.
    whole IbvWqInitAttr = "ibv_wq_init_attr" {
        wq_context: *mut c_void,
        wq_type: c_int,
        max_wr: u32,
        max_sge: u32,
        pd: *mut IbvPd,
        cq: *mut IbvCq,
        comp_mask: u32,
        create_flags: u32,
    }

    /// What of a receive queue is changed.
    whole IbvWqAttr = "ibv_wq_attr" {
        attr_mask: u32,
        wq_state: c_int,
        curr_wq_state: c_int,
        flags: u32,
        flags_mask: u32,
    }

    /// The table that a packet's hash is looked up in.
    whole IbvRwqIndTable = "ibv_rwq_ind_table" {
        context: *mut IbvContext,
        ind_tbl_handle: c_int,
        ind_tbl_num: c_int,
        comp_mask: u32,
    }

    /// What such a table is made of.
    whole IbvRwqIndTableInitAttr = "ibv_rwq_ind_table_init_attr" {
        log_ind_tbl_size: u32,
        ind_tbl: *mut *mut IbvWq,
        comp_mask: u32,
    }
}

numbers! {
    /// A datagram queue pair.
    QPT_UD: c_int = 4, "IBV_QPT_UD";
    /// A queue pair of Ethernet frames.
    QPT_RAW_PACKET: c_int = 8, "IBV_QPT_RAW_PACKET";
    QPS_RESET: c_int = 0, "IBV_QPS_RESET";
    QPS_INIT: c_int = 1, "IBV_QPS_INIT";
    QPS_RTR: c_int = 2, "IBV_QPS_RTR";
    QPS_RTS: c_int = 3, "IBV_QPS_RTS";
    QPS_ERR: c_int = 6, "IBV_QPS_ERR";
    QP_STATE: c_int = 1, "IBV_QP_STATE";
    QP_PKEY_INDEX: c_int = 1 << 4, "IBV_QP_PKEY_INDEX";
    QP_PORT: c_int = 1 << 5, "IBV_QP_PORT";
    QP_QKEY: c_int = 1 << 6, "IBV_QP_QKEY";
    QP_SQ_PSN: c_int = 1 << 16, "IBV_QP_SQ_PSN";
    /// The card writes into the memory.
    ACCESS_LOCAL_WRITE: c_int = 1, "IBV_ACCESS_LOCAL_WRITE";
    WR_SEND: c_int = 2, "IBV_WR_SEND";
    SEND_SIGNALED: u32 = 2, "IBV_SEND_SIGNALED";
    /// The first 40 bytes received are a global route header (RoCE version 2 over IPv4: the IPv4 header in its last 20).
    WC_GRH: u32 = 1, "IBV_WC_GRH";
    GID_TYPE_IB: u32 = 0, "IBV_GID_TYPE_IB";
    GID_TYPE_ROCE_V1: u32 = 1, "IBV_GID_TYPE_ROCE_V1";
    GID_TYPE_ROCE_V2: u32 = 2, "IBV_GID_TYPE_ROCE_V2";
    PORT_ACTIVE: c_int = 4, "IBV_PORT_ACTIVE";
    LINK_LAYER_ETHERNET: u8 = 2, "IBV_LINK_LAYER_ETHERNET";
    EVENT_CQ_ERR: c_int = 0, "IBV_EVENT_CQ_ERR";
    EVENT_QP_FATAL: c_int = 1, "IBV_EVENT_QP_FATAL";
    EVENT_QP_REQ_ERR: c_int = 2, "IBV_EVENT_QP_REQ_ERR";
    EVENT_QP_ACCESS_ERR: c_int = 3, "IBV_EVENT_QP_ACCESS_ERR";
    EVENT_DEVICE_FATAL: c_int = 8, "IBV_EVENT_DEVICE_FATAL";
    EVENT_PORT_ACTIVE: c_int = 9, "IBV_EVENT_PORT_ACTIVE";
    EVENT_PORT_ERR: c_int = 10, "IBV_EVENT_PORT_ERR";
    EVENT_WQ_FATAL: c_int = 19, "IBV_EVENT_WQ_FATAL";
    WQT_RQ: c_int = 0, "IBV_WQT_RQ";
    WQ_ATTR_STATE: u32 = 1, "IBV_WQ_ATTR_STATE";
    WQS_RESET: c_int = 0, "IBV_WQS_RESET";
    WQS_RDY: c_int = 1, "IBV_WQS_RDY";
    QP_INIT_ATTR_PD: u32 = 1, "IBV_QP_INIT_ATTR_PD";
    QP_INIT_ATTR_IND_TABLE: u32 = 1 << 4, "IBV_QP_INIT_ATTR_IND_TABLE";
    QP_INIT_ATTR_RX_HASH: u32 = 1 << 5, "IBV_QP_INIT_ATTR_RX_HASH";
    RX_HASH_TOEPLITZ: u8 = 1, "IBV_RX_HASH_FUNC_TOEPLITZ";
    RX_HASH_IPV4: u64 = 0b11, "(IBV_RX_HASH_SRC_IPV4 | IBV_RX_HASH_DST_IPV4)";
    RX_HASH_IPV6: u64 = 0b11 << 2, "(IBV_RX_HASH_SRC_IPV6 | IBV_RX_HASH_DST_IPV6)";
    RX_HASH_TCP: u64 = 0b11 << 4, "(IBV_RX_HASH_SRC_PORT_TCP | IBV_RX_HASH_DST_PORT_TCP)";
    RX_HASH_UDP: u64 = 0b11 << 6, "(IBV_RX_HASH_SRC_PORT_UDP | IBV_RX_HASH_DST_PORT_UDP)";
    FLOW_SPEC_IPV6: u32 = 0x31, "IBV_FLOW_SPEC_IPV6";
    FLOW_SPEC_IPV4_EXT: u32 = 0x32, "IBV_FLOW_SPEC_IPV4_EXT";
    FLOW_SPEC_TCP: u32 = 0x40, "IBV_FLOW_SPEC_TCP";
    FLOW_SPEC_UDP: u32 = 0x41, "IBV_FLOW_SPEC_UDP";
}

/// Why a work request ended: `enum ibv_wc_status`, with those named that are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WcStatus {
    /// It was done.
    Success,
    /// What arrived is longer than its memory, or what was to be sent longer than the port takes.
    LengthError,
    /// Given back undone, since its queue pair is in the error state.
    Flushed,
    /// Any other of the header's numbers.
    Other(u32),
}

impl WcStatus {
    pub(super) fn of(number: u32) -> WcStatus {
        match number {
            0 => WcStatus::Success,
            1 => WcStatus::LengthError,
            5 => WcStatus::Flushed,
            other => WcStatus::Other(other),
        }
    }
}

/// The statuses that [`WcStatus`] names, under their names in the header.
#[cfg(test)]
pub(super) const STATUSES: [(&str, u32); 3] = [
    ("IBV_WC_SUCCESS", 0),
    ("IBV_WC_LOC_LEN_ERR", 1),
    ("IBV_WC_WR_FLUSH_ERR", 5),
];
