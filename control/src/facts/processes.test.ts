// Identities of processes, as /proc tells them.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:net";
import { statSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { identify, isAlive, ownIdentity, socketHolders } from "./processes.js";

describe("a process", () => {
  it("lives until it has ended, and is not the next one with its number", async () => {
    expect(isAlive(ownIdentity())).toBe(true);
    expect(isAlive({ ...ownIdentity(), startTime: "1" })).toBe(false);
    const child = spawn("cat");
    const identity = identify(child.pid ?? 0);
    if (identity === null) throw new Error("no child");
    expect(isAlive(identity)).toBe(true);
    child.kill("SIGKILL");
    await once(child, "exit");
    expect(isAlive(identity)).toBe(false);
    expect(identify(0x7fffffff)).toBeNull();
  });

  it("hands its variables down to a grandchild, even where they are removed on the way", async () => {
    // sudo does the same: the shell that has SSH_CONNECTION is only an ancestor of the command.
    const module = fileURLToPath(new URL("../../dist/facts/processes.js", import.meta.url));
    const look = `import(${JSON.stringify(module)}).then((m) => console.log(m.inheritedVariable("BIFURCATE_TEST")))`;
    const middle = `env -i "$NODE" -e '${look}'; true`;
    const child = spawn("sh", ["-c", middle], {
      env: { NODE: process.execPath, BIFURCATE_TEST: "from above" },
      stdio: ["ignore", "pipe", "inherit"],
    });
    const [line] = (await once(child.stdout, "data")) as [Buffer];
    expect(line.toString().trim()).toBe("from above");
  });

  it("that holds a socket is found by the socket's inode", async () => {
    const server = createServer();
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const handle: unknown = Reflect.get(server, "_handle");
    const fd: unknown = typeof handle === "object" && handle !== null ? Reflect.get(handle, "fd") : null;
    if (typeof fd !== "number") throw new Error("no descriptor");
    const { ino } = statSync(`/proc/self/fd/${fd}`);
    expect(socketHolders(new Set([ino])).get(ino)).toContain(`(pid ${process.pid})`);
    server.close();
  });
});
