// The list of devices for a person: a table, and below it why a mechanism is not to be had.

import type { Device } from "../device-list.js";
import { renderTable } from "./table.js";

const dash = (text: string | null): string => (text === null || text === "" ? "-" : text);

function queueWords(device: Device): string {
  const { queues } = device;
  if (queues === null) return "-";
  const max = queues.max !== null && queues.max > queues.now ? ` of ${queues.max}` : "";
  return `${queues.now}${max}`;
}

function relationWords(device: Device): string {
  const { relations } = device;
  const words = [
    relations.master === null ? "" : `in ${relations.master.kind ?? "master"} ${relations.master.name}`,
    relations.vlan === null ? "" : `VLAN ${relations.vlan.id} on ${relations.vlan.on ?? "?"}`,
    relations.vlans.length === 0 ? "" : `carries VLANs ${relations.vlans.join(" ")}`,
    relations.ports.length === 0 ? "" : `ports ${relations.ports.join(" ")}`,
  ];
  return words.filter((each) => each !== "").join("; ");
}

/** The speed in Mbit/s as people say it. */
export function speedWords(mbits: number | null): string {
  if (mbits === null) return "-";
  return mbits >= 1000 ? `${mbits / 1000} Gbit/s` : `${mbits} Mbit/s`;
}

/** The whole list. */
export function renderDevices(devices: readonly Device[]): string {
  if (devices.length === 0) return "no devices\n";
  const names = devices[0]!.mechanisms.map((mechanism) => mechanism.name);
  const columns = ["device", "driver", "queues", "speed", "MTU", "state", ...names, "relations"];
  const rows = devices.map((device) => [
    device.name,
    dash(device.driver),
    queueWords(device),
    speedWords(device.speedMbits),
    `${device.mtu}`,
    device.up ? (device.carrier ? "up" : "no carrier") : "down",
    ...names.map((name) =>
      device.mechanisms.find((each) => each.name === name)?.can === true ? "yes" : "no",
    ),
    relationWords(device),
  ]);
  const table = renderTable(
    columns.map((title) => ({ title, right: title === "queues" || title === "MTU" })),
    rows,
  );
  const reasons = devices.map((device) => {
    const lines = device.mechanisms.filter((each) => each.why !== null);
    const text = lines.map((each) => `  ${each.name}: ${each.can ? "" : "no, "}${each.why}\n`).join("");
    return text === "" ? "" : `${device.name}\n${text}`;
  });
  return `${table}\n${reasons.join("")}`;
}
