// virtio over vhost-user against DPDK's: our driver, our device end, a TypeScript handler, both together; and latency.
import { writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Child, lastJson } from "../child.js";
import { takeHugepages } from "../hugepages.js";
import { buildExamples } from "../native.js";
import { ALONE, End, fresh, present } from "../peers/end.js";
import { interleave, toText, type Result } from "../rows.js";
import { plot } from "../plot.js";
import type { Bench, BenchOptions } from "./bench.js";
import { drawn, rows, tables, tripRows, type Run, type Trip } from "./virtio-rows.js";

/** Two testpmds with `-m 512`, and pools of ours. */
const PAGES = 560;

interface Shape {
  readonly burst: number;
  readonly length: number;
}

/** The rows with targets first, then other bursts and lengths. */
const SHAPES: readonly Shape[] = [
  { burst: 32, length: 64 },
  { burst: 32, length: 1500 },
  { burst: 1, length: 64 },
  { burst: 4, length: 64 },
  { burst: 256, length: 64 },
];

class Setting {
  readonly socket = path.join(os.tmpdir(), `bf-bench-${process.pid}.sock`);

  constructor(
    private readonly options: BenchOptions,
    private readonly program: string,
  ) {}

  get seconds(): number {
    return this.options.seconds;
  }

  /** Starts our program as one end; it ends by itself and its last line is its result. */
  ours(
    end: "driver" | "device",
    work: string,
    core: 0 | 1,
    shape: Shape,
    more: readonly string[] = [],
  ): Ours {
    const args = [end, "--do", work, "--path", this.socket, ...(end === "device" ? ["--server"] : [])];
    const rest = ["--core", String(core), "--burst", String(shape.burst), "--length", String(shape.length)];
    return this.program_([this.program, ...args, ...rest, ...more]);
  }

  program_(words: readonly string[], environment: readonly string[] = ALONE): Ours {
    const [command, ...rest] = [...environment, ...words];
    const child = new Child(command!, rest);
    const shown = words.map((word) =>
      word.startsWith(this.options.root) ? path.relative(this.options.root, word) : word,
    );
    return new Ours(child, shown.join(" "));
  }
}

class Ours {
  constructor(
    private readonly child: Child,
    readonly command: string,
  ) {}

  async result<T>(): Promise<T> {
    const status = await this.child.ended;
    if (status !== 0) throw new Error(`'${this.command}' ended with ${status}:\n${this.child.output}`);
    return lastJson<T>(this.child.output);
  }

  async saw(pattern: RegExp): Promise<void> {
    await this.child.saw(pattern);
  }

  async end(): Promise<void> {
    await this.child.end();
  }
}

interface OursResult {
  readonly pps: number;
  readonly cycles: number;
}

const commands = (near: Ours | End, far: Ours | End) => ({ command: near.command, farCommand: far.command });

const vhost = (socket: string) => `net_vhost0,iface=${socket}`;
const virtioUser = (socket: string) => `net_virtio_user0,path=${socket}`;

/** The driver's side: receiving what the same net_vhost sends. */
async function driver(at: Setting, shape: Shape, ours: boolean): Promise<Run> {
  const far = await End.start({
    vdev: vhost(fresh(at.socket)),
    forward: "txonly",
    core: 1,
    ...shape,
    burst: 32,
  });
  try {
    far.forward();
    if (ours) {
      const near = at.ours("driver", "receive", 0, shape, ["--seconds", String(at.seconds + 1)]);
      await sleep(1000);
      const rate = await far.measure(Math.max(1, at.seconds - 1));
      const result = await near.result<OursResult>();
      return { pps: result.pps, cycles: result.cycles, far: rate.cycles, ...commands(near, far) };
    }
    const near = await End.start({ vdev: virtioUser(at.socket), forward: "rxonly", core: 0, ...shape });
    try {
      near.forward();
      await sleep(700);
      const [rate, their] = await Promise.all([near.measure(at.seconds), far.measure(at.seconds)]);
      return { pps: rate.rx, cycles: rate.cycles, far: their.cycles, ...commands(near, far) };
    } finally {
      await near.end();
    }
  } finally {
    await far.end();
  }
}

/** The device's side: sending to the same net_virtio_user, whose count is taken for both. */
async function device(at: Setting, shape: Shape, ours: boolean): Promise<Run> {
  fresh(at.socket);
  const near = ours
    ? at.ours("device", "send", 1, shape, ["--seconds", String(at.seconds + 2)])
    : await End.start({ vdev: vhost(at.socket), forward: "txonly", core: 1, ...shape });
  try {
    await present(at.socket);
    const far = await End.start({
      vdev: virtioUser(at.socket),
      forward: "rxonly",
      core: 0,
      ...shape,
      burst: 32,
    });
    try {
      far.forward();
      if (near instanceof End) near.forward();
      await sleep(700);
      const [rate, own] = await Promise.all([
        far.measure(at.seconds),
        near instanceof End ? near.measure(at.seconds) : near.result<OursResult>(),
      ]);
      return { pps: rate.rx, cycles: own.cycles, far: rate.cycles, ...commands(near, far) };
    } finally {
      await far.end();
    }
  } finally {
    await near.end();
  }
}

/** Packets under way where both ends swap MAC addresses: so many bursts of so many. */
const FIRST = { bursts: 8, burst: 32 };
const UNDER_WAY = FIRST.bursts * FIRST.burst;

/** There and back: each end swaps MAC addresses, with UNDER_WAY packets under way. */
async function both(at: Setting, shape: Shape, ours: boolean): Promise<Run> {
  fresh(at.socket);
  if (ours) {
    const far = at.ours("device", "reflect", 1, shape, ["--seconds", String(at.seconds + 2)]);
    try {
      await present(at.socket);
      const near = at.ours("driver", "reflect", 0, shape, [
        ...["--first", String(UNDER_WAY), "--seconds", String(at.seconds)],
      ]);
      const [result, their] = await Promise.all([near.result<OursResult>(), far.result<OursResult>()]);
      return { pps: result.pps, cycles: result.cycles, far: their.cycles, ...commands(near, far) };
    } finally {
      await far.end();
    }
  }
  const far = await End.start({ vdev: vhost(at.socket), forward: "macswap", core: 1, ...shape });
  try {
    far.forward();
    return await reflected(at, far, shape);
  } finally {
    await far.end();
  }
}

/** The peer's near end, which sends the first packets: in bursts of one that would take it very long. */
async function reflected(at: Setting, far: End, shape: Shape): Promise<Run> {
  const vdev = virtioUser(at.socket);
  const near = await End.start({ vdev, forward: "macswap", core: 0, ...shape, burst: FIRST.burst });
  try {
    near.forward(FIRST.bursts);
    near.burst(shape.burst);
    await sleep(700);
    const [rate, their] = await Promise.all([near.measure(at.seconds), far.measure(at.seconds)]);
    return { pps: rate.rx, cycles: rate.cycles, far: their.cycles, ...commands(near, far) };
  } finally {
    await near.end();
  }
}

/** A handler in TypeScript that swaps MAC addresses, against macswap, at the same net_vhost that gives everything back. */
async function typescript(at: Setting, root: string, shape: Shape, ours: boolean): Promise<Run> {
  const far = await End.start({ vdev: vhost(fresh(at.socket)), forward: "macswap", core: 1, ...shape });
  try {
    if (!ours) {
      far.forward();
      return await reflected(at, far, shape);
    }
    const subject = path.join(root, "bench", "dist", "subjects", "virtio-ts.js");
    const near = at.program_(["taskset", "-c", "0", "node", subject, at.socket, String(at.seconds)]);
    try {
      // Packets that came before would be lost, and nothing go round.
      await near.saw(/^open$/m);
      await sleep(500);
      far.forward(FIRST.bursts);
      // Its window begins 3 s after `open`. What its loop costs it does not count: half of a turn is JavaScript's.
      await sleep(2500);
      const [result, their] = await Promise.all([near.result<{ pps: number }>(), far.measure(at.seconds)]);
      if (result.pps === 0) throw new Error(`'${near.command}': nothing goes round`);
      return { pps: result.pps, cycles: null, far: their.cycles, ...commands(near, far) };
    } finally {
      await near.end();
    }
  } finally {
    await far.end();
  }
}

/** One packet there and back at a time, from our driver on both sides: to our device end, or to net_vhost in macswap. */
async function latency(at: Setting, ours: boolean): Promise<Trip> {
  const shape = { burst: 32, length: 64 };
  fresh(at.socket);
  const far = ours
    ? at.ours("device", "reflect", 1, shape, ["--seconds", String(at.seconds + 3)])
    : await End.start({ vdev: vhost(at.socket), forward: "macswap", core: 1, ...shape });
  try {
    await present(at.socket);
    if (far instanceof End) far.forward();
    await sleep(300);
    const near = at.ours("driver", "probe", 0, shape, ["--seconds", String(at.seconds)]);
    return { ...(await near.result<Omit<Trip, "command" | "farCommand">>()), ...commands(near, far) };
  } finally {
    await far.end();
  }
}

/** The rows of one packet there and back at a time. */
async function trips(at: Setting, options: BenchOptions): Promise<Result[]> {
  const { ours, peer } = await interleave(
    options.runs,
    () => latency(at, true),
    () => latency(at, false),
    (text) => options.progress(`virtio/latency: ${text}`),
  );
  return tripRows(ours, peer);
}

export const virtio: Bench = {
  name: "virtio",
  takes: ["plot", "table", "targets"],
  about: "virtio over vhost-user : testpmd's, one core a side: driver, device end, TypeScript, both, latency",
  async run(options: BenchOptions): Promise<Result[]> {
    const examples = await buildExamples(options.root, options.progress);
    const giveBack = takeHugepages(PAGES);
    const at = new Setting(options, path.join(examples, "virtio_bench"));
    const results: Result[] = [];
    try {
      const measure = async (
        of: string,
        shape: Shape,
        target: number | null,
        run: (ours: boolean) => Promise<Run>,
      ) => {
        const runs = await interleave(
          options.runs,
          () => run(true),
          () => run(false),
          (text) => options.progress(`virtio/${of} ${shape.length} B burst ${shape.burst}: ${text}`),
        );
        const measured = rows(`${of} ${shape.length} B burst ${shape.burst}`, target, runs.ours, runs.peer);
        for (const row of measured) options.progress(toText(row));
        results.push(...measured);
      };
      for (const shape of options.targets === true ? SHAPES.slice(0, 1) : SHAPES) {
        const first = shape === SHAPES[0];
        await measure("driver", shape, first ? 1 : null, (ours) => driver(at, shape, ours));
        await measure("device", shape, first ? 1 : null, (ours) => device(at, shape, ours));
        await measure("both", shape, first ? 1.2 : null, (ours) => both(at, shape, ours));
        if (first) await measure("ts", shape, 0.8, (ours) => typescript(at, options.root, shape, ours));
      }
      if (options.targets !== true) results.push(...(await trips(at, options)));
    } finally {
      fresh(at.socket);
      giveBack();
    }
    if (options.plot !== undefined)
      plot(options.plot, "virtio over vhost-user, ours : DPDK's", drawn(results));
    if (options.table !== undefined) writeFileSync(options.table, tables(results));
    return results;
  },
};
