// A client that writes rubbish into all the memory of its lease while frames flow: what leaves the card, and who is served.

import { spawn, type ChildProcess } from "node:child_process";
import { closeSync, existsSync, openSync, readFileSync } from "node:fs";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { BrokerPlace, HANDLER, NOBODY, opened, OTHER, whatIsLeft, type Running } from "../testing/broker.js";
import { cannotRun, VethPair } from "../testing/veth.js";

const tcpdump = ["/usr/bin/tcpdump", "/usr/sbin/tcpdump"].some((file) => existsSync(file));
const reason = cannotRun() ?? (tcpdump ? null : "needs tcpdump: apt-get install tcpdump");
const POLICY = `
[rubbish]
user = ${NOBODY}
device = card0
flow = udp dst port 7001
transmit = own

[other]
user = ${OTHER}
device = card0
flow = udp dst port 7002
transmit = own
`;

/** What a datagram says that is to be answered with rubbish. */
const MARK = "rubb";
/**
 * Answers, and where a datagram is marked spoils a byte of the answer's headers seven times of eight, and writes over the
 * memory: all of it at first, then a part each time, the frames of this batch among it, and those that the kernel has.
 */
const RUBBISH = `
  let seed = 1, part = -1;
  const random = () => (seed = (Math.imul(seed, 1103515245) + 12345) >>> 0) >>> 8;
  const PARTS = 64;
  export function handle(batch) {
    const { view } = batch;
    let marked = false;
    while (batch.next()) {
      const at = batch.at;
      if (batch.size < 46) continue;
      for (const [a, b, bytes] of [[0, 6, 6], [26, 30, 4], [34, 36, 2]]) {
        for (let i = 0; i < bytes; i++) {
          const byte = view.getUint8(at + a + i);
          view.setUint8(at + a + i, view.getUint8(at + b + i));
          view.setUint8(at + b + i, byte);
        }
      }
      view.setUint16(at + 40, 0);
      if (view.getUint32(at + 42) === ${Buffer.from(MARK).readUInt32BE(0)}) {
        marked = true;
        if (random() % 8 !== 0) view.setUint8(at + random() % 42, random());
      }
      batch.send();
    }
    if (!marked) return;
    const words = new Uint32Array(view.buffer, view.byteOffset, view.byteLength >>> 2);
    const length = part < 0 ? words.length : Math.floor(words.length / PARTS);
    const from = part < 0 ? 0 : (part % PARTS) * length;
    part++;
    for (let at = from; at < from + length; at++) words[at] = random();
  }`;

/** Frames of a file that tcpdump wrote (pcap-savefile(5), in this machine's order of bytes). */
function framesOf(file: string): Buffer[] {
  const bytes = readFileSync(file);
  const frames: Buffer[] = [];
  for (let at = 24; at + 16 <= bytes.length;) {
    const length = bytes.readUInt32LE(at + 8);
    frames.push(bytes.subarray(at + 16, at + 16 + length));
    at += 16 + length;
  }
  return frames;
}

describe.skipIf(reason !== null)(
  `rubbish in the memory of a lease${reason === null ? "" : ` (skipped: ${reason})`}`,
  () => {
    let veth: VethPair;
    let place: BrokerPlace;
    let listening: ChildProcess | undefined;

    beforeEach(async () => {
      veth = new VethPair();
      place = new BrokerPlace(veth.netns);
      place.write(POLICY);
      place.file("rubbish.mjs", RUBBISH);
      place.file("handler.mjs", HANDLER);
      await place.start();
    });
    afterEach(async () => {
      listening?.kill("SIGKILL");
      listening = undefined;
      await place.remove();
      veth.remove();
    });

    const lease = (uid: number, port: number, handler: string): Running =>
      place.client(
        [
          "split",
          veth.card,
          "--flow",
          `udp dst port ${port}`,
          "--do",
          `run=${place.path(handler)}`,
          "--json",
        ],
        uid,
      );

    /** Writes down the frames that reach the far end from now on; ended, gives them. */
    async function caught(): Promise<() => Promise<Buffer[]>> {
      const file = place.path("caught.pcap");
      const out = openSync(file, "w");
      const words = ["netns", "exec", veth.peerNetns, "tcpdump", "-Uni", veth.peer, "-Q", "in", "-w", "-"];
      const child = spawn("ip", words, { stdio: ["ignore", out, "pipe"] });
      listening = child;
      closeSync(out);
      let said = "";
      await new Promise<void>((resolve, reject) => {
        child.stderr!.on("data", (text) => {
          said += String(text);
          if (said.includes("listening on")) resolve();
        });
        child.once("close", () => reject(new Error("tcpdump has ended")));
      });
      return async () => {
        const ended = new Promise((resolve) => child.once("close", resolve));
        child.kill("SIGINT");
        await ended;
        return framesOf(file);
      };
    }

    /**
     * The port that a frame is from: a whole UDP datagram from the card's own address at each layer; else null. The
     * version in an IPv4 header is nobody's business here: pcap-filter(7) goes by the EtherType, and receivers drop it.
     */
    function fromPort(frame: Buffer, mac: string): number | null {
      const port = 14 + (frame[14]! & 0x0f) * 4;
      const whole =
        frame.length >= port + 2 &&
        frame.subarray(6, 12).toString("hex") === mac &&
        frame.readUInt16BE(12) === 0x0800 &&
        frame[23] === 17 &&
        (frame.readUInt16BE(20) & 0x3fff) === 0 &&
        frame.subarray(26, 30).join(".") === veth.address;
      return whole ? frame.readUInt16BE(port) : null;
    }

    /** Whether it is of the card's kernel, or of the other lease: they send nothing that is marked. */
    function isOthers(frame: Buffer, mac: string): boolean {
      if (frame.subarray(42, 46).toString() === MARK) return false;
      const type = frame.readUInt16BE(12);
      const own = frame.subarray(6, 12).toString("hex") === mac && (type === 0x0806 || type === 0x86dd);
      return own || [7000, 7002].includes(fromPort(frame, mac) ?? 0);
    }

    it("sends nothing but answers, and harms neither the kernel, nor another lease, nor the end of its own", async () => {
      const before = whatIsLeft(place);
      await veth.serve(7000);
      const [rubbish, other] = [lease(NOBODY, 7001, "rubbish.mjs"), lease(OTHER, 7002, "handler.mjs")];
      await Promise.all([opened(rubbish), opened(other)]);
      /** Asks until it is answered: what is in its ring is dealt with by then. Each may be lost: written over, or without room. */
      let asked = 0;
      const answered = async (): Promise<void> => {
        do asked++;
        while ((await veth.ask(7001, 1, veth.address, 2000)).answered === 0);
      };
      // The first is written over with all of the memory, and so is what waits behind it.
      await veth.node(
        veth.peerNetns,
        `const socket = require("node:dgram").createSocket("udp4");
         socket.send("${MARK}ish", 7001, "${veth.address}", () => socket.close());`,
      );
      await answered();
      const frames = await caught();
      const sender = veth.node(
        veth.peerNetns,
        `const socket = require("node:dgram").createSocket("udp4");
         socket.on("message", () => {});
         let left = 4000;
         const timer = setInterval(() => {
           for (let n = 0; n < 20 && left > 0; n++, left--) socket.send("${MARK}ish", 7001, "${veth.address}");
           if (left > 0) return;
           clearInterval(timer);
           socket.close();
         }, 5);`,
      );
      expect(await veth.ask(7002, 5)).toEqual({ sent: 5, answered: 5 });
      expect(await veth.ask(7000, 5)).toEqual({ sent: 5, answered: 5 });
      await sender;
      // Behind all of them; and it serves as before.
      await answered();
      expect(await veth.ask(7001, 5)).toEqual({ sent: 5, answered: 5 });
      const came = await frames();
      const mac = (JSON.parse(veth.settings()) as { address: string }[])[0]!.address.replaceAll(":", "");
      const answers = came.filter((frame) => fromPort(frame, mac) === 7001);
      const rest = came.filter((frame) => fromPort(frame, mac) !== 7001 && !isOthers(frame, mac));
      expect(rest.map((frame) => frame.toString("hex"))).toEqual([]);
      // Many are not spoilt, or where nothing is decided by it.
      expect(answers.length).toBeGreaterThan(200);
      expect(await rubbish.end("SIGINT")).toBe(0);
      const { stats } = JSON.parse(rubbish.lines.at(-1)!) as { stats: Record<string, number> };
      expect(stats["received"]).toBeGreaterThan(answers.length);
      expect(stats["received"]).toBeLessThanOrEqual(1 + 4000 + asked + 5);
      expect(stats["sent"]).toBeGreaterThan(answers.length);
      expect(stats["sent"]).toBeLessThanOrEqual(stats["received"]!);
      for (const [name, count] of Object.entries(stats).filter(([, value]) => typeof value === "number")) {
        expect(Number.isSafeInteger(count) && count >= 0, `${name}: ${count}`).toBe(true);
      }
      expect(await veth.ask(7002, 5)).toEqual({ sent: 5, answered: 5 });
      expect(await other.end("SIGINT")).toBe(0);
      await expect.poll(() => whatIsLeft(place), { timeout: 50_000 }).toEqual(before);
    });
  },
);
