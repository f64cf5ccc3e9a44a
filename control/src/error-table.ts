// The table of stable error codes: what each stands for, what to do about it, and the status a command ends with.

/** Exit status of a command that ends with an error. 77 is what test harnesses read as "skipped". */
export type ExitStatus = 1 | 2 | 77;

interface ErrorEntry {
  /** What the code stands for, in one sentence. */
  readonly meaning: string;
  /** What to do about it when the place that raised it knows nothing better. */
  readonly next: string;
  /** 1 failed, 2 usage, 77 this machine cannot. */
  readonly status: ExitStatus;
}

/** All codes; docs/errors.md is made from them. A code keeps its meaning and is never reused: scripts compare with it. */
export const ERRORS = {
  // What the user typed.
  E_USAGE: {
    meaning: "The command line is not one that bifurcate knows.",
    next: "Run the command with --help.",
    status: 2,
  },
  E_BAD_OPTION: {
    meaning: "An option has a value that it cannot take.",
    next: "Give one of the values that the message lists.",
    status: 2,
  },
  E_NO_FLOW: {
    meaning: "A split needs at least one flow.",
    next: "Name one with --flow 'udp dst port 53', or take the whole card with --flow all.",
    status: 2,
  },
  E_FLOW_SYNTAX: {
    meaning: "A flow is not a valid pcap-filter(7) expression.",
    next: "Correct the expression at the character that the message points at.",
    status: 2,
  },
  E_FLOW_UNSUPPORTED: {
    meaning: "A flow uses a part of pcap-filter(7) that bifurcate does not implement.",
    next: "Say the same with the primitives listed in docs/filter.md.",
    status: 2,
  },
  E_FLOW_NAME: {
    meaning: "A flow has a host, network, port or protocol name that cannot be turned into a number.",
    next: "Write the number or the address instead of the name.",
    status: 2,
  },
  E_FLOW_TOO_LARGE: {
    meaning: "A flow needs a longer filter program than the kernel takes.",
    next: "Split the expression into fewer alternatives, or use several splits.",
    status: 2,
  },
  E_FLOW_NEVER: {
    meaning: "A flow is valid and can match no packet at all.",
    next: "Look for parts of the expression that exclude each other.",
    status: 2,
  },
  E_FLOW_NO_RULE: {
    meaning: "A flow cannot be said in the flow rules of an RDMA card.",
    next: "Say it by addresses, protocols and ports, which a card can look at; the handler decides the rest.",
    status: 2,
  },
  E_HANDLER_FILE: {
    meaning: "The handler file cannot be read, bundled or loaded, or exports no handler.",
    next: "The file exports a function named `handle`; docs/handlers.md shows one.",
    status: 2,
  },

  // The interface.
  E_NO_SUCH_INTERFACE: {
    meaning: "There is no network interface of that name in the namespace.",
    next: "List the interfaces with `bifurcate devices`; name another namespace with --netns.",
    status: 1,
  },
  E_NO_SUCH_NETNS: {
    meaning: "There is no network namespace of that name.",
    next: "List them with `ip netns list`, or give the path of a namespace file.",
    status: 1,
  },
  E_NO_SUCH_QUEUE: {
    meaning: "The interface has no queue of that number.",
    next: "See the number of queues with `bifurcate devices` (or `ethtool -l`).",
    status: 1,
  },
  E_NOT_ETHERNET: {
    meaning: "The interface carries no Ethernet frames, so flows cannot be told apart on it.",
    next: "Use the Ethernet interface below it.",
    status: 1,
  },
  E_INTERFACE_DOWN: {
    meaning: "The interface is administratively down.",
    next: "Bring it up with `ip link set dev NAME up`.",
    status: 1,
  },
  E_INTERFACE_GONE: {
    meaning: "The interface was deleted, or moved to another namespace, while it was in use.",
    next: "Nothing is left to restore on it. Split it again when it is back.",
    status: 1,
  },
  E_MTU: {
    meaning: "The interface's MTU is larger than the driver takes with XDP.",
    next: "Lower the MTU, or use --backend af_packet.",
    status: 1,
  },

  // Rights and the machine.
  E_NOT_PRIVILEGED: {
    meaning: "The process lacks a capability that the operation needs.",
    next: "Run it as root, or give it the capability that the message names.",
    status: 1,
  },
  E_KERNEL_TOO_OLD: {
    meaning: "The running kernel lacks a facility that the operation needs.",
    next: "Use a kernel of at least the version that the message names.",
    status: 77,
  },
  E_NO_XDP: {
    meaning: "The kernel or the driver takes no XDP program on this interface.",
    next: "Use --backend af_packet, or let --backend auto choose it.",
    status: 77,
  },
  E_PROGRAM_REFUSED: {
    meaning: "The kernel's verifier refused the program that was made for the flow.",
    next: "Please report it with the message, which ends with the verifier's words, and with `uname -r`.",
    status: 77,
  },
  E_NO_ZERO_COPY: {
    meaning: "Zero-copy was required and cannot be had on this path.",
    next: "Use --zero-copy prefer to accept a copy, or another card or driver.",
    status: 77,
  },
  E_NO_LEASE: {
    meaning: "A queue lease was asked for and cannot be had on this card.",
    next: "Leave --lease out: an own queue without a lease, or shared queues, are chosen then.",
    status: 77,
  },
  E_FEATURE_FIXED: {
    meaning: "A feature of the card stands in the way of the split and cannot be switched.",
    next: "Choose flows that do not depend on it, or another card.",
    status: 77,
  },
  E_NO_ADDON: {
    meaning: "The native part of bifurcate cannot be loaded on this platform.",
    next: "Build it with `npm run build`, or use Linux on a platform it is built for.",
    status: 77,
  },
  E_EXTERNAL_BUFFERS: {
    meaning: "This JavaScript runtime forbids external buffers, so the frame pool cannot be shown to it.",
    next: "Run it on Node.js 20.19 or newer.",
    status: 77,
  },
  E_NO_MEMORY: {
    meaning: "There is not enough memory for the frame pool, or the process may not lock so much.",
    next: "Ask for fewer frames, add hugepages, or give the process CAP_IPC_LOCK.",
    status: 1,
  },
  E_MISSING_TOOL: {
    meaning: "A program that the command needs is not installed.",
    next: "Install it; the message names the package.",
    status: 77,
  },

  // Cards taken whole.
  E_NO_SUCH_CARD: {
    meaning: "There is no PCI card at that address.",
    next: "List the cards with `lspci -D`.",
    status: 1,
  },
  E_CARD_NOT_TAKEN: {
    meaning: "The card is not bound to the kernel driver that hands it to user space.",
    next: "Take it first: `bifurcate take ADDRESS --via MECHANISM`.",
    status: 1,
  },
  E_CARD_BUSY: {
    meaning: "Another process has the card.",
    next: "End that process; a card is one process's at a time.",
    status: 1,
  },
  E_CARD_IN_USE: {
    meaning: "The kernel uses the card: traffic, a route or a session of its own would be disturbed or end.",
    next: "Choose a spare card, or the lab, or move what the message names first; --force does it all the same.",
    status: 1,
  },
  E_CARD_GROUP: {
    meaning: "The card's IOMMU group cannot be given away: there is none, or another card of it is in use.",
    next: "Take the cards that the message names too, or put the card into another slot.",
    status: 1,
  },
  E_NO_MEMORY_PROTECTION: {
    meaning: "The mechanism lets the card reach all memory of the machine, and nobody said that it may.",
    next: "Use vfio or iommufd, or say it by name: --no-memory-protection.",
    status: 2,
  },
  E_NO_DRIVER: {
    meaning: "The kernel does not have the driver that hands a card to user space.",
    next: "Install or build its module, or use another mechanism; the message names the driver.",
    status: 77,
  },
  E_CARD_UNKNOWN: {
    meaning: "No driver here drives that card, or it cannot do what was asked of it.",
    next: "The message lists the cards that are known; for others leave the card to the kernel and use `split`.",
    status: 77,
  },
  E_NO_INTERRUPT: {
    meaning: "A card was to sleep until an interrupt comes, and the mechanism gives it none.",
    next: "Let it poll (interrupts=no), or take the card by VFIO.",
    status: 77,
  },
  E_NO_VF: {
    meaning: "The card has no virtual functions.",
    next: "Use a card and a driver with SR-IOV, switched on in the firmware; or split it with --backend auto.",
    status: 77,
  },
  E_CARD_FAILED: {
    meaning: "The card did not answer as its datasheet says.",
    next: "Give it back and take it again, which resets it; the message names the step and the register.",
    status: 1,
  },
  E_CARD_ASTRAY: {
    meaning: "The card reached for memory that it was not given, and the IOMMU stopped it.",
    next: "Nothing outside of its frames was touched. Open it again; if it goes on, the card or its driver is broken.",
    status: 1,
  },
  E_CARD_GONE: {
    meaning: "The card was unplugged, unbound, or reset by somebody else while it was in use.",
    next: "When it is there again, `bifurcate give ADDRESS` restores its interface; or take and open it anew.",
    status: 1,
  },

  // Others who use the same thing.
  E_OWN_SESSION: {
    meaning: "The flow includes the SSH session that the command was started from.",
    next: "Exclude it (and not tcp port 22), or take it all the same with --force and --confirm 30s.",
    status: 1,
  },
  E_FOREIGN_XDP: {
    meaning: "Somebody else's XDP program is attached to the interface; it is never displaced.",
    next: "Stop its owner, or detach it with `ip link set dev NAME xdp off`, or use --backend af_packet.",
    status: 1,
  },
  E_FLOW_TAKEN: {
    meaning: "Another live split on the interface takes an overlapping flow.",
    next: "End that split with `bifurcate release`, or choose a flow that does not overlap.",
    status: 1,
  },
  E_QUEUE_BUSY: {
    meaning: "Another AF_XDP socket is bound to the queue.",
    next: "End its owner, whom `ss --xdp -p` shows to root (a killed process frees its queue a moment later), or choose other queues.",
    status: 1,
  },
  E_RULES_FULL: {
    meaning: "The card has no room for the ntuple rules that the flow needs.",
    next: "Delete rules with `ethtool -N NAME delete N`, or choose a simpler flow.",
    status: 1,
  },

  // The transaction.
  E_SETTING_REFUSED: {
    meaning: "The kernel or the driver refused a setting of the card; all earlier ones were undone.",
    next: "Read the reason in the message; the kernel's log may say more (`dmesg`).",
    status: 1,
  },
  E_NOT_VERIFIED: {
    meaning: "A setting was accepted and reads back differently; all earlier ones were undone.",
    next: "The driver does not do what it says; use another backend, and please report the driver.",
    status: 1,
  },
  E_UNDO_INCOMPLETE: {
    meaning: "Not every setting could be put back.",
    next: "Run `bifurcate release --stale` again; the message lists what is left, and the journal stays.",
    status: 1,
  },
  E_JOURNAL: {
    meaning: "The journal cannot be written, so nothing was changed.",
    next: "Free space, or name another directory with BIFURCATE_STATE_DIR.",
    status: 1,
  },
  E_JOURNAL_CORRUPT: {
    meaning: "A journal cannot be read.",
    next: "It was set aside under the name in the message; compare the card's settings with it by hand.",
    status: 1,
  },
  E_GUARDIAN: {
    meaning: "The guardian process, which undoes a split when its owner dies, cannot be started.",
    next: "Read the reason in the message; without a guardian no lasting setting is changed.",
    status: 1,
  },
  E_NO_SUCH_SPLIT: {
    meaning: "There is no live split of that name.",
    next: "List the splits with `bifurcate release`.",
    status: 1,
  },
  E_NOT_CONFIRMED: {
    meaning: "The split was not confirmed in time and undid itself.",
    next: "Split again and confirm it in time, or leave --confirm out.",
    status: 1,
  },
  E_RELEASE_REFUSED: {
    meaning: "The owner of the split did not end when it was asked to.",
    next: "End the process that the message names; its guardian then restores the card.",
    status: 1,
  },
  E_CHANGED_UNDERNEATH: {
    meaning: "Somebody changed the card while the split ran, and the split cannot be repaired.",
    next: "Split again; the message says what was changed.",
    status: 1,
  },

  // Handlers and ports.
  E_CLOSED: {
    meaning: "The port is closed.",
    next: "Open it again.",
    status: 1,
  },
  E_ALREADY_RUNNING: {
    meaning: "The port already runs a handler.",
    next: "Stop it before running another one.",
    status: 1,
  },
  E_HANDLER_THREW: {
    meaning: "The handler threw an error.",
    next: "Correct the handler; the cause has its stack.",
    status: 1,
  },
  E_HANDLER_PROMISE: {
    meaning: "The handler returned a Promise; handlers are synchronous.",
    next: "Keep the frame with `keep`, and decide about it later.",
    status: 1,
  },
  E_HANDLER_HANGS: {
    meaning: "The handler did not return from a batch, so its worker was ended.",
    next: "Look for an endless loop; work of a batch has to end.",
    status: 1,
  },
  E_HANDLER_LEAK: {
    meaning: "The handler keeps so many frames that none are left to receive into.",
    next: "Release kept frames, or ask for a larger pool.",
    status: 1,
  },
  E_NO_PASS: {
    meaning: "Frames cannot be passed back to the kernel on this path.",
    next: "Use driver mode, or a handler that needs no `pass`.",
    status: 1,
  },
  E_DEVICE_FAILED: {
    meaning: "The device stopped working while it was in use.",
    next: "Read the cause; split again when the device is back.",
    status: 1,
  },

  // Diagnosis.
  E_UNHEALTHY: {
    meaning: "The doctor found problems.",
    next: "Each finding ends with the command that mends it; docs/doctor.md explains them.",
    status: 1,
  },
  E_PACKET_SYNTAX: {
    meaning: "A packet to explain cannot be understood.",
    next: "Correct it at the character that the message points at; docs/explain.md has the forms.",
    status: 2,
  },
  E_PACKET_FILE: {
    meaning: "A capture file cannot be read, or has no such packet.",
    next: "Give a pcap or pcapng file of Ethernet frames, and --packet N within it.",
    status: 1,
  },
  E_PACKETS_VANISH: {
    meaning: "Packets that arrive on the card do not reach the end of their way.",
    next: "The message names the first stage where they vanish, and what mends it.",
    status: 1,
  },
  E_MEASUREMENT: {
    meaning: "A measurement could not be made: a process of it failed, or it was interrupted.",
    next: "The message has the reason; nothing of the measurement is left behind.",
    status: 1,
  },
  E_OUTPUT: {
    meaning: "The file for the output cannot be written.",
    next: "Name a file in a folder that is there and may be written.",
    status: 1,
  },

  // The broker and its leases.
  E_NO_BROKER: {
    meaning: "No broker listens at the socket, or it cannot be reached.",
    next: 'Start one (docs/broker.md), or use via: "in-process" (--via in-process) with the rights to split.',
    status: 1,
  },
  E_BROKER_PROTOCOL: {
    meaning: "Broker and client do not understand each other: a message is not what the protocol says.",
    next: "Use a client and a broker that have a version in common; control/src/protocol/PROTOCOL.md lists them.",
    status: 1,
  },
  E_BROKER_RUNNING: {
    meaning: "Another broker serves at the same socket, or has the same folder of state.",
    next: "End it first: the new one adopts its leases.",
    status: 1,
  },
  E_BROKER_FULL: {
    meaning: "The broker has as many connections or leases as it takes, of everybody or of this user.",
    next: "Close connections or return leases that are not needed.",
    status: 1,
  },
  E_POLICY: {
    meaning: "The policy file is wrong, missing, or may be written by others than its owner.",
    next: "Correct the line that the message points at; docs/broker.md lists what a policy says.",
    status: 2,
  },
  E_LEASE_DENIED: {
    meaning: "The policy does not give this user that lease.",
    next: "Ask for what the policy gives, or have the administrator extend it.",
    status: 1,
  },
  E_LEASE_UNSUPPORTED: {
    meaning: "The policy gives the lease, but it cannot be had on this card or in this way.",
    next: "Read the reason in the message.",
    status: 77,
  },
  E_NO_SUCH_LEASE: {
    meaning: "There is no lease of that name, or it is another user's.",
    next: "List the leases with `bifurcate leases`.",
    status: 1,
  },
  E_LEASE_REVOKED: {
    meaning:
      "The lease was taken back: its flow is with the kernel, a card that was leased whole is to be closed.",
    next: "Ask for a new lease; the broker's audit log says who took it back.",
    status: 1,
  },

  // The other end of a vhost-user socket.
  E_SOCKET_IN_USE: {
    meaning:
      "Somebody else listens at the path or address of the socket, or a file that is no socket is there.",
    next: "End who listens there (`ss -xlp`), name another path, or leave `server` out to connect to it.",
    status: 1,
  },
  E_SOCKET_MISSING: {
    meaning: "Nobody listens at the path or address of the socket.",
    next: "Start the other end first, or let this end listen: add `,server`.",
    status: 1,
  },
  E_PEER_LACKS: {
    meaning: "The other end of the socket lacks queues or a virtio feature that was asked for.",
    next: "Ask for fewer queues, leave `layout` out, or give the other end what the message names.",
    status: 1,
  },
  E_PEER_FAILED: {
    meaning: "The other end of the socket did not answer, closed it, or sent what it may not.",
    next: "Look at what the other end says; it has to speak vhost-user, as its device or driver.",
    status: 1,
  },

  // RDMA devices.
  E_NO_RDMA_CORE: {
    meaning: "rdma-core, the library by which queue pairs are reached, is not installed, or too old.",
    next: "Install it: `apt-get install libibverbs1 ibverbs-providers`, or the package rdma-core of another system.",
    status: 77,
  },
  E_NO_RDMA_DEVICE: {
    meaning: "There is no RDMA device of that name, or it has no such port.",
    next: "List them with `rdma link`; `rdma link add rxe0 type rxe netdev NAME` makes one of an interface, in software.",
    status: 1,
  },
  E_QP_REFUSED: {
    meaning: "The RDMA device has no queue pairs of the kind that was asked for, or no flow rules.",
    next: "Name another end with server= or peer= to carry frames in datagrams, or use a card with raw packet queue pairs.",
    status: 77,
  },

  // What has no code of its own.
  E_SYSTEM: {
    meaning: "A system call failed for a reason that has no code of its own.",
    next: "The message names the call, its arguments and the kernel's answer.",
    status: 1,
  },
  E_LAB: {
    meaning: "The lab's namespaces or devices cannot be set up.",
    next: "Run `bifurcate lab down`, then try again; the message names what failed.",
    status: 1,
  },
  E_GUEST: {
    meaning: "The lab's guest did not come up, died, or hung.",
    next: "Read the guest's console in the message; try it with another --kernel or fewer --nics.",
    status: 1,
  },
  E_GUEST_FETCH: {
    meaning: "What the lab's guest is made of cannot be fetched from Debian's archive.",
    next: "The first use needs the network; look at the reason in the message and try again.",
    status: 77,
  },
  E_GUEST_BUILD: {
    meaning: "A part of the lab's guest cannot be built.",
    next: "Read the tool's words in the message; nothing half made was kept.",
    status: 1,
  },
  E_GUEST_CACHE: {
    meaning: "The cache of what the lab's guest is made of cannot be written, or its disk is full.",
    next: "Free some space, or name another folder with XDG_CACHE_HOME.",
    status: 1,
  },
  E_INTERNAL: {
    meaning: "Bifurcate met a state that should not exist.",
    next: "Please report it with the message and the output of `bifurcate devices --json`.",
    status: 1,
  },
} as const satisfies Record<string, ErrorEntry>;

/** A stable error code. */
export type ErrorCode = keyof typeof ERRORS;
