// Table, page, types and uses of the error codes hold together.
import { readFileSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { BifurcateError, ERRORS, exitStatus, isErrorCode, wrapError } from "./errors.js";
import { errorsPage } from "./errors-doc.js";

const root = fileURLToPath(new URL("../../", import.meta.url));

function sources(folder: string): string[] {
  return readdirSync(folder).flatMap((name) => {
    const path = join(folder, name);
    if (name === "dist" || name === "node_modules") return [];
    if (statSync(path).isDirectory()) return sources(path);
    return name.endsWith(".ts") && !name.endsWith(".test.ts") ? [path] : [];
  });
}

describe("the table of errors", () => {
  it("is what docs/errors.md says", async () => {
    await expect(errorsPage()).toMatchFileSnapshot(join(root, "docs/errors.md"));
  });

  it("has every code that the source names", () => {
    const unknown = ["control", "bifurcate", "lab"]
      .flatMap((folder) => sources(join(root, folder)))
      .flatMap((path) => [...readFileSync(path, "utf8").matchAll(/"(E_[A-Z0-9_]+)"/g)].map((m) => `${m[1]}`))
      .filter((code) => !isErrorCode(code));
    expect(unknown).toEqual([]);
  });

  it("gives each code a meaning, an advice and a status", () => {
    for (const [code, entry] of Object.entries(ERRORS)) {
      expect(code).toMatch(/^E_[A-Z][A-Z0-9_]*$/);
      expect(entry.meaning).toMatch(/\.$/);
      expect(entry.next.length).toBeGreaterThan(5);
      expect([1, 2, 77]).toContain(entry.status);
    }
  });
});

describe("BifurcateError", () => {
  const error = new BifurcateError("E_FLOW_SYNTAX", {
    what: "read the flow 'udp prot 53'",
    why: "unknown word 'prot' at character 5",
    data: { position: 5 },
  });

  it("says what was tried, why it failed, what to do next, and its code", () => {
    expect(error.render()).toBe(
      "read the flow 'udp prot 53': unknown word 'prot' at character 5\n" +
        "  next: Correct the expression at the character that the message points at.\n" +
        "  code: E_FLOW_SYNTAX",
    );
    expect(exitStatus(error)).toBe(2);
  });

  it("survives JSON", () => {
    const there = JSON.parse(JSON.stringify(error));
    expect(there.error.code).toBe("E_FLOW_SYNTAX");
    expect(BifurcateError.fromJSON(there).render()).toBe(error.render());
  });

  it("gives an errno the code that fits it, and keeps its message", () => {
    const refused = Object.assign(new Error("bind(AF_XDP) dev=eth0: no (EPERM)"), { code: "EPERM" });
    expect(wrapError(refused, "open eth0")).toMatchObject({ code: "E_NOT_PRIVILEGED", cause: refused });
    const busy = Object.assign(new Error("bind(AF_XDP) dev=eth0: busy (EBUSY)"), { code: "EBUSY" });
    expect(wrapError(busy, "open eth0", "E_QUEUE_BUSY").code).toBe("E_QUEUE_BUSY");
    const enter = Object.assign(new Error("setns path=/run/netns/x: Operation not permitted (EPERM)"), {
      code: "EPERM",
    });
    expect(wrapError(enter, "open x").next).toContain("CAP_SYS_ADMIN");
    expect(wrapError(new TypeError("x is undefined"), "open eth0").code).toBe("E_INTERNAL");
    const load = Object.assign(new Error("bpf(BPF_PROG_LOAD): no"), {
      code: "EINVAL",
      call: "bpf(BPF_PROG_LOAD)",
      args: "type=Xdp; the verifier says:\n0: (85) call unknown#189\ninvalid func unknown#189",
    });
    expect(wrapError(load, "open eth0")).toMatchObject({
      code: "E_KERNEL_TOO_OLD",
      status: 77,
      next: expect.stringContaining("5.18") as string,
    });
    // The verifier's EACCES is about the program: no right that the process lacks would change it.
    const words = { code: "EACCES", args: "type=Xdp; the verifier says:\nR1 invalid mem access 'scalar'" };
    expect(wrapError(Object.assign(load, words), "x").code).toBe("E_PROGRAM_REFUSED");
    expect(wrapError(Object.assign(load, { args: "type=Xdp" }), "x").code).toBe("E_NOT_PRIVILEGED");
    expect(wrapError(error, "again")).toBe(error);
    expect(exitStatus(new Error("anything"))).toBe(1);
  });
});
