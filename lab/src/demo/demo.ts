// The demo itself: one card, a DNS server in user space on it, and everything else with the kernel.

import { existsSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { BifurcateError } from "@bifurcate/control/errors";
import { labDown, labList, labUp, type Lab, type LabCard } from "../network.js";
import { differences, snapshot, type Snapshot } from "../snapshot.js";
import { parseCount } from "../traffic/count.js";
import { Program } from "./program.js";
import type { Screen, Way } from "./screen.js";
import { parseEvent, type DemoPath, type SplitEnded, type SplitStarted } from "./split-events.js";

/** The demo's last line. */
export interface DemoResult {
  readonly user: { readonly sent: number; readonly answered: number };
  readonly kernel: { readonly sent: number; readonly answered: number };
  readonly path: DemoPath;
  readonly restored: boolean;
}

const here = (relative: string): string => fileURLToPath(new URL(relative, import.meta.url));
const cli = here("../../../bifurcate/bin/bifurcate.mjs");
const handler = here("../../../examples/dns.ts");
const flow = "udp dst port 53";
/** Echo requests a second, and the seconds that each may take. */
const [PINGS, PING_WAIT] = [10, 2];

/** Everything that has been started, so that it can be ended in the opposite order, however the demo ends. */
class Demo {
  private readonly programs: Program[] = [];
  private readonly ways: Way[] = [];
  private started: SplitStarted | undefined;
  private ended: SplitEnded | undefined;

  constructor(
    private readonly card: LabCard,
    private readonly screen: Screen,
  ) {}

  private start(name: string, netns: string, args: readonly string[], line: (text: string) => void): Program {
    const program = new Program(name, netns, process.execPath, args, line);
    this.programs.push(program);
    return program;
  }

  /** Starts a traffic program in the client's namespace. */
  private client(words: string, path: Way["path"], file: string): void {
    const { peer, v4, v6 } = this.card;
    const way: Way = { path, words, sent: 0, answered: 0 };
    this.ways.push(way);
    const program = this.start(words, peer.netns, [here(`../traffic/${file}`), v4, v6], (text) => {
      const count = parseCount(text);
      Object.assign(way, { sent: count.sent, answered: count.answered });
      if (count.trouble !== null && count.answered < count.sent)
        program.complaints.splice(0, 1, count.trouble);
    });
  }

  /** ICMP, where ping is installed: `[123.4] 64 bytes from` a line an answer, a line of totals at its end. */
  private ping(): void {
    if (!["/bin/ping", "/usr/bin/ping", "/sbin/ping"].some(existsSync)) return;
    const way: Way = { path: "kernel", words: "ICMP echo (ping)", sent: 0, answered: 0 };
    this.ways.push(way);
    let last = 0;
    const line = (text: string): void => {
      if (/ bytes from /.test(text)) {
        way.answered += 1;
        way.sent = Math.max(way.sent, way.answered);
        last = Math.max(last, Number(/icmp_seq=(\d+)/.exec(text)?.[1] ?? 0));
      }
      const totals = /^(\d+) packets transmitted, (\d+) received/.exec(text);
      if (totals === null) return;
      const [transmitted, answered] = [Number(totals[1]), Number(totals[2])];
      // It ends at once when it is told to, whatever is under way: that is not lost before its time is over.
      const underWay = Math.min(transmitted - last, PING_WAIT * PINGS);
      Object.assign(way, { sent: Math.max(answered, transmitted - underWay), answered });
    };
    const paced = ["-i", String(1 / PINGS), "-W", String(PING_WAIT)];
    this.programs.push(new Program("ping", this.card.peer.netns, "ping", [...paced, this.card.v4], line));
  }

  /** Waits for a line that says a program is ready; fails with its own words when it ends instead. */
  private async ready(program: Program, heard: Promise<void>): Promise<void> {
    const outcome = await Promise.race([
      heard.then(() => null),
      program.ended.then((status) => ({ status })),
    ]);
    if (outcome === null) return;
    const why = program.complaints.join("\n  ") || `it ended with status ${outcome.status}`;
    throw new BifurcateError("E_LAB", { what: `start ${program.name} for the demo`, why });
  }

  /** The kernel's services, then the split. */
  async open(): Promise<SplitStarted> {
    const { netns, ifname } = this.card;
    let serving!: () => void;
    const served = new Promise<void>((resolve) => (serving = resolve));
    const server = this.start("the kernel's services", netns, [here("../traffic/kernel-server.js")], () =>
      serving(),
    );
    await this.ready(server, served);

    let splitting!: () => void;
    const split = new Promise<void>((resolve) => (splitting = resolve));
    const args = [cli, "split", ifname, "--flow", flow, "--do", `run=${handler}`, "--json"];
    const program = this.start("bifurcate split", netns, args, (text) => {
      const event = parseEvent(text);
      if (event?.event === "split") {
        this.started = event;
        splitting();
      }
      if (event?.event === "end") this.ended = event;
    });
    await this.ready(program, split);
    return this.started!;
  }

  /** Sends traffic both ways and shows it, for a while or until asked to stop. */
  async traffic(seconds: number, signal: AbortSignal): Promise<void> {
    this.client("DNS (stock resolver)", "user", "resolver.js");
    this.client("HTTP over TCP", "kernel", "http-client.js");
    this.client("UDP echo", "kernel", "echo-client.js");
    this.ping();
    const begin = performance.now();
    let last = begin;
    for (;;) {
      const left = seconds * 1000 - (performance.now() - begin);
      await delay(Math.max(0, Math.min(this.screen.pace, left)), undefined, { signal }).catch(
        () => undefined,
      );
      const now = performance.now();
      const dead = this.programs.find((program) => !program.alive);
      // A rest of some milliseconds would give a rate of its own.
      if (now - last > 100) this.screen.show((now - begin) / 1000, (now - last) / 1000, this.ways);
      last = now;
      if (signal.aborted || now - begin >= seconds * 1000) return;
      if (dead !== undefined) {
        const why = dead.complaints.join("\n  ") || `it ended with status ${await dead.ended}`;
        throw new BifurcateError("E_LAB", { what: `run ${dead.name} in the demo`, why });
      }
    }
  }

  /** Ends the clients, which wait for what is under way, then the split, then the services. */
  async close(): Promise<void> {
    const [services, split, ...clients] = this.programs;
    await Promise.all(clients.map((program) => program.stop()));
    const status = (await split?.stop()) ?? 0;
    await services?.stop();
    if (split === undefined || this.started === undefined || status === 0) return;
    throw new BifurcateError("E_LAB", {
      what: "end the split of the demo",
      why: split.complaints.join("\n  ") || `it ended with status ${status}`,
    });
  }

  /** Adds the ways up. Call it after close(). */
  result(restored: boolean): DemoResult {
    const total = (path: Way["path"]): { sent: number; answered: number } => ({
      sent: this.ways.reduce((sum, way) => sum + (way.path === path ? way.sent : 0), 0),
      answered: this.ways.reduce((sum, way) => sum + (way.path === path ? way.answered : 0), 0),
    });
    const { backend, mode, steering } = this.started!.path;
    return { user: total("user"), kernel: total("kernel"), path: { backend, mode, steering }, restored };
  }

  report(): void {
    this.screen.table(this.ways);
    const { ended } = this;
    if (ended !== undefined) {
      const { received, sent } = ended.stats;
      this.screen.say(`  The handler itself counted ${received} frames received and ${sent} answers sent.`);
    }
    for (const program of this.programs) {
      if (program.complaints.length > 0) this.screen.say(`  ${program.name}: ${program.complaints.at(-1)}`);
    }
  }
}

/** What a user sees before the traffic begins. */
function explain(screen: Screen, lab: Lab, started: SplitStarted): void {
  const [card] = lab.cards;
  const { path } = started;
  screen.say(`  card ${card!.ifname} in ${card!.netns}, addresses ${card!.v4} and ${card!.v6}`);
  screen.say(
    `  '${flow}' goes to ${handler.replace(/^.*\/(?=examples\/)/, "")}, everything else stays with the kernel`,
  );
  screen.say(
    `  path: ${path.backend}, ${path.mode}, queues ${path.queues.join(",")}, steering by ${path.steering}`,
  );
  for (const note of path.notes) screen.say(`  note: ${note}`);
  screen.say("");
}

/**
 * Builds the lab, splits its card, sends real traffic both ways, and takes everything down again.
 * @param signal Ends it early, in good order.
 * @throws BifurcateError when something could not be started; nothing is left behind then either.
 */
export async function runDemo(seconds: number, screen: Screen, signal: AbortSignal): Promise<DemoResult> {
  screen.say("one card, two drivers: DNS is answered in user space, the kernel keeps the rest\n");
  const lab = await labUp({ name: `d${process.pid}` });
  let demo: Demo | undefined;
  try {
    const card = lab.cards[0]!;
    const before = await snapshot(card.netns, card.ifname);
    demo = new Demo(card, screen);
    explain(screen, lab, await demo.open());
    await demo.traffic(seconds, signal);
    await demo.close();
    demo.report();
    const changed = await changes(card, before);
    for (const line of changed) screen.say(`  not restored: ${line}`);
    await labDown(lab.name);
    const left = (await labList()).some((each) => each.name === lab.name);
    if (changed.length === 0 && !left)
      screen.say("  Every setting of the card is as it was, and the lab is gone.\n");
    return demo.result(changed.length === 0 && !left);
  } catch (error) {
    await demo?.close().catch(() => undefined);
    await labDown(lab.name).catch(() => undefined);
    throw error;
  }
}

async function changes(card: LabCard, before: Snapshot): Promise<string[]> {
  return differences(before, await snapshot(card.netns, card.ifname));
}
