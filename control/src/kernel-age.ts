// Tells from a refused call that the running kernel lacks a facility, and which version brought it.
import type { KernelError } from "./kernel.js";

/** A facility of the kernel that is not there. */
export interface MissingFacility {
  readonly facility: string;
  /** The first version of Linux that has it. */
  readonly since: string;
}

interface Sign extends MissingFacility {
  readonly call: RegExp;
  readonly code: RegExp;
  readonly args: RegExp;
}

/** Refusals that mean one thing only. Versions are those of the commits that added the facility. */
const SIGNS: readonly Sign[] = [
  {
    call: /^socket\(AF_XDP\)$/,
    code: /^EAFNOSUPPORT$/,
    args: /./s,
    facility: "AF_XDP sockets (CONFIG_XDP_SOCKETS)",
    since: "4.18",
  },
  {
    // kernel/bpf/syscall.c map_create(): a type that the kernel was built without is EINVAL, as any unknown one.
    call: /^bpf\(BPF_MAP_CREATE\)$/,
    code: /^EINVAL$/,
    args: /^type=Xskmap /,
    facility: "AF_XDP sockets (CONFIG_XDP_SOCKETS)",
    since: "4.18",
  },
  {
    call: /BPF_PROG_LOAD/,
    code: /^EINVAL$/,
    // The verifier's words for a helper that it does not know.
    args: /(invalid func unknown#|unknown func )/,
    facility: "the BPF helper bpf_xdp_load_bytes",
    since: "5.18",
  },
  {
    // net/xdp/xsk.c xsk_mmap() before 6.4: a bound socket's rings are not to be mapped any more.
    call: /^mmap\(AF_XDP ring\)$/,
    code: /^EOPNOTSUPP$/,
    args: /^of a socket that is bound/,
    facility: "rings of a bound AF_XDP socket, which a lease's client maps",
    since: "6.4",
  },
  { call: /^bpf\(/, code: /^ENOSYS$/, args: /./s, facility: "bpf(2) (CONFIG_BPF_SYSCALL)", since: "3.18" },
];

/** The facility whose absence explains a refused call; null where something else may be why. */
export function missingFacility(thrown: unknown): MissingFacility | null {
  if (!isKernelError(thrown)) return null;
  // Calls without arguments are matched by their name alone.
  const sign = SIGNS.find(
    ({ call, code, args }) =>
      call.test(thrown.call) && code.test(thrown.code) && args.test(thrown.args || " "),
  );
  return sign === undefined ? null : { facility: sign.facility, since: sign.since };
}

function isKernelError(thrown: unknown): thrown is KernelError {
  return (
    thrown instanceof Error &&
    "code" in thrown &&
    typeof thrown.code === "string" &&
    "call" in thrown &&
    typeof thrown.call === "string" &&
    "args" in thrown &&
    typeof thrown.args === "string"
  );
}
