// A split of a veth card where the kernel lacks what AF_XDP needs: a step down that names the version, or an error.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { split, type Port, type SplitOptions } from "bifurcate";
import { NativeKernel } from "@bifurcate/addon";
import { cannotRun, VethPair } from "../testing/veth.js";

/** The kernel's refusal as the addon throws it. */
function refused(call: string, args: string): Error {
  return Object.assign(new Error(`${call} ${args}: Invalid argument (EINVAL)`), {
    code: "EINVAL",
    call,
    args,
  });
}

/** Makes the kernel one without AF_XDP; gives its memory back. */
function withoutAfXdp(): () => void {
  const real = NativeKernel.prototype.createMap;
  const spy = vi.spyOn(NativeKernel.prototype, "createMap").mockImplementation(function (
    this: NativeKernel,
    options,
  ) {
    if (options.type !== "xskmap") return real.call(this, options);
    throw refused("bpf(BPF_MAP_CREATE)", "type=Xskmap name=bifurcate key=4 value=4 entries=256");
  });
  return () => spy.mockRestore();
}

/** Makes the kernel one older than 5.18, whose verifier does not know the helper; gives its memory back. */
function withoutLoadBytes(): () => void {
  const real = NativeKernel.prototype.loadProgram;
  const spy = vi.spyOn(NativeKernel.prototype, "loadProgram").mockImplementation(function (
    this: NativeKernel,
    source,
  ) {
    if (source.type !== "xdp") return real.call(this, source);
    throw refused(
      "bpf(BPF_PROG_LOAD)",
      "type=Xdp name=bifurcate; the verifier says:\n0: (85) call unknown#189\ninvalid func unknown#189",
    );
  });
  return () => spy.mockRestore();
}

const reason = cannotRun();

describe.skipIf(reason !== null)(
  `on a kernel that is too old, a split${reason === null ? "" : ` (skipped: ${reason})`}`,
  () => {
    let veth: VethPair;
    let state: string;
    let port: Port | undefined;
    let modern: (() => void) | undefined;

    beforeEach(() => {
      veth = new VethPair();
      state = mkdtempSync(path.join(tmpdir(), "bifurcate-test-"));
    });
    afterEach(async () => {
      modern?.();
      await port?.close().catch(() => undefined);
      port = undefined;
      veth.remove();
      rmSync(state, { recursive: true, force: true });
    });

    const open = (options: Partial<SplitOptions>): Promise<Port> =>
      split(veth.card, {
        flows: ["udp dst port 7777"],
        netns: veth.netns,
        stateDirectory: state,
        ...options,
      });

    it.each([
      ["AF_XDP sockets (CONFIG_XDP_SOCKETS), which Linux has since 4.18", withoutAfXdp],
      ["the BPF helper bpf_xdp_load_bytes, which Linux has since 5.18", withoutLoadBytes],
    ])("goes on with packet sockets, or says so: %s", async (lacks, age) => {
      const before = veth.settings();
      modern = age();
      await expect(open({ backend: "af_xdp" })).rejects.toMatchObject({
        code: "E_KERNEL_TOO_OLD",
        status: 77,
        why: expect.stringContaining(`the running kernel lacks ${lacks}`) as string,
      });
      expect(veth.settings()).toBe(before);

      port = await open({});
      expect(port.path).toMatchObject({ backend: "af_packet", steering: "packet-socket" });
      expect(port.path.notes.join("\n")).toContain(`the running kernel lacks ${lacks}`);
      let received = 0;
      const run = port.run((batch) => {
        received += batch.count;
      });
      await veth.tell(7777, 1);
      await vi.waitFor(() => expect(received).toBe(1), 60_000);
      await port.close();
      await run;
      expect(received).toBe(1);
      expect(veth.settings()).toBe(before);
    });
  },
);
