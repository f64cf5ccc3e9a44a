// For tests in the lab's guest: echo requests, each with its whole time to be answered on a machine that is busy.

/** Seconds that each may take: a machine may stand still for ten of them. */
const WAIT = 40;

/**
 * A shell command that sends echo requests, up to the first that is not answered, and prints how many were.
 * Each is a ping of its own: a ping that has had one answer waits no longer for the rest than twice the longest round
 * trip or its interval, whatever its -W says (iputils, ping/ping_common.c, schedule_exit()), and calls lost what a
 * busy machine has yet to carry.
 * @param netns The namespace to send from; this one when left out.
 * @param count How many at most.
 * @param size Bytes of each one's data.
 * @param wait Seconds that each may take.
 */
export function countAnswers(
  target: string,
  netns?: string,
  { count = 3, size = 56, wait = WAIT } = {},
): string {
  const inside = netns === undefined ? "" : `ip netns exec ${netns} `;
  const ping = `${inside}ping -n -q -c 1 -s ${size} -W ${wait} ${target} > /dev/null`;
  return `n=0; while [ $n -lt ${count} ] && ${ping}; do n=$((n + 1)); done; echo $n`;
}
