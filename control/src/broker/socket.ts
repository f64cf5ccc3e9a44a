// Where broker and clients meet.

/** The broker's socket: BIFURCATE_BROKER, or the usual place. */
export function brokerSocket(): string {
  const named = process.env["BIFURCATE_BROKER"];
  return named === undefined || named === "" ? "/run/bifurcate/broker.sock" : named;
}
