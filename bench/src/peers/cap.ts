// The npm package `cap` (libpcap from Node), the peer of the `node` bench: fetched and built on first use, outside the workspace.
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { output } from "../child.js";

const version = "0.2.1";

/** The folder in which `require("cap")` works; builds it there with the node-gyp that npm brings. */
export async function installCap(root: string, progress: (text: string) => void): Promise<string> {
  const folder = path.join(root, ".setup", "peers", `cap-${version}`);
  const module = path.join(folder, "node_modules", "cap");
  if (existsSync(path.join(module, "build", "Release", "cap.node"))) return folder;
  mkdirSync(folder, { recursive: true });
  writeFileSync(path.join(folder, "package.json"), JSON.stringify({ private: true }));
  progress(`installing the peer: npm install cap@${version}`);
  await output("npm", ["install", `cap@${version}`, "--ignore-scripts", "--no-audit", "--no-fund"], {
    cwd: folder,
  });
  const globals = (await output("npm", ["root", "-g", "--loglevel=error"])).trim().split("\n").at(-1)!;
  const gyp = path.join(globals, "npm", "node_modules", "node-gyp", "bin", "node-gyp.js");
  const prefix = path.dirname(path.dirname(process.execPath));
  const headers = existsSync(path.join(prefix, "include", "node", "node.h")) ? [`--nodedir=${prefix}`] : [];
  progress("building it with node-gyp");
  await output(process.execPath, [gyp, "rebuild", ...headers], { cwd: module });
  return folder;
}
