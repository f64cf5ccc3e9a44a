// A flow on a virtual function of a card, driven by our own driver, while the kernel keeps the card.
import type { Guest } from "@bifurcate/lab/guest/guest";
import { BOOT_LIMIT, sharedGuest } from "@bifurcate/lab/guest/shared";
import { bringUp, takeDown, type Wire } from "@bifurcate/lab/guest/wire";
import { endAll } from "@bifurcate/lab/harness";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { VF_MAC } from "../testing/guest-card.js";
import { endSplit, failure, pings, resolves, shell, startSplit, undone } from "../testing/guest-split.js";

const MINUTES = 600_000;
const FLOW = `ether dst ${VF_MAC} and udp dst port 53`;
const SRIOV = "/sys/class/net/nic0/device";

let guest: Guest;
let igb: Wire;

beforeAll(async () => {
  guest = await sharedGuest({ nics: "igb,e1000e,virtio,vmxnet3", kernel: "lab", iommu: "intel" });
  igb = await bringUp(guest, "nic0");
}, BOOT_LIMIT);

afterEach(() => endAll());

afterAll(async () => {
  await shell(guest, `echo 0 > ${SRIOV}/sriov_numvfs; rm -rf /run/bifurcate`);
  await takeDown(guest, igb);
});

const functions = (): Promise<string> =>
  shell(guest, `cat ${SRIOV}/sriov_numvfs ${SRIOV}/sriov_drivers_autoprobe`);

describe("a split by a virtual function", () => {
  const splitWords = ["nic0", "--backend", "vf", "--flow", FLOW, "--do", "run=examples/dns.ts"];

  it(
    "answers DNS by our own driver while the kernel answers ping on the card, and undoes what it made",
    async () => {
      const address = igb.nic.v4.replace(/\d+$/, "13");
      const { netns, name } = igb.far;
      await shell(
        guest,
        `ip -n ${netns} neigh replace ${address} lladdr ${VF_MAC} dev ${name} nud permanent`,
      );
      const before = await functions();
      const { split, path } = await startSplit(guest, splitWords);
      expect(path).toMatchObject({ backend: "vf", mode: "zero-copy", queues: [0] });
      expect(await shell(guest, "ip link show dev nic0")).toMatch(
        new RegExp(`vf 0 .*${VF_MAC}.*spoof checking on`),
      );
      await resolves(guest, igb, address);
      expect(await pings(guest, igb)).toBe(3);
      const stats = await endSplit(split);
      expect(stats.received).toBeGreaterThan(0);
      expect(stats.sent).toBeGreaterThan(0);
      expect(await functions()).toBe(before);
    },
    MINUTES,
  );

  it(
    "leaves no virtual function when its owner is killed, and says what it cannot do",
    async () => {
      const before = await functions();
      const { process } = await startSplit(guest, splitWords);
      // One, and the kernel's drivers take those that others make.
      expect(await functions()).toBe("1\n1\n");
      process.kill("SIGKILL");
      await process.ended;
      await undone(guest);
      expect(await functions()).toBe(before);
      const refused = (...words: string[]) => failure(guest, ["split", ...words, "--backend", "vf"]);
      expect(await refused("nic0", "--flow", "udp dst port 53")).toMatchObject({ code: "E_BAD_OPTION" });
      expect(await refused("nic1", "--flow", FLOW)).toMatchObject({ code: "E_NO_VF" });
    },
    MINUTES,
  );
});
